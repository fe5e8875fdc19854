"""Convolutions that compute what PyTorch's do, faster on small maps and on a CPU."""

from __future__ import annotations

from itertools import product

import torch
from torch import nn
from torch.nn import functional


class Convolution(nn.Module):
    """A convolution of `nn.Conv2d` or `nn.Conv3d`, same weights and same values.

    Taps of the kernel that meet nothing but padding are left out: on a map of one voxel, 26 of 27. Where each
    channel is convolved alone (depthwise) and the CPU trains, gradients come from `_Depthwise`.

    Parameters
    ----------
    given : Conv2d or Conv3d
        Whose parameters this module takes over.
    before, after : tuple of int
        Zeros around the map, an axis each; they replace the padding of `given`.
    """

    def __init__(self, given: nn.Conv2d | nn.Conv3d, before: tuple[int, ...], after: tuple[int, ...]):
        super().__init__()
        self.weight, self.bias = given.weight, given.bias
        self.stride, self.groups, self.before, self.after = given.stride, given.groups, before, after

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        weight, before, after = self.weight, [], []
        kernel = self.weight.shape[2:]
        for axis, size in enumerate(maps.shape[2:]):
            taps, low, high = _met(size, kernel[axis], self.stride[axis], self.before[axis], self.after[axis])
            weight = weight.narrow(2 + axis, taps.start, len(taps))
            before.append(low)
            after.append(high)
        depthwise = self.groups == len(weight) > 1
        quick = depthwise and weight.ndim == 5 and _slow_gradient(maps)
        if before != after or (quick and max(self.stride) > 1):
            maps = functional.pad(maps, [side for pair in zip(before[::-1], after[::-1], strict=True) for side in pair])
            before = [0] * len(before)
        if depthwise and weight[0].numel() == 1 and set(maps.shape[2:]) == {1}:
            return maps * weight.flatten().view(-1, *weight.shape[2:])
        if quick:
            return _Depthwise.apply(maps, weight, self.stride, tuple(before))
        return _convolve(maps, weight, self.bias, stride=self.stride, padding=before, groups=self.groups)

    def extra_repr(self) -> str:
        return f"weight={tuple(self.weight.shape)}, stride={self.stride}, groups={self.groups}"


def _met(size: int, kernel: int, stride: int, before: int, after: int) -> tuple[range, int, int]:
    """Taps that meet the map on one axis, and the zeros still needed on either side."""
    last = (size + before + after - kernel) // stride * stride
    taps = range(max(0, before - last), min(kernel, size + before))
    before -= taps.start
    return taps, before, max(last + len(taps) - before - size, 0)


def _slow_gradient(maps: torch.Tensor) -> bool:
    return not maps.is_cuda and torch.is_grad_enabled() and not torch.is_autocast_enabled(maps.device.type)


class _Depthwise(torch.autograd.Function):
    """Depthwise 3-D convolution whose gradients are forward convolutions; a padded map has a stride of one.

    On a CPU oneDNN is quick forwards and not backwards: PyTorch's gradients took most of the time of a 3-D
    EfficientNet. Here the gradient of the map is a convolution with the kernel turned round, and that of the kernel
    is the map convolved with the gradient, patients as channels; with a stride, lattice by lattice.
    """

    @staticmethod
    def forward(ctx, maps, weight, stride, padding):
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return _convolve(maps, weight, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx, slope):
        maps, weight = ctx.saved_tensors
        of_maps = _of_maps(slope, maps, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None
        return of_maps, _of_weight(slope, maps, weight, ctx.stride, ctx.padding), None, None


def _of_maps(slope, maps, weight, stride, padding) -> torch.Tensor:
    slope = slope.contiguous(memory_format=torch.channels_last_3d)
    if max(stride) == 1:
        around = [size - 1 - pad for size, pad in zip(weight.shape[2:], padding, strict=True)]
        return _convolve(slope, weight.flip(2, 3, 4), padding=around, groups=len(weight))
    out = torch.zeros_like(maps)
    for lattice in _lattices(stride):
        part = weight[:, :, *lattice]
        if part.numel():
            around = [size - 1 for size in part.shape[2:]]
            found = _convolve(slope, part.flip(2, 3, 4), padding=around, groups=len(weight))
            out[:, :, *lattice][:, :, *_first(found)] = found
    return out


def _of_weight(slope, maps, weight, stride, padding) -> torch.Tensor:
    out, (n, channels) = torch.zeros_like(weight), maps.shape[:2]
    kernel = slope.reshape(n * channels, 1, *slope.shape[2:])
    for lattice in _lattices(stride):
        part, seen = out[:, :, *lattice], maps[:, :, *lattice]
        if part.numel():
            seen = seen.reshape(1, n * channels, *seen.shape[2:])
            found = _convolve(seen, kernel, padding=padding, groups=n * channels).unflatten(1, (n, channels, 1))
            part.copy_(found.sum((0, 1))[:, :, *_first(part)])
    return out


def _lattices(stride: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Voxels that leave the same remainders when divided by the stride."""
    starts = product(*map(range, stride))
    return [tuple(slice(at, None, step) for at, step in zip(start, stride, strict=True)) for start in starts]


def _first(like: torch.Tensor) -> tuple[slice, ...]:
    return tuple(slice(size) for size in like.shape[2:])


def _convolve(maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, **choices) -> torch.Tensor:
    return (functional.conv3d if weight.ndim == 5 else functional.conv2d)(maps, weight, bias, **choices)


def quicker(net: nn.Module) -> nn.Module:
    """Put `Convolution` in place of every 2-D and 3-D convolution of `net` with a kernel of more than one voxel.

    MONAI's EfficientNet pads in a module of its own before each convolution; that module is merged into it.
    """
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if not isinstance(child, nn.Conv2d | nn.Conv3d) or max(child.kernel_size) == 1:
                continue
            before = after = tuple(child.padding)
            pad = getattr(parent, f"{name}_padding", None)
            if isinstance(pad, nn.ConstantPad2d | nn.ConstantPad3d):
                before, after = tuple(pad.padding[::2][::-1]), tuple(pad.padding[1::2][::-1])
                setattr(parent, f"{name}_padding", nn.Identity())
            setattr(parent, name, Convolution(child, before, after))
    return net
