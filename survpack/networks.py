"""Networks: an image encoder, dense layers on the chart, and their fusion."""

from __future__ import annotations

import torch
from torch import nn


def _efficientnet(channels: int) -> tuple[nn.Module, int]:
    from monai.networks.nets import EfficientNetBN

    net = EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=3, in_channels=channels)
    width = net._fc.in_features
    net._fc = nn.Identity()
    return _in_groups(net), width


def _resnet50(channels: int) -> tuple[nn.Module, int]:
    from monai.networks.nets import resnet50

    # stride 2 in depth as in height and width: MONAI's default of 1 costs five times as much
    net = resnet50(spatial_dims=3, n_input_channels=channels, conv1_t_stride=2, feed_forward=False)
    return _in_groups(net), 2048


def _in_groups(net: nn.Module) -> nn.Module:
    """Group norm in place of every batch norm (MONAI's `norm` does not reach the blocks of its ResNet).

    On cubes this small the deepest maps are one voxel, and what batch norm learns of a batch of 16 does not hold
    in evaluation: on `mets`, the image then moved the output by 0 to 9 % of its spread.
    """
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, nn.GroupNorm(8, child.num_features))
    return net


ENCODERS = {"efficientnet": _efficientnet, "resnet50": _resnet50}

# The deepest layer whose map still has four voxels a side on a 32-voxel cube; deeper ones have one or two.
CAM_LAYER = {"efficientnet": "encoder._blocks.2", "resnet50": "encoder.layer2"}


class HybridNet(nn.Module):
    """Image encoder and dense layers on the chart, concatenated, to one number a patient.

    Parameters
    ----------
    encoder : str
        A key of `ENCODERS`.
    channels : int
        Modalities and mask labels together.
    columns : int
        Width of the table (chart and lesion biomarkers).
    dropout : float
    """

    def __init__(self, encoder: str, channels: int, columns: int, dropout: float):
        super().__init__()
        self.encoder, width = ENCODERS[encoder](channels)
        self.image_dense = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, 32), nn.ReLU())
        self.table_dense = nn.Sequential(nn.Linear(columns, 32), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(64, 1)

    def forward(self, image: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Image (n, channels, x, y, z) and table (n, columns) to (n,)."""
        return self.fuse(self.embed(image), table)

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """What the network keeps of an image, (n, 32)."""
        return self.image_dense(self.encoder(image))

    def fuse(self, embedding: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Image embedding (n, 32) and table (n, columns) to (n,)."""
        return self.head(torch.cat([embedding, self.table_dense(table)], dim=1)).squeeze(1)
