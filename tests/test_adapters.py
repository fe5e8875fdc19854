"""What each adapter makes of its data set's traps: on miniature trees, and on the real data where it is."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from lifelines.utils import concordance_index

from survpack import adapters
from survpack.adapters import bids, kits, sts
from survpack.cohort import IMAGES
from survpack.errors import BadInput
from survpack.params import Params, load

SERIES = ("CT", "MR_T1", "PET")


@pytest.fixture
def params() -> Params:
    return load()


def with_choices(params: Params, **choices) -> Params:
    return params.model_copy(update={"cohort": choices})


def nifti(path: Path, label: int = 1):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((3, 4, 5), dtype=np.uint8)
    values[1, 1, 1] = label
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


def sts_tree(root: Path, layout: str) -> Path:
    """Three patients and the sheet's traps: notes, `--`, a missing grade, days before the diagnosis."""
    columns = ["Patient ID", "Age", "Sex", "Histological type", "MSKCC type", "Site of primary STS", "Grade",
               "Time – diagnosis to MRI scan (days)", "Time – MRI scan to PET scan (days)", "Treatment",
               "Outcome (recurrence, mets)", "Time – diagnosis to outcome (days)", "Status (NED, AWD, D)",
               "Time – diagnosis to last follow-up (days)"]  # fmt: skip
    rows = [
        ["STS_001", 59, "Male", "x", "Liposarcoma", "left thigh", "High", -7, 4, "Surgery", "Mets", 266, "D", 845],
        ["STS_002", 61, "Female", "x", "MFH", "left arm", None, 30, -14, "Surgery", "--", "--", "NED", 501],
        ["STS_003", 17, "Female", "x", "Other", "groin", "Low", 0, 11, "Surgery", "--", "--", "D", 300],
        [None] * 14,
        ["NOTES"] + [None] * 13,
        ["Status: No Evidence of Disease (NED), Alive With Disease (AWD), Dead (D)."] + [None] * 13,
    ]  # fmt: skip
    root.mkdir(parents=True)
    pd.DataFrame(rows, columns=columns).to_excel(root / "INFOclinical_STS.xlsx", index=False)
    for patient in ("STS_001", "STS_002", "STS_003"):
        for series in SERIES:
            for what in ("image", "mask"):
                cropped = root / patient / f"{series}_{what}.nii.gz"
                full = root / "nifti" / patient / series / what / f"{what}.nii.gz"
                nifti(cropped if layout == "cropped" else full)
    return root


def kits_tree(root: Path) -> Path:
    """Three cases: one with its CT, one with no follow-up and a capped eGFR, one with none."""
    cases = []
    for number, (days, egfr) in enumerate([(100, 77.0), (0, ">=90"), (900, None)]):
        case = f"case_{number:05d}"
        cases.append({
            "case_id": case, "age_at_nephrectomy": 60 + number, "gender": "male", "body_mass_index": 30.5,
            "comorbidities": {"copd": number > 0, "dementia": number > 1, "aids": False},
            "smoking_history": "never_smoked", "radiographic_size": 2.4, "malignant": number != 2,
            "last_preop_egfr": {"value": egfr, "days_before_nephrectomy": egfr and 5}, "tumor_isup_grade": 3,
            "vital_status": "dead" if number == 0 else "censored", "vital_days_after_surgery": days,
        })  # fmt: skip
        nifti(root / case / "segmentation.nii.gz", label=2)
    nifti(root / "case_00000" / "imaging.nii.gz")
    nifti(root / "case_00210" / "imaging.nii.gz")  # the challenge's test cases have no segmentation
    (root / "kits.json").write_text(json.dumps(cases))
    return root


