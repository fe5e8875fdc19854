"""NSCLC-Radiomics (Lung1): planning CT of 422 patients with lung cancer (DOI 10.7937/K9/TCIA.2015.PF0M9REI).

DICOM with an RTSTRUCT whose region GTV-1 is the primary tumour; read here as converted to BIDS, where
LUNG1-001 is sub-LUNG1001. LUNG1-128 has no GTV: the rule `segmented` leaves it out.
T 5, N 4 and M 3 stand in the table but are no TNM category, and are read as missing.
Column names mix their case (`clinical.T.Stage`, `Clinical.N.Stage`); survival counts in days.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.layout import conversion, converted
from survpack.adapters.reading import bids_id, coded, numbers, read_table

NAME = "nsclc-radiomics"
FOLDERS = (NAME, "Lung1", "NSCLC-Radiomics")
SITE = "MAASTRO"
TABLE = "NSCLC-Radiomics-Lung1.clinical-version3-Oct-2019.csv"
TUMOUR = "GTV-1"
SOURCE = Source(
    title="Lung cancer, radiotherapy planning CT (NSCLC-Radiomics, Lung1)",
    url="https://doi.org/10.7937/K9/TCIA.2015.PF0M9REI",
    licence="CC BY-NC 3.0",
    size="34 GB",
    patients=422,
    instructions=f"its CT and RTSTRUCT with the NBIA Data Retriever; then `{conversion(NAME, TUMOUR)}`, and put "
    f"{TABLE} beside",
)
LABELS = {1: "tumour"}
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age"},
    "sex": {"kind": "categorical", "levels": ["female", "male"], "description": "Sex"},
    "t_stage": {"kind": "ordered", "levels": ["1", "2", "3", "4"], "description": "Clinical T"},
    "n_stage": {"kind": "ordered", "levels": ["0", "1", "2", "3"], "description": "Clinical N"},
    "stage": {"kind": "ordered", "levels": ["I", "II", "IIIa", "IIIb"], "description": "Overall stage"},
    "histology": {
        "kind": "categorical",
        "levels": ["adenocarcinoma", "large cell", "squamous cell carcinoma", "nos"],
        "description": "Histology at biopsy",
    },
}

_T = {"1": "1", "2": "2", "3": "3", "4": "4", "5": None}
_N = {"0": "0", "1": "1", "2": "2", "3": "3", "4": None}
_ALIKE = {level: level for level in [*DICTIONARY["stage"]["levels"], *DICTIONARY["histology"]["levels"]]}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: overall survival, and baseline covariates."""
    path = Path(root) / TABLE
    table = read_table(path, required=["PatientID", "age", "gender", "clinical.T.Stage", "Clinical.N.Stage",
                                       "Overall.Stage", "Histology", "Survival.time", "deadstatus.event"])  # fmt: skip
    patients = bids_id(table["PatientID"])
    return pd.DataFrame({
        "patient_id": patients,
        "site": SITE,
        "overall_survival_days": numbers(table["Survival.time"]),
        "death": coded(table["deadstatus.event"], {"1": True, "0": False}, path),
        "age": numbers(table["age"]),
        "sex": coded(table["gender"], {"male": "male", "female": "female"}, path),
        "t_stage": coded(table["clinical.T.Stage"], _T, path),
        "n_stage": coded(table["Clinical.N.Stage"], _N, path),
        "stage": coded(table["Overall.Stage"], _ALIKE, path),
        "histology": coded(table["Histology"], _ALIKE, path),
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One CT a patient, of the converted set."""
    return converted(root, NAME, TUMOUR)
