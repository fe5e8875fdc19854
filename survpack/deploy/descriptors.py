"""A crop in numbers that people can name, made without any network."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import ndimage

from survpack.models.patients import Patients

SHELL = 2  # voxels: how far around the lesion its surroundings reach
LEVELS = {"5th percentile": 5, "median": 50, "95th percentile": 95}
UPPER = {"median": 50, "95th percentile": 95}  # outside, the lowest are air
HALVES = {0: "left against right", 1: "back against front", 2: "head against feet"}  # of crops in LPS
FEW = 8  # voxels, fewer than which are not described
TINY = 1e-4


def descriptors(patients: Patients) -> pd.DataFrame:
    """Grey values, edges and the likeness of sequences inside the lesion and outside; the size of its parts.

    Parameters
    ----------
    patients : Patients
        Crops in LPS.

    Returns
    -------
    DataFrame, a row a patient, indexed as `patients.outcome`
        A column a descriptor, named in words; NaN where a sequence is absent or a region has too few voxels, and no
        column where it is so of all.
    """
    labels = [str(k + 1) for k in range(patients.masks.shape[1])]
    rows = []
    for images, masks, present in zip(patients.images, patients.masks, patients.present, strict=True):
        masks = masks.astype(np.float32) > 0.5
        seen = {
            name: image.astype(np.float32) if there else None
            for name, image, there in zip(patients.modalities, images, present, strict=True)
        }
        rows.append(_of_masks(masks, labels) | _of_images(seen, masks, labels))
    return pd.DataFrame(rows, index=patients.outcome.index, dtype=float)


def _of_masks(masks: np.ndarray, labels: list[str]) -> dict:
    found = {f"mask: size of label {label}": np.log1p(mask.sum()) for label, mask in zip(labels, masks, strict=True)}
    lesion = masks.any(axis=0)
    if lesion.any():
        middle = (np.array(lesion.shape) - 1) / 2
        edge = lesion & ~ndimage.binary_erosion(lesion)
        found["mask: distance from the crop's centre"] = np.linalg.norm(np.argwhere(lesion).mean(axis=0) - middle)
        found["mask: share of the lesion at its surface"] = edge.sum() / lesion.sum()
    return found


def _of_images(seen: dict, masks: np.ndarray, labels: list[str]) -> dict:
    lesion = masks.any(axis=0)
    shell = ndimage.binary_dilation(lesion, iterations=SHELL) & ~lesion
    regions = {"inside the lesion": lesion, "outside the lesion": ~lesion}
    found = {}
    for name, image in seen.items():
        found |= {f"{name}: {words}": value for words, value in _of_one(image, regions, shell).items()}
        for label, mask in zip(labels, masks, strict=True) if len(labels) > 1 else ():
            found[f"{name}: mean of label {label}"] = _mean(image, mask)
    for (one, left), (other, right) in combinations(seen.items(), 2):
        for words, region in regions.items():
            found[f"{one} and {other}: correlation {words}"] = _correlation(left, right, region)
    return found


def _of_one(image: np.ndarray | None, regions: dict, shell: np.ndarray) -> dict:
    if image is None:
        return {}
    found = {}
    edges = np.sqrt(sum(slope**2 for slope in np.gradient(image)))
    rough = np.abs(ndimage.laplace(image))
    for words, region in regions.items():
        if region.sum() < FEW:
            continue
        values = image[region]
        levels = LEVELS if region is regions["inside the lesion"] else UPPER
        found |= {f"{level} {words}": value for level, value in
                  zip(levels, np.percentile(values, list(levels.values())), strict=True)}  # fmt: skip
        found[f"spread {words}"] = np.log(values.std() + TINY)
        found[f"edges {words}"] = np.log(edges[region].mean() + TINY)
        found[f"graininess {words}"] = np.log((rough[region].mean() + TINY) / (edges[region].mean() + TINY))
    found["contrast at the lesion's edge"] = _mean(image, regions["inside the lesion"]) - _mean(image, shell)
    for axis, words in HALVES.items():
        first, second = np.array_split(image, 2, axis=axis)
        found[words] = second.mean() - first.mean()
    return found


def _mean(image: np.ndarray | None, region: np.ndarray) -> float:
    return float(image[region].mean()) if image is not None and region.sum() >= FEW else np.nan


def _correlation(left: np.ndarray | None, right: np.ndarray | None, region: np.ndarray) -> float:
    if left is None or right is None or region.sum() < FEW:
        return np.nan
    one, other = left[region], right[region]
    spread = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / spread) if spread > TINY**2 else np.nan
