"""Scans of every visit as a network sees them, and what it keeps of each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree

import numpy as np
import pandas as pd

from survpack import content, growth
from survpack.params import per_cohort
from survpack.preprocess import BASELINE_DAYS, CropSet, make_crops
from survpack.study import Study

ENCODER = "compact"


@dataclass(frozen=True)
class VisitScans:
    """The crops of all visits, each visit as if it were a patient of its own.

    Attributes
    ----------
    crops : CropSet
    row : ndarray of int, shape (crops,)
        Where in the table of visits each crop's visit is.
    visits : DataFrame
    """

    crops: CropSet
    row: np.ndarray
    visits: pd.DataFrame

    @classmethod
    def of(cls, study: Study, visits: pd.DataFrame) -> VisitScans | None:
        """Crops of the visits that were imaged and show a tumour; None where nobody was imaged twice.

        They are kept in `data/derived/<cohort>/remembered` for the next time.
        """
        if not seen_twice(study.cohort.images):
            return None
        sizes = visits if "tumour_ml" in visits else growth.visits(study.cohort)
        shown = set(_names(sizes[sizes["tumour_ml"] > 0])) & set(_names(visits))
        images = study.cohort.images.assign(patient_id=_names(study.cohort.images))
        images = images[(images["mask_path"] != "") & images["patient_id"].isin(shown)].reset_index(drop=True)
        imaged = visits.assign(patient_id=_names(visits))
        imaged = imaged[imaged["patient_id"].isin(images["patient_id"])]
        cohort = replace(study.cohort, participants=imaged[["patient_id"]], images=images)
        folder = study.paths.remembered / f"visits-{_digest(images, study)}"
        if not folder.exists():
            for old in study.paths.remembered.glob("visits-*"):
                rmtree(old)
            make_crops(cohort, study.params.crops, study.params.preprocess).save(folder)
        return cls(CropSet.load(folder), imaged.index.to_numpy(), visits)

    def embed(self, study: Study, train_ids, label: str) -> pd.DataFrame:
        """Every visit in the numbers of a network trained on the first scans of the training patients alone (Cox).

        Returns
        -------
        DataFrame, shape (visits, numbers)
            NaN for a visit without a scan.
        """
        from survpack import training
        from survpack.networks import HybridNet
        from survpack.objectives import OBJECTIVES

        choice, crops = study.params.training, self.crops
        outcome = study.cohort.outcome.set_index("patient_id")
        patient = self.visits["patient_id"].to_numpy()[self.row]
        first = ~pd.Series(patient).duplicated().to_numpy() & np.isin(patient, list(train_ids))
        first &= self.visits["day"].to_numpy()[self.row] <= BASELINE_DAYS  # survival counts from baseline
        time, event = (outcome.loc[patient[first], name].to_numpy() for name in ("time_days", "event"))
        objective = OBJECTIVES["cox"].learn(time, event)
        training.seed_everything(study.params.longitudinal.seed)
        net = HybridNet(
            ENCODER, "image", len(crops.modalities), len(crops.labels), 0, objective.outputs, choice.dropout
        )
        samples = self._samples()
        training.train(
            net, samples.take(first)._replace(target=objective.target(time, event)), objective, choice,
            epochs=per_cohort(choice.epochs, ENCODER), seed=study.params.longitudinal.seed,
            label=f"{label}, {ENCODER}", mirror=per_cohort(choice.mirror, study.name),
        )  # fmt: skip
        kept = training.embed(net, samples)
        columns = [f"image_{k}" for k in range(kept.shape[1])]
        return pd.DataFrame(kept, self.visits.index[self.row], columns).reindex(self.visits.index).astype(float)

    def _samples(self):
        from survpack.training import Samples

        crops, count = self.crops, len(self.row)
        nothing = np.zeros((count, 0), np.float32)
        return Samples(crops.images, crops.masks, crops.images.any(axis=(2, 3, 4)), nothing, nothing)


def _names(table: pd.DataFrame) -> pd.Series:
    """A name of its own for each visit."""
    return table["patient_id"].astype(str) + " " + table["session"].astype(str)


def seen_twice(images: pd.DataFrame) -> bool:
    """Whether anyone has two scans of one modality from two sessions: CT and PET of one work-up are no follow-up."""
    scans = images.drop_duplicates(["patient_id", "modality", "session"])
    return bool(scans.duplicated(["patient_id", "modality"]).any())


def stamps(images: pd.DataFrame) -> list[str]:
    """Path and digest of each file that is there."""
    files = [Path(path) for path in images[["path", "mask_path"]].to_numpy().ravel() if path and Path(path).is_file()]
    return [f"{file} {content.digest(file)}" for file in files]


def _digest(images: pd.DataFrame, study: Study) -> str:
    told = [*images[["patient_id", "modality"]].to_numpy().ravel(), *stamps(images)]
    told += [getattr(study.params, part).model_dump_json() for part in ("crops", "preprocess")]
    told += [
        Path(__file__).with_name(name).read_text() for name in ("nifti.py", "preprocess.py", "normalise.py", "grids.py")
    ]
    return hashlib.blake2b("\n".join(map(str, told)).encode(), digest_size=8).hexdigest()
