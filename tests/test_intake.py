"""One patient in: the same crops and biomarkers as the study's own, and one sentence for whatever is wrong."""

import json
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wrong import SCHEMA, SECRET, TOLD, WRONG, good

from survpack import adapters, params, paths
from survpack.adapters import bids
from survpack.biomarkers import Biomarkers, measure_patient
from survpack.cohort import Cohort
from survpack.deploy import chart, folders, intake, volumes
from survpack.deploy.limits import Budget
from survpack.errors import BadInput
from survpack.models import Patients
from survpack.phantom import mets
from survpack.preprocess import make_crops

SMALL = {"patients": 3, "sites": 2, "spacing_mm": 4.0, "seed": 3}
SMALL_LIMITS = replace(intake.LIMITS, unpacked_bytes=2**24)


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    return good(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def choices():
    return params.load()


@pytest.fixture
def no_rest(tmp_path, monkeypatch):
    """A folder for temporary files, which must be empty in the end."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    assert list(place.iterdir()) == []


def schema_of(cohort: Cohort, measured: list[str]) -> dict:
    """What a bundle says of a cohort's columns and images."""
    chart_of = {}
    for name, entry in cohort.dictionary.items():
        values = cohort.participants[name]
        ends = {"low": float(values.min()), "high": float(values.max())} if entry["kind"] == "numeric" else {}
        chart_of[name] = entry | ends | {"typical": values.dropna().iloc[0]}
    labels = {str(number): meaning for number, meaning in cohort.labels.items()}
    return {"chart": chart_of, "modalities": cohort.modalities, "labels": labels, "measured": measured,
            "measured_typical": dict.fromkeys(measured, 0.0)}  # fmt: skip


def handed_in(cohort: Cohort, patient: str, own_masks: bool = True) -> dict:
    """The patient's files and chart as somebody else would give them."""
    rows = cohort.images[cohort.images["patient_id"] == patient]
    masks = dict(zip(rows["modality"], map(Path, rows["mask_path"]), strict=True))
    row = cohort.covariates.loc[patient]
    return {
        "chart": {name: None if pd.isna(value) else value for name, value in row.items()},
        "scans": dict(zip(rows["modality"], map(Path, rows["path"]), strict=True)),
        "masks": masks if own_masks else next(iter(masks.values())),
    }


def assert_same(got: intake.Intake, own: Patients, features: dict) -> None:
    """What was read is what the study has of the patient, bit for bit."""
    for name in ("images", "masks", "present"):
        np.testing.assert_array_equal(getattr(got.patients, name), getattr(own, name), strict=True)
    for name, value in got.patients.biomarkers.iloc[0].items():
        np.testing.assert_array_equal(value, features[name])
    for name, value in own.clinical.iloc[0].items():
        assert got.patients.clinical[name].iloc[0] == value or pd.isna(value)
    assert got.patients.modalities == own.modalities
    assert got.patients.outcome[["time_days", "event"]].isna().all(axis=None)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory, choices):
    """Three patients of the phantom as the study prepares them: cohort, patients and lesion biomarkers."""
    place = tmp_path_factory.mktemp("phantom")
    mets.generate(place / "bids", place / "truth.parquet", **SMALL, n_jobs=1)
    table = bids.clinical(place / "bids")
    cohort = Cohort(
        "mets", table, bids.discover(place / "bids"), bids.dictionary(place / "bids"), bids.labels(place / "bids")
    )
    crops = make_crops(cohort, choices.crops, choices.preprocess)
    few = choices.model_copy(update={"biomarkers": choices.biomarkers.model_copy(update={"families": []})})
    old, paths.DERIVED = paths.DERIVED, place / "derived"
    try:
        found = {
            patient: measure_patient(rows, cohort.labels, few, "mets", controls=False)["features"]
            for patient, rows in cohort.images.groupby("patient_id")
        }
    finally:
        paths.DERIVED = old
    nothing = pd.DataFrame(index=table["patient_id"])
    perturbed = pd.DataFrame(index=pd.MultiIndex.from_tuples([], names=["patient_id", "perturbation"]))
    features = pd.DataFrame(found).T.loc[table["patient_id"]]
    patients = Patients.of(cohort, Biomarkers(features, nothing, nothing, perturbed, pd.DataFrame()), crops)
    return cohort, patients, found


