"""What a model may know of patients, and what it says of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack.biomarkers import Biomarkers
from survpack.cohort import Cohort
from survpack.errors import BadInput
from survpack.preprocess import CropSet
from survpack.radiomics import RADIOMIC


class Forecast(NamedTuple):
    """What a model says of n patients."""

    risk: np.ndarray  # (n,), higher is worse
    days: np.ndarray  # (n,), predicted survival; infinite where the curve has no median
    survival: np.ndarray  # (n, times), event-free probability


@dataclass(frozen=True)
class Patients:
    """All that a model may know of some patients; never a phantom's truth.

    Attributes
    ----------
    outcome, clinical, biomarkers : DataFrame, indexed by patient_id, rows in one order
    shuffled, noise : DataFrame, the same index
        Radiomics of voxels in random order, and of noise: what the negative controls see.
    perturbed : DataFrame, indexed by (patient_id, perturbation)
        Biomarkers of some of them under perturbations of scan and mask.
    images, masks : ndarray, shape (n, channels, x, y, z)
    present : ndarray of bool, shape (n, modalities)
        False where a patient lacks the modality, whose voxels are then all zero.
    modalities : list of str
    dictionary : dict
        Kinds and levels of the clinical columns.
    name : str
        Of the cohort.
    """

    outcome: pd.DataFrame
    clinical: pd.DataFrame
    biomarkers: pd.DataFrame
    shuffled: pd.DataFrame
    noise: pd.DataFrame
    perturbed: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray
    present: np.ndarray
    modalities: list[str]
    dictionary: dict
    name: str

    @classmethod
    def of(cls, cohort: Cohort, measured: Biomarkers, crops: CropSet) -> Patients:
        ids = cohort.participants["patient_id"]
        if list(ids) != list(measured.features.index) or list(ids) != crops.patient_ids:
            raise BadInput(
                f"{cohort.name}: participants, biomarkers and crops list other patients; run `dvc repro` to remake them."
            )
        outcome = cohort.outcome.set_index("patient_id")
        tables = (measured.features, measured.shuffled, measured.noise, measured.perturbed)
        present = crops.images.any(axis=(2, 3, 4))
        seen = (crops.images, crops.masks, present, crops.modalities)
        return cls(outcome, cohort.covariates, *tables, *seen, cohort.dictionary, cohort.name)

    def take(self, ids) -> Patients:
        """The patients named, in that order; a KeyError for one who is not here."""
        at = [self.outcome.index.get_loc(one) for one in ids]
        tables = {
            name: getattr(self, name).iloc[at] for name in ("outcome", "clinical", "biomarkers", "shuffled", "noise")
        }
        perturbed = self.perturbed[self.perturbed.index.get_level_values("patient_id").isin(ids)]
        seen = {name: getattr(self, name)[at] for name in ("images", "masks", "present")}
        return replace(self, **tables, perturbed=perturbed, **seen)

    @property
    def target(self) -> np.ndarray:
        """scikit-survival's structured array of event and time."""
        from sksurv.util import Surv

        return Surv.from_arrays(self.outcome["event"].astype(bool), self.outcome["time_days"])

    @property
    def lesion(self) -> pd.DataFrame:
        return self.biomarkers[[name for name in self.biomarkers if not name.startswith(RADIOMIC)]]
