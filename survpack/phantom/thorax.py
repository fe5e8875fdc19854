"""A thorax on CT, drawn from analytic shapes: anatomy, a lesion that can grow, and what a scanner shows of both.

Lengths are in mm from the middle of the field; x points to the patient's right, y to the front, z to the head.
A shape is a field that is negative inside and changes by about 1 a mm; painting it softly gives the partial volume
of its border. Tissue values and noise were set beside two real scans (IBSI's lung CT, soft-tissue sarcoma at TCIA).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from survpack.phantom.shared import smooth_noise

FIELD_MM = (350.0, 255.0, 180.0)
MARGIN = 2  # voxels around the field: patients never lie twice in the same place
AIR, LUNG, FAT, MUSCLE, BONE, MARROW, CARTILAGE, DISC = -1000, -865, -98, 52, 600, 230, 110, 75  # HU
LIVER, SPLEEN, STOMACH, MYOCARDIUM, LESION = 105, 115, 25, 105, 58  # after contrast agent
BLOOD = 45  # before it
MEDIASTINUM = ([-110, -62, -30, 0, 30, 60, 110], [21, 21, 33, 36, 27, 10, 7])  # front to back: y, half its width


@dataclass(frozen=True)
class Thorax:
    """One patient's anatomy on the fine grid, field and margin; float32.

    Attributes
    ----------
    hu : ndarray, shape (x, y, z)
        Before contrast agent in the blood.
    lungs, blood : ndarray
        How much of each voxel is lung (its vessels included), is blood that takes up contrast agent; 0 to 1.
    """

    hu: np.ndarray
    lungs: np.ndarray
    blood: np.ndarray


@dataclass(frozen=True)
class Scanner:
    """How a scanner shows a patient.

    Attributes
    ----------
    slices : int
        Fine slices averaged into one of the image.
    blur_mm : float
        Standard deviation of the kernel in the plane.
    sharpening : float
        Strength of its edge enhancement.
    noise_hu, grain_mm : float
        Standard deviation and correlation length of the noise.
    offset_hu, contrast_hu : float
        Calibration error; mean enhancement of the blood.
    """

    slices: int
    blur_mm: float
    sharpening: float
    noise_hu: float
    grain_mm: float
    offset_hu: float
    contrast_hu: float


@dataclass(frozen=True)
class Lesion:
    """A lesion before it has a size: `order` says which voxels of `box` it takes up first; `texture` is its inside."""

    box: tuple[slice, ...]
    order: np.ndarray
    texture: np.ndarray


def axes(spacing_mm: float) -> list[np.ndarray]:
    """Voxel centres of the fine grid: three float32 arrays that broadcast to its shape; slices come in pairs."""
    counts = [round(extent / spacing_mm / 2) * 2 + 2 * MARGIN for extent in FIELD_MM]
    lines = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(spacing_mm) for n in counts]
    return list(np.meshgrid(*lines, indexing="ij", sparse=True))


def thorax(rng: np.random.Generator, spacing_mm: float) -> Thorax:
    """Draw one patient's chest: wall, ribs, spine, heart, great vessels, diaphragm, airways and lungs."""
    where = axes(spacing_mm)
    x, y, z = where
    size, fat_mm = rng.uniform(0.92, 1.04), rng.uniform(8, 22)
    cavity = _cavity(x, y, z, 128 * size, 88 * size)
    hu = np.full(cavity.shape, AIR, dtype=np.float32)
    blood = np.zeros_like(hu)
    _paint_wall(rng, hu, where, cavity, size, fat_mm, spacing_mm)
    inside = _soft(cavity, spacing_mm)
    _paint(hu, inside, -75)  # mediastinal fat, until something lies there
    lungs = inside * _lungs(rng, where, size, spacing_mm)
    _paint_abdomen(rng, hu, where, inside * (1 - lungs), spacing_mm)
    _paint_spine(hu, where, size, rng.uniform(0, 25), spacing_mm)
    _paint_heart(hu, blood, where, lungs, size, spacing_mm)
    _paint_great_vessels(rng, hu, blood, where, lungs, size, spacing_mm)
    lungs *= 1 - blood
    _paint_parenchyma(rng, hu, where, lungs, spacing_mm)
    _paint_airways(hu, where, lungs, size, spacing_mm)
    tree = vessel_tree(rng, where, size, spacing_mm) * lungs
    _paint(hu, tree, BLOOD - 10)
    np.maximum(blood, tree, out=blood)
    return Thorax(*_bent(rng, [hu, lungs, blood], spacing_mm))


