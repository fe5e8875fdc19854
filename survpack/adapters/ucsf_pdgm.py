"""UCSF-PDGM: pre-operative diffuse glioma MRI, 501 scans of 495 patients (DOI 10.7937/tcia.bdgf-8v37, CC BY 4.0).

Folders carry four-digit ids (UCSF-PDGM-0004_nifti), the table three (UCSF-PDGM-004). Six rows are scans that follow
(UCSF-PDGM-433_FU007d, folder 0433_FU007d): seven days later, the same patient. The event column is named for its
coding, `1-dead 0-alive`; `OS` counts days from diagnosis. The labels are 1, 2 and 4. Extent of resection (`EOR`) is
known only after the scan: it may select, it must not predict.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.mri import AGE, IDH, MGMT, SEX, SEXES, images_table, nifti, session_rows
from survpack.adapters.reading import coded, numbers, read_table
from survpack.errors import BadInput

NAME = "ucsf-pdgm"
FOLDERS = ("ucsf-pdgm", "UCSF-PDGM", "UCSF-PDGM-v5")
SITE = "UCSF"
TABLE = "UCSF-PDGM-metadata_v5.csv"
SOURCE = Source(
    title="UCSF-PDGM (TCIA), version 5",
    url="https://doi.org/10.7937/tcia.bdgf-8v37",
    licence="CC BY 4.0",
    size="about 150 GB",
    patients=495,
    instructions=f"the folders UCSF-PDGM-0004_nifti and so on, and {TABLE} beside them",
)
LABELS = {1: "necrosis", 2: "oedema", 4: "enhancing"}
SEQUENCES = {"t1n": "T1", "t1c": "T1c", "t2w": "T2", "t2f": "FLAIR"}
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
DICTIONARY = {
    "age": AGE,
    "sex": SEX,
    "who_grade": {"kind": "ordered", "levels": ["2", "3", "4"], "description": "WHO grade of the first tissue taken"},
    "idh": IDH,
    "mgmt": MGMT,
}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient, from the baseline scan; `resection` is for selection only."""
    path = Path(root) / TABLE
    needed = ["ID", "OS", "1-dead 0-alive", "Age at MRI", "Sex", "WHO CNS Grade", "EOR", "IDH", "MGMT status"]
    scans = read_table(path, required=needed).dropna(subset="ID")
    scans["patient"], scans["day"] = zip(*(_scan(said, path) for said in scans["ID"]), strict=True)
    table = scans.sort_values(["patient", "day"]).drop_duplicates("patient").reset_index(drop=True)
    mutated = table["IDH"].str.casefold().ne("wildtype").map({True: "mutated", False: "wildtype"})
    return pd.DataFrame({
        "patient_id": table["patient"],
        "site": SITE,
        "overall_survival_days": numbers(table["OS"]),
        "death": coded(table["1-dead 0-alive"], {1: True, 0: False}, path),
        "age": numbers(table["Age at MRI"]),
        "sex": coded(table["Sex"], SEXES, path),
        "who_grade": table["WHO CNS Grade"].str.removesuffix(".0"),
        "idh": mutated.where(table["IDH"].notna()),  # mutations are named one by one
        "mgmt": coded(table["MGMT status"], {"positive": "methylated", "negative": "unmethylated",
                                             "indeterminate": None}, path),
        "resection": table["EOR"],
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One row a sequence; `FU007d` is a session on day 7."""
    rows = []
    for folder in sorted(Path(root).glob("*_nifti")):
        name = folder.name.removesuffix("_nifti")
        patient, day = _scan(name, folder)
        stems = {modality: folder / f"{name}_{suffix}" for modality, suffix in SEQUENCES.items()}
        session = f"FU{day:03.0f}d" if day else "baseline"
        rows += session_rows(patient, session, day, stems, nifti(folder / f"{name}_tumor_segmentation"))
    return images_table(rows, root, "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1c.nii.gz")


def _scan(said: str, where: Path) -> tuple[str, float]:
    """Patient, four digits wide, and day of `UCSF-PDGM-433_FU007d`."""
    parts = re.fullmatch(r"UCSF-PDGM-(\d+)(?:_FU(\d+)d)?", said)
    if not parts:
        raise BadInput(
            f"{where}: id '{said}' found, expected one like UCSF-PDGM-004 or UCSF-PDGM-433_FU007d; correct it."
        )
    return f"UCSF-PDGM-{int(parts[1]):04d}", float(parts[2] or 0)
