"""Training: the loop, the device, checkpoints, and weights on disk.

The loop is our own, forty lines: Lightning and MONAI's trainers checkpoint by pickle, and keep no state of random numbers,
so that a fit taken up again is not the unbroken one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from survpack.augmentation import augment
from survpack.errors import BadInput
from survpack.params import Training
from survpack.paths import written_whole

VERSION = "1"  # of weights and checkpoints; another is refused
HISTORY = ["epoch", "loss", "inner_loss", "learning_rate", "seconds", "samples_per_second", "peak_memory_mb"]
CLIP = 5.0  # largest norm of a step's gradient
WIDE = 128  # inputs of a unit beyond which its weights' rate falls in proportion
WARM, FIRST, LAST = 0.3, 25.0, 25e4  # share of the steps in which the rate rises; the highest over the first, the last
SHARE_OF_DEVICE = 0.4  # of the free memory, for samples; more than that stay with the host


class Samples(NamedTuple):
    """What networks see of some patients, arrays or tensors with the patients first.

    Attributes
    ----------
    images : float16, shape (n, modalities, x, y, z)
        A modality that a patient lacks is zeros.
    masks : float16, shape (n, labels, x, y, z)
    present : bool, shape (n, modalities)
    table : float32, shape (n, columns)
    target : float32, shape (n, k)
        As the objective has it.
    """

    images: Any
    masks: Any
    present: Any
    table: Any
    target: Any

    def take(self, index) -> Samples:
        return Samples(*(each[index] for each in self))


def device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seed_everything(seed: int) -> None:
    """Make initial weights, dropout and kernels repeatable on one machine."""
    torch.manual_seed(seed)
    torch.set_deterministic_debug_mode("warn")  # as use_deterministic_algorithms, which loads the compiler first
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads what it has not written
    torch.backends.cudnn.benchmark = False


def optimise(
    module: nn.Module,
    batches: Callable[[int, np.random.Generator], Iterable],
    loss_of: Callable[[nn.Module, Any], torch.Tensor],
    choice: Training,
    *,
    epochs: int,
    seed: int,
    label: str,
    learning_rate: float | None = None,
    validate: Callable[[], float | None] | None = None,
    checkpoint: Path | None = None,
) -> pd.DataFrame:
    """Train `module` in place: AdamW, one cosine cycle of the learning rate, gradients clipped.

    Weights of wide units have a share of the rate (`_by_width`); what batch norms say in evaluation is learnt at the
    end (`settle`).

    All that is random in an epoch is seeded by (`seed`, epoch), numpy's in `batches` and torch's elsewhere, and the
    caller's random numbers go on as if nothing had been drawn. So a fit that was killed and goes on from its
    `checkpoint` ends as the unbroken one does, bit by bit on a CPU.

    Parameters
    ----------
    module : nn.Module
        Parameters without `requires_grad` stay as they are.
    batches : callable
        `batches(epoch, rng)` gives the epoch's batches, of whatever `loss_of` takes; tensors, alone or in tuples,
        lists and dictionaries, are moved to the device.
    loss_of : callable
        `loss_of(module, batch)`, a scalar; called in mixed precision where `choice.precision` says so.
    epochs : int
        Fixed, or the most there are with `validate`.
    label : str
        Names the progress bar and the fit in messages; without it, no bar.
    learning_rate : float, optional
        The highest; `choice.learning_rate` where not given.
    validate : callable, optional
        A loss to be lowered, after each epoch, or None where it cannot be said. Training ends when it has not been
        lowered for `choice.patience` epochs, and the weights of the best epoch are restored.
    checkpoint : Path, optional
        Written after each epoch, read at the start where it exists, never removed.

    Returns
    -------
    DataFrame
        One row an epoch: `epoch` (from 0), `loss` (mean of its steps), `inner_loss` (NaN without), `learning_rate`
        (at its end), `seconds`, `samples_per_second`, `peak_memory_mb` (of the process, or of the GPU).

    Raises
    ------
    BadInput
        For a loss that is not finite, and for a checkpoint of another fit.
    """
    where = device()
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    _place(module, where)
    rate = choice.learning_rate if learning_rate is None else learning_rate
    optimiser = torch.optim.AdamW(_by_width(module), lr=rate, weight_decay=choice.weight_decay, fused=True)
    fit = choice.model_dump(mode="json") | {"seed": seed, "epochs": epochs, "learning_rate": rate, "wide": WIDE}
    history, best = _resumed(checkpoint, module, optimiser, fit, where)
    bar = tqdm(range(epochs), label, unit="epoch", initial=len(history), mininterval=2, disable=not label)
    with bar, torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        for epoch in range(len(history), epochs):
            if epochs_since_best(history) >= choice.patience:
                break
            rng = np.random.default_rng([seed, epoch])
            torch.manual_seed(int(rng.integers(2**62)))
            row = _epoch(module, batches(epoch, rng), loss_of, optimiser, _precision(choice, where),
                         lambda share, epoch=epoch: rate * one_cycle((epoch + share) / epochs))  # fmt: skip
            _check_finite(row["loss"], label, epoch)
            if validate or epoch + 1 == epochs:
                settle(module, lambda: batches(epoch, rng), loss_of, choice)  # noqa: B023 - called at once
            history.append({"epoch": epoch, **row, "inner_loss": _validated(module, validate)})
            if validate and epochs_since_best(history) == 0:
                best = {name: value.detach().clone() for name, value in module.state_dict().items()}
            if checkpoint:
                _write_checkpoint(checkpoint, module, optimiser, fit, history, best)
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            bar.update()
    if best:
        module.load_state_dict(best)
    return pd.DataFrame(history, columns=HISTORY)


@torch.no_grad()
def settle(
    module: nn.Module,
    batches: Callable[[], Iterable],
    loss_of: Callable[[nn.Module, Any], torch.Tensor],
    choice: Training,
) -> None:
    """Learn anew what batch norms say in evaluation: mean and variance over an epoch's batches, as the weights now are.

    Averages kept on the way lag behind the weights, by more than a short fit lasts where they move by 1 % a step; the
    network in evaluation is then another than the one that was trained (Wu and Johnson 2021, arXiv:2105.07576). Only
    batch norms with `momentum` None, which average over all they see, are learnt; weights stay as they are, and a
    module without such a norm costs nothing.

    Parameters
    ----------
    module, loss_of
        As of `optimise`.
    batches : callable
        Gives an epoch's batches; called where there is something to learn.
    """
    norms = [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    norms = [one for one in norms if one.momentum is None]
    if not norms:
        return
    where, training = device(), module.training
    module.eval()  # no dropout, no block left out
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    for batch in batches():
        with _precision(choice, where):
            loss_of(module, _moved(batch, where))
    module.train(training)


def settle_on(net: nn.Module, samples: Samples, choice: Training) -> None:
    """`settle` a `HybridNet` on patients as they are, without augmentation; their target is not read."""
    seen, count = Samples(*(torch.as_tensor(np.ascontiguousarray(each)) for each in samples)), len(samples.table)
    parts = np.array_split(np.arange(count), max(count // choice.batch_size, 1))

    def says(net: nn.Module, batch: Samples) -> torch.Tensor:
        batch = _single(batch)
        return net(batch.images, batch.masks, batch.table, batch.present)

    settle(net.to(device()), lambda: [_Drawn(seen, part) for part in parts], says, choice)


def train(
    net: nn.Module,
    samples: Samples,
    objective,
    choice: Training,
    *,
    epochs: int,
    seed: int,
    label: str,
    mirror: bool,
    checkpoint: Path | None = None,
) -> pd.DataFrame:
    """Train a `HybridNet` in place on patients' scans, charts and outcomes; see `optimise`.

    The number of epochs is a parameter, not a choice made on anyone's outcome; or, with `choice.inner_fraction`, it
    ends early by the loss of that share of these patients, who are then not trained on.

    Parameters
    ----------
    samples : Samples
        Arrays, of patients whom the objective can use. The last column of `target` says who had an event: the inner
        split has the same share of them as the rest.
    objective : Objective
        Its `loss` of outputs (n, outputs) and targets (n, k).
    mirror : bool
        Whether left and right may be exchanged.

    Raises
    ------
    BadInput
        For a value that is not finite; and as `optimise`.
    """
    for name, array in samples._asdict().items():
        _check_values(name, np.asarray(array), label)
    event = np.asarray(samples.target)[:, -1] > 0.5
    inner, outer = inner_split(event, choice.inner_fraction, seed)
    outer = np.repeat(outer, 2) if len(outer) == 1 else outer  # batch norm has nobody to tell a patient alone from
    seen, held = _resident(samples.take(outer)), samples.take(inner)
    steps = max(len(outer) // choice.batch_size, 1)

    def batches(epoch: int, rng: np.random.Generator):
        return [_Drawn(seen, index) for index in np.array_split(rng.permutation(len(outer)), steps)]

    def loss_of(module: nn.Module, batch: Samples) -> torch.Tensor:
        batch = augment(_single(batch), choice.augment, mirror)
        output = module(batch.images, batch.masks, batch.table, batch.present)
        with torch.autocast(output.device.type, enabled=False):
            return objective.loss(output.float(), batch.target)

    def validate() -> float | None:
        return objective.loss(torch.as_tensor(predict(net, held)), torch.as_tensor(held.target)).item()

    return optimise(
        net, batches, loss_of, choice, epochs=epochs, seed=seed, label=label, checkpoint=checkpoint,
        validate=validate if event[inner].any() else None,
    )  # fmt: skip


def inner_split(event: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the patients held out for early stopping, and of those trained on, both in order.

    `fraction` of those with an event and of those without, rounded: a single event stays with training.
    """
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(np.flatnonzero(event == one)) for one in (False, True)]
    inner = np.sort(np.concatenate([part[: round(fraction * len(part))] for part in parts]))
    return inner, np.setdiff1d(np.arange(len(event)), inner)


