"""Our training beside the loop that tutorials use: the same networks, patients and epochs, on the same two cores.

`python -m benchmarks.training` prints two tables and merges them into reports/metrics/benchmarks.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from benchmarks.radiomics import merged
from survpack import params, paths, training
from survpack.networks import HybridNet
from survpack.objectives import OBJECTIVES, Objective
from survpack.params import Training
from survpack.training import Samples

CORES = 2
FUSION, OBJECTIVE = "concat", "cox"
SEQUENCES, LABELS = ("t1n", "t1c", "t2w", "t2f"), (1, 2, 3)
SIZE, SPACING_MM = 32, 2.0
UNIT = "samples a second, {}, " + ("one GPU" if torch.cuda.is_available() else "two cores")
PARTS = ("reading", "fixed transforms", "random transforms", "forward", "backward", "optimiser")


class Task(NamedTuple):
    """What both loops are given."""

    files: list[dict]  # a patient's paths, table and target, as MONAI's data sets have them
    samples: Samples  # the same patients' crops
    objective: Objective
    choice: Training
    prepared: float  # seconds in which the crops were made


def task(folder: Path, patients: int) -> Task:
    """The first patients of a `mets` cohort in BIDS; the crops are made here, once, as stage 02 does."""
    from survpack import preprocess
    from survpack.adapters import bids
    from survpack.cohort import Cohort

    chosen = params.load()
    people, images = bids.clinical(folder).head(patients), bids.discover(folder)
    images = images[images["patient_id"].isin(people["patient_id"])].reset_index(drop=True)
    cohort = Cohort("mets", people, images, bids.dictionary(folder), bids.labels(folder))
    start = time.perf_counter()
    crops = preprocess.make_crops(cohort, chosen.crops.model_copy(update={"size": SIZE}), chosen.preprocess)
    prepared = time.perf_counter() - start
    days, event = people["time_days"].to_numpy(float), people["event"].to_numpy(bool)
    objective = OBJECTIVES[OBJECTIVE].learn(days, event)
    table = people[["age", "karnofsky", "lesion_count"]].fillna(0).to_numpy(np.float32) / 100
    target = objective.target(days, event)
    present = crops.images.any(axis=(2, 3, 4))
    paths_of = images.pivot(index="patient_id", columns="modality", values="path")
    masks = images.groupby("patient_id")["mask_path"].first()
    files = [
        {**paths_of.loc[who, list(SEQUENCES)], "mask": masks[who], "table": table[k], "target": target[k]}
        for k, who in enumerate(crops.patient_ids)
    ]
    return Task(files, Samples(crops.images, crops.masks, present, table, target), objective, chosen.training, prepared)


# --- the peer: MONAI as its tutorials use it --------------------------------------------------------------------------


def transforms(choice: Training) -> dict[str, list]:
    """By part: reading, what is fixed, what is random. The same changes as ours, but a sample at a time."""
    from monai import transforms as of

    keys, far = [*SEQUENCES, "mask"], (np.radians(choice.augment.rotate_deg),) * 3
    image, both = {"keys": ["image"]}, {"keys": ["image", "mask"]}
    fixed = [
        of.EnsureChannelFirstd(keys),
        of.Orientationd(keys, axcodes="LPS", labels=None),
        of.Spacingd(keys, pixdim=(SPACING_MM,) * 3, mode=["bilinear"] * 4 + ["nearest"]),
        of.NormalizeIntensityd(list(SEQUENCES), nonzero=True),
        of.ConcatItemsd(list(SEQUENCES), "image"),
        of.Lambdad("mask", _one_channel_a_label),
        of.CropForegroundd(**both, source_key="mask", margin=SIZE // 2, allow_smaller=True),
        of.ResizeWithPadOrCropd(**both, spatial_size=(SIZE,) * 3),
        of.SelectItemsd(["image", "mask", "table", "target"]),
    ]
    changed = [
        of.RandFlipd(**both, prob=0.5, spatial_axis=0),
        of.RandAffined(**both, prob=0.5, rotate_range=far, scale_range=(choice.augment.scale,) * 3,
                       translate_range=(choice.augment.shift * SIZE,) * 3, mode=["bilinear", "nearest"],
                       padding_mode="zeros"),
        of.RandScaleIntensityd(**image, factors=choice.augment.intensity, prob=1.0, channel_wise=True),
        of.RandShiftIntensityd(**image, offsets=choice.augment.intensity, prob=1.0, channel_wise=True),
        of.RandGaussianNoised(**image, prob=1.0, std=choice.augment.noise, sample_std=False),
    ]  # fmt: skip
    return {"reading": [of.LoadImaged(keys)], "fixed transforms": fixed, "random transforms": changed}


def _one_channel_a_label(mask):
    return torch.cat([mask == label for label in LABELS]).float()


def data_set(given: Task, cached: bool):
    """Of MONAI: reads and transforms every patient anew in every epoch, or (`cached`) only once what is fixed."""
    from monai.data import CacheDataset, Dataset
    from monai.transforms import Compose

    steps = Compose([step for part in transforms(given.choice).values() for step in part]).set_random_state(1)
    return CacheDataset(given.files, steps, progress=False) if cached else Dataset(given.files, steps)


def plain_loop(net: HybridNet, data, given: Task, epochs: int, workers: int) -> None:
    """The loop of the tutorials: batches from a loader, forward, backward, step."""
    from monai.data import DataLoader

    where = training.device()
    net.to(where).train()
    loader = DataLoader(data, batch_size=given.choice.batch_size, shuffle=True, num_workers=workers,
                        pin_memory=where.type == "cuda")  # fmt: skip
    optimiser = torch.optim.AdamW(net.parameters(), lr=given.choice.learning_rate)
    for _ in range(epochs):
        for batch in loader:
            seen = [batch[name].to(where) for name in ("image", "mask", "table")]
            optimiser.zero_grad()
            present = torch.ones(len(seen[0]), len(SEQUENCES), dtype=torch.bool, device=where)
            loss = given.objective.loss(net(*(each.as_tensor() if hasattr(each, "as_tensor") else each
                                              for each in seen), present), batch["target"].to(where))  # fmt: skip
            loss.backward()
            optimiser.step()
            loss.item()


# --- measuring --------------------------------------------------------------------------------------------------------


def network(encoder: str, given: Samples) -> HybridNet:
    training.seed_everything(1)
    shape = (given.images.shape[1], given.masks.shape[1], given.table.shape[1])
    return HybridNet(encoder, FUSION, *shape, 1, 0.3)


def ours(net: HybridNet, given: Task, epochs: int) -> None:
    training.train(net, given.samples, given.objective, given.choice, epochs=epochs, seed=1, label="", mirror=True)


def timed(encoder: str, given: Task, epochs: int, repeats: int, workers: int) -> tuple[pd.Series, float]:
    """Samples a second of `ours`, `plain` and `cached`, medians of passes in turn; and the seconds of filling the cache.

    A pass of each is not timed.
    """
    start = time.perf_counter()
    cache = data_set(given, cached=True)
    filled = time.perf_counter() - start
    loops = {
        "ours": partial(ours, given=given, epochs=epochs),
        "plain": partial(plain_loop, data=data_set(given, cached=False), given=given, epochs=epochs, workers=workers),
        "cached": partial(plain_loop, data=cache, given=given, epochs=epochs, workers=0),
    }
    names, rows = list(loops), []
    for repeat in range(repeats + 1):
        for name in names[repeat % 3 :] + names[: repeat % 3]:
            net = network(encoder, given.samples)
            start = time.perf_counter()
            loops[name](net)
            rows.append((repeat, name, time.perf_counter() - start))
    seconds = pd.DataFrame(rows, columns=["pass", "loop", "seconds"]).query("`pass` > 0")
    return len(given.files) * epochs / seconds.groupby("loop")["seconds"].median(), filled


def speeds(encoder: str, speed: pd.Series, filled: float, given: Task) -> dict[str, dict]:
    """An epoch beside the plain loop's and the cached one's, and a whole fit with what is done once before it."""
    epochs = params.per_cohort(given.choice.epochs, encoder.removesuffix("-2d"))
    count = len(given.files) * epochs
    before = pd.Series({"ours": given.prepared, "plain": 0.0, "cached": filled})
    whole = count / (count / speed + before)
    return {
        f"training-{encoder}": _entry(speed, "plain", "an epoch; the peer reads files in every epoch"),
        f"training-{encoder}-cached": _entry(speed, "cached", "an epoch; the peer keeps images in memory"),
        f"training-{encoder}-fit": _entry(whole, "plain", f"a fit of {epochs} epochs with its preparation"),
        f"training-{encoder}-fit-cached": _entry(whole, "cached", f"a fit of {epochs} epochs with its preparation"),
    }


def _entry(found: pd.Series, peer: str, about: str) -> dict:
    one, other = float(found["ours"]), float(found[peer])
    return {"ours": one, "peer": other, "ratio": one / other, "unit": UNIT.format(about)}


def where_time_goes(encoder: str, given: Task, repeats: int) -> pd.DataFrame:
    """Milliseconds of processor a sample, by part (rows), of `ours`, `plain` and `cached`; least of several."""
    from survpack.augmentation import augment

    spent, threads = pd.DataFrame(np.inf, PARTS, ["ours", "plain"]), torch.get_num_threads()
    torch.set_num_threads(1)
    steps, files = transforms(given.choice), given.files[: given.choice.batch_size]
    for _ in range(repeats):
        clock = _Clock()
        seen = files
        for part, own in steps.items():
            for step in own:
                seen = [step(dict(one)) for one in seen]
            clock.lap(part)
        images, masks = (torch.stack([one[name].as_tensor() for one in seen]) for name in ("image", "mask"))
        batch = Samples(*(torch.as_tensor(each[: len(files)]) for each in given.samples))
        _steps(network(encoder, given.samples), batch._replace(images=images, masks=masks), given, clock, False)
        spent["plain"] = np.minimum(spent["plain"], clock.milliseconds(len(files)))

        net, clock = network(encoder, given.samples), _Clock()
        batch = Samples(*(torch.as_tensor(each[: len(files)]) for each in given.samples))
        batch = batch._replace(images=batch.images.float(), masks=batch.masks.float())
        batch = augment(batch, given.choice.augment, mirror=True)
        clock.lap("random transforms")
        _steps(net, batch, given, clock, True)
        spent["ours"] = np.minimum(spent["ours"], clock.milliseconds(len(files)))
    torch.set_num_threads(threads)
    in_memory = spent["plain"].mask(spent.index.isin(PARTS[:2]), 0.0)
    return spent.assign(cached=in_memory)


class _Clock:
    """Seconds of processor since the last lap."""

    def __init__(self):
        self.found, self.last = dict.fromkeys(PARTS, 0.0), time.process_time()

    def lap(self, part: str) -> None:
        now = time.process_time()
        self.found[part] += now - self.last
        self.last = now

    def milliseconds(self, samples: int) -> pd.Series:
        return 1e3 * pd.Series(self.found) / samples


def _steps(net: HybridNet, batch: Samples, given: Task, clock: _Clock, fused: bool) -> None:
    optimiser = torch.optim.AdamW(net.parameters(), lr=given.choice.learning_rate, fused=fused)
    net.train()
    clock.last = time.process_time()
    loss = given.objective.loss(net(batch.images, batch.masks, batch.table, batch.present), batch.target)
    clock.lap("forward")
    loss.backward()
    clock.lap("backward")
    optimiser.step()
    clock.lap("optimiser")


def parts(encoder: str, spent: pd.DataFrame) -> dict[str, dict]:
    """The table as entries; ratio below 1 where ours takes less."""
    return {
        f"training-{encoder}-{part.replace(' ', '-')}": {
            "ours": float(row["ours"]), "peer": float(row["plain"]),
            "ratio": float(row["ours"] / row["plain"]) if row["plain"] else None,
            "unit": "milliseconds of one core a sample; the peer reads files in every epoch",
        }
        for part, row in spent.iterrows()
    }  # fmt: skip


def by_size(encoder: str, size: int, precision: str, given: Task) -> dict[str, dict]:
    """Our samples a second on noise of `size` voxels a side, and the memory of the GPU."""
    rng, count = np.random.default_rng(1), 2 * given.choice.batch_size
    cube = (size,) * 3
    images = rng.standard_normal((count, len(SEQUENCES), *cube), np.float32).astype(np.float16)
    masks = np.zeros((count, len(LABELS), *cube), np.float16)
    masks[:, :, size // 4 : size // 2, size // 4 : size // 2, size // 4 : size // 2] = 1
    outcome = given.objective.target(np.arange(1.0, count + 1), np.arange(count) % 2 == 0)
    table = rng.standard_normal((count, 3), np.float32)
    samples = Samples(images, masks, np.ones((count, len(SEQUENCES)), bool), table, outcome)
    choice = given.choice.model_copy(update={"precision": precision})
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    history = training.train(network(encoder, samples), samples, given.objective, choice, epochs=3, seed=1, label="",
                             mirror=True)  # fmt: skip
    about = f"{precision} on {training.device().type}"
    name = f"training-{encoder}-{size}-{precision}"
    found = {
        name: _alone(
            history["samples_per_second"].iloc[1:].median(), f"samples a second, {size} voxels a side, {about}"
        )
    }
    if torch.cuda.is_available():
        peak = history["peak_memory_mb"].max()
        found[f"{name}-memory"] = _alone(peak, f"MB of GPU memory at the peak, {size} voxels a side, {about}")
    return found


def _alone(value: float, unit: str) -> dict:
    return {"ours": float(value), "peer": None, "ratio": None, "unit": unit}


def main(arguments: Iterable[str] | None = None) -> int:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bids", type=Path, help="a mets cohort; one is made where none is named")
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=2, help="of a timed pass")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes of each loop")
    parser.add_argument("--workers", type=int, default=CORES, help="processes of the peer's loader")
    parser.add_argument("--threads", type=int, default=CORES, help="of torch")
    parser.add_argument("--encoders", nargs="+", default=["compact", "efficientnet"])
    parser.add_argument("--sizes", type=int, nargs="*", default=[32, 64, 96, 128] if cuda else [],
                        help="voxels a side, of our loop alone")  # fmt: skip
    parser.add_argument("--out", type=Path, default=paths.METRICS / "benchmarks.json")
    chosen = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))  # of this process and its children
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as place:
        given = task(chosen.bids or _phantom(Path(place), chosen.patients), chosen.patients)
        found = {}
        for encoder in chosen.encoders:
            found |= _compared(encoder, given, chosen)
    for encoder in chosen.encoders:
        for size in chosen.sizes:
            for precision in ("float32", "bfloat16") if cuda else ("float32",):
                found |= by_size(encoder, size, precision, given)
    merged(found, chosen.out)
    shown = pd.DataFrame(found).T.reindex(columns=["ours", "peer", "ratio", "unit"])
    print(shown.to_string(float_format="{:.3g}".format, na_rep=""))
    return 0


def _compared(encoder: str, given: Task, chosen: argparse.Namespace) -> dict[str, dict]:
    print(f"{encoder}: {len(given.files)} patients, {chosen.epochs} epochs a pass, {chosen.repeats} passes in turn.")
    speed, filled = timed(encoder, given, chosen.epochs, chosen.repeats, chosen.workers)
    spent = where_time_goes(encoder, given, chosen.repeats)
    table = pd.concat([spent, spent.sum().to_frame("sum").T])
    print(f"milliseconds of one core a sample\n{table.to_string(float_format='{:.2f}'.format)}\n")
    return speeds(encoder, speed, filled, given) | parts(encoder, spent)


def _phantom(place: Path, patients: int) -> Path:
    from survpack.phantom import mets

    mets.generate(place / "bids", place / "truth.parquet", patients=patients, sites=min(3, patients),
                  spacing_mm=SPACING_MM, seed=mets.DEFAULTS["seed"])  # fmt: skip
    return place / "bids"


if __name__ == "__main__":
    sys.exit(main())
