"""KiTS23: CT before surgery for a kidney tumour, 489 patients, 77 deaths (arXiv 2307.01984).

`dataset/case_00000/segmentation.nii.gz` and `dataset/kits23.json` (or without `dataset/`); `imaging.nii.gz` only where
it was downloaded too. As KiTS19, with a third label for cysts and `bmi` for `body_mass_index`; six follow-ups of
0 days. Cases 0 to 209 are KiTS19's patients with later outcomes: not both in one study.
`malignant` is empty for seven; smoking `not_found_in_emr` is missing; one patient's sex is neither level: missing.
Whatever surgery and pathology tell is left out, as in KiTS19.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source, kits
from survpack.adapters.kits import DICTIONARY, OUTCOMES, SITE
from survpack.errors import BadInput

__all__ = ["DICTIONARY", "OUTCOMES", "SITE"]

NAME = "kits23"
FOLDERS = (NAME, "KiTS23")
TABLE = "kits23.json"
SOURCE = Source(
    title="Kidney tumours (KiTS23)",
    url="https://github.com/neheller/kits23",
    licence="CC BY-NC-SA 4.0",
    size="under 1 GB of masks, tens of GB with the CT",
    patients=489,
    instructions="its folder dataset with kits23.json and the segmentations; `kits23_download_data` adds the CT",
    overlaps=("kits",),
)
LABELS = {1: "kidney", 2: "tumour", 3: "cyst"}

_UNKNOWN = {"smoking": ["not_found_in_emr"], "sex": ["transgender_male_to_female"]}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient, the columns of KiTS19's."""
    path = _dataset(root) / TABLE
    if not path.exists():
        raise BadInput(f"{path} not found: take it from {SOURCE.url} ({SOURCE.instructions}) and put it there.")
    table = kits.charts(path, bmi="bmi")
    return table.assign(**{name: table[name].mask(table[name].isin(codes)) for name, codes in _UNKNOWN.items()})


def discover(root: Path) -> pd.DataFrame:
    """One row a case that has a segmentation."""
    return kits.discover(_dataset(root))


def _dataset(root: Path) -> Path:
    return Path(root) / "dataset" if (Path(root) / "dataset").is_dir() else Path(root)
