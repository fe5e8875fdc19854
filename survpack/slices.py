"""One slice of a scan as it is to be looked at: the patient's right on the left, the front at the top."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from survpack import nifti
from survpack.cohort import Cohort
from survpack.preprocess import at_baseline

AIRY_HU = -400  # a lesion whose surroundings are below it lies in the lung
ORDER = ("t1n", "t1c", "t2w", "t2f", "ct", "pt", "mask")


def volume(path: str) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A volume whose axes run to the patient's right, front and head, and its voxel in mm."""
    values, place = nifti.read(path)
    image = nib.as_closest_canonical(nib.Nifti1Image(values, place.affine, dtype=values.dtype))
    return np.asanyarray(image.dataobj), tuple(float(size) for size in nib.affines.voxel_sizes(image.affine))


def largest_lesion(mask: np.ndarray, tumour: list[int]) -> np.ndarray:
    """The largest connected part of the tumour, bool, the shape of `mask`."""
    inside = np.isin(mask, tumour)
    found = ndimage.find_objects(inside.astype(np.uint8))
    if not found:
        return inside
    parts, _ = ndimage.label(inside[found[0]])
    largest = np.zeros_like(inside)
    largest[found[0]] = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return largest


def panel(row, tumour: list[int], *, title: str = "", field_mm: float | None = None, level: int | None = None) -> dict:
    """The axial slice in which the largest lesion is widest.

    Parameters
    ----------
    row : named tuple or Series with `path`, `mask_path`, `modality`
        A mask without an image is shown as it is; an image without a mask needs `level`.
    tumour : list of int
        Labels that make up the tumour.
    field_mm : float, optional
        Side of the square around the lesion; the whole slice otherwise.
    level : int, optional
        Slice, counted from the feet, where there is no mask.

    Returns
    -------
    dict
        `image` (float, in its own units) and `labels` (int), shape (rows, columns); `spacing`, mm of a row and of a
        column; `modality`; `window`, percentiles 1 and 99.5 of what is above zero in the volume; `airy`, whether a CT's
        lesion lies in air; `volume_ml` of the tumour; `title`.
    """
    mask, spacing = volume(row.mask_path) if row.mask_path else (None, None)
    mask = mask if mask is None else nifti.labels(mask)[0]
    if row.path:
        image, spacing = volume(row.path)
    else:
        image = np.where(mask > 0, 0.4, 0.0)
    lesion = largest_lesion(mask, tumour) if mask is not None else np.zeros(image.shape, dtype=bool)
    if mask is None:
        mask = np.zeros(image.shape, dtype=np.uint8)
    at = int(lesion.sum(axis=(0, 1)).argmax()) if level is None else level
    planes = {"image": image[:, :, at].astype(np.float32), "labels": np.rint(mask[:, :, at]).astype(np.int16)}
    airy = row.modality == "ct" and _airy(planes["image"], lesion[:, :, at], spacing[0])
    if field_mm and lesion.any():
        planes = {name: _around(plane, lesion[:, :, at], field_mm, spacing) for name, plane in planes.items()}
    else:
        planes = _trimmed(planes, AIRY_HU if row.modality == "ct" else 0)
    ml = float(np.isin(mask, tumour).sum() * np.prod(spacing) / 1000)
    seen = {name: np.flip(plane.T, (0, 1)) for name, plane in planes.items()}
    window = tuple(np.percentile(image[image > 0], [1, 99.5])) if (image > 0).any() else (0.0, 1.0)
    about = {
        "spacing": (spacing[1], spacing[0]),
        "modality": row.modality,
        "airy": airy,
        "volume_ml": ml,
        "window": window,
    }
    return {**seen, **about, "title": title}


def spread(ids: list, count: int) -> list:
    """`count` of `ids`, evenly over the list; all of a shorter one."""
    return [ids[at] for at in np.unique(np.linspace(0, len(ids) - 1, count).round().astype(int))] if ids else []


def contact(cohort: Cohort, patients: int = 6) -> list[list[dict]]:
    """A column a patient, a panel a modality, at baseline.

    The patients are spread evenly over the table, chosen without looking at any image. A modality a patient lacks
    is None.
    """
    images = at_baseline(cohort.images)
    present = [name for name in ORDER if name in set(images["modality"])]
    ids = cohort.participants["patient_id"]
    columns = []
    for patient in spread(ids[ids.isin(images["patient_id"])].tolist(), patients):
        rows = {row.modality: row for row in images[images["patient_id"] == patient].itertuples()}
        columns.append([_or_none(rows.get(name), cohort.tumour_labels, patient) for name in present])
    return columns


def visits(cohort: Cohort, patients: int = 5, field_mm: float = 110.0) -> list[list[dict]]:
    """A row a patient, a panel a visit, all about the largest lesion; of the patients with most visits, the first."""
    images = cohort.images[(cohort.images["path"] != "") & (cohort.images["mask_path"] != "")]
    if not len(images):
        return []
    modality = next(name for name in ("t1c", *ORDER) if name in set(images["modality"]))
    images = images[images["modality"] == modality].sort_values(["patient_id", "day"], kind="stable")
    counts = images["patient_id"].value_counts(sort=False)
    most = counts[counts > 1].sort_index().sort_values(ascending=False, kind="stable").index[:patients]
    rows = {patient: images[images["patient_id"] == patient] for patient in most}
    tumour = cohort.tumour_labels
    return [[_visit(row, tumour, patient, field_mm) for row in own.itertuples()] for patient, own in rows.items()]


def table(panels: list[list[dict | None]]) -> pd.DataFrame:
    """What a sheet shows, as rows: `patient_id`, `modality`, `volume_ml`, and `day` of a visit."""
    shown = [one for line in panels for one in line if one is not None]
    keys = ["patient_id", "modality", "volume_ml", *(["day"] if any("day" in one for one in shown) else [])]
    return pd.DataFrame([{key: one.get(key, one["title"]) for key in keys} for one in shown], columns=keys)


def _or_none(row, tumour: list[int], patient: str) -> dict | None:
    if row is None or not row.mask_path:
        return None
    return panel(row, tumour, title=patient)


def _visit(row, tumour: list[int], patient: str, field_mm: float) -> dict:
    one = panel(row, tumour, field_mm=field_mm) | {"patient_id": patient, "day": row.day}
    return one | {"title": f"day {row.day:.0f}, {one['volume_ml']:.1f} mL"}


def _airy(image: np.ndarray, lesion: np.ndarray, spacing: float) -> bool:
    if not lesion.any():
        return False
    ring = ndimage.binary_dilation(lesion, iterations=max(1, round(8 / spacing))) & ~lesion
    return bool(np.median(image[ring]) < AIRY_HU)


def _trimmed(planes: dict[str, np.ndarray], above: float) -> dict[str, np.ndarray]:
    """Without the empty margin around what is drawn or brighter than `above`."""
    inside = (planes["image"] > above) | (planes["labels"] > 0)
    if not inside.any():
        return planes
    (box,) = ndimage.find_objects(inside.astype(np.uint8))
    box = tuple(slice(max(side.start - 2, 0), side.stop + 2) for side in box)
    return {name: plane[box] for name, plane in planes.items()}


def _around(plane: np.ndarray, lesion: np.ndarray, field_mm: float, spacing: tuple) -> np.ndarray:
    """A square of `field_mm` about the lesion's centre, cut at the image's edge."""
    centre = ndimage.center_of_mass(lesion)
    half = [field_mm / 2 / size for size in spacing[:2]]
    box = [slice(max(int(c - h), 0), int(c + h) + 1) for c, h in zip(centre, half, strict=True)]
    return plane[tuple(box)]
