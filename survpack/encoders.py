"""Image encoders: a cube of voxels to tokens, and tokens to one vector.

Those of MONAI keep their architecture, batch norm included: it is what sets patients apart. All crops look much alike,
and a norm within one patient, as group norm is, lets what they share grow with every step until nothing else is left
(on `mets`, patients' vectors then correlated 1.000 after three epochs). What batch norm says in evaluation is learnt
from the training patients when training is over (`training.settle`): MONAI's running mean moves by 1 % a step, and a
fit of forty steps ends far from where it should be. Three things are other than in MONAI: the classifier at the end is
left out; weights of a depthwise convolution start as wide as the paper's (MONAI forgets that a group sees one channel,
and starts them up to 34 times too small); and a block that can be skipped starts as if it were (Goyal 2017).
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from survpack.convolution import quicker
from survpack.errors import BadInput


class Encoder(nn.Module):
    """Image to tokens.

    Attributes
    ----------
    width : int
        Channels of a token.
    pooled : int
        Length of the vector that `pool` makes.
    """

    width: int
    pooled: int

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Image (n, channels, x, y, z) and mask (n, labels, x, y, z) to tokens (n, width, tokens).

        Masks that are to be seen are among the image's channels too; `mask` is for pooling over regions.
        """
        raise NotImplementedError

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (n, width, tokens) to (n, pooled): their mean."""
        return tokens.mean(dim=2)


class Backbone(Encoder):
    """A network of MONAI without its classifier; the tokens are the voxels of its last map.

    Both downsample 32-fold: a cube of 32 voxels makes one token, a cube of 64 makes eight.
    """

    def __init__(self, net: nn.Module, width: int):
        super().__init__()
        self.net, self.width, self.pooled = quicker(_started(net)), width, width

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.net(image).unflatten(1, (self.width, -1))


class Planes(Backbone):
    """A 2-D network on the three orthogonal slices through the middle of the cube; their tokens together."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        middle = [size // 2 for size in image.shape[2:]]
        slices = torch.cat([image.select(2 + axis, middle[axis]) for axis in range(3)])
        return torch.cat(super().forward(slices, mask).chunk(3), dim=2)


class Compact(Encoder):
    """A small 3-D CNN that reads its maps region by region, as radiomics reads an image.

    A token is a region: each label of the mask, and last the whole cube. It holds the mean and the standard
    deviation within the region of the voxels themselves and of the first maps (statistics pooling, Snyder 2018),
    and the mean of the last maps. The token of an absent region is zero.
    """

    def __init__(self, channels: int, labels: int):
        super().__init__()
        self.first = nn.Sequential(*_convolution(channels, 16, stride=2))
        self.second = nn.Sequential(*_convolution(16, 32, stride=2), *_convolution(32, 32, stride=1))
        self.width = 2 * (channels + 16) + 32
        self.pooled = self.width * (labels + 1)
        self.norm = nn.LayerNorm(self.pooled)
        self.to(memory_format=torch.channels_last_3d)  # a fifth faster

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        half = self.first(image)
        quarter = self.second(half)
        regions = torch.cat([mask, torch.ones_like(image[:, :1])], dim=1)
        at_half = functional.avg_pool3d(regions, 2)
        at_quarter = functional.avg_pool3d(at_half, 2)
        with torch.autocast(image.device.type, enabled=False):  # a variance needs the digits
            found = *_moments(image, regions), *_moments(half, at_half), _mean(quarter, at_quarter)
            return torch.cat(found, dim=2).transpose(1, 2)

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens side by side, layer norm."""
        return self.norm(tokens.flatten(1))


class Transformer(Encoder):
    """A vision transformer on patches of 8 voxels (Dosovitskiy 2021); the tokens are the patches.

    Of PyTorch's layers: MONAI's ViT is the same network, needs one more package, and is bound to one cube's size.
    """

    def __init__(self, channels: int, width: int = 96, layers: int = 3):
        super().__init__()
        self.width, self.pooled = width, width
        self.patches = nn.Conv3d(channels, width, 8, stride=8)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        patches = self.patches(image)
        positions = _positions(tuple(patches.shape[2:]), self.width).to(patches)
        return self.blocks(patches.flatten(2).transpose(1, 2) + positions).transpose(1, 2)


@cache
def _positions(grid: tuple[int, ...], width: int) -> torch.Tensor:
    """Sines and cosines of each patch's place, shape (1, patches, width)."""
    from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.meshgrid")  # MONAI does not name the indexing yet
        return build_sincos_position_embedding(list(grid), width).detach()


def _efficientnet(channels: int, dimensions: int) -> tuple[nn.Module, int]:
    from monai.networks.nets import EfficientNetBN

    net = EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=dimensions, in_channels=channels)
    width = net._fc.in_features
    net._avg_pooling = net._dropout = net._fc = nn.Identity()
    for block in net.modules():
        if getattr(block, "id_skip", False) and block.stride == 1 and block.in_channels == block.out_channels:
            nn.init.zeros_(block._bn2.weight)
    # a quarter faster in 3-D; its cost is the depthwise convolutions'
    return net.to(memory_format=torch.channels_last_3d) if dimensions == 3 else net, width