def bids_tree(root: Path) -> Path:
    """Two patients; the second has CT and PET with a mask each, and a follow-up."""
    root.mkdir(parents=True)
    (root / "participants.tsv").write_text(
        "participant_id\tsite\ttime_days\tevent\tage\tgrade\ttrial\nsub-01\tn\t412\t1\t63\t2\tyes\n"
        "sub-02\ts\t980\t0\tn/a\t1\tno\n"
    )
    described = {
        "age": {"Units": "years"},
        "grade": {"Levels": {"1": "low", "2": "high"}, "Ordered": True},
        "time_days": {"Units": "days"},
    }
    (root / "participants.json").write_text(json.dumps(described))
    for name in ("T1w", "ce-gd_T1w", "T2w", "FLAIR", "dwi", "dseg"):
        nifti(root / "sub-01" / "anat" / f"sub-01_{name}.nii.gz")
    for session in ("ses-1", "ses-2"):
        for name in ("ct", "ct_dseg", "pet", "pet_dseg"):
            nifti(root / "sub-02" / session / "anat" / f"sub-02_{session}_{name}.nii.gz")
    (root / "sub-02" / "sub-02_sessions.tsv").write_text("session_id\tday\nses-1\t-3\nses-2\t90\n")
    return root


# --- soft-tissue sarcoma


@pytest.mark.parametrize("layout", ["cropped", "full"])
def test_sts_survives_its_traps_in_both_layouts(raw, params, layout):
    sts_tree(raw / "sts", layout)
    cohort = adapters.load("sts", with_choices(params, sts={})).validated()
    assert list(cohort.participants["patient_id"]) == ["STS_001", "STS_002", "STS_003"]  # no notes
    assert list(cohort.participants["time_days"]) == [845, 501, 300]
    assert list(cohort.participants["event"]) == [True, False, True]
    assert cohort.participants["grade"].isna().tolist() == [False, True, False]
    assert cohort.modalities == ["ct", "pt", "t1n"]
    days = cohort.images.set_index(["patient_id", "modality"])["day"]
    assert days["STS_001"].to_dict() == {"ct": -3, "pt": -3, "t1n": -7}
    assert days["STS_002"].to_dict() == {"ct": 16, "pt": 16, "t1n": 30}


def test_an_unknown_status_of_sts_is_not_taken_for_alive(raw, params):
    root = sts_tree(raw / "sts", "cropped")
    sheet = pd.read_excel(root / sts.TABLE)
    sheet.loc[[0, 1], "Status (NED, AWD, D)"] = None
    sheet.to_excel(root / sts.TABLE, index=False)
    table = sts.clinical(root)
    assert table["death"].isna().tolist() == [True, True, False]
    assert table["recurrence_or_death"].tolist()[0] is True and pd.isna(table["recurrence_or_death"][1])
    sheet.loc[0, "Status (NED, AWD, D)"] = "lost"
    sheet.to_excel(root / sts.TABLE, index=False)
    with pytest.raises(BadInput, match="'lost' for row 1, expected one of NED, AWD, D"):
        sts.clinical(root)


def test_sts_disease_free_survival_ends_with_the_first_of_relapse_and_death(raw, params):
    sts_tree(raw / "sts", "cropped")
    table = adapters.load("sts", with_choices(params, sts={"outcome": "disease-free-survival"})).participants
    assert list(table["time_days"]) == [266, 501, 300]
    assert list(table["event"]) == [True, False, True]


def test_what_is_known_after_baseline_predicts_nothing():
    later = ("treat", "status", "necrosis", "isup", "stage", "margin", "malignant", "patholog", "hospital", "blood")
    for adapter in (sts, kits):
        assert not [name for name in adapter.DICTIONARY if any(word in name for word in later)]
        assert not {name for pair in adapter.OUTCOMES.values() for name in pair} & set(adapter.DICTIONARY)


def test_a_missing_column_is_named_with_its_file(raw):
    root = sts_tree(raw / "sts", "cropped")
    sheet = pd.read_excel(root / sts.TABLE).rename(columns={"Grade": "Grading"})
    sheet.to_excel(root / sts.TABLE, index=False)
    with pytest.raises(BadInput, match=r"INFOclinical_STS\.xlsx: no column Grade;.*Grading"):
        sts.clinical(root)


# --- KiTS


