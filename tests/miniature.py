"""Tiny volumes, laid out as a public data set lays out its own."""

from pathlib import Path

import nibabel as nib
import numpy as np


def scan(path: Path, shape=(6, 6, 6)) -> Path:
    """An image with some contrast."""
    return _write(path, np.arange(np.prod(shape), dtype=np.int16).reshape(shape))


def mask(path: Path, labels=(1,), shape=(6, 6, 6)) -> Path:
    """A mask with one voxel of each label."""
    values = np.zeros(shape, dtype=np.uint8)
    values.flat[100 : 100 + len(labels)] = labels
    return _write(path, values)


def _write(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path