def test_a_phantom_patient_is_prepared_as_the_study_does_it_bit_for_bit(phantom, choices, no_rest):
    cohort, patients, found = phantom
    schema = schema_of(cohort, ["enhancing_ml", "oedema_to_tumour", "rim_mm", "surface_mm", "ventricle_mm"])
    for patient in cohort.participants["patient_id"]:
        got = intake.read(schema, choices, "mets", **handed_in(cohort, patient, own_masks=False))
        assert_same(got, patients.take([patient]), found[patient])
        assert got.facts["lesion_ml"] == pytest.approx(found[patient]["tumour_ml"])


def test_a_folder_of_BIDS_and_its_files_one_by_one_are_the_same_patient(phantom, choices, no_rest):
    cohort, patients, found = phantom
    name = cohort.participants["patient_id"].iloc[0]
    schema = schema_of(cohort, ["tumour_ml"])
    folder = Path(cohort.images["path"].iloc[0]).parent.parent
    got = intake.read(schema, choices, "mets", chart=handed_in(cohort, name)["chart"], scans=folder)
    assert_same(got, patients.take([name]), found[name])


def test_a_scan_that_is_missing_is_told_and_its_place_is_zero(phantom, choices, no_rest):
    cohort, patients, _ = phantom
    name = cohort.participants["patient_id"].iloc[1]
    given = handed_in(cohort, name)
    del given["scans"]["t1n"]
    got = intake.read(schema_of(cohort, []), choices, "mets", **given)
    own = patients.take([name])
    assert got.missing["modalities"] == ["t1n"] and "t1n" not in got.images
    at = own.modalities.index("t1n")
    assert not got.patients.images[0, at].any() and not got.patients.present[0, at]
    others = [k for k in range(4) if k != at]
    np.testing.assert_array_equal(got.patients.images[0, others], own.images[0, others])


def test_the_grid_is_where_the_crop_was_cut(phantom, choices):
    """The mask, resampled onto `grid` by another library, is the mask of the crop."""
    from nibabel.processing import resample_from_to

    cohort, _, _ = phantom
    given = handed_in(cohort, cohort.participants["patient_id"].iloc[0], own_masks=False)
    got = intake.read(schema_of(cohort, []), choices, "mets", **given)
    turned = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK counts to the left and back
    affine = np.eye(4)
    affine[:3, :3] = np.array(got.grid.GetDirection()).reshape(3, 3) * got.grid.GetSpacing()
    affine[:3, 3] = got.grid.GetOrigin()
    there = resample_from_to(nib.load(given["masks"]), (got.grid.GetSize(), turned @ affine), order=0)
    assert np.mean((np.asarray(there.dataobj) == 3) == (got.patients.masks[0, 2] > 0)) > 0.995


@pytest.mark.skipif("SURVPACK_DATA" not in os.environ, reason="no public data: SURVPACK_DATA is not set")
def test_a_sarcoma_of_three_grids_is_prepared_as_the_study_does_it_bit_for_bit(choices, no_rest):
    cohort = adapters.load("sts", choices)
    few = cohort.participants["patient_id"].iloc[[0, 3]]
    cohort = replace(cohort, participants=cohort.participants[cohort.participants["patient_id"].isin(few)])
    crops = make_crops(cohort, choices.crops, choices.preprocess)
    schema = schema_of(cohort, ["tumour_ml", "sphericity"])
    for at, name in enumerate(cohort.participants["patient_id"]):
        given = handed_in(cohort, name)
        got = intake.read(schema, choices, "sts", **given)
        np.testing.assert_array_equal(got.patients.images[0], crops.images[at], strict=True)
        np.testing.assert_array_equal(got.patients.masks[0], crops.masks[at], strict=True)