def vessel_tree(rng: np.random.Generator, where: list[np.ndarray], size: float, spacing_mm: float) -> np.ndarray:
    """How much of each voxel is pulmonary vessel: trees that fork from both hila, thinner at each fork."""
    shape = np.broadcast_shapes(*(axis.shape for axis in where))
    share = np.zeros(shape, dtype=np.float32)
    origin = np.array([axis.ravel()[0] for axis in where])
    for side in (1, -1):
        start = np.tile(np.array([side * 36, -8, 12]) * size, (14, 1)) + rng.normal(0, 6, (14, 3))
        heading = _unit(rng.normal(0, 1, (14, 3)) * [0.5, 0.9, 1.1] + [0.7 * side, 0, -0.15])
        length, radius = 29.0 * size, 4.6
        for _ in range(6):
            steps = np.arange(0, length, max(spacing_mm, 1.5) / 2)
            points = start[:, None] + steps[:, None] * heading[:, None]
            _stamp_balls(share, (points.reshape(-1, 3) - origin) / spacing_mm, radius / spacing_mm)
            start = np.repeat(start + length * heading, 2, axis=0)
            heading = _unit(np.repeat(heading, 2, axis=0) + rng.normal(0, 0.48, (len(start), 3)))
            length, radius = 0.8 * length, 0.77 * radius
    return share


