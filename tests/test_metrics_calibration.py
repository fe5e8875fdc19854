"""Calibration and net benefit against other libraries on six public cohorts, closed forms and planted truth."""

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.calibration import survival_probability_calibration
from numpy.testing import assert_allclose
from public_data import NAMES, datasets

from survpack.errors import BadInput
from survpack.figures.probabilities import calibration as drawn_bands
from survpack.figures.probabilities import decision_curves
from survpack.inference import resamples
from survpack.metrics import calibration, decision
from survpack.metrics.sample import Sample, survival_at
from survpack.prognosis import Prognosis


def case(name):
    """Time, event, predicted risk and horizon of a public cohort; no risk is surer than ours allows, nor that of peers."""
    prognosis, outcome, _, horizon = datasets()[name]
    sample = Sample.of(prognosis, outcome)
    predicted = np.clip(1 - survival_at(prognosis, [horizon])[:, 0], 1e-4, 1 - 1e-4)
    return sample.time_days, sample.event, predicted, horizon


def true_risk(patients, seed, *, censored=True):
    """Deaths of a known hazard, whose shape is that of no exponential; and the true risk of dying within a year."""
    rng = np.random.default_rng(seed)
    score = rng.normal(0, 0.7, patients)
    death = 500 * (rng.exponential(size=patients) / np.exp(score)) ** (1 / 1.4)
    end = rng.uniform(50, 1500, patients) if censored else np.full(patients, np.inf)
    return np.minimum(death, end), death <= end, 1 - np.exp(-((365 / 500) ** 1.4) * np.exp(score))


def prognosis_of(time, event, curves, times, model="m"):
    keys = {"cohort": "c", "model": model, "seed": 0, "repeat": 0, "fold": 0, "split": "cv"}
    outcome = pd.DataFrame({"patient_id": [f"P{k:04d}" for k in range(len(time))], "time_days": time, "event": event})
    columns = {f"s_{k}": column for k, column in enumerate(np.asarray(curves).T)}
    table = pd.DataFrame({**keys, "patient_id": outcome["patient_id"], "risk": 0.0, "days": 1.0, **columns})
    return Prognosis(table, np.asarray(times, float)), outcome


# --- intercept and slope ------------------------------------------------------------------------------------------


def fitted(time, event, horizon, columns, counts=1.0, offset=None):
    """statsmodels' regression of death by the horizon, complementary log-log, weighted by lifelines' curve of censoring."""
    later = time + np.where(event, 0, 1e-4)  # on one day deaths come before censorings
    uncensored = KaplanMeierFitter().fit(later, ~event).survival_function_at_times(np.minimum(time, horizon)).to_numpy()
    died, lost = event & (time <= horizon), ~event & (time < horizon)
    link = sm.families.Binomial(sm.families.links.CLogLog())
    weights = np.where(lost, 0, counts / uncensored)
    return sm.GLM(died.astype(float), columns, family=link, freq_weights=weights, offset=offset).fit(tol=1e-13).params


@pytest.mark.parametrize("name", NAMES)
def test_slope_and_intercept_are_those_of_statsmodels_with_the_censoring_of_lifelines(name, monkeypatch):
    """Ours has a ridge of 0.001 for separated resamples, which moves no public cohort's slope by 1 %."""
    time, event, predicted, horizon = case(name)
    x, one = np.log(-np.log(1 - predicted)), np.ones((len(time), 1))
    peer = fitted(time, event, horizon, np.column_stack([one, x - x.mean()]))[1]
    assert calibration.calibration_slope(time, event, predicted, horizon) == pytest.approx(peer, rel=0.01)
    monkeypatch.setattr(calibration, "RIDGE", 1e-10)
    assert calibration.calibration_slope(time, event, predicted, horizon) == pytest.approx(peer, abs=1e-6)
    peer = fitted(time, event, horizon, one, offset=x)[0]
    assert calibration.calibration_intercept(time, event, predicted, horizon) == pytest.approx(peer, abs=1e-6)


def test_intercept_of_one_prediction_for_all_is_the_log_of_observed_over_expected_hazard():
    time, event, _ = true_risk(200, 0)
    found = calibration.calibration_intercept(time, event, np.full(200, 0.4), 365)
    alive = KaplanMeierFitter().fit(time, event).predict(365)
    assert found == pytest.approx(np.log(np.log(alive) / np.log(0.6)), abs=1e-7)
    assert np.isnan(calibration.calibration_slope(time, event, np.full(200, 0.4), 365))


