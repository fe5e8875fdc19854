"""Lower bounds on survival: kept as often as promised, whatever the model, and never for want of saying anything."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import binomtest

from benchmarks.conformal import Setting
from benchmarks.conformal import covered as benchmark
from survpack import conformal, tables
from survpack.errors import BadInput
from survpack.figures.conformal import bounds as bounds_figure
from survpack.phantom.oracle import coverage_true, covered
from survpack.phantom.shared import followed
from survpack.prognosis import Prognosis

HORIZON = 365.0
TIMES = np.array([10, 20, 40, 60, 90, 120, 160, 200, 260, 330, 420, 540, 700, 900, 1200, 1600], float)
FACTS = {"weibull_shape": 1.2, "weibull_scale_days": 500.0}
EARLY = {"accrual_days": 900.0, "study_days": 1000.0, "dropout_days": 1500.0}  # about half are censored
NEVER = {"accrual_days": 0.0, "study_days": 1e9, "dropout_days": 1e12}


def truth_of(rng: np.random.Generator, patients: int) -> pd.DataFrame:
    names = [f"P{number:04d}" for number in range(patients)]
    return pd.DataFrame({"patient_id": names, "linear_predictor": rng.normal(0, 0.8, patients), **FACTS})


def outcome_of(rng: np.random.Generator, truth: pd.DataFrame, follow_up: dict) -> pd.DataFrame:
    seen = followed(rng, truth["linear_predictor"], {**FACTS, "follow_up": follow_up})
    return seen.assign(patient_id=truth["patient_id"].to_numpy())


def true_curves(risk, times) -> np.ndarray:
    return np.exp(-((times / FACTS["weibull_scale_days"]) ** FACTS["weibull_shape"]) * np.exp(risk)[:, None])


def prognosis_of(names, curves: np.ndarray, folds: int = 5, test: int = 0, times=TIMES) -> Prognosis:
    """The last `test` patients are the test set; folds are dealt out in turn."""
    fold = np.where(np.arange(len(names)) < len(names) - test, np.arange(len(names)) % folds, -1)
    table = pd.DataFrame({
        "cohort": "toy", "model": "clinical-cox", "seed": 0, "repeat": 0, "fold": fold,
        "split": np.where(fold < 0, "test", "cv"), "patient_id": names, "risk": -curves[:, -1], "days": 100.0,
    })  # fmt: skip
    return Prognosis(table.join(pd.DataFrame(curves, columns=[f"s_{k}" for k in range(curves.shape[1])])), times)


def drawn(seed: int, patients: int = 100, follow_up: dict = EARLY, distort=lambda risk: risk, **dealt) -> tuple:
    """Truth, outcome, and the predictions of a model that sees `distort(linear predictor)`."""
    rng = np.random.default_rng(seed)
    truth = truth_of(rng, patients)
    outcome = outcome_of(rng, truth, follow_up)
    curves = true_curves(distort(truth["linear_predictor"].to_numpy()), TIMES)
    return truth, outcome, prognosis_of(truth["patient_id"], curves, **dealt)


# --- coverage


MODELS = {
    "far too hopeful": lambda risk: risk - 2,
    "overconfident and half noise": lambda risk: 3 * np.roll(risk, len(risk) // 2) + 2 * risk,
    "ignorant": lambda risk: 0 * risk,
}


@pytest.mark.parametrize("model, promised", [*((model, 0.9) for model in MODELS), ("far too hopeful", 0.6)])
def test_over_80_small_cohorts_the_bounds_are_kept_as_promised_and_say_something(model, promised):
    """Exact coverage of the test set, calibrated on 80 patients of whom 40 % are censored.

    The mean of 80 has a standard error of 0.003 to 0.005; in thirds of 27 it exceeds what is promised by 1 / 28 at most,
    without censoring. Without weights it would be 0.47 where 0.6 is promised.
    """
    kept, days = [], []
    for seed in range(80):
        truth, outcome, prognosis = drawn(seed, 110, distort=MODELS[model], folds=1, test=30)
        bounds = conformal.lower_bounds(prognosis, outcome, promised, HORIZON).query("split == 'test'")
        kept.append(coverage_true(bounds, truth)["estimate"])
        days.append(bounds["bound_days"].mean())
    assert promised - 0.01 < np.mean(kept) < promised + 0.04
    best = FACTS["weibull_scale_days"] * (-np.log(promised)) ** (
        1 / FACTS["weibull_shape"]
    )  # of a patient at average risk
    assert np.mean(days) > 0.5 * best


def test_the_same_curves_without_calibration_break_the_promise():
    """Reading a far too hopeful model's own tenth percentile: what the bounds above repair."""
    truth, _, prognosis = drawn(0, distort=MODELS["far too hopeful"])
    naive = [np.interp(-0.9, -np.r_[1, curve], np.r_[0, TIMES]) for curve in prognosis.survival]
    table = prognosis.table[["patient_id"]].assign(bound_days=naive)
    assert coverage_true(table, truth)["estimate"] < 0.6


