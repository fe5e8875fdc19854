"""Grids: how an image is turned, and how it and its mask come onto one grid of isotropic voxels.

Nothing is rotated: axes keep their directions, oblique ones too, and a grid shares its centre with the image's (IBSI
manual 2.4, "align grid centres"). So an image and a mask on one grid stay on one grid, whatever is cut from them.
"""

from __future__ import annotations

from math import ceil

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from survpack.params import Resample

SAME_MM = 1e-3  # spacings that differ by less are the same
SPLINE_REACH = 12  # voxels after which a cubic spline has forgotten its border: 0.27 to the twelfth is 1e-7


def oriented(image: sitk.Image, choice: str) -> sitk.Image:
    """`image` with its axes turned the way of `choice`, by permuting and flipping alone.

    Parameters
    ----------
    image : sitk.Image
    choice : str
        Where the axes run to: "LPS" (left, back, head) or "RAS" (right, front, head).

    Returns
    -------
    sitk.Image
        Every voxel keeps its value and its place in the patient. Oblique axes are named after the nearest main
        direction and stay oblique: nothing is interpolated.
    """
    return sitk.DICOMOrient(image, choice)


def same_grid(one: sitk.Image, other: sitk.Image) -> bool:
    """Whether both have the same size, and no corner differs by a hundredth of a voxel."""
    if one.GetSize() != other.GetSize():
        return False
    far = max(np.abs(np.subtract(*pair)).max() for pair in zip(_corners(one), _corners(other), strict=True))
    return bool(far <= max(SAME_MM, 0.01 * min(one.GetSpacing())))


def resampled(image: sitk.Image, spacing_mm: float, how: str) -> sitk.Image:
    """The whole of `image` on isotropic voxels.

    Parameters
    ----------
    image : sitk.Image
    spacing_mm : float
    how : str
        "spline" (cubic B-spline) or "linear". Values stay within the image's own range: a spline overshoots beside
        sharp edges, and what no scanner measured (-1400 HU beside bone) is cut off.

    Returns
    -------
    sitk.Image
        Of float32; the image itself, untouched, where its spacing is `spacing_mm` already (to 0.001 mm).
    """
    if _has_spacing(image, spacing_mm):
        return image
    return _sampled(image, _positions(image, spacing_mm), spacing_mm, how)


def resampled_mask(mask: sitk.Image, spacing_mm: float, how: str) -> sitk.Image:
    """The whole of `mask` on isotropic voxels, the grid that `resampled` gives an image of the same grid.

    Parameters
    ----------
    mask : sitk.Image
    spacing_mm : float
    how : str
        "nearest": the label at the voxel's centre; midway between two voxels it is that of the higher index.
        "half": linear for each label; inside is where the labels together reach 0.5, of which the largest wins
        (where two are equal, the one with more voxels in the mask).
    """
    if _has_spacing(mask, spacing_mm):
        return mask
    return _sampled_mask(mask, _positions(mask, spacing_mm), spacing_mm, how)


def on_one_grid(
    image: sitk.Image | None,
    mask: sitk.Image,
    spacing_mm: float,
    choice: Resample | dict,
    orientation: str | None = None,
    margin_mm: float = 10.0,
) -> tuple[sitk.Image | None, sitk.Image, str]:
    """Image and mask around the region, on the same isotropic voxels.

    Cut to the region and a margin first: the result is a part of what `resampled` and `resampled_mask` give.

    Parameters
    ----------
    image : sitk.Image or None
        None for a mask alone.
    mask : sitk.Image
        Labels, 0 outside; a label that is not wanted is to be set to 0 before. On another grid than the image it is
        brought onto the image's by nearest neighbour.
    spacing_mm : float
    choice : Resample or dict
        `preprocess.resample` of params.yaml.
    orientation : str, optional
        As `oriented` has it; None leaves the axes as they are.
    margin_mm : float
        What filters need beside the region; less where the image ends.

    Returns
    -------
    image : sitk.Image or None
    mask : sitk.Image
    reason : str
        What is to be known: another grid, voxels that are not finite, a label lost on the coarser grid. "" where
        there is nothing.
    """
    reasons, choice = [], Resample.model_validate(choice)
    if image is not None and not same_grid(image, mask):
        mask, reason = mask_onto(mask, image)
        reasons.append(reason)
    box = region(mask)
    if box is None:
        reasons.append("the mask is empty")
        box = [(0, size - 1) for size in mask.GetSize()]
    where = [
        _around(axis, first, last, margin_mm / own)
        for axis, (first, last), own in zip(_positions(mask, spacing_mm), box, mask.GetSpacing(), strict=True)
    ]
    before = _labels(_cut_array(mask, where)[0])
    image, mask = _brought(image, mask, where, spacing_mm, choice)
    if image is not None and (bad := np.count_nonzero(~np.isfinite(sitk.GetArrayViewFromImage(image)))):
        reasons.append(f"{bad} voxels in and around the region are not finite")
    if lost := sorted(before - _labels(sitk.GetArrayViewFromImage(mask))):
        reasons.append(f"label {', '.join(f'{label:g}' for label in lost)} is lost on voxels of {spacing_mm:g} mm")
    if orientation:
        image, mask = image and oriented(image, orientation), oriented(mask, orientation)
    return image, mask, "; ".join(reasons)