def test_kits_survives_its_traps(raw, params):
    kits_tree(raw / "kits19")
    cohort = adapters.load("kits", with_choices(params, kits={"selection": {"followed": "time_days > 0"}})).validated()
    assert list(cohort.participants["patient_id"]) == ["case_00000", "case_00002"]
    assert [step["excluded"] for step in cohort.flow] == [0, 1]
    assert set(cohort.images["patient_id"]) == {"case_00000", "case_00002"}
    assert dict(zip(cohort.images["modality"], cohort.images["path"] != "", strict=True)) == {"ct": True, "mask": False}
    assert list(cohort.participants["comorbidities"]) == [0, 2]


def test_kits_egfr_is_capped_and_missing_stays_missing(raw):
    table = kits.clinical(kits_tree(raw / "kits"))
    np.testing.assert_array_equal(table["egfr"], [77.0, 90.0, np.nan])


def test_without_a_rule_time_zero_is_refused_with_the_patient(raw, params):
    kits_tree(raw / "kits")
    with pytest.raises(BadInput, match=r"kits.*case_00001.*0 or negative.*time_days > 0"):
        adapters.load("kits", with_choices(params, kits={})).validated()


def test_malignant_may_select_though_it_may_not_predict(raw, params):
    kits_tree(raw / "kits")
    cohort = adapters.load("kits", with_choices(params, kits={"selection": {"cancer": "malignant"}}))
    assert len(cohort.participants) == 2 and "malignant" not in cohort.participants


# --- BIDS


def test_a_bids_folder_of_ones_own_is_a_cohort(raw, params):
    bids_tree(raw / "mine")
    cohort = adapters.load("mine", params).validated()
    assert cohort.participants["grade"].tolist() == ["2", "1"]  # levels are text, however they look
    assert cohort.dictionary["age"] == {"kind": "numeric", "unit": "years"}
    assert cohort.dictionary["grade"] == {"kind": "ordered", "levels": ["1", "2"]}
    assert "trial" not in cohort.participants
    assert cohort.labels == {1: "tumour"}
    first = cohort.images[cohort.images["patient_id"] == "sub-01"]
    assert set(first["modality"]) == {"t1n", "t1c", "t2w", "t2f"} and (first["day"] == 0).all()
    assert first["mask_path"].str.endswith("sub-01_dseg.nii.gz").all()


def test_bids_masks_belong_to_their_image_and_sessions_have_their_day(raw):
    images = bids.discover(bids_tree(raw / "mine"))
    second = images[images["patient_id"] == "sub-02"]
    assert list(images.columns) == IMAGES
    assert (second["mask_path"] == second["path"].str.replace(".nii.gz", "_dseg.nii.gz")).all()
    assert second.groupby("session")["day"].first().to_dict() == {"ses-1": -3, "ses-2": 90}


def test_a_site_that_is_not_told_is_missing_and_no_institution(raw, params):
    root = bids_tree(raw / "mine")
    for word in ("n/a", "unknown", "Unknown", " "):
        spoil(root / "participants.tsv", "sub-02\ts\t", f"sub-02\t{word}\t")
        assert adapters.load("mine", params).validated().participants["site"].fillna("-").tolist() == ["n", "-"]
        spoil(root / "participants.tsv", f"sub-02\t{word}\t", "sub-02\ts\t")


def test_an_undocumented_column_may_select(raw, params):
    bids_tree(raw / "mine")
    cohort = adapters.load("mine", with_choices(params, mine={"selection": {"on trial": 'trial == "yes"'}}))
    assert list(cohort.participants["patient_id"]) == ["sub-01"]
    assert set(cohort.images["patient_id"]) == {"sub-01"}


