"""The planted hazard is found again, whatever the phantom."""

import json

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from scipy.stats import binom

from survpack.phantom.recovery import recovered
from survpack.phantom.shared import followed

FACTS = {
    "coefficients": {"size": 0.7, "kind": -0.5, "nothing": 0.0},
    "weibull_shape": 1.3,
    "weibull_scale_days": 500.0,
    "follow_up": {"accrual_days": 600, "study_days": 1500, "dropout_days": 5000},
}


def planted(patients: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Truth of a phantom of no particular kind, and an outcome drawn from it."""
    rng = np.random.default_rng(seed)
    terms = pd.DataFrame({"size": rng.normal(size=patients), "kind": rng.integers(0, 2, patients) == 1,
                          "nothing": rng.normal(size=patients)}).astype(float)  # fmt: skip
    risk = (terms * pd.Series(FACTS["coefficients"])).sum(axis=1)
    truth = terms.add_prefix("term_").assign(patient_id="p", linear_predictor=risk)
    return truth, followed(rng, risk, FACTS)


def test_intervals_of_a_large_cohort_cover_as_often_as_they_say():
    truth, outcome = planted(300)
    table = recovered(truth, FACTS, outcome, cohorts=100)
    assert table["term"].tolist() == list(FACTS["coefficients"])
    held = round(table["coverage"].sum() * 100)
    assert binom.ppf(0.001, 300, 0.95) <= held <= binom.ppf(0.999, 300, 0.95)


def test_estimates_are_those_of_lifelines_and_hold_the_truth():
    truth, outcome = planted(400, seed=1)
    table = recovered(truth, FACTS, outcome, cohorts=0).set_index("term")
    by_hand = CoxPHFitter().fit(truth.filter(like="term_").join(outcome), "time_days", "event")
    np.testing.assert_allclose(table["estimate"], by_hand.params_, atol=1e-4)
    np.testing.assert_allclose(table[["low", "high"]], by_hand.confidence_intervals_, atol=1e-4)
    assert ((table["estimate"] - table["true"]).abs() < 0.35).all()


def test_intervals_about_a_wrong_coefficient_do_not_cover_it():
    truth, outcome = planted(300)
    wrong = {**FACTS, "coefficients": {**FACTS["coefficients"], "size": 0.2}}
    table = recovered(truth, wrong, outcome, cohorts=20).set_index("term")
    assert table.loc["size", "coverage"] < 0.2 < table.loc["nothing", "coverage"]


def test_a_term_that_does_not_vary_has_no_row():
    truth, outcome = planted(100)
    table = recovered(truth.assign(term_kind=1.0), FACTS, outcome, cohorts=2)
    assert table["term"].tolist() == ["size", "nothing"]


def test_facts_survive_the_file_they_are_written_to():
    truth, outcome = planted(100)
    pd.testing.assert_frame_equal(
        recovered(truth, json.loads(json.dumps(FACTS)), outcome, cohorts=3, seed=5),
        recovered(truth, FACTS, outcome, cohorts=3, seed=5),
    )


@pytest.mark.parametrize("part", ["event", "time_days"])
def test_fresh_cohorts_differ_and_repeat_in_their_seed(part):
    truth, _ = planted(50)
    draws = [followed(np.random.default_rng(seed), truth["linear_predictor"], FACTS)[part] for seed in (1, 1, 2)]
    assert draws[0].equals(draws[1]) and not draws[0].equals(draws[2])
