"""How far a feature moves when nothing that matters does: small changes of image and mask, and the ICC under them.

In the spirit of Zwanenburg et al. 2019, Sci Rep 9:614 (noise, volume adaptation, contour randomisation, translation
and rotation), changed so that lesions of a few voxels survive it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256

import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy import ndimage

from survpack.cohort import TUMOUR
from survpack.errors import BadInput
from survpack.grids import like
from survpack.lesions import box

ORIGINAL = "original"
FEWEST = 5  # patients of whom an ICC is estimated

VOLUME_SHARE = 0.15  # of a region's voxels that a contour drawn tighter or wider loses or gains
MARGIN = 8  # voxels around the lesions in which a contour may move
CONTOUR_MM = 0.5  # a contour is displaced by half a voxel, but no less than this
CONTOUR_LENGTH_MM = 3.0  # over which the displacement of a contour varies, and no less than 1.5 voxels
TURN_DEGREES = (5.0, 10.0)
SHIFT_VOXELS = (0.25, 0.49)  # below half, so that a shift alone loses no voxel of the mask
CLUMP = 27  # zeros that hang together are background; a lone voxel of 0 HU is not

Labels = dict[int, str]
Perturbed = tuple[sitk.Image | None, sitk.Image]


def rng_of(seed: int, patient: str, name: str) -> np.random.Generator:
    """Random numbers of one perturbation of one patient, whoever else is perturbed and in what order."""
    return np.random.default_rng(int.from_bytes(sha256(f"{seed}\0{patient}\0{name}".encode()).digest()[:16]))


def applicable(names: Iterable[str], has_image: bool) -> list[str]:
    """Those of the perturbations that change anything, each once; a patient with a mask only has no noise."""
    return [name for name in dict.fromkeys(names) if has_image or name not in OF_IMAGES]


# --- the perturbations: each (image, mask, labels, rng) -> (image, mask)


def shrink(image: sitk.Image | None, mask: sitk.Image, labels: Labels, rng: np.random.Generator) -> Perturbed:
    """Every contour drawn tighter: necrosis, tumour and oedema each lose 15 % of the volume of each of their pieces.

    The voxels nearest to the contour go first, corners before flats, to what lies nearest outside. A piece below
    four voxels stays, and so does the innermost voxel of every compartment.
    """
    return image, _adapted(mask, labels, rng, grow=False)


def grow(image: sitk.Image | None, mask: sitk.Image, labels: Labels, rng: np.random.Generator) -> Perturbed:
    """Every contour drawn wider: the contrary of `shrink`.

    Necrosis grows within its tumour, tumour into what surrounds it, oedema into what is no tumour.
    """
    return image, _adapted(mask, labels, rng, grow=True)


def contour(image: sitk.Image | None, mask: sitk.Image, labels: Labels, rng: np.random.Generator) -> Perturbed:
    """The whole mask bent by a smooth random displacement.

    Its standard deviation along each axis is half a voxel (the cube root of its volume), and no less than 0.5 mm. It
    varies over 3 mm, and no less than 1.5 voxels, so contours stay nested. It is halved until every compartment keeps
    a voxel.
    """
    array = sitk.GetArrayFromImage(mask)
    around = box(_lesions(array, labels), MARGIN)
    if around is None:
        return image, mask
    spacing = np.array(mask.GetSpacing()[::-1])
    cut = array[around]
    edge = max(float(np.prod(spacing)) ** (1 / 3) / 2, CONTOUR_MM)
    width = np.maximum(CONTOUR_LENGTH_MM / spacing, 1.5)
    field = np.stack([ndimage.gaussian_filter(rng.standard_normal(cut.shape), width) for _ in spacing])
    field *= edge / np.maximum(field.std(axis=(1, 2, 3)), 1e-12)[:, None, None, None]
    field /= spacing[:, None, None, None]
    grid = np.indices(cut.shape, dtype=float)
    for share in (1, 0.5, 0.25, 0):
        bent = ndimage.map_coordinates(cut, grid + share * field, order=0, mode="nearest")
        if not _lost(cut, bent, labels):
            break
    array[around] = bent
    return image, like(array, mask)


def noise(image: sitk.Image | None, mask: sitk.Image, labels: Labels, rng: np.random.Generator) -> Perturbed:
    """Gaussian noise as strong as the image's own (`noise_level`); a masked background stays 0, NaN stays NaN."""
    if image is None:
        return None, mask
    values = sitk.GetArrayFromImage(image).astype(np.float32)
    added = rng.standard_normal(values.shape, dtype=np.float32) * np.float32(noise_level(values))
    return like(np.where(_background(values), 0, values + added), image), mask


