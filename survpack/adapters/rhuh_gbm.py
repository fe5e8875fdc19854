"""RHUH-GBM: glioblastoma before, just after and long after its operation, 40 patients (DOI 10.7937/4545-c905).

Sessions are numbered: 0 before the operation, 1 early after it, 2 at recurrence; their days are not told.
`Right Censored` is the reverse of an event: `no` means that the patient died. Column names are whole sentences in
TCIA's table and short (`os_days`, `right_censored`) in copies of it: both are read. Labels are 1, 2, 3, not 1, 2, 4.
Residual tumour, extent of resection, adjuvant therapy and post-operative status are known only after baseline.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.mri import AGE, IDH, KPS, SEX, SEXES, images_table, nifti, session_rows
from survpack.adapters.reading import coded, numbers, one_of, read_table

NAME = "rhuh-gbm"
FOLDERS = ("rhuh-gbm", "RHUH-GBM")
SITE = "Valladolid"
TABLE = "clinical_data_TCIA_RHUH-GBM.csv"
SOURCE = Source(
    title="RHUH-GBM (TCIA)",
    url="https://doi.org/10.7937/4545-c905",
    licence="CC BY 4.0",
    size="600 volumes (NIfTI)",
    patients=40,
    instructions=f"the NIfTI folders RHUH-0001/0 and so on, and {TABLE} beside them",
)
LABELS = {1: "necrosis", 2: "oedema", 3: "enhancing"}
SEQUENCES = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
DICTIONARY = {"age": AGE, "sex": SEX, "kps": KPS, "idh": IDH}
COLUMNS = {
    "patient": ("Patient ID", "patient_id"),
    "days": ("Overall survival [OS] (days)", "os_days"),
    "censored": ("Right Censored", "right_censored"),
    "age": ("Age", "age"),
    "sex": ("Sex", "sex"),
    "kps": ("Preoperative KPS", "preoperative_kps"),
    "idh": ("IDH status = (mutant [mut], wild type [wt], NOS)", "idh_status"),
    "previous_treatment": ("Previous treatment = (no, surgery, surgery + QT/RT)", "previous_treatment"),
}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: survival from the operation; `previous_treatment` is for selection only."""
    path = Path(root) / TABLE
    table = read_table(path, missing=("", "NA", "N/A", "n/a"))
    said = pd.DataFrame({what: one_of(columns, table, path, what) for what, columns in COLUMNS.items()})
    return pd.DataFrame({
        "patient_id": said["patient"],
        "site": SITE,
        "overall_survival_days": numbers(said["days"]),
        "death": coded(said["censored"], {"no": True, "yes": False}, path, "Right Censored"),
        "age": numbers(said["age"]),
        "sex": coded(said["sex"], SEXES, path),
        "kps": numbers(said["kps"]),
        "idh": coded(said["idh"], {"wt": "wildtype", "mut": "mutated", "NOS": None}, path),
        "previous_treatment": said["previous_treatment"],
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One row a sequence of sessions 0, 1 and 2; only the day of 0 is known."""
    rows = []
    for folder in sorted(Path(root).glob("RHUH-*/[0-9]*")):
        patient, session = folder.parent.name, folder.name
        stems = {modality: folder / f"{patient}_{session}_{name}" for modality, name in SEQUENCES.items()}
        mask = nifti(folder / f"{patient}_{session}_segmentations")
        rows += session_rows(patient, session, 0.0 if session == "0" else float("nan"), stems, mask)
    return images_table(rows, root, "RHUH-0001/0/RHUH-0001_0_t1ce.nii.gz")
