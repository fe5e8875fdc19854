"""The same scan under two names: within a cohort, or in two cohorts that share patients.

An image has an exact hash of its voxels, which no other header or compression changes, and a signature of 8 x 8 x 8
block means by rank, which no rescaling of the intensities changes. The threshold `NEAR` was measured on real images.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from itertools import combinations

import nibabel as nib
import numpy as np
import pandas as pd
from scipy.stats import rankdata

HASHES = ["patient_id", "session", "modality", "sha", "signature"]
PAIRS = ["patient_id", "modality", "other_patient_id", "other_modality", "how", "similarity"]
BLOCKS = 8  # an axis; a volume with fewer voxels on an axis is too small to tell patients apart
NEAR = 0.997  # rank correlation; different patients at most: sts 0.92, kits 0.96, phantom 0.985; a rescaled copy 1.00
_SAMPLES = 64  # voxels an axis that the signature looks at
_FLIPS = [axes for many in range(4) for axes in combinations((0, 1, 2), many)]


def fingerprint(values: np.ndarray, affine: np.ndarray, drawn: tuple | None = None) -> tuple[str, str]:
    """Exact hash and signature of a volume, its axes put in the order of the patient's.

    Parameters
    ----------
    values : ndarray, shape (x, y, z)
    affine : ndarray, shape (4, 4)
    drawn : tuple of ndarray, optional
        Of a mask, what `filled` gives; its signature counts voxels in the box around what is drawn.

    Returns
    -------
    sha, signature : str
        SHA-256 of shape and voxels as float32; 512 ranks in 256 steps, as hex. Both "" for a volume that is not 3-D,
        is smaller than 8 voxels an axis, or is constant.
    """
    if values.ndim != 3 or min(values.shape) < BLOCKS:
        return "", ""
    blocks = _means(values) if drawn is None else _counts(drawn[0], values.shape)
    if blocks.min() == blocks.max():
        return "", ""
    order = [int(axis) for axis in np.argsort(nib.io_orientation(affine)[:, 0])]
    ranks = rankdata(blocks.transpose(order))
    steps = np.round(255 * (ranks - ranks.min()) / (ranks.max() - ranks.min())).astype(np.uint8)
    return _sha(values, drawn), steps.tobytes().hex()


def filled(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a volume is not 0 (index in Fortran order), and what it is there.

    Of integers as NIfTI stores them, eight bytes are looked at together: masks are mostly background, and many.
    """
    flat = values.ravel(order="F")  # a view, where it is stored so
    if flat.dtype.kind not in "bui" or not flat.flags.c_contiguous:
        index = np.flatnonzero(flat)
        return index, flat[index]
    together = 8 // flat.itemsize
    whole = len(flat) // together * together
    words = np.flatnonzero(flat[:whole].view(np.uint64))
    index = (words[:, None] * together + np.arange(together)).ravel()
    index = np.concatenate([index, np.arange(whole, len(flat))])
    labels = flat[index]
    return index[labels != 0], labels[labels != 0]


def duplicates(table: pd.DataFrame) -> pd.DataFrame:
    """Pairs of different patients in one cohort that have the same image.

    Parameters
    ----------
    table : DataFrame
        As `scans.examine` gives it: `HASHES`, the last two empty where `fingerprint` tells nothing.

    Returns
    -------
    DataFrame
        `patient_id`, `modality`, `other_patient_id`, `other_modality`, `how` ("same voxels" or "same but for its
        scale"), `similarity`; a pair of patients once for each pair of modalities.
    """
    pairs = shared(table, table)
    return pairs[pairs["patient_id"] < pairs["other_patient_id"]].reset_index(drop=True)