def resample(image: sitk.Image | None, mask: sitk.Image, labels: Labels, rng: np.random.Generator) -> Perturbed:
    """The patient lies a little differently in the same grid: turned by 5 to 10 degrees, shifted by under half a voxel.

    The turn is about the slice axis through the lesions, so thick slices are not mixed. The image is interpolated by a
    cubic spline and kept within its own range, the mask by nearest neighbour. The turn is halved, at last left out,
    until every compartment keeps a voxel. A masked background stays 0, and NaN stays NaN where it was nearest.
    """
    array = sitk.GetArrayFromImage(mask)
    around = box(_lesions(array, labels))
    if around is None:
        return image, mask
    centre = [(part.start + part.stop - 1) / 2 for part in around[::-1]]
    signs, angle = rng.choice([-1, 1], 4), np.radians(rng.uniform(*TURN_DEGREES))
    shift = rng.uniform(*SHIFT_VOXELS, 3) * signs[:3] * mask.GetSpacing()
    axes = np.reshape(mask.GetDirection(), (3, 3))
    slices = max(range(3), key=lambda axis: (mask.GetSpacing()[axis], axis))  # the coarsest axis, or the last
    for share in (1, 0.5, 0.25, 0):
        pose = sitk.VersorRigid3DTransform()
        pose.SetCenter(mask.TransformContinuousIndexToPhysicalPoint(centre))
        pose.SetRotation(axes[:, slices].tolist(), float(share * signs[3] * angle))
        pose.SetTranslation((axes @ shift).tolist())
        turned = sitk.Resample(mask, mask, pose, sitk.sitkNearestNeighbor)
        if not _lost(array, sitk.GetArrayViewFromImage(turned), labels):
            break
    return None if image is None else _posed(image, pose), turned


PERTURBATIONS: dict[str, Callable] = {
    "shrink": shrink,
    "grow": grow,
    "contour": contour,
    "noise": noise,
    "resample": resample,
}
OF_IMAGES = ("noise",)  # leave the mask as it is


def noise_level(values: np.ndarray) -> float:
    """Standard deviation of the noise in an image, in its units.

    The median absolute diagonal detail of a Daubechies-2 wavelet in each slice, over 0.6745 (Donoho & Johnstone 1994,
    Biometrika 81:425, section 4.2). Slices are taken one by one because they are often thick. Details that a masked
    background or a NaN reaches do not count, nor do flat areas (padding). An image that was interpolated or smoothed
    before shows less than its scanner's noise.

    Parameters
    ----------
    values : ndarray, shape (z, y, x)
    """
    import pywt

    left_out = ~np.isfinite(values) | _background(values)
    values = np.where(left_out, 0.0, values)
    diagonal = np.abs(pywt.dwt2(values, "db2", axes=(1, 2))[1][2])
    reached = np.abs(pywt.dwt2(left_out.astype(np.float32), "db2", axes=(1, 2))[0]) > 1e-6
    diagonal = diagonal[~reached & (diagonal > 1e-6 * np.abs(values).max(initial=0.0))]
    return float(np.median(diagonal) / 0.6745) if diagonal.size else 0.0


# --- how masks move


def _adapted(mask: sitk.Image, labels: Labels, rng: np.random.Generator, grow: bool) -> sitk.Image:
    array = sitk.GetArrayFromImage(mask)
    around = box(_lesions(array, labels), MARGIN)
    if around is None:
        return mask
    cut, spacing = array[around].copy(), mask.GetSpacing()[::-1]
    numbers = {meaning: [n for n, own in labels.items() if own == meaning] for meaning in labels.values()}
    kept = _innermost(cut, numbers.values(), spacing)
    tumour = [n for meaning, own in numbers.items() if meaning in TUMOUR for n in own]
    necrosis, oedema = numbers.get("necrosis", []), numbers.get("oedema", [])
    for own, within, beside in ((necrosis, tumour, []), (tumour, None, []), (oedema, None, tumour)):
        inside = np.isin(cut, own)  # looked up anew: what was drawn before has moved
        outside = ~inside & ~np.isin(cut, beside) & (True if within is None else np.isin(cut, within))
        if inside.any() and outside.any():
            _move(cut, inside, outside, kept, spacing, rng, grow)
    array[around] = cut
    return like(array, mask)


