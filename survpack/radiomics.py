"""Radiomics of one region of one image, by the definitions and under the names of the IBSI.

z-rad gives the shape, the co-occurrence formulas and the filters. Statistics and matrices are made here, where its own
take several times as long: from one look at each voxel's 26 neighbours, and kept as counts of (level, size), as a matrix
would be as wide as the largest zone. The tests hold all of them against z-rad's.
All textures are 3-D; co-occurrence and runs are merged over the 13 directions (IBSI `_3D_comb`).
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from survpack.errors import BadInput

FAMILIES = ("morphology", "intensity", "histogram", "glcm", "glrlm", "glszm", "ngldm", "ngtdm")
NAMES = Path(__file__).with_name("ibsi_names.csv")
MOST_LEVELS = 1000  # the co-occurrence matrix has this number squared of cells
LOG_REACH = 4.0  # sigmas after which a Laplacian of Gaussian is cut off
AHEAD = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]  # 13 directions
SUB_BANDS = ["".join(letters) for letters in product("LH", repeat=3)]  # along x, y and z: low or high pass


@dataclass(frozen=True)
class Bins:
    """How intensities become grey levels: `number` of bins over the region's range, or bins of one `width`.

    Attributes
    ----------
    number : int, optional
        Fixed bin number, for intensities without unit (MR, filtered images).
    width : float, optional
        Fixed bin size, in the unit of the image (CT, PET).
    low : float, optional
        Where the first bin of a fixed width begins; voxels below it are not of the region. Without it, the least value.

    Raises
    ------
    BadInput
        Unless exactly one of number and width is given, and is positive.
    """

    number: int | None = None
    width: float | None = None
    low: float | None = None

    def __post_init__(self):
        given = [size for size in (self.number, self.width) if size is not None]
        if len(given) != 1 or not 0 < given[0] < np.inf:
            raise BadInput(
                f"bins: number {self.number} and width {self.width}, expected one of them, above 0; "
                "give a number for MR, a width for CT and PET, under biomarkers.bins in params.yaml."
            )


@cache
def _names() -> pd.DataFrame:
    return pd.read_csv(NAMES, comment="#", keep_default_na=False).set_index("tag")


def names() -> pd.DataFrame:
    """Every feature of the study, and what other tools call it.

    Returns
    -------
    DataFrame
        Index `tag`, as in the IBSI's reference tables. Columns: `family` (of FAMILIES), `feature` (the IBSI's name),
        `pyradiomics` (its name there, empty where it has none), `note` (where pyradiomics defines it otherwise).
    """
    return _names().copy()


def tags(family: str) -> list[str]:
    """Tags of a family's features, in the IBSI's order."""
    table = _names()
    return table.index[table["family"] == family].tolist()


# --- one region


def features(values, inside, spacing_mm, bins: Bins, families=FAMILIES) -> tuple[dict[str, float], str]:
    """Intensities and textures of one region; its shape, which no image changes, is of `morphology`.

    Parameters
    ----------
    values : ndarray of float, shape (x, y, z)
    inside : ndarray of bool, shape (x, y, z)
    spacing_mm : tuple of 3 floats
        Textures are of voxels, whatever their spacing: resample to cubes first where features are to be compared.
    bins : Bins
    families : sequence of str
        Of FAMILIES; morphology is passed over.

    Returns
    -------
    measured : dict of str to float
        Tag to value; NaN where it cannot be measured, never missing.
    reason : str
        Why a value is NaN or voxels were left out; empty where there is nothing to explain.
    """
    chosen = _known(families)
    measured = {tag: np.nan for family in chosen for tag in tags(family)}
    values, inside = np.asarray(values), np.asarray(inside, bool)
    if values.shape != inside.shape or values.ndim != 3:
        return measured, f"image of shape {values.shape} and region of shape {inside.shape} are not on one grid"
    at, own, reasons = _voxels(values, inside, bins)
    if not len(own):
        return measured, "; ".join([*reasons, "no voxel in the region"])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of an empty mean, an overflow: the value is NaN, and the reason says so
        found, why = _measure(own, at, bins, chosen)
    for tag, value in found.items():
        measured[tag] = float(value) + 0.0 if np.isfinite(value) else np.nan
    reasons += [why] if why else []
    return measured, "; ".join(reasons + _undefined([tag for tag in found if np.isnan(measured[tag])], own))


def _measure(own, at, bins: Bins, chosen: list[str]) -> tuple[dict, str]:
    """What the voxels allow; a reason where they allow no grey levels."""
    found = _intensity(own) if "intensity" in chosen else {}
    textures = [family for family in chosen if family != "intensity"]
    if not textures:
        return found, ""
    levels, why = _levels(own, bins)
    if why:
        return found, why
    alone = {tag: np.nan for family in textures for tag in tags(family)}
    return found | alone | _textures(levels, at, textures), ""


def _known(families) -> list[str]:
    unknown = sorted(set(families) - set(FAMILIES))
    if unknown:
        raise BadInput(
            f"biomarkers.families: {unknown[0]!r} is no family of features, expected one of "
            f"{', '.join(FAMILIES)}; correct it in params.yaml."
        )
    return [family for family in FAMILIES if family in families and family != "morphology"]


def _voxels(values, inside, bins: Bins) -> tuple[tuple, np.ndarray, list[str]]:
    """Places and values of the voxels that count, and what was left out."""
    at = np.nonzero(inside)
    own = values[at].astype(float)
    finite, reasons = np.isfinite(own), []
    if not finite.all():
        reasons.append(f"{int((~finite).sum())} of {len(own)} voxels not finite, left out")
    kept = finite
    if bins.width is not None and bins.low is not None:
        kept = finite & (own >= bins.low)
        if below := int((finite & ~kept).sum()):
            reasons.append(f"{below} of {len(own)} voxels below {bins.low:g}, left out")
    return tuple(axis[kept] for axis in at), own[kept], reasons


def _levels(values, bins: Bins) -> tuple[np.ndarray, str]:
    """Grey levels from 1; nothing and a reason where there would be more of them than memory is for."""
    least, most = values.min(), values.max()
    if not np.isfinite(most - least):
        return np.empty(0, np.int32), "values too large to compute with: no textures"
    count = bins.number
    if count is None:
        levels = np.floor((values - (least if bins.low is None else bins.low)) / bins.width) + 1
        count = levels.max()
    elif most > least:  # multiplied first: 29 of 100 is 29, but 100 x 0.29 is a little less
        levels = np.minimum(np.floor(count * (values - least) / (most - least)) + 1, count)
    else:
        levels = np.ones(len(values))
    if not count <= MOST_LEVELS:
        why = f"values from {least:g} to {most:g} make {count:.4g} grey levels, over {MOST_LEVELS}: no textures"
        return np.empty(0, np.int32), why
    return levels.astype(np.int32), ""


def _undefined(missing: list[str], own) -> list[str]:
    if not missing:
        return []
    why = _voxel_count(len(own))
    if own.min() == own.max():
        why += " of one value"
    if "cm_joint_max" in missing or "ngt_contrast" in missing:
        why += ", none beside another"
    shown = ", ".join(missing) if len(missing) <= 8 else f"{len(missing)} features"
    return [f"{shown} not defined for {why}"]


def _voxel_count(count: int) -> str:
    return f"{count} voxel{'s' * (count != 1)}"


# --- first order


def _first_order(prefix: str, values) -> dict[str, float]:
    """What the IBSI defines alike for intensities and for grey levels (3.3 and 3.4); z-rad's takes four times as long."""
    least, most = values.min(), values.max()
    p10, p25, median, p75, p90 = np.percentile(values, [10, 25, 50, 75, 90])
    mean = values.mean() if most > least else least  # the mean of equal values may differ in its last digit
    off = values - mean
    square = off * off
    variance, middle = square.mean(), values[(values >= p10) & (values <= p90)]
    found = {
        "mean": mean,
        "var": variance,
        "skew": (square * off).mean() / variance**1.5 if variance else 0.0,
        "kurt": (square * square).mean() / variance**2 - 3 if variance else 0.0,
        "median": median,
        "min": least,
        "p10": p10,
        "p90": p90,
        "max": most,
        "iqr": p75 - p25,
        "range": most - least,
        "mad": abs(off).mean(),
        "rmad": abs(middle - middle.mean()).mean(),
        "medad": abs(values - median).mean(),
        "cov": np.sqrt(variance) / mean if mean else np.nan,  # z-rad writes 10^6
        "qcod": (p75 - p25) / (p75 + p25) if p75 + p25 else np.nan,
    }
    return {f"{prefix}_{name}": value for name, value in found.items()}


