"""The fits of a study: each patient predicted once by who never saw them, and nothing lost when a run is killed."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from survpack import paths
from survpack import study as study_module
from survpack.gate import curves as gate_curves
from survpack.models import build
from survpack.paths import NOTEBOOKS
from survpack.preprocess import CropSet
from survpack.prognosis import Prognosis
from survpack.study import TEST_FOLD, Study, fit_all, fit_digest, fit_name, fitted

PACKAGE = Path(study_module.__file__).parent
KINDS = ["clinical-cox", "hybrid-tiny-cox"]


@pytest.fixture
def small(make_patients):
    return make_patients(30, voxels=8)


@pytest.fixture
def study(tmp_path, small, study_of, tiny_encoder):
    return study_of(tmp_path / "study", small)


@pytest.fixture
def fits(monkeypatch):
    """The folds fitted so far; `fits.kill_before = k` ends the run, as a user would, before the k-th fit more."""
    real = study_module._fit_one

    class Fits(list):
        kill_before = None

    done = Fits()

    def counted(study, model, fold, folder):
        if done.kill_before is not None and len(done) >= done.kill_before:
            raise KeyboardInterrupt
        real(study, model, fold, folder)
        done.append(fold)

    monkeypatch.setattr(study_module, "_fit_one", counted)
    return done


def same(one: Prognosis, other: Prognosis) -> None:
    pd.testing.assert_frame_equal(one.table, other.table, check_exact=True)
    np.testing.assert_array_equal(one.times, other.times)


def test_who_works_on_a_cohort_by_hand_goes_on_with_the_profile_that_made_its_files(tmp_path, monkeypatch):
    """`make report PROFILE=smoke` leaves params.yaml as it is: its own profile would have other voxels and folds."""
    monkeypatch.setattr(paths, "DERIVED", tmp_path)
    own = Study.open("mets").params
    note = Study.open("mets").paths.source / "source.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"cohort": "mets", "fingerprint": "", "profile": "smoke"}))
    made = Study.open("mets").params
    assert (own.profile, made.profile) == ("default", "smoke") and made.splits.folds == 2
    assert Study.open("mets", anew=True).params == Study.open("sts").params == own


@pytest.mark.parametrize("model", KINDS)
def test_every_patient_is_predicted_once_in_the_fold_of_the_split(model, study):
    table = fit_all(study, model).table
    together = table.merge(study.splits, on="patient_id", suffixes=("", "_dealt"), validate="one_to_one")
    assert len(together) == 30 and (together["fold"] == together["fold_dealt"]).all()
    assert (together["split"] == together["split_dealt"].map({"dev": "cv", "test": "test"})).all()
    assert set(table["fold"]) == {0, 1, TEST_FOLD} and set(table["model"]) == {model}


def test_training_and_evaluation_patients_of_a_fold_share_no_one_and_the_test_set_trains_nothing(study):
    test = set(study.splits.query("split == 'test'")["patient_id"])
    for fold in (0, 1):
        train, held = map(set, study.fold(fold))
        assert held and not train & held and train | held == set(study.development) and not (train | held) & test
    assert tuple(map(set, study.fold(TEST_FOLD))) == (set(study.development), test)


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("finished", [0, 1, 2])
def test_a_killed_run_goes_on_where_it_stopped_and_ends_as_an_unbroken_one(
    model, finished, study, small, fits, study_of, tmp_path
):
    fits.kill_before = finished
    with pytest.raises(KeyboardInterrupt):
        fit_all(study, model)
    assert not study.paths.predictions(model).exists() and not study.paths.model(model).exists()
    fits.kill_before = None
    resumed = fit_all(study, model)
    assert fits == [0, 1, TEST_FOLD]  # none of them twice
    unbroken = fit_all(study_of(tmp_path / "unbroken", small), model)
    same(resumed, unbroken)
    same(Prognosis.load(study.paths.predictions(model)), unbroken)
    assert not study.paths.fits(model).exists()


def test_a_fit_killed_while_it_was_written_is_not_taken_for_a_finished_one(study, small, fits, study_of, tmp_path):
    half = study.paths.fits("age") / (fit_name(0, fit_digest(study, "age")) + ".part")
    half.mkdir(parents=True)
    (half / "prognosis.parquet").write_bytes(b"PAR1 and no more")
    same(fit_all(study, "age"), fit_all(study_of(tmp_path / "other", small), "age"))
    assert fits == [0, 1, TEST_FOLD] * 2


def test_a_write_that_fails_leaves_no_finished_fit(study, monkeypatch):
    def full(self, path):
        path.write_bytes(b"PAR1")
        raise OSError("no space left on device")

    monkeypatch.setattr(Prognosis, "save", full)
    with pytest.raises(OSError, match="no space left"):
        fit_all(study, "age")
    assert list(study.paths.fits("age").iterdir()) == []


def test_a_finished_fit_is_used_again_only_for_the_same_data_and_choices(study, small, study_of, tmp_path):
    digest = fit_digest(study, "age")
    assert digest == fit_digest(study_of(tmp_path / "same", small), "age") != fit_digest(study, "volume")
    assert len({fit_name(fold, digest) for fold in (0, 1, TEST_FOLD)}) == 3
    for section, change in (
        ("training", {"epochs": {"other": 3}}),
        ("training", {"seed": 5}),
        ("classical", {"ridge": 2.0}),
        ("selection", {"icc": 0.5}),
    ):
        params = study.params.model_copy(update={section: getattr(study.params, section).model_copy(update=change)})
        assert fit_digest(replace(study, params=params), "age") != digest


@pytest.mark.parametrize(
    "file",
    [
        "images.npy",
        "masks.npy",
        "crops.json",
        "cohort/splits.parquet",
        "biomarkers/features.parquet",
        "biomarkers/perturbed.parquet",
    ],
)
def test_one_changed_byte_of_the_data_makes_another_fit(file, study):
    path = study.paths.derived / file if "parquet" in file else study.paths.crops / file
    digest, content = fit_digest(study, "age"), bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert fit_digest(study, "age") != digest


def test_a_changed_choice_refits_what_another_choice_left_behind(study, fits):
    fits.kill_before = 2
    with pytest.raises(KeyboardInterrupt):
        fit_all(study, "clinical-cox")
    fits.kill_before = None
    stiff = study.params.classical.model_copy(update={"ridge": 50.0})
    fit_all(replace(study, params=study.params.model_copy(update={"classical": stiff})), "clinical-cox")
    assert fits == [0, 1, 0, 1, TEST_FOLD] and not study.paths.fits("clinical-cox").exists()


@pytest.mark.parametrize("model", KINDS)
def test_high_risk_is_above_the_median_risk_of_the_training_patients(model, study):
    table = fit_all(study, model).table
    for fold in (0, 1, TEST_FOLD):
        train, held = study.fold(fold)
        usual = np.median(
            build(model, study.params)
            .fit(study.patients.take(train))
            .predict(study.patients.take(train), study.times)
            .risk
        )
        rows = table[table["fold"] == fold].set_index("patient_id").loc[held]
        assert (rows["high_risk"] == (rows["risk"] > usual)).all()


def test_curves_are_on_days_that_nobodys_outcome_moves_and_every_horizon_is_one_of_them(study):
    asked = {*study.params.prognosis.horizons_days, *study.horizons_days, study.horizon_days}
    assert asked <= set(study.times) and study.times[-1] >= study.params.curves.last_day
    np.testing.assert_array_equal(fit_all(study, "age").times, study.times)
    people = study.cohort.participants
    other = replace(study.cohort, participants=people.assign(time_days=people["time_days"] * 2, event=~people["event"]))
    np.testing.assert_array_equal(study.times_of(other), study.times)
    assert gate_curves.own_outcome(study.cohort, study.splits, study.followed, study.times_of).verdict == "passed"


def test_curves_are_shown_to_the_last_event_of_development_and_no_further(study):
    last = study.followed.query("event")["time_days"].max()
    shown = study.followed_times
    assert shown[-1] <= last < study.times[len(shown)]


@pytest.mark.parametrize("model", KINDS)
def test_another_fate_of_the_test_patients_changes_no_prediction(model, study, small, study_of, tmp_path):
    test = study.splits.query("split == 'test'")["patient_id"]
    outcome = small.outcome.copy()
    outcome.loc[test, "time_days"] *= 0.1
    other = study_of(tmp_path / "other", replace(small, outcome=outcome))
    study.splits.to_parquet(other.paths.cohort / "splits.parquet")
    same(fit_all(study, model), fit_all(other, model))


@pytest.mark.parametrize("model", KINDS)
def test_another_fate_of_the_held_fold_changes_none_of_its_risks(model, study, small, study_of, tmp_path):
    held = study.splits.query("fold == 0")["patient_id"]
    outcome = small.outcome.copy()
    outcome.loc[held, "time_days"] = outcome.loc[held, "time_days"].to_numpy()[::-1]
    other = study_of(tmp_path / "other", replace(small, outcome=outcome))
    study.splits.to_parquet(other.paths.cohort / "splits.parquet")
    ours, theirs = (fit_all(one, model).table.set_index("patient_id") for one in (study, other))
    assert (ours.loc[held, "risk"] == theirs.loc[held, "risk"]).all()
    learnt_from = study.splits.query("fold == 1")["patient_id"]
    assert (ours.loc[learnt_from, "risk"] != theirs.loc[learnt_from, "risk"]).any()  # whom the fate did train


@pytest.mark.parametrize("model", ["volume", "clinical-cox", "hybrid-tiny-mse"])
def test_the_fitted_model_again_says_what_was_predicted_of_the_test_set(model, study):
    written = fit_all(study, model).of("test").table
    model_again = fitted(study, model)
    assert not len(getattr(model_again, "history", []))  # a network is read from its weights, not trained anew
    again = model_again.predict(study.patients.take(written["patient_id"]), study.times)
    np.testing.assert_allclose(again.risk, written["risk"], rtol=1e-5)  # of another number of threads
    np.testing.assert_allclose(again.days, written["days"], rtol=1e-5)


def test_learning_curves_hold_every_fold_and_epoch_of_a_network_and_nothing_of_another_model(study):
    fit_all(study, "hybrid-tiny-cox")
    fit_all(study, "age")
    curves = study.learning_curves("hybrid-tiny-cox")
    assert curves[["fold", "epoch"]].to_numpy().tolist() == [[0, 1], [1, 1], [TEST_FOLD, 1]]
    assert np.isfinite(curves["loss"]).all() and study.learning_curves("age").empty
    assert not (study.paths.model("age") / "weights.safetensors").exists()


def test_crops_read_back_are_those_written(study, small):
    crops = CropSet.load(study.paths.crops)
    np.testing.assert_array_equal(crops.images, small.images)
    assert crops.patient_ids == small.outcome.index.tolist()


# --- the phantom's truth ------------------------------------------------------------------------------------------


def names_truth(source: str) -> bool:
    """Whether code (not its documentation) reaches for a truth: an attribute, a name, or a file called so."""
    for node in ast.walk(ast.parse(source)):
        named = getattr(node, "attr", None) or getattr(node, "id", None) or getattr(node, "arg", None)
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if named == "truth" or re.search(r"truth\.parquet|linear_predictor", text):
            return True
    return False


def test_the_search_for_truth_finds_it_where_it_is():
    assert names_truth((PACKAGE / "paths.py").read_text()) and names_truth("read(study.paths.truth)")
    assert not names_truth('"""Never the truth."""')


def test_no_module_but_those_that_make_a_phantom_reaches_for_its_truth(repository_modules):
    allowed = {"paths.py", "adapters", "phantom"}
    assert len(repository_modules) > 15
    assert [
        name for name, source in repository_modules.items() if name.split("/")[0] not in allowed and names_truth(source)
    ] == []


@pytest.fixture
def repository_modules():
    return {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}


def test_no_notebook_but_the_first_reaches_for_the_truth():
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert len(notebooks) >= 5
    for path in notebooks:
        cells = json.loads(path.read_text())["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        source = re.sub(r"^%.*$", "", source, flags=re.MULTILINE)  # IPython's magics
        assert names_truth(source) == path.name.startswith("01-"), path.name


def test_a_model_that_a_cohort_cannot_have_leaves_predictions_without_rows_that_no_score_sees(
    small, study_of, tmp_path
):
    without = replace(small, shuffled=small.shuffled.iloc[:, :0], noise=small.noise.iloc[:, :0])
    study = study_of(tmp_path / "masks", without, models=["age", "control-noise-voxels"])
    for model in study.params.models:
        fit_all(study, model)
    assert len(Prognosis.load(study.paths.predictions("control-noise-voxels")).table) == 0
    assert list(study.prognoses()) == ["age"]
    assert study.learning_curves("control-noise-voxels").empty