def _move(cut, inside, outside, kept, spacing, rng, grow: bool) -> None:
    """Give a share of each connected piece of `inside` to the nearest `outside`, or the other way round, in place."""
    giver, taker = (outside, inside) if grow else (inside, outside)
    distance, nearest = ndimage.distance_transform_edt(~taker, sampling=spacing, return_indices=True)
    pieces, count = ndimage.label(inside, np.ones((3, 3, 3)))
    at = np.nonzero(giver & ~kept)
    to = tuple(axis[at] for axis in nearest)
    piece = pieces[to] if grow else pieces[at]
    flat = -ndimage.gaussian_filter(taker.astype(np.float32), 1.0)[at]  # corners have more of the taker about them
    order = np.lexsort((rng.random(piece.size), flat.round(5), distance[at].round(4), piece))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    share = np.rint(VOLUME_SHARE * sizes).astype(int)
    first = np.searchsorted(piece[order], np.arange(count + 1))
    chosen = order[np.arange(order.size) - first[piece[order]] < share[piece[order]]]
    cut[tuple(axis[chosen] for axis in at)] = cut[tuple(axis[chosen] for axis in to)]


def _innermost(cut: np.ndarray, compartments, spacing) -> np.ndarray:
    """The voxel of each compartment that lies deepest in it: never given away, so that none is emptied."""
    kept = np.zeros(cut.shape, bool)
    for numbers in compartments:
        inside = np.isin(cut, numbers)
        if inside.any():
            depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
            kept.ravel()[depth.argmax()] = True
    return kept


def _lesions(array: np.ndarray, labels: Labels) -> np.ndarray:
    return np.isin(array, [number for number, meaning in labels.items() if meaning in (*TUMOUR, "oedema")])


def _lost(before: np.ndarray, after: np.ndarray, labels: Labels) -> bool:
    """Whether a compartment is gone."""
    present = [{labels[number] for number in np.unique(one) if number in labels} for one in (before, after)]
    return present[0] != present[1]


# --- how images move


def _posed(image: sitk.Image, pose: sitk.Transform) -> sitk.Image:
    values = sitk.GetArrayFromImage(image).astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return image
    low, high, typical = float(values[finite].min()), float(values[finite].max()), float(np.median(values[finite]))
    masked = _background(values)
    filled = like(np.where(finite, values, typical), image)  # a spline spreads one NaN over its whole line
    outside = 0.0 if masked.any() else low
    moved = sitk.GetArrayFromImage(sitk.Resample(filled, filled, pose, sitk.sitkBSpline, outside)).clip(low, high)
    state = like(np.where(masked, 1, np.where(finite, 0, 2)).astype(np.uint8), image)
    state = sitk.GetArrayFromImage(sitk.Resample(state, state, pose, sitk.sitkNearestNeighbor, int(masked.any())))
    moved[state == 1], moved[state == 2] = 0.0, np.nan
    return like(moved, image)


def _background(values: np.ndarray) -> np.ndarray:
    """Where an image was masked: zeros that hang together."""
    clumps, count = ndimage.label(values == 0)
    large = np.bincount(clumps.ravel(), minlength=count + 1) >= CLUMP
    large[0] = False
    return large[clumps]


# --- agreement


