"""Recalibrated curves: a band that holds the truth as often as it says, whatever the model."""

from __future__ import annotations

import json
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from survpack import conformal
from survpack.errors import BadInput
from survpack.figures.prognosis import as_svg, survival_card
from survpack.prognosis import Prognosis
from survpack.recalibration import GRID, Recalibration, equal_precision

SCALE, SHAPE = 500.0, 1.2
TIMES = SCALE * np.geomspace(0.02, 8, 40)


def cohort(seed: int, patients: int = 118, censored: float | None = 1500.0, power: float = 1.0, test: int = 0):
    """Weibull survival; the model's curves are the true ones to a power, so that f(s) = s ** (1 / power)."""
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


@pytest.mark.parametrize("power, patients, censored", [(1, 41, 700.0), (0.5, 118, 1500.0), (2, 118, None)])
def test_over_many_cohorts_the_whole_band_holds_the_true_curve_as_often_as_it_says(power, patients, censored):
    """100 cohorts: a coverage of 0.95 has a standard error of 0.022, one of 0.5 of 0.05."""
    true, kept = GRID ** (1 / power), {0.95: [], 0.5: []}
    for seed in range(100):
        given = cohort(seed, patients, censored, power)[:2]
        bands = {confidence: Recalibration.learn(*given, confidence) for confidence in kept}
        for confidence, found in bands.items():
            kept[confidence].append(((found.low <= true + 1e-9) & (true <= found.high + 1e-9)).all())
        assert (bands[0.5].high - bands[0.5].low <= bands[0.95].high - bands[0.95].low + 1e-9).all()
    assert np.mean(kept[0.95]) > 0.89
    assert 0.35 < np.mean(kept[0.5]) < 0.8


def test_the_middle_is_lifelines_kaplan_meier_of_how_far_the_curves_had_fallen():
    from lifelines import KaplanMeierFitter

    prognosis, outcome, _ = cohort(1, power=2.0)
    found = Recalibration.learn(prognosis, outcome)
    fallen, event = conformal.fallen(prognosis, outcome)
    expected = KaplanMeierFitter().fit(fallen, event).survival_function_at_times(1 - GRID).to_numpy()
    assert_allclose(found.middle[:-1], expected[:-1], atol=1e-9)


def test_the_band_is_never_narrower_than_greenwoods_interval_of_one_place():
    from lifelines import KaplanMeierFitter

    prognosis, outcome, _ = cohort(2)
    found = Recalibration.learn(prognosis, outcome, 0.95)
    fit = KaplanMeierFitter(alpha=0.05).fit(*conformal.fallen(prognosis, outcome))
    one = fit.confidence_interval_.iloc[:, [0, 1]].to_numpy()
    place = np.searchsorted(fit.confidence_interval_.index, 1 - GRID[20:-1] + 1e-12, side="right") - 1
    assert (found.low[20:-1] <= one[place, 0] + 1e-6).mean() > 0.97
    assert (found.high[20:-1] >= one[place, 1] - 1e-6).mean() > 0.97


def test_the_width_of_equal_precision_is_that_of_simulated_bridges():
    rng = np.random.default_rng(0)
    at = np.linspace(0.1, 0.9, 400)
    steps = np.diff(np.r_[0, at / (1 - at)])
    walk = rng.normal(0, np.sqrt(steps), (8000, len(at))).cumsum(axis=1)
    largest = np.abs(walk / np.sqrt(at / (1 - at))).max(axis=1)
    assert_allclose(equal_precision(0.1, 0.9, 0.95), np.quantile(largest, 0.95), rtol=0.03)


def test_a_model_twice_too_hopeful_is_put_right():
    prognosis, outcome, _ = cohort(3, 3000, power=0.5)
    middle, _, _ = Recalibration.learn(prognosis, outcome).apply(prognosis.survival)
    assert (
        np.abs(middle - prognosis.survival**2).max() < 0.05 < np.abs(prognosis.survival**2 - prognosis.survival).max()
    )


@settings(max_examples=25)
@given(st.integers(0, 1000), st.integers(12, 60), st.sampled_from([200.0, 1500.0, None]))
def test_curves_fall_and_the_band_is_around_them_for_whatever_curve_is_given(seed, patients, censored):
    prognosis, outcome, _ = cohort(seed, patients, censored)
    found = Recalibration.learn(prognosis, outcome.assign(event=outcome["event"] | (outcome.index == 0)))
    middle, low, high = found.apply(np.random.default_rng(seed).uniform(0, 1, (3, 2, 30)))
    assert middle.shape == (3, 2, 30)
    for curve in (middle, low, high):
        assert ((curve >= 0) & (curve <= 1)).all() and (np.diff(curve, axis=-1) <= 0).all()
    assert ((low <= middle + 1e-12) & (middle <= high + 1e-12)).all()


def test_a_curve_that_has_not_fallen_has_the_exact_binomial_bound_of_all_patients():
    from scipy.stats import binomtest

    for patients in (12, 60, 118):
        found = Recalibration.learn(*cohort(4, patients)[:2])
        middle, low, high = (part[0] for part in found.apply(np.array([1.0])))
        exact = binomtest(patients, patients, alternative="greater").proportion_ci(0.95).low
        assert middle == high == 1 and low == pytest.approx(exact) == pytest.approx(0.05 ** (1 / patients))


def test_deaths_before_the_own_curve_fell_count_against_it():
    """Two of sixty die on day 3, when the model still gives everyone 100 %."""
    from scipy.stats import binomtest

    prognosis, outcome, _ = cohort(4, 60)
    table = prognosis.table.assign(s_0=1.0)
    early = outcome["patient_id"].isin(["P0000", "P0001"])
    outcome = outcome.assign(
        time_days=outcome["time_days"].clip(TIMES[1]).mask(early, 3.0), event=outcome["event"] | early
    )
    middle, low, high = (part[0] for part in Recalibration.learn(Prognosis(table, TIMES), outcome).apply(np.ones(1)))
    assert middle == pytest.approx(58 / 60)
    assert (
        low == pytest.approx(binomtest(58, 60, alternative="greater").proportion_ci(0.95).low) and low < middle < high
    )


def test_the_band_is_open_where_too_few_are_left():
    found = Recalibration.learn(*cohort(4, 60, 100.0)[:2])
    middle, low, high = found.apply(np.array([1.0, 0.999, 0.02]))
    assert high[1] > 0.99 and 0 < low[1] < 0.99
    assert low[2] == 0 and high[2] > 0.2


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
    assert_allclose(back.apply(prognosis.survival), found.apply(prognosis.survival), atol=1e-6)
    assert back.as_json() == found.as_json()
    assert len(json.dumps(found.as_json())) < 10_000


@pytest.mark.parametrize("amiss", [{"low": [0.1, 0.2]}, {"middle": None}, {"high": list(GRID[::-1])}, {"low": "abc"}])
def test_what_was_not_stored_by_it_is_refused_in_a_sentence(amiss):
    stored = Recalibration.learn(*cohort(8)[:2]).as_json()
    with pytest.raises(BadInput, match="make the bundle anew"):
        Recalibration.from_json(stored | amiss)
    with pytest.raises(BadInput, match="'deaths' is amiss"):
        Recalibration.from_json({name: value for name, value in stored.items() if name != "deaths"})


def test_without_a_death_or_with_a_confidence_of_95_it_says_so():
    prognosis, outcome, _ = cohort(9)
    with pytest.raises(BadInput, match="no death among 118"):
        Recalibration.learn(prognosis, outcome.assign(event=False))
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
    return survival_card(TIMES, *found.apply(own), **shown), found.apply(own)[0]


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