def spoil(path: Path, old: str, new: str):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("participants.tsv", "time_days", "os_days", r"participants\.tsv: no column time_days;.*os_days"),
        ("participants.tsv", "\tage\t", "\tages\t", r"participants\.tsv: no column age;.*ages"),
        ("participants.json", '"Levels"', '"Level"', r"participants\.json: `grade` is ordered but has no Levels"),
        ("participants.json", "{", "", r"participants\.json: not JSON"),
        ("participants.json", '"years"', "5", r"participants\.json: the Units of `age` are 5, expected text"),
        ("participants.json", '{"age"', '{"age": {}, "age"', r"participants\.json: not JSON \(`age` is there twice"),
        ("participants.json", '{"1": "low", "2": "high"}', '["1", "2", "2"]', "`grade` has the level '2' twice"),
        (
            "participants.tsv",
            "sub-01\t",
            "sub-1\t",
            r"images of sub-01, but no such row.*sub-01 is sub-1 in the table\)",
        ),
        ("sub-02/sub-02_sessions.tsv", "ses-2", "ses-3", r"sub-02_sessions\.tsv: no `day` for ses-2"),
    ],
)
def test_a_flaw_in_a_bids_table_is_told_with_file_and_remedy(raw, params, file, old, new, message):
    root = bids_tree(raw / "mine")
    described = json.loads((root / "participants.json").read_text())
    described["grade"]["Kind"] = "ordered"
    (root / "participants.json").write_text(json.dumps(described))
    spoil(root / file, old, new)
    with pytest.raises(BadInput, match=message):
        adapters.load("mine", params)


def test_two_sessions_without_days_are_refused(raw):
    root = bids_tree(raw / "mine")
    (root / "sub-02" / "sub-02_sessions.tsv").unlink()
    with pytest.raises(BadInput, match=r"sub-02_sessions\.tsv not found.*`day`"):
        bids.discover(root)


def test_two_images_of_one_sequence_are_refused(raw):
    root = bids_tree(raw / "mine")
    nifti(root / "sub-01" / "anat" / "sub-01_run-2_T2w.nii.gz")
    with pytest.raises(BadInput, match=r"both the t2w of one session"):
        bids.discover(root)


def test_a_label_table_without_tumour_is_refused(raw):
    root = bids_tree(raw / "mine")
    (root / "dseg.tsv").write_text("index\tname\n0\tbackground\n1\tlesion\n")
    with pytest.raises(BadInput, match=r"dseg\.tsv: no label is named enhancing.*lesion"):
        bids.labels(root)


def test_a_bad_value_in_a_bids_table_reaches_the_check_untouched(raw, params):
    root = bids_tree(raw / "mine")
    spoil(root / "participants.tsv", "412\t1", "412\tdead")
    with pytest.raises(BadInput, match=r"sub-01.*`event` is neither 0 nor 1"):
        adapters.load("mine", params).validated()


# --- finding data


def test_absent_data_are_told_with_what_to_fetch_from_where_to_where(raw):
    with pytest.raises(BadInput) as refused:
        adapters.preflight("kits")
    for part in ("KiTS19", kits.SOURCE.url, kits.SOURCE.licence, str(raw / "kits")):
        assert part in str(refused.value)


def test_an_unknown_name_lists_the_known_and_the_folders_there(raw):
    bids_tree(raw / "mine")
    with pytest.raises(BadInput, match=r"'nobody' is not known: choose one of mets.*sts, kits.*mine"):
        adapters.preflight("nobody")


def test_a_folder_that_is_no_bids_folder_says_what_it_lacks(raw):
    (raw / "mine").mkdir()
    with pytest.raises(BadInput, match=r"mine: neither cohort\.yaml nor participants\.tsv.*python -m survpack new"):
        adapters.preflight("mine")


def test_raw_data_are_found_as_a_link_and_elsewhere(raw, tmp_path, monkeypatch):
    kits_tree(tmp_path / "elsewhere" / "kits19")
    monkeypatch.setenv("SURVPACK_DATA", str(tmp_path / "elsewhere"))
    assert adapters.find_raw("kits") == tmp_path / "elsewhere" / "kits19"
    (raw / "kits").symlink_to(tmp_path / "elsewhere" / "kits19")
    assert adapters.find_raw("kits") == raw / "kits"
    assert len(kits.discover(raw / "kits")) == 3


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"outcome": "cured"}, r"cohort\.kits\.outcome is 'cured', but must be one of overall-survival"),
        ({"selecton": {}}, r"cohort\.kits has selecton"),
    ],
)
def test_a_mistyped_choice_is_refused(raw, params, choices, message):
    kits_tree(raw / "kits")
    with pytest.raises(BadInput, match=message):
        adapters.load("kits", with_choices(params, kits=choices))


