"""The public brain MRI sets: each read from a miniature tree that carries its traps."""

import os
from importlib import import_module
from pathlib import Path
from shutil import rmtree

import numpy as np
import pandas as pd
import pytest
from miniature import mask, scan

from survpack import adapters
from survpack.adapters import lumiere, mri, openbtai, proteas, ucsf_pdgm, upenn_gbm
from survpack.adapters.reading import DAYS
from survpack.cohort import IMAGES
from survpack.errors import BadInput
from survpack.params import Params, load

NAN = float("nan")
KNOWN = {"selection": {"outcome known": "time_days > 0"}}
LUMIERE_HEADER = ["Patient", "Timepoint", "week", "Rating", "Rating2", "Rating3", "Survival", "Sex",
                  "Age.at.surgery..years.", "IDH", "MGMT", "start", "stop", "event", "shape_Sphericity"]  # fmt: skip
RHUH_HEADER = ["Patient ID", "Days from earliest imaging to surgery ", "Age", "Sex", "Preoperative KPS",
               "Previous treatment = (no, surgery, surgery + QT/RT)",
               "IDH status = (mutant [mut], wild type [wt], NOS)", "Extent of resection [EOR]  %",
               "Overall survival [OS] (days)", "Right Censored"]  # fmt: skip


@pytest.fixture
def params() -> Params:
    return load()


def sequences(folder: Path, names, end: str = ".nii.gz"):
    for name in names:
        scan(folder / f"{name}{end}")


def csv(path: Path, rows, columns, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False, **options)


def excel(path: Path, rows, columns=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns).to_excel(path, index=False, header=columns is not None, **options)


# --- the trees


def pretreat_mets_tree(root: Path):
    """Ids with a time point, a blank `Death`, months, a row of notes."""
    columns = ["BraTS_MET_ID", "Age", "Sex", "Primary Cancer", "Extranodal", "Number of lesions", "Death",
               "Survival (months)"]  # fmt: skip
    rows = [
        ["BraTS-MET-00086-000", 61, "F", "NSCLC", "Yes", 3, 1, 10],
        ["BraTS-MET-00090-000", 58, "M", "Melanoma", "No", 1, 0, 24],
        ["BraTS-MET-00101-000", 70, "M", "RCC", "No", 2, None, None],
        [None] * 8,
    ]
    excel(root / "Pretreat-MetsToBrain-Masks_clin_20230918.xlsx", rows, columns, sheet_name="Data")
    for case in ("BraTS-MET-00086-000", "BraTS-MET-00090-000", "BraTS-MET-00101-000", "BraTS-MET-00086-001"):
        sequences(root / case, [f"{case}-{name}" for name in ("t1n", "t1c", "t2w", "t2f")])
        mask(root / case / f"{case}-seg.nii.gz", (1, 2, 3))


def openbtai_tree(root: Path):
    """A legend above two header rows, two columns `Time`, a row a lesion, an id that lost its zeros."""
    legend = [["Legend", *[None] * 8]] + [[None] * 9] * 12
    upper = ["Patient\u00a0ID", "Age", "Sex", "GPA", "id", "Primary", "Time", "RT", "Time "]
    lower = [None, "at RM1", None, None, None, "tumor", None, "dose", None]
    rows = [
        ["100101", 55, 1, 2.5, 1, 2, 30, 18, 420],
        ["100101", 55, 1, 2.5, 2, 2, 31, 18, 420],
        [1002, 66, 2, 1, 1, 8, 12, 20, 90],
    ]
    excel(root / "OpenBTAI_METS_ClinicalData_Nov2023.xlsx", [*legend, upper, lower, *rows])
    for folder, patient, points in (("100101", "100101", (2, 10)), ("001002", "001002", (1,))):
        for point in points:
            stem = root / folder / folder / "NIFTI" / f"{patient}_{point}_T1"
            scan(Path(f"{stem}_img.nii"))
            mask(Path(f"{stem}_msk.nii"), (11, 12, 21))


