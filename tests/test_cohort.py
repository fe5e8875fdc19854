"""Every rule of the data contract refuses its bad input and says where it is and how to mend it."""

import tracemalloc

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from survpack.checks import check_participants
from survpack.cohort import IMAGES, Cohort, select
from survpack.errors import BadInput
from survpack.scans import check_images

LABELS = {1: "necrosis", 2: "oedema", 3: "enhancing"}
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years"},
    "grade": {"kind": "ordered", "levels": ["low", "high"]},
}


def nifti(path, values, spacing=1.0):
    nib.save(nib.Nifti1Image(np.asarray(values), np.diag([spacing] * 3 + [1.0])), path)
    return str(path)


@pytest.fixture
def cohort(tmp_path):
    """Three sound patients; a test spoils one thing."""
    ids = ["p1", "p2", "p3"]
    participants = pd.DataFrame({
        "patient_id": ids, "site": "a", "time_days": [10.0, 20.0, 30.0], "event": [True, False, True],
        "age": [50.0, np.nan, 70.0], "grade": ["low", "high", None],
    })  # fmt: skip
    rows = []
    for name in ids:
        mask = np.zeros((4, 5, 6), dtype=np.uint8)
        mask[1, 1, 1:4] = [1, 2, 3]
        image = nifti(tmp_path / f"{name}_t1c.nii.gz", np.arange(mask.size, dtype=np.int16).reshape(mask.shape))
        rows.append([name, "baseline", 0.0, "t1c", image, nifti(tmp_path / f"{name}_mask.nii.gz", mask)])
    images = pd.DataFrame(rows, columns=["patient_id", "session", "day", "modality", "path", "mask_path"])
    return Cohort("trial", participants, images, DICTIONARY, LABELS)


def refusal(cohort) -> str:
    with pytest.raises(BadInput) as refused:
        cohort.validated()
    return str(refused.value)


def test_a_sound_cohort_has_no_findings_missing_covariates_and_all(cohort):
    assert cohort.check() == []
    assert cohort.validated() is cohort


@pytest.mark.parametrize(
    ("column", "value", "found", "remedy"),
    [
        ("time_days", 0.0, "0 or negative", "selection rule `time_days > 0`"),
        ("time_days", -4.0, "0 or negative", "selection rule `time_days > 0`"),
        ("time_days", np.nan, "missing or not a number", "exclude the patient"),
        ("time_days", "ALIVE (361 days later)", "missing or not a number", "days from baseline"),
        ("event", 2, "neither 0 nor 1", "code it so"),
        ("event", None, "neither 0 nor 1", "unknown status means the patient is excluded"),
        ("patient_id", "p1", "more than once", "keep the baseline row"),
        ("grade", "medium", "unknown level", "correct the value, or add the level"),
        ("age", "sixty", "not a number", "leave missing values empty"),
    ],
)
def test_a_bad_value_is_refused_with_patient_and_remedy(cohort, column, value, found, remedy):
    participants = cohort.participants.astype({column: object})
    participants.loc[1, column] = value
    (finding,) = check_participants(participants, DICTIONARY, "trial participants")
    patient = "p1" if column == "patient_id" else "p2"
    assert finding.severity == "error"
    for part in (found, remedy, f"patient {patient}", "trial participants"):
        assert part in str(finding)


@pytest.mark.parametrize("column", ["patient_id", "site", "time_days", "event", "age"])
def test_a_missing_column_is_named_with_the_columns_found(cohort, column):
    (finding,) = check_participants(cohort.participants.drop(columns=column), DICTIONARY, "trial participants")
    assert f"no column {column}" in str(finding)
    assert "columns found: " in str(finding) and "grade" in str(finding)


def trial(count: int = 60, **columns) -> pd.DataFrame:
    """Sound outcomes of many patients, and columns beside them."""
    rng = np.random.default_rng(3)
    end, lost = rng.exponential(500, count) + 1, rng.uniform(100, 1500, count)
    table = {"patient_id": [f"p{k}" for k in range(count)], "site": "a", "time_days": np.minimum(end, lost)}
    return pd.DataFrame(table | {"event": end <= lost} | columns)


