"""HEAD-NECK-RADIOMICS-HN1: radiotherapy planning CT, 137 patients (DOI 10.7937/tcia.2019.8kap372n).

DICOM with an RTSTRUCT whose region GTV-1 is the primary tumour; read here as converted to BIDS: HN1004 is
sub-HN1004. The table comes as `Copy of HEAD-NECK-RADIOMICS-HN1 Clinical data updated July 2020.csv`; any one
file named `*HN1*.csv` is taken. Survival counts from the first fraction of radiotherapy.
HPV is empty where it was not tested or is not known. Surgery, chemotherapy and dose come after the scan.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.layout import conversion, converted
from survpack.adapters.reading import bids_id, coded, numbers, read_table
from survpack.errors import BadInput

NAME = "hn1"
FOLDERS = (NAME, "HN1", "HEAD-NECK-RADIOMICS-HN1")
SITE = "MAASTRO"
TABLE = "Copy of HEAD-NECK-RADIOMICS-HN1 Clinical data updated July 2020.csv"
TUMOUR = "GTV-1"
SOURCE = Source(
    title="Head and neck cancer, radiotherapy planning CT (HEAD-NECK-RADIOMICS-HN1)",
    url="https://doi.org/10.7937/tcia.2019.8kap372n",
    licence="CC BY-NC 3.0",
    size="tens of GB",
    patients=137,
    instructions=f"its CT and RTSTRUCT with the NBIA Data Retriever; then `{conversion(NAME, TUMOUR)}`, and put "
    f"its clinical table ({TABLE}) beside",
)
LABELS = {1: "tumour"}
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age at diagnosis"},
    "sex": {"kind": "categorical", "levels": ["female", "male"], "description": "Sex"},
    "location": {
        "kind": "categorical",
        "levels": ["larynx", "oropharynx"],
        "description": "Site of the primary tumour",
    },
    "performance_status": {
        "kind": "ordered",
        "levels": ["0", "1", "2", "3", "4"],
        "description": "ECOG performance status",
    },
    "t_stage": {"kind": "ordered", "levels": ["1", "2", "3", "4"], "description": "Clinical T, 7th edition"},
    "n_stage": {"kind": "ordered", "levels": ["0", "1", "2", "3"], "description": "Clinical N, 7th edition"},
    "hpv": {"kind": "categorical", "levels": ["negative", "positive"], "description": "p16"},
}

_ECOG, _HPV = DICTIONARY["performance_status"]["levels"], DICTIONARY["hpv"]["levels"]
_T = {f"{n}{suffix}": str(n) for n in range(1, 5) for suffix in ("", "a", "b")}
_N = {f"{n}{suffix}": str(n) for n in range(4) for suffix in ("", "a", "b", "c")}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: overall survival, and baseline covariates."""
    path = _table(Path(root))
    table = read_table(path, required=[
        "id", "age_at_diagnosis", "biological_sex", "index_tumour_location", "performance_status_ecog", "clin_t",
        "clin_n", "overall_hpv_p16_status", "overall_survival_in_days", "event_overall_survival"])  # fmt: skip
    patients = bids_id(table["id"])
    return pd.DataFrame({
        "patient_id": patients,
        "site": SITE,
        "overall_survival_days": numbers(table["overall_survival_in_days"]),
        "death": coded(table["event_overall_survival"], {"1": True, "0": False}, path),
        "age": numbers(table["age_at_diagnosis"]),
        "sex": coded(table["biological_sex"], {"male": "male", "female": "female"}, path),
        "location": coded(table["index_tumour_location"], {"larynx": "larynx", "oropharynx": "oropharynx"}, path),
        "performance_status": coded(table["performance_status_ecog"], {level: level for level in _ECOG}, path),
        "t_stage": coded(table["clin_t"], _T, path),
        "n_stage": coded(table["clin_n"], _N, path),
        "hpv": coded(table["overall_hpv_p16_status"], {level: level for level in _HPV}, path),
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One planning CT a patient, of the converted set."""
    return converted(root, NAME, TUMOUR)


def _table(root: Path) -> Path:
    found = sorted(path for path in root.glob("*.csv") if "hn1" in path.name.lower())
    if len(found) > 1:
        raise BadInput(f"{root}: {found[0].name} and {found[1].name} may both be the clinical table; keep one there.")
    return found[0] if found else root / TABLE
