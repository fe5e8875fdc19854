"""From volume and mask to what a network sees: a cube around the largest lesion, on one grid.

The declared steps before it, which features share, are in `grids` (orientation, resampling) and `normalise` (MR).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from joblib import Parallel, delayed
from tqdm import tqdm

from survpack import nifti
from survpack.cohort import Cohort
from survpack.errors import BadInput
from survpack.grids import finite, like, oriented
from survpack.normalise import normalised
from survpack.params import Crops, Preprocess, per_cohort
from survpack.paths import written_whole

SAME_FRAME_DICE = 0.8  # masks of one lesion in one frame overlap by more: 0.87 or more in 50 of 51 patients of sts
FLOATS = (sitk.sitkFloat32, sitk.sitkFloat64)
_TO_LPS = np.diag([-1.0, -1.0, 1.0])  # NIfTI counts to the right and front, ITK to the left and back
LARGEST = float(np.finfo(np.float16).max)  # crops are kept in half precision
BASELINE_DAYS = 30  # CT, MR and PET of one work-up are seldom taken on one day


@dataclass(frozen=True)
class CropSet:
    """The crops of a cohort.

    Attributes
    ----------
    patient_ids : list of str
    images : ndarray of float16, shape (patients, modalities, x, y, z)
        Normalised; axes run as `preprocess.orientation` says (to the patient's left, back and head: LPS). No
        modality for a cohort of masks only. A modality a patient lacks is all zeros.
    masks : ndarray of float16, shape (patients, labels, x, y, z)
        No label for a cohort in which nobody was imaged.
    modalities, labels : list of str
    spacing_mm : float
    aligned : dict of str to bool
        Patient to whether one voxel is one place in all modalities (their masks overlap, or are one). If not, each
        modality is centred on the lesion of its own mask, and the mask is the first one's.
    notes : dict of str to str
        Patient to what could not be done as asked; only those of whom there is something to say.
    """

    patient_ids: list[str]
    images: np.ndarray
    masks: np.ndarray
    modalities: list[str]
    labels: list[str]
    spacing_mm: float
    aligned: dict[str, bool] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write two npy files and a JSON, whole or not at all."""
        names = ("patient_ids", "modalities", "labels", "spacing_mm", "aligned", "notes")
        facts = {name: getattr(self, name) for name in names}
        with written_whole(folder) as part:
            part.mkdir()
            np.save(part / "images.npy", self.images, allow_pickle=False)
            np.save(part / "masks.npy", self.masks, allow_pickle=False)
            (part / "crops.json").write_text(json.dumps(facts, indent=1))

    @classmethod
    def load(cls, folder: Path) -> CropSet:
        """What `save` wrote; BadInput names the patient of whom a voxel is not finite."""
        facts = json.loads((Path(folder) / "crops.json").read_text())
        arrays = {name: np.load(Path(folder) / f"{name}.npy", allow_pickle=False) for name in ("images", "masks")}
        finite = np.isfinite(arrays["images"]).all(axis=(1, 2, 3, 4))
        if not finite.all():
            raise BadInput(
                f"{Path(folder) / 'images.npy'}, patient {facts['patient_ids'][int(np.argmin(finite))]}: a voxel that is "
                "not a finite number, expected numbers throughout; run stage 02 again, or exclude the patient."
            )
        return cls(**facts, **arrays)


def make_crops(cohort: Cohort, params: Crops, choice: Preprocess) -> CropSet:
    """Crop every patient of a cohort; a progress bar shows how far it is.

    CT, PET and MR of one patient need not share a frame of reference. Where their masks overlap (`share_frame`) they
    do, and one cube around the largest lesion of the first mask is cut from all; else each image is centred on the
    largest lesion of its own mask.
    """
    modalities = [name for name in cohort.modalities if name != "mask"]
    groups = dict(tuple(at_baseline(cohort.images).groupby("patient_id", sort=False)))
    spacing = per_cohort(params.spacing_mm, cohort.name) if groups else 1.0  # of empty cubes
    if "ct" in modalities:
        params = params.model_copy(update={"ct_window_hu": per_cohort(params.ct_window_hu, cohort.name)})
    labels = list(_numbers(cohort.labels)) if groups else []
    patients, nothing = cohort.participants["patient_id"].tolist(), cohort.images.iloc[:0]
    bar = tqdm(patients, desc=f"{cohort.name}: crops", mininterval=2)
    crops = Parallel(n_jobs=-1, prefer="threads")(
        delayed(crop_patient)(groups.get(patient, nothing), modalities, cohort, params, choice, spacing)
        for patient in bar
    )
    images, masks, aligned, notes = zip(*crops, strict=True)
    return CropSet(
        patients,
        np.stack(images).astype(np.float16),
        np.stack(masks)[:, : len(labels)].astype(np.float16),
        modalities,
        labels,
        spacing,
        dict(zip(patients, aligned, strict=True)),
        {patient: note for patient, note in zip(patients, notes, strict=True) if note},
    )


def crop_patient(
    rows: pd.DataFrame, modalities: list[str], cohort: Cohort, params: Crops, choice: Preprocess, spacing: float
):
    images = np.zeros((len(modalities), *[params.size] * 3), dtype=np.float32)
    if rows.empty:
        masks = np.zeros((len(_numbers(cohort.labels)), *[params.size] * 3), dtype=np.float32)
        return images, masks, True, "no image and no mask"
    lesions = {path: _lesion(path, cohort.tumour_labels) for path in dict.fromkeys(rows["mask_path"])}
    first = rows["mask_path"].iloc[0]
    aligned, notes = share_frame(list(lesions.values())), []
    cubes = {
        path: cube_around(largest_lesion_centre(lesion, [1]), params.size, spacing, choice.orientation)
        for path, lesion in lesions.items()
    }
    for row in rows[rows["path"] != ""].itertuples():
        image, note = finite(read_image(row.path, sitk.sitkFloat32), row.path)
        notes.append(note)
        image, note = for_network(image, row.modality, params, choice)
        notes.append(note)
        grid = cubes[first if aligned else row.mask_path]
        voxels = onto(image, grid, sitk.sitkLinear)
        if np.abs(voxels).max() > LARGEST:
            notes.append(f"{row.modality}: values to {np.abs(voxels).max():.3g}, cut off at {LARGEST:g}")
        images[modalities.index(row.modality)] = voxels.clip(-LARGEST, LARGEST)
    numbers, note = read_mask(first)
    notes.append(note)
    numbers = onto(numbers, cubes[first], sitk.sitkNearestNeighbor)
    masks = np.stack([np.isin(numbers, own) for own in _numbers(cohort.labels).values()]).astype(np.float32)
    return images, masks, aligned, "; ".join(filter(None, notes))


def _lesion(path: str, tumour_labels: list[int]) -> sitk.Image:
    mask, _ = read_mask(path)
    if not np.isin(sitk.GetArrayViewFromImage(mask), tumour_labels).any():
        raise BadInput(
            f"{path}: empty mask, expected a voxel of label {' or '.join(map(str, tumour_labels))}; draw the lesion, or "
            "exclude the patient in params.yaml."
        )
    return tumour_of(mask, tumour_labels)


def _numbers(labels: dict[int, str]) -> dict[str, list[int]]:
    """Meaning to its numbers in the mask."""
    return {name: [number for number, meaning in labels.items() if meaning == name] for name in labels.values()}


def read_image(path: str, pixel: int = sitk.sitkUnknown) -> sitk.Image:
    """A volume from disk, in the place that `nifti` gives it; what is NaN or infinite there is so here.

    Parameters
    ----------
    path : str
        NIfTI, or what else ITK reads (NRRD, MetaImage), placed as ITK has it.
    pixel : int
        SimpleITK's number of the pixel type; by default that of the file.

    Raises
    ------
    BadInput
        For what is no image, axes that are not at right angles, or more than one volume.
    """
    if nifti.NAMED.search(path):
        values, place = nifti.read(path)
        image = placed(values, place.affine)
    else:
        image = _by_itk(path)
    return image if pixel in (sitk.sitkUnknown, image.GetPixelID()) else sitk.Cast(image, pixel)


def read_mask(path: str) -> tuple[sitk.Image, str]:
    """A mask as whole numbers, and what is to be known of it: "" where its values were whole.

    Raises
    ------
    BadInput
        As `read_image`, and for values that are further from a whole number than rounding leaves them.
    """
    mask = read_image(path)
    whole, off = nifti.labels(sitk.GetArrayViewFromImage(mask))
    if off > nifti.ROUNDED:
        raise BadInput(
            f"{path}: mask values that are no whole numbers, as a scan has, expected one number a label; save the labels as "
            "integers, resampled by nearest neighbour."
        )
    return like(whole, mask) if mask.GetPixelID() in FLOATS else mask, "labels rounded" if off else ""


def placed(values: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """An image of `values` (x, y, z) where `affine` (to mm, NIfTI's axes, at right angles) has them."""
    kind = {"b": np.uint8, "f": np.float64 if values.itemsize > 4 else np.float32}.get(values.dtype.kind)
    image = sitk.GetImageFromArray(values.T.astype(kind or values.dtype.newbyteorder("="), copy=False))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((_TO_LPS @ (affine[:3, :3] / spacing)).ravel().tolist())
    image.SetOrigin((_TO_LPS @ affine[:3, 3]).tolist())
    return image


def _by_itk(path: str) -> sitk.Image:
    try:
        image = sitk.ReadImage(path)
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise BadInput(f"{path}: unreadable ({reason}), expected a NIfTI file; convert it, or copy it anew.") from None
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


def share_frame(lesions: list[sitk.Image]) -> bool:
    """Whether binary masks of one lesion lie over each other in the scanner's frame.

    Each is put on the grid of the first. True where every Dice coefficient, in mL, is `SAME_FRAME_DICE` or more, and
    for a single mask. A lesion of a few large voxels may fall below it; it is then centred by itself, as before.
    """
    first, *others = lesions
    inside = sitk.GetArrayViewFromImage(first) > 0
    voxel = float(np.prod(first.GetSpacing()))
    for other in others:
        moved = sitk.Resample(other, first, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        shared = np.count_nonzero(inside & (sitk.GetArrayViewFromImage(moved) > 0)) * voxel
        own = np.count_nonzero(sitk.GetArrayViewFromImage(other)) * float(np.prod(other.GetSpacing()))
        if 2 * shared < SAME_FRAME_DICE * (np.count_nonzero(inside) * voxel + own):
            return False
    return True


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
    return like(np.isin(sitk.GetArrayViewFromImage(cut), tumour_labels).astype(np.uint8), cut)


def cube_around(centre, size: int, spacing: float, orientation: str = "LPS") -> sitk.Image:
    """An empty cube of `size` voxels a side, its axes along the patient's."""
    grid = sitk.Image([size] * 3, sitk.sitkUInt8)
    grid.SetSpacing([spacing] * 3)
    grid.SetOrigin([c - spacing * (size - 1) / 2 for c in centre])
    return oriented(grid, orientation)


def onto(image: sitk.Image, grid: sitk.Image, interpolator: int) -> np.ndarray:
    """`image` sampled on `grid`, as an array (x, y, z); images are smoothed first where the grid is coarser."""
    outside = 0.0
    if interpolator == sitk.sitkLinear:
        outside = float(sitk.GetArrayViewFromImage(image).min())
        half = grid.GetSpacing()[0] / 2
        image = _near(image, grid, 6 * half)
        for axis, own in enumerate(image.GetSpacing()):
            if own < half / 0.75 and image.GetSize()[axis] > 3:
                image = sitk.RecursiveGaussian(image, half, direction=axis)
    sampled = sitk.Resample(image, grid, sitk.Transform(), interpolator, outside)
    return sitk.GetArrayFromImage(sampled).transpose(2, 1, 0)


def _near(image: sitk.Image, grid: sitk.Image, margin_mm: float) -> sitk.Image:
    """`image` cut to `grid` and a margin; whole where they do not meet. Smoothing a trunk for one lesion takes long."""
    last = [size - 1 for size in grid.GetSize()]
    corners = [grid.TransformIndexToPhysicalPoint(index) for index in product(*[(0, end) for end in last])]
    places = np.array([image.TransformPhysicalPointToContinuousIndex(corner) for corner in corners])
    margin = np.divide(margin_mm, image.GetSpacing()) + 4
    start = np.floor(places.min(axis=0) - margin).clip(0, None).astype(int)
    stop = np.ceil(places.max(axis=0) + margin + 1).clip(None, image.GetSize()).astype(int)
    if (stop <= start).any():
        return image
    return sitk.RegionOfInterest(image, (stop - start).tolist(), start.tolist())


def for_network(image: sitk.Image, modality: str, params: Crops, choice: Preprocess) -> tuple[sitk.Image, str]:
    """Intensities to about one unit, and what could not be done; needs nothing but the patient's own image.

    CT is windowed (HU) and PET capped (SUV), both to 0 … 1; MR as `preprocess.mr` says.
    """
    if modality == "ct":
        low, high = params.ct_window_hu
        return sitk.IntensityWindowing(image, low, high, 0, 1), ""
    if modality == "pt":
        return sitk.IntensityWindowing(image, 0, params.suv_max, 0, 1), ""
    return normalised(image, modality, choice.mr)
