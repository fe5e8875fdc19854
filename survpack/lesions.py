"""Lesions in exact physical units: volumes, ratios, diameters, shape, rim, oedema, and how deep they lie.

Volumes count voxels on the mask's own grid. Every length is measured between the centres of voxel faces at which
one region ends and the next begins: the vertices of the IBSI mesh of a mask (Zwanenburg 2020, Radiology 295:328),
half a voxel beyond the outermost voxel centres, whatever the voxels' shape and the image's direction.
Lesions are connected parts of the tumour, whose voxels touch by a face, an edge or a corner; the largest is that of
most voxels. What cannot be measured is NaN, and a reason says why.

- `largest_ml`, `diameter_mm` (IBSI L0JK), `sphericity`, `axial_diameter_mm` and `rano_product_mm2` are of the largest
  lesion. RANO-BM (Lin 2015, Lancet Oncol 16:e270): the longest diameter on an axial slice, and the longest across it
  on that slice. Both are of the slice's convex hull, as callipers take them.
- `rano_sum_mm`: longest axial diameters, summed over the five longest measurable lesions; 0 where none is measurable.
- `sphericity`: surface of a ball of the lesion's volume over the lesion's surface (IBSI QCFX); of a lesion that is two
  voxels or more along each axis and has 27 or more. The mesh's is among the radiomics, as `morph_sphericity`.
- `rim_mm`: mean thickness of what enhances around the cores of lesions that have one: its volume over the mean of
  the surfaces A within and B without, (A + B + sqrt(A B)) / 3, which is exact between concentric balls. Distances
  between two surfaces of voxels come out up to a voxel short; this does not.
- `oedema_reach_mm`, `oedema_reach_p95_mm`: from the outer edge of the oedema to the nearest tumour, mean and 95th
  percentile by area.
- `surface_mm`, `ventricle_mm`: least distance of any tumour to the brain's surface and to the lateral ventricles, 0
  where they touch; only of MR that is skull-stripped.

The surface of a region is the sum of its voxel faces, each by the cosine of its tilt (digital surface integration;
Lachaud 2016, J Math Imaging Vis 54:162). Tilts are read along both axes of a face, from how far the columns beside it
reach: over the longest stretch in which they keep to a straight line, to three voxels (or three slices' thickness) on
both sides; where the surface bends at the face itself, the tilt is the mean of both sides, or a quarter of the bend
where one side ends there; a bend of over 75 degrees is an edge, and the flatter side stands. So steps between thick
slices become slopes, and a box keeps its edges; by a mesh over voxels these balls are 7 to 25 % too little round, by
Crofton's formula these boxes 11 to 74 % too round. No surface is less than that of a ball of the same volume: no
sphericity passes 1. Error of the sphericity (%, of 5,663 masks: balls, ellipsoids, boxes, plates and cylinders
straight and turned, tori, capsules, two balls that touch, lobed blobs; 20 places each, voxels of 1 x 1 x 1, 1 x 1 x 3,
0.8 x 0.8 x 2.5, 1 x 1 x 5 and 0.5 x 0.5 x 5 mm):

    voxels across the thinnest side     2          3          4          5, 6       7 to 9     10 and more
    least to greatest                   -22 to 2   -16 to 1   -12 to 6   -8 to 5    -4 to 4    -3 to 4
    root mean square                    9.0        6.1        3.9        2.5        1.6        1.2
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import SimpleITK as sitk

from survpack.cohort import TUMOUR
from survpack.grids import same_grid

SMALLEST_ML = 0.01  # a smaller speck is no lesion
MEASURABLE_MM = 10.0  # RANO-BM: of the longest axial diameter, on two axial slices or more
TARGETS = 5  # RANO-BM: lesions that are summed
SHAPED = 27  # voxels that a shape takes, 3 x 3 x 3
STRETCH, EDGE, ENDED = 3, np.radians(75), 0.25  # voxels, angle and share of a bend: least errors of the table above
FAR = 10**8  # voxels: there is no column
MR = ("t1n", "t1c", "t2w", "t2f")
CSF_LOOKS = {"t2w": 1, "t2f": -1, "t1n": -1}  # bright or dark beside the brain
BRAIN_ML = (500, 2200)  # what is left of a head without its skull; a whole head holds more than 3 L
BRAIN_MM = (80, 230)  # each side of its bounding box
BRAIN_FILL = (0.3, 0.7)  # of that box; an ellipsoid fills 0.52, what a scan's border cuts 0.8 or more
FEATURES = {  # column: words for the reader, unit
    "tumour_ml": ("Tumour volume", "mL"),
    "enhancing_ml": ("Enhancing volume", "mL"),
    "necrosis_ml": ("Necrosis volume", "mL"),
    "oedema_ml": ("Oedema volume", "mL"),
    "whole_ml": ("Volume of tumour and oedema", "mL"),
    "oedema_to_tumour": ("Oedema-to-tumour ratio", ""),
    "necrosis_fraction": ("Necrotic share of the tumour", ""),
    "lesions_found": ("Lesions of 0.01 mL or more", "count"),
    "largest_ml": ("Volume of the largest lesion", "mL"),
    "diameter_mm": ("Largest diameter in space", "mm"),
    "axial_diameter_mm": ("Longest axial diameter", "mm"),
    "rano_product_mm2": ("RANO-BM product of axial diameters", "mm²"),
    "rano_sum_mm": ("RANO-BM sum of axial diameters", "mm"),
    "sphericity": ("Sphericity of the largest lesion", ""),
    "rim_mm": ("Thickness of the enhancing rim", "mm"),
    "oedema_reach_mm": ("Reach of the oedema, mean", "mm"),
    "oedema_reach_p95_mm": ("Reach of the oedema, 95th percentile", "mm"),
    "surface_mm": ("Distance to the brain's surface", "mm"),
    "ventricle_mm": ("Distance to the lateral ventricles", "mm"),
}


def measure(
    mask: sitk.Image, labels: dict[int, str], images: dict[str, sitk.Image] | None = None
) -> tuple[dict[str, float], list[str]]:
    """All lesion biomarkers of one patient.

    Parameters
    ----------
    mask : Image of numbers, three axes, any spacing and direction
    labels : dict of int to str
        Meaning of each number; `enhancing`, `necrosis` and `tumour` make up the tumour.
    images : dict of str to Image, optional
        Sequence to image on the grid of the mask, not yet interpolated (zeros around a brain must still be zeros).

    Returns
    -------
    dict
        `<label>_ml`, and the columns of `FEATURES` that these labels and images can have; floats.
    list of str
        Why something is NaN, or is to be read with care; each begins with the columns it is about.
    """
    spacing, numbers = np.array(mask.GetSpacing()), sitk.GetArrayViewFromImage(mask).T
    start, part = _cut(numbers, numbers != 0)
    found = lesion_volumes(part, float(np.prod(spacing)) / 1000, labels)
    inside = {meaning: np.isin(part, _numbers(labels, meaning)) for meaning in (*TUMOUR, "oedema")}
    tumour = np.logical_or.reduce([inside[meaning] for meaning in TUMOUR])
    (offset, tumour), full = _cut(tumour, tumour), tumour
    found, reasons = found | dict.fromkeys(_columns(labels, images), np.nan), []
    found["lesions_found"], found["largest_ml"], found["rano_sum_mm"] = 0.0, 0.0, 0.0
    if not full.any():
        empty = [name for name in found if np.isnan(found[name])]
        return found, [f"{', '.join(empty)}: the mask holds no tumour"]
    if (start + offset == 0).any() or (start + offset + tumour.shape == mask.GetSize()).any():
        reasons.append("tumour_ml, diameter_mm, axial_diameter_mm: the tumour reaches the border of the mask")
    for part_of in (_sizes(tumour, spacing, axial_axis(mask)), _layers(full, inside, labels, spacing)):
        found |= part_of[0]
        reasons += part_of[1]
    if "surface_mm" in found:
        deep, told = depths(mask, tumour, start + offset, images)
        found, reasons = found | deep, reasons + told
    return {name: float(value) for name, value in found.items()}, reasons


def lesion_volumes(mask: np.ndarray, voxel_ml: float, labels: dict[int, str]) -> dict[str, float]:
    """Volume of every compartment and their ratios.

    Parameters
    ----------
    mask : ndarray of int, shape (x, y, z)
    voxel_ml : float
        Volume of one voxel, mL.
    labels : dict of int to str

    Returns
    -------
    dict
        `<label>_ml`, `tumour_ml` (enhancing and necrosis, or the one tumour label) and, where
        these labels exist, `whole_ml`, `oedema_to_tumour` and `necrosis_fraction` (NaN without tumour).
    """
    counts = dict.fromkeys(labels.values(), 0.0)  # several numbers may mean one thing: a set that numbers its lesions
    for number, meaning in labels.items():
        counts[meaning] += int(np.count_nonzero(mask == number)) * voxel_ml
    tumour = sum(volume for meaning, volume in counts.items() if meaning in TUMOUR)
    found = {f"{meaning}_ml": volume for meaning, volume in counts.items()} | {"tumour_ml": tumour}
    if "oedema" in counts:
        found["whole_ml"] = tumour + counts["oedema"]
        found["oedema_to_tumour"] = counts["oedema"] / tumour if tumour else np.nan
    if "necrosis" in counts:
        found["necrosis_fraction"] = counts["necrosis"] / tumour if tumour else np.nan
    return found


def components(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected parts (by faces, edges or corners), numbered from 1, and the voxels of each."""
    from scipy.ndimage import label

    numbered, _ = label(inside, np.ones((3, 3, 3)))
    return numbered, np.bincount(numbered.ravel())[1:]


