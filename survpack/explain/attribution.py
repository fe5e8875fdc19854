"""Where in the image a network's answer comes from.

All methods explain the risk (or what it rises with), with the chart and the masks held as they are. Without any
modality the masks are the image. What is taken away is replaced by zeros, as an absent modality is stored.
"""

from __future__ import annotations

import numpy as np

from survpack.errors import BadInput
from survpack.models import Deep, Patients

BATCH = 8  # patients
EVALUATIONS = 32  # images a pass through the network, where a patient needs several
ROUNDING = 4  # times what the output differs by in another batch, or its last bit: less is no change
# Where Grad-CAM reads, before what `encoders.CAM_LAYER` says: tri-planar encoders as their 3-D kin, and all patches.
LAYERS = {
    "compact": "encoder.first",  # regional statistics of these maps go past `second`, and there Grad-CAM misses them
    "efficientnet-2d": "encoder.net._blocks.2",
    "resnet50-2d": "encoder.net.layer2",
    "vit": "encoder.blocks.1",
}


def attribute(model: Deep, patients: Patients, method: str, *, steps: int = 16, window: int = 8) -> np.ndarray:
    """One map a patient of where a network's risk comes from.

    Parameters
    ----------
    model : Deep
        Fitted; an ensemble's maps are averaged before they are scaled.
    patients : Patients
    method : str
        "gradcam" (Selvaraju 2017) and "gradcam++" (Chattopadhay 2018) show what raises the risk. With a shared encoder
        the modalities' maps are added. A tri-planar encoder sees three slices; elsewhere its map is zero.
        "integrated-gradients" (Sundararajan 2017): from an image of zeros, absolute values added over modalities.
        "occlusion" (Zeiler 2014): the change, up or down, when a window of all modalities is set to zero.
    steps : int
        Of the integral.
    window : int
        Voxels a side of the occluding cube, and from one to the next.

    Returns
    -------
    ndarray of float32, shape (n, x, y, z)
        From 0 to 1, the greatest of each patient 1. All NaN for a patient for whom there is nothing to show.

    Raises
    ------
    BadInput
        For another method, a network of the chart alone, and an encoder without a layer for Grad-CAM.
    """
    if method not in METHODS:
        raise BadInput(f"attribution: there is no method `{method}`; choose one of {', '.join(METHODS)}.")
    if model.fusion == "chart":
        raise BadInput(f"attribution: the model is {model.about}, and sees no image; explain a network that does.")
    samples = model.samples(patients)
    total = np.zeros((len(samples.table), *samples.masks.shape[2:]), np.float32)
    for net in model.nets:
        seen = _seen_with(net, model, bool(patients.modalities))
        starts = range(0, len(total), BATCH)
        batches = (_given(samples.take(slice(at, at + BATCH)), seen) for at in starts)
        for at, found in zip(starts, METHODS[method](seen, batches, steps=steps, window=window), strict=True):
            total[at : at + BATCH] += found.detach().cpu().numpy()
    return _scaled(total)


def gradcam(model: Deep, patients: Patients) -> np.ndarray:
    """Grad-CAM of each patient's risk, as `attribute` has it (Selvaraju 2017)."""
    return attribute(model, patients, "gradcam")


def _gradcam(seen, batches, **_):
    from monai.visualize import GradCAM

    return _cam(seen, batches, GradCAM)


def _gradcam_plus(seen, batches, **_):
    from monai.visualize import GradCAMpp

    return _cam(seen, batches, GradCAMpp)


def _cam(seen, batches, method):
    """Maps (n, x, y, z) of each batch, by a class-activation method of MONAI."""
    import torch

    camera = method(_watched(seen), target_layers=f"net.{seen.layer}")
    for varied, held, table, present in batches:
        shared = getattr(seen.net, "shared", False)  # then only images that are there go through the encoder
        owner = present.nonzero()[:, 0] if shared else torch.arange(len(varied), device=varied.device)
        maps = torch.zeros((len(varied), *varied.shape[2:]), device=varied.device)
        if len(owner):
            raw = camera.compute_map(varied, class_idx=0, held=held, table=table, present=present)
            maps.index_add_(0, owner, _in_cube(raw.detach(), varied.shape[2:]))
            camera.nn_module.activations.clear()  # they and the hooks hold each other, and no collector frees them
            camera.nn_module.gradients.clear()
        yield maps


def _watched(seen):
    """MONAI's hooks on the layer; activations and gradients scaled against each other.

    No map depends on that scale but by MONAI's 1e-7 in Grad-CAM++, which would rule where gradients are small. Its
    exponential of the score, one factor a patient, is left out: the maps are scaled anyway.
    """
    import torch
    from monai.visualize import ModelWithHooks

    class Watched(ModelWithHooks):
        def __call__(self, *given, **choices):
            output, (activation,), (gradient,) = super().__call__(*given, **choices)
            self.score = torch.zeros((), device=output.device)
            unit = gradient.abs().flatten(1).amax(dim=1).clamp_min(1e-30).view(-1, *[1] * (gradient.ndim - 1))
            return output, (activation * unit,), (gradient / unit,)

    if not seen.layer:
        raise BadInput(
            f"attribution: the encoder `{seen.encoder}` has no layer for Grad-CAM; choose integrated-gradients or "
            "occlusion, or a network with another encoder."
        )
    if seen.encoder == "vit":
        _patches_in_place(seen.net.encoder)
    return Watched(seen, f"net.{seen.layer}", register_forward=True, register_backward=True)


