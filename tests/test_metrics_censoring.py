"""Censoring weights where follow-up ends: administrative censoring, ties, last days that differ; by hand and by scikit-survival."""

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from sklearn.metrics import accuracy_score, brier_score_loss, recall_score, roc_auc_score
from sksurv import metrics as peer
from sksurv.util import Surv

from survpack import conformal, metrics, subgroups
from survpack.metrics.censoring import inverse_weights, uno_weights
from survpack.metrics.probability import brier_at, ibs_null
from survpack.metrics.ranking import auc_at
from survpack.prognosis import Prognosis


def outcome_of(time, event) -> pd.DataFrame:
    ids = [f"P{number:04d}" for number in range(len(time))]
    return pd.DataFrame({"patient_id": ids, "time_days": np.asarray(time, float), "event": np.asarray(event, bool)})


def structured(outcome):
    """For scikit-survival, which weighs a death by G(T): censorings a moment after the deaths of their day, as we have them."""
    later = outcome["time_days"] + np.where(outcome["event"], 0, 1e-3)
    return Surv.from_arrays(outcome["event"], later)


def drawn(patients: int, seed: int, last: float, *, dropout=None, width=1, mean=700) -> tuple[pd.DataFrame, np.ndarray]:
    """Deaths of a known risk, in steps of `width` days; all who are left are censored on day `last`."""
    rng = np.random.default_rng(seed)
    risk = np.round(rng.normal(size=patients), 1)
    death = np.ceil(rng.exponential(mean * np.exp(-risk)) / width) * width
    lost = np.full(patients, np.inf) if dropout is None else np.ceil(rng.exponential(dropout, patients) / width) * width
    time = np.minimum(np.minimum(death, lost), last)
    return outcome_of(time, death <= np.minimum(lost, last)), risk


def prognosis_of(outcome, risk, times, mean=700) -> Prognosis:
    times = np.asarray(times, float)
    curves = np.exp(-np.outer(np.exp(risk), times) / mean)
    table = outcome[["patient_id"]].assign(cohort="c", model="m", seed=0, repeat=0, fold=0, split="cv", risk=risk)
    columns = pd.DataFrame(curves, columns=[f"s_{k}" for k in range(len(times))])
    return Prognosis(pd.concat([table.assign(days=mean * np.exp(-risk)), columns], axis=1), times)


def arrays(outcome):
    return outcome["time_days"].to_numpy(), outcome["event"].to_numpy()


# --- everyone censored on one day


@pytest.mark.parametrize("patients", [30, 60, 200])
@pytest.mark.parametrize("last", [366, 400, 900, 5000])
def test_where_all_are_censored_on_one_day_uno_is_harrell_and_scikit_survivals(patients, last):
    outcome, risk = drawn(patients, patients + last, last)
    kept = ~(outcome["event"] & (outcome["time_days"] == last))  # whom scikit-survival cannot weigh
    outcome, risk = outcome[kept].reset_index(drop=True), risk[kept]
    found = metrics.scores(prognosis_of(outcome, risk, [365]), outcome, outcome, 365)
    assert found["uno_c"] == pytest.approx(found["harrell_c"], abs=1e-12)
    theirs = peer.concordance_index_ipcw(structured(outcome), structured(outcome), risk)[0]
    assert found["uno_c"] == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("horizon", [365, 399, 400])
