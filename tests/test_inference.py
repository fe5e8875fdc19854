"""Intervals that cover, differences that are paired, and refusals."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import norm, ttest_1samp

from survpack import params
from survpack.errors import BadInput
from survpack.inference import (
    MOST_PARTS,
    adds,
    bootstrap,
    compare,
    corrected_resampled_test,
    difference,
    evaluate,
    holm,
    interval,
    least_shown,
    paired_difference,
    reading,
    resamples,
    spreads,
)
from survpack.metrics import METRICS, concordance, scores
from survpack.params import Scores
from survpack.prognosis import Prognosis, time_grid

CHOICES = Scores(
    bootstrap=60, confidence=0.95, seed=17, horizon_days={"other": 300}, horizons_days={"other": [300]},
    inflation={"at_chance": 1.35, "none_from": 0.7, "repeats": 1.1}, small_cell={"patients": 10, "events": 10}, coverage=0.9, test_reading="once", shown=[], compare=[],
)  # fmt: skip


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
    times = time_grid(params.load().curves)
    prognoses = {}
    for number, spread in enumerate(noise):
        risk = hazard + spread * rng.normal(size=patients)
        table = participants[["patient_id"]].assign(cohort="c", model=f"model-{number}", seed=0, repeat=0, fold=fold)
        table = table.assign(
            split=np.where(fold < 0, "test", "cv"), risk=risk, days=300 * np.exp(-risk), high_risk=risk > 0
        )
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


def test_intervals_are_scipys_bias_corrected_and_accelerated_ones():
    """Of a variance of skewed values, where percentiles are far off; both by 20,000 resamples of their own."""
    values = np.random.default_rng(3).exponential(size=60)

    def variance(counts):
        mean = counts @ values / counts.sum(-1)
        return {"variance": counts @ values**2 / counts.sum(-1) - mean**2}

    ours = bootstrap(variance, 60, repeats=20_000, confidence=0.9, seed=1)["variance"]
    theirs = scipy_bootstrap((values,), np.var, n_resamples=20_000, confidence_level=0.9, method="BCa", rng=2)
    bounds = theirs.confidence_interval
    percentile = np.quantile(variance(resamples(60, repeats=20_000, seed=1))["variance"], [0.05, 0.95])
    assert (ours["low"], ours["high"]) == pytest.approx((bounds.low, bounds.high), rel=0.02)
    assert np.abs(percentile - [bounds.low, bounds.high]).min() > 0.05 * values.var()  # or the check could not fail


def test_the_acceleration_is_the_same_from_patients_and_from_parts_of_them():
    """Beyond `MOST_PARTS` patients, parts of two are left out, of half as many terms."""
    values = np.random.default_rng(0).exponential(size=2 * MOST_PARTS)
    drawn = resamples(len(values), repeats=2000, seed=0) @ values**2
    total = (values**2).sum()
    parts = total - (values**2).reshape(2, -1).sum(axis=0)
    by_part, by_patient = (interval(total, drawn, 0.95, left_out) for left_out in (parts, total - values**2))
    plain = interval(total, drawn, 0.95)
    assert by_part["high"] == pytest.approx(by_patient["high"], rel=0.02)
    assert abs(by_part["high"] - by_patient["high"]) < 0.5 * abs(plain["high"] - by_patient["high"])
    asked = []
    bootstrap(lambda counts: asked.append(counts) or {"n": counts.sum(-1)}, 600, repeats=10, confidence=0.9, seed=0)
    left_out = 600 - asked[-1].sum(-1)
    assert left_out.sum() == 600 and len(left_out) == MOST_PARTS and set(left_out) == {2, 3}


def test_an_estimate_outside_its_own_resamples_keeps_their_percentiles():
    """An absolute distance near 0: every resample is further off, and a correction would turn the interval over."""
    drawn = np.linspace(0.1, 0.2, 101)
    found = interval(0.01, drawn, 0.9, left_out=np.linspace(0.009, 0.012, 50))
    assert (found["low"], found["high"]) == pytest.approx((0.105, 0.195))


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
        tolerance = 1e-3 if name in ("calibration_slope", "hazard_ratio") else 1e-6  # a ridge weighs half as much
        assert again[name] == pytest.approx(once[name], rel=tolerance, abs=1e-6), name


def test_a_model_minus_itself_is_exactly_zero_which_no_interval_surrounds():
    participants, dev_ids, prognoses = study(60, 1500)
    for metric in METRICS:
        found = difference_of(participants, dev_ids, prognoses["model-0"], prognoses["model-0"], metric)
        assert found == {"estimate": 0.0, "low": None, "high": None, "p": None}, metric


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


def test_a_difference_is_shown_only_if_it_is_after_adjustment_too():
    told = {"estimate": 0.03, "low": 0.01, "high": 0.05, "p": 0.01, "comparisons": 7}
    assert reading(told | {"p_adjusted": 0.049}, "a", "b") == "a minus b: 0.03 (0.01 to 0.05): shown"
    many = "a minus b: 0.03 (0.01 to 0.05): not shown after adjusting for 7 comparisons"
    assert reading(told | {"p_adjusted": 0.07}, "a", "b") == many
    assert reading(told | {"p_adjusted": 0.07}, "a", "b", confidence=0.9).endswith(": shown")
    covered = told | {"low": -0.01, "p_adjusted": 0.07}
    assert adds(covered, "the image") == "the image adds 0.03 (−0.01 to 0.05): not shown"
    assert adds(told, "the image") == "the image adds 0.03 (0.01 to 0.05): shown"
    assert adds(dict.fromkeys(("estimate", "low", "high")), "the image") == "what the image adds: not defined"


@pytest.mark.parametrize("inflation", [1.0, 1.3])
@pytest.mark.parametrize("estimate", [0.3, 1.7, -5.0])
def test_the_p_value_of_a_difference_is_the_level_at_which_its_interval_touches_zero(estimate, inflation):
    drawn = estimate + np.random.default_rng(4).normal(size=999)
    p = difference(estimate, drawn, 0.95, inflation)["p"]
    assert p == pytest.approx(2 * norm.sf(abs(estimate) / (inflation * drawn.std())))
    if p > 1e-9:  # a level of 1 - p is 1 in floating point
        nearest = difference(estimate, drawn, 1 - p, inflation)
        assert min(abs(nearest["low"]), abs(nearest["high"])) < 1e-6


def test_an_inflated_interval_is_that_of_resamples_that_much_wider():
    drawn = np.random.default_rng(8).normal(2.0, 0.5, size=200_000)
    wider = 2.0 + 1.4 * (drawn - 2.0)
    for told in (interval, difference):
        found, expected = told(2.0, drawn, 0.95, inflation=1.4), told(2.0, wider, 0.95)
        assert (found["low"], found["high"]) == pytest.approx((expected["low"], expected["high"]), abs=0.03)


def test_what_no_resample_moves_has_no_interval_and_no_p():
    nothing = {"low": None, "high": None}
    assert interval(1.0, np.ones(999), 0.95, np.ones(40)) == {"estimate": 1.0, **nothing}
    assert difference(0.0, np.zeros(999), 0.95) == {"estimate": 0.0, **nothing, "p": None}
    assert difference(0.1, np.full(999, 0.1), 0.95)["p"] is None
    assert difference(0.1, np.full(9, np.nan), 0.95)["p"] is None
    assert corrected_resampled_test(np.full(25, 0.02), 94, 24) == {
        "estimate": pytest.approx(0.02),
        **nothing,
        "p": None,
    }
    deaths = np.arange(10) < 3  # ten patients, three deaths, in perfect order

    def score(counts):
        return {"c": concordance(np.arange(1.0, 11), deaths, -np.arange(10), counts=counts)}

    assert bootstrap(score, 10, repeats=500, confidence=0.95, seed=1)["c"] == {"estimate": 1.0, **nothing}


def test_the_smallest_difference_shown_has_the_power_it_says():
    error, rng = 0.04, np.random.default_rng(2)
    pairs = {name: difference(0.0, error * rng.normal(size=20_000), 0.95) for name in "abc"}
    least = least_shown(pairs, 0.95)
    seen = np.abs(least + error * rng.normal(size=40_000)) > 1.96 * error
    assert seen.mean() == pytest.approx(0.8, abs=0.01)
    assert least_shown({"a": difference(0.0, np.zeros(9), 0.95)}, 0.95) is None


def test_p_values_of_a_mean_are_those_of_a_t_test():
    values = np.random.default_rng(0).normal(size=(40, 200)) + np.linspace(0, 0.2, 40)[:, None]
    drawn = resamples(200, repeats=4000, seed=0) @ values.T / 200
    found = np.array([difference(*one, 0.95)["p"] for one in zip(values.mean(axis=1), drawn.T, strict=True)])
    # 4,000 resamples know a standard error to one part in ninety, and 200 patients are nearly normal
    assert found == pytest.approx(ttest_1samp(values, 0, axis=1).pvalue, abs=0.02)
    assert found.min() < 0.01 and found.max() > 0.5


def test_holm_agrees_with_statsmodels_and_does_not_count_what_is_not_defined():
    from statsmodels.stats.multitest import multipletests

    p = {"a": 0.04, "b": 0.001, "c": 0.03, "d": 0.9, "e": 0.03}
    theirs = dict(zip(p, multipletests(list(p.values()), method="holm")[1], strict=True))
    assert holm(p) == pytest.approx(theirs)
    assert holm({**p, "f": None}) == {**holm(p), "f": None}
    assert list(holm(p)) == list(p) and holm({}) == {}


def test_compared_pairs_are_adjusted_for_all_of_them():
    participants, dev_ids, prognoses = study(148, 2000, noise=(0.0, 6.0, 6.0))
    pairs = [("model-0", "model-1"), ("model-0", "model-2"), ("model-1", "model-2"), ("model-0", "absent")]
    dev = participants[participants["patient_id"].isin(dev_ids)]
    choice = CHOICES.model_copy(update={"compare": pairs, "bootstrap": 999})
    found = compare(prognoses, participants, dev, 300, choice)
    assert list(found) == pairs[:3] and {one["comparisons"] for one in found.values()} == {3}
    adjusted = holm({pair: one["p"] for pair, one in found.items()})
    assert {pair: one["p_adjusted"] for pair, one in found.items()} == adjusted
    assert found[pairs[0]]["p"] < found[pairs[0]]["p_adjusted"] < 0.02
    assert reading(found[pairs[2]], "a", "b").endswith("not shown")


def test_the_corrected_test_is_the_plain_one_where_test_folds_cost_nothing():
    values = np.random.default_rng(1).normal(0.02, 0.05, size=25)
    found, plain = corrected_resampled_test(values, 1e12, 1), ttest_1samp(values, 0)
    assert found["p"] == pytest.approx(plain.pvalue)
    assert (found["low"], found["high"]) == pytest.approx(tuple(plain.confidence_interval(0.95)))


def test_the_corrected_test_follows_nadeau_and_bengios_example():
    """J = 15 and n_test / n_train = 1 / 9: the variance is 1 / 15 + 1 / 9 of s², not 1 / 15."""
    values = np.linspace(-0.1, 0.2, 15)
    found, plain = (corrected_resampled_test(values, n_train, 10) for n_train in (90, 1e12))
    wider = (found["high"] - found["low"]) / (plain["high"] - plain["low"])
    assert wider == pytest.approx(np.sqrt((1 / 15 + 1 / 9) / (1 / 15)))
    assert found["p"] > plain["p"]


def test_the_corrected_test_says_where_it_is_not_defined():
    assert corrected_resampled_test([0.1, np.nan], 90, 10) == {"estimate": 0.1, "low": None, "high": None, "p": None}
    assert corrected_resampled_test([], 90, 10) == dict.fromkeys(("estimate", "low", "high", "p"))
    for equal in (0.0, 0.1):
        found = corrected_resampled_test([equal, equal], 90, 10)
        assert found == {"estimate": equal, "low": None, "high": None, "p": None}


def test_spreads_of_folds_splits_and_seeds_are_kept_apart():
    """Planted: folds spread 0.1, splits 0.04, seeds 0.02, one on top of the other."""
    rng = np.random.default_rng(0)
    rows = []
    of_split, of_seed = 0.04 * rng.standard_normal(60), 0.02 * rng.standard_normal((60, 4))
    for repeat in range(60):
        for seed in range(4):
            folds = 0.1 * rng.standard_normal(5)
            folds -= folds.mean()  # or the folds' noise would be in the means
            for fold in range(5):
                value = 0.6 + of_split[repeat] + of_seed[repeat, seed] + folds[fold]
                rows.append((repeat, seed, fold, value))
    table = pd.DataFrame(rows, columns=["repeat", "seed", "fold", "value"])
    table = table.assign(model="m", design="repeated", metric="harrell_c", n=20)
    (found,) = spreads(table).to_dict("records")
    assert found["fold_sd"] == pytest.approx(0.1, rel=0.1)
    assert found["split_sd"] == pytest.approx(np.hypot(0.04, 0.02), rel=0.15)  # seeds differ between splits here
    assert found["seed_sd"] == pytest.approx(0.02, rel=0.1)
    assert found["estimate"] == pytest.approx(table["value"].mean()) and np.isnan(found["low"])
    given = pd.DataFrame([{"model": "m", "design": "repeated", "metric": "harrell_c",
                           "estimate": 0.7, "low": 0.6, "high": 0.8}])  # fmt: skip
    (told,) = spreads(table, given).to_dict("records")
    assert (told["estimate"], told["low"], told["high"]) == (0.7, 0.6, 0.8) and told["seed_sd"] == found["seed_sd"]
    (once,) = spreads(table.query("repeat == 0 and seed == 0")).to_dict("records")
    assert np.isnan(once["split_sd"]) and np.isnan(once["seed_sd"]) and once["fold_sd"] > 0


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