def proteas_tree(root: Path):
    """One patient of two units, a unit listed twice, two spellings of a folder, a follow-up without a mask."""
    columns = ["Patient ID (Zenodo)", "Age (yrs)", "Gender", "Karnofsky PS (%)", "Number of metastases",
               "Tumour Histology ", "Brain Mets Imaging Date", "Death", "Survival (months)"]  # fmt: skip
    rows = [
        ["P01", 60, "Male", 90, 2, "NSCLC", pd.Timestamp("2020-01-05"), "Yes", 12],
        ["P01", 60, "Male", 90, 2, "NSCLC", pd.Timestamp("2020-09-05"), "Yes", 12],
        ["P07a", 49, "Female", 80, 1, "Breast", pd.Timestamp("2020-03-11"), "No", 30],
        ["P07b", 49, "Female", 80, 1, "Breast", pd.Timestamp("2020-03-01"), "No", 30],
    ]
    excel(root / "PROTEAS-Clinical_and_demographic_data.xlsx", rows, columns, sheet_name="PROTEAS")
    masks = {"P01": "tumor segmentation", "P07a": "tumor_segmentation", "P07b": "tumor_segmentation"}
    for unit, folder in masks.items():
        for session in ("baseline", "fu1", "fu2"):
            sequences(root / unit / "BraTS" / session, ("t1", "t1c", "t2", "fla"))
            if session != "fu2":
                mask(root / unit / folder / f"{unit}_tumor_mask_{session}.nii.gz", (1, 2, 3))
        scan(root / unit / f"{unit}_RTP.nii.gz")


def brats2020_tree(root: Path):
    """Text for the censored one, a folder without a row, .nii, an oddly named mask, label 4."""
    rows = [
        ["BraTS20_Training_001", 60.5, "289", "GTR"],
        ["BraTS20_Training_084", 64.2, "ALIVE (361 days later)", "GTR"],
        ["BraTS20_Training_171", 47.0, "1000", "NA"],
    ]
    csv(root / "survival_info.csv", rows, ["Brats20ID", "Age", "Survival_days", "Extent_of_Resection"])
    for case in ("BraTS20_Training_001", "BraTS20_Training_084", "BraTS20_Training_171", "BraTS20_Training_355"):
        sequences(root / case, [f"{case}_{name}" for name in ("t1", "t1ce", "t2", "flair")], ".nii")
        named = "W39_1998.09.19_Segm" if case.endswith("171") else f"{case}_seg"
        mask(root / case / f"{named}.nii", (1, 2, 4))


def upenn_gbm_tree(root: Path):
    """A row a scan, in any order; a patient with a follow-up only; an expert's mask; `Not Available`."""
    columns = ["ID", "Gender", "Age_at_scan_years", "Survival_from_surgery_days_UPDATED", "Survival_Status",
               "Survival_Censor", "IDH1", "MGMT", "KPS", "GTR_over90percent"]  # fmt: skip
    no = "Not Available"
    rows = [
        ["UPENN-GBM-00001_21", "M", 66.1, "400", "Deceased", 1, "Wildtype", "Methylated", no, "Y"],
        ["UPENN-GBM-00001_11", "M", 65.0, "400", "Deceased", 1, "Wildtype", "Methylated", 90, "Y"],
        ["UPENN-GBM-00002_11", "F", 52.3, "900", "Lost to Follow-up", 0, "NOS/NEC", "Indeterminate", no, "N"],
        ["UPENN-GBM-00003_11", "F", 71.0, no, no, no, "Mutated", no, no, no],
        ["UPENN-GBM-00004_21", "F", 71.0, "50", "Deceased", 1, "Mutated", no, no, no],
    ]
    csv(root / "UPENN-GBM_clinical_info_v2.1.csv", rows, columns)
    for row in rows:
        sequences(root / "images_structural" / row[0], [f"{row[0]}_{name}" for name in ("T1", "T1GD", "T2", "FLAIR")])
        if row[0].endswith("_11"):
            mask(root / "automated_segm" / f"{row[0]}_automated_approx_segm.nii.gz", (1, 2, 4))
    mask(root / "images_segm" / "UPENN-GBM-00002_11_segm.nii.gz", (1, 2, 4))


