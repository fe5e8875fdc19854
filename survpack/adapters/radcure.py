"""RADCURE: radiotherapy planning CT of head and neck cancer, 3346 patients (DOI 10.7937/J47W-NM11).

DICOM with an RTSTRUCT, read here as converted to BIDS: RADCURE-0005 is sub-RADCURE0005; who has no
region GTVp is left out by the rule `segmented`. `Length FU` counts in YEARS, from the diagnosis.
Pack-years are partly bounds (`>50`), which are no measurement and read as missing; `ECOG-Pt 1` is `ECOG 1`;
`ECOG 0-1`, `TX`, `NX`, `T1 (2)` and `rT0` are read as missing; sites differ in case (`esophagus`).
`RADCURE-challenge` (training, test, 0) selects the published split. Dose, chemotherapy and the like come later.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.layout import conversion, converted
from survpack.adapters.reading import bids_id, coded, in_days, numbers, read_table

NAME = "radcure"
FOLDERS = (NAME, "RADCURE")
SITE = "Princess Margaret"
TABLE = "RADCURE_Clinical_v04_20241219.xlsx"
TUMOUR = "GTVp"
SOURCE = Source(
    title="Head and neck cancer, radiotherapy planning CT (RADCURE)",
    url="https://doi.org/10.7937/J47W-NM11",
    licence="TCIA restricted: images on application, table open",
    size="hundreds of GB",
    patients=3346,
    instructions=f"its CT and RTSTRUCT with the NBIA Data Retriever; then `{conversion(NAME, TUMOUR)}`, and put "
    f"{TABLE} beside",
)
LABELS = {1: "tumour"}
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
LOCATIONS = ["oropharynx", "larynx", "nasopharynx", "hypopharynx", "lip & oral cavity", "other"]
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age"},
    "sex": {"kind": "categorical", "levels": ["female", "male"], "description": "Sex"},
    "performance_status": {
        "kind": "ordered",
        "levels": ["0", "1", "2", "3", "4"],
        "description": "ECOG performance status",
    },
    "smoking": {"kind": "ordered", "levels": ["never", "former", "current"], "description": "Smoking status"},
    "pack_years": {"kind": "numeric", "unit": "pack-years", "description": "Tobacco smoked"},
    "location": {"kind": "categorical", "levels": LOCATIONS, "description": "Site of the primary tumour"},
    "t_stage": {"kind": "ordered", "levels": ["Tis", "T0", "T1", "T2", "T3", "T4"], "description": "T, 7th edition"},
    "n_stage": {"kind": "ordered", "levels": ["N0", "N1", "N2", "N3"], "description": "N, 7th edition"},
    "hpv": {"kind": "categorical", "levels": ["negative", "positive"], "description": "p16, or HPV by PCR"},
}

_ECOG = {f"ECOG{how} {grade}": str(grade) for how in ("", "-Pt") for grade in range(5)} | {"ECOG 0-1": None}
_SMOKING = {"Non-smoker": "never", "Ex-smoker": "former", "Current": "current"}
_T = {f"T{n}{suffix}": f"T{n}" for n in range(5) for suffix in ("", "a", "b")}
_T |= {"Tis": "Tis", "TX": None, "rT0": None} | {f"T{n} (2)": None for n in range(1, 5)}
_N = {f"N{n}{suffix}": f"N{n}" for n in range(4) for suffix in ("", "a", "b", "c")} | {"NX": None}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: survival from the diagnosis, baseline covariates, and three columns for selection only."""
    path = Path(root) / TABLE
    table = read_table(path, required=["patient_id", "Age", "Sex", "ECOG PS", "Smoking PY", "Smoking Status", "Ds Site",
                                       "T", "N", "HPV", "Path", "Length FU", "Status",
                                       "RADCURE-challenge"])  # fmt: skip
    patients = bids_id(table["patient_id"])
    location = table["Ds Site"].str.lower()
    return pd.DataFrame({
        "patient_id": patients,
        "site": SITE,
        "overall_survival_days": in_days(table["Length FU"], "years"),
        "death": coded(table["Status"], {"Dead": True, "Alive": False}, path),
        "age": numbers(table["Age"]),
        "sex": coded(table["Sex"], {"Male": "male", "Female": "female"}, path),
        "performance_status": coded(table["ECOG PS"], _ECOG, path),
        "smoking": coded(table["Smoking Status"], _SMOKING, path),
        "pack_years": numbers(table["Smoking PY"].mask(table["Smoking PY"].str.match("[<>]", na=False))),
        "location": location.where(location.isin(LOCATIONS) | location.isna(), "other"),
        "t_stage": coded(table["T"], _T, path),
        "n_stage": coded(table["N"], _N, path),
        "hpv": coded(table["HPV"], {"Yes, Negative": "negative", "Yes, positive": "positive"}, path),
        "histology": table["Path"],  # for selection only
        "radcure_challenge": table["RADCURE-challenge"],  # for selection only
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One planning CT a patient, of the converted set; its day after the diagnosis is not told."""
    return converted(root, NAME, TUMOUR)