def box(inside: np.ndarray, margin: int = 0) -> tuple[slice, ...] | None:
    """The box around a region and `margin` voxels more, as far as the array goes; None where there is no region."""
    found, part = [slice(0)] * 3, inside
    for axis in np.argsort(inside.strides)[::-1]:  # across the memory first: each cut makes the next search smaller
        hit = np.flatnonzero(part.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(hit):
            return None
        found[axis] = slice(max(int(hit[0]) - margin, 0), int(hit[-1]) + 1 + margin)
        part = part[(slice(None),) * axis + (slice(hit[0], hit[-1] + 1),)]
    return tuple(found)


def axial_axis(image: sitk.Image) -> int:
    """Which axis (0 to 2) of an image runs nearest to the patient's head; slices across it are taken as axial."""
    return int(np.abs(np.array(image.GetDirection()).reshape(3, 3)[2]).argmax())


def outline(inside: np.ndarray, spacing_mm) -> np.ndarray:
    """Where lines along the axes enter and leave a region, mm from its first voxel; shape (points, dimensions).

    They hold every vertex of the region's convex hull.
    """
    points = []
    for axis, size in enumerate(inside.shape):
        crossed = inside.any(axis)
        first, last = (np.flip(inside, axis if back else ()).argmax(axis)[crossed] for back in (False, True))
        points += [
            np.insert(np.argwhere(crossed).astype(float), axis, at, 1) for at in (first - 0.5, size - last - 0.5)
        ]
    return np.concatenate(points) * spacing_mm


def faces(inside: np.ndarray, against: np.ndarray, spacing_mm) -> tuple[np.ndarray, np.ndarray]:
    """Centres (mm from the first voxel) and areas (mm²) of the voxel faces between two regions.

    Parameters
    ----------
    inside, against : ndarray of bool, shape (x, y, z)
        `against` is the other region; what lies beyond the array is of it.
    spacing_mm : 3 floats
    """
    inside, against = np.pad(inside, 1), np.pad(against, 1, constant_values=True)
    centres, areas = [], []
    for axis in range(3):
        low, high = (np.moveaxis(each, axis, 0)[:-1] for each in (inside, against))
        next_low, next_high = (np.moveaxis(each, axis, 0)[1:] for each in (inside, against))
        at = np.argwhere(np.moveaxis((low & next_high) | (next_low & high), 0, axis)) - 1.0
        at[:, axis] += 0.5
        centres.append(at * spacing_mm)
        areas.append(np.full(len(at), np.prod(spacing_mm) / spacing_mm[axis]))
    return np.concatenate(centres), np.concatenate(areas)


def diameter(points: np.ndarray) -> float:
    """Greatest distance between two of the points; shape (points, 3)."""
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    return float(pdist(points[ConvexHull(points).vertices]).max())


def callipers(flat: np.ndarray, spacing_mm) -> tuple[float, float]:
    """Longest diameter of a plane region, and the longest chord of its convex hull across it, mm.

    Of several longest diameters (a disc has many), the one with the longest across it.
    """
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    points = outline(flat, spacing_mm)
    hull = points[ConvexHull(points).vertices]  # in order around the region
    distances = pdist(hull)
    longest = distances.max()
    ties = np.argwhere(distances >= longest * (1 - 1e-9))[:, 0]
    first, second = (index[ties] for index in np.triu_indices(len(hull), 1))
    return float(longest), max(_across(hull, a, b) for a, b in zip(first, second, strict=True))


def _across(hull: np.ndarray, first: int, second: int) -> float:
    """Longest chord of a polygon at right angles to the diameter between two of its vertices."""
    along = (hull[second] - hull[first]) / np.linalg.norm(hull[second] - hull[first])
    turned = np.roll(hull - hull[first], -first, axis=0) @ np.array([along, [-along[1], along[0]]]).T
    far = (second - first) % len(hull)
    there, back = turned[: far + 1], np.vstack([turned[far:], turned[:1]])[::-1]
    at = turned[:, 0]  # the width is linear between vertices
    return float(np.abs(np.interp(at, *there.T) - np.interp(at, *back.T)).max())


def _sizes(tumour: np.ndarray, spacing: np.ndarray, axial: int) -> tuple[dict[str, float], list[str]]:
    """Count, and what is of the largest lesion; all lesions are in `tumour`."""
    from scipy.ndimage import find_objects

    numbered, voxels = components(tumour)
    boxes = find_objects(numbered)
    sides = np.array([[s.stop - s.start for s in box] for box in boxes])
    reach = np.linalg.norm(np.delete(sides * spacing, axial, 1), axis=1)
    several = sides[:, axial] >= 2
    most = set(np.flatnonzero(voxels == voxels.max()))
    shown = {k: axial_callipers(numbered[boxes[k]] == k + 1, spacing, axial)
             for k in most | set(np.flatnonzero((reach >= MEASURABLE_MM) & several))}  # fmt: skip
    wide = {k: diameter(outline(numbered[boxes[k]] == k + 1, spacing)) for k in most}
    largest = max(most, key=lambda k: np.round([wide[k], *shown[k]], 6).tolist())  # of equal volumes, the wider
    lengths = [shown[k][0] for k in shown if several[k] and shown[k][0] >= MEASURABLE_MM - 1e-9]
    volumes = voxels * np.prod(spacing)
    found = {
        "lesions_found": float((volumes >= 1000 * SMALLEST_ML).sum()),
        "largest_ml": volumes.max() / 1000,
        "diameter_mm": wide[largest],
        "axial_diameter_mm": shown[largest][0],
        "rano_product_mm2": shown[largest][0] * shown[largest][1],
        "rano_sum_mm": sum(sorted(lengths, reverse=True)[:TARGETS], 0.0),
    }
    if sides[largest].min() == 1 or voxels[largest] < SHAPED:
        why = "is one voxel thick" if sides[largest].min() == 1 else f"has fewer than {SHAPED} voxels"
        return found, [f"sphericity: the largest lesion {why}"]
    area = surface_area(numbered[boxes[largest]] == largest + 1, spacing)
    return found | {"sphericity": _of_a_ball(volumes[largest]) / area}, []


def axial_callipers(lesion: np.ndarray, spacing: np.ndarray, axial: int) -> tuple[float, float]:
    """`callipers` of the axial slice on which the lesion is longest."""
    plane, slices = np.delete(spacing, axial), np.moveaxis(lesion, axial, 0)
    sides = np.stack([np.ptp(np.argwhere(flat), axis=0) + 1 if flat.any() else [0, 0] for flat in slices]) * plane
    bounds, best = np.linalg.norm(sides, axis=1), (0.0, 0.0)  # no diameter is longer than its box's diagonal
    for k in np.argsort(-bounds):
        if bounds[k] < best[0] - 1e-9:
            break
        best = max(best, callipers(slices[k], plane), key=lambda pair: (round(pair[0], 9), pair[1]))
    return best


def surface_area(region: np.ndarray, spacing_mm) -> float:
    """Surface of a region and of its holes, mm², by the tilt of its voxel faces (the module tells how and how well).

    Parameters
    ----------
    region : ndarray of bool, shape (x, y, z)
    spacing_mm : 3 floats
    """
    steps, area = np.asarray(spacing_mm, dtype=float), 0.0
    for axis, back in product(range(3), (False, True)):
        axes = np.roll(np.arange(3), -axis)
        turned = np.pad(region.transpose(axes)[:: -1 if back else 1], 1)
        level = np.arange(len(turned), dtype=np.int32)[:, None, None]
        inside = np.maximum.accumulate(np.where(turned, level, np.int32(-FAR)))
        outside = np.minimum.accumulate(np.where(turned, np.int32(FAR), level)[::-1])[::-1]
        rise = np.where(turned, outside - 1, inside) - level  # from a voxel to the top of its column, near or below
        at, (along, *across) = np.argwhere(turned[:-1] & ~turned[1:]), steps[axes]
        slopes = [np.tan(_tilt(rise, at, k, along / across[k - 1])) for k in (1, 2)]
        area += np.prod(across) * (1 / np.sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2)).sum()
    return max(float(area), _of_a_ball(np.count_nonzero(region) * np.prod(steps)))