@pytest.mark.skipif("SURVPACK_DATA" not in os.environ, reason="no public data: SURVPACK_DATA is not set")
def test_dicom_with_its_contours_measures_what_the_converted_files_do(choices, no_rest):
    download = Path(os.environ["SURVPACK_DATA"]) / "sts-dicom" / "STS_002"
    if not download.is_dir():
        pytest.skip(f"no DICOM: {download.name} is not in sts-dicom of SURVPACK_DATA")
    cohort = adapters.load("sts", choices)
    schema = schema_of(cohort, ["tumour_ml", "sphericity"])
    given = handed_in(cohort, "STS_002")
    one = intake.read(schema, choices, "sts", **given)
    other = intake.read(schema, choices, "sts", chart=given["chart"], scans=download)
    pd.testing.assert_frame_equal(one.patients.biomarkers, other.patients.biomarkers)
    np.testing.assert_array_equal(one.patients.masks, other.patients.masks)
    inside = one.patients.masks[0, 0] > 0
    for kind in ("ct", "pt"):  # the MR is normalised by its own field of view, which the files cut short
        at = cohort.modalities.index(kind)
        np.testing.assert_array_equal(one.patients.images[0, at][inside], other.patients.images[0, at][inside])


@pytest.mark.skipif("SURVPACK_DATA" not in os.environ, reason="no public data: SURVPACK_DATA is not set")
def test_contours_of_a_tumour_are_refused_where_the_model_sees_its_compartments(choices, no_rest):
    """An RTSTRUCT tells the tumour; taken for label 1 of several it would be all necrosis."""
    download = Path(os.environ["SURVPACK_DATA"]) / "sts-dicom" / "STS_002"
    if not download.is_dir():
        pytest.skip(f"no DICOM: {download.name} is not in sts-dicom of SURVPACK_DATA")
    with pytest.raises(BadInput, match="tells the tumour as a whole"):
        intake.read(SCHEMA, choices, "mets", chart={"age": 63}, scans=download)


# --- what is wrong


@pytest.mark.parametrize("name", WRONG)
def test_whatever_is_wrong_is_told_in_one_sentence_that_repeats_no_name(name, patient, choices, tmp_path, no_rest):
    given = WRONG[name](tmp_path, patient)
    with pytest.raises(BadInput) as told:
        intake.read(SCHEMA, choices, "mets", **given, limits=SMALL_LIMITS)
    sentence = str(told.value)
    assert re.search(TOLD[name], sentence), sentence
    assert SECRET not in sentence and str(tmp_path) not in sentence and str(no_rest) not in sentence
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 400


def test_there_are_thirty_kinds_of_bad_input_and_more():
    assert len(WRONG) >= 30


def test_the_good_patient_is_taken_without_a_note(patient, choices, no_rest):
    got = intake.read(SCHEMA, choices, "mets", **patient.given)
    assert got.notes == [] and got.patients.present.all()
    assert got.missing == {"chart": [], "modalities": [], "measured": []} and got.imputed == {}


def test_of_a_zip_bomb_no_more_is_unpacked_than_its_header_promises(patient, tmp_path):
    bomb = WRONG["scan that is a zip bomb"](tmp_path, patient)["scans"]["t1c"]
    (tmp_path / "into").mkdir()
    with pytest.raises(BadInput, match="unpacks to more than its header tells"):
        volumes.unpacked(bomb, "scan t1c", tmp_path / "into", intake.LIMITS, Budget(2**30, 1))
    promised = 352 + 4 * np.prod(nib.load(patient.scans["t1c"]).shape)
    assert (tmp_path / "into" / "scan-t1c.nii").stat().st_size <= promised + volumes.SURPLUS


@pytest.mark.parametrize("least", ["bytes", "voxels"])
def test_all_gzips_of_a_patient_share_one_allowance(patient, choices, least, no_rest):
    images = [nib.load(path) for path in [*patient.scans.values(), patient.masks]]
    needed = {
        "bytes": sum(352 + np.prod(one.shape) * one.get_data_dtype().itemsize for one in images),
        "voxels": sum(np.prod(one.shape) for one in images),
    }
    enough = {"bytes": 2**30, "files": 1, "voxels": 2**30} | {least: needed[least]}
    intake.read(SCHEMA, choices, "mets", **patient.given, budget=Budget(**enough))
    with pytest.raises(BadInput, match="scans and masks of a patient may have together"):
        intake.read(SCHEMA, choices, "mets", **patient.given, budget=Budget(**enough | {least: needed[least] - 1}))
    if least == "bytes":  # and without one, that of the limits
        with pytest.raises(BadInput, match="together"):
            few = replace(intake.LIMITS, unpacked_bytes=needed[least] - 1)
            intake.read(SCHEMA, choices, "mets", **patient.given, limits=few)


