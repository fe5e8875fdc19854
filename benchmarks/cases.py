"""What the benchmarks run on: a region of an image each, cut out and resampled once, the same array for every tool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from survpack.grids import on_one_grid
from survpack.lesions import box

MARGIN = 2  # voxels around the region
LEAST_VOXELS = 16  # below, the peer refuses some families
BINS = {"ct": {"width": 25.0}, "pt": {"width": 0.5}}  # HU, SUV
MR = {"number": 32}
REGIONS = {"tumour": (1, 3), "enhancing": (3,), "necrosis": (1,), "oedema": (2,), "whole": (1, 2, 3)}  # of mets


@dataclass(frozen=True)
class Case:
    """One region of one image.

    Attributes
    ----------
    name, group : str
    values : ndarray of float, shape (x, y, z)
    inside : ndarray of bool
    spacing_mm : tuple of 3 floats
    bins : dict
        `number`, or `width` and `low`, the edge of the lowest bin: that at or below the least value, as the peer has it.
    shape : bool
        Whether morphology is measured too: once a region, whatever the number of images.
    """

    name: str
    group: str
    values: np.ndarray
    inside: np.ndarray
    spacing_mm: tuple[float, float, float]
    bins: dict
    shape: bool


def phantom(bids_folder: Path) -> Iterator[Case]:
    """Every region of every sequence of a `mets` cohort."""
    from survpack.adapters import bids

    for (patient, _), rows in bids.discover(bids_folder).groupby(["patient_id", "session"]):
        mask = sitk.ReadImage(rows["mask_path"].iloc[0])
        images = {row.modality: sitk.ReadImage(row.path, sitk.sitkFloat64) for row in rows.itertuples()}
        for region, labels in REGIONS.items():
            for number, (sequence, image) in enumerate(images.items()):
                yield from _cut(f"{patient} {region} {sequence}", "mets", image, mask, labels, MR, number == 0)


def real(data: Path, patients: int) -> Iterator[Case]:
    """The sarcomas (3 mm), the lung CT phantom of the IBSI (2 mm), the brains of pyradiomics (as they are)."""
    from survpack.adapters import sts

    images = sts.discover(data / "sts")
    chosen = sorted(images["patient_id"].unique())[:patients]
    for row in images[images["patient_id"].isin(chosen)].itertuples():
        image, mask = _isotropic(row.path, row.mask_path, 3.0)
        yield from _cut(f"{row.patient_id} {row.modality}", "sts", image, mask, (1,), BINS.get(row.modality, MR), True)
    ibsi = data / "ibsi" / "ibsi1_ct_phantom"
    yield from _cut(
        "ibsi", "ibsi-ct", *_isotropic(ibsi / "phantom.nii.gz", ibsi / "mask.nii.gz", 2.0), (1,), BINS["ct"], True
    )
    for brain in ("brain1", "brain2"):
        image = sitk.ReadImage(data / "pyradiomics" / f"{brain}_image.nrrd", sitk.sitkFloat64)
        mask = sitk.ReadImage(data / "pyradiomics" / f"{brain}_label.nrrd")
        yield from _cut(brain, "brains", image, mask, (1,), MR, True)


def data_folder() -> Path | None:
    """Where the real images are ($SURVPACK_DATA), if they are."""
    folder = Path(os.environ.get("SURVPACK_DATA", "-"))
    return folder if all((folder / part).is_dir() for part in ("sts", "ibsi", "pyradiomics")) else None


def _isotropic(image_path, mask_path, spacing: float) -> tuple[sitk.Image, sitk.Image]:
    """Image by cubic spline, mask by nearest neighbour, on isotropic voxels around the region."""
    image, mask = sitk.ReadImage(image_path, sitk.sitkFloat64), sitk.ReadImage(mask_path)
    return on_one_grid(image, mask, spacing, {"image": "spline", "mask": "nearest"})[:2]


def _cut(name, group, image: sitk.Image, mask: sitk.Image, labels, bins: dict, shape: bool) -> Iterator[Case]:
    """The box around the region; nothing where the region is too small or of one value."""
    values = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    inside = np.isin(sitk.GetArrayViewFromImage(mask).transpose(2, 1, 0), labels)
    if inside.sum() < LEAST_VOXELS or np.ptp(values[inside]) == 0:
        return
    around = box(inside, MARGIN)
    values, inside = np.ascontiguousarray(values[around]), np.ascontiguousarray(inside[around])
    if "width" in bins:
        bins = bins | {"low": float(np.floor(values[inside].min() / bins["width"]) * bins["width"])}
    yield Case(name, group, values, inside, image.GetSpacing(), bins, shape)
