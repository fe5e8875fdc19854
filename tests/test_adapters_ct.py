"""CT data sets: each on a miniature tree that carries its traps; and the catalogue of all of them."""

import json
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from miniature import mask, scan

from survpack import adapters, paths
from survpack.adapters import colorectal_liver, hn1, kits23, nsclc_radiogenomics, radcure
from survpack.adapters.catalogue import catalogue, markdown, refreshed
from survpack.errors import BadInput
from survpack.params import Params, load

RULES = {"outcome known": "time_days > 0", "segmented": "segmented"}


@pytest.fixture
def params() -> Params:
    return load()


# --- the miniature trees: converted DICOM sets, one patient of each without a mask


def converted(root: Path, *ids: str, bare: str = "") -> Path:
    for patient in ids:
        scan(root / f"sub-{patient}" / f"sub-{patient}_ct.nii.gz")
        if patient != bare:
            mask(root / f"sub-{patient}" / f"sub-{patient}_dseg.nii.gz")
    return root


def nsclc_radiomics_tree(root: Path) -> Path:
    (converted(root, "LUNG1001", "LUNG1002", "LUNG1128", bare="LUNG1128") / module("nsclc-radiomics").TABLE).write_text(
        "PatientID,age,clinical.T.Stage,Clinical.N.Stage,Clinical.M.Stage,Overall.Stage,Histology,gender,"
        "Survival.time,deadstatus.event\n"
        "LUNG1-001,78.7515,2,3,0,IIIb,large cell,male,2165,1\n"
        "LUNG1-002,83.8001,5,4,0,IIIa,Squamous Cell Carcinoma,female,155,0\n"
        "LUNG1-128,NA,3,0,0,NA,NA,male,600,1\n"
    )
    return root


def nsclc_radiogenomics_tree(root: Path) -> Path:
    converted(root, "AMC001", "R01001", "R01002", "R01003", bare="AMC001")
    scan(root / "sub-R01001" / "sub-R01001_pet.nii.gz", shape=(3, 3, 3))  # PET/CT has no segmentation
    (root / nsclc_radiogenomics.TABLE).write_text(
        "Case ID,Patient affiliation,Age at Histological Diagnosis,Weight (lbs),Gender,Smoking status,Pack Years,"
        "Histology ,Survival Status,Date of Death,Date of Last Known Alive,Time to Death (days),CT Date\n"
        "R01-001,Stanford,64,145,Male,Former,30,Adenocarcinoma,Dead,3/11/1995,3/1/1995,77,12/31/1993\n"
        "R01-002,VA,70,Not Collected,Male,Nonsmoker,Not Collected,Adenocarcinoma,Alive,,1/11/1994,,1/1/1994\n"
        "R01-003,VA,70,200,Male,Current,40,Squamous,Dead,,2/1/1994,1200,1/1/94\n"
        "AMC-001,Stanford,34,Not Collected,Female,Nonsmoker,,Adenocarcinoma,Alive,,1/1/1996,,1/1/1995\n"
    )
    return root


def hecktor2022_tree(root: Path) -> Path:
    for patient, label in (("CHUM-001", "CHUM_001"), ("MDA-002", "MDA-002"), ("MDA-003", "MDA-003")):
        scan(root / "imagesTr" / f"{patient}__CT.nii.gz")
        scan(root / "imagesTr" / f"{patient}__PT.nii.gz", shape=(3, 3, 3))
        mask(root / "labelsTr" / f"{label}.nii.gz", labels=(1, 2))
    (root / "hecktor2022_clinical_info_training.csv").write_text(
        "PatientID,Task 1,Task 2,CenterID,Gender,Age,Weight,Tobacco,Alcohol,Performance status,"
        '"HPV status (0=-, 1=+)",Surgery,Chemotherapy\n'
        "CHUM-001,1,1,2,M,61,80.5,1.0,,1.0,1.0,0.0,1\nMDA-002,1,1,5,F,55,,,,,,0.0,0\nMDA-003,1,0,5,F,70,,,,,0.0,,1\n"
    )
    (root / "hecktor2022_endpoint_training.csv").write_text(
        "PatientID,Task 1,Task 2,CenterID,Relapse,RFS\nCHUM_001,1,1,2,1,300\nMDA-002,1,1,5,0,1704\n"
    )
    return root


