"""A table of features with an outcome is a cohort; so are masks alone; who lacks what is needed is left out and named."""

import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from survpack import adapters, biomarkers, models, params, paths
from survpack.adapters import bids, table
from survpack.cohort import Cohort
from survpack.errors import BadInput
from survpack.models import Patients
from survpack.preprocess import make_crops
from survpack.radiomics import GIVEN

MAP = """\
table: clinical.csv
patient_id: PatientID
time_days: {column: OS, unit: days}
event: {column: status, codes: {dead: true, alive: false}}
covariates:
  age: {column: Age, kind: numeric, unit: years}
features: %s
"""


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RAW", tmp_path)
    monkeypatch.delenv("SURVPACK_DATA", raising=False)
    return tmp_path


def made(raw, asked, patients=40, count=6, beside=""):
    """A cohort `mine` whose first feature is the hazard; features stand in the table, or in the file `beside`."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(patients, count)).round(4)
    time = rng.exponential(500 * np.exp(-values[:, 0])).clip(2).round()
    chart = pd.DataFrame({
        "PatientID": [f"P{k:03d}" for k in range(patients)], "OS": time, "Age": rng.normal(64, 8, patients).round(),
        "status": np.where(rng.random(patients) < 0.7, "dead", "alive"),
    })  # fmt: skip
    columns = pd.DataFrame(values, columns=[f"original_f{k}" for k in range(count)])
    folder = raw / "mine"
    folder.mkdir()
    if beside:
        own = pd.concat([chart[["PatientID"]].rename(columns={"PatientID": "id"}), columns], axis=1).iloc[::-1]
        path = folder / beside
        getattr(own, {".csv": "to_csv", ".parquet": "to_parquet", ".xlsx": "to_excel"}[path.suffix])(path, index=False)
    else:
        chart = pd.concat([chart, columns], axis=1)
    chart.to_csv(folder / "clinical.csv", index=False)
    (folder / "cohort.yaml").write_text(MAP % asked)
    return folder, values


def patients_of(cohort: Cohort) -> Patients:
    choice = params.load()
    measured = biomarkers.extract(cohort, choice, cohort.participants["patient_id"].tolist())
    return Patients.of(cohort, measured, make_crops(cohort, choice.crops, choice.preprocess))


@pytest.mark.parametrize(
    ("asked", "beside"),
    [
        ("{prefix: original_}", ""),
        ('{pattern: "_f[0-9]+$"}', ""),
        ("{columns: [original_f0, original_f1, original_f2, original_f3, original_f4, original_f5]}", ""),
        ("{file: f.csv, patient_id: id}", "f.csv"),
        ("{file: f.parquet, patient_id: id, prefix: original_}", "f.parquet"),
        ("{file: f.xlsx, patient_id: id}", "f.xlsx"),
    ],
)
def test_features_by_list_prefix_pattern_or_file_are_the_numbers_written(raw, tmp_path, asked, beside):
    _, values = made(raw, asked, beside=beside)
    cohort = adapters.load("mine", params.load())
    assert cohort.check() == [] and not cohort.imaged
    found = cohort.features.set_index("patient_id").loc[cohort.participants["patient_id"]]
    np.testing.assert_allclose(found.to_numpy(), values)
    cohort.save(tmp_path / "kept")
    again = Cohort.load(tmp_path / "kept")
    pd.testing.assert_frame_equal(again.features, cohort.features)
    assert not again.imaged


def test_models_of_features_find_the_hazard_controls_do_not_and_image_models_say_why_they_are_not_there(raw):
    from survpack.metrics import concordance

    made(raw, "{prefix: original_}", patients=300)
    patients, choice = patients_of(adapters.load("mine", params.load())), params.load()
    assert list(patients.biomarkers) == [f"{GIVEN}original_f{k}" for k in range(6)]
    train, held = (patients.take(list(ids)) for ids in np.array_split(patients.outcome.index, [200])[:2])
    outcome, score = (held.outcome["time_days"].to_numpy(), held.outcome["event"].to_numpy()), {}
    for name in ("radiomics-coxnet", "control-noise-voxels", "control-shuffled-labels"):
        risk = models.build(name, choice).fit(train, name).predict(held, np.array([100.0, 300.0])).risk
        score[name] = concordance(*outcome, risk)
    assert score.pop("radiomics-coxnet") > 0.7 and all(abs(each - 0.5) < 0.12 for each in score.values()), score
    for name in models.MODELS:
        told = models.lacking(name, patients)
        if any(each in name for each in ("image", "hybrid", "lesion", "fusion", "texture", "volume")):
            assert told.startswith(f"{name} needs") and "\n" not in told
        elif name not in ("gpa", "control-shuffled-voxels"):
            assert told == ""


def test_thousands_of_columns_are_read_without_a_warning_and_quickly_enough_for_a_test(raw):
    made(raw, "{prefix: original_}", patients=60, count=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.PerformanceWarning)
        cohort = adapters.load("mine", params.load())
        assert cohort.check() == [] and cohort.features.shape == (60, 4097)
        assert patients_of(cohort).biomarkers.shape == (60, 4096)


def test_hundreds_of_covariates_raise_no_warning_of_pandas(raw):
    folder, _ = made(raw, "{prefix: original_}", count=190)
    text = (folder / "cohort.yaml").read_text().split("features:")[0]
    text += "".join(f"  f{k}: {{column: original_f{k}, kind: numeric}}\n" for k in range(190))
    (folder / "cohort.yaml").write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.PerformanceWarning)
        cohort = adapters.load("mine", params.load())
        assert cohort.check() == [] and len(cohort.dictionary) == 191


@pytest.mark.parametrize(
    ("asked", "spoil", "told"),
    [
        ("{prefix: wavelet_}", None, "no column begins with or matches"),
        ("{columns: [absent]}", None, "no column absent"),
        ("{}", None, "features names no columns"),
        ('{pattern: "("}', None, "is no pattern"),
        ("{columns: [OS]}", None, "used as outcome or covariate"),
        ("{prefix: original_}", lambda table: table.assign(original_f2="1.2.3"), "`original_f2`.*no number in row 1"),
        ("{prefix: original_}", lambda table: table.assign(original_f2=np.inf), "`original_f2`.*no number"),
        ("{file: f.csv}", None, "f.csv not found"),
    ],
)
def test_features_that_cannot_be_read_are_told_in_one_sentence(raw, asked, spoil, told):
    folder, _ = made(raw, asked)
    if spoil:
        spoil(pd.read_csv(folder / "clinical.csv")).to_csv(folder / "clinical.csv", index=False)
    with pytest.raises(BadInput, match=told) as error:
        adapters.load("mine", params.load())
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_a_patient_twice_or_ids_of_others_in_the_file_of_features_are_refused(raw):
    folder, _ = made(raw, "{file: f.csv, patient_id: id}", beside="f.csv")
    whole = pd.read_csv(folder / "f.csv")
    pd.concat([whole, whole.iloc[[3]]]).to_csv(folder / "f.csv", index=False)
    with pytest.raises(BadInput, match="has several rows, expected one a patient"):
        adapters.load("mine", params.load())
    whole.assign(id=whole["id"].str.replace("P0", "P000")).to_csv(folder / "f.csv", index=False)
    with pytest.raises(BadInput, match="features of nobody in clinical.csv .*P00039 is P039 in the table"):
        table.features(folder)


def test_who_lacks_features_or_a_mask_is_left_out_counted_and_named(raw, capsys):
    from survpack.__main__ import main

    folder, _ = made(raw, "{file: f.csv, patient_id: id}", beside="f.csv")
    whole = pd.read_csv(folder / "f.csv")
    whole[~whole["id"].isin(["P003", "P007"])].to_csv(folder / "f.csv", index=False)
    cohort = adapters.load("mine", params.load())
    assert len(cohort.participants) == 38 and cohort.flow[-1]["patients"] == ["P003", "P007"]
    assert main(["check", "mine"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert "P003, P007" in line and "2 of 40" in line


def masked(folder, patients):
    """A BIDS folder of masks alone."""
    folder.mkdir(parents=True)
    for k in range(patients):
        path = folder / f"sub-{k:02d}/anat/sub-{k:02d}_dseg.nii.gz"
        path.parent.mkdir(parents=True)
        ball = np.zeros((12, 12, 12), np.uint8)
        ball[3 : 5 + k, 4:8, 4:9] = 1
        nib.save(nib.Nifti1Image(ball, np.eye(4)), path)
    chart = pd.DataFrame(
        {"participant_id": [f"sub-{k:02d}" for k in range(patients)], "time_days": 100 + np.arange(patients)}
    )
    chart.assign(event=np.arange(patients) % 2).to_csv(folder / "participants.tsv", sep="\t", index=False)
    (folder / "participants.json").write_text("{}")


def test_masks_alone_in_a_bids_folder_are_a_cohort_as_by_the_table(raw):
    masked(raw / "alone", 6)
    folder = raw / "mapped"
    folder.mkdir()
    chart = pd.read_csv(raw / "alone/participants.tsv", sep="\t")
    chart.to_csv(folder / "clinical.csv", index=False)
    (folder / "cohort.yaml").write_text(
        "table: clinical.csv\npatient_id: participant_id\ntime_days: {column: time_days, unit: days}\n"
        "event: {column: event, codes: {1: true, 0: false}}\n"
        'images: {mask: {mask: "../alone/{participant_id}/anat/{participant_id}_dseg.nii.gz"}}\n'
    )
    one, other = (adapters.load(name, params.load()) for name in ("alone", "mapped"))
    assert one.modalities == other.modalities == ["mask"] and (one.images["path"] == "").all()
    errors = [each for each in one.check() if each.severity == "error"]
    assert errors == [] and len(one.participants) == len(other.participants) == 6
    ours, theirs = (biomarkers.extract(each, params.load(), []).features for each in (one, other))
    pd.testing.assert_frame_equal(ours, theirs)


def test_a_mask_without_its_image_where_others_have_one_is_no_image(raw):
    masked(raw / "some", 6)
    for k in range(5):
        values = np.random.default_rng(k).normal(size=(12, 12, 12)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.eye(4)), raw / f"some/sub-{k:02d}/anat/sub-{k:02d}_T1w.nii.gz")
    assert bids.discover(raw / "some")["patient_id"].nunique() == 5
    cohort = adapters.load("some", params.load())
    assert cohort.flow[-1]["patients"] == ["sub-05"]