def _tilt(rise: np.ndarray, at: np.ndarray, side: int, ratio: float) -> np.ndarray:
    """Angles of the surface at the faces `at` along one axis, where `ratio` is a voxel's height over its width."""

    def beside(distance: int) -> np.ndarray:
        place = at.copy()
        place[:, side] = np.clip(place[:, side] + distance, 0, rise.shape[side] - 1)
        return rise[tuple(place.T)]

    above, below = beside(1), beside(-1)
    to, fro = np.arctan(above * ratio), np.arctan(-below * ratio)
    flatter = np.where(abs(above) < abs(below), to, fro)
    share = np.where(np.minimum(above, below) < -FAR / 2, ENDED, 0.5)
    edge = np.where(above == below, 0, flatter)  # a crest has no flatter side
    angle = np.where(abs(to - fro) < EDGE, flatter + share * (to + fro - 2 * flatter), edge)
    reach, straight = max(STRETCH, round(STRETCH * round(ratio, 6))), True  # as round for a scaled image
    for distance in np.unique(np.geomspace(1, reach, STRETCH + 2 * reach.bit_length()).round().astype(int)):
        above, below = beside(distance), beside(-distance)
        straight &= abs(above + below) <= 1
        angle = np.where(straight, np.arctan((above - below) / (2 * distance) * ratio), angle)
    return angle


