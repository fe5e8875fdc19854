"""Recalibrated curves: near the truth however patients are censored, and a band that holds it."""

from __future__ import annotations

import json
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from benchmarks import recalibration as benchmark
from survpack.errors import BadInput
from survpack.figures.prognosis import as_svg, survival_card
from survpack.prognosis import Prognosis
from survpack.recalibration import FEW, Recalibration, dependent_weights, fitted, fixed_days

SCALE, SHAPE = 500.0, 1.2
TIMES = SCALE * np.geomspace(0.02, 8, 40)


def cohort(seed: int, patients: int = 118, censored: float | None = 1500.0, power: float = 1.0, test: int = 0):
    """Weibull survival; the model's curves are the true ones to a power: log(−log S) is log(power) too high."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(0, 0.8, patients)
    death = SCALE * (rng.exponential(size=patients) / np.exp(risk)) ** (1 / SHAPE)
    left = rng.exponential(censored, patients) if censored else np.full(patients, np.inf)
    names = [f"P{number:04d}" for number in range(patients)]
    fold = np.where(np.arange(patients) < patients - test, np.arange(patients) % 5, -1)
    curves = np.exp(-power * (TIMES / SCALE) ** SHAPE * np.exp(risk)[:, None])
    keys = {"cohort": "toy", "model": "clinical-cox", "seed": 0, "repeat": 0}
    table = pd.DataFrame({**keys, "fold": fold, "split": np.where(fold < 0, "test", "cv"), "patient_id": names,
                          "risk": risk, "days": 100.0})  # fmt: skip
    table = table.join(pd.DataFrame(curves, columns=[f"s_{k}" for k in range(len(TIMES))]))
    outcome = pd.DataFrame({"patient_id": names, "time_days": np.minimum(death, left) + 1e-6, "event": death <= left})
    return Prognosis(table, TIMES), outcome, death


@pytest.mark.parametrize("slope", [0.5, 2.0])
@pytest.mark.parametrize("kind", benchmark.KINDS)
def test_curves_too_wide_or_too_narrow_are_put_right_however_patients_are_censored(kind, slope):
    """60 cohorts; mean survival of new patients at three days, and that of each quarter of risk. Raw is off by up to 0.25.

    Where censoring depends on risk, weights that do not know it are off by 0.04 in a quarter: those that do are asked.
    """
    way = "dependent weights" if kind == "dependent" else "weights"
    found = benchmark.summary(kind, slope, cohorts=60, ways=("as predicted", way), bands=False)
    mended, error = found[way], np.array(found[way]["error"])
    assert (np.abs(mended["bias"]) < 0.01 + 3 * error).all(), mended
    assert np.abs(mended["worst_quarter"]).max() < 0.03 + 3 * error.max() < 0.1
    assert np.abs(found["as predicted"]["worst_quarter"]).max() > 0.17


@pytest.mark.parametrize("power, patients, censored", [(1, 60, 700.0), (0.5, 118, 1500.0), (2, 118, None)])
def test_over_many_cohorts_the_band_holds_a_patients_whole_curve_about_as_often_as_it_says(power, patients, censored):
    """30 cohorts, 100 patients of a spread of risks; the patients of a cohort share its error."""
    risks = np.linspace(-1.6, 1.6, 100)
    true = np.exp(-((TIMES / SCALE) ** SHAPE) * np.exp(risks)[:, None])
    held = []
    for seed in range(30):
        _, low, high = Recalibration.learn(*cohort(seed, patients, censored, power)[:2]).apply(true**power, TIMES)
        held.append(((low <= true + 1e-9) & (true <= high + 1e-9)).all(axis=1).mean())
    assert 0.86 < np.mean(held) < 1


def test_without_penalty_and_on_one_day_it_is_the_regression_of_statsmodels(monkeypatch):
    import statsmodels.api as sm

    from survpack import recalibration

    monkeypatch.setattr(recalibration, "TOWARDS", 0.0)
    prognosis, outcome, _ = cohort(1, censored=None)
    time, event = outcome["time_days"].to_numpy(), outcome["event"].to_numpy()
    score = np.log(-np.log(prognosis.survival[:, [20]]))
    level, slope = fitted(time, event, score, TIMES[[20]])
    link = sm.families.Binomial(sm.families.links.CLogLog())
    columns = sm.add_constant(score[:, 0] - score.mean())
    peer = sm.GLM((time <= TIMES[20]).astype(float), columns, family=link).fit(tol=1e-12).params
    assert_allclose([level + score.mean(), slope], peer, atol=1e-6)


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_a_model_twice_too_hopeful_or_too_bold_is_put_right(power):
    prognosis, outcome, _ = cohort(3, 3000, power=power)
    middle, _, _ = Recalibration.learn(prognosis, outcome).apply(prognosis.survival, TIMES)
    true = prognosis.survival ** (1 / power)
    assert np.abs(middle - true).mean() < 0.02 < 0.15 < np.abs(prognosis.survival - true).max()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(12, 60), st.sampled_from([200.0, 1500.0, None]))
def test_curves_fall_patients_keep_their_order_and_the_band_is_around_them_for_whatever_curve(seed, patients, censored):
    prognosis, outcome, _ = cohort(seed, patients, censored)
    found = Recalibration.learn(prognosis, outcome.assign(event=outcome["event"] | (outcome.index == 0)))
    drawn = np.random.default_rng(seed).uniform(0, 1, (3, 2, 30))
    drawn[0, 0], drawn[0, 1] = 1.0, 0.0
    middle, low, high = found.apply(drawn, np.linspace(0, 3000, 30))
    assert middle.shape == (3, 2, 30)
    for curve in (middle, low, high):
        assert ((curve >= 0) & (curve <= 1)).all() and (np.diff(curve, axis=-1) <= 1e-12).all()
    assert ((low <= middle + 1e-12) & (middle <= high + 1e-12)).all() and (low < high).all()
    for day in (3.0, 300.0, 4000.0):
        assert (np.diff(found.table(day)["middle"]) >= -1e-12).all()


def test_a_model_that_ranks_backwards_has_slope_0_and_tells_all_the_kaplan_meier_chance():
    from lifelines import KaplanMeierFitter

    prognosis, outcome, _ = cohort(1, 300, power=1.0)
    ranked = outcome["time_days"].rank(method="first").astype(int).to_numpy() - 1
    backwards = np.sort(prognosis.survival, axis=0)[::-1][ranked]  # who dies first is told the longest life
    table = prognosis.table.assign(**dict(zip(prognosis.columns, backwards.T, strict=True)))
    found = Recalibration.learn(Prognosis(table, TIMES), outcome)
    assert found.slope == 0
    middle = found.apply(prognosis.survival, TIMES)[0]
    day = np.searchsorted(TIMES, found.days[2])
    alive = KaplanMeierFitter().fit(outcome["time_days"], outcome["event"]).predict(found.days[2])
    assert_allclose(middle[:, day], alive, atol=0.01)


def test_a_curve_that_has_not_fallen_has_the_exact_binomial_bound_of_all_patients():
    from scipy.stats import binomtest

    for patients in (40, 60, 118):
        found = Recalibration.learn(*cohort(4, patients)[:2])
        middle, low, high = (part[0] for part in found.apply(np.ones(1), np.array([30.0])))
        exact = binomtest(patients, patients, alternative="greater").proportion_ci(0.95).low
        assert middle == pytest.approx(1) == high and low == pytest.approx(exact) == pytest.approx(
            0.05 ** (1 / patients)
        )


def test_the_band_is_open_below_where_too_few_are_left():
    found = Recalibration.learn(*cohort(4, 118, 300.0)[:2])
    days = np.array([found.days[-1], found.days[-1] + 1, 5000.0])
    middle, low, high = found.apply(np.array([0.5, 0.49, 0.02]), days)
    assert low[0] > 0 and (low[1:] == 0).all() and (high[1:] == high[0]).all() and (np.diff(middle) < 0).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("events", [0, 1, 2, FEW - 1])
def test_of_too_few_deaths_nothing_is_learnt_and_it_says_so(events):
    prognosis, outcome, _ = cohort(9)
    found = Recalibration.learn(prognosis, outcome.assign(event=np.arange(118) < events))
    middle, low, high = Recalibration.from_json(found.as_json()).apply(prognosis.survival, TIMES)
    assert_allclose(middle, prognosis.survival)
    assert (low == 0).all() and (high == 1).all()
    assert f"deaths: {events} of 118" in found.told() and "own" in found.told()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("follow_up", ["deaths on one day", "some on one day", "censored after a day", "told the same"])
def test_degenerate_cohorts_have_a_defined_curve(follow_up):
    prognosis, outcome, _ = cohort(9)
    first = np.arange(118) < 60
    if follow_up == "deaths on one day":
        outcome = outcome.assign(time_days=365.0, event=True)
    elif follow_up == "some on one day":
        outcome = outcome.assign(time_days=outcome["time_days"].mask(first, 200.0), event=first)
    elif follow_up == "censored after a day":
        outcome = outcome.assign(time_days=1.0, event=False)
    else:
        same = dict(zip(prognosis.columns, prognosis.survival[0], strict=True))
        prognosis = Prognosis(prognosis.table.assign(**same), TIMES)
    found = Recalibration.learn(prognosis, outcome)
    middle, low, high = found.apply(prognosis.survival, TIMES)
    assert np.isfinite(middle).all() and (low <= middle + 1e-12).all() and (middle <= high + 1e-12).all()
    assert (low < high).all() and found.told().endswith(".")
    assert bool(len(found.days)) == (follow_up in ("some on one day", "told the same"))


def test_weights_of_censoring_that_depends_on_risk_are_those_of_the_true_hazard_of_censoring():
    rng = np.random.default_rng(0)
    risk, death = rng.normal(0, 0.8, 4000), rng.exponential(800, 4000)
    lost = rng.exponential(900 * np.exp(-risk))
    time, event = np.minimum(death, lost), death <= lost
    found = dependent_weights(time, event, risk, [300.0, 600.0])
    for k, day in enumerate((300.0, 600.0)):
        true = np.exp(np.exp(risk) * np.minimum(time, day) / 900) * ~(~event & (time < day))
        assert np.corrcoef(found[:, k], true)[0, 1] > 0.98 and found[:, k].sum() == pytest.approx(4000, rel=0.03)


def test_the_fixed_days_have_ten_deaths_before_and_five_patients_after():
    prognosis, outcome, _ = cohort(2)
    time, event = outcome["time_days"].to_numpy(), outcome["event"].to_numpy()
    days = fixed_days(TIMES, time, event)
    assert len(days) == 5 and np.isin(days, TIMES).all()
    assert (event & (time <= days[0])).sum() >= 10 and (time > days[-1]).sum() >= 5


def test_only_the_outcomes_of_those_predicted_out_of_fold_are_read():
    prognosis, outcome, _ = cohort(5, 140, test=40)
    changed = outcome.assign(time_days=np.where(np.arange(140) >= 100, 1.0, outcome["time_days"]))
    before, after = (Recalibration.learn(prognosis, one).as_json() for one in (outcome, changed))
    assert before == after and before["patients"] == 100
    assert Recalibration.learn(prognosis, outcome[:100]).as_json() == before


def test_a_patient_predicted_by_two_runs_counts_once():
    prognosis, outcome, _ = cohort(6)
    again = prognosis.table.assign(repeat=1, s_3=0.5)
    twice = Prognosis(pd.concat([prognosis.table, again], ignore_index=True), TIMES)
    assert Recalibration.learn(twice, outcome).as_json() == Recalibration.learn(prognosis, outcome).as_json()


def test_it_says_the_same_after_json_and_keeps_no_patients_number():
    prognosis, outcome, _ = cohort(7)
    found = Recalibration.learn(prognosis, outcome)
    back = Recalibration.from_json(json.loads(json.dumps(found.as_json())))
    assert_allclose(back.apply(prognosis.survival, TIMES), found.apply(prognosis.survival, TIMES), atol=1e-4)
    assert back.as_json() == found.as_json()
    assert len(json.dumps(found.as_json())) < 10_000


@pytest.mark.parametrize("amiss", [{"level": [0.1, 0.2]}, {"days": None}, {"days": [5, 4, 3, 2, 1]}, {"covariance": "abc"},
                                   {"slope": -1.0}])  # fmt: skip
def test_what_was_not_stored_by_it_is_refused_in_a_sentence(amiss):
    stored = Recalibration.learn(*cohort(8)[:2]).as_json()
    with pytest.raises(BadInput, match="make the bundle anew"):
        Recalibration.from_json(stored | amiss)
    with pytest.raises(BadInput, match="'deaths' is amiss"):
        Recalibration.from_json({name: value for name, value in stored.items() if name != "deaths"})


def test_with_a_confidence_of_95_or_without_predictions_out_of_fold_it_says_so():
    prognosis, outcome, _ = cohort(9)
    with pytest.raises(BadInput, match="confidence is 95"):
        Recalibration.learn(prognosis, outcome, 95)
    with pytest.raises(BadInput, match="no row of split 'cv'"):
        Recalibration.learn(Prognosis(prognosis.table.assign(split="test"), TIMES), outcome)


# --- the figure


def drawn(**changed):
    prognosis, outcome, _ = cohort(12)
    found = Recalibration.learn(prognosis, outcome)
    own = prognosis.survival[0]
    groups = {name: {"times": TIMES, "survival": own**power} for name, power in (("low", 0.5), ("high", 2))}
    shown = {"groups": groups, "horizons": [91, 183, 9999], "bound": 40.0, "own": own} | changed
    return survival_card(TIMES, *found.apply(own, TIMES), **shown), found.apply(own, TIMES)[0]


def test_the_card_shows_the_curve_from_1_the_horizons_within_reach_and_the_bound():
    figure, middle = drawn()
    axes = figure.axes[0]
    patient = next(line for line in axes.lines if line.get_label() == "This patient")
    assert patient.get_xydata()[0].tolist() == [0, 1] and axes.get_ylim()[0] == 0
    said = [text.get_text() for text in axes.texts]
    assert f"{np.interp(91, np.r_[0, TIMES], np.r_[1, middle]):.0%}" in said and len(said) == 2
    assert sum("%" in text for text in said) == 2
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"This patient", "Band", "Before recalibration", "Cohort, low risk", "Lower bound, day 40"} <= set(labels)


@pytest.mark.parametrize("last", [1000, 4000])
@pytest.mark.parametrize("chance", [0.999, 0.6, 0.01])
def test_labels_of_dots_lie_beside_each_other_and_within_the_axes(chance, last):
    times = np.linspace(0, last, 50)
    curve = np.where(times > 0, chance, 0.9)  # a day 0 that is not 1 is set right
    figure = survival_card(times, curve, curve, curve, horizons=[91, 183, 365, 730])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    frame = axes.get_window_extent()
    assert len(boxes) == 4 and axes.lines[0].get_ydata()[0] == 1
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 and frame.x0 <= box.x0 for box in boxes)
    assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])


def test_the_card_does_without_what_is_not_known():
    figure, _ = drawn(groups=None, horizons=(), bound=None, own=None)
    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["This patient", "Band"]


def test_cards_drawn_by_several_threads_are_the_same_and_pyplot_is_not_asked():
    from matplotlib import pyplot

    found, before = [], pyplot.get_fignums()

    def draw():
        found.append(as_svg(drawn()[0]))

    threads = [Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1 and pyplot.get_fignums() == before