def shared(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Pairs of images of two cohorts that are the same; columns as `duplicates` has them."""
    told_one, told_other = one[one["sha"] != ""], other[other["sha"] != ""]
    columns = ["patient_id", "modality", "sha"]
    exact = told_one[columns].merge(told_other[columns].add_prefix("other_"), left_on="sha", right_on="other_sha")
    exact = exact.assign(how="same voxels", similarity=1.0)
    near = [
        _near(told_one[told_one["modality"] == each], told_other[told_other["modality"] == each])
        for each in sorted(set(told_one["modality"]) & set(told_other["modality"]))
    ]
    both = pd.concat([exact[PAIRS], *near]) if near else exact[PAIRS]
    return both.drop_duplicates(PAIRS[:4]).reset_index(drop=True)


def similarity(one: Iterable[str], other: Iterable[str]) -> np.ndarray:
    """Rank correlation of each signature with each other, the best over flips of an axis; shape (one, other)."""
    left, right = _standard(one), _standard(other)
    cube = right.reshape(-1, BLOCKS, BLOCKS, BLOCKS)
    best = np.full((len(left), len(right)), -1.0, dtype=np.float32)
    for flip in _FLIPS:
        flipped = np.flip(cube, axis=[axis + 1 for axis in flip]).reshape(len(right), -1)
        np.maximum(best, left @ flipped.T, out=best)
    return best


def _near(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    alike = similarity(one["signature"], other["signature"])
    left, right = np.nonzero(alike >= NEAR)
    return pd.DataFrame({
        "patient_id": one["patient_id"].to_numpy()[left],
        "modality": one["modality"].to_numpy()[left],
        "other_patient_id": other["patient_id"].to_numpy()[right],
        "other_modality": other["modality"].to_numpy()[right],
        "how": "same but for its scale",
        "similarity": alike[left, right].astype(float),
    })  # fmt: skip


def _standard(signatures: Iterable[str]) -> np.ndarray:
    """A row of mean 0 and length 1 each; shape (signatures, 512)."""
    rows = [np.frombuffer(bytes.fromhex(each), dtype=np.uint8) for each in signatures]
    table = np.array(rows, dtype=np.float32).reshape(-1, BLOCKS**3)
    table -= table.mean(axis=1, keepdims=True)
    return table / np.linalg.norm(table, axis=1, keepdims=True).clip(1e-6)


def _means(values: np.ndarray) -> np.ndarray:
    """Block means of every so many voxels; shape (8, 8, 8)."""
    steps = [max(n // _SAMPLES, 1) for n in values.shape]
    middle = [slice((n - 1) % step // 2, None, step) for n, step in zip(values.shape, steps, strict=True)]
    blocks = np.nan_to_num(values[tuple(middle)].astype(np.float32))
    for _ in range(3):  # averages the first axis and puts it last
        blocks = np.tensordot(blocks, _shares(blocks.shape[0]), axes=(0, 1))
    digits = 6 - int(np.ceil(np.log10(np.abs(blocks).max() + 1e-30)))
    return blocks.round(digits)  # ties stay ties


def _shares(n: int) -> np.ndarray:
    """How much of each of `n` voxels lies in each block, the same from either end; shape (8, n)."""
    edges = np.arange(BLOCKS + 1) * n / BLOCKS
    inside = np.minimum(edges[1:, None], np.arange(n) + 1) - np.maximum(edges[:-1, None], np.arange(n))
    return (inside.clip(0) * BLOCKS / n).astype(np.float32)


def _counts(index: np.ndarray, shape: tuple) -> np.ndarray:
    """Voxels that are not 0 in each block of the box around them; shape (8, 8, 8)."""
    places = np.unravel_index(index, shape, order="F")
    if not len(index):
        return np.zeros([BLOCKS] * 3)
    block = [((place - place.min()) * BLOCKS // (np.ptp(place) + 1)).astype(np.intp) for place in places]
    flat = np.ravel_multi_index(block, [BLOCKS] * 3)
    return np.bincount(flat, minlength=BLOCKS**3).reshape([BLOCKS] * 3)


def _sha(values: np.ndarray, drawn: tuple | None) -> str:
    """Of the shape and of float32 voxels; of a mask, where it is not 0 and what it is there."""
    digest = sha256(repr(values.shape).encode())
    if drawn is not None:
        index, labels = drawn
        digest.update(index.astype(np.int64).tobytes() + labels.astype(np.float32).tobytes())
    else:
        digest.update(values.astype(np.float32).tobytes(order="F"))
    return digest.hexdigest()