def test_bounds_of_fitted_models_are_kept_on_the_folds_that_also_trained_the_calibrating_models():
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    kept = []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        truth = truth_of(rng, 100)
        outcome = outcome_of(rng, truth, EARLY)
        features = np.c_[truth["linear_predictor"] + rng.normal(0, 0.5, 100), rng.normal(size=(100, 6))]
        target = np.array(
            list(zip(outcome["event"], outcome["time_days"], strict=True)), dtype=[("e", "?"), ("t", "f8")]
        )
        times = np.unique(np.quantile(outcome.loc[outcome["event"], "time_days"], np.linspace(0, 1, 30)))
        curves = np.empty((100, len(times)))
        for fold in range(5):
            held = np.arange(100) % 5 == fold
            fitted = CoxPHSurvivalAnalysis(alpha=0.1).fit(features[~held], target[~held])
            steps = fitted.predict_survival_function(features[held], return_array=True)
            at = np.searchsorted(fitted.unique_times_, times, side="right")
            curves[held] = np.column_stack([np.ones(len(steps)), steps])[:, at]
        bounds = conformal.lower_bounds(prognosis_of(truth["patient_id"], curves, times=times), outcome, 0.9, HORIZON)
        kept.append(coverage_true(bounds, truth)["estimate"])
    assert 0.885 < np.mean(kept) < 0.945


def test_what_is_calibrated_on_fold_models_holds_for_the_final_model_though_it_is_overfitted_otherwise():
    """100 columns, 100 patients, nothing shrunk: a level of the final model's curve, as it was, covers 0.6, not 0.9.

    The ten cohorts' standard error is 0.01 for thirds; CV+ holds too, with bounds that are shorter.
    """
    found = benchmark(Setting(100, "none", 100, "none"), cohorts=10)["forms"]
    assert found["level"]["marginal"]["high"] < 0.85
    assert 0.88 < found["thirds"]["marginal"]["estimate"] < 0.95 and found["thirds"]["riskiest"]["high"] > 0.9
    assert found["cv_plus"]["marginal"]["low"] > 0.8
    assert found["thirds"]["mean_bound_days"] > found["cv_plus"]["mean_bound_days"]


def test_no_model_however_wrong_breaks_the_guarantee():
    """New patients are all put into the third at lowest risk: fewer than 90 % outlive its bound, but 80 % do."""
    kept = []
    for seed in range(60):
        truth, outcome, prognosis = drawn(seed, 110, NEVER, test=30)
        new = prognosis.table["split"].eq("test")
        hopeful = prognosis.table.assign(**{name: prognosis.table[name].mask(new, 1.0) for name in prognosis.columns})
        bounds = conformal.lower_bounds(Prognosis(hopeful, TIMES), outcome, 0.9, HORIZON).query("split == 'test'")
        kept.append(coverage_true(bounds, truth)["estimate"])
    assert conformal.guaranteed(0.9) == pytest.approx(0.8)
    assert 0.8 < np.mean(kept) < 0.88  # standard error 0.009


def test_without_censoring_a_thirds_bound_is_the_order_statistic_of_conformal_prediction():
    truth, outcome, prognosis = drawn(3, 110, NEVER, test=30)
    found = conformal.lower_bounds(prognosis, outcome, 0.8, HORIZON).set_index("patient_id")["bound_days"]
    alive = [np.interp(HORIZON, np.r_[0, TIMES], np.r_[1, curve]) for curve in prognosis.survival]
    time, cuts = outcome["time_days"].to_numpy(), np.quantile(1 - np.array(alive[:80]), [1 / 3, 2 / 3])
    thirds = np.digitize(1 - np.array(alive), cuts, right=True)
    for number in range(3):
        days = np.sort(time[:80][thirds[:80] == number])
        last = min(days[int((len(days) + 1) * 0.2 + 1e-9) - 1], np.sort(time[:80])[int(81 * 0.4) - 1])
        assert (found.loc[truth["patient_id"][80:][thirds[80:] == number]] == last).all()


