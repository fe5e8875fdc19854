"""`python -m survpack new NAME`: a small cohort that is in order, to be filled with one's own patients."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from survpack import paths
from survpack.adapters import bids
from survpack.errors import BadInput
from survpack.paths import written_whole

LABELS = {1: "tumour"}
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age at the scan"},
    "sex": {"kind": "categorical", "levels": ["female", "male"], "description": "Sex"},
    "grade": {"kind": "ordered", "levels": ["low", "high"], "description": "Grade at biopsy"},
}
EXAMPLES = pd.DataFrame({
    "patient_id": ["sub-example1", "sub-example2"],
    "site": ["north", "south"],
    "time_days": [412, 980],
    "event": [True, False],
    "age": [63, 58],
    "sex": ["female", "male"],
    "grade": ["high", None],
})  # fmt: skip
MAP = """\
# What the columns of clinical.csv mean. Times are turned into days; a code of `event` that is not listed is refused.
table: clinical.csv            # or .tsv, .xlsx (then perhaps `sheet: Patients`)
patient_id: PatientID
site: Hospital                 # optional
time_days: {column: OS, unit: months}
event: {column: Status, codes: {dead: true, alive: false}}
missing: [999, "--"]
covariates:                    # known at baseline; any other column may select patients, and predicts nothing
  age: {column: Age, kind: numeric, unit: years}
  sex: {column: Sex, kind: categorical, levels: [female, male]}
  grade: {column: Grade, kind: ordered, levels: [low, high]}
# features: {prefix: original_}           # measured elsewhere, such as radiomics; or `columns: […]`, `pattern`, and
# features: {file: features.parquet}      # a table of their own, a row a patient. Then no image is needed.
images:                        # optional: t1n t1c t2w t2f ct pt; `mask` alone where there is only a segmentation
  t1c: {path: "scans/{PatientID}/t1c.nii.gz", mask: "scans/{PatientID}/tumour.nii.gz"}
labels: {1: tumour}
# overlaps: [other]            # cohorts that have some of these patients; or `no_overlap: [other]`, that have none
"""
README = """\
# {name}

1. Copy your scans in as NIfTI, and a mask on the grid of each, laid out as the examples are.
2. Write a row a patient into {table}: time from baseline to death or last contact, event, covariates.
3. Take in only what was known at baseline. What is known later leaks the outcome.
4. Describe each covariate in {described}: unit, or levels (the lowest first).
5. Say what the numbers in the masks mean in {meaning}.
6. Where a value is missing, write {missing}, never 999 or -1.
7. Remove the two examples, their rows and their folders.
8. `python -m survpack check {name}` says what is wrong, and how to mend it. Repeat until nothing is.
9. `make report COHORTS={name}`.
10. data/README.md says the rest, and how to begin from DICOM.
"""


def new(name: str, table: bool = False) -> Path:
    """Write data/raw/`name` with two example patients: a BIDS folder, or a table and its column map.

    Parameters
    ----------
    name : str
        Letters, digits, `-` and `_`.
    table : bool
        A clinical.csv and a cohort.yaml instead of BIDS.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    BadInput
        For a name that is taken or cannot be a folder's; nothing is then written.
    """
    from survpack import adapters

    folder = paths.RAW / name
    adapters.require_name(name)
    if name in adapters.names():
        raise BadInput(f"'{name}' is the name of a cohort this study knows; choose another, such as my-{name}.")
    if folder.exists() or folder.is_symlink():
        raise BadInput(f"{folder} is there already, and is left as it is; choose another name, or remove it first.")
    try:
        with written_whole(folder) as part:
            part.mkdir()
            (_write_table if table else _write_bids)(part, name)
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be written ({error.strerror}); make {folder.parent} a folder to write in."
        ) from None
    return folder


def _write_bids(folder: Path, name: str) -> None:
    bids.write_tables(folder, EXAMPLES, DICTIONARY, LABELS, {"Name": name})
    for k, patient in enumerate(EXAMPLES["patient_id"]):
        _write_scan(bids.image_path(folder, patient, "t1c"), bids.image_path(folder, patient, "mask"), k)
    described = {"table": "participants.tsv", "described": "participants.json", "meaning": "dseg.tsv", "missing": "n/a"}
    (folder / "README.md").write_text(README.format(name=name, **described), encoding="utf-8")


def _write_table(folder: Path, name: str) -> None:
    table = pd.DataFrame({
        "PatientID": EXAMPLES["patient_id"].str.removeprefix("sub-"),
        "Hospital": EXAMPLES["site"],
        "OS": [13.5, 32.2],
        "Status": ["dead", "alive"],
        "Age": EXAMPLES["age"],
        "Sex": EXAMPLES["sex"],
        "Grade": EXAMPLES["grade"],
    })  # fmt: skip
    table.to_csv(folder / "clinical.csv", index=False, lineterminator="\n")
    (folder / "cohort.yaml").write_text(MAP, encoding="utf-8")
    for k, patient in enumerate(table["PatientID"]):
        _write_scan(folder / "scans" / patient / "t1c.nii.gz", folder / "scans" / patient / "tumour.nii.gz", k)
    described = {"table": "clinical.csv", "described": "cohort.yaml", "meaning": "cohort.yaml", "missing": "nothing"}
    (folder / "README.md").write_text(README.format(name=name, **described), encoding="utf-8")


def _write_scan(image: Path, mask: Path, seed: int) -> None:
    """A bright ball in noise, 16 voxels of 4 mm an axis."""
    image.parent.mkdir(parents=True, exist_ok=True)
    rng, affine = np.random.default_rng(seed), np.diag([4.0, 4.0, 4.0, 1.0])
    ball = sum((axis - 6 - seed) ** 2 for axis in np.ogrid[:16, :16, :16]) < 12
    scan = np.where(ball, 300, 100) + rng.normal(0, 10, ball.shape)
    nib.save(nib.Nifti1Image(scan.round().astype(np.int16), affine), image)
    nib.save(nib.Nifti1Image(ball.astype(np.uint8), affine), mask)