@pytest.mark.parametrize("planted", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("censored", ["random", "administrative", "on the day"])
def test_where_hazards_cross_exact_probabilities_have_slope_1_and_a_planted_slope_is_found(censored, planted):
    """Weibull shapes that differ by patient: curves cross on day 500. 40 cohorts of 1,500; a Cox model says 0.1 there."""
    found, horizon = [], 800.0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        shape = np.exp(rng.normal(0, 0.5, 1500))
        death = 500 * rng.exponential(size=1500) ** (1 / shape)
        end = {"random": rng.exponential(1200, 1500), "administrative": rng.uniform(300, 1300, 1500),
               "on the day": np.full(1500, horizon)}[censored]  # fmt: skip
        time, event, hazard = np.minimum(death, end), death <= end, (horizon / 500) ** shape
        told = -np.expm1(-(hazard ** (1 / planted)))
        asked = time, event, told, horizon
        found.append([score(*asked) for score in (calibration.calibration_slope, calibration.calibration_intercept)])
        found[-1].append(calibration.ici(*asked) - (np.abs(told + np.expm1(-hazard)).mean()))
    mean, error = np.mean(found, 0), np.std(found, 0) / np.sqrt(len(found))
    assert abs(mean[0] - planted) < 3 * error[0] + 0.03 * planted  # of so many a maximum likelihood is still 1 % out
    assert planted != 1 or abs(mean[1]) < 3 * error[1] + 0.01
    assert abs(mean[2]) < 0.025


def test_the_true_risk_has_intercept_0_and_slope_1_and_planted_faults_are_found():
    time, event, truth = true_risk(2000, 1)
    hazard = -np.log1p(-truth)
    assert calibration.calibration_intercept(time, event, truth, 365) == pytest.approx(0, abs=0.08)
    assert calibration.calibration_slope(time, event, truth, 365) == pytest.approx(1, abs=0.08)
    halved = 1 - np.exp(-hazard / 2)  # says half of the hazard: log 2 too low
    exact = calibration.calibration_intercept(time, event, truth, 365) + np.log(2)
    assert calibration.calibration_intercept(time, event, halved, 365) == pytest.approx(exact, abs=1e-9)
    exact = calibration.calibration_slope(time, event, truth, 365)
    timid = 1 - np.exp(-np.sqrt(hazard))
    assert calibration.calibration_slope(time, event, timid, 365) == pytest.approx(2 * exact, abs=1e-9)


def test_deaths_after_the_horizon_have_no_say_in_slope_and_intercept():
    time, event, truth = true_risk(300, 2)
    later = np.where(time > 365, time + np.random.default_rng(0).uniform(0, 900, 300), time)
    for score in (calibration.calibration_slope, calibration.calibration_intercept):
        assert score(later, event, truth, 365) == pytest.approx(score(time, event, truth, 365), abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), patients=st.integers(2, 40))
