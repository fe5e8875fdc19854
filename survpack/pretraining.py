"""Encoders learnt from images alone: no outcome, no chart.

Two augmented views of one image are to lie near each other, views of other patients far away (SimCLR: Chen et al.
2020, arXiv:2002.05709). What travels from cohort to cohort is the shared encoder of fusion "gated": it sees one
modality and two masks, the tumour and what else is drawn (oedema, the organ), so that it fits whatever the next
cohort was scanned with and however its labels are named.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from survpack import paths, shared, training
from survpack.augmentation import augment
from survpack.cohort import TUMOUR
from survpack.encoders import ENCODERS, Encoder
from survpack.parallel import in_parallel
from survpack.params import Augment, Params, Training, per_cohort
from survpack.paths import CohortPaths
from survpack.study import TEST_FOLD, Study
from survpack.training import Samples

ENCODER = "compact"
LABELS = 2  # the tumour, and what else is drawn
CHANNELS = 1 + LABELS
VIEWS_OF = 32  # patients a batch: each is told from the others
TEMPERATURE = 0.2  # SimCLR finds 0.1 to 0.5 best
CURVE = ["fold", "epoch", "loss"]


class Contrast(nn.Module):
    """An encoder, and the projection under which views are compared; only the encoder is kept."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.projection = nn.Sequential(nn.Linear(encoder.pooled, 64), nn.ReLU(), nn.Linear(64, 32))

    def forward(self, views: Samples) -> torch.Tensor:
        """Views of one modality to (n, 32)."""
        return self.projection(pooled(self.encoder, views.images, views.masks))


def samples_of(study: Study) -> Samples:
    """What a travelling encoder sees of a cohort: each modality by itself, and two masks, of which the second may be empty.

    The tumour's labels are one mask, all others the second. A cohort of masks has one modality, the tumour's mask.
    Cubes are halved (means of eight voxels): a seventh of the time, and on `mets` networks of as many seconds score no
    worse. Table and target have no columns yet.
    """
    patients = study.patients
    meanings = list(dict.fromkeys(study.cohort.labels.values()))  # in the order of the crops
    tumour = np.array([meaning in TUMOUR for meaning in meanings])
    masks = np.stack([patients.masks[:, which].max(axis=1, initial=0) for which in (tumour, ~tumour)], axis=1)
    if patients.modalities:
        seen = (halved(patients.images), halved(masks), patients.present)
    else:
        seen = (halved(masks[:, :1]), halved(masks), np.ones((len(masks), 1), dtype=bool))
    return Samples(*seen, *(np.empty((len(masks), 0), np.float32) for _ in range(2)))


def imaged(study: Study) -> bool:
    """Whether the cohort has an image, or a mask to stand in for it."""
    return bool(study.patients.modalities) or study.patients.masks.shape[1] > 0


def halved(volumes: np.ndarray) -> np.ndarray:
    """Means over two voxels a side, float16; (n, channels, x, y, z) to half of x, y and z."""
    return nn.functional.avg_pool3d(torch.as_tensor(volumes).float(), 2).half().numpy()


def pretrain(
    samples: Samples, choice: Training, *, mirror: bool, epochs: int, seed: int, label: str
) -> tuple[Encoder, pd.DataFrame]:
    """An encoder that has learnt to tell patients apart, and `training.optimise`'s history.

    Parameters
    ----------
    samples : Samples
        Of `samples_of`, the patients to learn from; their target is not read.
    mirror : bool
        Whether left and right may be exchanged.
    """
    from monai.losses import ContrastiveLoss

    training.seed_everything(seed)
    module, contrast = Contrast(new_encoder()), ContrastiveLoss(TEMPERATURE)
    images, masks, present = (torch.as_tensor(np.ascontiguousarray(each)) for each in samples[:3])

    def batches(epoch: int, rng: np.random.Generator) -> list[Samples]:
        return [_one_modality(images, masks, at, which) for at, which in drawn(present.numpy(), rng)]

    def loss_of(module: Contrast, batch: Samples) -> torch.Tensor:
        views = (module(_view(batch, choice.augment, mirror)).float() for _ in range(2))
        return contrast(*views)

    history = training.optimise(module, batches, loss_of, choice, epochs=epochs, seed=seed, label=label)
    return module.encoder, history


