"""NSCLC-Radiogenomics: CT before resection of lung cancer, 211 patients (DOI 10.7937/K9/TCIA.2017.7hs46erv).

Patients R01-001 (Stanford, Palo Alto VA) and AMC-001. AMC-001 to AMC-049 and several R01 have no
segmentation: the rule `segmented` leaves them out. The PET/CT of the set has none at all and is not read.
The table gives dates, shifted alike within a patient: survival counts from `CT Date` to death or to when last
known alive. `Time to Death (days)` is left alone, since from which day it counts is not told, and it is empty
for the living. `Not Collected` means missing. Histology, stage and mutations are the resected tumour's.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.layout import conversion, converted
from survpack.adapters.reading import MISSING, bids_id, coded, numbers, one_of, read_table
from survpack.errors import BadInput

NAME = "nsclc-radiogenomics"
FOLDERS = (NAME, "NSCLC-Radiogenomics", "NSCLC Radiogenomics")
SITE = "Stanford and Palo Alto VA"
TABLE = "NSCLCR01Radiogenomic_DATA_LABELS_2018-05-22_1500-shifted.csv"
TUMOUR = ".*"
SOURCE = Source(
    title="Lung cancer, CT before resection (NSCLC-Radiogenomics)",
    url="https://doi.org/10.7937/K9/TCIA.2017.7hs46erv",
    licence="CC BY 3.0",
    size="about 98 GB",
    patients=211,
    instructions=f"its CT and SEG (whatever is segmented is tumour) with the NBIA Data Retriever; then "
    f"`{conversion(NAME, TUMOUR)}`, and put {TABLE} beside",
)
LABELS = {1: "tumour"}
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age at histological diagnosis"},
    "sex": {"kind": "categorical", "levels": ["female", "male"], "description": "Sex"},
    "weight": {"kind": "numeric", "unit": "lb", "description": "Body weight"},
    "smoking": {
        "kind": "ordered",
        "levels": ["never", "former", "current"],
        "description": "Smoking status",
    },
    "pack_years": {"kind": "numeric", "unit": "pack-years", "description": "Tobacco smoked"},
}

_EMPTY = (*MISSING, "Not Collected", "Not collected", "not collected", "Not Recorded In Database",
          "Not Recorded in Database", "Not recorded in database")  # fmt: skip


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: survival from the CT, baseline covariates, and two columns for selection only."""
    path = Path(root) / TABLE
    table = read_table(path, missing=_EMPTY, required=[
        "Case ID", "Patient affiliation", "Age at Histological Diagnosis", "Gender", "Weight (lbs)", "Smoking status",
        "Pack Years", "Histology", "Survival Status", "CT Date"])  # fmt: skip
    died = coded(table["Survival Status"], {"Dead": True, "Alive": False}, path)
    patients = bids_id(table["Case ID"])
    smoking = {"Nonsmoker": "never", "Former": "former", "Current": "current"}
    return pd.DataFrame({
        "patient_id": patients,
        "site": table["Patient affiliation"].fillna("not told"),
        "overall_survival_days": _survival(table, died, path),
        "death": died,
        "age": numbers(table["Age at Histological Diagnosis"]),
        "sex": coded(table["Gender"], {"Male": "male", "Female": "female"}, path),
        "weight": numbers(table["Weight (lbs)"]),
        "smoking": coded(table["Smoking status"], smoking, path),
        "pack_years": numbers(table["Pack Years"]),
        "histology": table["Histology"],  # of the resected tumour: for selection only
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One CT a patient, of the converted set."""
    return converted(root, NAME, TUMOUR)


def _survival(table: pd.DataFrame, died: pd.Series, path: Path) -> pd.Series:
    """Days from the CT; NaN where a date is missing."""
    death = _dates(one_of(["Date of Death"], table, path, "the date of death"), path)
    alive = _dates(one_of(["Date of Last Known Alive"], table, path, "the date of last contact"), path)
    end = alive.where(died != True, death)  # noqa: E712  (unknown is neither)
    return (end - _dates(table["CT Date"], path)).dt.days.astype(float)


def _dates(column: pd.Series, path: Path) -> pd.Series:
    """Month first, as the table has them; two-digit years too."""
    dates = pd.to_datetime(column, format="%m/%d/%Y", errors="coerce")
    dates = dates.fillna(pd.to_datetime(column, format="%m/%d/%y", errors="coerce"))
    unread = column[dates.isna() & column.notna()]
    if len(unread):
        raise BadInput(
            f"{path}: {column.name} is '{unread.iloc[0]}' in row {unread.index[0] + 1}, expected a date as "
            "month/day/year; correct it there."
        )
    return dates