def ucsf_pdgm_tree(root: Path):
    """Three digits in the table, four on the folders, and a scan seven days later."""
    columns = ["ID", "Sex", "Age at MRI", "WHO CNS Grade", "IDH", "MGMT status", "1-dead 0-alive", "OS", "EOR"]
    rows = [
        ["UCSF-PDGM-004", "M", 66, 4, "wildtype", "negative", 1, 1303.0, "STR"],
        ["UCSF-PDGM-433_FU007d", "F", 40, 2, "IDH1 p.R132H", "unknown", 0, 185.0, "GTR"],
        ["UCSF-PDGM-433", "F", 40, 2, "IDH1 p.R132H", "indeterminate", 0, 185.0, "GTR"],
        ["UCSF-PDGM-541", "F", 80, 4, "wildtype", "positive", None, None, "biopsy"],
    ]
    csv(root / "UCSF-PDGM-metadata_v5.csv", rows, columns, encoding="utf-8-sig")
    for case in ("0004", "0433", "0433_FU007d", "0541"):
        folder = root / f"UCSF-PDGM-{case}_nifti"
        sequences(folder, [f"UCSF-PDGM-{case}_{name}" for name in ("T1", "T1c", "T2", "FLAIR", "ADC", "T1_bias")])
        mask(folder / f"UCSF-PDGM-{case}_tumor_segmentation.nii.gz", (1, 2, 4))


def rhuh_gbm_tree(root: Path):
    """A reversed event column, whole sentences for names, sessions before and after the operation."""
    rows = [
        ["RHUH-0001", 3, 63, "M", 80, "no", "wt", 100, 455, "no"],
        ["RHUH-0002", 1, 50, "F", 90, "surgery + QT/RT", "NOS", 95, 1200, "yes"],
    ]
    csv(root / "clinical_data_TCIA_RHUH-GBM.csv", rows, RHUH_HEADER)
    for patient in ("RHUH-0001", "RHUH-0002"):
        for session in "012":
            stems = [f"{patient}_{session}_{name}" for name in ("t1", "t1ce", "t2", "flair", "adc")]
            sequences(root / patient / session, stems)
            mask(root / patient / session / f"{patient}_{session}_segmentations.nii.gz", (1, 2, 3))


def lumiere_tree(root: Path):
    """Start-stop rows in weeks and out of order, a censored patient, both layouts of a visit, one without a mask."""
    chart = {"Patient-001": ["female", 57, "WT", "methylated"], "Patient-015": ["male", 60, "na", "not methylated"]}
    visits = [
        ["Patient-001", "week-000-2", 0.2, "Post-Op", 0.2, 44, 0, 0.33],
        ["Patient-001", "week-000-1", 0.1, "Pre-Op", 0.1, 0.2, 0, 0.44],
        ["Patient-001", "week-044", 44, "PD", 44, 89, 1, 0.55],
        ["Patient-015", "week-000", 0, "Pre-Op", 0, 145, 0, "NA"],
    ]
    rows = [
        [who, when, week, rating, "NA", "NA", "NA", *chart[who], start, stop, event, feature]
        for who, when, week, rating, start, stop, event, feature in visits
    ]
    csv(root / "LUMIERE_TD_FINAL.csv", rows, LUMIERE_HEADER)
    names = [f"{name}_skull_strip" for name in ("t1", "ct1", "t2", "flair")]
    for visit in ("Patient-001/week-000-1", "Patient-001/week-000-2", "Patient-026/week-000"):
        atlas = root / "Imaging" / visit / "DeepBraTumIA-segmentation" / "atlas"
        sequences(atlas / "skull_strip", names)
        if visit != "Patient-001/week-000-2":
            mask(atlas / "segmentation" / "seg_mask.nii.gz", (1, 2, 3))
    sequences(root / "Patient-015" / "week-000", names, ".nii")
    mask(root / "Patient-015" / "week-000" / "seg_mask.nii", (1, 3))


