#!/usr/bin/env bash
# MONAI's EfficientNetBN starts its depthwise convolutions 6 to 34 times narrower than the initialisation that it names.
#
# Behaviour (monai 1.6.1, torch 2.13.0, numpy 2.4.6): `_initialize_weights` follows EfficientNet's TensorFlow code: normal
# weights of variance 2 / (kernel size * output channels). There a depthwise filter is stored with one output channel, so
# that its variance is 2 / kernel size. PyTorch stores one with as many output channels as it has groups, and MONAI does
# not divide by the groups. timm had the same, and divides since its issue 84. Batch norm hides it at first; what it
# changes is how much of a weight one step of Adam is, and any norm in its place that has an epsilon.
# Seen, of efficientnet-b0 in two and three dimensions: 16 depthwise layers, each sqrt(groups) too narrow, 5.7 to 33.9.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.4.6
env/bin/python - <<'PY'
import math

import torch
from monai.networks.nets import EfficientNetBN

for dimensions in (2, 3):
    torch.manual_seed(0)
    net = EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=dimensions, in_channels=1)
    ratios = []
    for part in net.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Conv3d) and part.groups > 1:
            named = math.sqrt(2 / part.weight[0, 0].numel())
            ratios.append((named / part.weight.std().item(), math.sqrt(part.groups)))
    least, most = min(ratios)[0], max(ratios)[0]
    print(f"{dimensions}-D: {len(ratios)} depthwise layers start {least:.1f} to {most:.1f} times too narrow")
    assert len(ratios) == 16 and all(abs(seen / expected - 1) < 0.1 for seen, expected in ratios), "the behaviour has changed"
PY