def _of_a_ball(volume: float) -> float:
    """Surface of a ball."""
    return float(np.cbrt(36 * np.pi * volume**2))


def _rim(tumour: np.ndarray, core: np.ndarray, spacing: np.ndarray) -> float:
    """Mean thickness around all cores, mm."""
    from scipy.ndimage import find_objects

    numbered, _ = components(tumour)
    boxes, volume, surface = find_objects(numbered), 0.0, 0.0
    for number in np.unique(numbered[core]):
        lesion, within = numbered[boxes[number - 1]] == number, core[boxes[number - 1]]
        inner, outer = (surface_area(each, spacing) for each in (lesion & within, lesion))
        volume += np.count_nonzero(lesion & ~within) * np.prod(spacing)
        surface += (inner + outer + np.sqrt(inner * outer)) / 3
    return volume / surface


def _layers(tumour: np.ndarray, inside: dict, labels: dict, spacing) -> tuple[dict[str, float], list[str]]:
    """Thickness of the rim, and reach of the oedema."""
    from scipy.spatial import cKDTree

    core, oedema, wanted = inside["necrosis"], inside["oedema"], _columns(labels, None)
    found, reasons = {}, []
    if "rim_mm" in wanted and core.any():
        found["rim_mm"] = _rim(tumour, core, spacing)
    elif "rim_mm" in wanted:
        reasons.append("rim_mm: no necrotic core")
    if oedema.any():
        centres, areas = faces(oedema, ~(tumour | oedema), spacing)
        reach = cKDTree(faces(tumour, ~tumour, spacing)[0]).query(centres)[0]
        found["oedema_reach_mm"] = np.average(reach, weights=areas)
        found["oedema_reach_p95_mm"] = np.quantile(reach, 0.95, weights=areas, method="inverted_cdf")
    elif "oedema_reach_mm" in wanted:
        reasons.append("oedema_reach_mm, oedema_reach_p95_mm: no oedema")
    return found, reasons


