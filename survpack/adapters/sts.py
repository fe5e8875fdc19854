"""Soft-tissue sarcoma of the extremities: CT, T1 MRI and FDG-PET of 51 patients (DOI 10.7937/K9/TCIA.2015.7GO2GSKS).

`INFOclinical_STS.xlsx` ends with rows of notes, writes `--` for none, has en dashes in its column names
and lacks the grade of three patients. Treatment and outcome are known only after baseline.
Two layouts exist: full-size (`STS_001/CT/image/*.nii.gz`, perhaps under `nifti/`) and cropped
(`STS_001/CT_image.nii.gz`). Each series has its own grid and its own mask of the gross tumour.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.reading import coded, need
from survpack.cohort import IMAGES
from survpack.errors import BadInput

NAME = "sts"
TCIA = "https://doi.org/10.7937/K9/TCIA.2015.7GO2GSKS"
FOLDERS = ("sts",)
SITE = "McGill"
SOURCE = Source(
    title="Soft-tissue sarcoma (TCIA, IBSI validation set)",
    url="https://github.com/theibsi/data_sets",
    licence="CC BY 3.0",
    size="about 1 GB",
    patients=51,
    instructions=f"its folder ibsi_validation/nifti; INFOclinical_STS.xlsx, to put beside it, is at {TCIA}",
)
LABELS = {1: "tumour"}
TABLE = "INFOclinical_STS.xlsx"
SERIES = {"ct": "CT", "t1n": "MR_T1", "pt": "PET"}
OUTCOMES = {
    "overall-survival": ("overall_survival_days", "death"),
    "disease-free-survival": ("disease_free_days", "recurrence_or_death"),
}
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age at diagnosis"},
    "sex": {"kind": "categorical", "levels": ["female", "male"], "description": "Sex"},
    "grade": {"kind": "ordered", "levels": ["Low", "Intermediate", "High"], "description": "Tumour grade at biopsy"},
    "mskcc_type": {
        "kind": "categorical",
        "levels": ["Extraskeletal bone sarcoma", "Fibrosarcoma", "Leiomyosarcoma", "Liposarcoma", "MFH",
                   "Synovial sarcoma", "Other"],
        "description": "Histology, grouped as the Memorial Sloan-Kettering Cancer Center does",
    },
}  # fmt: skip

_MRI_DAY = "Time – diagnosis to MRI scan (days)"
_PET_GAP = "Time – MRI scan to PET scan (days)"
_RELAPSE = "Time – diagnosis to outcome (days)"
_STATUS = "Status (NED, AWD, D)"
_FOLLOW_UP = "Time – diagnosis to last follow-up (days)"


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: both outcomes and the baseline covariates.

    Disease-free survival ends with recurrence, metastasis or death, whichever comes first.
    """
    sheet = _sheet(root)
    relapse, follow_up = sheet[_RELAPSE].astype(float), sheet[_FOLLOW_UP].astype(float)
    dead = coded(sheet[_STATUS], {"NED": False, "AWD": False, "D": True}, Path(root) / TABLE)
    return pd.DataFrame({
        "patient_id": sheet["Patient ID"],
        "site": SITE,
        "overall_survival_days": follow_up,
        "death": dead,
        "disease_free_days": relapse.fillna(follow_up),
        "recurrence_or_death": dead.mask(relapse.notna(), True),
        "age": sheet["Age"].astype(float),
        "sex": sheet["Sex"].str.lower(),
        "grade": sheet["Grade"],
        "mskcc_type": sheet["MSKCC type"],
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """Three images a patient; days count from the diagnosis and are mostly negative for the MRI."""
    sheet = _sheet(root).set_index("Patient ID")
    mri = sheet[_MRI_DAY].astype(float)
    days = {"t1n": mri, "ct": mri + sheet[_PET_GAP].astype(float), "pt": mri + sheet[_PET_GAP].astype(float)}
    rows = []
    for folder in sorted([*Path(root).glob("STS_*"), *Path(root).glob("nifti/STS_*")]):
        for modality, series in SERIES.items():
            image, mask = _series(folder, series, "image"), _series(folder, series, "mask")
            if image:
                day = days[modality].get(folder.name, float("nan"))
                rows.append([folder.name, "baseline", day, modality, image, mask])
    return pd.DataFrame(rows, columns=IMAGES)


def _series(folder: Path, series: str, what: str) -> str:
    found = sorted([*folder.glob(f"{series}_{what}.nii*"), *folder.glob(f"{series}/{what}/*.nii*")])
    return str(found[0]) if found else ""


def _sheet(root: Path) -> pd.DataFrame:
    path = Path(root) / TABLE
    if not path.exists():
        raise BadInput(f"{path} not found: take it from {TCIA} and put it there.")
    sheet = pd.read_excel(path, na_values=["--", "N/A"])
    need(["Patient ID", "Age", "Sex", "Grade", "MSKCC type", _MRI_DAY, _PET_GAP, _RELAPSE, _STATUS, _FOLLOW_UP],
            sheet, path)  # fmt: skip
    patients = sheet["Patient ID"].astype(str).str.fullmatch(r"STS_\d+")  # the rest are notes
    return sheet[patients].reset_index(drop=True)
