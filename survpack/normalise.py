"""Intensities of one image brought to a scale that patients share, from nothing but the image itself."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy.special import ndtri

from survpack.grids import finite, like
from survpack.params import MR

MARKED = 0.2  # share of voxels with exactly one value (0, or the lowest) that makes it the background
PERCENTILES = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)  # Nyul and Udupa's deciles, and the ends
STANDARD_SCALE = ndtri(np.divide(PERCENTILES, 100))  # where they are mapped to: those of a normal distribution
N4_SHRINK = 4


def foreground(image: sitk.Image) -> tuple[np.ndarray, str]:
    """The brain of a skull-stripped MR; the body in any other.

    Returns
    -------
    inside : ndarray of bool, shape (z, y, x)
    how : str
        "marked" where a fifth of the voxels or more hold exactly one value, 0 or the lowest: the background of a
        skull-stripped scan, and inside is all the rest. Else "otsu": inside is all but the lowest of Otsu's three
        classes (air, tissue, fat; with two, fat would be the body). "all" where that leaves nothing.
    """
    array = sitk.GetArrayViewFromImage(image)
    for background in (0, array.min()):
        inside = array != background
        if 0 < np.count_nonzero(inside) <= (1 - MARKED) * array.size:
            return inside, "marked"
    inside = sitk.GetArrayFromImage(sitk.OtsuMultipleThresholds(image, 2)).astype(bool)
    return (inside, "otsu") if inside.any() else (np.ones(array.shape, dtype=bool), "all")


def normalised(image: sitk.Image, modality: str, choice: MR | dict) -> tuple[sitk.Image, str]:
    """Intensities of an MR on a scale that patients share; CT (HU) and PET (SUV) have one and stay as they are.

    Parameters
    ----------
    image : sitk.Image
        Whole: the scale comes from the brain, not from the surroundings of a lesion. What is NaN or infinite stays
        out of the scale and comes out as NaN.
    modality : str
        As `Cohort.images` has it.
    choice : MR or dict
        `preprocess.mr` of params.yaml. `n4` corrects the bias field first. `normalise` is one of

        - `zscore`: mean 0 and deviation 1 over the foreground;
        - `whitestripe`: 0 and 1 are mean and deviation of normal-appearing white matter, by intensity-normalization
          (Shinohara 2014, NeuroImage Clin 6:9). For brains alone. The mode taken is the last of T1, the largest of
          T2 and FLAIR;
        - `nyul`: percentiles of the foreground are mapped piecewise linearly to a fixed standard scale (Nyul and
          Udupa 1999, Magn Reson Med 42:1072). Fixed, not learnt: a scale learnt from patients would have to be
          learnt anew in every fold;
        - `none`.

    Returns
    -------
    image : sitk.Image
    reason : str
        What could not be done as asked, and what was done instead; "" if nothing.
    """
    if modality in ("ct", "pt"):
        return image, ""
    choice, image = MR.model_validate(choice), sitk.Cast(image, sitk.sitkFloat32)
    whole, broken = finite(image)
    inside, _ = foreground(whole)
    reasons = []
    if choice.n4:
        whole, reason = without_bias(whole, inside)
        reasons.append(reason)
    if choice.normalise != "none":
        whole, reason = _scaled(whole, sitk.GetArrayViewFromImage(whole)[inside], modality, choice.normalise)
        reasons.append(reason)
    if broken:
        array = sitk.GetArrayFromImage(whole)
        array[~np.isfinite(sitk.GetArrayViewFromImage(image))] = np.nan
        whole = like(array, image)
    return whole, "; ".join(filter(None, reasons))


def without_bias(image: sitk.Image, inside: np.ndarray) -> tuple[sitk.Image, str]:
    """N4 (Tustison 2010): the field is found on every fourth voxel of the foreground and divided out of all.

    Parameters
    ----------
    image : sitk.Image
        Of float32, above 0 inside.
    inside : ndarray of bool, shape (z, y, x)

    Returns
    -------
    image : sitk.Image
    reason : str
        Why there was no correction (an image of one slice); "" where there was.
    """
    mask = like((inside & (sitk.GetArrayViewFromImage(image) > 0)).astype(np.uint8), image)
    shrink = [max(min(N4_SHRINK, size // 16), 1) for size in image.GetSize()]
    correct = sitk.N4BiasFieldCorrectionImageFilter()
    correct.SetNumberOfThreads(1)  # sums in one order: the same bytes every time
    correct.SetMaximumNumberOfIterations([50, 50, 30])
    try:
        correct.Execute(sitk.Shrink(image, shrink), sitk.Shrink(mask, shrink))
        return image / sitk.Exp(sitk.Cast(correct.GetLogBiasFieldAsImage(image), sitk.sitkFloat32)), ""
    except RuntimeError as error:
        return image, f"N4 not applied ({str(error).strip().splitlines()[-1][:120]})"


def _scaled(image: sitk.Image, values: np.ndarray, modality: str, method: str) -> tuple[sitk.Image, str]:
    """`image` on the scale that `method` takes from the foreground's `values`."""
    reason = ""
    if method == "nyul":
        if np.ptp(np.percentile(values, PERCENTILES)) > 0:
            return _nyul(image, values), ""
        reason = f"{modality}: the percentiles of the foreground coincide, z-score instead"
    if method == "whitestripe":
        shift, scale, reason = _white_stripe(values, modality)
    else:
        shift, scale = _moments(values)
    if not scale:
        return image - shift, f"{modality}: every voxel of the foreground has the same value, shifted to 0"
    return (image - shift) / scale, reason


def _white_stripe(values: np.ndarray, modality: str) -> tuple[float, float, str]:
    """Mean and deviation of the stripe; those of the whole foreground, and why, where there is no stripe."""
    from intensity_normalization import Modality, WhiteStripeNormalizer
    from intensity_normalization.adapters.images import create_image
    from intensity_normalization.domain.exceptions import NormalizationError

    kind = {"t2w": Modality.T2, "t2f": Modality.FLAIR}.get(modality, Modality.T1)
    found = WhiteStripeNormalizer(modality=kind)
    values = values.astype(np.float32)
    try:
        found.fit(create_image(values), create_image(np.ones_like(values)))
        if not np.isfinite([found.mean, found.std]).all():
            raise NormalizationError("values too large")
    except (NormalizationError, np.linalg.LinAlgError) as error:
        reason = f"{modality}: no white stripe found ({' '.join(str(error).split())[:120]}), z-score instead"
        return *_moments(values), reason
    return found.mean, found.std, ""


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and deviation, summed in double precision; equal values have exactly none."""
    if values.min() == values.max():
        return float(values[0]), 0.0
    return float(values.mean(dtype=float)), float(values.std(dtype=float))


def _nyul(image: sitk.Image, values: np.ndarray) -> sitk.Image:
    """Percentiles to the standard scale; beyond the outer ones the line goes on."""
    own, first = np.unique(np.percentile(values, PERCENTILES), return_inverse=True)
    scale = np.bincount(first, STANDARD_SCALE) / np.bincount(first)  # percentiles that coincide are one landmark
    array = sitk.GetArrayFromImage(image)
    mapped = np.interp(array, own, scale)
    for beyond, (a, b) in ((array < own[0], (0, 1)), (array > own[-1], (-1, -2))):
        mapped[beyond] = scale[a] + (array[beyond] - own[a]) * (scale[b] - scale[a]) / (own[b] - own[a])
    return like(mapped.astype(np.float32), image)
