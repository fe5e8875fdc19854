"""From volume and mask to what a network sees: a cube around the largest lesion, on one grid."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from joblib import Parallel, delayed
from tqdm import tqdm

from survpack.cohort import Cohort
from survpack.errors import BadInput
from survpack.params import Crops, per_cohort
from survpack.paths import written_whole

BASELINE_DAYS = 30  # CT, MR and PET of one work-up are seldom taken on one day


@dataclass(frozen=True)
class CropSet:
    """The crops of a cohort.

    Attributes
    ----------
    patient_ids : list of str
    images : ndarray of float16, shape (patients, modalities, x, y, z)
        Normalised; axes run to the patient's left, back and head (LPS). No modality for a
        cohort of masks only. A modality a patient lacks is all zeros.
    masks : ndarray of float16, shape (patients, labels, x, y, z)
    modalities, labels : list of str
    spacing_mm : float
    """

    patient_ids: list[str]
    images: np.ndarray
    masks: np.ndarray
    modalities: list[str]
    labels: list[str]
    spacing_mm: float

    def save(self, folder: Path) -> None:
        """Write two npy files and a JSON, whole or not at all."""
        facts = {name: getattr(self, name) for name in ("patient_ids", "modalities", "labels", "spacing_mm")}
        with written_whole(folder) as part:
            part.mkdir()
            np.save(part / "images.npy", self.images, allow_pickle=False)
            np.save(part / "masks.npy", self.masks, allow_pickle=False)
            (part / "crops.json").write_text(json.dumps(facts, indent=1))

    @classmethod
    def load(cls, folder: Path) -> CropSet:
        facts = json.loads((Path(folder) / "crops.json").read_text())
        arrays = {name: np.load(Path(folder) / f"{name}.npy", allow_pickle=False) for name in ("images", "masks")}
        return cls(**facts, **arrays)


def make_crops(cohort: Cohort, params: Crops) -> CropSet:
    """Crop every patient of a cohort; a progress bar shows how far it is.

    Every image is centred on the largest lesion of its own mask, because CT, PET and MR of one
    patient need not share a frame of reference.
    """
    spacing = per_cohort(params.spacing_mm, cohort.name)
    modalities = [name for name in cohort.modalities if name != "mask"]
    groups = dict(tuple(at_baseline(cohort.images).groupby("patient_id", sort=False)))
    patients = cohort.participants["patient_id"].tolist()
    bar = tqdm(patients, desc=f"{cohort.name}: crops", mininterval=2)
    crops = Parallel(n_jobs=-1, prefer="threads")(
        delayed(_crop_patient)(groups[patient], modalities, cohort, params, spacing) for patient in bar
    )
    images, masks = (np.stack(parts).astype(np.float16) for parts in zip(*crops, strict=True))
    return CropSet(patients, images, masks, modalities, list(_numbers(cohort.labels)), spacing)


def _crop_patient(rows: pd.DataFrame, modalities: list[str], cohort: Cohort, params: Crops, spacing: float):
    size = params.size
    images = np.zeros((len(modalities), size, size, size), dtype=np.float32)
    for row in rows[rows["path"] != ""].itertuples():
        mask = read_image(row.mask_path)
        grid = cube_around(largest_lesion_centre(mask, cohort.tumour_labels), size, spacing)
        image = normalise(read_image(row.path, sitk.sitkFloat32), row.modality, params)
        images[modalities.index(row.modality)] = onto(image, grid, sitk.sitkLinear)
    mask = read_image(rows["mask_path"].iloc[0])
    grid = cube_around(largest_lesion_centre(mask, cohort.tumour_labels), size, spacing)
    numbers = onto(mask, grid, sitk.sitkNearestNeighbor)
    return images, np.stack([np.isin(numbers, own) for own in _numbers(cohort.labels).values()]).astype(np.float32)


def _numbers(labels: dict[int, str]) -> dict[str, list[int]]:
    """Meaning to its numbers in the mask."""
    return {name: [number for number, meaning in labels.items() if meaning == name] for name in labels.values()}


def read_image(path: str, pixel: int = sitk.sitkUnknown) -> sitk.Image:
    """A volume from disk.

    Raises
    ------
    BadInput
        For what is no image, axes that are not at right angles, or more than one volume.
    """
    try:
        image = sitk.ReadImage(path, pixel)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise BadInput(
            f"{path}: unreadable ({reason}), expected a NIfTI file with axes at right angles; "
            "copy it anew, or resample it onto such axes."
        ) from None
    size = image.GetSize()
    if len(size) < 3 or max(size[3:], default=1) > 1:
        raise BadInput(f"{path}: an image of size {size}, expected one volume of three axes; extract one volume.")
    return image if len(size) == 3 else sitk.Extract(image, [*size[:3], *[0] * (len(size) - 3)])


def at_baseline(images: pd.DataFrame) -> pd.DataFrame:
    """One image a patient and modality, the nearest to baseline: a follow-up scan must not tell of the outcome.

    What was taken in another session, over `BASELINE_DAYS` after the patient's nearest image, is follow-up, even where
    it is the only one of its modality. A day that is not known comes last.
    """
    nearest = images.sort_values("day", key=abs, kind="stable")
    first = nearest.groupby("patient_id")[["day", "session"]].transform("first")
    follow_up = (nearest["day"] > first["day"] + BASELINE_DAYS) & (nearest["session"] != first["session"])
    return nearest[~follow_up].drop_duplicates(["patient_id", "modality"]).sort_index()


def largest_lesion_centre(mask: sitk.Image, tumour_labels: list[int]) -> tuple[float, float, float]:
    """Centroid of the largest connected tumour component, mm in the scanner's frame."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(sitk.ConnectedComponent(tumour_of(mask, tumour_labels), True))
    return statistics.GetCentroid(max(statistics.GetLabels(), key=statistics.GetNumberOfPixels))