def _intensity(values) -> dict[str, float]:
    energy = values @ values
    return _first_order("stat", values) | {"stat_energy": energy, "stat_rms": np.sqrt(energy / len(values))}


def _histogram(levels) -> dict[str, float]:
    counts = np.bincount(levels)[1:]
    p = counts[counts > 0] / len(levels)
    found = {"mode": counts.argmax() + 1, "entropy": -p @ np.log2(p), "uniformity": p @ p}
    if len(counts) > 1:  # one bin has no slope
        slope = np.gradient(counts.astype(float))
        found |= {"max_grad": slope.max(), "max_grad_g": slope.argmax() + 1}
        found |= {"min_grad": slope.min(), "min_grad_g": slope.argmin() + 1}
    return _first_order("ih", levels.astype(float)) | {f"ih_{name}": value for name, value in found.items()}


# --- textures


def _textures(levels, at, families) -> dict[str, float]:
    """Families that look at grey levels, all from one gathering of neighbours."""
    found = _histogram(levels) if "histogram" in families else {}
    corner = [axis.min() - 1 for axis in at]  # one voxel of padding: no neighbour is outside the array
    shape = [axis.max() - low + 2 for axis, low in zip(at, corner, strict=True)]
    index = np.ravel_multi_index([axis - low for axis, low in zip(at, corner, strict=True)], shape)
    grid = np.zeros(shape, np.int32)
    flat = grid.reshape(-1)
    flat[index] = levels
    if "glszm" in families:
        found |= _sizes("glszm", *_zones(grid, index), len(levels))
    if not {"glcm", "glrlm", "ngldm", "ngtdm"} & set(families):
        return found
    steps = np.array([(x * shape[1] + y) * shape[2] + z for x, y, z in AHEAD])[:, None]
    ahead, behind = flat[index + steps], flat[index - steps]
    if "glrlm" in families:
        found |= _sizes("glrlm", *_runs(flat, index, steps, ahead, behind), len(levels) * len(AHEAD))
    if "ngldm" in families:
        alike = 1 + (ahead == levels).sum(axis=0) + (behind == levels).sum(axis=0)
        found |= _sizes("ngldm", levels, alike, len(levels))
    if "glcm" in families:
        found |= _cooccurrence(levels, ahead)
    if "ngtdm" in families:
        found |= _tone_difference(levels, ahead, behind)
    return found


