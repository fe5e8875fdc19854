"""Augmentation: what may differ between two scans of one patient, drawn anew every time a network sees them.

A whole batch at once, in torch and on its device. MONAI's transforms take a sample at a time: the like changes of a crop
of 32 voxels a side, four sequences and three labels, took them 8.3 ms of one core, here 1.3 ms (`benchmarks.training`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from survpack.params import Augment

if TYPE_CHECKING:
    from survpack.training import Samples


@torch.no_grad()
def augment(batch: Samples, choice: Augment, mirror: bool) -> Samples:
    """Mirror, move, change grey values, cut out, and take whole modalities away.

    Random numbers are torch's own: seed them (`training.optimise` does, by epoch). A voxel that is zero (padding, a
    modality the patient lacks) stays zero under every change of grey values.

    Parameters
    ----------
    batch : Samples of tensors
        `images` (n, modalities, x, y, z) and `masks` (n, labels, x, y, z) of one float type, cubes; `present`
        (n, modalities).
    choice : Augment
        Zeros leave out a change.
    mirror : bool
        Whether left and right (the first axis) may be exchanged.

    Returns
    -------
    Samples
        New tensors; those given are as they were.
    """
    images, masks, present = batch.images.clone(), batch.masks.clone(), batch.present
    with torch.autocast(images.device.type, enabled=False):  # in half precision a voxel lands a tenth out of place
        if mirror:
            _mirror(images, masks)
        if choice.rotate_deg or choice.scale or choice.shift:
            _move(images, masks, choice)
        if images.shape[1]:
            _regrey(images, choice)
            _cut_out(images, masks, round(choice.cutout * images.shape[-1]))
            present = _without_modalities(images, present, choice.modality_dropout)
    return batch._replace(images=images, masks=masks, present=present)


def _mirror(images: torch.Tensor, masks: torch.Tensor) -> None:
    """Exchange left and right in half of the patients."""
    chosen = _half(images)
    for volumes in (images, masks):
        volumes[chosen] = volumes[chosen].flip(2)


def _move(images: torch.Tensor, masks: torch.Tensor, choice: Augment) -> None:
    """Turn, scale and shift half of the patients in one plane, images linear, masks nearest; zeros come in from outside.

    The plane is drawn once a batch and the rest for each patient: 2-D sampling costs a quarter of 3-D, and over the
    epochs a patient is turned about every axis.
    """
    chosen, axis, side = _half(images), int(torch.randint(3, ())), images.shape[-1]
    if not len(chosen):
        return
    angle = _symmetric(len(chosen)) * math.radians(choice.rotate_deg)
    size = 1 + _symmetric(len(chosen)) * choice.scale
    cos, sin = size * angle.cos(), size * angle.sin()
    by = 2 * choice.shift * _symmetric(2, len(chosen))  # the cube's side is 2 in grid_sample's units
    theta = torch.stack([cos, -sin, by[0], sin, cos, by[1]], dim=1).view(-1, 2, 3).to(images.device)
    grid = functional.affine_grid(theta, [len(chosen), 1, side, side], align_corners=False)
    for volumes, mode in ((images, "bilinear"), (masks, "nearest")):
        if volumes.shape[1]:
            volumes[chosen] = _sampled(volumes[chosen], grid, axis, mode)


def _regrey(images: torch.Tensor, choice: Augment) -> None:
    """Scale and shift the grey values of each modality, and add noise, both by its spread; zeros stay zero.

    The noise is drawn once a batch and read from another place for each patient: to draw it is what costs.
    """
    nothing, voxels = images == 0, images[0].numel()
    spread = images.flatten(2).std(dim=2)[:, :, None, None, None]  # of CT and PET a fraction of that of a z-scored MR
    scale, shift = (choice.intensity * _symmetric(*images.shape[:2], 1, 1, 1).to(images.device) for _ in range(2))
    if choice.intensity:
        images.mul_(1 + scale).add_(shift * spread)
    if choice.noise:
        drawn = choice.noise * torch.randn(2 * voxels, device=images.device)
        starts = torch.randint(voxels, (len(images),)).tolist()
        for image, own, start in zip(images, spread, starts, strict=True):
            image.addcmul_(drawn[start : start + voxels].view(image.shape), own)
    images.masked_fill_(nothing, 0)


def _cut_out(images: torch.Tensor, masks: torch.Tensor, width: int) -> None:
    """Blank a box at a random place in half of the patients, but no voxel of a mask (DeVries and Taylor 2017).

    `width` is the box's, in voxels; source arXiv:1708.04552.
    """
    chosen = _half(images).tolist() if width else []
    corners = torch.randint(images.shape[-1] - width + 1, (len(chosen), 3)).tolist()
    for number, corner in zip(chosen, corners, strict=True):
        box = (number, slice(None), *(slice(start, start + width) for start in corner))
        images[box] *= (masks[box] != 0).any(0)


def _without_modalities(images: torch.Tensor, present: torch.Tensor, share: float) -> torch.Tensor:
    """Take each modality away with probability `share`, but never the last that a patient has; gives who has what.

    A network so trained predicts from whatever was scanned (ModDrop: Neverova et al. 2016, arXiv:1501.00102).
    """
    draw = torch.rand(present.shape).to(images.device).masked_fill(~present, -1)
    kept = present & ((draw >= share) | (draw == draw.amax(1, keepdim=True)))
    if share:
        images *= kept[:, :, None, None, None]
    return kept


def _sampled(volumes: torch.Tensor, grid: torch.Tensor, axis: int, mode: str) -> torch.Tensor:
    """Every slice across `axis` sampled on the same grid."""
    for step in reversed(range(axis)):  # neighbouring axes at a time: three times as fast as both at once
        volumes = volumes.transpose(2 + step, 3 + step).contiguous()
    slices = volumes.flatten(1, 2)
    volumes = functional.grid_sample(slices, grid, mode=mode, align_corners=False).view(volumes.shape)
    for step in range(axis):
        volumes = volumes.transpose(2 + step, 3 + step).contiguous()
    return volumes


def _half(images: torch.Tensor) -> torch.Tensor:
    """Numbers of the patients of whom a coin falls so."""
    return torch.nonzero(torch.rand(len(images)) < 0.5).squeeze(1).to(images.device)


def _symmetric(*shape: int) -> torch.Tensor:
    return 2 * torch.rand(shape) - 1
