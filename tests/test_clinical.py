"""The clinical score is the published one."""

import numpy as np
import pandas as pd
import pytest

from survpack.clinical import graded_prognostic_assessment

# age, Karnofsky, metastases, disease elsewhere; points of each item added up by hand from Sperduto 2008.
WORKED = {
    "the best of all": (49, 100, 1, "absent", 4.0),
    "the worst of all": (61, 60, 4, "present", 0.0),
    "every half point": (55, 80, 2, "present", 1.5),
    "the lowest of each half": (50, 70, 3, "absent", 2.5),
    "the highest of each half": (59, 80, 3, "absent", 2.5),
    "one step from each half": (60, 90, 1, "present", 2.0),
    "old but fit": (72, 90, 1, "absent", 3.0),
}


@pytest.mark.parametrize("example", WORKED)
def test_worked_examples_score_as_by_hand(example):
    *items, points = WORKED[example]
    chart = pd.DataFrame([items], columns=["age", "karnofsky", "lesion_count", "extracranial_disease"], index=["p"])
    score = graded_prognostic_assessment(chart)
    assert score["p"] == points and score.name == "gpa"


def test_a_patient_with_a_missing_item_has_no_score_and_others_keep_theirs():
    whole = {"age": 70.0, "karnofsky": 90.0, "lesion_count": 1, "extracranial_disease": "absent"}
    gaps = [{**whole, name: np.nan} for name in whole]
    score = graded_prognostic_assessment(pd.DataFrame([whole, *gaps]))
    assert score.isna().tolist() == [False, True, True, True, True] and score[0] == 3


def test_being_older_frailer_or_sicker_never_raises_the_score():
    rng = np.random.default_rng(0)
    chart = pd.DataFrame({
        "age": rng.uniform(20, 90, 500), "karnofsky": rng.integers(2, 11, 500) * 10.0,
        "lesion_count": rng.integers(1, 12, 500), "extracranial_disease": rng.choice(["absent", "present"], 500),
    })  # fmt: skip
    worse = {"age": chart["age"] + 7, "karnofsky": chart["karnofsky"] - 10, "lesion_count": chart["lesion_count"] + 1,
             "extracranial_disease": "present"}  # fmt: skip
    before = graded_prognostic_assessment(chart)
    assert before.between(0, 4).all()
    for name, column in worse.items():
        after = graded_prognostic_assessment(chart.assign(**{name: column}))
        assert (after <= before).all() and (after < before).any()
