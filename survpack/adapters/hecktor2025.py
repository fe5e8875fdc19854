"""HECKTOR 2025: FDG-PET/CT of head and neck cancer, ten centres (hecktor25.grand-challenge.org; arXiv 2509.00367).

Survival is in `Task 2`, the labels are in `Task 1` (`Task 1/CHUM-001/CHUM-001.nii.gz`): both are needed.
Whoever is not in Task 1 has no label: the rule `segmented` leaves them out. Labels lie on the grid of the CT; some
of CHUP are a row larger (github.com/BioMedIA-MBZUAI/HECKTOR2025, issue 4), which the check names.
PET, planning CT and dose have other grids and no label, and are not read. Treatment comes after the scan.
Patients of HECKTOR 2022 are among these.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.hecktor2022 import DICTIONARY as DICTIONARY_2022
from survpack.adapters.hecktor2022 import LABELS, OUTCOMES, SITE, YES, ZUBROD, hyphened, scans
from survpack.adapters.reading import coded, numbers, read_table

__all__ = ["LABELS", "OUTCOMES", "SITE"]

NAME = "hecktor2025"
FOLDERS = (NAME, "hecktor2025_training")
TABLE = "Task 2/HECKTOR_2025_Training_Task_2.csv"
SOURCE = Source(
    title="Head and neck cancer, PET/CT (HECKTOR 2025)",
    url="https://hecktor25.grand-challenge.org/dataset/",
    licence="the challenge's data agreement",
    size="tens of GB",
    patients=1123,
    instructions="its training data, after signing: the folders `Task 1` (labels) and `Task 2` (survival) side by "
    "side; fewer patients than the whole set has",
    overlaps=("hecktor2022",),
)
DICTIONARY = {name: DICTIONARY_2022[name] for name in ("age", "sex", "tobacco", "alcohol", "performance_status")}
DICTIONARY |= {"m_stage": {"kind": "ordered", "levels": ["M0", "M1"], "description": "Distant metastasis"}}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: recurrence-free survival, baseline covariates, and two columns for selection only."""
    path = Path(root) / TABLE
    table = read_table(path, required=["PatientID", "Gender", "Age", "Tobacco Consumption", "Alcohol Consumption",
                                       "Performance Status", "M-stage", "Treatment", "Relapse", "RFS"])  # fmt: skip
    patients = hyphened(table["PatientID"])
    return pd.DataFrame({
        "patient_id": patients,
        "site": patients.str.split("-").str[0],
        "recurrence_free_days": numbers(table["RFS"]),
        "recurrence": coded(table["Relapse"], {"1": True, "0": False}, path),
        "age": numbers(table["Age"]),
        "sex": coded(table["Gender"], {"M": "male", "F": "female"}, path),
        "tobacco": coded(table["Tobacco Consumption"], YES, path),
        "alcohol": coded(table["Alcohol Consumption"], YES, path),
        "performance_status": coded(table["Performance Status"], ZUBROD, path),
        "m_stage": coded(table["M-stage"], {"M0": "M0", "M1": "M1", "Mx": None}, path),
        "treatment": table["Treatment"],  # for selection only
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One CT a patient of Task 2, with its label from Task 1."""
    labels = [path for path in Path(root).glob("Task 1/*/*.nii.gz") if "__" not in path.name]
    return scans(Path(root).glob("Task 2/*/*__CT.nii.gz"), labels)
