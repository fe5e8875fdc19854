"""Masks on the grid of an image, from an RTSTRUCT (contours) or a DICOM SEG (voxels).

A voxel belongs to a region if its centre lies inside the contour. Contours of one plane are combined by exclusive or,
so that one inside another is a hole.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np

from survpack.dicom.series import Series, header
from survpack.errors import BadInput

TUMOUR = r"GTV|tumou?r|neoplasm|mass|lesion"
_FLAT = 0.1  # slice distances a contour may be tilted over


def annotations_of(series: Series, annotations: list) -> list[tuple[Path, object]]:
    """The RTSTRUCT and SEG files of a series: those that name it, else those in its frame of reference."""
    mine = [(path, head) for path, head in annotations if head.get("PatientID") == series.head.PatientID]
    named = [(path, head) for path, head in mine if series.head.SeriesInstanceUID in _referenced(head)]
    frame = series.head.get("FrameOfReferenceUID")
    return named or [(path, head) for path, head in mine if frame and frame in _frames(head)]


def regions(head, pattern: str) -> dict[int, str]:
    """Number and name of the regions whose name matches `pattern`, whatever its case."""
    if head.Modality == "RTSTRUCT":
        rois = head.get("StructureSetROISequence") or []
        named = {int(roi.ROINumber): str(roi.get("ROIName") or "") for roi in rois if "ROINumber" in roi}
    else:
        segments = head.get("SegmentSequence") or []
        named = {int(one.SegmentNumber): _segment_name(one) for one in segments if "SegmentNumber" in one}
    return {number: name for number, name in named.items() if re.search(pattern, name, re.IGNORECASE)}


def mask_of(path: Path, head, numbers: list[int], affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The union of regions on a grid.

    Parameters
    ----------
    path, head
        Of the RTSTRUCT or SEG.
    numbers : list of int
        Of the regions.
    affine : ndarray, shape (4, 4)
        From (column, row, slice) to mm, DICOM axes.
    shape : tuple of 3 ints

    Returns
    -------
    ndarray of bool, of `shape`
    """
    if head.Modality == "SEG":
        return _from_segmentation(path, numbers, affine, shape)
    mask, drawn = np.zeros(shape, dtype=bool), header(path, whole=True).get("ROIContourSequence") or []
    try:
        regions = [_closed(contours) for contours in drawn if int(contours.ReferencedROINumber) in numbers]
    except (AttributeError, TypeError, ValueError) as error:  # a contour that is lost unseen would be a wrong mask
        raise BadInput(f"{path}: the structure set cannot be read ({error}); export it again.") from None
    for contours in regions:
        mask |= filled(contours, affine, shape, path)
    return mask


def filled(contours: list[np.ndarray], affine: np.ndarray, shape: tuple[int, int, int], where="contours") -> np.ndarray:
    """Contours of one region as a mask on a grid.

    Each slice takes the nearest plane of contours, if no further than half the distance of the planes: contours drawn
    on another series of the same frame of reference are thus neither lost nor counted twice.

    Parameters
    ----------
    contours : list of ndarray, shape (points, 3)
        Closed, in mm, DICOM axes.
    affine, shape
        As in `mask_of`.

    Raises
    ------
    BadInput
        Where contours are not parallel to the slices.
    """
    planes: dict[float, np.ndarray] = {}
    backward = np.linalg.inv(affine)
    for points in contours:
        at = points @ backward[:3, :3].T + backward[:3, 3]
        if np.ptp(at[:, 2]) > _FLAT:
            raise BadInput(f"{where}: a contour lies across the slices, expected along them; draw it on this series.")
        height = round(float(at[:, 2].mean()), 2)
        planes.setdefault(height, np.zeros(shape[:2], dtype=bool))
        planes[height] ^= _polygon(at[:, :2], shape[:2])
    mask = np.zeros(shape, dtype=bool)
    if planes:
        heights = np.array(sorted(planes))
        reach = max(1.0, float(np.median(np.diff(heights))) if len(heights) > 1 else 1.0) / 2 + 0.01
        for number in range(shape[2]):
            nearest = heights[np.abs(heights - number).argmin()]
            if abs(nearest - number) <= reach:
                mask[:, :, number] = planes[nearest]
    return mask


def onto_grid(mask: np.ndarray, indices: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A mask on another grid by nearest neighbour; `indices` (4, 4) leads from the new grid's indices to the mask's."""
    from scipy.ndimage import affine_transform

    moved = affine_transform(
        mask.astype(np.uint8), indices[:3, :3], indices[:3, 3], output_shape=shape, order=0, mode="grid-constant"
    )  # "constant" would lose a border voxel whose index comes out as -1e-16
    return moved.astype(bool)


def _polygon(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The voxels of a slice whose centre is inside; only the polygon's surroundings are looked at."""
    from matplotlib.path import Path as Polygon

    inside = np.zeros(shape, dtype=bool)
    low = np.clip(np.floor(points.min(axis=0)).astype(int), 0, shape)
    high = np.clip(np.ceil(points.max(axis=0)).astype(int) + 1, 0, shape)
    centres = np.stack(np.mgrid[low[0] : high[0], low[1] : high[1]], axis=-1)
    if centres.size:
        hit = Polygon(points).contains_points(centres.reshape(-1, 2)).reshape(centres.shape[:2])
        inside[low[0] : high[0], low[1] : high[1]] = hit
    return inside


def _closed(contours) -> list[np.ndarray]:
    return [
        np.array(one.ContourData, dtype=float).reshape(-1, 3)
        for one in contours.get("ContourSequence") or []
        if str(one.ContourGeometricType).startswith("CLOSED") and len(one.ContourData or []) >= 9
    ]


def _from_segmentation(path: Path, numbers: list[int], affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The nearest voxel of the SEG for each voxel of the grid; outside its frames is background."""
    import highdicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volume = highdicom.seg.segread(path).get_volume(
                segment_numbers=numbers, combine_segments=False, rescale_fractional=True
            )
    except (ValueError, RuntimeError, AttributeError, KeyError) as error:
        told = " ".join(str(error).split())[:200]
        raise BadInput(f"{path}: the segmentation cannot be read ({told}); export it again as DICOM SEG.") from None
    present = (volume.array > 0.5).any(axis=-1)
    onto = np.linalg.inv(volume.affine) @ affine
    return onto_grid(present, onto, shape)


def _referenced(head) -> set[str]:
    """UIDs of the series an RTSTRUCT or SEG names."""
    series = [one.get("SeriesInstanceUID") for one in head.get("ReferencedSeriesSequence") or []]
    for frame in head.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            series += [one.get("SeriesInstanceUID") for one in study.get("RTReferencedSeriesSequence") or []]
    return set(filter(None, series))


def _frames(head) -> set[str]:
    frames = [one.get("FrameOfReferenceUID") for one in head.get("ReferencedFrameOfReferenceSequence") or []]
    frames += [roi.get("ReferencedFrameOfReferenceUID") for roi in head.get("StructureSetROISequence") or []]
    return set(filter(None, [*frames, head.get("FrameOfReferenceUID")]))


def _segment_name(segment) -> str:
    kind = [one.get("CodeMeaning", "") for one in segment.get("SegmentedPropertyTypeCodeSequence") or []]
    return " ".join(map(str, [segment.get("SegmentLabel", ""), *kind])).strip()
