"""What the brain MRI sets share: sequences as files of a session, survival columns by their unit, people's sexes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters.reading import in_days, one_of
from survpack.cohort import IMAGES
from survpack.errors import BadInput

AGE = {"kind": "numeric", "unit": "years", "description": "Age at baseline"}
SEX = {"kind": "categorical", "levels": ["female", "male"], "description": "Sex"}
SEXES = {"F": "female", "M": "male", "female": "female", "male": "male"}
IDH = {"kind": "categorical", "levels": ["wildtype", "mutated"], "description": "IDH, from the first tissue taken"}
MGMT = {
    "kind": "categorical",
    "levels": ["unmethylated", "methylated"],
    "description": "MGMT promoter, from the first tissue taken",
}
KPS = {"kind": "numeric", "unit": "points", "description": "Karnofsky performance status at baseline"}
SURVIVAL = {
    f"{name}{unit}": unit.strip(" _()").lower()
    for name in ("Survival", "Survival time", "Overall survival", "Overall Survival", "OS", "Survival_time")
    for unit in (" (days)", "_days", " days", " (weeks)", "_weeks", " (months)", "_months", " months", " (years)")
}  # a name without its unit is not taken: days and months cannot be told apart by looking


def nifti(stem: Path) -> str:
    """`stem`.nii.gz or `stem`.nii, whichever is there; "" where neither is."""
    found = [path for path in (Path(f"{stem}.nii.gz"), Path(f"{stem}.nii")) if path.exists()]
    return str(found[0]) if found else ""


def session_rows(patient: str, session: str, day: float, stems: dict[str, Path], mask: str) -> list[list]:
    """Rows of IMAGES for the sequences that are there: modality to path without `.nii.gz`, one mask for all."""
    images = {modality: nifti(stem) for modality, stem in stems.items()}
    return [[patient, session, day, modality, path, mask] for modality, path in images.items() if path]


def images_table(rows: list[list], root: Path, layout: str) -> pd.DataFrame:
    """The rows as IMAGES.

    Raises
    ------
    BadInput
        Where there is no row, saying which layout was looked for.
    """
    if not rows:
        raise BadInput(f"{root}: no image found, expected {layout}; unpack the download so that it lies there.")
    return pd.DataFrame(rows, columns=IMAGES)


def survival_days(table: pd.DataFrame, path: Path) -> pd.Series:
    """The column of SURVIVAL that `table` has, in days."""
    column = one_of(SURVIVAL, table, path, "survival time with its unit")
    return in_days(column, SURVIVAL[column.name])


def with_unlisted(table: pd.DataFrame, patients, site: str) -> pd.DataFrame:
    """`table`, and below it the `patients` that have images but no row: their outcome is unknown, which counts."""
    absent = sorted(set(patients) - set(table["patient_id"]))
    if not absent:
        return table
    return pd.concat([table, pd.DataFrame({"patient_id": absent, "site": site})], ignore_index=True)