def finite(image: sitk.Image, name: str = "") -> tuple[sitk.Image, str]:
    """`image` without NaN and infinite voxels: each takes the value of the nearest that is a number.

    Returns
    -------
    image : sitk.Image
        The image itself where all is in order; zeros where no voxel is a number.
    reason : str
        How many there are, and in which file (`name`); "" if none.
    """
    array = sitk.GetArrayViewFromImage(image)
    if _all_finite(array):
        return image, ""
    bad = ~np.isfinite(array)
    out = like(_filled(array, bad, image.GetSpacing()[::-1]), image)
    where = f"{name}: " if name else ""
    return out, f"{where}{int(bad.sum())} of {bad.size} voxels are not finite, replaced by the nearest that is"


def like(array: np.ndarray, image: sitk.Image) -> sitk.Image:
    """An image of `array` (z, y, x) that lies where `image` does."""
    made = sitk.GetImageFromArray(array)
    made.CopyInformation(image)
    return made


def region(mask: sitk.Image) -> list[tuple[int, int]] | None:
    """First and last index of what is not 0, along x, y and z; None where all is."""
    array = sitk.GetArrayViewFromImage(mask)
    found = []
    for axis in range(3):  # each cut makes the next search smaller
        inside = np.flatnonzero(array.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(inside):
            return None
        found.append((int(inside[0]), int(inside[-1])))
        array = array[(slice(None),) * axis + (slice(inside[0], inside[-1] + 1),)]
    return found[::-1]


def mask_onto(mask: sitk.Image, image: sitk.Image) -> tuple[sitk.Image, str]:
    """`mask` on the grid of `image` by nearest neighbour, and how it lay before, with the share that fell outside."""
    moved = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    size, spacing = mask.GetSize(), ", ".join(f"{each:.3g}" for each in mask.GetSpacing())
    before, after = (_millilitres(each) for each in (mask, moved))
    change = "" if not before else f", {100 * (after / before - 1):+.1f} % of volume"
    off = np.linalg.norm(np.subtract(mask.GetOrigin(), image.GetOrigin()))
    return moved, (
        f"mask on another grid than its image (size {size}, spacing {spacing} mm, origin {off:.3g} mm away): "
        f"brought onto the image's{change}"
    )


def _corners(image: sitk.Image) -> list[tuple[float, ...]]:
    """Places of the first voxel and of the last along each axis, mm."""
    size = image.GetSize()
    last = [[(size[axis] - 1) * (axis == other) for axis in range(3)] for other in range(3)]
    return [image.TransformIndexToPhysicalPoint(index) for index in ([0, 0, 0], *last)]


def _millilitres(mask: sitk.Image) -> float:
    return np.count_nonzero(sitk.GetArrayViewFromImage(mask)) * float(np.prod(mask.GetSpacing())) / 1000


def _has_spacing(image: sitk.Image, spacing_mm: float) -> bool:
    return all(abs(own - spacing_mm) <= SAME_MM for own in image.GetSpacing())


def _positions(image: sitk.Image, spacing_mm: float) -> list[np.ndarray]:
    """Along each axis, the centres of the new voxels in indices of the old; all lie within the old ones' outer edges."""
    if _has_spacing(image, spacing_mm):
        return [np.arange(size, dtype=float) for size in image.GetSize()]
    found = []
    for size, own in zip(image.GetSize(), image.GetSpacing(), strict=True):
        count = max(ceil(size * own / spacing_mm - 1e-3), 1)  # a thousandth of a voxel is rounding, not image
        found.append((np.arange(count) - (count - 1) / 2) * spacing_mm / own + (size - 1) / 2)
    return found


def _around(axis: np.ndarray, first: float, last: float, margin: float) -> np.ndarray:
    """The positions that cover `first` … `last` and the margin, rounded outwards."""
    start = max(int(np.searchsorted(axis, first - margin, side="right")) - 1, 0)
    stop = min(int(np.searchsorted(axis, last + margin, side="left")) + 1, len(axis))
    return axis[start:stop]


def _cut_array(image: sitk.Image, where: list[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """View (z, y, x) of the voxels that a spline at `where` depends on, and the index (x, y, z) at which it starts."""
    start = [max(int(axis[0]) - SPLINE_REACH, 0) for axis in where]
    stop = [int(axis[-1]) + SPLINE_REACH + 2 for axis in where]  # numpy ends a slice where the axis does
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return sitk.GetArrayViewFromImage(image)[box[::-1]], start


def _labels(array: np.ndarray) -> set[float]:
    return set(np.unique(array).tolist()) - {0}


def _all_finite(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array.sum(dtype=np.float64)))  # quicker than voxel by voxel


def _filled(array: np.ndarray, bad: np.ndarray, spacing) -> np.ndarray:
    """`array` whose `bad` voxels have the value of the nearest other; zeros where there is none."""
    if bad.all():
        return np.zeros_like(array)
    return array[tuple(ndimage.distance_transform_edt(bad, spacing, return_distances=False, return_indices=True))]


def _brought(image, mask: sitk.Image, where: list[np.ndarray], spacing_mm: float, choice: Resample) -> tuple:
    if _has_spacing(mask, spacing_mm):
        size, start = [len(axis) for axis in where], [int(axis[0]) for axis in where]
        return image and sitk.RegionOfInterest(image, size, start), sitk.RegionOfInterest(mask, size, start)
    sampled = _sampled_mask(mask, where, spacing_mm, choice.mask)
    return image and _sampled(image, where, spacing_mm, choice.image), sampled


def _sampled(image: sitk.Image, where: list[np.ndarray], spacing_mm: float, how: str) -> sitk.Image:
    whole = sitk.GetArrayViewFromImage(image)
    values, start = _cut_array(image, where)
    bad = None if _all_finite(values) else ~np.isfinite(values)
    if bad is not None:  # a spline would spread one NaN over its whole line
        values = _filled(values, bad, image.GetSpacing()[::-1])
    out = _interpolated(values, image, where, start, spacing_mm, {"spline": 3, "linear": 1}[how])
    known = whole if _all_finite(whole) else whole[np.isfinite(whole)]
    if known.size:
        np.clip(out, known.min(), known.max(), out=out)
    if bad is not None:
        nearest = _nearest(where, image.GetSize())
        out[bad[np.ix_(*[axis - first for axis, first in zip(nearest, start, strict=True)][::-1])]] = np.nan
    return _placed(out, image, where, spacing_mm)


def _nearest(where: list[np.ndarray], size) -> list[np.ndarray]:
    """Indices nearest to `where`; the higher of two that are equally near, whatever the rounding errors."""
    return [np.floor(axis + 0.5 + 1e-6).astype(int).clip(0, count - 1) for axis, count in zip(where, size, strict=True)]


def _sampled_mask(mask: sitk.Image, where: list[np.ndarray], spacing_mm: float, how: str) -> sitk.Image:
    if how == "nearest":
        nearest = np.ix_(*_nearest(where, mask.GetSize())[::-1])
        return _placed(sitk.GetArrayViewFromImage(mask)[nearest], mask, where, spacing_mm)
    values, start = _cut_array(mask, where)
    numbers, voxels = np.unique(values[values != 0], return_counts=True)
    out = np.zeros([len(axis) for axis in where[::-1]], dtype=values.dtype)
    best, together = np.zeros(out.shape, np.float32), np.zeros(out.shape, np.float32)
    for number in numbers[np.argsort(-voxels, kind="stable")]:  # the larger label comes first and keeps a tie
        share = _interpolated(values == number, mask, where, start, spacing_mm, 1)
        more = share > best + 1e-6
        out[more], best[more] = number, share[more]
        together += share
    out[together < 0.5 - 1e-6] = 0
    return _placed(out, mask, where, spacing_mm)


def _interpolated(values, image: sitk.Image, where, start, spacing_mm: float, order: int) -> np.ndarray:
    """`values` (z, y, x), which begin at index `start`, at the positions `where`."""
    step = [spacing_mm / own for own in image.GetSpacing()]
    offset = [axis[0] - first for axis, first in zip(where, start, strict=True)]
    shape, mode = [len(axis) for axis in where], "mirror" if order > 1 else "nearest"
    return ndimage.affine_transform(
        values.astype(np.float32), step[::-1], offset[::-1], shape[::-1], np.float32, order, mode
    )


def _placed(array: np.ndarray, image: sitk.Image, where: list[np.ndarray], spacing_mm: float) -> sitk.Image:
    """An image of `array` (z, y, x) whose first voxel lies at the first of `where`."""
    out = sitk.GetImageFromArray(array)
    out.SetSpacing([spacing_mm] * 3)
    out.SetDirection(image.GetDirection())
    out.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([float(axis[0]) for axis in where]))
    return out