def test_up_to_the_day_on_which_all_are_censored_every_score_is_that_of_a_known_fate(horizon):
    """Last death before the horizon, horizon on the very day: nobody's fate is hidden."""
    outcome, risk = drawn(80, 3, 400)
    time, event = arrays(outcome)
    assert time[event].max() < 399 and (time == 400).sum() > 20
    prognosis = prognosis_of(outcome, risk, [horizon])
    dead, predicted = event & (time <= horizon), 1 - prognosis.survival[:, 0]
    found = metrics.scores(prognosis, outcome, outcome, horizon)
    assert found["brier"] == pytest.approx(brier_score_loss(dead, predicted), abs=1e-12)
    assert found["auc"] == pytest.approx(roc_auc_score(dead, predicted), abs=1e-12)
    sample = metrics.Sample.of(prognosis, outcome)
    told = metrics.day_scores(sample, horizon, outcome, risk=predicted, called=predicted >= 0.5)
    assert told["auc"] == told["auc_known"] == pytest.approx(roc_auc_score(dead, predicted), abs=1e-12)
    assert told["accuracy"] == pytest.approx(accuracy_score(dead, predicted >= 0.5))
    assert told["sensitivity"] == pytest.approx(recall_score(dead, predicted >= 0.5))
    assert told["specificity"] == pytest.approx(recall_score(~dead, predicted < 0.5))


def test_past_the_day_on_which_all_are_censored_nothing_is_told():
    outcome, risk = drawn(80, 3, 400)
    prognosis = prognosis_of(outcome, risk, [401])
    found = metrics.scores(prognosis, outcome, outcome, 401)
    assert np.isnan([found[name] for name in ("brier", "auc", "ici", "calibration_slope")]).all()
    assert np.isfinite(found["uno_c"])
    told = metrics.day_scores(metrics.Sample.of(prognosis, outcome), 401, outcome, risk=risk, called=risk > 0)
    assert np.isnan(list(told.values())).all()  # only the dead are known


def test_deaths_on_the_day_on_which_all_are_censored_are_dead_on_it():
    """Time in months: the tie of deaths and censorings is on the last day."""
    outcome, risk = drawn(120, 5, 360, width=30)
    time, event = arrays(outcome)
    assert (event & (time == 360)).sum() == 2
    predicted = 1 - prognosis_of(outcome, risk, [360]).survival[:, 0]
    assert brier_at(time, event, 1 - predicted, 360, outcome) == pytest.approx(brier_score_loss(event, predicted))
    assert auc_at(time, event, predicted, 360, outcome) == pytest.approx(roc_auc_score(event, predicted), abs=1e-12)
    uno = metrics.concordance(time, event, risk, case_weights=uno_weights(time, outcome))
    before = event & (time < 360)  # Uno's C up to a day is of deaths before it, in scikit-survival too
    assert uno == pytest.approx(metrics.concordance(time, before, risk), abs=1e-12)
    theirs = peer.concordance_index_ipcw(structured(outcome), structured(outcome), risk, tau=360)[0]
    assert uno == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_with_earlier_losses_the_last_day_weighs_as_scikit_survival_does_just_before_it(seed):
    outcome, risk = drawn(150, seed, 400, dropout=1500)
    outcome = outcome[~(outcome["event"] & (outcome["time_days"] >= 400))]
    time, event = arrays(outcome)
    lost = ~event & (time < 400)
    assert lost.sum() > 10 and (time == 400).sum() > 30
    risk = risk[outcome.index]
    survival = prognosis_of(outcome.reset_index(drop=True), risk, [400]).survival
    found = brier_at(time, event, survival[:, 0], 400, outcome)
    theirs = peer.brier_score(structured(outcome), structured(outcome), survival, [399.999])[1][0]
    assert found == pytest.approx(theirs, abs=1e-9)
    found = auc_at(time, event, risk, 400, outcome)
    theirs = peer.cumulative_dynamic_auc(structured(outcome), structured(outcome), risk, [399.999], tied_tol=0)[0][0]
    assert found == pytest.approx(theirs, abs=1e-9)


def test_a_group_scored_by_itself_has_kaplan_meier_for_its_null():
    outcome, risk = drawn(90, 8, 400)
    prognosis = prognosis_of(outcome, risk, [100, 200, 300, 400])
    time, event = arrays(outcome)
    null = KaplanMeierFitter().fit(time, event).survival_function_at_times([100, 200, 300, 400]).to_numpy()
    each = [((event & (time <= day)) * s**2 + (time >= day) * ~(event & (time <= day)) * (1 - s) ** 2).mean()
            for day, s in zip([100, 200, 300, 400], null, strict=True)]  # fmt: skip
    assert ibs_null(prognosis, outcome, outcome) == pytest.approx(np.trapezoid(each, [100, 200, 300, 400]) / 300)