# --- what a bound depends on, and where it ends


@pytest.mark.parametrize("fold", [0, 3])
def test_a_fold_never_calibrates_itself_and_the_test_set_calibrates_nothing(fold):
    _, outcome, prognosis = drawn(1, 110, test=30)
    own = prognosis.table["fold"].isin([fold, -1]).to_numpy()
    changed = outcome.assign(time_days=np.where(own, 1.0, outcome["time_days"]), event=own | outcome["event"])
    before, after = (conformal.lower_bounds(prognosis, one, 0.9, HORIZON)["bound_days"] for one in (outcome, changed))
    assert_allclose(after[prognosis.table["fold"] == fold], before[prognosis.table["fold"] == fold])
    assert (after[~own] < before[~own]).mean() > 0.9  # the deaths of day 1 do reach the other folds


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.floats(0.51, 0.97), st.floats(0.51, 0.97))
def test_no_bound_passes_what_is_known_and_a_higher_coverage_never_gives_a_later_one(seed, one, other):
    low, high = sorted([one, other])
    _, outcome, prognosis = drawn(seed, 60, folds=1, test=20)
    bounds = conformal.lower_bounds(prognosis, outcome, low, HORIZON)["bound_days"]
    assert bounds.between(0, outcome["time_days"][:40].max()).all()
    everybody = outcome.assign(event=True)
    later, earlier = (conformal.lower_bounds(prognosis, everybody, each, HORIZON)["bound_days"] for each in (low, high))
    assert (earlier <= later + 1e-9).all()


@pytest.mark.parametrize("patients, silent", [(8, True), (9, False)])
def test_where_too_few_patients_calibrate_the_bound_is_zero_days(patients, silent):
    """Nine are the fewest that can promise 90 %: (0 + 1) / (9 + 1). They make one group."""
    _, outcome, prognosis = drawn(5, patients + 3, NEVER, test=3)
    found = conformal.lower_bounds(prognosis, outcome, 0.9, HORIZON).query("split == 'test'")["bound_days"]
    first = outcome["time_days"][:patients].min()
    assert (found == (0 if silent else first)).all()


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"event": False}, "of 60 patients nobody has had the event"),
        ({"event": True, "time_days": 90.0}, "of 60 patients all events are on one day"),
        ({"event": [True] + [False] * 59}, "of 60 patients all events are on one day"),
    ],
)
def test_without_events_on_two_days_there_is_no_bound_and_a_sentence_says_so(changes, why):
    _, outcome, prognosis = drawn(5, 60)
    outcome = outcome.assign(**changes)
    assert why in conformal.unsaid(outcome, 0.9)
    bounds = conformal.lower_bounds(prognosis, outcome, 0.9, HORIZON)
    assert (bounds["bound_days"] == 0).all()
    nothing = {"estimate": None, "low": None, "high": None}
    seen = conformal.observed(bounds, outcome, outcome, 0.95)
    assert seen == {"all": nothing, "riskiest": nothing} and "not known" in conformal.words(0.9, seen)


def test_too_few_patients_are_told_how_many_it_takes():
    _, outcome, _ = drawn(5, 8)
    assert conformal.unsaid(outcome, 0.9) == "No lower bound is given: 8 patients are too few for 90 %, which takes 9."
    assert not conformal.unsaid(drawn(5, 9, NEVER)[1], 0.9)


