"""Colorectal-Liver-Metastases: CT before liver resection, 197 patients (DOI 10.7937/QXK2-QG03; Sci Data 2024 11:172).

DICOM CT with a SEG of liver, remnant, vessels and `Tumor_1`, `Tumor_2`, …, read here as converted to BIDS:
CRLM-CT-1001 is sub-CRLMCT1001. 999 means missing, in every column; survival counts in MONTHS.
`sex` is a bare code that the table does not explain, and is kept as that. What pathology and response tell
(steatosis, necrosis, fibrosis, mucin, NASH) is known only after resection.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.layout import conversion, converted
from survpack.adapters.reading import MISSING, bids_id, coded, in_days, numbers, one_of, read_table

NAME = "colorectal-liver"
FOLDERS = (NAME, "Colorectal-Liver-Metastases")
SITE = "Memorial Sloan Kettering"
TABLE = "Colorectal-Liver-Metastases-Clinical-data-April-2023.xlsx"
SHEET = "TCIA_n=197"
TUMOUR = "Tumor_.*"
SOURCE = Source(
    title="Colorectal liver metastases, CT before resection",
    url="https://doi.org/10.7937/QXK2-QG03",
    licence="CC BY 4.0",
    size="tens of GB",
    patients=197,
    instructions=f"its CT and SEG with the NBIA Data Retriever; then `{conversion(NAME, TUMOUR)}`, and put {TABLE} "
    "beside",
)
LABELS = {1: "tumour"}
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
_YES = {"kind": "categorical", "levels": ["no", "yes"]}
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age"},
    "sex": {"kind": "categorical", "levels": ["0", "1", "2"], "description": "Sex, as the source codes it"},
    "bmi": {"kind": "numeric", "unit": "kg/m²", "description": "Body mass index"},
    "clinical_risk_score": {"kind": "numeric", "unit": "points", "description": "Clinical risk score, 0 to 5"},
    "cea": {"kind": "numeric", "unit": "ng/mL", "description": "Carcinoembryonic antigen"},
    "comorbidity": _YES | {"description": "Major comorbidity"},
    "node_positive": _YES | {"description": "Lymph node metastasis of the primary tumour"},
    "synchronous": _YES | {"description": "Metastases found with the primary tumour"},
    "multiple": _YES | {"description": "More than one metastasis"},
    "bilobar": _YES | {"description": "Metastases in both lobes"},
    "chemotherapy_before": _YES | {"description": "Chemotherapy before the resection"},
}

_BINARY = {"comorbidity": "major_comorbidity", "node_positive": "node_positive_primary",
           "synchronous": "synchronous_crlm", "multiple": "multiple_metastases", "bilobar": "bilobar_disease",
           "chemotherapy_before": "chemo_before_liver_resection"}  # fmt: skip
_VITAL = {"1": True, "0": False, "dead": True, "alive": False}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: survival from the resection, and baseline covariates."""
    path = Path(root) / TABLE
    table = read_table(path, sheet=SHEET, missing=(*MISSING, "999", "999.0"), required=[
        "overall_survival_months", "vital_status", "age", "sex", "body_mass_index", "clinrisk_score",
        "carcinoembryonic_antigen", *_BINARY.values()])  # fmt: skip
    patients = bids_id(one_of(["Patient-ID", "Patient ID", "patient_id"], table, path, "the patient's id"))
    binary = {name: coded(table[column], {"0": "no", "1": "yes"}, path) for name, column in _BINARY.items()}
    return pd.DataFrame({
        "patient_id": patients,
        "site": SITE,
        "overall_survival_days": in_days(table["overall_survival_months"], "months"),
        "death": coded(table["vital_status"], _VITAL, path),
        "age": numbers(table["age"]),
        "sex": coded(table["sex"], {"0": "0", "1": "1", "2": "2"}, path),
        "bmi": numbers(table["body_mass_index"]),
        "clinical_risk_score": numbers(table["clinrisk_score"]),
        "cea": numbers(table["carcinoembryonic_antigen"]),
        **binary,
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One CT a patient, of the converted set."""
    return converted(root, NAME, TUMOUR)
