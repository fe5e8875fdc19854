"""BraTS 2020 training set: pre-operative glioma MRI, 369 cases, survival of 236 (DOI 10.1109/TMI.2014.2377694).

`survival_info.csv` has no event column: a number of days is a death, the text `ALIVE (361 days later)` is one patient
censored at 361. The other 133 folders have no row: their outcome is unknown. Files are .nii, not .nii.gz, case 355
names its mask otherwise, and the labels are 1, 2 and 4. Sites are many and not told; some cases are UPENN-GBM's.
Extent of resection is known only after the scan: it may select, it must not predict.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.mri import AGE, images_table, nifti, session_rows, with_unlisted
from survpack.adapters.reading import numbers, read_table

NAME = "brats2020"
FOLDERS = (
    "brats2020",
    "MICCAI_BraTS2020_TrainingData",
    "BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData",
)
SITE = "many"
TABLE = "survival_info.csv"
SOURCE = Source(
    title="BraTS 2020, training set",
    url="https://doi.org/10.1109/TMI.2014.2377694",
    licence="as agreed on registration at www.med.upenn.edu/cbica/brats2020",
    size="1845 volumes",
    patients=369,
    instructions=f"the folder MICCAI_BraTS2020_TrainingData itself, which holds {TABLE} and BraTS20_Training_001 …",
    overlaps=("upenn-gbm",),
)
LABELS = {1: "necrosis", 2: "oedema", 4: "enhancing"}
SEQUENCES = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
DICTIONARY = {"age": AGE}


def clinical(root: Path) -> pd.DataFrame:
    """One row a case, those without an outcome too; `resection` is for selection only."""
    table = read_table(Path(root) / TABLE, required=["Brats20ID", "Age", "Survival_days", "Extent_of_Resection"])
    said = table["Survival_days"]
    alive = said.str.extract(r"(?i)^ALIVE\s*\((\d+) days later\)$")[0]
    listed = pd.DataFrame({
        "patient_id": table["Brats20ID"],
        "site": SITE,
        "overall_survival_days": numbers(alive.fillna(said)),
        "death": alive.isna().astype(object).where(said.notna()),
        "age": numbers(table["Age"]),
        "resection": table["Extent_of_Resection"],
    })  # fmt: skip
    return with_unlisted(listed, [folder.name for folder in Path(root).glob("BraTS20_Training_*")], SITE)


def discover(root: Path) -> pd.DataFrame:
    """One row a sequence; every scan is before the operation."""
    rows = []
    for folder in sorted(Path(root).glob("BraTS20_Training_*")):
        stems = {modality: folder / f"{folder.name}_{name}" for modality, name in SEQUENCES.items()}
        mask = nifti(folder / f"{folder.name}_seg") or next(map(str, folder.glob("*_Segm.nii*")), "")
        rows += session_rows(folder.name, "baseline", 0.0, stems, mask)
    return images_table(rows, root, "BraTS20_Training_001/BraTS20_Training_001_t1ce.nii")