def icc(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Intraclass correlation of each feature: two-way random effects, absolute agreement, one measurement.

    ICC(2,1) of Shrout & Fleiss 1979 (Psychol Bull 86:420), which is ICC(A,1) of McGraw & Wong 1996 (Psychol Methods
    1:30), whose interval is given.

    Parameters
    ----------
    table : DataFrame
        Indexed by (`patient_id`, `perturbation`), `original` among the latter; a column a feature.
    confidence : float

    Returns
    -------
    DataFrame
        Indexed by feature: `estimate`, `low`, `high`, `patients`. Only patients in whom a feature was measured under
        every perturbation count; with fewer than five of them, or without any variation, it is NaN.
    """
    rated, levels = stacked(table)
    columns = ("estimate", "low", "high", "patients")
    if len(levels) < 2:
        return pd.DataFrame(np.nan, table.columns, columns).assign(patients=0)
    return pd.DataFrame(_agreement(rated, confidence), index=table.columns)[list(columns)]


def by_perturbation(table: pd.DataFrame) -> pd.DataFrame:
    """ICC(2,1) of each perturbation alone against the original: a row a feature, a column a perturbation.

    Without a patient in the table there is no column.

    Raises
    ------
    BadInput
        For a table without the original.
    """
    if table.index.empty:
        return pd.DataFrame(index=table.columns)
    rated, levels = stacked(table)
    if ORIGINAL not in levels:
        raise BadInput(
            f"perturbed biomarkers: perturbations {', '.join(map(str, levels)) or 'none'} without '{ORIGINAL}', "
            "expected it among them; run stage 02 again."
        )
    others = [level for level in levels if level != ORIGINAL]
    pairs = {name: rated[:, [levels.index(ORIGINAL), levels.index(name)]] for name in others}
    found = {name: _agreement(pair)["estimate"] for name, pair in pairs.items()}
    return pd.DataFrame(found, index=table.columns, columns=others)


def robust(found: pd.DataFrame, at_least: float) -> list[str]:
    """Features of `icc` whose estimate reaches `at_least`; one that could not be estimated does not."""
    return found.index[found["estimate"] >= at_least].tolist()


def stacked(table: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """A table indexed by patient and one more level, as an array (patients, levels, features); and those levels.

    NaN for what is missing or not finite.
    """
    patients, levels = (table.index.get_level_values(level).unique().sort_values() for level in (0, 1))
    whole = table.reindex(pd.MultiIndex.from_product([patients, levels]))
    rated = whole.to_numpy(dtype=float).reshape(len(patients), len(levels), table.shape[1])
    return np.where(np.isfinite(rated), rated, np.nan), list(levels)


def mean_squares(rated: np.ndarray) -> tuple[np.ndarray, ...]:
    """Two-way analysis of variance of each feature, without replication.

    Parameters
    ----------
    rated : ndarray, shape (patients, levels, features)
        A patient who lacks a feature at one of the levels is left out of that feature.

    Returns
    -------
    patients : ndarray of int, shape (features,)
        How many are left.
    between, across, error : ndarrays, shape (features,)
        Mean squares of the patients, of the levels and of the rest, of values scaled to variance 1; NaN for a feature
        that does not vary.
    """
    complete = np.isfinite(rated).all(axis=1)
    n, k, counted = complete.sum(axis=0), rated.shape[1], complete[:, None]
    values = np.where(counted, rated, 0.0)
    with np.errstate(all="ignore"):
        values /= np.abs(values).max(axis=(0, 1), initial=0.0)
        values = (values - values.sum(axis=(0, 1)) / (n * k)) * counted
        spread = np.sqrt((values**2).sum(axis=(0, 1)) / (n * k))
        values /= np.where(spread > 1e-12, spread, np.nan)
        rows, columns = values.mean(axis=1), values.sum(axis=0) / n
        rest = (values - rows[:, None] - columns) * counted
        between, across = k * (rows**2).sum(axis=0) / (n - 1), n * (columns**2).sum(axis=0) / (k - 1)
        return n, between, across, (rest**2).sum(axis=(0, 1)) / ((n - 1) * (k - 1))


def _agreement(rated: np.ndarray, confidence: float = 0.95) -> dict[str, np.ndarray]:
    """ICC(2,1) of every feature of `rated` (patients, perturbations, features)."""
    k, (n, between, across, error) = rated.shape[1], mean_squares(rated)
    with np.errstate(all="ignore"):
        estimate = (between - error) / (between + (k - 1) * error + k * (across - error) / n)
        low, high = _interval(estimate, between, across, error, n, k, confidence)
    found = {"estimate": estimate, "low": low, "high": high}
    return {name: np.where(n >= FEWEST, value, np.nan) for name, value in found.items()} | {"patients": n}


def _interval(estimate, between, across, error, n, k: int, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """McGraw & Wong 1996, table 7, ICC(A,1); perfect agreement has no width."""
    from scipy.stats import f

    a = k * estimate / (n * (1 - estimate))
    b = 1 + k * estimate * (n - 1) / (n * (1 - estimate))
    freedom = (a * across + b * error) ** 2 / ((a * across) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1)))
    beyond, noise = (1 + confidence) / 2, k * across + (k * n - k - n) * error
    upper, lower = f.ppf(beyond, n - 1, freedom), f.ppf(beyond, freedom, n - 1)
    low = n * (between - upper * error) / (upper * noise + n * between)
    high = n * (lower * between - error) / (noise + n * lower * between)
    perfect = estimate > 1 - 1e-12
    return np.where(perfect, 1.0, low), np.where(perfect, 1.0, high)