def _zones(grid, index) -> tuple[np.ndarray, np.ndarray]:
    """Level and size, in voxels, of each connected zone of one level."""
    from skimage.measure import label

    zone = label(grid, background=0, connectivity=3).reshape(-1)[index]
    level = np.zeros(zone.max() + 1, int)
    level[zone] = grid.reshape(-1)[index]
    return level[1:], np.bincount(zone)[1:]


def _runs(flat, index, steps, ahead, behind) -> tuple[np.ndarray, np.ndarray]:
    """Level and length of each run, over all directions: from every start, walk while the level lasts."""
    starts, lasts = behind != flat[index], ahead == flat[index]
    alone = flat[index[np.nonzero(starts & ~lasts)[1]]]  # most runs, where there are many levels
    direction, start = np.nonzero(starts & lasts)
    place, step = index[start], steps[direction, 0]
    level, length = flat[place], np.ones(len(start), int)
    walking = np.arange(len(start))
    while walking.size:
        place[walking] += step[walking]
        walking = walking[flat[place[walking]] == level[walking]]
        length[walking] += 1
    return np.concatenate([level, alone]), np.concatenate([length, np.ones(len(alone), int)])


def _sizes(family: str, level, size, voxels: int) -> dict[str, float]:
    """The formulas that run lengths, zone sizes and dependence counts share (IBSI 3.7.1 to 3.7.16 and 3.11.17)."""
    i, j, number = _counted(level, size)
    total = number.sum()
    p = number / total
    of_level = np.bincount(i.astype(int), number)
    of_size = np.bincount(np.unique(j, return_inverse=True)[1], number)
    low, high, short, long = i**-2, i**2, j**-2, j**2
    emphases = [p @ weight for weight in (short, long, low, high, short * low, short * high, long * low, long * high)]
    spread = [p @ (axis - p @ axis) ** 2 for axis in (i, j)]
    uneven = [(counts**2).sum() / total**power for counts in (of_level, of_size) for power in (1, 2)]
    found = [*emphases, *uneven, total / voxels, *spread, -p @ np.log2(p), p @ p]
    return dict(zip(tags(family), found, strict=False))  # energy, the last, is of ngldm alone