def test_of_a_few_deaths_the_bound_is_the_last_day_on_which_enough_are_followed():
    _, outcome, prognosis = drawn(5, 60, test=12)
    days = np.arange(101.0, 161)
    outcome = outcome.assign(event=np.isin(np.arange(60), [40, 45]), time_days=days)
    bounds = conformal.lower_bounds(prognosis, outcome, 0.9, HORIZON).query("split == 'test'")["bound_days"]
    assert (bounds > 0).all() and bounds.max() <= 141  # 9 in 48 are left, and the first dies


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(20, 80), st.floats(0.55, 0.95))
def test_bounds_change_neither_with_a_models_scale_nor_with_the_order_of_patients(seed, patients, coverage):
    _, outcome, prognosis = drawn(seed, patients, folds=1, test=10)
    curves = prognosis.table[prognosis.columns]
    bolder = Prognosis(prognosis.table.assign(**(curves**2)), TIMES)
    one, other = (conformal.lower_bounds(each, outcome, coverage, 40.0) for each in (prognosis, bolder))
    assert_allclose(one["bound_days"], other["bound_days"])
    turned = conformal.lower_bounds(prognosis, outcome[::-1], coverage, 40.0)
    assert_allclose(one["bound_days"], turned["bound_days"])


def test_words_promise_nothing_to_one_patient_and_count_the_riskiest_quarter():
    _, outcome, prognosis = drawn(6, 119)
    bounds = conformal.lower_bounds(prognosis, outcome, 0.9, HORIZON)
    assert bounds["riskiest"].mean() == pytest.approx(0.25, abs=0.02)
    seen = conformal.observed(bounds, outcome, outcome, 0.95)
    text = conformal.words(0.9, seen)
    assert (
        "marginal coverage" in text and "all such patients together 90 %" in text and "80 % are guaranteed to" in text
    )
    for one in seen.values():
        assert f"{100 * one['estimate']:.0f} % ({100 * one['low']:.0f} to {100 * one['high']:.0f} %)" in text
    assert seen["riskiest"]["high"] - seen["riskiest"]["low"] > seen["all"]["high"] - seen["all"]["low"]


def test_a_coverage_that_is_no_probability_is_refused():
    _, outcome, prognosis = drawn(5, 20)
    with pytest.raises(BadInput, match="coverage is 90, expected a number between 0.5 and 1"):
        conformal.lower_bounds(prognosis, outcome, 90, HORIZON)


# --- coverage, observed and true


def test_true_coverage_is_that_of_many_redrawn_outcomes():
    truth, _, prognosis = drawn(2, 200)
    rng = np.random.default_rng(0)
    bounds = prognosis.table[["patient_id"]].assign(bound_days=rng.uniform(0, 400, 200))
    days = [outcome_of(rng, truth, NEVER)["time_days"].to_numpy() >= bounds["bound_days"] for _ in range(500)]
    found = coverage_true(bounds, truth)
    assert_allclose(found["estimate"], np.mean(days), atol=0.005)
    worst = truth["linear_predictor"].rank() > 150
    assert_allclose(found["highest_risk"], np.mean(np.array(days)[:, worst]), atol=0.01)


def test_observed_coverage_under_heavy_censoring_is_the_true_one_where_counting_deaths_is_not():
    rng = np.random.default_rng(4)
    truth = truth_of(rng, 20_000)
    outcome = outcome_of(rng, truth, EARLY)
    best = FACTS["weibull_scale_days"] * (0.4 / np.exp(truth["linear_predictor"])) ** (1 / FACTS["weibull_shape"])
    bounds = truth[["patient_id"]].assign(bound_days=best.clip(upper=600))
    found = conformal.coverage_observed(bounds, outcome, outcome, confidence=0.95)
    true = coverage_true(bounds, truth)["estimate"]
    early = outcome["event"] & (outcome["time_days"] < bounds["bound_days"])
    assert abs(found["estimate"] - true) < 0.015 < abs(1 - early.mean() - true)
    assert found["low"] < true < found["high"]


def test_observed_coverage_without_censoring_is_the_plain_share_with_wilsons_interval():
    bounds = pd.DataFrame({"patient_id": list("abcdefghij"), "bound_days": 100.0})
    outcome = bounds[["patient_id"]].assign(time_days=[50.0, 99, *[100] * 8], event=True)
    wilson = binomtest(8, 10).proportion_ci(0.95, method="wilson")
    found = conformal.coverage_observed(bounds, outcome, outcome, confidence=0.95)
    assert_allclose([found[key] for key in ("estimate", "low", "high")], [0.8, wilson.low, wilson.high])
    every = conformal.coverage_observed(bounds, outcome.assign(time_days=100.0), outcome, confidence=0.95)
    assert every["estimate"] == 1 and every["low"] < 0.75  # ten of ten is no proof
    twice = conformal.coverage_observed(pd.concat([bounds, bounds]), outcome, outcome, confidence=0.95)
    assert_allclose(twice["low"], found["low"])  # two runs do not make twice the patients


