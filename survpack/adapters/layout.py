"""A DICOM set converted to BIDS: what lies beside its table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import bids
from survpack.errors import BadInput


def conversion(name: str, tumour: str) -> str:
    """The command that converts a DICOM download; `tumour` is the region's name, or a pattern of it."""
    return f"python -m survpack dicom DOWNLOAD data/raw/{name} --keep-ids --tumour '{tumour}'"


def converted(root: Path, name: str, tumour: str) -> pd.DataFrame:
    """The CT of a converted set, one row an image; what else was converted (PET) has no segmentation.

    Raises
    ------
    BadInput
        Where the DICOM files were laid there unconverted, or nothing was, giving the command.
    """
    root = Path(root)
    if not any(root.glob("sub-*")):
        found = "DICOM files" if next(root.rglob("*.dcm"), None) else "no folder sub-*"
        raise BadInput(
            f"{root}: {found}, expected sub-ID/sub-ID_ct.nii.gz; keep the download elsewhere, convert it with "
            f"`{conversion(name, tumour)}`, and put the table of patients beside."
        )
    images = bids.discover(root)
    return images[images["modality"] == "ct"].reset_index(drop=True)
