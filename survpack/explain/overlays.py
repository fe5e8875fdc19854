"""Attribution over the scan, as a radiologist looks at it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy import ndimage

from survpack.cohort import TUMOUR
from survpack.errors import BadInput
from survpack.grids import finite, like, oriented
from survpack.models import Deep, Patients
from survpack.params import Crops
from survpack.preprocess import CropSet, cube_around, largest_lesion_centre, tumour_of

SAME_MASS = 1e-6  # slices whose attribution differs by less, as a share, are equal
AIR = 0.1  # of the way from the darkest voxel to the 99th percentile: darker is air, unless it is enclosed


def spread_over_risk(model: Deep, patients: Patients, count: int) -> list[int]:
    """Positions of `count` patients from the lowest to the highest risk, chosen without looking at any map."""
    order = np.argsort(model.predict(patients, np.array([1.0])).risk)
    return [int(order[at]) for at in np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))]


def overlays(
    patients: Patients, maps: np.ndarray, chosen: list[int], crops: CropSet, *, orientation: str = "LPS", levels=None
) -> list[dict]:
    """One axial slice a chosen patient for `figures.gradcam`: that of the tumour with most attribution.

    Arrays are (row, column) with the patient's right on the left, as radiologists look at them. The
    image is T1c, else CT, else the first modality there is; the mask itself where there is none.

    Parameters
    ----------
    patients : Patients
    maps : ndarray, shape (n, x, y, z)
    chosen : list of int
        Positions of patients.
    crops : CropSet
    orientation : str
        `preprocess.orientation`: where the axes of the crops run to.
    levels : list of int, optional
        Slices, counted from the feet, of those chosen.
    """
    preferred = [crops.modalities.index(name) for name in ("t1c", "ct") if name in crops.modalities]
    modality = (preferred + [0])[0] if crops.modalities else None
    panels = []
    for place, at in enumerate(chosen):
        tumour = _to_lps(_tumour(patients.masks[at], crops.labels), orientation)
        heat = _to_lps(maps[at], orientation)
        inside = np.where(tumour, np.nan_to_num(heat) + 1e-6, 0).sum(axis=(0, 1))
        level = int(inside.argmax()) if levels is None else levels[place]
        background = tumour if modality is None else _to_lps(patients.images[at, modality], orientation)
        title, spacing = patients.outcome.index[at], (crops.spacing_mm, crops.spacing_mm)
        panels.append(_panel(background, heat, tumour, level, title=title, spacing=spacing))
    return panels


def overlays_by_method(
    patients: Patients, maps: dict[str, np.ndarray], chosen: list[int], crops: CropSet, *, orientation: str = "LPS"
) -> dict[str, list[dict]]:
    """`overlays` of several methods on the same slices: those in which the tumour is widest."""
    tumours = (_to_lps(_tumour(patients.masks[at], crops.labels), orientation) for at in chosen)
    levels = [int(tumour.sum(axis=(0, 1)).argmax()) for tumour in tumours]
    same = {"orientation": orientation, "levels": levels}
    return {method: overlays(patients, own, chosen, crops, **same) for method, own in maps.items()}


def grid_of(
    mask: sitk.Image, tumour_labels: list[int], crops: Crops, spacing_mm: float, orientation: str
) -> sitk.Image:
    """The cube that a network sees of a patient: around the largest lesion of `mask`, as stage 02 cuts it.

    Raises
    ------
    BadInput
        For a mask without a voxel of the tumour.
    """
    if not np.isin(sitk.GetArrayViewFromImage(mask), tumour_labels).any():
        raise BadInput(
            f"mask: no voxel of label {' or '.join(map(str, tumour_labels))}, expected a tumour; draw the lesion."
        )
    centre = largest_lesion_centre(tumour_of(mask, tumour_labels), [1])
    return cube_around(centre, crops.size, spacing_mm, orientation)


def native(
    image: sitk.Image,
    mask: sitk.Image,
    tumour_labels: list[int],
    attribution: np.ndarray,
    grid: sitk.Image,
    *,
    margin_mm: float = 20.0,
    window: tuple[float, float] | None = None,
) -> dict:
    """An attribution on the scan as it was taken: the axial slice that holds most of it, one panel of `overlays`.

    The scan's axes are permuted and flipped, never interpolated: an oblique scan stays oblique. What lies in the air
    is shown, and does not count in choosing the slice. Where several slices hold as much, or there is nothing to hold,
    it is the one with most tumour.

    Parameters
    ----------
    image, mask : sitk.Image
        The native scan, and a mask in the same frame, on any grid.
    tumour_labels : list of int
    attribution : ndarray, shape (x, y, z)
        On `grid`; NaN is nothing.
    grid : sitk.Image
        The cube of the crop (`grid_of`).
    margin_mm : float
        Shown around the cube; infinity for the whole slice.
    window : tuple of two floats, optional
        Intensities that are black and white, as `crops.ct_window_hu` for CT.

    Returns
    -------
    dict
        A panel; and `cube`, where the slice lies in the cube; `level_mm`, how far it lies towards the head in the
        scanner's frame; `mass_share` and `air_share`, how much of all attribution lies in the slice, and in the air,
        NaN where there is none.

    Raises
    ------
    BadInput
        For a cube that lies outside the scan.
    """
    image = _about(oriented(image, "LPS"), grid, margin_mm)
    heat, cube = (_sampled(one, grid, image) for one in (attribution, np.ones(grid.GetSize())))
    numbers = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    tumour, shown = np.isin(_array(numbers), tumour_labels), _array(finite(sitk.Cast(image, sitk.sitkFloat32))[0])
    body, whole = _body(shown), heat.sum(dtype=np.float64)
    mass = np.where(body, heat, 0).sum(axis=(0, 1), dtype=np.float64)
    most = mass >= mass.max() * (1 - SAME_MASS)
    level = int(np.where(most, tumour.sum(axis=(0, 1)), -1).argmax())
    middle = image.TransformPhysicalPointToContinuousIndex(_centre(grid))[:2]
    return _panel(
        shown if window is None else shown.clip(*window),
        heat if whole > 0 else np.full_like(heat, np.nan),
        tumour,
        level,
        cube=cube[:, :, level].T > 0.5,
        spacing=image.GetSpacing()[1::-1],
        level_mm=image.TransformContinuousIndexToPhysicalPoint([*middle, float(level)])[2],
        mass_share=float(heat[:, :, level].sum(dtype=np.float64) / whole) if whole > 0 else np.nan,
        air_share=max(0.0, float(1 - mass.sum() / whole)) if whole > 0 else np.nan,
    )


def averaged(
    patients: Patients, maps: np.ndarray, labels: list[str], *, risk: np.ndarray | None = None, orientation: str = "LPS"
) -> dict[str, dict]:
    """Mean maps over patients; the cubes are centred on the largest lesion, so lesions lie over each other.

    Parameters
    ----------
    patients : Patients
    maps : ndarray, shape (n, x, y, z)
        A patient without a map does not count.
    labels : list of str
        Of the mask.
    risk : ndarray, shape (n,), optional
        The halves below and above its median are averaged too.

    Returns
    -------
    dict of str to dict
        "All patients", "Lower risk", "Higher risk", each `attribution` and `tumour`, the share of these patients whose
        tumour is there, shape (x, y, z), axes to the left, back and head; and `patients`, how many have a map.
    """
    whole = np.ones(len(maps), dtype=bool)
    groups = {"All patients": whole}
    if risk is not None:
        higher = np.asarray(risk) > np.median(risk)
        groups |= {"Lower risk": ~higher, "Higher risk": higher}
    there = np.isfinite(maps).all(axis=(1, 2, 3))
    tumour = np.stack([_to_lps(_tumour(masks, labels), orientation) for masks in patients.masks])
    heat = np.stack([_to_lps(one, orientation) for one in maps])
    nothing, means = np.full(maps.shape[1:], np.nan), {}
    for name, group in groups.items():
        own = group & there
        parts = {"attribution": heat, "tumour": tumour}
        means[name] = {key: part[own].mean(axis=0) if own.any() else nothing for key, part in parts.items()}
        means[name]["patients"] = int(own.sum())
    return means


def attribution_inside(patients: Patients, maps: np.ndarray, labels: list[str]) -> pd.DataFrame:
    """Share of the attribution that lies in the tumour, beside the tumour's share of the cube.

    Returns
    -------
    DataFrame
        `patient_id`, `attribution_in_tumour`, `tumour_in_cube`; NaN where there is no map.
    """
    tumour = np.stack([_tumour(masks, labels) for masks in patients.masks])
    inside = np.where(tumour, maps, 0).sum(axis=(1, 2, 3)) / maps.sum(axis=(1, 2, 3))
    return pd.DataFrame(
        {
            "patient_id": patients.outcome.index,
            "attribution_in_tumour": inside,
            "tumour_in_cube": tumour.mean(axis=(1, 2, 3)),
        }
    )


def _tumour(masks: np.ndarray, labels: list[str]) -> np.ndarray:
    """Where the tumour is, shape (x, y, z)."""
    return masks[[channel for channel, label in enumerate(labels) if label in TUMOUR]].max(axis=0) > 0


def _panel(image: np.ndarray, heat: np.ndarray, tumour: np.ndarray, level: int, *, title: str = "", **more) -> dict:
    """Slice `level` of arrays (x, y, z) whose axes run to the left, back and head: columns, rows downwards, slices."""
    return {
        "image": image[:, :, level].T.astype(float),
        "attribution": heat[:, :, level].T,
        "mask": tumour[:, :, level].T.astype(int),
        "title": title,
        "left_label": "R",
        "right_label": "L",
        **more,
    }


def _to_lps(array: np.ndarray, orientation: str) -> np.ndarray:
    """Turn axes (x, y, z) that run the way of `orientation` so that they run to the left, the back and the head."""
    opposite = {"R": "L", "A": "P", "I": "S"}
    own = [opposite.get(letter, letter) for letter in orientation]
    flipped = [axis for axis, letter in enumerate(orientation) if letter in opposite]
    return np.flip(array, flipped).transpose([own.index(letter) for letter in "LPS"])


def _sampled(values: np.ndarray, grid: sitk.Image, image: sitk.Image) -> np.ndarray:
    """`values` (x, y, z) of `grid` at the voxels of `image`, zero outside; NaN is zero."""
    placed = like(np.nan_to_num(np.asarray(values, np.float32)).transpose(2, 1, 0), grid)
    return _array(sitk.Resample(placed, image, sitk.Transform(), sitk.sitkLinear, 0.0))


def _body(image: np.ndarray) -> np.ndarray:
    """Where there is no air, shape (x, y, z); what air or fluid a slice encloses belongs to it."""
    low, high = image.min(), np.percentile(image, 99)
    body = image > low + AIR * (high - low)
    return np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(body, 2, 0)], axis=2)


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0)


def _centre(grid: sitk.Image) -> tuple[float, ...]:
    return grid.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in grid.GetSize()])


def _about(image: sitk.Image, grid: sitk.Image, margin_mm: float) -> sitk.Image:
    """`image` cut to the cube: its slices to those that meet it, each with a margin."""
    last = [size - 0.5 for size in grid.GetSize()]
    corners = [
        grid.TransformContinuousIndexToPhysicalPoint(corner) for corner in product(*[(-0.5, end) for end in last])
    ]
    places = np.array([image.TransformPhysicalPointToContinuousIndex(corner) for corner in corners])
    margin = np.divide([margin_mm, margin_mm, 0], image.GetSpacing())
    size = np.array(image.GetSize())
    start = np.clip(np.floor(places.min(axis=0) - margin + 0.5), 0, size).astype(int)
    stop = np.clip(np.ceil(places.max(axis=0) + margin + 0.5), 0, size).astype(int)
    if (stop <= start).any():
        raise BadInput(
            "scan: the lesion of the mask lies outside it, expected a mask in the frame of its scan; register the two, "
            "or send the mask that belongs to this scan."
        )
    return sitk.RegionOfInterest(image, (stop - start).tolist(), start.tolist())