def lesion_place(rng: np.random.Generator, body: Thorax, radius_mm: float, spacing_mm: float) -> np.ndarray:
    """Voxel in the lung where a lesion of that radius may sit: often at the pleura or a vessel, never at the edge."""
    shape = np.array(body.lungs.shape)
    margin = np.minimum(MARGIN + np.ceil(radius_mm / spacing_mm), shape // 2 - 2).astype(int)
    inner = tuple(slice(m, n - m) for m, n in zip(margin, shape, strict=True))
    density = gaussian_filter(body.lungs, 0.5 * radius_mm / spacing_mm, truncate=2)[inner]  # 1 deep in the lung
    candidates = np.argwhere((body.lungs[inner] > 0.9) & (density > 0.72))
    if not len(candidates):
        candidates = np.argwhere(density == density.max())
    draws = candidates[rng.integers(len(candidates), size=12)]
    near = density[tuple(draws.T)] - 0.5 * body.blood[inner][tuple(draws.T)]
    return draws[int(np.argmin(near)) if rng.random() < 0.6 else 0] + margin


def lesion(
    rng: np.random.Generator, body: Thorax, place, radius_mm: float, spiculation: float, spacing_mm: float
) -> Lesion:
    """A lesion that fills its lung from `place` outwards, lobed and with spikes that grow with it.

    Parameters
    ----------
    place : ndarray of int, shape (3,)
    radius_mm : float
        At baseline; sets the size of its lobes and how far it is drawn.
    spiculation : float
        0 is smooth, 1 has long spikes.
    """
    reach = int(np.ceil((2.4 * radius_mm + 12) / spacing_mm))
    box = tuple(slice(max(c - reach, 0), min(c + reach + 1, n)) for c, n in zip(place, body.lungs.shape, strict=True))
    ways = [spacing_mm * way for way in np.ogrid[box]]
    ways = [(way - spacing_mm * c).astype(np.float32) for way, c in zip(ways, place, strict=True)]
    distance = np.sqrt(sum(way**2 for way in ways)).clip(1e-3)
    edge = 1 + 0.13 * smooth_noise(rng, distance.shape, 0.5 * radius_mm / spacing_mm)
    edge = edge.clip(0.6) + spiculation * _spikes(rng, ways, distance)
    side = np.sign(np.arange(body.lungs.shape[0]) - body.lungs.shape[0] / 2)[box[0]] == _side(body, place)
    allowed = (body.lungs[box] > 0.2) & side[:, None, None]
    texture = smooth_noise(rng, distance.shape, 3.0 / spacing_mm)
    return Lesion(box, np.where(allowed, distance / edge, np.inf).astype(np.float32), texture)


def scan(
    rng: np.random.Generator,
    body: Thorax,
    tumour: Lesion,
    volume_ml: float,
    heterogeneity_hu: float,
    scanner: Scanner,
    spacing_mm: float,
) -> tuple[np.ndarray, np.ndarray]:
    """One visit: the image in HU (int16) and the mask of the lesion (uint8), shape (x, y, z).

    The patient lies a little elsewhere, breathes in more or less deeply and holds another phase of the contrast.
    `heterogeneity_hu` is the standard deviation of the density inside the lesion.
    """
    contrast = scanner.contrast_hu * rng.uniform(0.8, 1.2)
    hu = body.hu + body.blood * contrast + body.lungs * (1 - body.blood) * rng.normal(0, 15)
    voxel_ml = spacing_mm**3 / 1000
    occupied = _occupancy(tumour.order, volume_ml / voxel_ml, spacing_mm)
    _paint(hu[tumour.box], occupied, LESION + heterogeneity_hu * tumour.texture)
    order = np.full(hu.shape, np.inf, dtype=np.float32)
    order[tumour.box] = tumour.order
    crop = tuple(
        slice(o, n - 2 * MARGIN + o) for o, n in zip(rng.integers(0, 2 * MARGIN + 1, 3), hu.shape, strict=True)
    )
    mask = _first(_averaged(order[crop], scanner.slices), volume_ml / voxel_ml / scanner.slices)
    return _exposed(rng, _averaged(hu[crop], scanner.slices), scanner, spacing_mm), mask.astype(np.uint8)


def _exposed(rng: np.random.Generator, hu: np.ndarray, scanner: Scanner, spacing_mm: float) -> np.ndarray:
    """Kernel, calibration and noise of a scanner; outside the body the air is air."""
    sigma = scanner.blur_mm / spacing_mm
    seen = gaussian_filter(hu, (sigma, sigma, 0), truncate=3)
    if scanner.sharpening:
        seen += scanner.sharpening * (seen - gaussian_filter(seen, (2 * sigma, 2 * sigma, 0), truncate=2))
    grain = rng.standard_normal(hu.shape, dtype=np.float32)
    if scanner.grain_mm:
        width = scanner.grain_mm / spacing_mm
        grain = gaussian_filter(grain, (width, width, 0), truncate=3)
        grain /= grain.std()
    body = seen > AIR + 5
    seen += scanner.offset_hu + scanner.noise_hu * grain
    return np.where(body, seen.clip(AIR - 24, 3071), AIR).round().astype(np.int16)


def _occupancy(order: np.ndarray, voxels: float, spacing_mm: float) -> np.ndarray:
    """Share of each voxel that the first `voxels` take up; soft at their border."""
    finite = order[np.isfinite(order)]
    border = np.partition(finite, min(round(voxels), len(finite)) - 1)[min(round(voxels), len(finite)) - 1]
    return _soft(np.where(np.isfinite(order), order - border, 1e3), spacing_mm)


def _first(order: np.ndarray, voxels: float) -> np.ndarray:
    """The `voxels` voxels that come first, at least one; all that may belong where they are fewer."""
    flat = order.ravel()
    count = min(max(round(voxels), 1), int(np.isfinite(flat).sum()))
    chosen = np.zeros(flat.shape, dtype=bool)
    chosen[np.argpartition(flat, count - 1)[:count]] = True
    return chosen.reshape(order.shape)


def _averaged(volume: np.ndarray, slices: int) -> np.ndarray:
    return volume if slices == 1 else volume.reshape(*volume.shape[:2], -1, slices).mean(axis=3)


def _spikes(rng: np.random.Generator, ways: list[np.ndarray], distance: np.ndarray) -> np.ndarray:
    """How far, in radii, spikes reach beyond the lesion in each direction."""
    reach = np.zeros_like(distance)
    for direction, length in zip(_unit(rng.normal(size=(22, 3))), rng.uniform(0.2, 1.0, 22), strict=True):
        cosine = sum(way * np.float32(part) for way, part in zip(ways, direction, strict=True)) / distance
        np.maximum(reach, np.float32(length) * np.exp((cosine - 1) * np.float32(75)), out=reach)
    return reach


def _side(body: Thorax, place) -> float:
    return float(np.sign(place[0] - body.lungs.shape[0] / 2))


def _cavity(x, y, z, half_width: float, half_depth: float) -> np.ndarray:
    """The ribcage from within: a rounded box that narrows to a dome at the apex."""
    ratio = ((np.abs(x) / half_width) ** 2.3 + (np.abs(y) / half_depth) ** 2.3) ** (1 / 2.3)
    width = np.sqrt((1 - ((z - 5).clip(0) / 108) ** 2).clip(0.05)) * (1 - 0.0012 * (-20 - z).clip(0))
    radius = np.hypot(x, y)
    return radius - (radius / ratio.clip(1e-3)) * width


def _paint_wall(rng, hu, where, cavity, size: float, fat_mm: float, spacing_mm: float) -> None:
    """Skin, fat, muscle with its planes of fat, ribs, sternum and shoulder blades."""
    x, y, z = where
    half_width, half_depth = 128 * size + 17 + fat_mm, 88 * size + 15 + 0.8 * fat_mm
    ratio = ((np.abs(x) / half_width) ** 2.4 + (np.abs(y) / half_depth) ** 2.4) ** (1 / 2.4)
    skin = np.hypot(x, y) * (1 - 1 / ratio.clip(1e-3))
    _paint(hu, _soft(skin, spacing_mm), FAT)
    muscle = _soft(skin + fat_mm * (1 - 0.35 * (y > 40) * (np.abs(x) < 90)), spacing_mm)
    planes = smooth_noise(rng, hu.shape, 3.5 / spacing_mm)
    _paint(hu, muscle, MUSCLE)
    _paint(hu, muscle * ((planes - 0.7) / 0.6).clip(0, 1) * _soft(cavity - 10, spacing_mm, outside=True), FAT + 15)
    blade = np.maximum(np.abs(cavity - 21) - 3, np.hypot(np.abs(x) - 100, y + 48) - 36)
    _paint(hu, _soft(np.maximum(np.maximum(blade, 12 - z), skin + 6), spacing_mm), BONE - 150)
    pitch, half_height = 27.0 * size, 5.5
    phase = (z + 0.5 * y + rng.uniform(0, pitch)) / pitch
    level = pitch * np.abs(phase - np.floor(phase) - 0.5) - half_height
    rib = np.maximum(np.abs(cavity - 6.5) - 3.8, level)
    bony = np.where(y > 62 * size, CARTILAGE, BONE).astype(np.float32)
    _paint(hu, _soft(rib, spacing_mm), bony)
    _paint(hu, _soft(rib + 3, spacing_mm), np.where(y > 62 * size, CARTILAGE, MARROW).astype(np.float32))
    sternum = np.maximum(np.maximum(np.abs(cavity - 8) - 5.5, np.abs(x) - 18), np.maximum(-y, z - 70))
    _paint(hu, _soft(sternum, spacing_mm), 330)
    _paint(hu, _soft(sternum + 3, spacing_mm), 130)


def _lungs(rng, where, size: float, spacing_mm: float) -> np.ndarray:
    """Beside the mediastinum and above the diaphragm; 0 to 1."""
    x, y, z = where
    hilum = 0.85 + 0.3 * np.exp(-(((z - 8) / 28) ** 2))
    middle = np.abs(x + 6) - np.interp(y, *MEDIASTINUM).astype(np.float32) * size * hilum
    return _soft(middle, spacing_mm, outside=True) * _soft(_diaphragm(rng, where, size), spacing_mm, outside=True)


def _diaphragm(rng, where, size: float) -> np.ndarray:
    """Height over the diaphragm in mm: two domes, the right one higher, rim lower all round."""
    x, y, z = where
    right, left = rng.normal(34, 5), rng.normal(24, 5)
    domes = right * np.exp(-(((x - 62) / 52) ** 2) - ((y - 8) / 62) ** 2)
    domes = domes + left * np.exp(-(((x + 66) / 46) ** 2) - ((y - 8) / 62) ** 2)
    return z - (-78 + domes) * size


def _paint_abdomen(rng, hu, where, weight, spacing_mm: float) -> None:
    """Liver on the right and spleen and stomach on the left, where there is neither lung nor mediastinum."""
    x, y, z = where
    beside = np.abs(x + 6) - np.interp(y, *MEDIASTINUM).astype(np.float32)
    below = weight * _soft(beside, spacing_mm, outside=True) * _soft(z + 30, 12)
    organs = np.where(x > -18, LIVER, np.where(y < 5, SPLEEN, STOMACH)).astype(np.float32)
    _paint(hu, below, organs)
    bubble = np.sqrt((x + 62) ** 2 + (y - 42) ** 2 + ((z + 78) * 1.6) ** 2) - rng.uniform(10, 20)
    _paint(hu, below * _soft(bubble, spacing_mm), AIR + 20)


def _paint_spine(hu, where, size: float, shift: float, spacing_mm: float) -> None:
    """Vertebral bodies with discs between, the canal, and the arch behind it."""
    x, y, z = where
    back, pitch = -70 * size, 25.0 * size
    body = np.hypot(x / 1.12, y - back) - 16
    phase = (z + shift) / pitch
    disc = pitch * np.abs(phase - np.floor(phase) - 0.5) - 2.6
    arch = np.minimum(np.hypot(x, y - back + 24) - 14, np.maximum(np.abs(x) - 4, np.abs(y - back + 42) - 12))
    arch = np.minimum(arch, np.maximum(np.abs(y - back + 22 + 0.15 * np.abs(x)) - 5, np.abs(x) - 34))
    column = np.minimum(body, np.where(disc > 5, arch, arch + 4))
    _paint(hu, _soft(column, spacing_mm), BONE - 60)
    _paint(hu, _soft(column + 3.2, spacing_mm), MARROW)
    _paint(hu, _soft(np.maximum(body, disc), spacing_mm), DISC)
    _paint(hu, _soft(np.hypot(x, y - back + 24) - 8, spacing_mm), 30)


def _paint_heart(hu, blood, where, lungs, size: float, spacing_mm: float) -> None:
    """Pericardial fat, muscle and the blood of four chambers; pushes the lung away."""
    x, y, z = where
    centre = np.array([-24, 22, -44]) * size
    u, v, w = x - centre[0], y - centre[1], z - centre[2]
    across, along = 0.8 * u + 0.6 * v, -0.6 * u + 0.8 * v  # its axis points to the front and left
    ratio = np.sqrt((across / 44) ** 2 + (along / 58) ** 2 + (w / 47) ** 2) / size
    muscle = (ratio - 1) * 46
    outer = _soft(muscle - 4, spacing_mm)
    _paint(hu, outer, FAT + 30)
    lungs *= 1 - outer
    _paint(hu, _soft(muscle, spacing_mm), MYOCARDIUM)
    septum = np.minimum(np.abs(across + 4 + 0.004 * along**2) - 4, np.abs(along + 12) - 2.5)
    chambers = _soft(muscle + 9 + 0.1 * across, spacing_mm) * _soft(septum, spacing_mm, outside=True)
    _paint(hu, chambers, BLOOD)
    np.maximum(blood, 0.85 * chambers, out=blood)


def _paint_great_vessels(rng, hu, blood, where, lungs, size: float, spacing_mm: float) -> None:
    """Aorta, superior vena cava, pulmonary arteries and the branches of the arch."""
    bend = rng.normal(0, 3)
    pipes = [  # from, to, radius
        ((10, 18, -8), (14, 20, 40), 15), ((14, 20, 40), (2, 2, 54), 14), ((2, 2, 54), (-20, -30, 52), 13),
        ((-20, -30, 52), (-26, -46, 38), 12.5), ((-26, -46, 40), (-20 + bend, -50, -95), 12),
        ((30, 14, -12), (26, 14, 58), 9.5), ((26, 14, 58), (36, 16, 95), 8), ((26, 16, 62), (-34, 20, 84), 6.5),
        ((-16, 26, -4), (-16, 18, 20), 14.5), ((-14, 16, 18), (40, -4, 12), 10.5), ((-16, 16, 20), (-46, -14, 18), 10.5),
        ((4, 6, 54), (12, 6, 95), 6.5), ((-8, -8, 54), (-12, -4, 95), 4.5), ((-16, -24, 54), (-26, -18, 95), 5.5),
        ((-24, -8, -14), (-44, -22, -6), 8), ((20, -8, -14), (42, -20, -8), 8),
    ]  # fmt: skip
    for start, end, radius in pipes:
        box, field = _pipe(where, np.array(start) * size, np.array(end) * size, radius * size, spacing_mm)
        inside = _soft(field, spacing_mm)
        _paint(hu[box], inside, BLOOD)
        np.maximum(blood[box], inside, out=blood[box])


def _paint_airways(hu, where, lungs, size: float, spacing_mm: float) -> None:
    """Trachea and main bronchi: a wall, then air."""
    pipes = [((2, -12, 100), (0, -18, 28), 8.5), ((0, -18, 30), (42, -20, 8), 6.5), ((0, -18, 30), (-44, -22, 6), 6),
             ((42, -20, 8), (58, -30, -24), 4.5), ((-44, -22, 6), (-58, -34, -26), 4.5)]  # fmt: skip
    for wall, value in ((1.6, 30), (0.0, AIR + 12)):
        for start, end, radius in pipes:
            box, field = _pipe(where, np.array(start) * size, np.array(end) * size, radius * size + wall, spacing_mm)
            inside = _soft(field, spacing_mm)
            _paint(hu[box], inside, value)
            lungs[box] *= 1 - inside


def _paint_parenchyma(rng, hu, where, lungs, spacing_mm: float) -> None:
    """Lung tissue, denser towards the back where the patient lies, uneven, with some emphysema above."""
    x, y, z = where
    uneven = smooth_noise(rng, hu.shape, 4.0 / spacing_mm)
    emphysema = rng.beta(1.2, 3) * 55 * (uneven < -0.9) * (0.5 + z.clip(0) / 90)
    _paint(hu, lungs, LUNG - 0.28 * y.clip(-90, 60) + 13 * uneven - emphysema)


def _pipe(where, start, end, radius: float, spacing_mm: float) -> tuple[tuple, np.ndarray]:
    """Box around a segment, and the distance to its surface there."""
    edges = np.sort([start, end], axis=0).T + [-radius - spacing_mm, radius + spacing_mm]
    box = tuple(slice(*np.searchsorted(axis.ravel(), edge)) for axis, edge in zip(where, edges, strict=True))
    ways = [axis.ravel()[s] for axis, s in zip(where, box, strict=True)]
    ways = np.meshgrid(*(way - at for way, at in zip(ways, start, strict=True)), indexing="ij", sparse=True)
    line = end - start
    along = (sum(way * part for way, part in zip(ways, line, strict=True)) / (line**2).sum()).clip(0, 1)
    distance = np.sqrt(sum((way - along * part) ** 2 for way, part in zip(ways, line, strict=True)))
    return box, (distance - radius).astype(np.float32)


def _stamp_balls(share: np.ndarray, centres: np.ndarray, radius: float) -> None:
    """Raise `share` to what a ball of that radius (in voxels) takes of each voxel near each centre."""
    reach = int(np.ceil(radius + 0.5))
    nearest = np.round(centres).astype(int)
    keep = ((nearest >= reach) & (nearest < np.array(share.shape) - reach)).all(axis=1)
    centres, nearest = centres[keep].astype(np.float32), nearest[keep]
    offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    offsets = offsets[(offsets**2).sum(axis=1) <= (reach + 0.5) ** 2]
    voxels = nearest[:, None] + offsets
    gap = np.sqrt(((voxels - centres[:, None]) ** 2).sum(axis=2, dtype=np.float32))
    thin = min(1.0, (2 * radius) ** 2)  # a vessel thinner than a voxel fills it in part
    np.maximum.at(share.reshape(-1), np.ravel_multi_index(tuple(voxels.reshape(-1, 3).T), share.shape),
                  (thin * (0.5 + radius - gap).clip(0, 1)).ravel().astype(np.float32))  # fmt: skip


def _soft(field: np.ndarray, width: float, outside: bool = False) -> np.ndarray:
    """1 inside (or outside) the shape, 0 on the other side, in between over `width` mm around its border."""
    share = field * np.float32((1 if outside else -1) / width) + np.float32(0.5)
    return np.clip(share, 0, 1, dtype=np.float32)


def _paint(hu: np.ndarray, share: np.ndarray, value) -> None:
    hu += share * (value - hu)


def _bent(rng: np.random.Generator, volumes: list[np.ndarray], spacing_mm: float) -> list[np.ndarray]:
    """The volumes, all bent alike by a few millimetres over some centimetres: no chest is made of ellipses."""
    shape = volumes[0].shape
    coarse = [max(n // 4, 2) for n in shape]
    places = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    bent = []
    for place in places:
        shift = 3.2 * smooth_noise(rng, coarse, 26 / spacing_mm / 4) + 1.2 * smooth_noise(
            rng, coarse, 10 / spacing_mm / 4
        )
        bent.append(place + zoom(shift, np.divide(shape, coarse), order=1) / spacing_mm)
    return [map_coordinates(volume, bent, order=1, mode="nearest") for volume in volumes]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
