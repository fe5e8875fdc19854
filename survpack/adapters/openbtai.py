"""OpenBTAI brain metastases (MOLAB): post-contrast T1 of 75 patients over time (Sci Data 2023 10:208, CC BY 4.0).

All 75 are dead and were chosen for it: nobody is censored, so survival here is that of a biased sample.
The sheet opens with a legend; its header is two rows, to be joined, and two columns are called `Time`: the second is
survival in days. A row a lesion: the first one speaks for the patient. Ids are 6 wide, zero-padded, but for Excel.
Dates are shifted to 1900, so follow-ups have no day. Masks number a voxel by lesion and part: 21 is lesion 2,
enhancing, 22 its necrosis (github ysuter/OpenBTAI-radiomics); oedema is not drawn.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.mri import AGE, SEX, images_table, session_rows
from survpack.adapters.reading import MISSING, coded, in_days, numbers, read_table
from survpack.errors import BadInput

NAME = "openbtai"
FOLDERS = ("openbtai", "OpenBTAI_METS")
SITE = "MOLAB"
TABLE = "OpenBTAI_METS_ClinicalData_Nov2023.xlsx"
SOURCE = Source(
    title="OpenBTAI brain metastases (MOLAB), deceased patients only",
    url="https://doi.org/10.6084/m9.figshare.c.6194104",
    licence="CC BY 4.0",
    size="637 studies",
    patients=75,
    instructions=f"a folder a patient with its NIFTI/*_img.nii and *_msk.nii, and {TABLE} beside these folders",
)
LABELS = {10 * lesion + part: name for lesion in range(1, 100) for part, name in ((1, "enhancing"), (2, "necrosis"))}
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}  # every patient died: see the bias above
PRIMARIES = {
    1: "breast", 2: "nsclc", 3: "sclc", 4: "melanoma", 5: "kidney", 6: "colon", 7: "bladder", 8: None, 9: "ovary",
    10: "pharynx", 11: "bone sarcoma", 12: "uterus",
}  # fmt: skip
DICTIONARY = {
    "age": AGE,
    "sex": SEX,
    "gpa": {"kind": "numeric", "unit": "points", "description": "Graded prognostic assessment"},
    "primary": {
        "kind": "categorical",
        "levels": [name for name in PRIMARIES.values() if name],
        "description": "Primary tumour",
    },
}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: survival (all died) and the baseline covariates, from the row of the first lesion."""
    path = Path(root) / TABLE
    table = _sheet(path)
    return pd.DataFrame({
        "patient_id": _column(table, path, "patientid").map(_padded),
        "site": SITE,
        "overall_survival_days": in_days(_column(table, path, "time", which=1), "days"),
        "death": True,
        "age": numbers(_column(table, path, "age")),
        "sex": coded(_column(table, path, "sex"), {1: "female", 2: "male"}, path, "sex"),
        "gpa": numbers(_column(table, path, "gpa")),
        "primary": coded(_column(table, path, "primary"), PRIMARIES, path, "primary tumour"),
    }).drop_duplicates("patient_id", ignore_index=True)  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One row a scan; a patient's earliest time point is baseline, the day of a later one is not told."""
    masks = [path for path in Path(root).rglob("NIFTI/*_msk.nii*")]
    parts = [(path.parent, *path.name.split("_")) for path in masks]
    strange = [path for path, part in zip(masks, parts, strict=True) if len(part) < 4 or not part[2].isdigit()]
    if strange:
        raise BadInput(
            f"{strange[0]}: expected PATIENT_TIMEPOINT_…_msk.nii with a number for the time point; rename it."
        )
    visits = pd.DataFrame({"patient": [_padded(part[1]) for part in parts], "mask": masks})
    visits["point"] = [int(part[2]) for part in parts]
    visits = visits.sort_values(["patient", "point", "mask"])
    rows = []
    for visit in visits.assign(first=visits.groupby("patient")["point"].transform("min")).itertuples():
        stem = visit.mask.parent / visit.mask.name.split("_msk.nii")[0]
        day = 0.0 if visit.point == visit.first else float("nan")
        rows += session_rows(visit.patient, str(visit.point), day, {"t1c": Path(f"{stem}_img")}, str(visit.mask))
    return images_table(rows, root, "100101/NIFTI/100101_1_…_img.nii and …_msk.nii")


def _sheet(path: Path) -> pd.DataFrame:
    """The rows of lesions, columns named by both header rows, without blanks and accents."""
    raw = read_table(path, header=None, missing=MISSING)
    plain = raw.map(
        lambda cell: "" if pd.isna(cell) else "".join(cell.split()).encode("ascii", "ignore").decode().lower()
    )
    header = plain.index[plain[plain.columns[0]] == "patientid"]
    if header.empty:
        raise BadInput(
            f"{path}: no header row that starts with 'Patient ID'; take the file from {SOURCE.url} unchanged."
        )
    table = raw.iloc[header[0] + 2 :].reset_index(drop=True)
    table.columns = [upper + lower for upper, lower in zip(plain.loc[header[0]], plain.loc[header[0] + 1], strict=True)]
    return table[table.iloc[:, 0].notna()].reset_index(drop=True)


def _column(table: pd.DataFrame, path: Path, start: str, which: int = 0) -> pd.Series:
    """The column whose joined name starts with `start`; `which` of several."""
    places = [place for place, name in enumerate(table.columns) if name.startswith(start)]
    if len(places) <= which:
        raise BadInput(
            f"{path}: {len(places)} columns start with '{start}', expected {which + 1} or more; take the file from "
            f"{SOURCE.url} unchanged (columns found: {', '.join(filter(None, table.columns))})."
        )
    return table.iloc[:, places[which]]


def _padded(patient: str) -> str:
    """Excel drops the zeros in front of a number."""
    return patient.removesuffix(".0").zfill(6)