def test_the_fingerprint_changes_with_the_files_and_only_then(raw):
    root = kits_tree(raw / "kits")
    before = adapters.fingerprint("kits")
    assert adapters.fingerprint("kits") == before and len(before) == 64
    os.utime(root / "kits.json", (1, 1))
    assert adapters.fingerprint("kits") == before  # a copy has another time, and the same content
    (root / "kits.json").write_text((root / "kits.json").read_text() + "\n")
    assert adapters.fingerprint("kits") != before
    assert adapters.fingerprint("mets") == ""


# --- the real data, where they are

REAL = Path(os.environ.get("SURVPACK_DATA", "/nonexistent"))
real_sts = pytest.mark.skipif(not (REAL / "sts").is_dir(), reason="SURVPACK_DATA has no folder sts")
real_kits = pytest.mark.skipif(not (REAL / "kits19").is_dir(), reason="SURVPACK_DATA has no folder kits19")


def median_follow_up(table: pd.DataFrame) -> float:
    """Reverse Kaplan-Meier."""
    return KaplanMeierFitter().fit(table["time_days"], ~table["event"]).median_survival_time_


@real_sts
def test_sts_has_the_published_figures(params):
    cohort = adapters.load("sts", params).validated()
    table = cohort.participants
    assert (len(table), table["event"].sum(), len(cohort.images)) == (51, 15, 153)
    assert table["grade"].isna().sum() == 3
    assert concordance_index(table["time_days"], -table["age"], table["event"]) == pytest.approx(0.68, abs=0.01)
    assert median_follow_up(table) == 868
    relapse = adapters.load("sts", with_choices(params, sts={"outcome": "disease-free-survival"})).participants
    assert relapse["event"].sum() == 27


@real_kits
def test_kits_has_the_published_figures(params):
    everyone = adapters.load("kits", with_choices(params, kits={})).participants
    assert (len(everyone), everyone["event"].sum(), (everyone["time_days"] == 0).sum()) == (210, 21, 3)
    assert median_follow_up(everyone) == pytest.approx(958, abs=2)
    cohort = adapters.load("kits", params)
    table = cohort.participants
    assert len(table) == len(cohort.images) == 207
    assert concordance_index(table["time_days"], -table["age"], table["event"]) == pytest.approx(0.53, abs=0.01)
    size = table["radiographic_size"]
    assert concordance_index(table["time_days"], -size, table["event"]) == pytest.approx(0.72, abs=0.01)


@pytest.mark.slow
@real_kits
def test_kits_tumour_volume_alone_has_the_published_concordance(params):
    cohort = adapters.load("kits", params)
    volume = []
    for path in cohort.images["mask_path"]:
        mask = nib.load(path)
        volume.append(np.count_nonzero(np.asanyarray(mask.dataobj) == 2) * np.prod(mask.header.get_zooms()))
    table = cohort.participants.merge(pd.DataFrame({"patient_id": cohort.images["patient_id"], "volume": volume}))
    assert table["volume"].median() / 1000 == pytest.approx(30, abs=2)
    assert concordance_index(table["time_days"], -table["volume"], table["event"]) == pytest.approx(0.69, abs=0.01)


@pytest.mark.parametrize("name", ["my.cohort", "мозг", "study", "_x", "n" * 300, "../x", ""])
def test_what_can_be_no_cohorts_name_is_refused_before_anything_is_read(name):
    with pytest.raises(BadInput, match="cannot name a cohort") as told:
        adapters.preflight(name)
    assert len(str(told.value)) < 300