def hecktor2025_tree(root: Path) -> Path:
    for patient in ("CHUM-001", "MDA-002", "USZ-003"):
        scan(root / "Task 2" / patient / f"{patient}__CT.nii.gz")
        for other in ("PT", "CTPlanning", "RTDOSE"):
            scan(root / "Task 2" / patient / f"{patient}__{other}.nii.gz", shape=(3, 3, 3))
        if patient != "USZ-003":
            scan(root / "Task 1" / patient / f"{patient}__CT.nii.gz")
            mask(root / "Task 1" / patient / f"{patient}.nii.gz", labels=(1, 2))
    (root / "Task 2" / "HECKTOR_2025_Training_Task_2.csv").write_text(
        "PatientID,CenterID,Gender,Age,Tobacco Consumption,Alcohol Consumption,Performance Status,Treatment,M-stage,"
        "Relapse,RFS\nCHUM-001,1,M,61,1,,1,1,M0,1,300\nMDA-002,5,F,55,,,,0,Mx,0,1704\nUSZ-003,8,F,70,,,,1,M1,0,900\n"
    )
    return root


def radcure_tree(root: Path) -> Path:
    converted(root, "RADCURE0005", "RADCURE0006", "RADCURE0007", bare="RADCURE0007")
    columns = ["patient_id", "Age", "Sex", "ECOG PS", "Smoking PY", "Smoking Status", "Ds Site", "T", "N", "M ", "HPV",
               "Path", "Length FU", "Status", "RADCURE-challenge"]  # fmt: skip
    rows = [
        ["RADCURE-0005", 62.6, "Female", "ECOG-Pt 0", ">50", "Ex-smoker", "Oropharynx", "T4b", "N2c", "M0",
         "Yes, positive", "Squamous Cell Carcinoma", 2.0, "Dead", "training"],
        ["RADCURE-0006", 87.3, "Male", "ECOG 0-1", 25, "unknown", "esophagus", "T1 (2)", "NX", "M0", None, "Other",
         4.5, "Alive", "0"],
        ["RADCURE-0007", 49.0, "Male", "ECOG 2", "na", "Current", None, "TX", "N0", "MX", "Yes, Negative", "Other",
         1.0, "Alive", "test"],
    ]  # fmt: skip
    pd.DataFrame(rows, columns=columns).to_excel(root / radcure.TABLE, index=False)
    return root


def hn1_tree(root: Path) -> Path:
    converted(root, "HN1004", "HN1006", "HN1022", bare="HN1022")
    (root / hn1.TABLE).write_text(
        "id,index_tumour_location,age_at_diagnosis,biological_sex,performance_status_ecog,overall_hpv_p16_status,"
        "clin_t,clin_n,clin_m,ajcc_stage,cancer_surgery_performed,chemotherapy_given,event_overall_survival,"
        "overall_survival_in_days\nHN1004,oropharynx,59,male,1,positive,4,2,0,iva,no,none,1,192\n"
        "HN1006,larynx,68,female,,,1b,0,0,i,no,none,0,2418\nHN1022,larynx,50,male,0,negative,2,0,0,ii,no,none,0,4000\n"
    )
    return root


def kits23_tree(root: Path) -> Path:
    cases = []
    for number, case in enumerate(["case_00000", "case_00001", "case_00588"]):
        mask(root / "dataset" / case / "segmentation.nii.gz", labels=(1, 2, 3))
        cases.append({
            "case_id": case, "age_at_nephrectomy": 60, "gender": ["male", "transgender_male_to_female"][number == 1],
            "bmi": 30.5, "comorbidities": {"copd": True, "dementia": None}, "malignant": [True, None, False][number],
            "smoking_history": ["never_smoked", "not_found_in_emr", "current_smoker"][number],
            "radiographic_size": [2.4, None, 3.0][number], "tumor_isup_grade": "3",
            "last_preop_egfr": {"value": None, "days_before_nephrectomy": None},
            "vital_status": ["dead", "censored"][number > 0], "vital_days_after_surgery": [1958, 30, 0][number],
        })  # fmt: skip
    (root / "dataset" / "kits23.json").write_text(json.dumps(cases))
    return root


def colorectal_liver_tree(root: Path) -> Path:
    converted(root, "CRLMCT1001", "CRLMCT1002", "CRLMCT1003", bare="CRLMCT1003")
    columns = ["Patient-ID", "overall_survival_months", "vital_status", "age", "sex", "body_mass_index",
               "clinrisk_score", "carcinoembryonic_antigen", "major_comorbidity", "node_positive_primary",
               "synchronous_crlm", "multiple_metastases", "bilobar_disease", "chemo_before_liver_resection",
               "necrosis_percent"]  # fmt: skip
    rows = [
        ["CRLM-CT-1001", 24.0, 1, 62, 1, 27.5, 3, 12.5, 0, 1, 1, 1, 0, 1, 40],
        ["CRLM-CT-1002", 60.5, 0, 55, 2, 999, 999, 999, 0, 999, 1, 1, 0, 1, 999],
        ["CRLM-CT-1003", 12.0, 0, 55, 2, 20, 1, 999, 0, 0, 1, 1, 0, 1, 999],
    ]
    with pd.ExcelWriter(root / colorectal_liver.TABLE) as book:
        pd.DataFrame({"notes": ["not the table"]}).to_excel(book, sheet_name="Dictionary", index=False)
        pd.DataFrame(rows, columns=columns).to_excel(book, sheet_name="TCIA_n=197", index=False)
    return root