def told(table: pd.DataFrame, **kinds) -> list[str]:
    return [f"{found.severity}: {found}" for found in check_participants(table, kinds, "trial")]


@pytest.mark.parametrize(
    "time",
    [
        pd.Series(20200101 + np.arange(60)),
        pd.Series(43831.0 + np.arange(60)),  # days since 1900, as Excel stores dates
        pd.Series(pd.date_range("2020-01-01", periods=60)),
    ],
)
def test_a_date_in_place_of_a_time_is_refused(time):
    (finding,) = told(trial().assign(time_days=time))
    assert finding.startswith("error") and "over a century, so a date" in finding and "and 55 more" in finding


def test_a_patient_without_a_site_and_a_site_in_two_spellings_are_warned_of():
    table = trial()
    table.loc[4, "site"] = None
    (finding,) = told(table)
    assert finding.startswith("warning") and "patient p4: no `site`" in finding and "no design by site" in finding
    (finding,) = told(trial().assign(site=["South", "south "] * 30))
    assert finding.startswith("warning") and "sites that differ only in case or spaces" in finding


def test_a_cohort_of_the_dead_alone_is_pointed_at():
    (finding,) = told(trial().assign(event=True))
    assert finding.startswith("warning") and "the event for everybody" in finding and "left out" in finding
    assert told(trial()) == []


def test_a_covariate_of_several_levels_that_tells_the_event_is_refused_and_one_that_hardly_does_is_not():
    kind = {"kind": "categorical", "levels": ["NED", "AWD", "DOD", "DOC"]}
    table = trial()
    alternating = np.arange(60) % 2 == 0
    table["last_state"] = np.where(table["event"], np.where(alternating, "DOD", "DOC"),
                                   np.where(alternating, "NED", "AWD"))  # fmt: skip
    (finding,) = told(table, last_state=kind)
    assert finding.startswith("error") and "`last_state` is `event` in other words" in finding
    table.loc[table["event"].idxmax(), "last_state"] = "NED"
    assert told(table, last_state=kind) == []


@pytest.mark.parametrize(
    ("name", "warned"),
    [
        ("OSmonths", True), ("FU_days", True), ("os_2y", True), ("postop_kps", True), ("adjuvant_therapy", True),
        ("pathologic_t_stage", True), ("Extent.of.Resection", True),
        ("os_location", False), ("status_epilepticus", False), ("recurrence_before_baseline", False),
        ("neo_adjuvant_therapy", False), ("progression_at_diagnosis", False), ("hpv_status", False),
    ],
)  # fmt: skip
def test_names_of_what_comes_later_are_warned_of_and_others_are_not(name, warned):
    found = told(trial(**{name: ["yes", "no"] * 30}), **{name: {"kind": "categorical", "levels": ["yes", "no"]}})
    assert ["is named like" in one and one.startswith("warning") for one in found] == [True] * warned


def test_ranges_hold_however_a_name_is_written_but_not_for_a_change():
    values = np.linspace(-4, 8, 60)
    kinds = dict.fromkeys(["AgeAtMRI", "age.at.mri", "weight_loss"], {"kind": "numeric"})
    found = told(trial(**dict.fromkeys(kinds, values)), **kinds)
    assert [one.split("`")[1] for one in found] == ["AgeAtMRI", "age.at.mri"]


def test_the_direction_of_events_among_many_patients_needs_little_memory():
    table = trial(6000)
    tracemalloc.start()
    assert told(table) == []
    assert tracemalloc.get_traced_memory()[1] < 20e6  # dead times alive would be 70 MB and more
    tracemalloc.stop()
    flipped = told(table.assign(event=~table["event"]))
    assert len(flipped) == 1 and "looks flipped" in flipped[0]


@pytest.mark.parametrize(
    ("day", "time", "found"),
    [(200.0, 400.0, "no scan known to be before day 30"), (np.nan, 400.0, "no scan known to be before day 30"),
     (20.0, 10.0, "after the end of follow-up")],
)  # fmt: skip
def test_a_scan_that_tells_who_lived_until_then_is_pointed_at(cohort, day, time, found):
    cohort.images.loc[1, "day"], cohort.participants.loc[1, "time_days"] = day, time
    (finding,) = cohort.check()
    assert finding.severity == ("error" if "after" in found else "warning") and found in finding.found
    assert finding.patients == ("p2",)