def test_observed_coverage_is_none_where_everybody_left_before_the_bound():
    bounds = pd.DataFrame({"patient_id": ["a", "b"], "bound_days": 100.0})
    outcome = bounds[["patient_id"]].assign(time_days=50.0, event=False)
    found = conformal.coverage_observed(bounds, outcome, outcome, confidence=0.95)
    assert found == {"estimate": None, "low": None, "high": None}


# --- of a study


@pytest.fixture
def study(study_of, make_patients, tmp_path):
    return study_of(tmp_path, make_patients(60))


def of_study(study, hopeful: float = 0.0) -> Prognosis:
    placed = study.splits.set_index("patient_id").loc[study.cohort.outcome["patient_id"]]
    curves = np.exp(-TIMES / 400)[None].repeat(len(placed), 0) ** np.exp(-hopeful)
    prognosis = prognosis_of(placed.index, curves)
    return Prognosis(prognosis.table.assign(fold=placed["fold"].to_numpy(),
                                            split=np.where(placed["split"] == "dev", "cv", "test")), TIMES)  # fmt: skip


def test_the_table_has_a_row_a_model_and_split_and_the_truth_of_a_phantom_alone(study):
    prognoses = {"clinical-cox": of_study(study), "volume": of_study(study, hopeful=2)}
    real = conformal.table(study, prognoses, 0.9)
    assert real[["model", "split"]].to_numpy().tolist() == [
        [model, split] for model in prognoses for split in ("cv", "test")
    ]
    assert real["true"].isna().all() and covered(study, conformal.lower_bounds(
        prognoses["volume"], study.cohort.outcome, 0.9, HORIZON)) is None  # fmt: skip
    assert real["patients"].groupby(real["model"]).sum().eq(60).all()
    truth = pd.DataFrame({"patient_id": study.cohort.outcome["patient_id"], "linear_predictor": 0.0, **FACTS})
    study.paths.truth.parent.mkdir(parents=True)
    truth.to_parquet(study.paths.truth)
    phantom = conformal.table(study, prognoses, 0.9)
    assert phantom["true"].between(0.5, 1).all()
    pd.testing.assert_frame_equal(
        phantom.drop(columns=["true", "true_worst"]), real.drop(columns=["true", "true_worst"])
    )
    json.dumps(phantom.to_dict("records"))


def test_the_table_counts_the_patients_of_whom_nothing_can_be_said(study):
    found = conformal.table(study, {"volume": of_study(study)}, 0.999)
    assert (found["without_bound"] == found["patients"]).all() and found[["observed", "riskiest"]].isna().all(axis=None)
    assert "Tumour volume alone (" in tables.without_bound_words(found)
    assert not tables.without_bound_words(conformal.table(study, {"volume": of_study(study)}, 0.9))
    assert (found["median_bound_days"] == 0).all()


def test_the_figure_shows_every_coverage_bound_and_truth_where_it_is():
    table = pd.DataFrame({
        "model": ["volume", "volume", "hybrid-additive-cox"], "split": ["cv", "test", "cv"], "patients": 10,
        "observed": [0.91, None, 0.85], "low": [0.8, None, 0.7], "high": [0.95, None, 0.93],
        "riskiest": [0.82, None, 0.77], "riskiest_low": [0.6, None, 0.5], "riskiest_high": [0.93, None, 0.9],
        "true": [0.9, 0.88, np.nan], "median_bound_days": [40.0, 0.0, 80.0],
    })  # fmt: skip
    figure = bounds_figure(table, 0.9)
    figure.draw_without_rendering()
    left, right = figure.axes
    points = {round(float(line.get_xdata()[0]), 3) for line in left.lines if len(line.get_xdata()) == 1}
    assert points == {0.91, 0.85, 0.9, 0.88, 0.82, 0.77}
    assert [float(line.get_xdata()[0]) for line in right.lines] == [40, 0, 80]
    assert [text.get_text() for text in left.get_yticklabels()] == [
        "Baseline", "Tumour volume alone", "Hybrid: fusions", "Hybrid additive, Cox",
    ]  # fmt: skip
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"True coverage, of the known hazard", "Guaranteed: 80%", "Aimed at: 90% of all together"} <= set(told)