def module(name: str) -> ModuleType:
    return import_module(f"survpack.adapters.{name.replace('-', '_')}")


MINIATURES = {
    "nsclc-radiomics": nsclc_radiomics_tree,
    "nsclc-radiogenomics": nsclc_radiogenomics_tree,
    "hecktor2022": hecktor2022_tree,
    "hecktor2025": hecktor2025_tree,
    "radcure": radcure_tree,
    "hn1": hn1_tree,
    "kits23": kits23_tree,
    "colorectal-liver": colorectal_liver_tree,
}
FROM_DICOM = ["nsclc-radiomics", "nsclc-radiogenomics", "radcure", "hn1", "colorectal-liver"]


def planted(name: str) -> Path:
    """The miniature of `name`, in the folder that the instructions recommend."""
    return MINIATURES[name](paths.RAW / module(name).FOLDERS[0])


def studied(params: Params, name: str, rules: dict) -> adapters.Cohort:
    planted(name)
    return adapters.load(name, params.model_copy(update={"cohort": {name: {"selection": rules}}}))


def rules_of(name: str) -> dict:
    return RULES if name != "kits23" else {"outcome known": "time_days > 0"}


def charted(name: str) -> pd.DataFrame:
    return module(name).clinical(planted(name)).set_index("patient_id")


# --- what holds for all


EXPECTED = {  # patients, days and events after selection, as written above by hand
    "nsclc-radiomics": (["sub-LUNG1001", "sub-LUNG1002"], [2165, 155], [True, False]),
    "nsclc-radiogenomics": (["sub-R01001", "sub-R01002"], [435, 10], [True, False]),
    "hecktor2022": (["CHUM-001", "MDA-002"], [300, 1704], [True, False]),
    "hecktor2025": (["CHUM-001", "MDA-002"], [300, 1704], [True, False]),
    "radcure": (["sub-RADCURE0005", "sub-RADCURE0006"], [730.5, 1643.625], [True, False]),
    "hn1": (["sub-HN1004", "sub-HN1006"], [192, 2418], [True, False]),
    "kits23": (["case_00000", "case_00001"], [1958, 30], [True, False]),
    "colorectal-liver": (["sub-CRLMCT1001", "sub-CRLMCT1002"], [730.5, 1841.46875], [True, False]),
}


@pytest.mark.parametrize("name", MINIATURES)
def test_a_tree_with_the_sets_traps_is_a_cohort_without_findings(raw, params, name):
    cohort = studied(params, name, rules_of(name))
    patients, days, events = EXPECTED[name]
    assert cohort.participants["patient_id"].tolist() == patients
    assert cohort.participants["time_days"].tolist() == pytest.approx(days)
    assert cohort.participants["event"].tolist() == events
    assert [str(finding) for finding in cohort.check() if finding.severity == "error"] == []
    assert cohort.modalities == (["mask"] if name == "kits23" else ["ct"])  # PET, where there is one, has no mask
    assert not set(cohort.dictionary) & {"segmented", *(c for pair in module(name).OUTCOMES.values() for c in pair)}


@pytest.mark.parametrize("name", [name for name in MINIATURES if name not in ("hecktor2022", "kits23")])
def test_a_patient_without_segmentation_is_refused_by_name_until_a_rule_leaves_them_out(raw, params, name):
    everyone = studied(params, name, {})
    images = everyone.images
    bare = set(everyone.participants["patient_id"]) - set(images.loc[images["mask_path"] != "", "patient_id"])
    assert len(bare) == 1
    assert any(bare <= set(finding.patients) for finding in everyone.check() if "no mask" in finding.found)
    assert bare.isdisjoint(studied(params, name, RULES).participants["patient_id"])


@pytest.mark.parametrize("name", FROM_DICOM)
def test_dicom_laid_there_unconverted_is_answered_with_the_command(raw, params, name):
    root = paths.RAW / module(name).FOLDERS[0]
    (root / "P1" / "study").mkdir(parents=True)
    (root / "P1" / "study" / "1-01.dcm").touch()
    with pytest.raises(BadInput, match=rf"DICOM files, expected.*survpack dicom DOWNLOAD data/raw/{name} --keep-ids"):
        adapters.preflight(name)
    assert "--tumour" in module(name).SOURCE.instructions