def tumour_of(mask: sitk.Image, tumour_labels: list[int]) -> sitk.Image:
    """Binary image of the tumour, cut to its bounding box (masks of a whole trunk are large)."""
    array = sitk.GetArrayViewFromImage(mask)
    inside = np.isin(array, tumour_labels)
    box = [np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))][::-1]
    start = [int(max(axis[0] - 2, 0)) for axis in box]
    stop = [int(min(axis[-1] + 3, size)) for axis, size in zip(box, mask.GetSize(), strict=True)]
    cut = sitk.RegionOfInterest(mask, [b - a for a, b in zip(start, stop, strict=True)], start)
    binary = sitk.GetImageFromArray(np.isin(sitk.GetArrayViewFromImage(cut), tumour_labels).astype(np.uint8))
    binary.CopyInformation(cut)
    return binary


def cube_around(centre, size: int, spacing: float) -> sitk.Image:
    """An empty cube of `size` voxels a side, its axes along the patient's (LPS)."""
    grid = sitk.Image([size] * 3, sitk.sitkUInt8)
    grid.SetSpacing([spacing] * 3)
    grid.SetOrigin([c - spacing * (size - 1) / 2 for c in centre])
    return grid


def onto(image: sitk.Image, grid: sitk.Image, interpolator: int) -> np.ndarray:
    """`image` sampled on `grid`, as an array (x, y, z); images are smoothed first where the grid is coarser."""
    outside = 0.0
    if interpolator == sitk.sitkLinear:
        outside = float(sitk.GetArrayViewFromImage(image).min())
        sigma = [grid.GetSpacing()[0] / 2 if own < grid.GetSpacing()[0] / 1.5 else 0 for own in image.GetSpacing()]
        for axis, width in enumerate(sigma):
            if width and image.GetSize()[axis] > 3:
                image = sitk.RecursiveGaussian(image, width, direction=axis)
    sampled = sitk.Resample(image, grid, sitk.Transform(), interpolator, outside)
    return sitk.GetArrayFromImage(sampled).transpose(2, 1, 0)


def normalise(image: sitk.Image, modality: str, params: Crops) -> sitk.Image:
    """Intensities to about one unit; needs nothing but the patient's own image.

    CT is windowed (HU) and PET capped (SUV), both to 0 … 1; MR is a z-score over the voxels
    above zero, which is the brain in a skull-stripped scan.
    """
    if modality == "ct":
        low, high = params.ct_window_hu
        return sitk.IntensityWindowing(image, low, high, 0, 1)
    if modality == "pt":
        return sitk.IntensityWindowing(image, 0, params.suv_max, 0, 1)
    values = sitk.GetArrayViewFromImage(image)
    values = values[values > 0]
    return (image - float(values.mean())) / max(float(values.std()), 1e-6)