def test_a_kind_that_does_not_exist_is_refused(cohort):
    (finding,) = check_participants(cohort.participants, {"age": {"kind": "continuous"}}, "trial participants")
    assert "`age`" in str(finding) and "numeric, ordered, categorical" in str(finding)


def test_a_patient_without_images_is_refused(cohort):
    cohort.images.drop(index=2, inplace=True)
    message = refusal(cohort)
    assert "p3" in message and "no image" in message and "remove the patient" in message


def test_an_image_without_mask_is_refused(cohort):
    cohort.images.loc[1, "mask_path"] = ""
    message = refusal(cohort)
    assert "patient p2" in message and "p2_t1c.nii.gz" in message and "add the mask" in message


@pytest.mark.parametrize("column", ["path", "mask_path"])
def test_a_file_that_is_not_there_is_refused(cohort, column):
    cohort.images.loc[1, column] = "nowhere/p2.nii.gz"
    message = refusal(cohort)
    assert "nowhere/p2.nii.gz, patient p2" in message and "not found" in message


@pytest.mark.parametrize(("shape", "spacing"), [((4, 5, 7), 1.0), ((4, 5, 6), 2.0)])
def test_mask_on_another_grid_is_refused_and_names_the_patient(cohort, shape, spacing):
    path = nifti(cohort.images.loc[1, "mask_path"], np.ones(shape, dtype=np.uint8), spacing)
    message = refusal(cohort)
    assert path in message and "patient p2" in message and "another grid" in message and "resample" in message


@pytest.mark.parametrize("label", [0, 2])
def test_a_mask_without_tumour_is_refused_oedema_alone_is_not_tumour(cohort, label):
    path = nifti(cohort.images.loc[1, "mask_path"], np.full((4, 5, 6), label, dtype=np.uint8))
    message = refusal(cohort)
    assert path in message and "patient p2" in message and "empty mask" in message and "exclude the patient" in message


def test_an_unknown_label_is_refused(cohort):
    path = nifti(cohort.images.loc[1, "mask_path"], np.full((4, 5, 6), [1, 2, 3, 4, 1, 1], dtype=np.uint8))
    message = refusal(cohort)
    assert path in message and "patient p2" in message and "unknown labels 4" in message and "dseg.tsv" in message


def test_a_file_that_is_no_nifti_is_refused(cohort):
    path = cohort.images.loc[1, "mask_path"]
    with open(path, "wb") as broken:
        broken.write(b"not an image")
    message = refusal(cohort)
    assert path in message and "patient p2" in message


def test_equal_errors_are_one_sentence_with_its_patients_and_others_are_counted(cohort):
    cohort.images["mask_path"] = ""
    cohort.participants.loc[0, "time_days"] = -1.0
    message = refusal(cohort)
    assert "patient p1: `time_days`" in message and "(1 more: python -m survpack check trial)" in message
    (_, masks) = cohort.check()
    assert "patients p1, p2, p3" in str(masks) and "no mask" in str(masks)


def test_selected_and_excluded_are_all_step_by_step(cohort):
    kept, flow = select(cohort.participants, {"long enough": "time_days > 15", "events": "event"}, "trial")
    assert list(kept["patient_id"]) == ["p3"]
    assert [step["remaining"] for step in flow] == [3, 2, 1]
    assert len(kept) + sum(step["excluded"] for step in flow) == len(cohort.participants)


def test_a_selection_rule_that_cannot_be_read_names_itself_and_the_columns(cohort):
    with pytest.raises(BadInput, match=r"adults: years > 18.*params\.yaml.*time_days"):
        select(cohort.participants, {"adults": "years > 18"}, "cohort trial")


def test_a_cohort_is_read_back_as_it_was_saved(cohort, tmp_path):
    cohort.save(tmp_path / "saved")
    back = Cohort.load(tmp_path / "saved")
    pd.testing.assert_frame_equal(back.participants, cohort.participants)
    pd.testing.assert_frame_equal(back.images, cohort.images)
    assert (back.dictionary, back.labels, back.flow) == (cohort.dictionary, cohort.labels, cohort.flow)