def test_a_file_is_known_by_its_content_whatever_it_is_called(patient, choices, tmp_path):
    called = {}
    for name, path in patient.scans.items():
        called[name] = tmp_path / f"{name}.dat"
        called[name].write_bytes(path.read_bytes())
    got = intake.read(SCHEMA, choices, "mets", **patient.given | {"scans": called})
    own = intake.read(SCHEMA, choices, "mets", **patient.given)
    np.testing.assert_array_equal(got.patients.images, own.patients.images)


def test_some_voxels_of_NaN_are_filled_and_told_without_the_temporary_path(patient, choices, tmp_path, no_rest):
    image = nib.load(patient.scans["t1c"])
    values = np.array(image.dataobj)
    values[3:5, 3:5, 3] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "t1c.nii.gz")
    given = patient.given | {"scans": patient.scans | {"t1c": tmp_path / "t1c.nii.gz"}}
    got = intake.read(SCHEMA, choices, "mets", **given)
    assert any("scan t1c (t1c.nii.gz)" in note and "4 of" in note for note in got.notes)
    assert not any(str(no_rest) in note for note in got.notes)
    assert np.isfinite(got.patients.images).all()


def test_a_mask_on_another_grid_of_the_same_place_is_taken_and_told(patient, choices, tmp_path):
    mask = nib.load(patient.masks)
    values = np.asarray(mask.dataobj).repeat(3, 0).repeat(3, 1).repeat(3, 2)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -1  # the same outer edges
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "fine.nii.gz")
    got = intake.read(SCHEMA, choices, "mets", **patient.given | {"masks": tmp_path / "fine.nii.gz"})
    own = intake.read(SCHEMA, choices, "mets", **patient.given)
    assert sum("another grid" in note for note in got.notes) == 4
    assert got.facts["lesion_ml"] == pytest.approx(own.facts["lesion_ml"])


def test_an_oblique_scan_is_taken(patient, choices, tmp_path):
    turn, angle = np.eye(4), np.deg2rad(20)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned = {}
    for name, path in {**patient.scans, "mask": patient.masks}.items():
        image = nib.load(path)
        turned[name] = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine), turned[name])
    mask = turned.pop("mask")
    got = intake.read(SCHEMA, choices, "mets", chart=patient.chart, scans=turned, masks=mask)
    assert got.patients.present.all() and got.notes == []


def test_a_model_of_masks_alone_asks_for_no_scan(patient, choices):
    got = intake.read(SCHEMA | {"modalities": []}, choices, "mets", chart=patient.chart, masks=patient.masks)
    assert got.patients.images.shape == (1, 0, 32, 32, 32) and got.patients.masks.any(axis=(2, 3, 4)).all()
    assert got.images == {} and got.patients.biomarkers["tumour_ml"].iloc[0] > 0


def test_a_network_of_the_chart_alone_asks_for_no_scan_and_no_mask(patient, choices):
    schema = SCHEMA | {"fusion": "chart"}
    got = intake.read(schema, choices, "mets", chart=patient.chart)
    assert got.mask is None and not got.patients.present.any() and got.missing["modalities"] == []
    assert got.missing["measured"] == SCHEMA["measured"]
    got = intake.read(schema, choices, "mets", chart=patient.chart, masks=patient.masks)
    assert got.patients.biomarkers["tumour_ml"].iloc[0] > 0
    got = intake.read(schema, choices, "mets", chart=patient.chart, scans={"t1c": patient.scans["t1c"]})
    assert len(got.notes) == 1 and got.notes[0].startswith("Left out t1c")