def one_cycle(share: float) -> float:
    """Learning rate over its highest, `share` (0 to 1) of the way: up and down by cosines (Smith 2018, arXiv:1803.09820).

    `torch.optim.lr_scheduler.OneCycleLR` as a plain function: nothing to save, and no count of steps to know before.
    """

    def between(start: float, end: float, way: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * way)) / 2

    if share < WARM:
        return between(1 / FIRST, 1.0, share / WARM)
    return between(1.0, 1 / LAST, min((share - WARM) / (1 - WARM), 1.0))


def epochs_since_best(history: list[dict]) -> int:
    """Epochs after the one of the lowest inner loss; 0 where none was said."""
    losses = np.array([row["inner_loss"] for row in history], float)
    return 0 if np.isnan(losses).all() else len(losses) - 1 - int(np.nanargmin(losses))


@torch.no_grad()
def predict(net: nn.Module, samples: Samples, batch: int = 32) -> np.ndarray:
    """The network's outputs, shape (n, outputs), float32; no augmentation, full precision."""
    where = device()
    net.to(where).eval()
    parts = (_single(_moved(part, where)) for part in _parts(samples, batch))
    return _joined([net(part.images, part.masks, part.table, part.present) for part in parts])


@torch.no_grad()
def embed(net: nn.Module, samples: Samples, batch: int = 32) -> np.ndarray:
    """All that the network's fusion needs of each image, patients first."""
    where = device()
    net.to(where).eval()
    parts = (_single(_moved(part, where)) for part in _parts(samples, batch))
    return _joined([net.embed(part.images, part.masks, part.present) for part in parts])