def _resnet50(channels: int, dimensions: int) -> tuple[nn.Module, int]:
    from monai.networks.nets import resnet50

    # stride 2 in depth as in height and width: MONAI's default of 1 costs five times as much
    net = resnet50(spatial_dims=dimensions, n_input_channels=channels, conv1_t_stride=2, feed_forward=False)
    net.avgpool = nn.Identity()
    for block in net.modules():
        if hasattr(block, "bn3"):
            nn.init.zeros_(block.bn3.weight)
    return net, 2048


def _started(net: nn.Module) -> nn.Module:
    """First weights, and batch norms that average over all that they are shown (`training.settle`)."""
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d) and part.groups > 1:  # as in the paper's code, by what a group gives
            leaving = part.weight[0, 0].numel() * part.out_channels / part.groups
            nn.init.normal_(part.weight, std=math.sqrt(2 / leaving))
        elif isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = None
    return net


def _convolution(entering: int, leaving: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv3d(entering, leaving, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(4, leaving),
        nn.ReLU(),
    ]


def _mean(maps: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """Mean of maps (n, c, x, y, z) within regions (n, r, x, y, z), shape (n, r, c); zero where a region is absent."""
    share, values = regions.flatten(2), maps.flatten(2).to(regions.dtype)
    return torch.bmm(share, values.transpose(1, 2)) / share.sum(2, keepdim=True).clamp_min(1e-3)


def _moments(maps: torch.Tensor, regions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation within regions, each (n, r, c); both zero where a region is absent."""
    maps = maps.to(regions.dtype)
    mean = _mean(maps, regions)
    variance = (_mean(maps.square(), regions) - mean.square()).clamp_min(0)
    return mean, (variance + 1e-4).sqrt() - 1e-2  # the root of zero has no slope


def load_published(encoder: Encoder, path: Path) -> list[str]:
    """Put weights that others published into an encoder; no pickled code is run.

    Made for MedicalNet's `resnet_50_23dataset.pth` (Chen 2019) in encoder "resnet50". A first convolution of other
    channels is summed over its own and shared out evenly. Running means are learnt anew, of the crops.

    Parameters
    ----------
    encoder : Encoder
        Changed in place.
    path : Path
        A state dictionary, as `.safetensors` or as PyTorch writes it.

    Returns
    -------
    list of str
        Names of the tensors that were loaded.

    Raises
    ------
    BadInput
        Nothing readable, or weights of another network: fewer than nine in ten of the encoder's are in it.
    """
    own, found = dict(encoder.net.named_parameters()) if hasattr(encoder, "net") else {}, _read_weights(path)
    first = next((name for name, tensor in own.items() if tensor.ndim > 2), "")
    given = found.get(first)
    if given is not None and given.ndim == own[first].ndim and len(given) == len(own[first]):
        channels = own[first].shape[1]
        if given.shape[1] != channels:  # so that equal images in every channel give what one gave
            found[first] = given.sum(1, keepdim=True).expand(-1, channels, *given.shape[2:]) / channels
    loaded = [name for name, tensor in own.items() if name in found and found[name].shape == tensor.shape]
    if not own or len(loaded) < 0.9 * len(own):
        raise BadInput(
            f"{path}: {len(loaded)} of the encoder's {len(own)} tensors are in it by name and shape; expected weights"
            " of the same network, such as MedicalNet's resnet_50_23dataset.pth for encoder `resnet50`."
        )
    with torch.no_grad():
        for name in loaded:
            own[name].copy_(found[name])
    return loaded


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, without the prefix of parallel training."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        safe = Path(path).suffix == ".safetensors"
        content = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, UnpicklingError, RuntimeError, EOFError) as problem:
        what = "no such file" if isinstance(problem, FileNotFoundError) else "it cannot be read as weights"
        raise BadInput(
            f"{path}: {what}; expected a state dictionary, as .safetensors or .pth with tensors only."
        ) from None
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name.removeprefix("module."): value for name, value in content.items() if isinstance(value, torch.Tensor)}


# A name, and what makes the encoder from the numbers of channels (masks among them) and of mask labels.
ENCODERS = {
    "efficientnet": lambda channels, labels: Backbone(*_efficientnet(channels, 3)),
    "resnet50": lambda channels, labels: Backbone(*_resnet50(channels, 3)),
    "efficientnet-2d": lambda channels, labels: Planes(*_efficientnet(channels, 2)),
    "resnet50-2d": lambda channels, labels: Planes(*_resnet50(channels, 2)),
    "compact": Compact,
    "vit": lambda channels, labels: Transformer(channels),
}

# Where in a HybridNet Grad-CAM reads: the deepest layer with four voxels a side or more on a cube of 32.
CAM_LAYER = {
    "efficientnet": "encoder.net._blocks.2",
    "resnet50": "encoder.net.layer2",
    "efficientnet-2d": "",
    "resnet50-2d": "",
    "compact": "encoder.second",
    "vit": "",
}