# --- siblings: where follow-up ends in other ways, beside scikit-survival wherever it answers


def last_is(outcome, event: bool):
    outcome = outcome.copy()
    outcome.loc[len(outcome)] = ["LAST", outcome["time_days"].max() + 7, event]
    return outcome


SCENES = {  # training and scored patients
    "one day": lambda seed: (drawn(120, seed, 800)[0], drawn(90, seed + 100, 800)),
    "one day, early losses": lambda seed: (
        drawn(150, seed, 800, dropout=2000)[0], drawn(90, seed + 100, 800, dropout=2000)),
    "time in months": lambda seed: (
        drawn(150, seed, 810, dropout=1500, width=30)[0], drawn(90, seed + 100, 810, dropout=1500, width=30)),
    "scored followed for less": lambda seed: (
        drawn(150, seed, 1200, dropout=2000)[0], drawn(90, seed + 100, 500, dropout=2000)),
    "scored followed for longer": lambda seed: (
        drawn(150, seed, 500, dropout=2000)[0], drawn(90, seed + 100, 1200, dropout=2000)),
    "two days": lambda seed: (
        pd.concat([drawn(80, seed, 365)[0], drawn(80, seed + 7, 800)[0]]).assign(
            patient_id=[f"T{k}" for k in range(160)]), drawn(90, seed + 100, 800)),
    "nobody censored": lambda seed: (drawn(120, seed, np.inf)[0], drawn(90, seed + 100, np.inf)),
    "last a death": lambda seed: (last_is(drawn(120, seed, 800, dropout=900)[0], True), drawn(90, seed + 100, 700)),
    "last censored": lambda seed: (last_is(drawn(120, seed, 800, dropout=900)[0], False), drawn(90, seed + 100, 700)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # scikit-survival's, where nobody has died yet
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scene", SCENES)
def test_scores_are_those_of_scikit_survival_wherever_it_answers(scene, seed):
    train, (outcome, risk) = SCENES[scene](seed)
    time, event = arrays(outcome)
    end = train["time_days"].max()
    times = metrics.valid_times(np.arange(15.0, 1500, 15), time, train)
    times = times[times < end]
    assert len(times) > 10
    curves = prognosis_of(outcome, risk, times).survival
    # scikit-survival refuses who outlived the training patients: all who outlive the times asked about are censored
    later = outcome["time_days"] > times[-1]
    cut = outcome.assign(
        time_days=outcome["time_days"].mask(later, (times[-1] + end) / 2), event=outcome["event"] & ~later
    )
    peers = structured(train), structured(cut)
    found = metrics.brier(time, event, curves, times, train)
    np.testing.assert_allclose(found, peer.brier_score(*peers, curves, times)[1], atol=1e-9)
    found = metrics.cumulative_auc(time, event, 1 - curves, times, train)
    np.testing.assert_allclose(found, peer.cumulative_dynamic_auc(*peers, 1 - curves, times, tied_tol=0)[0], atol=1e-9)
    for tau in (metrics.censoring_reach(train), np.median(time), time[event].max()):
        tau = min(tau, metrics.censoring_reach(train))
        found = metrics.concordance(time, event, risk, case_weights=uno_weights(time, train, tau))
        theirs = peer.concordance_index_ipcw(structured(train), structured(outcome), risk, tau=tau)[0]
        assert found == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("scene", SCENES)
def test_the_scores_of_a_scene_are_finite_within_follow_up_and_none_is_out_of_bounds(scene):
    train, (outcome, risk) = SCENES[scene](1)
    found = metrics.scores(prognosis_of(outcome, risk, [100, 200, 300, 365]), outcome, train, 365)
    assert all(0 <= found[name] <= 1 for name in ("harrell_c", "uno_c", "auc", "brier", "ibs", "ici"))


def test_a_model_scored_where_follow_up_is_longer_than_the_training_patients_is_told_their_last_day_and_no_later():
    train, (outcome, risk) = drawn(150, 0, 365)[0], drawn(90, 1, 1200)
    time, event = arrays(outcome)
    survival = prognosis_of(outcome, risk, [365]).survival[:, 0]
    dead = event & (time <= 365)
    assert brier_at(time, event, survival, 365, train) == pytest.approx(((dead - (1 - survival)) ** 2).mean())
    assert auc_at(time, event, 1 - survival, 365, train) == pytest.approx(roc_auc_score(dead, 1 - survival), abs=1e-12)
    assert np.isnan(brier_at(time, event, survival, 366, train))


def test_weights_are_one_where_nobody_was_lost_and_are_held_from_where_too_few_are_left():
    train = outcome_of([100, 200, 300, 400, 400, 400], [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(inverse_weights(train, [0, 300, 399, 400, 1000]), 1)
    assert metrics.censoring_reach(train) == 400
    train = outcome_of(np.arange(1.0, 101), np.zeros(100))  # one is lost a day
    assert metrics.censoring_reach(train) == 96  # after it 4 of 100 are left
    np.testing.assert_allclose(inverse_weights(train, [50, 95, 96, 99], before=False), [2, 20, 20, 20])
    np.testing.assert_allclose(inverse_weights(train, [50, 96, 97, 99]), [100 / 51, 20, 20, 20])


def test_where_all_are_censored_only_the_living_can_be_scored():
    outcome, risk = drawn(40, 2, 300)
    outcome = outcome.assign(event=False, time_days=300.0)
    prognosis = prognosis_of(outcome, risk, [200, 300])
    found = metrics.scores(prognosis, outcome, outcome, 300)
    assert found["brier"] == pytest.approx(((1 - prognosis.survival[:, 1]) ** 2).mean())
    assert np.isnan([found[name] for name in ("harrell_c", "uno_c", "auc", "mae_days")]).all()


def test_a_death_and_a_censoring_on_one_day_the_dead_went_first():
    outcome = outcome_of([10, 10, 20, 20], [1, 0, 1, 0])
    time, event = arrays(outcome)
    assert metrics.concordance(time, event, [4, 3, 2, 1]) == 1
    assert metrics.concordance(time, event, [3, 4, 2, 1]) == pytest.approx(3 / 4)
    # G falls after the death of day 10: to 2 / 3
    np.testing.assert_allclose(inverse_weights(outcome, [9, 10], before=False), [1, 1.5])
    np.testing.assert_allclose(inverse_weights(outcome, [10, 11]), [1, 1.5])


# --- a coarse scale: every quarter of a year both deaths and censorings


def quarterly():
    """Every death beside every day of censoring, as often as it is likely: what is estimated of them is the expectation."""
    deaths = {0: [1, 1, 2, 3, 3, 4, 5, 5], 1: [1, 1, 1, 2, 2, 3, 4, 5]}
    every = [(risk, died, last) for risk, days in deaths.items() for died in days for last in (1, 2, 2, 3, 5, 6)]
    risk, died, last = 91.0 * np.array(every).T
    return risk / 91, died, outcome_of(np.minimum(died, last), died <= last)


def test_of_exact_probabilities_on_a_coarse_scale_every_weighted_score_is_that_of_the_uncensored():
    risk, died, outcome = quarterly()
    known, (time, event), times = outcome_of(died, died > 0), arrays(outcome), 91.0 * np.arange(1, 5)
    curves = np.array([[(died[risk == one] > day).mean() for day in times] for one in risk])
    days, told = np.where(risk, 200.0, 300.0), 1 - curves[:, 2]
    scores = {
        "Brier": lambda t, e, train: metrics.brier(t, e, curves, times, train),
        "AUC": lambda t, e, train: metrics.cumulative_auc(t, e, 1 - curves, times, train),
        "Uno": lambda t, e, train: metrics.concordance(t, e, risk, case_weights=uno_weights(t, train, 400)),
        "MAE": lambda t, e, train: metrics.days.mae_ipcw(t, e, days, train),
        "R2": lambda t, e, train: metrics.days.r2_ipcw(t, e, days, train),
        "intercept": lambda t, e, _: metrics.calibration_intercept(t, e, told, times[2]),
        "slope": lambda t, e, _: metrics.calibration_slope(t, e, told, times[2]),
        "ICI": lambda t, e, _: metrics.ici(t, e, told, times[2]),
    }
    for name, score in scores.items():
        found, truth = score(time, event, outcome), score(died, died > 0, known)
        np.testing.assert_allclose(found, truth, atol=1e-4 if name == "slope" else 1e-5, err_msg=name)  # its ridge
    assert metrics.brier(time, event, curves, times, outcome) == pytest.approx((curves * (1 - curves)).mean(0))
    theirs = Surv.from_arrays(event, time)
    later = outcome["time_days"] > times[-1]
    held = Surv.from_arrays(event & ~later, np.where(later, times[-1] + 1, time))
    excess = peer.brier_score(theirs, held, curves, times)[1] - (curves * (1 - curves)).mean(0)
    assert excess.max() > 0.01  # G(T) of scikit-survival


# --- who else uses the weights


def test_the_coverage_of_a_bound_on_the_day_on_which_many_are_censored_is_the_plain_share():
    """Nobody is lost before day 365, most on it: who is seen on the day has kept the bound, and weighs 1."""
    event = np.arange(100) < 20
    time = np.where(event, np.arange(1, 101) * 5.0, np.where(np.arange(100) < 90, 365.0, 800.0))
    outcome = outcome_of(time, event)
    bounds = outcome[["patient_id"]].assign(bound_days=365.0)
    found = conformal.coverage_observed(bounds, outcome, outcome, confidence=0.9)
    assert found["estimate"] == pytest.approx(0.8)


def test_a_bound_is_kept_by_four_in_five_where_nearly_all_are_censored_on_one_day():
    outcome, risk = drawn(400, 4, 365)
    late = outcome.index[(outcome["time_days"] == 365) & ~outcome["event"]][::30]
    outcome.loc[late, "time_days"] = 900.0
    folds = np.arange(400) % 5
    prognosis = prognosis_of(outcome, risk, np.arange(20.0, 900, 20))
    prognosis = Prognosis(prognosis.table.assign(fold=folds), prognosis.times)
    bounds = conformal.lower_bounds(prognosis, outcome, 0.8, 200)["bound_days"].to_numpy()
    assert bounds.min() > 0 and bounds.max() <= 365
    kept = (outcome["time_days"] >= bounds).mean()
    found = conformal.coverage_observed(
        outcome[["patient_id"]].assign(bound_days=bounds), outcome, outcome, confidence=0.9
    )
    assert found["estimate"] == pytest.approx(kept) and kept == pytest.approx(0.8, abs=0.05)


def test_a_group_of_patients_is_scored_on_the_day_on_which_all_are_censored():
    outcome, risk = drawn(80, 6, 365)
    sample = metrics.Sample.of(prognosis_of(outcome, risk, [365]), outcome)
    inside = np.arange(80) < 40
    score = subgroups._scorer(sample, outcome, 365)(inside, np.ones(80))
    survival = sample.prognosis.survival[inside, 0]
    assert score["brier"] == pytest.approx(((sample.event[inside] - (1 - survival)) ** 2).mean())


@pytest.mark.parametrize("horizon", [365, 400])
def test_errors_in_days_need_no_weights_where_nobody_was_lost_before_a_death(horizon):
    outcome, risk = drawn(80, 9, horizon)
    time, event = arrays(outcome)
    told = np.full(80, 100.0)
    assert metrics.days.mae_ipcw(time, event, told, outcome) == pytest.approx(metrics.mae_days(time, event, told))
    assert metrics.days.r2_ipcw(time, event, told, outcome) == pytest.approx(metrics.r2(time, event, told))