def test_a_network_of_images_alone_leaves_a_chart_unread_and_says_so(patient, choices):
    schema = SCHEMA | {"fusion": "image", "chart": {}, "measured": [], "measured_typical": {}}
    got = intake.read(schema, choices, "mets", **patient.given)
    assert got.notes == ["The chart was not read: this model looks at images alone."]
    assert got.patients.clinical.shape == (1, 0) and got.missing["chart"] == []


def test_what_is_not_known_is_told_with_what_stands_for_it(patient, choices):
    got = intake.read(SCHEMA, choices, "mets", **patient.given | {"chart": {"age": 63}})
    assert got.missing["chart"] == ["karnofsky", "sex", "grade"]
    assert got.imputed == {"karnofsky": 80.0, "sex": "female", "grade": "high"}
    assert got.patients.clinical.loc[:, ["sex", "grade"]].dtypes.eq(object).all()


def test_a_follow_up_scan_of_a_folder_is_left_out_and_told(patient, choices, tmp_path, no_rest):
    folder = tmp_path / "sub-7"
    for session, names in {
        "ses-1": {"t1c": "ce-gd_T1w", "t2f": "FLAIR"},
        "ses-2": {"ct": "ct", "t1c": "ce-gd_T1w"},
    }.items():
        (folder / session / "anat").mkdir(parents=True)
        for name, called in names.items():
            copied = folder / session / "anat" / f"sub-7_{session}_{called}.nii.gz"
            copied.write_bytes(patient.scans[name].read_bytes())
        copied.with_name(f"sub-7_{session}_dseg.nii.gz").write_bytes(patient.masks.read_bytes())
    (folder / "sub-7_sessions.tsv").write_text("session_id\tday\nses-1\t0\nses-2\t200\n")
    got = intake.read(SCHEMA, choices, "mets", chart=patient.chart, scans=folder)
    assert set(got.images) == {"t1c", "t2f"} and got.missing["modalities"] == ["ct", "pt"]
    assert got.notes == ["Left out ct: taken long after the first scan."]


def test_files_called_by_what_they_are_need_no_other_name(patient, choices):
    got = intake.read(SCHEMA, choices, "mets", chart=patient.chart, scans=patient.masks.parent)
    assert set(got.images) == set(SCHEMA["modalities"])


def test_files_of_several_folders_are_one_patient_only_where_their_names_say_so(patient, choices, tmp_path):
    for number, (name, kind) in enumerate({"t1c": "ce-gd_T1w", "t2f": "FLAIR", "mask": "dseg"}.items()):
        source = patient.masks if name == "mask" else patient.scans[name]
        for folder, called in (("loose", f"{name}.nii.gz"), ("bids", f"sub-7_{kind}.nii.gz")):
            (tmp_path / folder / str(number)).mkdir(parents=True)
            (tmp_path / folder / str(number) / called).write_bytes(source.read_bytes())
    got = intake.read(SCHEMA, choices, "mets", chart=patient.chart, scans=tmp_path / "bids")
    assert set(got.images) == {"t1c", "t2f"}
    with pytest.raises(BadInput, match="several folders"):
        intake.read(SCHEMA, choices, "mets", chart=patient.chart, scans=tmp_path / "loose")


def test_a_folder_of_too_many_files_is_left_before_they_are_read(patient, choices):
    few = replace(intake.LIMITS, files=2)
    with pytest.raises(BadInput, match="over 2 files"):
        intake.read(SCHEMA, choices, "mets", chart=patient.chart, scans=patient.masks.parent, limits=few)


@pytest.mark.skipif("SURVPACK_DATA" not in os.environ, reason="no public data: SURVPACK_DATA is not set")
@pytest.mark.parametrize(("limits", "told"), [({}, "2 patients"), ({"files": 99}, "over 99 files")])
def test_dicom_of_two_patients_or_too_much_of_it_is_refused(choices, patient, limits, told, no_rest):
    download = Path(os.environ["SURVPACK_DATA"]) / "sts-dicom"
    if not download.is_dir():
        pytest.skip("no sts-dicom in SURVPACK_DATA")
    with pytest.raises(BadInput, match=told):
        intake.read(
            SCHEMA, choices, "sts", chart=patient.chart, scans=download, limits=replace(intake.LIMITS, **limits)
        )