def drawn(present: np.ndarray, rng: np.random.Generator) -> list[tuple[int, np.ndarray]]:
    """An epoch's batches: a modality, and which patients.

    A batch is of one modality, or telling T1 from FLAIR would be all that is learnt. A patient alone has nobody to be
    told from, and is left out.
    """
    found = []
    for modality in range(present.shape[1]):
        patients = rng.permutation(np.flatnonzero(present[:, modality]))
        count = max(-(-len(patients) // VIEWS_OF), 1)
        found += [(modality, np.sort(part)) for part in np.array_split(patients, count) if len(part) > 1]
    return [found[at] for at in rng.permutation(len(found))]


def found_again(encoder: Encoder, samples: Samples, choice: Augment, mirror: bool, seed: int) -> float:
    """Share of images whose nearest neighbour among other views of all patients is their own; mean over modalities.

    Chance is one over the number of patients.
    """
    training.seed_everything(seed)
    shares = []
    for modality in range(samples.present.shape[1]):
        which = np.flatnonzero(samples.present[:, modality])
        images, masks = (torch.as_tensor(np.ascontiguousarray(each)) for each in samples[:2])
        batch = _one_modality(images, masks, modality, which)
        with torch.no_grad():
            one, other = (nn.functional.normalize(pooled(encoder, *_view(batch, choice, mirror)[:2])) for _ in range(2))
        shares.append(((one @ other.T).argmax(dim=1) == torch.arange(len(which))).float().mean().item())
    return float(np.mean(shares))


def pretrain_all(study: Study) -> dict:
    """Pre-train on a cohort, write what travels, and say what it is.

    `encoder.safetensors` has learnt from all development patients and is for other cohorts. Where the cohort is its
    own source, `fold-k.safetensors` has learnt from the training patients of fold k only: the images of those it
    will be judged on are not seen, outcome or none. Test patients are never learnt from.

    Returns
    -------
    dict
        Facts: `images`, `patients`, `modalities`, `parameters`, `epochs`, `chance_loss`, `found_again` (of test
        patients' images, whose outcomes are not read: `pretrained`, `random`, `chance`), `data` (a digest).
    """
    samples, folds = samples_of(study), folds_of(study)
    rows = [places(study, study.fold(fold)[0]) for fold in folds]
    jobs = [(_pretrained, (samples.take(own), study.params, mirrored(study))) for own in rows]
    fits = dict(zip(folds, in_parallel(jobs, f"{study.name}: pre-training"), strict=True))
    facts = _facts(study, samples, fits[TEST_FOLD][0])
    with paths.written_whole(folder(study.name)) as part:
        part.mkdir(parents=True)
        for fold, (encoder, _) in fits.items():
            training.save_weights(encoder, part / f"{fold_name(fold)}.safetensors", {"cohort": study.name})
        curves = [history.assign(fold=fold)[CURVE] for fold, (_, history) in fits.items()]
        pd.concat(curves).to_csv(part / "curve.csv", index=False)
        study.save_json(part / "facts.json", facts)
    return facts


def _pretrained(samples: Samples, params: Params, mirror: bool) -> tuple[Encoder, pd.DataFrame]:
    choice = params.transfer
    found = pretrain(
        samples, params.training, mirror=mirror, epochs=choice.pretrain_epochs, seed=choice.seed, label="pre-training"
    )
    return found[0].cpu(), found[1]


def load_encoder(source: str, fold: int) -> Encoder:
    """The encoder that `source` gives to patients of `fold` (`TEST_FOLD`: to another cohort)."""
    encoder = new_encoder()
    training.load_weights(encoder, folder(source) / f"{fold_name(fold)}.safetensors")
    return encoder


def new_encoder() -> Encoder:
    """One with random weights."""
    return ENCODERS[ENCODER](CHANNELS, LABELS)


def pooled(encoder: Encoder, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """One vector an image, (n, pooled), from images (n, 1, x, y, z) and masks (n, LABELS, x, y, z)."""
    return encoder.pool(encoder(torch.cat([images, masks], dim=1), masks))


def folder(cohort: str) -> Path:
    """Where a cohort's encoders lie."""
    return paths.DERIVED / "pretrained" / cohort


def fold_name(fold: int) -> str:
    return "encoder" if fold == TEST_FOLD else f"fold-{fold}"


def folds_of(study: Study) -> list[int]:
    """The fits to make: all development patients, and each fold's where the cohort is a source of its own."""
    own = study.name in sources_of(study)
    return [TEST_FOLD, *(sorted(set(study.splits["fold"]) - {TEST_FOLD}) if own else [])]


def sources_of(study: Study) -> list[str]:
    """Cohorts whose encoders this one tries: those of params.yaml that are among `cohorts` and share no patient with it."""
    asked = study.params.transfer.sources
    named = [name for name in asked.get(study.name, asked.get("other", [])) if name in study.params.cohorts]
    others = {name: Study(name, study.params, CohortPaths(name)) for name in named if name != study.name}
    return [name for name in named if name == study.name or not shares_patients(study, others[name])]


def shares_patients(one: Study, other: Study) -> bool:
    """Whether somebody is, or may be, a patient of both cohorts: held out here, and learnt from there."""
    return bool(len(shared.pairs(one, other)) or shared.unknown(one, other))


def mirrored(study: Study) -> bool:
    return per_cohort(study.params.training.mirror, study.name)


def places(study: Study, ids: list[str]) -> np.ndarray:
    """Rows of the patients named."""
    return study.patients.outcome.index.get_indexer(ids)


def digest(study: Study) -> str:
    """Of all data that another cohort's transfer may read of this one."""
    found = hashlib.sha256()
    for place in (study.paths.cohort, study.paths.biomarkers, study.paths.crops):
        for path in sorted(place.iterdir()):
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


def _facts(study: Study, samples: Samples, encoder: Encoder) -> dict:
    mirror = mirrored(study)
    learnt = samples.take(places(study, study.development))
    unseen = samples.take(places(study, study.fold(TEST_FOLD)[1]))
    seed, choice = study.params.transfer.seed, study.params.training.augment
    training.seed_everything(seed)
    compared = {"pretrained": encoder, "random": new_encoder()}
    again = {name: found_again(one, unseen, choice, mirror, seed) for name, one in compared.items()}
    batch = min(VIEWS_OF, len(learnt.images))
    return {
        "images": int(learnt.present.sum()),
        "patients": len(learnt.images),
        "modalities": study.patients.modalities or ["mask"],
        "parameters": sum(weight.numel() for weight in encoder.parameters()),
        "epochs": study.params.transfer.pretrain_epochs,
        "chance_loss": float(np.log(2 * batch - 1)),
        "found_again": again | {"chance": 1 / max(len(unseen.images), 1)},
        "data": digest(study),
    }


def _one_modality(images, masks, modality: int, which: np.ndarray) -> Samples:
    image = images[which, modality : modality + 1]
    there = torch.ones(len(which), 1, dtype=torch.bool)
    nothing = image.new_empty(len(which), 0, dtype=torch.float32)
    return Samples(image, masks[which], there, nothing, nothing)


def _view(batch: Samples, choice: Augment, mirror: bool) -> Samples:
    return augment(batch._replace(images=batch.images.float(), masks=batch.masks.float()), choice, mirror)
