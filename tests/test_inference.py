"""Intervals that cover, differences that are paired, and refusals."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from survpack.errors import BadInput
from survpack.inference import bootstrap, evaluate, interval, paired_difference, reading, resamples
from survpack.metrics import METRICS, concordance, scores
from survpack.params import Scores
from survpack.prognosis import Prognosis, time_grid

CHOICES = Scores(bootstrap=60, confidence=0.95, seed=17, horizon_days={"other": 300}, shown=[], compare=[])


def study(patients, longest, seed=0, noise=(0.0, 3.0)):
    """Participants, development ids and one prognosis for each amount of noise in the risk."""
    rng = np.random.default_rng(seed)
    hazard = rng.normal(size=patients)
    death, censored = rng.exponential(400 * np.exp(-hazard)), rng.uniform(0, longest, patients)
    participants = pd.DataFrame(
        {
            "patient_id": [f"P{number:03d}" for number in range(patients)],
            "time_days": np.ceil(np.minimum(death, censored)),
            "event": death <= censored,
        }
    )
    fold = np.where(np.arange(patients) < patients // 5, -1, np.arange(patients) % 5)
    dev = participants[fold >= 0]
    times = time_grid(dev["time_days"], dev["event"])
    prognoses = {}
    for number, spread in enumerate(noise):
        risk = hazard + spread * rng.normal(size=patients)
        table = participants[["patient_id"]].assign(cohort="c", model=f"model-{number}", seed=0, repeat=0, fold=fold)
        table = table.assign(split=np.where(fold < 0, "test", "cv"), risk=risk, days=300 * np.exp(-risk))
        curves = pd.DataFrame(
            np.exp(-np.outer(np.exp(risk), times) / 400), columns=[f"s_{k}" for k in range(len(times))]
        )
        prognoses[f"model-{number}"] = Prognosis(pd.concat([table, curves], axis=1), times)
    return participants, dev["patient_id"], prognoses


def difference_of(participants, dev_ids, a, b, metric="harrell_c", **changes):
    chosen = {"train_outcome": participants[participants["patient_id"].isin(dev_ids)], "horizon": 300}
    chosen |= {"repeats": 200, "confidence": 0.95, "seed": 1, **changes}
    return paired_difference(a.of("cv"), b.of("cv"), participants, metric, **chosen)


def test_resamples_draw_as_many_patients_as_there_are_and_each_equally_often():
    counts = resamples(40, repeats=3000, seed=0)
    assert counts.shape == (3000, 40) and (counts.sum(axis=1) == 40).all()
    # the mean of 3000 draws of variance 39/40 lies within 5 standard errors of 1
    assert np.abs(counts.mean(axis=0) - 1).max() < 5 / np.sqrt(3000)
    assert counts.var(axis=0).mean() == pytest.approx(39 / 40, rel=0.05)


def test_interval_of_a_mean_has_the_standard_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap(lambda counts: {"mean": counts @ values / 400}, 400, repeats=4000, confidence=0.95, seed=1)[
        "mean"
    ]
    half = 1.96 * values.std() / 20
    assert found["estimate"] == pytest.approx(values.mean())
    assert (found["low"], found["high"]) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_ninety_five_percent_intervals_of_harrells_c_cover_the_truth_about_that_often():
    """300 studies of 80 patients. True concordance: E logistic(|difference of log hazards|), by quadrature."""
    truth = quad(lambda d: 2 * norm.pdf(d, scale=np.sqrt(2)) / (1 + np.exp(-d)), 0, np.inf)[0]
    rng = np.random.default_rng(0)
    covered = 0
    for number in range(300):
        hazard = rng.normal(size=80)
        time, event = rng.exponential(np.exp(-hazard)), np.ones(80, bool)

        def score(counts, time=time, event=event, hazard=hazard):
            return {"c": concordance(time, event, hazard, counts=counts)}

        found = bootstrap(score, 80, repeats=300, confidence=0.95, seed=number)["c"]
        covered += found["low"] <= truth <= found["high"]
    # the standard error of this share is 1.3 %, and a percentile interval of 80 patients is a little short
    assert 0.91 <= covered / 300 <= 0.98


def test_undefined_resamples_are_dropped_and_too_many_leave_no_interval():
    values = np.r_[np.arange(81.0), np.full(19, np.nan)]
    assert interval(40.0, values, 0.9) == {"estimate": 40.0, "low": pytest.approx(4), "high": pytest.approx(76)}
    assert interval(40.0, np.r_[values, np.full(3, np.nan)], 0.9) == {"estimate": 40.0, "low": None, "high": None}
    assert interval(np.nan, np.arange(10.0), 0.9) == {"estimate": None, "low": None, "high": None}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("patients", "longest"), [(51, 250), (207, 80), (148, 2000)])
def test_small_cohorts_return_every_score_as_strict_json(patients, longest):
    participants, dev_ids, prognoses = study(patients, longest)
    assert participants["event"].mean() < 0.4 or longest == 2000
    found = evaluate(prognoses, participants, dev_ids, CHOICES, "c")
    assert list(found) == ["cv", "test"]
    for split in found:
        for model in prognoses:
            assert set(found[split][model]) == set(METRICS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    bounds = found["cv"]["model-0"]["harrell_c"]
    assert 0 <= bounds["low"] < bounds["estimate"] < bounds["high"] <= 1


def test_estimates_are_the_scores_of_the_sample_and_do_not_depend_on_the_order_of_rows():
    participants, dev_ids, prognoses = study(60, 1500)
    dev = participants[participants["patient_id"].isin(dev_ids)]
    found = evaluate(prognoses, participants, dev_ids, CHOICES, "c")
    plain = scores(prognoses["model-0"].of("cv"), participants, dev, 300)
    assert {name: one["estimate"] for name, one in found["cv"]["model-0"].items()} == pytest.approx(plain)
    shuffled = {
        name: Prognosis(one.table.sample(frac=1, random_state=3).reset_index(drop=True), one.times)
        for name, one in prognoses.items()
    }
    again = evaluate(shuffled, participants.sample(frac=1, random_state=4), dev_ids, CHOICES, "c")
    for name in METRICS:
        assert again["test"]["model-1"][name] == pytest.approx(found["test"]["model-1"][name], abs=1e-6), name


def test_the_seed_decides_everything():
    participants, dev_ids, prognoses = study(60, 1500)
    first = evaluate(prognoses, participants, dev_ids, CHOICES, "c")
    assert evaluate(prognoses, participants, dev_ids, CHOICES, "c") == first
    other = evaluate(prognoses, participants, dev_ids, CHOICES.model_copy(update={"seed": 18}), "c")
    assert other["cv"]["model-0"]["harrell_c"]["low"] != first["cv"]["model-0"]["harrell_c"]["low"]


def test_a_model_predicted_twice_weighs_no_more_than_once():
    """A second repeat that ranks alike on another scale: the same patients, so the same scores and intervals."""
    participants, dev_ids, prognoses = study(60, 1500, noise=(0.5,))
    one = prognoses["model-0"]
    second = one.table.assign(repeat=1, risk=one.table["risk"] + 100)
    twice = Prognosis(pd.concat([one.table, second], ignore_index=True), one.times)
    once = evaluate(prognoses, participants, dev_ids, CHOICES, "c")["cv"]["model-0"]
    again = evaluate({"model-0": twice}, participants, dev_ids, CHOICES, "c")["cv"]["model-0"]
    for name in set(METRICS) - {"ici"}:  # twice the rows are twice the events, and more knots
        assert again[name] == pytest.approx(once[name], abs=1e-6), name


def test_a_model_minus_itself_is_exactly_zero():
    participants, dev_ids, prognoses = study(60, 1500)
    for metric in METRICS:
        found = difference_of(participants, dev_ids, prognoses["model-0"], prognoses["model-0"], metric)
        assert found == {"estimate": 0.0, "low": 0.0, "high": 0.0}, metric


def test_a_paired_interval_is_shorter_than_of_independent_samples():
    participants, dev_ids, prognoses = study(120, 2000, noise=(0.0, 0.3))
    found = difference_of(participants, dev_ids, *prognoses.values())
    each = evaluate(prognoses, participants, dev_ids, CHOICES, "c")["cv"]
    widths = [one["harrell_c"]["high"] - one["harrell_c"]["low"] for one in each.values()]
    assert found["high"] - found["low"] < 0.7 * np.hypot(*widths)


def test_the_oracle_is_shown_to_beat_noise_and_two_equals_are_not_told_apart():
    participants, dev_ids, prognoses = study(148, 2000, noise=(0.0, 6.0, 6.0))
    oracle, noise, other = prognoses.values()
    assert reading(difference_of(participants, dev_ids, oracle, noise), "oracle", "noise").endswith("): shown")
    assert reading(difference_of(participants, dev_ids, noise, other), "a", "b").endswith("): not shown")


def test_a_reading_says_shown_only_if_the_interval_excludes_zero():
    def read(estimate, low, high):
        return reading({"estimate": estimate, "low": low, "high": high}, "a", "b")

    assert read(0.03, -0.01, 0.07) == "a minus b: 0.03 (−0.01 to 0.07): not shown"
    assert read(-0.03, -0.05, -0.01) == "a minus b: −0.03 (−0.05 to −0.01): shown"
    assert read(0.0, 0.0, 0.0) == "a minus b: 0.00 (0.00 to 0.00): not shown"
    assert read(0.03, 0.0004, 0.06) == "a minus b: 0.0300 (0.0004 to 0.0600): shown"
    assert read(0.03, None, None) == "a minus b: 0.03 (no interval): not shown"
    assert read(None, None, None) == "a minus b: not defined"


def test_models_that_predicted_different_patients_are_not_compared():
    participants, dev_ids, prognoses = study(60, 1500)
    lost = prognoses["model-1"]
    lost = Prognosis(lost.table[lost.table["patient_id"] != "P030"].reset_index(drop=True), lost.times)
    with pytest.raises(BadInput, match="model-0 and model-1.*P030"):
        difference_of(participants, dev_ids, prognoses["model-0"], lost)
    with pytest.raises(BadInput, match="P030"):
        evaluate({"model-0": prognoses["model-0"], "model-1": lost}, participants, dev_ids, CHOICES, "c")


@pytest.mark.parametrize(("dev", "split"), [("all patients", "test"), ("one fewer", "cv")])
def test_a_patient_on_both_sides_of_the_split_is_refused_and_named(dev, split):
    participants, dev_ids, prognoses = study(60, 1500)
    dev_ids = participants["patient_id"] if dev == "all patients" else dev_ids.iloc[1:]
    named = "P000" if split == "test" else "P012"
    with pytest.raises(BadInput, match=f"split '{split}': patient {named}"):
        evaluate(prognoses, participants, dev_ids, CHOICES, "c")


def test_an_unknown_metric_is_refused_with_those_there_are():
    participants, dev_ids, prognoses = study(60, 1500)
    with pytest.raises(BadInput, match="'accuracy' is not one of harrell_c"):
        difference_of(participants, dev_ids, *prognoses.values(), metric="accuracy")
    with pytest.raises(BadInput, match="no patient"):
        bootstrap(lambda counts: {}, 0, repeats=10, confidence=0.95, seed=0)