@torch.no_grad()
def fuse(net: nn.Module, embedding: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The network's outputs from image embeddings and tables, shape (n, outputs)."""
    where = device()
    given = (torch.as_tensor(np.ascontiguousarray(each, np.float32), device=where) for each in (embedding, table))
    return _joined([net.to(where).eval().fuse(*given)])


def save_weights(weights: nn.Module | dict[str, torch.Tensor], path: Path, metadata: dict | None = None) -> None:
    """Write weights as safetensors, with a version and `metadata` (as JSON), whole or not at all."""
    from safetensors.torch import save_file

    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    facts = {"version": VERSION, "about": json.dumps(metadata or {})}
    with written_whole(path) as part:
        save_file({name: value.detach().contiguous().cpu() for name, value in state.items()}, part, facts)


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Weights and what was said of them.

    Raises
    ------
    BadInput
        For a file that is no safetensors, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path}: not readable as safetensors ({error}); delete it and train again.") from None
    if facts.get("version") != VERSION:
        raise BadInput(
            f"{path}: weights of version {facts.get('version', 'none')}, expected version {VERSION}; delete the file "
            "and train again."
        )
    return state, json.loads(facts["about"])


def load_weights(module: nn.Module, path: Path) -> dict:
    """Fill `module` with the weights of a file; gives the metadata back.

    Raises
    ------
    BadInput
        As `read_weights`, and where a name or a shape is not the module's; the module is then as it was.
    """
    state, metadata = read_weights(path)
    _check_shapes(state, module.state_dict(), path)
    module.load_state_dict(state)
    return metadata


