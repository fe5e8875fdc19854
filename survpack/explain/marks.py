"""Where a map lies, and maps that explain nothing."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_gradient_magnitude

from survpack.models import Patients

TOLERANCE = (
    2  # voxels by which the greatest may miss: 6 % of a cube of 32, as Zhang's 15 pixels of a photograph are 3 %
)
CENTRE = 0.2  # standard deviation of the central control, as a share of the cube's side


def share_over_chance(maps: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Share of each map inside a region over the region's share of the cube, shape (n,); 1 is chance.

    Parameters
    ----------
    maps : ndarray, shape (n, x, y, z), not negative
    region : ndarray of bool, the same shape
        NaN for a patient whose region is empty.
    """
    whole, size = maps.sum(axis=(1, 2, 3)), region.mean(axis=(1, 2, 3))
    inside = np.where(region, maps, 0).sum(axis=(1, 2, 3)) / np.where(whole > 0, whole, np.nan)
    return inside / np.where(size > 0, size, np.nan)


def pointing(maps: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Whether the greatest of each map lies within `TOLERANCE` of a region: 1, 0 or NaN, shape (n,) (Zhang 2018).

    A map with many greatest voxels, as one window of occlusion, points at that one of them that is nearest to their
    middle.
    """
    near = reach(region)
    found = np.full(len(maps), np.nan)
    for number, one in enumerate(maps):
        if np.isfinite(one).all() and region[number].any():
            places = np.argwhere(one == one.max())
            middle = places[((places - places.mean(axis=0)) ** 2).sum(axis=1).argmin()]
            found[number] = near[number][tuple(middle)]
    return found


def reach(region: np.ndarray) -> np.ndarray:
    """Voxels within `TOLERANCE` of each region, shape (n, x, y, z); their share of the cube is `pointing`'s chance."""
    ball = (np.indices((2 * TOLERANCE + 1,) * 3) - TOLERANCE) ** 2
    return np.stack([binary_dilation(one, ball.sum(axis=0) <= TOLERANCE**2) for one in region])


def iou(maps: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Overlap (intersection over union) of a region with as many voxels of greatest attribution, shape (n,).

    Of voxels with equal attribution those are taken that lie first.
    """
    found = np.full(len(maps), np.nan)
    for number, (one, inside) in enumerate(zip(maps, region, strict=True)):
        size = int(inside.sum())
        if size and np.isfinite(one).all():
            top = np.argsort(-one.ravel(), kind="stable")[:size]
            shared = inside.ravel()[top].sum()
            found[number] = shared / (2 * size - shared)
    return found


def edges(patients: Patients, labels: list[str], number: int) -> np.ndarray:
    """How steep the image is: a picture of the scan, whatever network looks at it (Adebayo 2018)."""
    seen = patients.images if patients.images.shape[1] else patients.masks
    return _scaled(np.stack([sum(gaussian_gradient_magnitude(c.astype(np.float32), 1.0) for c in p) for p in seen]))


def centre(patients: Patients, labels: list[str], number: int) -> np.ndarray:
    """A Gaussian at the middle of the cube, where crops have their lesion."""
    shape = patients.masks.shape[2:]
    axes = np.meshgrid(*((np.arange(n) - (n - 1) / 2) / (CENTRE * n) for n in shape), indexing="ij")
    return np.repeat(np.exp(-sum(a**2 for a in axes) / 2)[None], len(patients.masks), axis=0).astype(np.float32)


def noise(patients: Patients, labels: list[str], number: int) -> np.ndarray:
    """Uniform noise, another for each network."""
    shape = (len(patients.masks), *patients.masks.shape[2:])
    return _scaled(np.random.default_rng([71, number]).random(shape).astype(np.float32))


def tumour_mask(patients: Patients, labels: list[str], number: int) -> np.ndarray:
    """The outline of the lesion that the reader drew: right on a network that reads the lesion, and no explanation."""
    return _scaled((patients.masks.max(axis=1) > 0).astype(np.float32))


CONTROLS = {"edges": edges, "centre": centre, "noise": noise, "tumour mask": tumour_mask}


def _scaled(maps: np.ndarray) -> np.ndarray:
    top = maps.max(axis=(1, 2, 3), keepdims=True)
    return np.where(top > 0, maps / np.where(top > 0, top, 1), np.nan).astype(np.float32)