def test_a_resample_scores_as_the_patients_written_out(seed, patients):
    rng = np.random.default_rng(seed)
    time, event = rng.integers(1, 9, patients).astype(float), rng.random(patients) < 0.6
    predicted, horizon = rng.choice([0.0, 0.1, 0.3, 0.7, 1.0], patients), rng.integers(0, 10)
    counts = resamples(patients, repeats=3, seed=seed)
    scores = {
        "intercept": lambda *of, **more: calibration.calibration_intercept(*of, horizon, **more),
        "benefit": lambda *of, **more: decision.net_benefit(*of, horizon, [0.1, 0.5], **more),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, score in scores.items():
            found = score(time, event, predicted, counts=counts)
            for row, drawn in zip(found, counts, strict=True):
                again = np.repeat(np.arange(patients), drawn)
                assert row == pytest.approx(score(time[again], event[again], predicted[again]), nan_ok=True), name
        slopes = calibration.calibration_slope(time, event, predicted, horizon, counts=counts)
    assert (
        slopes.shape == (3,)
        and (np.isnan(slopes) >= np.isnan(scores["intercept"](time, event, predicted, counts=counts))).all()
    )


@pytest.mark.parametrize("score", [calibration.calibration_intercept, calibration.calibration_slope, calibration.ici])
def test_calibration_past_the_follow_up_or_without_a_death_is_nan(score):
    time, event, truth = true_risk(60, 3)
    counts = resamples(60, repeats=4, seed=0)
    assert np.isnan(score(time, event, truth, 1e5))
    assert np.isnan(score(time, event, truth, 1e5, counts=counts)).all()
    assert np.isnan(score(time, np.zeros(60, bool), truth, 365, counts=counts)).all()
    assert np.isnan(score(time, event, truth, 365, counts=np.zeros(60)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cohort", ["no event", "1 event", "2 events", "deaths on one day", "censored after a day", "equal",
                                    "perfect order", "sure"])  # fmt: skip
def test_degenerate_cohorts_score_a_number_or_nan_and_never_warn(cohort):
    time, event, told = true_risk(40, 4)
    time, order = time + 2, np.argsort(time)
    if "event" in cohort:
        event = np.isin(np.arange(40), order[: {"n": 0, "1": 1, "2": 2}[cohort[0]]])
    elif cohort == "deaths on one day":
        time, event = np.full(40, 365.0), np.ones(40, bool)
    elif cohort == "censored after a day":
        time, event = np.ones(40), np.zeros(40, bool)
    else:
        told = {"equal": np.full(40, 0.4), "perfect order": 1 / (1 + time / 365), "sure": (told > 0.5) * 1.0}[cohort]
    counts = resamples(40, repeats=20, seed=0)
    asked = time, event, told, 365
    scores = calibration.calibration_intercept, calibration.calibration_slope, calibration.ici
    found = np.array([score(*asked, counts=np.vstack([np.ones(40), counts])) for score in scores])
    assert (np.isfinite(found) | np.isnan(found)).all()
    defined = np.isfinite(found[:, 0]).tolist()
    never = cohort in ("no event", "deaths on one day", "censored after a day")
    assert defined == [not never, not never and cohort != "equal", not never]
    curves, times = np.column_stack([1 - told / 2, 1 - told]), [180.0, 365]
    prognosis, outcome = prognosis_of(time, event, curves, times)
    assert len(calibration.calibration_curve(prognosis, outcome, 365)) >= 1
    assert np.isnan(calibration.d_calibration(curves, times, time, event)["p"]) == (not event.any())


# --- the smooth curve ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_curve_is_statsmodels_on_the_spline_and_ici_near_survivalevals(name, monkeypatch):
    """SurvivalEVAL's is a Cox model of all follow-up with knots at the 10th, 50th and 90th percentile; veterans' hazards cross."""
    from SurvivalEVAL.evaluations.calibration.single_time.integrated_calibration_index import (
        integrated_calibration_index,
    )

    time, event, predicted, horizon = case(name)
    theirs = integrated_calibration_index(predicted, time, event, horizon)["ICI"]
    assert calibration.ici(time, event, predicted, horizon) == pytest.approx(theirs, abs=0.05)
    monkeypatch.setattr(calibration, "RIDGE", 1e-10)
    died = event & (time <= horizon)
    freedom = int(np.clip(min(died.sum(), (time[~died] >= horizon).sum()) // calibration.PER_SLOPE, 1, 3))
    basis, _ = calibration._spline_basis(predicted, predicted, freedom)
    columns = np.column_stack([np.ones(len(time)), basis])
    peer = -np.expm1(-np.exp(columns @ fitted(time, event, horizon, columns)))
    assert_allclose(calibration.observed_risk(time, event, predicted, horizon), peer, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_ici_is_near_that_of_lifelines(capsys):
    """lifelines smooths with a parametric hazard and a straight line where ours has a Cox model and a spline."""
    import matplotlib.pyplot as plt
    from lifelines.datasets import load_rossi

    table = load_rossi()
    fitted = CoxPHFitter().fit(table, "week", "arrest")
    axes, peer, _ = survival_probability_calibration(fitted, table, t0=40)
    plt.close(axes.figure)
    predicted = 1 - fitted.predict_survival_function(table, times=[40]).to_numpy()[0]
    ours = calibration.ici(table["week"].to_numpy(float), table["arrest"].to_numpy(bool), predicted, 40)
    assert ours == pytest.approx(peer, abs=0.02)


def test_every_resample_of_the_curve_is_fitted_to_the_end_whatever_the_order_of_patients():
    """In a badly conditioned spline Newton's steps overshoot: at the end no gradient of the likelihood is left."""
    for seed in range(3):
        time, event, truth = true_risk(120, seed)
        counts = resamples(120, repeats=300, seed=seed).astype(float)
        died, weights = calibration.known_by(time, event, 365, counts)
        basis, _ = calibration._spline_basis(truth**3, truth**3, 3)
        columns, penalty = np.column_stack([np.ones(120), basis]), np.r_[0, np.full(3, calibration.RIDGE)]
        found = calibration.cloglog(died, columns, weights, penalty=penalty)
        hazard = np.exp(found @ columns.T)
        slope = np.where(died, hazard / np.expm1(np.minimum(hazard, 500)), -hazard)
        assert np.abs((weights * slope) @ columns - penalty * found).max() < 1e-4
        order = np.random.default_rng(seed).permutation(120)
        again = calibration.cloglog(died[order], columns[order], weights[:, order], penalty=penalty)
        assert_allclose(again, found, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), patients=st.integers(1, 30), horizon=st.integers(0, 9))
def test_the_weights_of_known_fates_are_kaplan_meier(seed, patients, horizon):
    """The weighted share of the dead is 1 - Kaplan-Meier and all weights together are the patients, ties or none."""
    rng = np.random.default_rng(seed)
    time, event = rng.integers(0, 9, patients).astype(float), rng.random(patients) < 0.5
    died, weights = calibration.known_by(time, event, horizon, np.ones(patients))
    alive = KaplanMeierFitter().fit(time, event).predict(horizon)
    followed = (time >= horizon).any() or alive == 0
    assert weights @ died / patients == pytest.approx(1 - alive)
    assert not followed or weights.sum() == pytest.approx(patients)
    again, resampled = calibration.known_by(time, event, horizon, resamples(patients, repeats=2, seed=seed))
    assert (again == died).all() and np.isfinite(resampled).all()


def test_the_band_covers_the_curve_of_the_true_risk_and_narrows_with_patients():
    inside, widths = [], []
    for patients, seed in [(100, 1), (100, 2), (100, 3), (100, 4), (400, 5)]:
        time, event, truth = true_risk(patients, seed)
        prognosis, outcome = prognosis_of(time, event, 1 - truth[:, None], [365])
        band = calibration.calibration_band(prognosis, outcome, 365, repeats=100, confidence=0.95, seed=0)
        assert list(band) == ["predicted", "observed", "low", "high"] and band["predicted"].is_monotonic_increasing
        assert band["predicted"].iloc[[0, -1]].tolist() == pytest.approx([truth.min(), truth.max()])
        middle = band[band["predicted"].between(*np.quantile(truth, [0.1, 0.9]))]
        inside.append(middle["predicted"].between(middle["low"], middle["high"]).mean())
        widths.append((middle["high"] - middle["low"]).mean())
    assert np.mean(inside) > 0.8
    assert widths[-1] < 0.7 * np.mean(widths[:-1])


def test_a_band_past_the_follow_up_is_nan_and_of_nobody_empty():
    time, event, truth = true_risk(40, 6)
    prognosis, outcome = prognosis_of(time, event, 1 - truth[:, None], [365])
    settings = {"repeats": 20, "confidence": 0.95, "seed": 0}
    past = calibration.calibration_band(prognosis, outcome, 1e5, **settings)
    assert past[["observed", "low", "high"]].isna().all(axis=None)
    assert calibration.calibration_band(prognosis.of("test"), outcome, 365, **settings).empty


# --- D-calibration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_d_calibration_agrees_with_survivaleval(name):
    """Given the same probabilities, to 1e-9; it counts bins from 1 down, and extends a curve where ours censors."""
    from SurvivalEVAL.evaluations.calibration.distributional.distribution_calibration import d_calibration

    prognosis, outcome, _, _ = datasets()[name]
    sample, last = Sample.of(prognosis, outcome), prognosis.times[-1]
    time, event = np.minimum(sample.time_days, last), sample.event & (sample.time_days <= last)
    curves = np.column_stack([np.ones(len(time)), prognosis.survival])
    days = np.r_[0, prognosis.times]
    at = np.array([np.interp(day, days, curve) for day, curve in zip(time, curves, strict=True)])
    _, p, bins = d_calibration(at, event)
    found = calibration.d_calibration(prognosis.survival, prognosis.times, sample.time_days, sample.event)
    assert_allclose(found["bins"], bins[::-1], atol=1e-9)
    assert found["p"] == pytest.approx(p, abs=1e-9) and found["bins"].sum() == pytest.approx(len(time))


def test_d_calibration_of_the_truth_is_uniform_and_of_a_wrong_hazard_is_not():
    times = np.linspace(5, 4000, 400)
    rejected = {1.0: 0, 1.8: 0}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rate = np.exp(rng.normal(-6, 0.5, 200))
        death, end = rng.exponential(1 / rate), rng.uniform(100, 3000, 200)
        for factor in rejected:
            curves = np.exp(-np.outer(rate * factor, times))
            found = calibration.d_calibration(curves, times, np.minimum(death, end), death <= end)
            rejected[factor] += found["p"] < 0.05
    assert rejected[1.0] <= 6 and rejected[1.8] >= 38  # 2 expected of 40


def test_d_calibration_bins_by_hand():
    curves, times = [[0.5, 0.25]] * 4, [10.0, 20]
    found = calibration.d_calibration(curves, times, [10.0, 10, 15, 30], [True, False, True, True])
    bins = np.zeros(10)
    bins[5] += 1  # died where the curve is at 0.5
    bins[:5] += 0.2  # censored there
    bins[3] += 1  # half way from 0.5 to 0.25
    bins[:3] += [0.4, 0.4, 0.2]  # died past the end of the curve: below 0.25
    assert_allclose(found["bins"], bins, atol=1e-12)
    nobody_died = calibration.d_calibration(curves, times, [0.0, 1, 2, 99], [False] * 4)
    assert np.isnan(nobody_died["p"]) and nobody_died["bins"].sum() == pytest.approx(4)


# --- net benefit --------------------------------------------------------------------------------------------------


def test_net_benefit_without_censoring_is_true_less_weighted_false_positives():
    time, event, truth = true_risk(300, 7, censored=False)
    assert event.all()
    for threshold in (0.0, 0.1, 0.5, 0.9):
        treated, dead = truth >= threshold, time <= 365
        expected = (treated & dead).mean() - (treated & ~dead).mean() * threshold / (1 - threshold)
        assert decision.net_benefit(time, event, truth, 365, threshold)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_net_benefit_with_censoring_is_that_of_kaplan_meier_by_lifelines(name):
    time, event, predicted, horizon = case(name)
    thresholds = np.quantile(predicted, [0.1, 0.5, 0.9])
    expected = []
    for threshold in thresholds:
        treated = predicted >= threshold
        alive = KaplanMeierFitter().fit(time[treated], event[treated]).predict(horizon)
        expected.append(treated.mean() * ((1 - alive) - alive * threshold / (1 - threshold)))
    assert_allclose(decision.net_benefit(time, event, predicted, horizon, thresholds), expected, atol=1e-9)


def test_the_true_risk_does_more_good_than_any_other_at_its_own_threshold():
    time, event, truth = true_risk(20_000, 8)
    noisy = np.clip(truth + np.random.default_rng(0).normal(0, 0.3, len(truth)), 0, 1)
    best, other, every = (
        decision.net_benefit(time, event, risk, 365, decision.THRESHOLDS) for risk in (truth, noisy, np.ones(20_000))
    )
    assert (best > other - 0.003).all() and (best > every - 0.003).all() and best.min() > -0.003
    assert (best - other)[10:25].min() > 0.01


def test_net_benefit_where_nobody_is_treated_is_0_and_where_follow_up_ends_nan():
    time, event = np.array([10.0, 20, 30, 40]), np.array([True, False, True, False])
    risk = np.array([0.9, 0.9, 0.2, 0.2])
    found = decision.net_benefit(time, event, risk, 25, [0.1, 0.5, 0.95])
    assert np.isfinite(found[0]) and np.isnan(found[1]) and found[2] == 0  # both above 0.5 are gone by day 25
    assert np.isnan(decision.net_benefit(time, event, risk, 25, [0.1], counts=np.zeros(4))).all()
    assert decision.net_benefit(time, event, risk, 1e4, [0.1, 0.95]).tolist() == pytest.approx([np.nan, 0], nan_ok=True)
    with pytest.raises(BadInput, match="threshold 1"):
        decision.net_benefit(time, event, risk, 25, [0.5, 1.0])


def decided(horizon=365, patients=80):
    time, event, truth = true_risk(patients, 9)
    one, outcome = prognosis_of(time, event, 1 - truth[:, None], [365])
    two, _ = prognosis_of(time, event, np.full((patients, 1), 0.5), [365])
    models = {"clinical-cox": one, "age": two}
    return models, outcome, decision.decision_curve(models, outcome, horizon, repeats=50, confidence=0.9, seed=0)


def test_the_decision_curve_has_every_model_and_both_ways_without_one():
    models, outcome, table = decided()
    assert list(table["model"].unique()) == [*models, "treat all", "treat none"]
    curves = {model: rows.set_index("threshold") for model, rows in table.groupby("model")}
    assert (curves["treat none"][["net_benefit", "low", "high"]] == 0).all(axis=None)
    low = curves["age"].index <= 0.5  # all are told 0.5: up to there all are treated, beyond nobody
    pd.testing.assert_frame_equal(
        curves["age"][low].drop(columns="model"), curves["treat all"][low].drop(columns="model")
    )
    assert (curves["age"].loc[~low, "net_benefit"] == 0).all()
    dead = 1 - KaplanMeierFitter().fit(outcome["time_days"], outcome["event"]).predict(365)
    assert curves["treat all"].loc[0.2, "net_benefit"] == pytest.approx(dead - (1 - dead) / 4, abs=1e-9)
    inside = table["net_benefit"].between(table["low"], table["high"])
    assert inside.mean() > 0.9


def test_the_decision_curve_is_nan_past_the_follow_up_and_draws_all_the_same():
    _, _, table = decided(horizon=1e5)
    assert table.loc[table["model"] == "treat all", ["net_benefit", "low", "high"]].isna().all(axis=None)
    assert len(decision_curves(table, 1e5).axes) == 2


def test_the_decision_curve_refuses_models_of_other_patients():
    models, outcome, _ = decided()
    fewer = Prognosis(models["age"].table.iloc[1:].reset_index(drop=True), models["age"].times)
    with pytest.raises(BadInput, match="P0000"):
        decision.decision_curve(models | {"age": fewer}, outcome, 365, repeats=20, confidence=0.9, seed=0)
    empty = {model: one.of("test") for model, one in models.items()}
    assert decision.decision_curve(empty, outcome, 365, repeats=20, confidence=0.9, seed=0).empty


# --- figures ------------------------------------------------------------------------------------------------------


def test_the_smooth_figure_draws_curve_band_groups_and_text():
    band = pd.DataFrame({"predicted": [0.1, 0.9], "observed": [0.2, 0.8], "low": [0.1, 0.6], "high": [0.3, 0.95]})
    group = pd.DataFrame({"predicted": [0.5], "observed": [0.4], "low": [0.2], "high": [0.6], "patients": [9]})
    figure = drawn_bands({"age": band, "volume": band}, {"age": group}, 730, {"age": "slope 0.75 (0.6 to 0.9)"})
    first, second = figure.axes
    (curve,) = [line for line in first.lines if line.get_label() == "age"]
    assert_allclose(curve.get_xydata(), band[["predicted", "observed"]])
    corners = first.collections[0].get_paths()[0].vertices.tolist()
    assert all([x, y] in corners for x, y in band[["predicted", "low"]].to_numpy().tolist())
    assert [0.5, 0.4] in first.lines[-1].get_xydata().tolist() and len(second.lines) == len(first.lines) - 1
    assert "slope 0.75\n(0.6 to 0.9)" in [text.get_text() for text in first.texts]
    assert "24 months" in figure.get_supxlabel()


def test_the_decision_figure_draws_each_model_in_its_own_panel_beside_treating_all():
    models, _, table = decided()
    figure = decision_curves(table, 365)
    for axes, model in zip(figure.axes, models, strict=True):
        own = table[table["model"] == model]
        (curve,) = [line for line in axes.lines if line.get_label() == model]
        assert_allclose(curve.get_xydata(), own[["threshold", "net_benefit"]])
        every = table.loc[table["model"] == "treat all", "net_benefit"].to_numpy()
        assert any(np.array_equal(line.get_ydata(), every) for line in axes.lines)
        bottom, top = axes.get_ylim()
        assert bottom > every.min() and top > table["net_benefit"].max()  # treating all falls out of the panel