def _counted(level, size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pair of level and size once, and how often it occurs."""
    width = int(size.max()) + 1
    codes = level.astype(np.int64) * width + size
    if codes.max() < 10**6:  # counting is quicker than sorting, where memory allows
        number = np.bincount(codes)
        codes = np.flatnonzero(number)
        number = number[codes]
    else:
        codes, number = np.unique(codes, return_counts=True)
    return *(part.astype(float) for part in divmod(codes, width)), number.astype(float)


@cache
def _formulas():
    """z-rad's co-occurrence formulas, with its loops over pairs of levels as sums, and a constant region defined."""
    from zrad.radiomics.glcm import GLCM

    def entropy(p):
        p = p[p > 0]
        return -np.sum(p * np.log2(p))

    class Cooccurrence(GLCM):
        @staticmethod
        def _calc_p_minus(matrix):
            i, j = np.indices(matrix.shape)
            return np.bincount(abs(i - j).ravel(), matrix.ravel())

        @staticmethod
        def _calc_p_plus(matrix):
            i, j = np.indices(matrix.shape)
            return np.bincount((i + j).ravel(), matrix.ravel())

        @classmethod
        def _calc_correlation(cls, matrix):
            return 1.0 if matrix.max() == 1 else super()._calc_correlation(matrix)

        @staticmethod
        def _calc_information_correlation_1(matrix):  # its HXY1 is 2 HX, as the matrix is symmetric
            single = entropy(matrix.sum(axis=0))
            return (entropy(matrix) - 2 * single) / single if single else 0.0

        @staticmethod
        def _calc_information_correlation_2(matrix):
            excess = 2 * entropy(matrix.sum(axis=0)) - entropy(matrix)
            return np.sqrt(1 - np.exp(-2 * max(excess, 0)))

    return Cooccurrence("3D", "MERG")


def _cooccurrence(levels, ahead) -> dict[str, float]:
    size = int(levels.max()) + 1
    pairs = np.bincount((levels * size + ahead)[ahead > 0], minlength=size * size).reshape(size, size)
    if not pairs.any():
        return {}
    return _formulas()._feature_values((pairs + pairs.T) / (2 * pairs.sum()))


def _tone_difference(levels, ahead, behind) -> dict[str, float]:
    """Of each voxel's level and the mean of its neighbours' (IBSI 3.10); nothing where no voxel has a neighbour."""
    near = (ahead > 0).sum(axis=0) + (behind > 0).sum(axis=0)
    kept = near > 0
    if not kept.any():
        return {}
    difference = abs(levels - (ahead.sum(axis=0) + behind.sum(axis=0)) / np.maximum(near, 1))[kept]
    count = np.bincount(levels[kept])
    s, i = np.bincount(levels[kept], difference)[count > 0], np.flatnonzero(count)
    n, p = count.sum(), count[i] / count.sum()
    apart, both = np.subtract.outer(i, i), np.add.outer(p, p)
    rough, pairs = p @ s, len(i) * (len(i) - 1)
    uneven = abs(np.subtract.outer(i * p, i * p)).sum()
    found = (
        1 / rough if rough else np.nan,  # the IBSI writes 10^6
        (np.outer(p, p) * apart**2).sum() * s.sum() / (pairs * n) if pairs else 0.0,
        rough / uneven if uneven else 0.0,
        (abs(apart) * np.add.outer(p * s, p * s) / both).sum() / n,
        (both * apart**2).sum() / s.sum() if s.sum() else 0.0,
    )
    return dict(zip(tags("ngtdm"), found, strict=True))


# --- shape


def morphology(inside, spacing_mm) -> tuple[dict[str, float], str]:
    """Shape of a region, from its voxels alone.

    What the IBSI counts to morphology but an image changes is left out: centre of mass shift, integrated intensity,
    Moran's I and Geary's C.

    Parameters
    ----------
    inside : ndarray of bool, shape (x, y, z)
    spacing_mm : tuple of 3 floats

    Returns
    -------
    measured : dict of str to float
        Tag to value in mm, mm² or mm³; NaN where it cannot be measured.
    reason : str
        Why; empty where all were.
    """
    inside = np.asarray(inside, bool)
    measured = dict.fromkeys(tags("morphology"), np.nan)
    if inside.ndim != 3 or not inside.any():
        return measured, "no voxel in the region"
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in np.nonzero(inside))
    cut = inside[box]
    with np.errstate(all="ignore"):
        found = _shape()(np.asarray(spacing_mm, float)).calculate_features(
            cut.astype(np.int8), np.where(cut, 1.0, np.nan), include_correlation=False
        )
    measured = {tag: float(found[tag]) if np.isfinite(found[tag]) else np.nan for tag in measured}
    missing = [tag for tag, value in measured.items() if np.isnan(value)]
    why = f"{_voxel_count(int(cut.sum()))} in a box of {' x '.join(map(str, cut.shape))}"
    return measured, f"{', '.join(missing)} not defined for {why}" if missing else ""


