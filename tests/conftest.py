"""Small synthetic patients, and a study of them on disk, made without any image file."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import pytest

from survpack import params as params_module
from survpack import paths, settings
from survpack.biomarkers import NOTES, Biomarkers
from survpack.cohort import Cohort
from survpack.models import Patients
from survpack.params import Params
from survpack.paths import CohortPaths
from survpack.preprocess import CropSet
from survpack.splits import make_splits

hypothesis.settings.register_profile("busy", deadline=None)  # a busy machine is no fault of the code
hypothesis.settings.load_profile("busy")
os.environ["SURVPACK_JOBS"] = "1"  # another process would not know what a test has put in a module's place


def pytest_collection_modifyitems(items):
    """The slow ones first, the slowest of all before them: it would else be alone at the end, on one of two workers."""

    def rank(item) -> tuple[bool, bool]:
        mark = item.get_closest_marker("slow")
        return mark is None, not (mark and mark.args)

    items.sort(key=rank)


DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years"},
    "fitness": {"kind": "ordered", "levels": ["poor", "fair", "good"]},
    "sex": {"kind": "categorical", "levels": ["female", "male"]},
    "primary": {"kind": "categorical", "levels": ["lung", "breast", "other"]},
}
LABELS = {1: "enhancing", 2: "oedema"}


def _patients(count: int, seed: int = 0, voxels: int = 32) -> Patients:
    """Exponential survival, its hazard e-fold a standard deviation of log volume, less so of age."""
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"P{number:03d}" for number in range(count)], name="patient_id")
    age, log_volume = rng.normal(60, 10, count), rng.normal(1, 1, count)
    death = rng.exponential(400 * np.exp(-(log_volume - 1) - 0.3 * (age - 60) / 10)) + 1
    censored = rng.uniform(50, 2000, count)
    outcome = pd.DataFrame({"site": np.arange(count) % 2, "time_days": np.minimum(death, censored)}, index=ids)
    outcome = outcome.astype({"site": str}).assign(event=death <= censored)
    clinical = pd.DataFrame(
        {name: rng.choice(DICTIONARY[name]["levels"], count) for name in ("fitness", "sex", "primary")}, index=ids
    ).astype(object)
    clinical.insert(0, "age", age)
    clinical.iloc[1::9, 0] = np.nan
    clinical.iloc[2::9, 1:] = None  # as parquet gives it back
    biomarkers = pd.DataFrame({"tumour_ml": np.exp(log_volume), "oedema_to_tumour": rng.exponential(2, count)}, ids)
    biomarkers["sphericity"] = rng.uniform(0.3, 0.9, count)
    biomarkers.iloc[3::9, 1] = np.nan
    for number in range(4):
        biomarkers[f"rad_noise_{number}"] = rng.normal(size=count)
    biomarkers["rad_planted"] = log_volume + rng.normal(0, 0.1, count)
    biomarkers["rad_hardly_varies"] = np.r_[1.0, np.zeros(count - 1)]
    images = rng.normal(size=(count, 1, *[voxels] * 3)).astype(np.float16)
    masks = np.zeros((count, 2, *[voxels] * 3), np.float16)
    half = voxels // 2
    masks[:, 0, half - voxels // 4 : half, half:, half - 1 : half + 1] = 1
    masks[:, 1, half:, half:, half:] = 1
    radiomic = biomarkers.filter(regex="^rad_")
    shuffled, noise = (radiomic + rng.normal(size=radiomic.shape) for _ in range(2))
    replicates = {how: biomarkers.iloc[:20] * (1 + 0.01 * rng.normal(size=(min(count, 20), biomarkers.shape[1])))
                  for how in ("shrink", "noise")}  # fmt: skip
    perturbed = pd.concat({"original": biomarkers.iloc[:20], **replicates}, names=["perturbation"]).swaplevel()
    present = np.ones((count, 1), bool)
    tables = (outcome, clinical, biomarkers, shuffled, noise, perturbed)
    return Patients(*tables, images, masks, present, ["t1c"], DICTIONARY, "toy")


@dataclass(frozen=True)
class Elsewhere(CohortPaths):
    """The study's files in a folder of their own."""

    root: Path

    @property
    def derived(self) -> Path:
        return self.root


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    """An empty data/raw, and nothing elsewhere."""
    monkeypatch.setattr(paths, "RAW", tmp_path / "raw")
    monkeypatch.setattr(paths, "DERIVED", tmp_path / "derived")
    monkeypatch.delenv("SURVPACK_DATA", raising=False)
    paths.RAW.mkdir()
    return paths.RAW