def test_what_dicom_left_out_is_told_without_ids_paths_and_descriptions():
    line = "sub-001: left out series MR 3 (12 slices) in /tmp/place/dicom: its description names no T1, T2 or FLAIR"
    assert folders._unnamed(line, Path("/tmp/place")) == (
        "Left out a series of MR (12 slices): its description names no T1, T2 or FLAIR"
    )


# --- the chart


def test_a_chart_in_JSON_CSV_and_TSV_is_the_same(patient, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(patient.chart))
    names, values = list(patient.chart), [str(value) for value in patient.chart.values()]
    (tmp_path / "b.csv").write_text("\ufeff" + ",".join(names) + "\r\n" + ",".join(values) + "\r\n")
    (tmp_path / "c.tsv").write_text("\t".join(names) + "\n" + "\t".join(values))
    (tmp_path / "d.csv").write_text(";".join(names) + "\n" + ";".join(values) + "\n\n")
    read = [chart.read_chart(tmp_path / name, SCHEMA["chart"]) for name in ("a.json", "b.csv", "c.tsv", "d.csv")]
    assert read[0][0] == {"age": 63.0, "karnofsky": 80.0, "sex": "female", "grade": "high"}
    assert all(one == read[0] for one in read)
    assert chart.read_chart(json.dumps(patient.chart), SCHEMA["chart"]) == read[0]


def test_a_text_is_never_taken_for_a_path(tmp_path):
    (tmp_path / "chart.json").write_text('{"age": 63}')
    with pytest.raises(BadInput):
        chart.read_chart(str(tmp_path / "chart.json"), SCHEMA["chart"])


def test_what_is_missing_is_NaN_and_told_whatever_it_is_written_as():
    for nothing in (None, "", "n/a", "NA", " unknown "):
        values, missing, _ = chart.read_chart({"age": 63, "sex": nothing}, SCHEMA["chart"])
        assert missing == ["karnofsky", "sex", "grade"] and np.isnan(values["sex"])


@pytest.mark.parametrize(
    ("level", "written"), [("none", "None"), ("Unknown", " unknown "), ("NA", "na"), ("not_available", "not available")]
)
def test_a_level_that_is_called_like_a_missing_value_is_a_level(level, written):
    schema = {"therapy": {"kind": "categorical", "levels": [level, "surgery"]}, "sex": SCHEMA["chart"]["sex"]}
    values, missing, _ = chart.read_chart({"therapy": written, "sex": written}, schema)
    assert values["therapy"] == level and missing == ["sex"]


def test_a_byte_order_mark_before_a_chart_is_no_part_of_it(patient):
    for text in ('{"age": 63}', "age,sex\n63,female\n"):
        assert chart.read_chart("\ufeff" + text, SCHEMA["chart"]) == chart.read_chart(text, SCHEMA["chart"])


def test_a_level_is_known_whatever_its_case_and_spaces():
    assert chart.read_chart({"sex": " Female "}, SCHEMA["chart"])[0]["sex"] == "female"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_taken_exactly_where_it_is_plausible(number):
    low, high = chart.plausible("age", SCHEMA["chart"]["age"])
    assert (low, high) == (12.5, 120)  # half the usual 45 years below 35; people live to 120
    if low <= number <= high:
        values, _, notes = chart.read_chart({"age": number}, SCHEMA["chart"])
        assert values["age"] == number and bool(notes) == (not 35 <= number <= 80)
    else:
        with pytest.raises(BadInput, match="`age` is"):
            chart.read_chart({"age": number}, SCHEMA["chart"])


@given(st.text(max_size=300))
def test_no_text_ends_in_anything_but_one_sentence(text):
    try:
        chart.read_chart(text, SCHEMA["chart"])
    except BadInput as error:
        assert "\n" not in str(error)


@given(
    st.dictionaries(
        st.sampled_from(list(SCHEMA["chart"])),
        st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.integers()),
    )
)
def test_no_chart_ends_in_anything_but_a_row_or_one_sentence(given_chart):
    try:
        values, missing, _ = chart.read_chart(given_chart, SCHEMA["chart"])
    except BadInput:
        return
    assert list(values) == list(SCHEMA["chart"]) and len(missing) < 4
