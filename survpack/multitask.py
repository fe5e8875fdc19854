"""One encoder for several cancers, a head each: what all cohorts teach together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import nn

from survpack import paths, training
from survpack.augmentation import augment
from survpack.parallel import in_parallel
from survpack.params import Training
from survpack.pretraining import imaged, mirrored, places, samples_of, shares_patients
from survpack.study import Study
from survpack.training import Samples
from survpack.transfer import COLUMNS, RATE, Arm, Both, BothCox, digest, folds, ready, rows, sizes_of


def multitask(studies: list[Study]) -> pd.DataFrame:
    """Out-of-fold risks by one encoder shared by all cohorts, a head each; fold k of every cohort is held out together.

    Cohorts that share a patient with another are left out. Kept by content under data/derived/remembered, since it is the same for every cohort of the study.

    Returns
    -------
    DataFrame
        `COLUMNS` of all cohorts, `way` "multi-task"; empty with a single cohort.
    """
    studies = [study for study in studies if imaged(study)]
    apart = [not any(shares_patients(one, other) for other in studies if other is not one) for one in studies]
    studies = [study for study, alone in zip(studies, apart, strict=True) if alone]
    shared = sorted(set.intersection(*(set(folds(study)) for study in studies))) if studies[1:] else []
    name = f"{digest(studies)}.parquet" if shared else ""
    files = {fold: paths.DERIVED / "remembered" / f"multitask-{fold}-{name}" for fold in shared}
    lacking = [fold for fold, path in files.items() if not path.exists()]
    found = in_parallel([(_shared, (studies, fold)) for fold in lacking], "one encoder, all cohorts")
    for fold, table in zip(lacking, found, strict=True):
        studies[0].save_table(files[fold], table)
    tables = [pd.read_parquet(path) for path in files.values()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)


def _shared(studies: list[Study], fold: int) -> pd.DataFrame:
    """One fit of all cohorts without their fold `fold`, and what it says of them."""
    choice, seed = studies[0].params.training, studies[0].params.transfer.seed
    sides = [study.fold(fold) for study in studies]
    seen = [ready(study, samples_of(study), train) for study, (train, _) in zip(studies, sides, strict=True)]
    training.seed_everything(seed)
    nets = nn.ModuleList(Both(one.present.shape[1], one.table.shape[1], choice.dropout) for one in seen)
    for net in nets:
        net.image.encoder = nets[0].image.encoder
    few = [one.take(places(study, train)) for one, study, (train, _) in zip(seen, studies, sides, strict=True)]
    fit_together(nets, few, [mirrored(study) for study in studies], choice, studies[0].params.transfer.epochs, seed)
    found = []
    for study, net, one, (train, held) in zip(studies, nets, seen, sides, strict=True):
        risk, keys = training.predict(net, one.take(places(study, held))), {"cohort": study.name, "fold": fold}
        found += [rows(Arm("multi-task", "all"), bool(chart), sizes_of(study)[-1], len(train), held, risk[:, chart], keys)
                 for chart in range(2)]  # fmt: skip
    return pd.concat(found, ignore_index=True)


def fit_together(
    nets: nn.ModuleList, samples: list[Samples], mirror: list[bool], choice: Training, epochs: int, seed: int
) -> pd.DataFrame:
    """Train networks that share an encoder; a step sees a batch of every cohort, and lowers the mean of their losses."""
    tensors = [Samples(*(torch.as_tensor(np.ascontiguousarray(each)) for each in one)) for one in samples]
    objectives = [BothCox.learn(one.target[:, 0], one.target[:, 1]) for one in samples]
    steps = max(max(len(one.target) for one in samples) // choice.batch_size, 1)

    def batches(epoch: int, rng: np.random.Generator) -> list[list[Samples]]:
        parts = [rounds(len(one.target), steps, choice.batch_size, rng) for one in tensors]
        return [[one.take(own[step]) for one, own in zip(tensors, parts, strict=True)] for step in range(steps)]

    def loss_of(nets: nn.ModuleList, batch: list[Samples]) -> torch.Tensor:
        losses = []
        for net, one, objective, flip in zip(nets, batch, objectives, mirror, strict=True):
            one = augment(one._replace(images=one.images.float(), masks=one.masks.float()), choice.augment, flip)
            losses.append(objective.loss(net(one.images, one.masks, one.table, one.present).float(), one.target))
        return torch.stack(losses).mean()

    return training.optimise(
        nets, batches, loss_of, choice, epochs=epochs, seed=seed, label="one encoder", learning_rate=RATE
    )


def rounds(count: int, steps: int, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`steps` batches of at most `batch` of `count` patients; all have their turn before one has a second."""
    width = min(batch, count)
    turns = np.concatenate([rng.permutation(count) for _ in range(-(-steps * width // count))])
    return [turns[step * width : (step + 1) * width] for step in range(steps)]
