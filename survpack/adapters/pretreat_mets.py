"""Pretreat-MetsToBrain-Masks: pre-treatment MRI of brain metastases, 200 patients (DOI 10.7937/6be1-r748).

Folders and the table's `BraTS_MET_ID` end with the time point (BraTS-MET-00086-000); the patient is what precedes it.
`Death` has blanks: unknown, not alive. Only these two columns of sheet `Data` were seen in print; the others are tried
by likely names, survival by a name that tells its unit; where none fits, or a code is new, the reading stops.
Skull-stripped, SRI24, 1 mm. The BraTS-METS challenge holds some of the same patients.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.mri import AGE, SEX, SEXES, images_table, nifti, session_rows, survival_days
from survpack.adapters.reading import coded, numbers, one_of, read_table

NAME = "pretreat-mets"
FOLDERS = ("pretreat-mets", "Pretreat-MetsToBrain-Masks")
SITE = "Yale"
TABLE = "Pretreat-MetsToBrain-Masks_clin_20230918.xlsx"
SOURCE = Source(
    title="Pretreat-MetsToBrain-Masks (TCIA)",
    url="https://doi.org/10.7937/6be1-r748",
    licence="CC BY 4.0",
    size="1000 volumes",
    patients=200,
    instructions=f"the images, a folder BraTS-MET-00086-000 and so on, and {TABLE} beside these folders",
)
LABELS = {1: "necrosis", 2: "oedema", 3: "enhancing"}
SEQUENCES = ("t1n", "t1c", "t2w", "t2f")
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
PRIMARIES = {
    "NSCLC": "nsclc", "lung": "nsclc", "non-small cell lung cancer": "nsclc", "SCLC": "sclc",
    "small cell lung cancer": "sclc", "melanoma": "melanoma", "breast": "breast", "breast cancer": "breast",
    "RCC": "renal", "renal": "renal", "renal cell carcinoma": "renal", "kidney": "renal", "GI": "gastrointestinal",
    "gastrointestinal": "gastrointestinal", "colorectal": "gastrointestinal", "other": "other", "others": "other",
}  # fmt: skip
YES = {1: "yes", 0: "no", "yes": "yes", "no": "no"}
COLUMNS = {
    "age": ("Age", "Age at MRI", "Age (years)", "Age_years"),
    "sex": ("Sex", "Gender"),
    "primary": ("Primary", "Primary cancer", "Primary Cancer", "Primary tumor", "Primary Tumor", "Primary_cancer"),
    "extranodal": ("Extranodal", "Extranodal disease", "Extranodal metastases", "Extranodal Metastases"),
    "lesions": ("Lesions", "Number of lesions", "Number of Lesions", "Lesion count", "Number of metastases"),
}
DICTIONARY = {
    "age": AGE,
    "sex": SEX,
    "primary": {
        "kind": "categorical",
        "levels": ["nsclc", "sclc", "melanoma", "breast", "renal", "gastrointestinal", "other"],
        "description": "Primary tumour",
    },
    "extranodal": {"kind": "categorical", "levels": ["no", "yes"], "description": "Extranodal metastases"},
    "lesions": {"kind": "numeric", "unit": "count", "description": "Brain metastases at baseline"},
}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: survival as the sheet counts it, and the baseline covariates."""
    path = Path(root) / TABLE
    table = read_table(path, sheet="Data", required=["BraTS_MET_ID", "Death"])
    table = table[table["BraTS_MET_ID"].notna()].reset_index(drop=True)
    said = pd.DataFrame({what: one_of(names, table, path, what) for what, names in COLUMNS.items()})
    return pd.DataFrame({
        "patient_id": table["BraTS_MET_ID"].map(_patient),
        "site": SITE,
        "overall_survival_days": survival_days(table, path),
        "death": coded(table["Death"], {1: True, 0: False, "yes": True, "no": False}, path),
        "age": numbers(said["age"]),
        "sex": coded(said["sex"], SEXES, path),
        "primary": coded(said["primary"], PRIMARIES, path),
        "extranodal": coded(said["extranodal"], YES, path),
        "lesions": numbers(said["lesions"]),
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One row a sequence; time point 000 is baseline, how long after it another follows is not told."""
    rows = []
    for folder in sorted(Path(root).glob("BraTS-MET-*")):
        session = folder.name.removeprefix(_patient(folder.name)).lstrip("-") or "000"
        stems = {modality: folder / f"{folder.name}-{modality}" for modality in SEQUENCES}
        day = 0.0 if session == "000" else float("nan")
        rows += session_rows(_patient(folder.name), session, day, stems, nifti(folder / f"{folder.name}-seg"))
    return images_table(rows, root, "BraTS-MET-00086-000/BraTS-MET-00086-000-t1c.nii.gz")


def _patient(case: str) -> str:
    """BraTS-MET-00086 of BraTS-MET-00086-000."""
    return "-".join(case.split("-")[:3])