class _Drawn(NamedTuple):
    """Some of the samples, taken together only when their turn comes."""

    samples: Samples
    index: np.ndarray

    def to(self, where: torch.device) -> Samples:
        index = torch.as_tensor(self.index, device=self.samples.table.device)
        part = self.samples.take(index)
        return (
            part
            if part.table.device.type == where.type
            else _moved(Samples(*(each.pin_memory() for each in part)), where)
        )


def _by_width(module: nn.Module) -> list[dict]:
    """Weights to train, in groups by their `share` of the rate: `WIDE` over the inputs that a unit sums over, at most 1.

    Adam moves every weight by the rate, whatever its gradient is. What all inputs share then moves a unit of 1,000
    inputs a hundred times as far as one of ten, and soon is all that it says; so the step of a unit is made the same
    (Yang et al. 2022, arXiv:2203.03466).
    """
    groups: dict[float, list] = {}
    for weight in module.parameters():
        if weight.requires_grad:
            share = WIDE / max(WIDE, math.prod(weight.shape[1:]))
            groups.setdefault(share, []).append(weight)
    return [{"params": weights, "share": share} for share, weights in groups.items()]


def _epoch(module, batches, loss_of, optimiser, precision, rate) -> dict:
    """One epoch; `rate` gives the learning rate at a share of it."""
    module.train()
    batches = batches if hasattr(batches, "__len__") else list(batches)
    where, losses, count, start = device(), [], 0, time.perf_counter()
    for number, batch in enumerate(batches):
        batch = _moved(batch, where)
        for group in optimiser.param_groups:
            group["lr"] = group["share"] * rate(number / len(batches))
        with precision:
            loss = loss_of(module, batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimiser.step()
        losses.append(loss.detach())
        count += _length(batch)
    loss = torch.stack(losses).mean().item()  # the only wait for the device
    seconds = time.perf_counter() - start
    return {"loss": loss, "learning_rate": rate((len(batches) - 1) / len(batches)), "seconds": seconds,
            "samples_per_second": count / seconds, "peak_memory_mb": _peak_memory_mb(where)}  # fmt: skip


def _validated(module: nn.Module, validate: Callable[[], float | None] | None) -> float:
    if validate is None:
        return math.nan
    module.eval()
    with torch.no_grad():
        found = validate()
    return math.nan if found is None else float(found)


def _precision(choice: Training, where: torch.device):
    """Mixed precision, or none: bfloat16 needs no scaling of the loss."""
    auto = choice.precision == "auto" and where.type == "cuda" and torch.cuda.is_bf16_supported()
    half = auto or choice.precision == "bfloat16"
    return torch.autocast(where.type, torch.bfloat16) if half else nullcontext()


def _place(module: nn.Module, where: torch.device) -> None:
    """On the device; there, 3-D kernels with channels last, as its matrix units read them."""
    module.to(where)
    if where.type == "cuda":
        for weight in module.parameters():
            if weight.dim() == 5:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)


