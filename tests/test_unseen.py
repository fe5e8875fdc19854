"""A cohort in which nobody was imaged, through the notebooks that measure and explain, as through the fits."""

import json

import joblib
import numpy as np
import pandas as pd
import pytest
from notebook_code import run

from survpack import paths, study
from survpack.biomarkers import Biomarkers
from survpack.cohort import IMAGES, VISITS, Cohort
from survpack.preprocess import CropSet
from survpack.prognosis import Prognosis
from survpack.splits import make_splits
from survpack.study import Study, fit_all

DICTIONARY = {"age": {"kind": "numeric"}, "sex": {"kind": "categorical", "levels": ["female", "male"]}}


@pytest.fixture
def unseen(tmp_path, monkeypatch, params) -> Study:
    """Stage 01 as if done, of thirty patients known by chart and visits; all files below `tmp_path`."""
    for module, name in [(paths, "ROOT"), (study, "ROOT")]:
        monkeypatch.setattr(module, name, tmp_path)
    monkeypatch.setattr(paths, "DERIVED", tmp_path / "derived")
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(paths, "METRICS", tmp_path / "reports" / "metrics")
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"patient_id": [f"P{k:02d}" for k in range(30)], "site": "a"})
    table["time_days"], table["event"] = rng.uniform(1, 900, 30), rng.random(30) < 0.7
    table["age"], table["sex"] = rng.normal(60, 10, 30), rng.choice(["female", "male"], 30)
    visits = table[["patient_id"]].assign(session="0", day=0.0, volume=1.0)[[*VISITS, "volume"]]
    cohort = Cohort("toy", table, pd.DataFrame(columns=IMAGES), DICTIONARY, {1: "tumour"}, visits=visits)
    few = params.model_copy(update={"scores": params.scores.model_copy(update={"bootstrap": 20})})
    monkeypatch.setattr(study.params_module, "load", lambda *_: few)
    made = Study.open("toy")
    cohort.validated().save(made.paths.cohort)
    make_splits(table, folds=2, test_fraction=0.2, seed=1).to_parquet(made.paths.cohort / "splits.parquet")
    made.save_json(made.paths.facts("cohort"), {"visits": {}})
    return Study.open("toy")


def test_nothing_is_measured_fitted_on_images_or_explained_and_each_says_so_in_a_sentence(unseen):
    with joblib.parallel_config(backend="sequential"):
        told = run("02-biomarkers")
    assert "Nobody of this cohort was imaged: there is nothing to measure." in told
    assert Biomarkers.load(unseen.paths.biomarkers).features.shape == (30, 0)
    assert CropSet.load(unseen.paths.crops).images.shape[:2] == (30, 0)
    alone = json.loads(unseen.paths.facts("univariate").read_text())
    assert list(alone["all_patients"]) == ["age"] and alone["development"] == []
    assert json.loads(unseen.paths.facts("radiomics").read_text())["features"] == 0
    assert unseen.paths.figures("biomarkers").is_dir() and not list(unseen.paths.figures("biomarkers").iterdir())

    fitted = {
        model: len(fit_all(unseen, model).table) for model in ("clinical-cox", "volume", "hybrid-efficientnet-mse")
    }
    assert fitted == {"clinical-cox": 30, "volume": 0, "hybrid-efficientnet-mse": 0}
    assert Prognosis.load(unseen.paths.predictions("volume")).table.empty

    reasons = [line for line in run("05-explainability") if isinstance(line, str)]
    assert [line.split(" needs ")[0] for line in reasons] == [
        f"Nothing to explain: {model}" for model in ("lesion-cox", unseen.params.explain.model, *unseen.params.explain.beside)
    ]  # fmt: skip
    drawn = {file.stem for file in unseen.paths.figures("explanation").iterdir()}
    assert drawn == {"importance-clinical-cox", "shap-clinical-cox", "survshap", "dependence"}  # of the chart's model
    assert any(
        "No prognosis: hybrid-additive-cox needs" in line for line in run("06-prognosis") if isinstance(line, str)
    )
    assert not list(unseen.paths.cards.iterdir()) and not list(unseen.paths.bundle.iterdir())
    assert "Nobody of this cohort was imaged: there is nothing to learn from." in run("08-pretraining")
    assert any("there is nothing to transfer" in line for line in run("09-transfer") if isinstance(line, str))
    assert json.loads(unseen.paths.facts("transfer").read_text()) == {}
    assert pd.read_parquet(unseen.paths.derived / "transfer.parquet").empty and unseen.paths.tables("transfer").is_dir()