@pytest.mark.parametrize("name", MINIATURES)
def test_a_missing_table_is_named_with_its_place(raw, name):
    root = planted(name)
    next(root.rglob(Path(module(name).TABLE).name)).unlink()
    with pytest.raises(BadInput, match=rf"{re.escape(Path(module(name).TABLE).name)} not found"):
        adapters.preflight(name)


BROKEN = {  # file, what stands there, what comes instead; what must be told
    "nsclc-radiomics": ("deadstatus.event", "dead", r"Oct-2019\.csv: no column deadstatus\.event;.*dead"),
    "nsclc-radiogenomics": ("12/31/1993", "31.12.1993", r"shifted\.csv: CT Date is '31\.12\.1993' in row 1.*month/day"),
    "hecktor2022": ("M,61", "X,61", r"info_training\.csv: Gender is 'x' for row 1, expected one of M, F; correct"),
    "hecktor2025": (",M0,", ",M9,", r"Task_2\.csv: M-stage is 'm9' for row 1, expected one of M0, M1, Mx; correct"),
    "hn1": ("192", "192", r"table; keep one there"),
    "kits23": ('"bmi"', '"body_mass_index"', r"kits23\.json: no column bmi; add or rename it.*body_mass_index"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_flaw_in_a_table_is_told_in_a_sentence_with_file_and_remedy(raw, name):
    root = planted(name)
    old, new, message = BROKEN[name]
    table = next(root.rglob(Path(module(name).TABLE).name))
    table.write_text(table.read_text().replace(old, new))
    if name == "hn1":
        (root / "hn1_clinical.csv").write_text(table.read_text())
    with pytest.raises(BadInput, match=message):
        adapters.preflight(name)


@pytest.mark.parametrize(
    ("name", "column", "value", "message"),
    [
        ("radcure", "Status", "Lost", r"v04_20241219\.xlsx: Status is 'lost' for row 1, expected one of Dead, Alive"),
        ("radcure", "T", "T9", r"v04_20241219\.xlsx: T is 't9' for row 1"),
        ("colorectal-liver", "vital_status", "2", r"April-2023\.xlsx: vital_status is '2' for row 1"),
    ],
)
def test_a_code_nobody_knows_is_told_not_guessed(raw, name, column, value, message):
    root = planted(name)
    path = root / module(name).TABLE
    sheet = getattr(module(name), "SHEET", 0)
    table = pd.read_excel(path, sheet_name=sheet, dtype=object)
    table.loc[0, column] = value
    table.to_excel(path, sheet_name=sheet or "Sheet1", index=False)
    with pytest.raises(BadInput, match=message):
        adapters.preflight(name)


def test_a_scan_that_no_row_knows_is_refused(raw, params):
    root = planted("radcure")
    converted(root, "RADCURE5")  # the id, four digits wide in the table, cut to one
    with pytest.raises(BadInput, match=r"images of sub-RADCURE5, but no such row.*sub-RADCURE0005"):
        adapters.load("radcure", params)


# --- the traps of each


def test_codes_outside_tnm_are_missing_and_spelling_does_not_matter(raw):
    table = charted("nsclc-radiomics")
    assert table["t_stage"].tolist()[:2] == ["2", None] and table["n_stage"].tolist()[:2] == ["3", None]
    assert table["histology"].tolist()[:2] == ["large cell", "squamous cell carcinoma"]
    assert table.loc["sub-LUNG1128", ["age", "stage", "histology"]].isna().all()


def test_dates_become_days_from_the_ct_and_a_death_without_date_is_unknown(raw):
    table = charted("nsclc-radiogenomics")
    assert table["overall_survival_days"].to_dict() == pytest.approx(
        {"sub-R01001": 435, "sub-R01002": 10, "sub-R01003": np.nan, "sub-AMC001": 365}, nan_ok=True
    )  # R01-003 has `Time to Death (days)` alone: from which day, the table does not say
    assert table["site"].tolist() == ["Stanford", "VA", "VA", "Stanford"]
    path = adapters.find_raw("nsclc-radiogenomics") / nsclc_radiogenomics.TABLE
    path.write_text(path.read_text().replace("R01-002,VA", "R01-002,"))
    assert nsclc_radiogenomics.clinical(path.parent)["site"].tolist() == ["Stanford", "not told", "VA", "Stanford"]
    assert np.isnan(table.loc["sub-R01002", "weight"]) and table.loc["sub-R01001", "weight"] == 145


def test_no_endpoint_is_an_unknown_outcome_not_a_long_survival(raw):
    table = charted("hecktor2022")
    assert table.loc["MDA-003", ["recurrence_free_days", "recurrence"]].isna().all()
    assert table["site"].tolist() == ["CHUM", "MDA", "MDA"]
    assert table["hpv"].tolist()[0] == "positive" and table["hpv"].isna().tolist() == [False, True, False]


def test_a_metastasis_that_was_not_assessed_is_missing(raw):
    assert charted("hecktor2025")["m_stage"].tolist() == ["M0", None, "M1"]


def test_radcure_bounds_and_doubtful_codes_are_missing_and_sites_are_spelt_alike(raw):
    table = charted("radcure")
    np.testing.assert_array_equal(table["pack_years"], [np.nan, 25, np.nan])
    assert table["performance_status"].tolist() == ["0", None, "2"]
    assert table["t_stage"].tolist() == ["T4", None, None] and table["n_stage"].tolist() == ["N2", None, "N0"]
    assert table["location"].tolist()[:2] == ["oropharynx", "other"] and table["location"].isna().iloc[2]
    assert table["smoking"].isna().tolist() == [False, True, False]


def test_the_published_split_of_radcure_may_select(raw, params):
    cohort = studied(params, "radcure", {"published test set": 'radcure_challenge == "test"'})
    assert cohort.participants["patient_id"].tolist() == ["sub-RADCURE0007"]


def test_hn1_is_read_whatever_its_table_is_called(raw):
    root = planted("hn1")
    (root / hn1.TABLE).rename(root / "hn1_clinical_data_updated_july_2020.csv")
    table = hn1.clinical(root)
    assert table["t_stage"].tolist() == ["4", "1", "2"] and table["hpv"].isna().tolist() == [False, True, False]


def test_kits23_is_read_with_and_without_its_folder_and_knows_cysts(raw):
    root = planted("kits23")
    table = kits23.clinical(root)
    pd.testing.assert_frame_equal(table, kits23.clinical(root / "dataset"))
    assert table["smoking"].isna().tolist() == table["sex"].isna().tolist() == [False, True, False]
    assert table["comorbidities"].tolist() == [1, 1, 1] and table["malignant"].isna().tolist() == [False, True, False]
    assert kits23.LABELS[3] == "cyst" and len(kits23.discover(root)) == 3


def test_999_is_missing_wherever_it_stands(raw):
    table = charted("colorectal-liver").loc["sub-CRLMCT1002"]
    assert table[["bmi", "clinical_risk_score", "cea", "node_positive"]].isna().all()
    assert table["age"] == 55 and table["sex"] == "2"


def test_what_is_known_after_the_scan_predicts_nothing():
    later = ("surgery", "necrosis", "fibrosis", "response", "dose", "isup", "patholog", "treatment", "malignant")
    for name in MINIATURES:
        assert not [column for column in module(name).DICTIONARY if any(word in column for word in later)]
        assert "chemotherapy" not in module(name).DICTIONARY


# --- the catalogue


def test_sets_that_share_patients_say_so_of_each_other():
    for name in adapters.ADAPTERS:
        for other in adapters.source(name).overlaps:
            assert name in adapters.source(other).overlaps


def test_the_catalogue_tells_of_every_set_where_it_is_or_how_to_get_it(raw):
    planted("kits23")
    lines = catalogue()
    assert max(map(len, lines)) <= 100
    for name in FROM_DICOM:  # a command can be copied
        assert any(f"dicom DOWNLOAD data/raw/{name} --keep-ids --tumour '{module(name).TUMOUR}'`" in s for s in lines)
    text = " ".join(" ".join(lines).split())
    for name in adapters.names():
        assert any(line.startswith(f"{name} ") for line in lines)
        source = adapters.source(name)
        if name in adapters.ADAPTERS and name != "kits23":
            for told in (source.title, source.licence, source.size, source.url, source.instructions):
                assert " ".join(told.split()) in text
    assert f"present: {raw / 'kits23'}" in text and kits23.SOURCE.url not in text
    assert lines[-1].startswith(f"{len(adapters.ADAPTERS)} public data sets, 1 of them present")


def test_the_table_in_the_readme_is_what_the_adapters_say():
    readme = (paths.ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert refreshed(readme) == readme, "run: python -m survpack.adapters.catalogue"
    assert [row for row in markdown().splitlines() if len(re.findall(r"(?<!\\)\|", row)) != 7] == []


def test_a_readme_without_markers_is_not_overwritten():
    with pytest.raises(BadInput, match=r"no table between"):
        refreshed("# Data\n")