MONTH = DAYS["months"]
TREES = {  # name: tree, choices, patient to (days, event), sessions of the first patient to their days
    "pretreat-mets": (pretreat_mets_tree, KNOWN, {"BraTS-MET-00086": (10 * MONTH, True),
                      "BraTS-MET-00090": (24 * MONTH, False)}, {"000": 0, "001": NAN}),
    "openbtai": (openbtai_tree, {}, {"100101": (420, True), "001002": (90, True)}, {"2": 0, "10": NAN}),
    "proteas": (proteas_tree, {}, {"P01": (12 * MONTH, True), "P07": (30 * MONTH, False)}, {"baseline": 0, "fu1": NAN}),
    "brats2020": (brats2020_tree, KNOWN, {"BraTS20_Training_001": (289, True), "BraTS20_Training_084": (361, False),
                  "BraTS20_Training_171": (1000, True)}, {"baseline": 0}),
    "upenn-gbm": (upenn_gbm_tree, {"selection": {"scanned before": "baseline_scan", "known": "time_days > 0"}},
                  {"UPENN-GBM-00001": (400, True), "UPENN-GBM-00002": (900, False)}, {"11": 0}),
    "ucsf-pdgm": (ucsf_pdgm_tree, KNOWN, {"UCSF-PDGM-0004": (1303, True), "UCSF-PDGM-0433": (185, False)},
                  {"baseline": 0}),
    "rhuh-gbm": (rhuh_gbm_tree, {}, {"RHUH-0001": (455, True), "RHUH-0002": (1200, False)},
                 {"0": 0, "1": NAN, "2": NAN}),
    "lumiere": (lumiere_tree, KNOWN, {"Patient-001": (7 * 89, True), "Patient-015": (7 * 145, False)},
                {"week-000-1": 7 * 0.1}),
}  # fmt: skip


def module(name: str):
    return import_module(f"survpack.adapters.{name.replace('-', '_')}")


def loaded(name: str, raw: Path, params: Params, **choices):
    tree, usual = TREES[name][:2]
    tree(raw / name)
    return adapters.load(name, params.model_copy(update={"cohort": {name: choices or usual}}))


# --- what every set must give


@pytest.mark.parametrize("name", TREES)
def test_the_tree_with_its_traps_is_a_clean_cohort(name, raw, params):
    outcome, sessions = TREES[name][2:]
    cohort = loaded(name, raw, params)
    assert cohort.check() == []
    table = cohort.participants
    assert dict(zip(table["patient_id"], zip(table["time_days"], table["event"], strict=True), strict=True)) == outcome
    assert list(cohort.images.columns) == IMAGES
    assert cohort.modalities == (["t1c"] if name == "openbtai" else ["t1c", "t1n", "t2f", "t2w"])
    first = cohort.images[cohort.images["patient_id"] == next(iter(outcome))].drop_duplicates("session")
    np.testing.assert_equal(dict(zip(first["session"], first["day"], strict=True)), sessions)
    assert cohort.images.groupby("patient_id")["day"].min().abs().lt(1).all()  # everyone has a baseline scan


@pytest.mark.parametrize("name", TREES)
def test_what_is_known_only_later_predicts_nothing(name):
    later = ("resection", "eor", "gtr", "rating", "postop", "residual", "adjuvant", "dose", "status", "progression")
    adapter = module(name)
    assert {adapter.NAME, adapter.FOLDERS[0]} == {name}
    assert not [covariate for covariate in adapter.DICTIONARY if any(word in covariate for word in later)]
    assert not {column for pair in adapter.OUTCOMES.values() for column in pair} & set(adapter.DICTIONARY)


