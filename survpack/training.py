"""Training a network: the loop, the device, the augmentation, weights on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from survpack.networks import HybridNet
from survpack.objectives import OBJECTIVES
from survpack.params import Training
from survpack.paths import written_whole


def device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    net: HybridNet,
    images: np.ndarray,
    masks: np.ndarray,
    table: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    objective: str,
    params: Training,
    seed: int,
    label: str,
) -> list[float]:
    """Train `net` in place for a fixed number of epochs, one-cycle cosine schedule, AdamW.

    The number of epochs is a parameter, not a choice made on any patient's outcome.

    Parameters
    ----------
    images, masks : ndarray, shape (n, channels, x, y, z)
    table : ndarray, shape (n, columns)
    time : ndarray, shape (n,)
        In the unit of the objective.
    event : ndarray of bool, shape (n,)
    objective : str
        A key of `OBJECTIVES`.
    label : str
        Names the progress bar.

    Returns
    -------
    list of float
        Mean training loss of each epoch.
    """
    where, loss_of = device(), OBJECTIVES[objective]
    rng = np.random.default_rng(seed)
    augment = _augmentation(seed)
    net.to(where).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay)
    steps = max(len(time) // params.batch_size, 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(  # one step more than is made: the last one's rate is nearly zero
        optimiser, params.learning_rate, total_steps=params.epochs * steps + 1, cycle_momentum=False
    )
    history = []
    for _ in tqdm(range(params.epochs), desc=label, unit="epoch", mininterval=2):
        losses = []
        for batch in np.array_split(rng.permutation(len(time)), steps):
            seen = [augment({"image": images[i], "mask": masks[i]}) for i in batch]
            output = net(_stack(seen).to(where), _tensor(table[batch], where))
            loss = loss_of(output, _tensor(time[batch], where), torch.as_tensor(event[batch], device=where))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        history.append(float(np.mean(losses)))
    return history


@torch.no_grad()
def embed(net: HybridNet, images: np.ndarray, masks: np.ndarray, batch: int = 32) -> np.ndarray:
    """What the network keeps of each image, shape (n, width); no augmentation."""
    where = device()
    net.to(where).eval()
    stacked = np.concatenate([images, masks], axis=1).astype(np.float32)
    parts = [net.embed(_tensor(stacked[i : i + batch], where)) for i in range(0, len(stacked), batch)]
    return torch.cat(parts).cpu().numpy()


@torch.no_grad()
def fuse(net: HybridNet, embedding: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The network's number from image embeddings and tables, shape (n,)."""
    where = device()
    return net.to(where).eval().fuse(_tensor(embedding, where), _tensor(table, where)).cpu().numpy().astype(float)


def seed_everything(seed: int) -> None:
    """Make initial weights, dropout and kernels repeatable on one machine."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def save_weights(net: HybridNet, path: Path) -> None:
    """Write the weights as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    with written_whole(path) as part:
        save_file({name: value.contiguous().cpu() for name, value in net.state_dict().items()}, part)


def load_weights(net: HybridNet, path: Path) -> None:
    from safetensors.torch import load_file

    net.load_state_dict(load_file(path))


def _augmentation(seed: int):
    """Mirror left and right (masks too); change brightness, contrast and noise (images only)."""
    from monai.transforms import Compose, RandFlipd, RandGaussianNoised, RandScaleIntensityd, RandShiftIntensityd

    both = {"keys": ["image", "mask"], "allow_missing_keys": True}
    image = {"keys": ["image"]}
    return Compose(
        [
            RandFlipd(**both, prob=0.5, spatial_axis=0),
            RandScaleIntensityd(**image, factors=0.1, prob=0.5),
            RandShiftIntensityd(**image, offsets=0.1, prob=0.5),
            RandGaussianNoised(**image, std=0.05, prob=0.3),
        ]
    ).set_random_state(seed)


def _stack(seen: list[dict]) -> torch.Tensor:
    return torch.stack(
        [torch.cat([torch.as_tensor(one["image"]), torch.as_tensor(one["mask"])]).float() for one in seen]
    )


def _tensor(array: np.ndarray, where: torch.device) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32, device=where)
