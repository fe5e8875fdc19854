"""Errors in days and what risk groups differ by, against SurvivalEVAL, lifelines, scikit-survival and by hand."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import logrank_test
from lifelines.utils import restricted_mean_survival_time
from public_data import NAMES, datasets
from scipy.stats import norm
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from survpack.metrics import censoring_reach
from survpack.metrics.days import (
    mae_days,
    mae_hinge,
    mae_ipcw,
    mae_pseudo,
    r2,
    r2_ipcw,
    surrogate_days,
)
from survpack.metrics.groups import (
    hazard_ratio,
    logrank_p,
    observed_over_expected,
    rmst,
    rmst_difference,
    survival_to,
)


def simulated(patients, seed, ties=10):
    rng = np.random.default_rng(seed)
    high = rng.random(patients) < 0.5
    death, censored = rng.exponential(400 * np.exp(-0.7 * high)), rng.uniform(50, 1500, patients)
    time = np.ceil(np.minimum(death, censored) / ties) * ties if ties else np.minimum(death, censored)
    return time, death <= censored, high


def drawn(patients, seed, repeats=6):
    return np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=repeats)


def table_of(time, event):
    return pd.DataFrame({"time_days": np.asarray(time, float), "event": np.asarray(event, bool)})


def public(name):
    """Predicted days, outcome and training outcome; whoever is censored on a day of death was censored after it.

    So 1 / G(t) and 1 / G(t−) agree: we take the former, as scikit-survival does, SurvivalEVAL the latter.
    """
    data = datasets()[name]
    outcome = data.outcome.set_index("patient_id").loc[data.prognosis.table["patient_id"]].reset_index()
    later = [one.assign(time_days=one["time_days"] + np.where(one["event"], 0, 1e-4)) for one in
             (outcome, data.train_outcome)]  # fmt: skip
    return data.prognosis.table["days"].to_numpy(float), *later


def peer(days, outcome, train, **choice):
    from SurvivalEVAL.evaluations.prediction_error import mean_error

    time, event = outcome["time_days"].to_numpy(float), outcome["event"].to_numpy(bool)
    known = train["time_days"].to_numpy(float), train["event"].to_numpy(bool)
    return float(mean_error(np.asarray(days, float), time, event, *known, **choice))


# --- days ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_hinge_and_deaths_only_are_those_of_survivaleval(name):
    days, outcome, train = public(name)
    time, event = outcome["time_days"].to_numpy(), outcome["event"].to_numpy()
    ours = mae_hinge(time, event, days)
    assert ours == pytest.approx(peer(days, outcome, train, method="Hinge", weighted=False), rel=1e-9)
    assert mae_days(time, event, days) == pytest.approx(peer(days, outcome, train, method="Uncensored"), rel=1e-9)


@pytest.mark.parametrize("error_type", ["absolute", "squared"])
@pytest.mark.parametrize("name", NAMES)
def test_ipcw_is_that_of_survivaleval_but_divided_by_the_weights_instead_of_the_deaths(name, error_type):
    """Within the reach of the weights, for beyond it ours are held. Squared errors are those of `r2_ipcw`."""
    days, outcome, train = public(name)
    near = (outcome["time_days"] < censoring_reach(train)).to_numpy()
    days, outcome = days[near], outcome[near]
    time, event = outcome["time_days"].to_numpy(), outcome["event"].to_numpy()
    censoring = KaplanMeierFitter().fit(train["time_days"], ~train["event"])
    weights = 1 / censoring.predict(time[event]).to_numpy()
    theirs = peer(days, outcome, train, method="IPCW-D", error_type=error_type) * len(weights) / weights.sum()
    if error_type == "absolute":
        assert mae_ipcw(time, event, days, train) == pytest.approx(theirs, rel=1e-6)
    else:
        mean = np.average(time[event], weights=weights)
        spread = np.average((time[event] - mean) ** 2, weights=weights)
        assert r2_ipcw(time, event, days, train) == pytest.approx(1 - theirs / spread, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_pseudo_observations_are_those_of_survivaleval_but_of_the_area_under_the_steps(name, monkeypatch):
    """SurvivalEVAL joins the steps of Kaplan–Meier by slopes and adds a tail down to 0; we take the restricted mean.

    With its mean replaced by ours, and everything restricted to the last training day, the two agree.
    """
    from sys import modules

    from SurvivalEVAL.evaluations.prediction_error import mean_error as module  # noqa: F401  (loads the module)

    days, outcome, train = public(name)
    last = train["time_days"].max()
    outcome = outcome[outcome["time_days"] < last]
    days = days[outcome.index]

    def area_of_steps(times, curve):
        return float(np.r_[1.0, curve] @ np.diff(np.r_[0.0, times, last]))

    monkeypatch.setattr(modules["SurvivalEVAL.evaluations.prediction_error.mean_error"], "km_mean", area_of_steps)
    theirs = peer(np.minimum(days, last), outcome, train, method="Pseudo_obs")
    assert mae_pseudo(outcome["time_days"], outcome["event"], days, train) == pytest.approx(theirs, rel=1e-6)


def test_a_surrogate_day_is_what_one_more_patient_adds_to_the_restricted_mean():
    time, event, _ = simulated(20, 1)
    train = table_of(*simulated(80, 2)[:2])
    last, size = train["time_days"].max(), len(train)
    alone = restricted_mean_survival_time(KaplanMeierFitter().fit(train["time_days"], train["event"]), last)
    for t, dead, ours in zip(time, event, surrogate_days(time, event, train), strict=True):
        joined = pd.concat([train, table_of([t], [dead])])
        mean = restricted_mean_survival_time(KaplanMeierFitter().fit(joined["time_days"], joined["event"]), last)
        expected = min(t, last) if dead or t >= last else (size + 1) * mean - size * alone
        assert ours == pytest.approx(expected, rel=1e-9)
        assert dead or ours >= min(t, last) - 1e-6


def test_the_surrogate_of_one_censored_among_followed_is_the_mean_day_of_those_who_outlive_him():
    rng = np.random.default_rng(4)
    death, censored = rng.exponential(300, 50_000), rng.uniform(0, 600, 50_000)
    at, lost = np.array([0.0, 100, 400]), np.zeros(3, bool)
    followed = surrogate_days(at, lost, table_of(death, np.ones(50_000, bool)))
    assert followed == pytest.approx(at + 300, rel=0.02)  # an exponential life does not age
    # among censored patients he stands for some of them too: later than those who outlive him, and past the last day
    hidden = surrogate_days(at, lost, table_of(np.minimum(death, censored), death <= censored))
    own = at + 300 * (1 - np.exp(-(600 - at) / 300))
    assert hidden[0] == pytest.approx(own[0], rel=0.02) and (hidden > own - 1).all()
    assert hidden[2] > 600


def test_weighting_finds_the_error_that_censoring_hides():
    """Everyone is told the same days; censoring hides the long survivors, so that deaths alone look nearer to it."""
    rng = np.random.default_rng(5)
    death, censored = rng.uniform(0, 1000, 20_000), rng.uniform(0, 1300, 20_000)
    outcome = table_of(np.minimum(death, censored), death <= censored)
    time, event, days = outcome["time_days"].to_numpy(), outcome["event"].to_numpy(), np.full(20_000, 200.0)
    truth = np.abs(death - 200).mean()
    assert mae_ipcw(time, event, days, outcome) == pytest.approx(truth, rel=0.03)
    assert mae_days(time, event, days) < 0.85 * truth
    assert mae_hinge(time, event, days) < 0.85 * truth


def test_without_censoring_all_errors_are_the_plain_ones():
    time, event = np.arange(1.0, 41), np.ones(40, bool)
    outcome, days = table_of(time, event), np.random.default_rng(0).uniform(1, 40, 40)
    plain = np.abs(time - days).mean()
    for found in (mae_days(time, event, days), mae_hinge(time, event, days), mae_ipcw(time, event, days, outcome),
                  mae_pseudo(time, event, days, outcome)):  # fmt: skip
        assert found == pytest.approx(plain, rel=1e-12)
    assert r2_ipcw(time, event, days, outcome) == pytest.approx(r2(time, event, days), rel=1e-12)


def test_a_censored_patient_is_wrong_only_when_predicted_too_early():
    assert mae_hinge([100, 100], [True, False], np.array([90.0, 500.0])) == 5
    assert mae_hinge([100, 100], [True, False], np.array([90.0, 40.0])) == 35


def test_pseudo_errors_are_those_of_days_restricted_to_the_last_training_day():
    train = table_of(np.arange(10.0, 101, 10), np.arange(10) < 9)
    # lived past the last day as predicted, which is known and counts in full; died 40 days before the predicted day
    assert mae_pseudo([120, 50], [False, True], np.array([300.0, 90]), train) == pytest.approx(20)


SCORES = {
    "mae_days": lambda t, e, d, train, c: mae_days(t, e, d, counts=c),
    "mae_hinge": lambda t, e, d, train, c: mae_hinge(t, e, d, counts=c),
    "mae_ipcw": lambda t, e, d, train, c: mae_ipcw(t, e, d, train, counts=c),
    "mae_pseudo": lambda t, e, d, train, c: mae_pseudo(t, e, d, train, counts=c),
    "r2": lambda t, e, d, train, c: r2(t, e, d, counts=c),
    "r2_ipcw": lambda t, e, d, train, c: r2_ipcw(t, e, d, train, counts=c),
    "rmst": lambda t, e, d, train, c: rmst(t, e, 300, counts=c),
    "rmst_difference": lambda t, e, d, train, c: rmst_difference(t, e, d > 300, 300, counts=c),
    "hazard_ratio": lambda t, e, d, train, c: hazard_ratio(t, e, d > 300, counts=c),
    "observed_over_expected": lambda t, e, d, train, c: observed_over_expected(t, e, d / 1500, 300, counts=c),
}


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_a_resample_counts_as_its_patients_written_out(score):
    time, event, _ = simulated(50, 3)
    train, days = table_of(*simulated(70, 9)[:2]), np.random.default_rng(3).uniform(10, 900, 50)
    counts = drawn(50, 8)
    together = score(time, event, days, train, counts)
    assert together.shape == (6,) and np.isfinite(together).all()
    for row, found in zip(counts, together, strict=True):
        at = np.repeat(np.arange(50), row)
        assert found == pytest.approx(score(time[at], event[at], days[at], train, None), rel=1e-9)


rows = st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.integers(1, 20)), min_size=1, max_size=12)


@given(rows, rows)
@settings(max_examples=40, deadline=None)
def test_no_score_fails_however_few_patients_and_wherever_follow_up_ends(patients, trained):
    time, event, days = (np.array(column) for column in zip(*patients, strict=True))
    train = table_of(*zip(*[(t, e) for t, e, _ in trained], strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {name: score(time, event.astype(bool), days.astype(float), train, None)
                 for name, score in SCORES.items()}  # fmt: skip
        groups = [group(time, event, days > 10) for group in (logrank_p, hazard_ratio)]
    assert all(np.isnan(found[name]) for name in ("mae_days", "mae_ipcw")) == (not event.any())
    assert np.isfinite(found["mae_hinge"]) and not np.isinf([*found.values(), *groups]).any()


# --- risk groups --------------------------------------------------------------------------------------------------


def public_groups(name):
    data = datasets()[name]
    known = data.outcome.set_index("patient_id").loc[data.prognosis.table["patient_id"]]
    return (
        known["time_days"].to_numpy(float), known["event"].to_numpy(bool),
        data.prognosis.table["high_risk"].to_numpy(bool), data,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_days_lived_are_those_of_lifelines(name):
    time, event, high, data = public_groups(name)
    until = min(data.horizon, time[high].max(), time[~high].max())
    low_days, high_days = (
        restricted_mean_survival_time(KaplanMeierFitter().fit(time[inside], event[inside]), until)
        for inside in (~high, high)
    )
    assert rmst(time, event, until, counts=high) == pytest.approx(high_days, rel=1e-9)
    assert rmst_difference(time, event, high, until) == pytest.approx(low_days - high_days, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_survival_at_the_horizon_is_that_of_lifelines_even_on_a_day_of_death(name):
    time, event, _, data = public_groups(name)
    curve = KaplanMeierFitter().fit(time, event)
    for horizon in (data.horizon, np.median(time[event])):
        assert survival_to(time, event, horizon) == pytest.approx(float(curve.predict(horizon)), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_hazard_ratio_is_that_of_scikit_survival_with_breslows_ties(name):
    time, event, high, _ = public_groups(name)
    theirs = CoxPHSurvivalAnalysis(ties="breslow", tol=1e-12).fit(high[:, None] * 1.0, Surv.from_arrays(event, time))
    assert hazard_ratio(time, event, high) == pytest.approx(float(np.exp(theirs.coef_[0])), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_hazard_ratio_is_that_of_lifelines_without_ties(seed):
    """lifelines has Efron's ties, which differ from Breslow's only where days are tied."""
    time, event, high = simulated(90, seed, ties=0)
    table = table_of(time, event).assign(high=high.astype(float))
    theirs = CoxPHFitter().fit(table, "time_days", "event", fit_options={"precision": 1e-10}).hazard_ratios_["high"]
    assert hazard_ratio(time, event, high) == pytest.approx(theirs, rel=1e-6)
    assert hazard_ratio(time, event, ~high) == pytest.approx(1 / theirs, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_log_rank_is_that_of_lifelines_and_of_scikit_survival(name):
    from sksurv.compare import compare_survival

    time, event, high, _ = public_groups(name)
    theirs = logrank_test(time[high], time[~high], event[high], event[~high])
    sooner = hazard_ratio(time, event, high) > 1
    assert logrank_p(time, event, high) == pytest.approx((1 - sooner) + (2 * sooner - 1) * theirs.p_value / 2, abs=1e-9)
    assert logrank_p(time, event, ~high) == pytest.approx(1 - logrank_p(time, event, high), abs=1e-9)
    wider = norm.sf((2 * sooner - 1) * np.sqrt(theirs.test_statistic) / 1.3)
    assert logrank_p(time, event, high, inflation=1.3) == pytest.approx(wider, abs=1e-9)
    assert theirs.p_value == pytest.approx(compare_survival(Surv.from_arrays(event, time), high)[1], abs=1e-9)


def test_an_infinite_hazard_ratio_is_not_told():
    time, high = np.array([1.0, 2, 3, 4, 5, 6]), np.array([True, True, True, False, False, False])
    every, none_low = np.ones(6, bool), np.array([True, True, True, False, False, False])
    assert np.isnan(hazard_ratio(time, none_low, high))  # no death among the low
    assert np.isnan(hazard_ratio(time, every, high))  # the low die only when no high is left
    assert np.isfinite(hazard_ratio(time[::-1].copy(), every, np.array([1, 0, 1, 0, 1, 0], bool)))
    assert np.isnan(hazard_ratio(time, every, np.zeros(6, bool))) and np.isnan(logrank_p(time, every, every))


def test_days_lived_are_not_told_past_the_end_of_follow_up():
    time = np.array([10.0, 20, 30])
    assert np.isnan(rmst(time, [True, True, False], 40))
    assert rmst(time, [True, True, True], 40) == pytest.approx(20)  # all have died: nothing more is lived
    assert rmst(time, [True, True, False], 30) == pytest.approx((10 + 20 + 30) / 3)


def test_twice_the_predicted_deaths_is_an_observed_over_expected_of_two():
    time, event = np.r_[np.arange(1.0, 51), np.full(50, 200.0)], np.arange(100) < 50
    assert observed_over_expected(time, event, np.full(100, 0.25), 100) == pytest.approx(2)
    assert np.isnan(observed_over_expected(time, event, np.full(100, 0.25), 201))