@pytest.mark.parametrize("name", TREES)
def test_data_are_found_under_the_name_of_the_download_in_survpack_data(name, raw, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere" / module(name).FOLDERS[1]
    folder.mkdir(parents=True)
    monkeypatch.setenv("SURVPACK_DATA", str(tmp_path / "elsewhere"))
    assert adapters.find_raw(name) == folder


@pytest.mark.parametrize("name", TREES)
def test_a_missing_table_is_named_with_its_folder(name, raw, params):
    TREES[name][0](raw / name)
    (raw / name / module(name).TABLE).unlink()
    with pytest.raises(BadInput) as refused:
        adapters.preflight(name)
    assert str(raw / name / module(name).TABLE) in str(refused.value) and "put it there" in str(refused.value)


@pytest.mark.parametrize("name", [name for name in TREES if name != "lumiere"])
def test_a_folder_without_images_says_which_layout_was_expected(name, raw):
    TREES[name][0](raw / name)
    for path in [*(raw / name).rglob("*.nii"), *(raw / name).rglob("*.nii.gz")]:
        path.unlink()
    with pytest.raises(BadInput, match=rf"{name}: no image found, expected .*nii.*unpack"):
        module(name).discover(raw / name)


def rewrite(path: Path, change, **options):
    """The table with `change` made to it, in the form it had."""
    read, write = (pd.read_csv, "to_csv") if path.suffix == ".csv" else (pd.read_excel, "to_excel")
    table = change(read(path, dtype=str, keep_default_na=False, **options))
    header = options.get("header", 0) is not None
    getattr(table, write)(path, index=False, header=header, **{key: options[key] for key in options if key != "header"})


BROKEN = {  # name: the column and what becomes of it (another name, or a value), what the sentence must say
    "pretreat-mets": ("Survival (months)", "Survival", {"sheet_name": "Data"},
                      r"clin_20230918\.xlsx: no column for survival time with its unit.*columns found: .*Survival\)"),
    "proteas": ("Brain Mets Imaging Date", "Date", {"sheet_name": "PROTEAS"}, r"PROTEAS-.*xlsx: no column Brain Mets"),
    "brats2020": ("Survival_days", "Days", {}, r"survival_info\.csv: no column Survival_days.*Days"),
    "upenn-gbm": ("Survival_Status", ["Transferred"], {}, r"v2\.1\.csv: Survival_Status is 'transferred'.*Deceased"),
    "ucsf-pdgm": ("1-dead 0-alive", ["2"], {}, r"v5\.csv: 1-dead 0-alive is '2' for row 1, expected one of 1, 0"),
    "rhuh-gbm": ("Right Censored", ["perhaps"], {}, r"RHUH-GBM\.csv: Right Censored is 'perhaps'.*no, yes; correct"),
    "lumiere": ("event", ["2"], {}, r"LUMIERE_TD_FINAL\.csv: event is '2'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_table_ends_in_one_sentence_with_file_and_remedy(name, raw, params):
    column, becomes, options, message = BROKEN[name]
    TREES[name][0](raw / name)

    def spoilt(table: pd.DataFrame) -> pd.DataFrame:
        if isinstance(becomes, str):
            return table.rename(columns={column: becomes})
        return table.assign(**{column: becomes * len(table)})

    rewrite(raw / name / module(name).TABLE, spoilt, **options)
    with pytest.raises(BadInput, match=message):
        adapters.load(name, params.model_copy(update={"cohort": {name: {}}}))


# --- the traps, one by one


def test_a_blank_death_is_unknown_and_not_alive(raw, params):
    cohort = loaded("pretreat-mets", raw, params)
    assert [step["excluded"] for step in cohort.flow] == [0, 1]
    with pytest.raises(BadInput, match=r"BraTS-MET-00101.*`time_days` is missing"):
        adapters.load("pretreat-mets", params.model_copy(update={"cohort": {}})).validated()


@pytest.mark.parametrize("unit", ["days", "weeks", "months", "years"])
def test_survival_is_taken_only_with_its_unit(unit):
    table = pd.DataFrame({"Survival": ["1"], f"Overall survival ({unit})": ["2"]})
    assert mri.survival_days(table, Path("x")).tolist() == [2 * DAYS[unit]]
    with pytest.raises(BadInput, match="no column for survival time with its unit"):
        mri.survival_days(table[["Survival"]], Path("x"))


def test_a_time_that_is_no_number_stays_for_the_checks_to_name():
    assert mri.in_days(pd.Series(["3", "soon", None]), "weeks").iloc[1] == "soon"


def test_openbtai_reads_the_second_time_of_two_and_pads_ids(raw):
    openbtai_tree(raw / "openbtai")
    table = openbtai.clinical(raw / "openbtai").set_index("patient_id")
    assert table["overall_survival_days"].to_dict() == {"100101": 420, "001002": 90}
    assert table["death"].all()  # nobody is censored in this set
    assert table.loc["001002", ["age", "sex", "gpa"]].tolist() == [66, "male", 1]
    assert table["primary"].tolist() == ["nsclc", None]


def test_openbtai_with_one_time_column_is_refused(raw):
    openbtai_tree(raw / "openbtai")
    path = raw / "openbtai" / openbtai.TABLE
    rewrite(path, lambda table: table.iloc[:, :8], header=None)
    with pytest.raises(
        BadInput, match=r"Nov2023\.xlsx: 1 columns start with 'time', expected 2.*columns found: patientid"
    ):
        openbtai.clinical(raw / "openbtai")
    rewrite(path, lambda table: table.iloc[15:], header=None)
    with pytest.raises(BadInput, match=r"Nov2023\.xlsx: no header row that starts with 'Patient ID'"):
        openbtai.clinical(raw / "openbtai")


def test_openbtai_counts_lesions_in_its_labels(raw, params):
    labels = loaded("openbtai", raw, params).labels
    assert (labels[11], labels[12], labels[21], labels[102]) == ("enhancing", "necrosis", "enhancing", "necrosis")


def test_openbtai_time_points_are_numbers_or_refused(raw):
    openbtai_tree(raw / "openbtai")
    mask(raw / "openbtai" / "100101" / "NIFTI" / "100101_late_T1_msk.nii")
    with pytest.raises(BadInput, match=r"100101_late_T1_msk\.nii: expected PATIENT_TIMEPOINT"):
        openbtai.discover(raw / "openbtai")


def test_two_units_are_one_patient_whose_earlier_unit_is_baseline(raw):
    proteas_tree(raw / "proteas")
    images = proteas.discover(raw / "proteas")
    days = images[images["patient_id"] == "P07"].drop_duplicates("session").set_index("session")["day"]
    assert days.dropna().to_dict() == {"a-baseline": 10, "b-baseline": 0}
    assert set(days[days.isna()].index) == {"a-fu1", "b-fu1"}  # fu2 has no mask
    assert sorted(proteas.clinical(raw / "proteas")["patient_id"]) == ["P01", "P07"]
    assert proteas.LABELS == {1: "necrosis", 2: "enhancing", 3: "oedema"}


def test_a_case_without_a_row_is_counted_not_lost(raw, params):
    flow = loaded("brats2020", raw, params).flow
    assert [(step["excluded"], step["remaining"]) for step in flow] == [(0, 4), (1, 3)]


def test_a_follow_up_is_a_session_and_not_a_patient(raw):
    upenn_gbm_tree(raw / "upenn-gbm")
    table = upenn_gbm.clinical(raw / "upenn-gbm").set_index("patient_id")
    assert table["baseline_scan"].tolist() == [True, True, True, False]
    assert (table.loc["UPENN-GBM-00001", "age"], table.loc["UPENN-GBM-00001", "kps"]) == (65, 90)  # not those of _21
    assert table["idh"].tolist() == ["wildtype", None, "mutated", "mutated"]
    mask(raw / "upenn-gbm" / "images_segm" / "UPENN-GBM-00001_21_segm.nii.gz")
    images = upenn_gbm.discover(raw / "upenn-gbm")
    assert set(images[images["patient_id"] == "UPENN-GBM-00001"]["session"]) == {"11", "21"}
    assert images["session"].eq("21").sum() == 4 and images[images["session"] == "21"]["day"].isna().all()


def test_the_mask_of_an_expert_comes_before_the_automatic_one(raw):
    upenn_gbm_tree(raw / "upenn-gbm")
    paths_of = upenn_gbm.discover(raw / "upenn-gbm").groupby("patient_id")["mask_path"].first()
    assert "images_segm" in paths_of["UPENN-GBM-00002"] and "automated_segm" in paths_of["UPENN-GBM-00001"]


def test_ids_of_three_and_four_digits_meet_and_a_later_scan_keeps_its_day(raw):
    ucsf_pdgm_tree(raw / "ucsf-pdgm")
    table = ucsf_pdgm.clinical(raw / "ucsf-pdgm")
    images = ucsf_pdgm.discover(raw / "ucsf-pdgm")
    assert set(table["patient_id"]) == set(images["patient_id"])
    assert images.groupby("session")["day"].first().to_dict() == {"FU007d": 7, "baseline": 0}
    assert table["idh"].tolist() == ["wildtype", "mutated", "wildtype"]
    assert table["mgmt"].where(table["mgmt"].notna(), None).tolist() == ["unmethylated", None, "methylated"]
    (raw / "ucsf-pdgm" / "UCSF-PDGM-4b_nifti").mkdir()
    with pytest.raises(BadInput, match=r"UCSF-PDGM-4b.*expected one like UCSF-PDGM-004"):
        ucsf_pdgm.discover(raw / "ucsf-pdgm")


def test_rhuh_is_read_from_either_form_of_its_table(raw):
    rhuh_gbm_tree(raw / "rhuh-gbm")
    rhuh = module("rhuh-gbm")
    long = rhuh.clinical(raw / "rhuh-gbm")
    short = {names[0]: names[1] for names in rhuh.COLUMNS.values()}
    rewrite(raw / "rhuh-gbm" / rhuh.TABLE, lambda table: table.rename(columns=short))
    pd.testing.assert_frame_equal(rhuh.clinical(raw / "rhuh-gbm"), long)


# --- LUMIERE


def test_lumiere_visits_are_in_time_and_in_days(raw):
    lumiere_tree(raw / "lumiere")
    visits = lumiere.visits(raw / "lumiere")
    assert list(visits.columns) == ["patient_id", "session", "day", "shape_Sphericity"]
    assert visits["session"].tolist() == ["week-000-1", "week-000-2", "week-044", "week-000"]
    np.testing.assert_allclose(visits["day"], [0.7, 1.4, 308, 0])
    np.testing.assert_array_equal(visits["shape_Sphericity"], [0.44, 0.33, 0.55, NAN])  # R's NA


def test_lumiere_scans_without_a_row_are_counted(raw, params):
    assert [step["remaining"] for step in loaded("lumiere", raw, params).flow] == [3, 2]


def test_lumiere_without_events_is_refused_in_one_sentence(raw):
    lumiere_tree(raw / "lumiere")
    (raw / "lumiere" / lumiere.TABLE).rename(raw / "lumiere" / lumiere.DEMOGRAPHICS)
    with pytest.raises(
        BadInput, match=r"Demographics_Pathology\.csv tells survival but not who died.*LUMIERE_TD_FINAL"
    ):
        adapters.preflight("lumiere")


@pytest.mark.parametrize("stop", ["soon", "0.1", ""])
def test_a_row_that_is_no_interval_is_refused_with_its_patient(raw, stop):
    lumiere_tree(raw / "lumiere")
    rewrite(
        raw / "lumiere" / lumiere.TABLE,
        lambda table: table.assign(stop=table["stop"].replace(r"^89(\.0)?$", stop, regex=True)),
    )
    with pytest.raises(BadInput, match=r"TD_FINAL\.csv, patient Patient-001, week-044: from week 44.* is no interval"):
        lumiere.visits(raw / "lumiere")


def test_lumiere_without_images_has_no_row_of_images(raw):
    (raw / "lumiere").mkdir()
    assert lumiere.discover(raw / "lumiere").empty


def test_lumiere_without_images_may_be_studied_by_its_visits(raw, params):
    lumiere_tree(raw / "lumiere")
    for scans in [path for path in (raw / "lumiere").iterdir() if path.is_dir()]:
        rmtree(scans)
    adapters.preflight("lumiere")
    cohort = adapters.load("lumiere", params)
    assert cohort.images.empty and set(cohort.visits["patient_id"]) == set(cohort.participants["patient_id"])


def test_a_visit_whose_name_tells_no_week_is_refused():
    with pytest.raises(BadInput, match=r"visit 'week-later' found, expected a name like week-044"):
        lumiere.week_of("week-later")


REAL = Path(os.environ.get("SURVPACK_DATA", "/nonexistent")) / "lumiere"
real_lumiere = pytest.mark.skipif(not REAL.is_dir(), reason="SURVPACK_DATA has no folder lumiere")


@real_lumiere
def test_the_real_lumiere_has_its_published_counts():
    table, visits = lumiere.clinical(REAL), lumiere.visits(REAL)
    assert (len(table), int(table["death"].sum()), len(visits)) == (90, 86, 584)
    assert table["patient_id"].is_unique and (table["overall_survival_days"] > 0).all()
    assert set(visits["patient_id"]) == set(table["patient_id"])
    assert visits.drop(columns=["patient_id", "session"]).dtypes.eq(float).all() and visits.shape[1] == 3 + 32
    assert table["sex"].value_counts().to_dict() == {"male": 46, "female": 44}


@real_lumiere
def test_the_real_lumiere_counts_seven_days_a_week():
    raw_table = pd.read_csv(REAL / lumiere.TABLE)
    died = raw_table.dropna(subset="Survival").drop_duplicates("Patient").set_index("Patient")["Survival"]
    days = lumiere.clinical(REAL).set_index("patient_id")["overall_survival_days"]
    np.testing.assert_allclose(days[died.index], 7 * died)  # another column than the one that was read
    assert [lumiere.week_of(visit) for visit in raw_table["Timepoint"]] == raw_table["week"].tolist()
    np.testing.assert_allclose(lumiere.visits(REAL)["day"].sum(), 7 * raw_table["week"].sum())
