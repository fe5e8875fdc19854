"""HECKTOR 2022: FDG-PET/CT of head and neck cancer, 524 training patients, seven centres (hecktor.grand-challenge.org).

Images are `CHUM-001__CT.nii.gz`, labels and ids may also read `CHUM_001`; the prefix is the centre.
Labels lie on the grid of the CT. PET has its own grid and no label on it, so only the CT is read.
Recurrence-free survival counts from the end of radiotherapy and is told only for those who responded completely
(489): the rest need the rule `time_days > 0`. Surgery and chemotherapy come after the scan.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.reading import coded, numbers, read_table
from survpack.cohort import IMAGES

NAME = "hecktor2022"
FOLDERS = (NAME, "hecktor2022_training")
SITE = "the centre named in the patient's id"
TABLE = "hecktor2022_clinical_info_training.csv"
ENDPOINTS = "hecktor2022_endpoint_training.csv"
SOURCE = Source(
    title="Head and neck cancer, PET/CT (HECKTOR 2022)",
    url="https://hecktor.grand-challenge.org/Data/",
    licence="the challenge's data agreement",
    size="tens of GB",
    patients=524,
    instructions=f"hecktor2022_training, after signing: imagesTr, labelsTr, {TABLE} and {ENDPOINTS} side by side",
    overlaps=("hecktor2025",),
)
LABELS = {1: "tumour", 2: "nodes"}
OUTCOMES = {"recurrence-free-survival": ("recurrence_free_days", "recurrence")}
YES = {"0": "no", "1": "yes"}
ZUBROD = {str(grade): str(grade) for grade in range(5)}
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age"},
    "sex": {"kind": "categorical", "levels": ["female", "male"], "description": "Sex"},
    "weight": {"kind": "numeric", "unit": "kg", "description": "Body weight"},
    "tobacco": {"kind": "categorical", "levels": ["no", "yes"], "description": "Tobacco consumption"},
    "alcohol": {"kind": "categorical", "levels": ["no", "yes"], "description": "Alcohol consumption"},
    "performance_status": {"kind": "ordered", "levels": list(ZUBROD), "description": "Zubrod performance status"},
    "hpv": {"kind": "categorical", "levels": ["negative", "positive"], "description": "Human papillomavirus"},
}

_HPV = "HPV status (0=-, 1=+)"


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: recurrence-free survival, baseline covariates, and three columns for selection only."""
    path, endpoints = Path(root) / TABLE, Path(root) / ENDPOINTS
    table = read_table(path, required=["PatientID", "Gender", "Age", "Weight", "Tobacco", "Alcohol",
                                       "Performance status", _HPV, "Surgery", "Chemotherapy"])  # fmt: skip
    ends = read_table(endpoints, required=["PatientID", "Relapse", "RFS"])[["PatientID", "Relapse", "RFS"]]
    table = table.assign(PatientID=hyphened(table["PatientID"]))
    table = table.merge(ends.assign(PatientID=hyphened(ends["PatientID"])), on="PatientID", how="outer")
    return pd.DataFrame({
        "patient_id": table["PatientID"],
        "site": table["PatientID"].str.split("-").str[0],
        "recurrence_free_days": numbers(table["RFS"]),
        "recurrence": coded(table["Relapse"], {"1": True, "0": False}, endpoints),
        "age": numbers(table["Age"]),
        "sex": coded(table["Gender"], {"M": "male", "F": "female"}, path),
        "weight": numbers(table["Weight"]),
        "tobacco": coded(table["Tobacco"], YES, path),
        "alcohol": coded(table["Alcohol"], YES, path),
        "performance_status": coded(table["Performance status"], ZUBROD, path),
        "hpv": coded(table[_HPV], {"0": "negative", "1": "positive"}, path),
        "surgery": coded(table["Surgery"], YES, path),  # for selection only
        "chemotherapy": coded(table["Chemotherapy"], YES, path),  # for selection only
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One CT a patient; the PET/CT's day before the end of radiotherapy is not told."""
    return scans(Path(root).glob("imagesTr/*__CT.nii.gz"), Path(root).glob("labelsTr/*.nii.gz"))


def scans(images, labels) -> pd.DataFrame:
    """Rows of images, each with the label of its patient, however the id is written."""
    labels = {_patient(path): str(path) for path in labels}
    rows = [[_patient(path), "baseline", 0.0, "ct", str(path), labels.get(_patient(path), "")] for path in images]
    return pd.DataFrame(sorted(rows), columns=IMAGES)


def hyphened(column: pd.Series) -> pd.Series:
    """`CHUM_001` is `CHUM-001`."""
    return column.str.replace("_", "-")


def _patient(path: Path) -> str:
    return path.name.removesuffix(".nii.gz").removesuffix("__CT").replace("_", "-")
