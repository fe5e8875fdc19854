"""What every phantom does alike: smooth noise, scanner noise, follow-up, and patients written one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.ndimage import gaussian_filter
from tqdm import tqdm


@dataclass(frozen=True)
class Weibull:
    """S(t) = exp(-(t / scale_days)^shape exp(linear predictor))."""

    shape: float
    scale_days: float

    def median_days(self, linear_predictor) -> np.ndarray:
        return self.scale_days * (np.log(2) / np.exp(linear_predictor)) ** (1 / self.shape)

    def draw_days(self, rng: np.random.Generator, linear_predictor) -> np.ndarray:
        """Days of death by inverting the survival curve (Bender 2005, Stat Med 24:1713)."""
        unit = rng.exponential(size=len(linear_predictor))
        return self.scale_days * (unit / np.exp(linear_predictor)) ** (1 / self.shape)


@dataclass(frozen=True)
class FollowUp:
    """Patients enter over `accrual_days`; the study closes at `study_days`; some are lost before (exponential)."""

    accrual_days: float
    study_days: float
    dropout_days: float

    def draw_days(self, rng: np.random.Generator, patients: int) -> np.ndarray:
        """Day on which each patient was last seen, if alive."""
        closing = self.study_days - rng.uniform(0, self.accrual_days, patients)
        return np.minimum(closing, rng.exponential(self.dropout_days, patients))


def observed(death_days: np.ndarray, last_seen_days: np.ndarray) -> pd.DataFrame:
    """`time_days` (whole days, 1 or more) and `event`, as a registry would have them."""
    time = np.ceil(np.minimum(death_days, last_seen_days)).clip(1)
    return pd.DataFrame({"time_days": time, "event": death_days <= last_seen_days})


def followed(rng: np.random.Generator, linear_predictor: pd.Series, facts: dict) -> pd.DataFrame:
    """`time_days`, `event` drawn from the Weibull hazard and the follow-up that a phantom's truth.json holds."""
    survival = Weibull(facts["weibull_shape"], facts["weibull_scale_days"])
    death = np.asarray(survival.draw_days(rng, linear_predictor))
    return observed(death, FollowUp(**facts["follow_up"]).draw_days(rng, len(death)))


def smooth_noise(rng: np.random.Generator, shape: tuple, sigma_voxels: float) -> np.ndarray:
    """Gaussian noise of mean 0 and standard deviation 1 with that correlation length; float32."""
    field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma_voxels, mode="wrap", truncate=3)
    return (field - field.mean()) / field.std().clip(1e-6)


def rician(rng: np.random.Generator, image: np.ndarray, sigma: float) -> np.ndarray:
    """Magnitude of a complex signal with noise of `sigma` in both channels, as MR images have it; float32."""
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return np.hypot(real, sigma * rng.standard_normal(image.shape, dtype=np.float32))


def write_volume(path: Path, volume: np.ndarray, affine: np.ndarray) -> None:
    """A NIfTI file; the same array gives the same bytes (nibabel puts no date inside)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, affine), path)


def one_by_one(make: Callable, tasks: Iterable[tuple], total: int, what: str, n_jobs: int) -> pd.DataFrame:
    """`make(*task)` for each task on `n_jobs` processes, a row each, in order; memory does not grow with `total`.

    Parameters
    ----------
    make : callable
        Writes one patient's files and returns a dict of what was measured.
    tasks : iterable of tuple
    total : int
    what : str
        Named by the progress bar.
    n_jobs : int
        Processes; -1 is one a core.
    """
    rows = Parallel(n_jobs=n_jobs, return_as="generator", pre_dispatch="2*n_jobs")(delayed(make)(*t) for t in tasks)
    return pd.DataFrame(list(tqdm(rows, total=total, desc=what, mininterval=2, disable=total < 20)))
