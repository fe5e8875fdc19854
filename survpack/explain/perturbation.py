"""Does the answer hang on what a map marks: voxels taken away, or given back, in the map's order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from survpack.models import Deep, Patients

BLOCK = 4  # voxels a side: every order takes whole blocks, else a smooth map would be set beside specks (Samek 2017)
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4)  # of the blocks; a lesion is 7 % of a cube, and on a line most area lies beyond
FLAT = 1e-6  # of the greatest risk: what varies no more is rounding
RANDOM = 3  # random orders, the same for all methods; their mean is what a map must beat


def orders_scored(model: Deep, patients: Patients, maps: dict[str, np.ndarray], seed: int) -> dict[str, dict]:
    """`deletion` and `insertion` of each method's maps, beyond those of random orders.

    Both are means over `SHARES`, in units of what it changes to take the whole image away (mean over patients), so
    that methods are compared on one scale and a patient whose image does nothing does not rule. Voxels are replaced by
    zeros, and their modality still counts as present (fusion `gated` sees an empty image, not none); masks and chart
    are held.

    Parameters
    ----------
    model : Deep
    patients : Patients
    maps : dict of method to ndarray, shape (n, x, y, z)
    seed : int

    Returns
    -------
    dict of method to dict
        `deletion` (change of risk as the most marked blocks are taken away, less that of random blocks) and
        `insertion` (how much nearer to the answer the most marked blocks bring an empty image than random ones), each
        (n,); above zero is better than chance. NaN where a patient has no map. And of the network, not of the method,
        what `effect` is made of: `risk`, and `without`, the risk without the whole image.
    """
    says = _risk_of(model, patients)
    images = patients.images if patients.modalities else patients.masks
    whole = says(images)
    without = says(np.zeros_like(images))
    scale = np.abs(whole - without).mean()
    rng = np.random.default_rng(seed)
    size = _blocks(np.zeros(images.shape[:1] + images.shape[2:])).shape
    chance = [_areas(says, images, whole, rng.random(size)) for _ in range(RANDOM)]
    fall, gap = (np.mean([one[k] for one in chance], axis=0) for k in (0, 1))
    ties, found = rng.random(size), {}
    for method, own in maps.items():
        marked = _blocks(own) + 1e-9 * ties  # blocks marked alike are taken in random order
        fallen, short = _areas(says, images, whole, np.nan_to_num(marked))
        none = np.where(np.isfinite(marked).all(axis=1), 0, np.nan)
        unit = scale if scale > 0 else np.nan
        beyond = {"deletion": (fallen - fall) / unit + none, "insertion": (gap - short) / unit + none}
        found[method] = {"risk": whole, "without": without} | beyond
    return found


def effect(risk: np.ndarray, without: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """How far images set patients apart: the standard deviation of what they change, over that of the risks.

    What the images of all change alike is no effect: a network was trained on no blank image, and may shift everybody.

    Parameters
    ----------
    risk, without : ndarray, shape (n,)
        With the image, and with zeros in its place.
    counts : ndarray, shape (..., n), optional
        How often each patient is in the sample.

    Returns
    -------
    ndarray, shape (...,)
        NaN where the risks do not vary.
    """
    risk, without = np.asarray(risk, float), np.asarray(without, float)
    counts = np.ones(len(risk)) if counts is None else np.asarray(counts, float)

    def spread(values: np.ndarray) -> np.ndarray:
        near, size = values - values.mean(), counts.sum(axis=-1)
        return np.sqrt(np.maximum(counts @ near**2 / size - (counts @ near / size) ** 2, 0))

    with np.errstate(invalid="ignore"):  # of nobody nothing is known
        whole = spread(risk)
        return spread(risk - without) / np.where(whole > FLAT * np.abs(risk).max(), whole, np.nan)


def _areas(says, images: np.ndarray, whole: np.ndarray, marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean change with the first blocks away, and mean distance from the answer with the first blocks alone; (n,)."""
    place = np.argsort(np.argsort(-marked, axis=1), axis=1)  # 0 is the most marked
    side = images.shape[2:]
    fallen, short = [], []
    for share in SHARES:
        first = _voxels(place < share * marked.shape[1], side)[:, None]
        fallen.append(np.abs(whole - says(np.where(first, 0, images))))
        short.append(np.abs(whole - says(np.where(first, images, 0))))
    return np.mean(fallen, axis=0), np.mean(short, axis=0)


def _blocks(maps: np.ndarray) -> np.ndarray:
    """Mean of each block of a map, shape (n, blocks)."""
    n, *side = maps.shape
    parts = [size for length in side for size in (length // BLOCK, BLOCK)]
    return maps.reshape(n, *parts).mean(axis=(2, 4, 6)).reshape(n, -1)


def _voxels(blocks: np.ndarray, side: tuple[int, int, int]) -> np.ndarray:
    """Blocks (n, blocks) to voxels (n, x, y, z)."""
    grid = blocks.reshape(len(blocks), *(length // BLOCK for length in side))
    for axis in (1, 2, 3):
        grid = grid.repeat(BLOCK, axis=axis)
    return grid


def _risk_of(model: Deep, patients: Patients):
    """Images (n, channels, x, y, z) to risk (n,), all else as the patients have it."""
    name = "images" if patients.modalities else "masks"

    def says(images: np.ndarray) -> np.ndarray:
        return model.objective.risk(model.outputs(replace(patients, **{name: images})))

    return says