def depths(
    mask: sitk.Image, tumour: np.ndarray, start: np.ndarray, images: dict[str, sitk.Image]
) -> tuple[dict[str, float], list[str]]:
    """Least distance of the tumour to the brain's surface and to the lateral ventricles.

    The brain is where any MR image is not zero, if that is a brain (`not_a_brain`).

    Parameters
    ----------
    mask : Image
        What it labels is no cerebrospinal fluid.
    tumour : ndarray of bool
        Cut to its box, whose first voxel in the mask is `start`.
    images : dict
    """
    from scipy.spatial import cKDTree

    given = {name: images[name] for name in MR if name in images}
    arrays = {name: sitk.GetArrayViewFromImage(one).T for name, one in given.items() if same_grid(one, mask)}
    reasons = [f"surface_mm, ventricle_mm: {name} is not on the grid of the mask" for name in given.keys() - arrays]
    if not arrays:
        return {}, sorted(reasons)
    spacing = np.array(mask.GetSpacing())
    brain = np.logical_or.reduce([(values > 0) | (values < 0) for values in arrays.values()])  # NaN is neither
    if why := not_a_brain(brain, spacing):
        return {}, [*sorted(reasons), f"surface_mm, ventricle_mm: the image is not skull-stripped ({why})"]
    brain[tuple(slice(a, a + n) for a, n in zip(start, tumour.shape, strict=True))] |= tumour
    near, edge = faces(tumour, ~tumour, spacing)[0] + start * spacing, outline(brain, spacing)
    found = {"surface_mm": cKDTree(edge).query(near)[0].min()}
    step = np.maximum(1, np.round(2 / spacing)).astype(int)  # the ventricles are found on voxels of about 2 mm
    coarse = tuple(slice(None, None, k) for k in step)
    looks = {name: arrays[name][coarse] for name in CSF_LOOKS if name in arrays}
    tissue = brain[coarse] & (sitk.GetArrayViewFromImage(mask).T[coarse] == 0)
    walls = ventricles(looks, tissue, spacing * step, np.array(mask.GetDirection()).reshape(3, 3), edge)
    if not len(walls):
        return found, [*sorted(reasons), "ventricle_mm: no ventricle is seen (it takes t2w, t2f or t1n)"]
    return found | {"ventricle_mm": cKDTree(walls).query(near)[0].min()}, sorted(reasons)


