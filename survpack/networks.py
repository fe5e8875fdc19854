"""Networks: an image encoder, dense layers on the chart, and their fusion."""

from __future__ import annotations

import torch
from torch import nn


def _efficientnet(channels: int) -> tuple[nn.Module, int]:
    from monai.networks.nets import EfficientNetBN

    # MONAI's batch-norm momentum (0.01) is meant for thousands of steps; here there are about a hundred
    norm = ("batch", {"eps": 1e-3, "momentum": 0.1})
    net = EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=3, in_channels=channels, norm=norm)
    width = net._fc.in_features
    net._fc = nn.Identity()
    return net, width


def _resnet50(channels: int) -> tuple[nn.Module, int]:
    from monai.networks.nets import resnet50

    # stride 2 in depth as in height and width: MONAI's default of 1 costs five times as much
    net = resnet50(spatial_dims=3, n_input_channels=channels, conv1_t_stride=2, feed_forward=False)
    return net, 2048


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