@cache
def _shape():
    from zrad.radiomics.morphology import MorphologicalFeatures

    class Shape(MorphologicalFeatures):
        """z-rad's shape; flat, straight, round and tiny regions, for which it raises, give what is defined."""

        def _calc_pca(self, mask_array):
            if mask_array.sum() < 3:
                return np.full(3, np.nan)
            variances = super()._calc_pca(mask_array)
            return np.where(variances > 1e-12 * variances[0], variances, 0.0)

        @staticmethod
        def _calc_vol_density_aee(vol_mesh, *axes):
            return vol_mesh / (np.pi / 6 * np.prod(axes))

        @staticmethod
        def _calc_area_density_aee(area_mesh, *axes):
            a, b, c = np.array(axes) / 2
            alpha, beta = 1 - (b / a) ** 2, 1 - (c / a) ** 2  # squared; zero for a sphere
            mean, before, last, series = (alpha + beta) / 2, 0.0, 1.0, 1.0
            for nu in range(20):  # Legendre polynomials times (alpha beta)^nu, by Bonnet's recursion
                before, last = last, ((2 * nu + 1) * mean * last - nu * alpha * beta * before) / (nu + 1)
                series += last / (1 - 4 * (nu + 1) ** 2)
            return area_mesh / (4 * np.pi * a * b * series)

    return Shape


# --- filters