def not_a_brain(inside: np.ndarray, spacing_mm) -> str:
    """Why what is not zero in an image is no skull-stripped brain; empty where it is one.

    A brain has the volume, the sides and the roundness of one: `BRAIN_ML`, `BRAIN_MM`, `BRAIN_FILL`.
    """
    _, cut = _cut(inside, inside)
    voxels, sides = np.count_nonzero(cut), cut.shape * np.array(spacing_mm)
    volume, fill = voxels * np.prod(spacing_mm) / 1000, voxels / max(cut.size, 1)
    if not BRAIN_ML[0] <= volume <= BRAIN_ML[1]:
        return f"{volume:.0f} mL of it are not zero"
    if not BRAIN_FILL[0] <= fill <= BRAIN_FILL[1]:
        return f"{fill:.0%} of the box around it is not zero"
    return (
        "" if BRAIN_MM[0] <= sides.min() and sides.max() <= BRAIN_MM[1] else f"{sides.max():.0f} mm of it at a stretch"
    )


def ventricles(looks: dict, tissue: np.ndarray, spacing_mm, direction: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """The walls of the lateral ventricles, as face centres (mm from the first voxel); shape (points, 3), maybe none.

    Cerebrospinal fluid is the brightest of three classes (Otsu) of T2w less T2-FLAIR less T1w, each scaled to its
    quartiles in the brain, of those that exist. The ventricles are its parts within 8 mm of those of the MNI152
    template, once the template's box is laid on the brain's.

    Parameters
    ----------
    looks : dict of str to ndarray, shape (x, y, z)
        Sequences of `CSF_LOOKS`.
    tissue : ndarray of bool
        Brain without lesions and oedema.
    spacing_mm : 3 floats
    direction : ndarray, shape (3, 3)
        Of the image, as SimpleITK has it.
    edge : ndarray, shape (points, 3)
        Of the brain, mm from the first voxel.
    """
    from scipy.ndimage import label
    from skimage.filters import threshold_multiotsu

    contrast = sum((CSF_LOOKS[name] * _scaled(values[tissue]) for name, values in looks.items()), np.zeros(1))
    if len(np.unique(contrast[:: max(1, contrast.size // 1000)])) < 10:
        return np.empty((0, 3))
    fluid = np.zeros(tissue.shape, dtype=bool)
    fluid[tissue] = contrast > threshold_multiotsu(contrast, 3, nbins=128)[-1]
    at, near = np.argwhere(fluid), template_ventricles()
    place = _in_template((at * spacing_mm) @ direction.T, edge @ direction.T)
    inside = near(np.round(place).astype(int))
    fluid[tuple(at[~inside].T)] = False
    numbered, parts = label(fluid)
    if not parts:
        return np.empty((0, 3))
    voxels = np.bincount(numbered.ravel())
    voxels[0] = 0
    kept = (voxels >= 0.1 * voxels.max())[numbered] & fluid  # left and right may lie apart
    return faces(kept, ~kept, spacing_mm)[0]


@lru_cache(maxsize=1)
def template_ventricles():
    """Whether a place of the MNI152 template (mm, whole numbers, shape (n, 3)) is within 8 mm of its ventricles.

    ICBM 152 2009a nonlinear (Fonov 2011, NeuroImage 54:313), from the nilearn wheel.
    """
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
    from scipy.ndimage import distance_transform_edt, label

    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    first, last, seed = np.array([-50, -70, -16]), np.array([50, 42, 40]), np.array([18, -35, 15])  # trigone, mm
    box = tuple(slice(a, b) for a, b in zip(first + [98, 134, 72], last + [98, 134, 72], strict=True))
    t1, grey, white = (np.asarray(load(resolution=1).dataobj[box], dtype=np.float32) for load in loaders)
    numbered, _ = label((t1 > 0) - grey - white > 0.5)
    near = distance_transform_edt(numbered != numbered[tuple(seed - first)]) <= 8

    def lookup(places: np.ndarray) -> np.ndarray:
        within = ((places >= first) & (places < last)).all(1)
        return within & near[tuple((np.clip(places, first, last - 1) - first).T)]

    return lookup


def _in_template(places: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Places in the template (mm to the right, front and head) of places in a brain (mm to the left, back, head).

    Width and length are those of the brain's box. Height is counted from the vertex and scaled as the length is,
    because scans differ in how much of the brainstem they hold.
    """
    low, high = np.array([-72.5, -107.5]), np.array([72.5, 73.5])  # the template's brain
    flipped, border = places * [-1, -1, 1], edge * [-1, -1, 1]
    own_low, own_high = border.min(0), border.max(0)
    scale = (high - low) / (own_high - own_low)[:2]
    flat = (flipped[:, :2] - own_low[:2]) * scale + low
    return np.column_stack([flat, 82.5 - (own_high[2] - flipped[:, 2]) * scale[1]])


def _scaled(values: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(values.astype(np.float32))
    low, middle, high = np.percentile(values, [25, 50, 75]) if values.size else (0, 0, 0)
    return ((values - middle) / max(high - low, 1e-6)).clip(-6, 6)


def _columns(labels: dict[int, str], images: dict | None) -> list[str]:
    """What these labels and images can have, beside volumes and ratios."""
    present, names = set(labels.values()), ["diameter_mm", "axial_diameter_mm", "rano_product_mm2", "sphericity"]
    names += ["rim_mm"] if {"necrosis", "enhancing"} <= present else []
    names += ["oedema_reach_mm", "oedema_reach_p95_mm"] if "oedema" in present else []
    return names + (["surface_mm", "ventricle_mm"] if set(images or {}) & set(MR) else [])


def _numbers(labels: dict[int, str], wanted: str) -> list[int]:
    return [number for number, meaning in labels.items() if meaning == wanted]


def _cut(array: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First voxel of the box around a region, and a copy of the array there: masks of a whole trunk are large."""
    around = box(inside) or (slice(0, 0),) * 3
    return np.array([side.start for side in around]), np.ascontiguousarray(array[around])
