"""Skull-stripping on the way in: the voxels outside the brain, the face among them, become 0.

`deepbet` (Fisch et al. 2024, doi:10.1002/hbm.70026; MIT licence; its wheel carries the weights) is trained on T1-weighted
MRI and is an optional dependency. On the Colin27 head its mask holds 99.5 % of the brain that FSL's BET outlines.
Quickshear, which cuts only the face away, left both eyes of that head in place and is therefore not offered.
"""

from __future__ import annotations

import numpy as np

from survpack.errors import BadInput


def brain_mask(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The brain with the fluid around it, in a T1-weighted scan.

    Parameters
    ----------
    values : ndarray, shape (x, y, z)
    affine : ndarray, shape (4, 4)
        NIfTI's: to mm, axes to the right, anterior, superior.

    Returns
    -------
    ndarray of bool, of the shape of `values`

    Raises
    ------
    BadInput
        Where deepbet is not installed, or no brain is found.
    """
    import nibabel as nib

    try:
        from deepbet.bet import BrainExtraction
    except ImportError:
        raise BadInput(
            "skull-stripping needs deepbet, which is not installed; run: "
            "python -m pip install --no-deps deepbet==1.0.2 fill-voids connected-components-3d fastremap"
        ) from None
    image = nib.Nifti1Image(np.asarray(values, dtype=np.float32), affine)
    try:
        _, mask, millilitres = BrainExtraction(no_gpu=True).run(image)
    except (ValueError, RuntimeError, IndexError):  # deepbet looks for the largest of no components
        millilitres = 0.0
    if not 500 < millilitres < 3000:
        raise BadInput(
            f"skull-stripping found a brain of {millilitres:.0f} mL, expected 500 to 3000; strip it by hand."
        )
    return np.asarray(mask.dataobj) > 0
