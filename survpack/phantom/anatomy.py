"""Brains: the MNI152 template that ships with nilearn, bent and resized into one patient's.

ICBM 152 2009a nonlinear (Fonov 2011, NeuroImage 54:313): T1 and the shares of grey and white matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from survpack.phantom.shared import smooth_noise

EXTENT_MM = np.array([160.0, 196.0, 168.0])  # holds the largest head
HEAD_SIZE = (0.94, 0.025)  # of the template, which is larger than most heads: mean and standard deviation
CENTRE_MNI_MM = np.array([0.0, -17.0, 6.0])  # middle of the template's brain
COARSE_MM = 8.0  # grid on which the bending is drawn
T1_OF_TISSUE = (0.24, 0.65, 0.88)  # of CSF, grey and white matter in the template


@dataclass(frozen=True)
class Brain:
    """One patient's anatomy; arrays are float32 of shape (x, y, z).

    Attributes
    ----------
    csf, grey, white : ndarray
        Shares of each voxel; they add up to 1 in the brain and to 0 outside.
    detail : ndarray
        What the template's T1 shows beyond its tissues (the deep nuclei, for one), as a share of the signal.
    mni_mm : ndarray, shape (3, x, y, z)
        Where in the template each voxel comes from.
    spacing_mm : float
    """

    csf: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    detail: np.ndarray
    mni_mm: np.ndarray
    spacing_mm: float

    @property
    def inside(self) -> np.ndarray:
        return (self.csf + self.grey + self.white) > 0

    @property
    def affine(self) -> np.ndarray:
        """Voxel to mm, the origin in the middle of the image, as NIfTI has it."""
        affine = np.diag([self.spacing_mm] * 3 + [1.0])
        affine[:3, 3] = [-(n - 1) / 2 * self.spacing_mm for n in self.grey.shape]
        return affine


def brain(rng: np.random.Generator, spacing_mm: float) -> Brain:
    """A head of its own size and shape, and gyri of its own, on a grid of `spacing_mm`."""
    where = bent(rng, spacing_mm)
    voxel = where + np.array([98.0, 134.0, 72.0], dtype=np.float32).reshape(3, 1, 1, 1)  # the template is at 1 mm
    maps = [map_coordinates(one, voxel, order=1, output=np.float32) for one in template(spacing_mm)]
    grey, white, head, detail = maps
    inside = head > 0.5
    sulci = 1.5 * np.exp(0.15 * rng.standard_normal())  # wider than in the template, which is of young adults
    shares = [np.square(sulci * (head - grey - white).clip(0)), np.square(grey), np.square(white)]
    total = sum(shares).clip(1e-6)  # squares: an average of 152 brains is blurred, one brain is not
    csf, grey, white = (np.where(inside, share / total, 0).astype(np.float32) for share in shares)
    csf[inside & (total <= 1e-6)] = 1
    return Brain(csf, grey, white, detail, where, spacing_mm)


def bent(rng: np.random.Generator, spacing_mm: float) -> np.ndarray:
    """Where in the template (mm) each voxel of a patient lies; float32, shape (3, x, y, z).

    A size for each axis, a bending of about 2 mm over 4 cm, and one of 1 mm over 1.5 cm.
    """
    shape = tuple(np.round(EXTENT_MM / spacing_mm).astype(int))
    coarse = tuple(np.ceil(EXTENT_MM / COARSE_MM).astype(int))
    size = (HEAD_SIZE[0] + HEAD_SIZE[1] * rng.standard_normal()) * (1 + 0.012 * rng.standard_normal(3))
    where = np.empty((3, *shape), dtype=np.float32)
    for k in range(3):
        bending = 2.2 * smooth_noise(rng, coarse, 20 / COARSE_MM) + 1.0 * smooth_noise(rng, coarse, 8 / COARSE_MM)
        axis = (np.arange(shape[k], dtype=np.float32) - (shape[k] - 1) / 2) * (spacing_mm / size[k])
        axis = axis.reshape([-1 if k == other else 1 for other in range(3)]) + CENTRE_MNI_MM[k]
        where[k] = axis + zoom(bending, np.divide(shape, coarse), order=1, grid_mode=True, mode="nearest")
    return where


@lru_cache(maxsize=1)
def template(spacing_mm: float) -> tuple[np.ndarray, ...]:
    """Grey matter, white matter, brain and detail of the template at 1 mm, smoothed for sampling at `spacing_mm`."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    t1, grey, white = (np.asarray(load(resolution=1).dataobj, dtype=np.float32) for load in loaders)
    head = (t1 > 0).astype(np.float32)
    csf = (head - grey - white).clip(0)
    expected = sum(share * level for share, level in zip((csf, grey, white), T1_OF_TISSUE, strict=True))
    detail = np.where(head > 0, (t1 - expected).clip(-0.25, 0.25), 0) * (1 - csf)
    sigma = 0.3 * spacing_mm  # a voxel is the mean of what it covers
    return tuple(gaussian_filter(one, sigma, truncate=3) for one in (grey, white, head, detail))


def lesion_weight(mni_mm: np.ndarray) -> np.ndarray:
    """How much likelier a metastasis is at these places than elsewhere, given the tissue; shape (…) of (3, …).

    The border zones between the great arteries, and the cerebellum, hold more than their share (Delattre 1988,
    Arch Neurol 45:741: hemispheres 80 %, cerebellum 15 %, brainstem 5 %).
    """
    x, y, z = np.abs(mni_mm[0]), mni_mm[1], mni_mm[2]
    anterior = np.exp(-(((x - 28) / 10) ** 2)) * (z > 15)
    posterior = np.exp(-(((y + 62) / 15) ** 2)) * (x > 22) * (z > -8)
    brainstem = (x < 15) & (y > -42) & (y < -10) & (z < -6)
    return np.where(cerebellum(mni_mm), 1.0, 1 + 1.5 * np.maximum(anterior, posterior)) * np.where(brainstem, 0.4, 1.0)


def cerebellum(mni_mm: np.ndarray) -> np.ndarray:
    """Whether each place is below the tentorium, roughly: a plane; bool, shape (…) of (3, …)."""
    y, z = mni_mm[1], mni_mm[2]
    return (y < -38) & (z < -14 + 0.15 * (y + 60))