def _moved(batch, where: torch.device):
    """Every tensor of a batch on the device, volumes with channels last on a GPU."""
    if isinstance(batch, torch.Tensor):
        last = where.type == "cuda" and batch.dim() == 5
        layout = torch.channels_last_3d if last else torch.preserve_format
        return batch.to(where, non_blocking=True, memory_format=layout)
    if hasattr(batch, "to"):  # packed sequences among them
        return batch.to(where)
    if isinstance(batch, dict):
        return {name: _moved(each, where) for name, each in batch.items()}
    if isinstance(batch, (tuple, list)):
        parts = [_moved(each, where) for each in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


def _length(batch) -> int:
    """Samples in a batch: the length of its first tensor or array."""
    if isinstance(batch, nn.utils.rnn.PackedSequence):
        return int(batch.batch_sizes[0])
    if isinstance(batch, (torch.Tensor, np.ndarray)):
        return len(batch) if batch.ndim else 1
    parts = list(batch.values()) if isinstance(batch, dict) else batch
    return _length(parts[0]) if isinstance(parts, (tuple, list)) and parts else 1


def _resident(samples: Samples) -> Samples:
    """Tensors, on the device for good where they take little of its memory.

    In half precision, as they are kept: to widen a batch at a time costs 0.03 ms a sample and halves the memory.
    """
    where, tensors = device(), Samples(*(torch.as_tensor(np.ascontiguousarray(each)) for each in samples))
    if where.type == "cuda":
        room = SHARE_OF_DEVICE * torch.cuda.mem_get_info(where)[0]
        return _moved(tensors, where) if sum(each.nbytes for each in tensors) < room else tensors
    return tensors


def _single(samples: Samples) -> Samples:
    return samples._replace(images=samples.images.float(), masks=samples.masks.float())


def _parts(samples: Samples, batch: int) -> Iterable[Samples]:
    for start in range(0, len(samples.table), batch):
        part = samples.take(slice(start, start + batch))
        yield Samples(*(torch.as_tensor(np.ascontiguousarray(each)) for each in part))


def _joined(parts: list[torch.Tensor]) -> np.ndarray:
    return torch.cat(parts).float().cpu().numpy()


def _peak_memory_mb(where: torch.device) -> float:
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) / 2**20
    import resource
    import sys

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _resumed(path: Path | None, module, optimiser, fit: dict, where: torch.device) -> tuple[list[dict], dict]:
    """History and best weights of a checkpoint, where there is one; module and optimiser as they were then."""
    if path is None or not Path(path).exists():
        return [], {}
    state, about = read_weights(path)
    if about["fit"] != fit:
        other = next(name for name in fit if about["fit"].get(name) != fit[name])
        raise BadInput(
            f"{path}: a checkpoint of a fit with `{other}` {about['fit'].get(other)}, expected {fit[other]}; "
            "delete it to train from the start."
        )
    parts = {name: _within(state, name) for name in ("module", "optimiser", "best")}
    _check_shapes(parts["module"], module.state_dict(), path)
    module.load_state_dict(parts["module"])
    moments: dict[int, dict] = {}
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    for name, value in parts["optimiser"].items():
        number, key = name.split(".")
        like = weights[int(number)]  # a fused step goes through memory in the weight's own order, channels last or not
        same = value.shape == like.shape
        moments.setdefault(int(number), {})[key] = torch.empty_like(like).copy_(value) if same else value
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return about["history"], {name: value.to(where) for name, value in parts["best"].items()}


def _write_checkpoint(path: Path, module, optimiser, fit: dict, history: list[dict], best: dict) -> None:
    """Module, optimiser, best weights and history in one file; the schedule and the seeds follow from the epoch."""
    moments = optimiser.state_dict()["state"]
    state = {f"module.{name}": value for name, value in module.state_dict().items()}
    state |= {f"optimiser.{number}.{key}": value for number, own in moments.items() for key, value in own.items()}
    state |= {f"best.{name}": value for name, value in best.items()}
    save_weights(state, path, {"fit": fit, "history": history})


def _within(state: dict, prefix: str) -> dict:
    return {name.removeprefix(f"{prefix}."): value for name, value in state.items() if name.startswith(f"{prefix}.")}


def _check_shapes(found: dict, expected: dict, path: Path) -> None:
    """Raises BadInput for the first name or shape that differs."""
    for name in [*expected, *found]:
        ours, theirs = (tuple(side[name].shape) if name in side else "absent" for side in (expected, found))
        if ours != theirs:
            raise BadInput(
                f"{path}: weights of another network (`{name}` is {theirs}, expected {ours}); delete the file and train "
                "again, or restore the choices it was trained with."
            )


def _check_values(name: str, array: np.ndarray, label: str) -> None:
    finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    if not finite.all():
        raise BadInput(
            f"{label}: `{name}` of training patient {int(np.argmin(finite))} (counted from 0) has a value that is not "
            "finite, expected numbers throughout; mend or exclude the patient."
        )


def _check_finite(loss: float, label: str, epoch: int) -> None:
    if not math.isfinite(loss):
        raise BadInput(
            f"{label}: the loss of epoch {epoch} is {loss}, expected a finite one; lower `training.learning_rate` in "
            "params.yaml."
        )