def filtered(values, spacing_mm, filters) -> dict[str, np.ndarray]:
    """An image under IBSI-2 filters, to measure a region on.

    Parameters
    ----------
    values : ndarray of float, shape (x, y, z)
        With the surroundings of the region: a filter looks 4 sigma far, a wavelet 6 voxels.
    spacing_mm : tuple of 3 floats
    filters : sequence of str
        `log<sigma>`: Laplacian of Gaussian, sigma in mm. `wavelet`: 8 undecimated sub-bands, Coiflet 1, as pyradiomics.

    Returns
    -------
    dict of str to ndarray, shape (x, y, z)
        `log2`, `wavLLH` (low pass along x and y, high along z) and so on. Voxels that were not finite stay NaN.

    Raises
    ------
    BadInput
        For a filter of another name, and for `log` on voxels that are not cubes.
    """
    from zrad.filtering.spatial import LoG
    from zrad.filtering.wavelet import Wavelets3D
    from zrad.image import Image

    made = {}
    for name in filters:
        sigma = _sigma(name, spacing_mm)
        if sigma is None:
            made |= {f"wav{band}": Wavelets3D("coif1", "reflect", band, 1) for band in SUB_BANDS}
        else:
            made[name] = LoG("reflect", sigma, LOG_REACH, "3D")
    values = np.asarray(values, float)
    finite = np.isfinite(values)
    filled = values if finite.all() else np.where(finite, values, np.median(values[finite]) if finite.any() else 0.0)
    image = Image(
        array=filled.transpose(2, 1, 0), origin=(0.0, 0.0, 0.0), spacing=tuple(map(float, spacing_mm)),
        direction=(1.0, 0, 0, 0, 1, 0, 0, 0, 1), shape=filled.shape,
    )  # fmt: skip
    return {name: np.where(finite, one.apply(image).array.transpose(2, 1, 0), np.nan) for name, one in made.items()}


def reach(filters, spacing_mm: float) -> float:
    """How far the filters look, mm, on voxels of `spacing_mm`: what they need around a region."""
    sigmas = [_sigma(name, (spacing_mm,) * 3) for name in filters]
    return float(max((6 * spacing_mm if sigma is None else LOG_REACH * sigma for sigma in sigmas), default=0.0))


def _sigma(name: str, spacing_mm) -> float | None:
    """Sigma of a `log` filter in mm; None for `wavelet`."""
    if name == "wavelet":
        return None
    match = re.fullmatch(r"log(\d+(\.\d+)?)", str(name))
    if not match or not float(match[1]):
        raise BadInput(
            f"biomarkers.filters: {name!r} is no filter, expected wavelet, or log and a sigma in mm such as log2; "
            "correct it in params.yaml."
        )
    if np.ptp(spacing_mm) > 0.01 * max(spacing_mm):
        raise BadInput(
            f"biomarkers.filters: {name} on voxels of {' x '.join(f'{s:g}' for s in spacing_mm)} mm, expected cubes; "
            "resample the image to cubes first."
        )
    if 2 * float(match[1]) < max(spacing_mm):
        raise BadInput(
            f"biomarkers.filters: {name} on voxels of {max(spacing_mm):g} mm, expected a sigma of half a voxel or more, "
            "which a voxel can show; choose a larger one, or smaller voxels (biomarkers.spacing_mm)."
        )
    return float(match[1])


# --- the table's columns

GIVEN = "rad_given_"  # begins the name of what was measured elsewhere
RADIOMIC = "rad_"  # begins the name of every radiomic feature; the rest are lesion biomarkers
COLUMN = re.compile(  # rad_<region>_<sequence>-<filter>_<tag>; shape has no sequence
    r"^rad_(?P<region>[a-z]+)_(?:(?P<sequence>[A-Za-z0-9]+)(?:-(?P<filter>[A-Za-z0-9.]+))?_)?"
    r"(?P<tag>(?:morph|stat|ih|cm|rlm|szm|ngl|ngt)_\w+)$"
)


def parsed(columns) -> pd.DataFrame:
    """What each column of the biomarker table is.

    Returns
    -------
    DataFrame
        A row a column: `feature` (its name), `region`, `sequence`, `filter`, `tag` (each "" where it has none), and
        `family`: of FAMILIES, "given" for what was measured elsewhere, or "lesion" for what is no radiomic feature.
    """
    feature = pd.Series(list(columns), name="feature", dtype=str)
    found = feature.str.extract(COLUMN).fillna("")
    family = found["tag"].map(_names()["family"]).fillna("lesion")
    return pd.concat([feature, found], axis=1).assign(family=family.mask(feature.str.startswith(GIVEN), "given"))
