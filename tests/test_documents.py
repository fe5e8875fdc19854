"""Model card and data sheet: every number is a file's, small counts are told of nobody."""

import json
import re
from types import SimpleNamespace

import numpy as np
import one_patient
import pandas as pd
import pytest

from survpack import params as params_module
from survpack import paths
from survpack.cohort import Cohort
from survpack.deploy.documents import data_sheet, model_card

SECTIONS = ["Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
            "Quantitative analyses", "Ethical considerations", "Caveats and recommendations"]  # fmt: skip


def _study(rare: int = 2) -> SimpleNamespace:
    """Forty patients, `rare` of whom have a grade that is told of nobody, and three no age."""
    rng, count = np.random.default_rng(3), 40
    ids = [f"sub-{k:02d}" for k in range(count)]
    table = pd.DataFrame({
        "patient_id": ids, "site": "one", "time_days": rng.integers(50, 900, count).astype(float),
        "event": rng.random(count) < 0.6, "age": rng.integers(40, 80, count).astype(float),
        "grade": ["high"] * rare + ["low"] * (count - rare),
    })  # fmt: skip
    table.loc[:2, "age"] = np.nan
    dictionary = {
        "age": {"kind": "numeric", "unit": "years", "description": "Age | at the scan"},
        "grade": {"kind": "ordered", "levels": ["low", "high"], "description": "Grade"},
    }
    images = pd.DataFrame({"patient_id": ids, "session": "", "day": 0, "modality": "ct", "path": "", "mask_path": ""})
    flow = [
        {"step": "in the source", "excluded": 0, "remaining": 43},
        {"step": "known", "excluded": 3, "remaining": 40},
    ]
    cohort = Cohort("mine", table, images, dictionary, {1: "tumour"}, flow)
    splits = pd.DataFrame(
        {"patient_id": ids, "split": ["dev"] * 30 + ["test"] * 10, "fold": [*range(5)] * 6 + [-1] * 10}
    )
    return SimpleNamespace(name="mine", cohort=cohort, splits=splits, params=params_module.load(), horizon_days=365.0)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    monkeypatch.setattr(paths, "METRICS", tmp_path / "metrics")
    return tmp_path


def test_card_has_the_sections_of_mitchell_in_order():
    assert re.findall(r"^## (.+)$", model_card(one_patient.bundle()), re.MULTILINE) == SECTIONS


def test_card_tells_each_score_with_its_interval_and_that_the_test_set_was_not_read():
    text = model_card(one_patient.bundle())
    assert "| Harrell's C | 0.71 (0.63 to 0.79) |" in text and "0.123 (0.100 to 0.150)" in text
    assert "has not been read" in text and "read once" not in text
    both = {"cv": {"harrell_c": one_patient.SCORE}, "test": {"harrell_c": one_patient.SCORE | {"estimate": 0.55}}}
    read = model_card(one_patient.bundle(metrics=both))
    assert "| 0.71 (0.63 to 0.79) | 0.55 (0.63 to 0.79) |" in read and "has not been read" not in read


def test_card_names_limits_found_and_the_bundle():
    found = {"method": "gradcam", "verdict": "may not be trusted: fails random weights", "said": "Do not read it."}
    text = model_card(one_patient.bundle(explanation=found))
    for words in (
        "fails random weights",
        "Do not read it.",
        "sha256:abc",
        "at most about one in 101",
        "60 deaths",
        "For research only",
    ):
        assert words in text
    assert "| Age | 30 to 80 years |" in text  # of the schema


def test_card_of_a_simulated_cohort_says_so_and_another_does_not():
    cohort = one_patient.about()["cohort"]
    assert "do not exist" in model_card(one_patient.bundle(cohort=cohort | {"simulated": True}))
    assert "do not exist" not in model_card(one_patient.bundle())


def _scored(folder, estimate: float) -> None:
    told = {"cv": {"hybrid-additive-cox": {"harrell_c": {"estimate": estimate}}}}
    (folder / "metrics" / "mine.json").write_text(json.dumps(told))


def _grouped(shown: list) -> str:
    params = one_patient.about()["params"]
    return model_card(one_patient.bundle(params=params | {"scores": params["scores"] | {"shown": shown}}))


def test_scores_by_group_are_shown_of_this_very_model_only(_elsewhere):
    folder = _elsewhere / "tables" / "mine" / "reliability"
    folder.mkdir(parents=True)
    (folder / "subgroups.md").write_text("| Variable | C |\n| --- | --- |\n| Sex | 0.61 |\n")
    (_elsewhere / "metrics").mkdir()
    (_elsewhere / "metrics" / "reliability-mine.json").write_text('{"bounds": [], "subgroups": "None differs."}')
    assert "| Sex | 0.61 |" not in _grouped(["hybrid-additive-cox"])  # of which predictions, nobody knows
    _scored(_elsewhere, 0.71)
    for shown, there in ((["age", "hybrid-additive-cox"], True), (["hybrid-additive-cox", "age"], False)):
        assert ("| Sex | 0.61 |" in _grouped(shown)) is there
    _scored(_elsewhere, 0.72)  # the study was run again since
    assert "| Sex | 0.61 |" not in _grouped(["hybrid-additive-cox"])


def test_card_says_that_breslows_curve_holds_the_exact_days_of_death_and_only_then():
    curve = {"times": [3.0, 257.0], "baseline": [0.9, 0.8], "mean": 0, "sd": 1, "slope": 1}
    words = "exact days, counted from baseline, of all 66 deaths"
    assert words in model_card(one_patient.bundle(curve=curve)) and "exact days" not in model_card(one_patient.bundle())


def test_sheet_tells_the_cohorts_own_counts():
    study = _study(rare=12)
    text = data_sheet(study)
    events = int(study.cohort.participants["event"].sum())
    assert f"40 patients, {events} with the event" in text
    assert "30 patients are for development, 10 are held out" in text
    assert "| known | 3 | 40 |" in text and "| in the source | – | 43 |" in text
    assert "Age \\| at the scan" in text  # a bar in a cell does not end it


def test_sheet_tells_no_count_below_five_and_no_patient():
    text = data_sheet(_study(rare=2))
    assert "Counts below 5 are not told" in text and "sub-" not in text
    assert not re.search(r"\| Grade: high +\|", text)
    assert "Nothing is missing of 5 patients or more" in text  # three lack an age