@pytest.fixture(scope="session")
def make_patients():
    return _patients


@pytest.fixture(scope="session")
def patients() -> Patients:
    return _patients(40)


FOUND = {  # what stage 01 is taken to have found of any cohort without numbers of its own
    "crops.spacing_mm": 2.0, "crops.ct_window_hu": (-160.0, 240.0), "biomarkers.spacing_mm": 2.0,
    "scores.horizon_days": 365.0, "scores.horizons_days": [180.0, 365.0, 730.0], "longitudinal.landmarks_days": [180.0],
}  # fmt: skip


def settled(chosen: Params) -> Params:
    """The choices with `FOUND` wherever they say `auto`."""
    return settings.applied(chosen, "other", {place: {"value": value} for place, value in FOUND.items()})


@pytest.fixture(scope="session")
def params():
    """The repository's choices with little to compute."""
    chosen = settled(params_module.load())
    training = chosen.training.model_copy(update={"epochs": {"other": 1}, "batch_size": 8})
    classical = chosen.classical.model_copy(update={"trees": 20, "min_leaf": 3, "inner_folds": 3, "budget": 3})
    return chosen.model_copy(update={"training": training, "classical": classical})


@pytest.fixture
def study_of(params):
    """`study_of(folder, patients)`: stages 01 and 02 as if done; 2 folds and a test set."""
    from survpack.study import Study

    def made(folder: Path, patients: Patients, **changed) -> Study:
        paths = Elsewhere("toy", folder)
        ids = patients.outcome.index.tolist()
        participants = patients.outcome.join(patients.clinical).reset_index()
        images = pd.DataFrame(
            {"patient_id": ids, "session": "0", "day": 0, "modality": "t1c", "path": "", "mask_path": ""}
        )
        Cohort("toy", participants, images, DICTIONARY, LABELS).save(paths.cohort)
        splits = make_splits(participants, folds=2, test_fraction=0.2, seed=1)
        splits.to_parquet(paths.cohort / "splits.parquet")
        notes = pd.DataFrame(columns=NOTES)
        Biomarkers(patients.biomarkers, patients.shuffled, patients.noise, patients.perturbed, notes).save(
            paths.biomarkers
        )
        CropSet(ids, patients.images, patients.masks, ["t1c"], list(LABELS.values()), 2.0).save(paths.crops)
        return Study("toy", params.model_copy(update=changed), paths)

    return made


@pytest.fixture
def tiny_encoder(monkeypatch):
    """An image encoder of a thousandth of the cost, under the name `tiny`; its Grad-CAM layer is its first."""
    from torch import nn

    from survpack import encoders, models

    class Tiny(encoders.Encoder):
        def __init__(self, channels: int, labels: int):
            super().__init__()
            self.width = self.pooled = 4
            self.first = nn.Sequential(nn.Conv3d(channels, 4, 3, stride=4), nn.ReLU())

        def forward(self, image, mask):
            return self.first(image).flatten(2)

    monkeypatch.setitem(encoders.ENCODERS, "tiny", Tiny)
    monkeypatch.setitem(encoders.CAM_LAYER, "tiny", "encoder.first")
    for objective in ("mse", "cox"):
        made = partial(models.Deep, "tiny", "concat", objective)
        monkeypatch.setitem(models.MODELS, f"hybrid-tiny-{objective}", made)
    return "tiny"
