"""Scores against other libraries, closed forms, planted truth and properties."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.utils import concordance_index
from sklearn.metrics import mean_absolute_error, r2_score
from sksurv.metrics import (
    brier_score,
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.util import Surv

from survpack import metrics, params
from survpack.errors import BadInput
from survpack.prognosis import Prognosis, time_grid


def outcome_of(time, event):
    ids = [f"P{number:04d}" for number in range(len(time))]
    return pd.DataFrame({"patient_id": ids, "time_days": np.asarray(time, float), "event": np.asarray(event, bool)})


def structured(outcome):
    """For scikit-survival, which weighs a death by G(T): censorings a moment after the deaths of their day, as we have them."""
    return Surv.from_arrays(outcome["event"], outcome["time_days"] + np.where(outcome["event"], 0, 1e-3))


def simulated(patients, seed, longest=900):
    """Exponential deaths in whole days, so with ties in time; uniform censoring; risks with ties."""
    rng = np.random.default_rng(seed)
    risk = np.round(rng.normal(size=patients), 1)
    death = np.ceil(rng.exponential(30 * np.exp(-risk))) * 10
    censored = np.ceil(rng.uniform(0, longest / 10, patients)) * 10
    return outcome_of(np.minimum(death, censored), death <= censored), risk


def prognosis_of(outcome, risk, times, fold=0, split="cv", days=None):
    curves = np.exp(-np.outer(np.exp(risk), times) / 300)
    table = outcome[["patient_id"]].assign(cohort="c", model="m", seed=0, repeat=0, fold=fold, split=split, risk=risk)
    table["days"] = 300 * np.exp(-risk) if days is None else days
    columns = pd.DataFrame(curves, columns=[f"s_{k}" for k in range(len(times))])
    return Prognosis(pd.concat([table, columns], axis=1), np.asarray(times, float))


def drawn(patients, seed):
    return np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients))


# --- concordance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_harrell_agrees_with_three_libraries_under_ties(seed):
    torch = pytest.importorskip("torch")
    from torchsurv.metrics.cindex import ConcordanceIndex

    outcome, risk = simulated(90, seed)
    time, event = outcome["time_days"].to_numpy(), outcome["event"].to_numpy()
    assert len(np.unique(time)) < 90 and len(np.unique(risk)) < 90
    ours = metrics.concordance(time, event, risk)
    assert ours == pytest.approx(concordance_index_censored(event, time, risk)[0], abs=1e-9)
    assert ours == pytest.approx(concordance_index(time, -risk, event), abs=1e-9)
    peer = ConcordanceIndex()(torch.tensor(risk), torch.tensor(event), torch.tensor(time))
    assert ours == pytest.approx(float(peer), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_uno_agrees_with_scikit_survival_under_ties(seed):
    train, _ = simulated(150, seed + 50)
    outcome, risk = simulated(80, seed)
    time, event = outcome["time_days"].to_numpy(), outcome["event"].to_numpy()
    for tau in (200, 450):
        ours = metrics.concordance(time, event, risk, case_weights=metrics.uno_weights(time, train, tau))
        peer = concordance_index_ipcw(structured(train), structured(outcome), risk, tau=tau)[0]
        assert ours == pytest.approx(peer, abs=1e-9)


def test_uno_is_harrell_without_censoring():
    time, risk = np.arange(1.0, 31), np.random.default_rng(0).normal(size=30)
    outcome = outcome_of(time, np.ones(30))
    weights = metrics.uno_weights(time, outcome)
    uno = metrics.concordance(time, outcome["event"], risk, case_weights=weights)
    # the last patient outlives nobody, so that truncation at his day changes nothing
    assert uno == pytest.approx(metrics.concordance(time, outcome["event"], risk), abs=1e-12)


def test_uno_comes_closer_to_the_uncensored_truth_than_harrell_when_censoring_hides_a_late_crossing():
    rng = np.random.default_rng(3)
    patients = 1500
    risk = rng.normal(size=patients)
    # ranks well early and not at all later: deaths after day 200 do not depend on risk
    death = rng.exponential(200 * np.exp(-2 * risk))
    death = np.where(death < 200, death, 200 + rng.exponential(300, patients))
    censored = rng.exponential(350, patients)
    truth = metrics.concordance(np.minimum(death, 600), death < 600, risk)
    time, event = np.minimum(death, censored), death <= censored
    uno_weights = metrics.uno_weights(time, outcome_of(time, event), 600)
    uno = metrics.concordance(time, event, risk, case_weights=uno_weights)
    assert abs(uno - truth) < 0.02 < abs(metrics.concordance(time, event, risk) - truth)


def test_only_pairs_within_a_fold_count():
    outcome, risk = simulated(60, 1)
    time, event, fold = outcome["time_days"].to_numpy(), outcome["event"].to_numpy(), np.arange(60) % 3
    won = pairs = 0
    for inside in (fold == 0, fold == 1, fold == 2):
        _, concordant, discordant, tied, _ = concordance_index_censored(event[inside], time[inside], risk[inside])
        won, pairs = won + concordant + tied / 2, pairs + concordant + discordant + tied
    assert metrics.concordance(time, event, risk, groups=fold) == pytest.approx(won / pairs, abs=1e-12)
    # an offset of a whole fold is another model's scale, and changes nothing
    assert metrics.concordance(time, event, risk + 100 * fold, groups=fold) == pytest.approx(won / pairs, abs=1e-12)


def test_perfect_reversed_and_constant_risk():
    time, event = np.arange(1.0, 21), np.ones(20, bool)
    outcome = outcome_of(np.r_[time, 40], np.r_[event, False])
    grid = time[2:-2]
    for risk, expected in ((-time, 1.0), (time, 0.0), (np.zeros(20), 0.5)):
        assert metrics.concordance(time, event, risk) == expected
        auc = metrics.cumulative_auc(time, event, np.tile(risk[:, None], len(grid)), grid, outcome)
        np.testing.assert_allclose(auc, expected, atol=1e-12)


patients_drawn = st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.integers(-4, 4)), min_size=2, max_size=25)


@given(patients_drawn)
@settings(max_examples=150, deadline=None)
def test_concordance_is_bounded_antisymmetric_and_sees_only_ranks(patients):
    time, event, risk = map(np.array, zip(*patients, strict=True))
    ours = metrics.concordance(time, event, risk)
    comparable = any(e and (u > t or (u == t and not f)) for t, e, _ in patients for u, f, _ in patients)
    assert np.isnan(ours) == (not comparable)
    if comparable:
        assert 0 <= ours <= 1
        assert ours + metrics.concordance(time, event, -risk) == pytest.approx(1)
        assert metrics.concordance(time, event, np.exp(risk) + risk**3) == ours


# --- AUC and Brier ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored():
    train, _ = simulated(150, 7)
    outcome, risk = simulated(80, 8, longest=700)
    times = time_grid(params.load().curves)
    return train, outcome, prognosis_of(outcome, risk, times)


def test_auc_and_brier_agree_with_scikit_survival(scored):
    train, outcome, prognosis = scored
    times = metrics.valid_times(prognosis.times, outcome["time_days"], train)
    curves = metrics.survival_at(prognosis, times)
    time, event = outcome["time_days"].to_numpy(), outcome["event"].to_numpy()
    peers = structured(train), structured(outcome)
    assert 10 < len(times) < len(prognosis.times)
    auc, mean = cumulative_dynamic_auc(*peers, 1 - curves, times)
    np.testing.assert_allclose(metrics.cumulative_auc(time, event, 1 - curves, times, train), auc, atol=1e-9)
    brier = brier_score(*peers, curves, times)[1]
    np.testing.assert_allclose(metrics.brier(time, event, curves, times, train), brier, atol=1e-9)
    found = metrics.scores(prognosis, outcome, train, 300)
    assert found["auc"] == pytest.approx(mean, abs=1e-9)
    assert found["ibs"] == pytest.approx(integrated_brier_score(*peers, curves, times), abs=1e-9)
    np.testing.assert_allclose(metrics.auc_over_time(prognosis, outcome, train)["auc"], auc, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_counts_mean_the_same_as_patients_repeated(scored, seed):
    train, outcome, prognosis = scored
    counts = drawn(len(outcome), seed)
    ours = metrics.scores(prognosis, outcome, train, 300, counts=counts)
    again = np.repeat(np.arange(len(outcome)), counts)
    repeated, risk = outcome.iloc[again], prognosis.table["risk"].to_numpy()[again]
    time, event = repeated["time_days"].to_numpy(), repeated["event"].to_numpy()
    peers = structured(train), structured(repeated)
    tau = metrics.censoring_reach(train)
    assert ours["harrell_c"] == pytest.approx(concordance_index_censored(event, time, risk)[0], abs=1e-9)
    assert ours["uno_c"] == pytest.approx(concordance_index_ipcw(*peers, risk, tau=tau)[0], abs=1e-9)
    times = metrics.valid_times(prognosis.times, outcome["time_days"], train)
    inside = times[(times < time.max()) & (times >= time.min())]
    curves = metrics.survival_at(prognosis, times)[again]
    row = metrics.brier(
        outcome["time_days"], outcome["event"], metrics.survival_at(prognosis, inside), inside, train, counts=counts
    )
    peer_curves = curves[:, np.isin(times, inside)]
    np.testing.assert_allclose(row, brier_score(*peers, peer_curves, inside)[1], atol=1e-9)
    auc = metrics.cumulative_auc(
        outcome["time_days"], outcome["event"], 1 - metrics.survival_at(prognosis, inside), inside, train, counts=counts
    )
    peer_auc, mean = cumulative_dynamic_auc(*peers, 1 - peer_curves, inside)
    np.testing.assert_allclose(auc, peer_auc, atol=1e-9)
    assert ours["auc"] == pytest.approx(mean, abs=1e-9)
    days = prognosis.table["days"].to_numpy()[again]
    assert ours["mae_days"] == pytest.approx(mean_absolute_error(time[event], days[event]), abs=1e-9)
    assert ours["r2"] == pytest.approx(r2_score(time[event], days[event]), abs=1e-9)


def test_a_matrix_of_counts_gives_what_its_rows_give_one_by_one(scored):
    train, outcome, prognosis = scored
    counts = np.array([drawn(len(outcome), seed) for seed in range(4)])
    together = metrics.scores(prognosis, outcome, train, 300, counts=counts)
    for k, one in enumerate(counts):
        alone = metrics.scores(prognosis, outcome, train, 300, counts=one)
        for name in alone:
            assert together[name][k] == pytest.approx(alone[name], abs=1e-6), name


def test_brier_of_kaplan_meier_is_s_times_one_minus_s():
    time = np.arange(1.0, 41)
    outcome = outcome_of(time, np.ones(40))
    times = np.array([5.0, 13, 30])
    alive = 1 - times / 40
    brier = metrics.brier(time, outcome["event"], np.tile(alive, (40, 1)), times, outcome)
    np.testing.assert_allclose(brier, alive * (1 - alive), atol=1e-12)
    # held out, so that the null is the curve of the training patients: here the very same curve
    prognosis = prognosis_of(outcome, np.zeros(40), times, fold=-1, split="test")
    train = outcome.assign(patient_id="D" + outcome["patient_id"])
    expected = np.trapezoid(alive * (1 - alive), times) / 25
    assert metrics.ibs_null(prognosis, outcome, train) == pytest.approx(expected, abs=1e-12)


def test_curves_that_know_nothing_have_an_auc_of_one_half_in_cross_validation():
    """Each fold predicted by Kaplan–Meier of the others: pooled pairs would rank patients backwards."""
    outcome, _ = simulated(100, 5)
    fold, times = np.arange(100) % 5, np.arange(50.0, 400, 50)
    curves = np.empty((100, len(times)))
    for k in range(5):
        rest = outcome[fold != k]
        fitted = KaplanMeierFitter().fit(rest["time_days"], rest["event"])
        curves[fold == k] = fitted.survival_function_at_times(times)
    arguments = outcome["time_days"], outcome["event"], 1 - curves, times, outcome
    np.testing.assert_allclose(metrics.cumulative_auc(*arguments, groups=fold), 0.5, atol=1e-12)
    assert metrics.cumulative_auc(*arguments).mean() < 0.45
    prognosis = prognosis_of(outcome, fold.astype(float), times, fold=fold)  # the fold's number as its only risk
    table = prognosis.table.assign(**dict(zip(prognosis.columns, curves.T, strict=True)))
    found = metrics.scores(Prognosis(table, times), outcome, outcome, 200)
    assert (found["harrell_c"], found["uno_c"], found["auc"]) == pytest.approx((0.5, 0.5, 0.5), abs=1e-12)


# --- calibration --------------------------------------------------------------------------------------------------


def exponential(patients, seed):
    """Deaths of a known hazard; also the true risk of dying within a year."""
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(-6, 0.7, patients))
    death, censored = rng.exponential(1 / rate), rng.uniform(100, 2000, patients)
    return np.minimum(death, censored), death <= censored, 1 - np.exp(-365 * rate)


def test_ici_of_the_true_risk_is_near_zero_and_of_a_shifted_risk_near_the_shift():
    time, event, truth = exponential(1500, 0)
    assert metrics.ici(time, event, truth, 365) < 0.025
    shifted = np.clip(truth + 0.15, 0, 0.999)
    assert metrics.ici(time, event, shifted, 365) == pytest.approx((shifted - truth).mean(), abs=0.025)


def test_spline_is_a_line_beyond_its_outer_knots():
    predicted = np.linspace(0.05, 0.95, 100)
    ends = 1 - np.exp(-np.exp(np.array([-6.0, -5.5, -5.0, 1.6, 1.9, 2.2])))
    _, beyond = metrics.calibration._spline_basis(predicted, ends, 3)
    assert beyond.shape == (6, 3)
    for side in (beyond[:3], beyond[3:]):
        np.testing.assert_allclose(side[2] - side[1], side[1] - side[0], atol=1e-9)


def test_calibration_of_one_prediction_for_all_is_kaplan_meier():
    time, event, _ = exponential(200, 3)
    observed = metrics.observed_risk(time, event, np.full(200, 0.4), 365)
    fitted = KaplanMeierFitter().fit(time, event)
    np.testing.assert_allclose(observed, 1 - fitted.predict(365), atol=1e-7)


def test_calibration_groups_and_their_intervals_agree_with_lifelines():
    outcome, risk = simulated(120, 4, longest=1500)
    prognosis = prognosis_of(outcome, risk, [100.0, 200, 300])
    table = metrics.calibration_curve(prognosis, outcome, 200)
    assert table["patients"].sum() == 120 and len(table) == 5 and table["predicted"].is_monotonic_increasing
    predicted = 1 - metrics.survival_at(prognosis, [200])[:, 0]
    lowest = predicted <= np.quantile(predicted, 0.2)
    fitted = KaplanMeierFitter().fit(outcome["time_days"][lowest], outcome["event"][lowest])
    low, high = fitted.confidence_interval_survival_function_.loc[:200].iloc[-1]
    assert table.loc[0, "observed"] == pytest.approx(1 - fitted.predict(200), abs=1e-9)
    assert (table.loc[0, "low"], table.loc[0, "high"]) == pytest.approx((1 - high, 1 - low), abs=1e-6)


# --- days ---------------------------------------------------------------------------------------------------------


def test_days_are_scored_on_deaths_only():
    outcome, risk = simulated(60, 9)
    days = 300 * np.exp(-risk)
    dead, time = outcome["event"].to_numpy(), outcome["time_days"].to_numpy()
    assert metrics.mae_days(time, dead, days) == pytest.approx(mean_absolute_error(time[dead], days[dead]))
    assert metrics.r2(time, dead, days) == pytest.approx(r2_score(time[dead], days[dead]))
    other = np.where(dead, days, 1e6)
    assert metrics.r2(time, dead, other) == metrics.r2(time, dead, days)
    assert metrics.r2(time, dead, np.full(60, time[dead].mean())) == pytest.approx(0, abs=1e-12)


# --- edges --------------------------------------------------------------------------------------------------------


def test_survival_is_straight_between_days_from_one_and_level_after_the_last():
    outcome = outcome_of([5, 6], [1, 1])
    prognosis = prognosis_of(outcome, np.zeros(2), [10.0, 20, 30])
    first, second, third = np.exp(-np.array([10, 20, 30]) / 300)
    found = metrics.survival_at(prognosis, [0, 5, 10, 15, 20, 30, 1000])
    np.testing.assert_allclose(
        found, np.tile([1, (1 + first) / 2, first, (first + second) / 2, second, third, third], (2, 1))
    )


def test_nothing_crashes_past_the_training_horizon_or_where_everyone_is_censored():
    train = outcome_of([100, 120, 150, 200, 220, 250], [1, 0, 1, 1, 0, 0])  # G reaches 0 on day 250
    outcome, risk = simulated(40, 11, longest=3000)
    prognosis = prognosis_of(outcome, risk, [100.0, 150, 200, 249, 250, 400, 2000])
    assert outcome["time_days"].max() > 250
    found = metrics.scores(prognosis, outcome, train, 150)
    assert all(np.isfinite(found[name]) for name in found)
    assert metrics.valid_times(prognosis.times, outcome["time_days"], train).max() <= 249
    assert np.isnan(metrics.scores(prognosis, outcome, train, 1e5)["ici"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("drawn_patient", ["one who died", "one censored", "nobody"])
def test_scores_of_a_sample_without_pairs_are_nan(scored, drawn_patient):
    train, outcome, prognosis = scored
    counts = np.zeros(len(outcome))
    if drawn_patient != "nobody":
        counts[np.flatnonzero(outcome["event"] == (drawn_patient == "one who died"))[0]] = len(outcome)
    found = metrics.scores(prognosis, outcome, train, 300, counts=counts)
    assert all(np.isnan(found[name]) for name in ("harrell_c", "uno_c", "auc", "r2"))
    assert np.isnan(found["mae_days"]) == (drawn_patient != "one who died")


@pytest.mark.filterwarnings("error")
def test_a_split_without_a_death_scores_nan_where_deaths_are_needed(scored):
    train, outcome, prognosis = scored
    alive = outcome.assign(event=False)
    found = metrics.scores(prognosis, alive, train, 300)
    assert all(np.isnan(found[name]) for name in ("harrell_c", "uno_c", "auc", "ici", "mae_days", "r2"))
    assert len(metrics.calibration_curve(prognosis, alive, 300)) == 1


def test_a_predicted_patient_of_unknown_outcome_is_refused_and_named(scored):
    train, outcome, prognosis = scored
    with pytest.raises(BadInput, match="P0003"):
        metrics.scores(prognosis, outcome.drop(index=3), train, 300)