def _in_cube(raw, size):
    """Maps of a layer, (rows, 1, …), in the cube, (n, x, y, z); those of slices on their slices, the greater where they cross."""
    import torch
    from torch.nn import functional

    mode = "trilinear" if raw.ndim == 5 else "bilinear"
    full = functional.interpolate(raw, size=size[: raw.ndim - 2], mode=mode, align_corners=False)[:, 0].clamp_min(0)
    if raw.ndim == 5:
        return full
    cube = torch.zeros((len(full) // 3, *size), device=full.device)
    for axis, plane in enumerate(full.chunk(3)):
        own = cube.select(1 + axis, size[axis] // 2)
        own.copy_(torch.maximum(own, plane))
    return cube


def _patches_in_place(encoder) -> None:
    """Let a transformer's tokens pass through a grid of its patches, which is what Grad-CAM reads."""
    from torch import nn

    class Turned(nn.Module):
        def __init__(self, how):
            super().__init__()
            self.forward = how

    def as_grid(tokens):
        return tokens.transpose(1, 2).unflatten(2, [round(tokens.shape[1] ** (1 / 3))] * 3)

    def as_tokens(grid):
        return grid.flatten(2).transpose(1, 2)

    encoder.blocks = nn.Sequential(encoder.blocks, Turned(as_grid), Turned(as_tokens))


def _integrated_gradients(seen, batches, *, steps: int, **_):
    for batch in batches:
        yield _integrated(seen, batch, steps).abs().sum(dim=1)


def _integrated(seen, batch, steps: int):
    """Signed, of each voxel of each modality: they add up to the risk above that of an image of zeros."""
    from captum.attr import IntegratedGradients

    varied, *rest = batch
    return IntegratedGradients(seen).attribute(
        varied, target=0, additional_forward_args=tuple(rest), n_steps=steps, internal_batch_size=EVALUATIONS
    )


def _occlusion(seen, batches, *, window: int, **_):
    from captum.attr import Occlusion

    for varied, *rest in batches:
        cube = (varied.shape[1], *(min(window, side) for side in varied.shape[2:]))
        at_once = max(1, EVALUATIONS // len(varied))
        change = Occlusion(seen).attribute(
            varied, cube, cube, target=0, additional_forward_args=tuple(rest), perturbations_per_eval=at_once
        )
        change = change[:, 0].abs()  # a window hides all modalities, and each has the same
        yield change * (change > _rounding(seen, (varied, *rest), at_once)[:, :, None, None])


def _rounding(seen, batch: tuple, at_once: int):
    """What the same images differ by for no reason but single precision, a patient each; shape (n, 1)."""
    import torch

    with torch.no_grad():
        once = seen(*batch)
        again = seen(*(part.repeat_interleave(at_once, dim=0) for part in batch)).unflatten(0, (-1, at_once))
    return ROUNDING * torch.maximum((again[:, 0] - once).abs(), torch.finfo(once.dtype).eps * once.abs())


METHODS = {
    "gradcam": _gradcam,
    "gradcam++": _gradcam_plus,
    "integrated-gradients": _integrated_gradients,
    "occlusion": _occlusion,
}


def _seen_with(net, model: Deep, of_images: bool):
    """A copy of one network, its risk as a function of the image (n, channels, x, y, z) first; shape (n, 1).

    A copy, for MONAI never takes its hooks off again.
    """
    from copy import deepcopy

    from torch import nn

    from survpack.encoders import CAM_LAYER
    from survpack.training import device

    zero, one = (model.objective.risk(np.full((1, model.objective.outputs), value))[0] for value in (0.0, 1.0))

    class Seen(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.encoder, self.of_images = deepcopy(net).requires_grad_(False), model.encoder, of_images
            self.layer = LAYERS.get(model.encoder) or CAM_LAYER.get(model.encoder, "")
            self.towards = 1.0 if one > zero else -1.0  # what raises the risk, or shortens the days

        def forward(self, varied, held, table, present):
            image, mask = (varied, held) if self.of_images else (held, varied)
            risk = self.towards * self.net(image, mask, table, present).sum(dim=1, keepdim=True)
            return risk + 0 * varied.flatten(1).sum(dim=1, keepdim=True)  # what reads no image has a gradient too: zero

    return Seen().eval().to(device())


def _given(samples, seen) -> tuple:
    """Tensors of a batch: what is explained, what is held, table, present."""
    import torch

    from survpack.training import device

    where = device()
    images, masks, table = (
        torch.as_tensor(np.asarray(part, np.float32), device=where)
        for part in (samples.images, samples.masks, samples.table)
    )
    varied, held = (images, masks) if seen.of_images else (masks, images)
    return varied.requires_grad_(), held, table, torch.as_tensor(samples.present, device=where)


def _scaled(total: np.ndarray) -> np.ndarray:
    """Each map to a greatest of 1; NaN where nothing in it is above zero."""
    peak = total.max(axis=(1, 2, 3), keepdims=True, initial=0)
    shown = np.isfinite(peak) & (peak > 0)
    return np.divide(total, peak, out=np.full_like(total, np.nan), where=np.broadcast_to(shown, total.shape))