def test_tumour_is_enhancing_and_necrosis_but_not_oedema(cohort):
    assert cohort.tumour_labels == [1, 3]


def test_an_image_file_that_was_cut_off_is_refused_and_named(tmp_path):
    rng = np.random.default_rng(0)
    whole = nib.Nifti1Image(rng.integers(1, 1000, (24, 24, 24)).astype(np.int16), np.eye(4))
    mask = nib.Nifti1Image(np.pad(np.ones((4, 4, 4), np.uint8), 10), np.eye(4))
    nib.save(whole, tmp_path / "scan.nii.gz")
    nib.save(mask, tmp_path / "mask.nii.gz")
    (tmp_path / "scan.nii.gz").write_bytes((tmp_path / "scan.nii.gz").read_bytes()[:20_000])
    images = pd.DataFrame(
        [["a", "baseline", 0.0, "ct", str(tmp_path / "scan.nii.gz"), str(tmp_path / "mask.nii.gz")]], columns=IMAGES
    )
    [finding] = check_images(images, pd.DataFrame({"patient_id": ["a"], "time_days": 9.0}), {1: "tumour"}, "mine")
    assert "scan.nii.gz, patient a" in str(finding) and "fetch or convert it again" in str(finding)


# --- what the chart says of a tumour and what its mask holds


def test_a_tumour_of_another_size_than_its_mask_is_told_and_one_that_agrees_is_not(tmp_path):
    import nibabel as nib

    from survpack import scans
    from survpack.cohort import IMAGES

    rows = []
    for k, side in enumerate((10, 10, 40)):  # 1 mL, 1 mL, 64 mL: balls of 12, 12 and 50 mm
        mask = np.zeros((48, 48, 48), np.uint8)
        mask[2 : 2 + side, 2 : 2 + side, 2 + k : 2 + k + side] = 1
        path = str(tmp_path / f"{k}_dseg.nii.gz")
        nib.save(nib.Nifti1Image(mask, np.eye(4)), path)
        rows.append([f"P{k}", "baseline", 0.0, "mask", "", path])
    people = pd.DataFrame(
        {"patient_id": ["P0", "P1", "P2"], "time_days": 100.0, "radiographic_size": [1.5, np.nan, 1.1]}
    )
    known = {"radiographic_size": {"kind": "numeric", "unit": "cm"}}
    images = pd.DataFrame(rows, columns=IMAGES)
    found, _ = scans.examine(images, people["patient_id"], people, {1: "tumour"}, "trial", known)
    (told,) = [each for each in found if "mask holds" in each.found]
    assert told.patients == ("P2",) and "1.1 cm where the mask holds 64 mL" in told.found


@pytest.mark.parametrize(("gone", "noticed"), [(4, False), (8, True)])
def test_a_covariate_that_many_lack_is_told(gone, noticed):
    table = pd.DataFrame({
        "patient_id": [f"P{k}" for k in range(20)], "site": "a", "time_days": np.arange(20) * 30.0 + 40,
        "event": np.arange(20) % 2 == 0, "bmi": [np.nan] * gone + [25.0 + k for k in range(20 - gone)],
    })  # fmt: skip
    found = check_participants(table, {"bmi": {"kind": "numeric", "unit": "kg/m²"}}, "table")
    assert any(f"missing in {gone} of 20" in each.found for each in found) == noticed


def test_an_age_of_0_among_adults_is_told_and_among_children_is_not():
    table = pd.DataFrame({
        "patient_id": [f"P{k}" for k in range(12)], "site": "a", "time_days": np.arange(12) * 90.0 + 40,
        "event": np.arange(12) % 2 == 0, "age": [0.0] + [50.0 + k for k in range(11)],
    })  # fmt: skip
    known = {"age": {"kind": "numeric", "unit": "years"}}
    assert any("below 1 among adults" in each.found for each in check_participants(table, known, "table"))
    assert not any(
        "below 1" in each.found for each in check_participants(table.assign(age=table["age"] / 10), known, "t")
    )
