"""KiTS19: segmentations of kidney tumours on CT and the patients' charts, 210 patients (arXiv 1904.00445).

`case_00000/segmentation.nii.gz` and `kits.json`; `imaging.nii.gz` only where it was downloaded too
(without it a case is a mask and nothing else). Three patients have a follow-up of 0 days.
eGFR is capped: `>=90` is read as 90. Stage, grade, necrosis, pathologic size, margins, stay and blood
loss are known only after surgery, which is day 0, and are left out. `malignant` too is known only then: it
may select patients, it must not predict.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.reading import need
from survpack.cohort import IMAGES
from survpack.errors import BadInput

NAME = "kits"
FOLDERS = ("kits", "kits19/data", "kits19")
SITE = "single"
SOURCE = Source(
    title="Kidney tumours (KiTS19)",
    url="https://github.com/neheller/kits19",
    licence="CC BY-NC-SA 4.0",
    size="0.1 GB of masks, 30 GB with the CT",
    patients=210,
    instructions="its folder data, which holds kits.json and the segmentations",
    overlaps=("kits23",),
)
LABELS = {1: "kidney", 2: "tumour"}
TABLE = "kits.json"
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age at nephrectomy"},
    "sex": {"kind": "categorical", "levels": ["female", "male"], "description": "Sex"},
    "bmi": {"kind": "numeric", "unit": "kg/m²", "description": "Body mass index"},
    "smoking": {
        "kind": "ordered",
        "levels": ["never_smoked", "previous_smoker", "current_smoker"],
        "description": "Smoking history",
    },
    "comorbidities": {"kind": "numeric", "unit": "count", "description": "Comorbidities present, of the 19 listed"},
    "radiographic_size": {"kind": "numeric", "unit": "cm", "description": "Largest diameter of the tumour on CT"},
    "egfr": {"kind": "numeric", "unit": "mL/min/1.73 m²", "description": "Last eGFR before surgery, capped at 90"},
}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: survival from surgery, baseline covariates, and two columns for selection only."""
    path = Path(root) / TABLE
    if not path.exists():
        raise BadInput(f"{path} not found: take it from {SOURCE.url} ({SOURCE.instructions}) and put it there.")
    return charts(path, bmi="body_mass_index")


def charts(path: Path, bmi: str) -> pd.DataFrame:
    """The charts of a KiTS challenge as `clinical` gives them; `bmi` is its name for the body mass index."""
    try:
        cases = pd.DataFrame(json.loads(path.read_text()))
    except ValueError as error:
        raise BadInput(f"{path}: not the challenge's JSON ({error}); fetch it anew.") from None
    need(["case_id", "age_at_nephrectomy", "gender", bmi, "smoking_history", "comorbidities",
             "radiographic_size", "last_preop_egfr", "malignant", "vital_status", "vital_days_after_surgery"],
            cases, path)  # fmt: skip
    egfr = pd.json_normalize(cases["last_preop_egfr"].map(lambda entry: entry or {}).tolist())
    return pd.DataFrame({
        "patient_id": cases["case_id"],
        "site": SITE,
        "overall_survival_days": cases["vital_days_after_surgery"].astype(float),
        "death": cases["vital_status"].map({"dead": True, "censored": False}),
        "age": _capped(cases["age_at_nephrectomy"]),
        "sex": cases["gender"],
        "bmi": cases[bmi].astype(float),
        "smoking": cases["smoking_history"],
        "comorbidities": cases["comorbidities"].map(lambda each: float(sum(map(bool, each.values())))),
        "radiographic_size": cases["radiographic_size"].astype(float),
        "egfr": _capped(egfr["value"]),
        "egfr_days_before": egfr["days_before_nephrectomy"].astype(float),  # for selection only
        "malignant": cases["malignant"],  # for selection only
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One row a case that has a segmentation; how long before surgery the CT was taken is not told."""
    rows = []
    for mask in sorted(Path(root).glob("case_*/segmentation.nii.gz")):
        image = mask.with_name("imaging.nii.gz")
        modality, path = ("ct", str(image)) if image.exists() else ("mask", "")
        rows.append([mask.parent.name, "baseline", 0.0, modality, path, str(mask)])
    return pd.DataFrame(rows, columns=IMAGES)


def _capped(column: pd.Series) -> pd.Series:
    """`>=90` is 90; what is no number at all stays, for the checks to name."""
    text = column.map(lambda value: value.removeprefix(">=") if isinstance(value, str) else value)
    number = pd.to_numeric(text, errors="coerce").astype(float)
    return number if (number.notna() | text.isna()).all() else text
