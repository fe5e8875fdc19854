"""What every phantom does alike: smooth noise, scanner noise, follow-up, and patients written one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from joblib import delayed
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from survpack.errors import BadInput
from survpack.processes import workers


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


@dataclass(frozen=True)
class Hazard:
    """A proportional hazard over a Weibull baseline, the sum of `coefficients` times the columns of the same name.

    Attributes
    ----------
    survival : Weibull
    follow_up : FollowUp
    coefficients : dict of str to float
        Log hazard ratios.
    parts : dict of str to list of str
        Part of the hazard to the coefficients that belong to it.
    """

    survival: Weibull
    follow_up: FollowUp
    coefficients: dict[str, float]
    parts: dict[str, list[str]]

    def facts(self, survival_noise: float, strength: dict[str, float], site_hazard: float | None) -> dict:
        """The hazard as used, for truth.json: `coefficients`, `weibull_shape`, `weibull_scale_days`, `follow_up`.

        Log survival time is its expectation plus noise, and `survival_noise` scales the noise alone: shape and
        coefficients are divided by it, and the scale moves so that the expectation stays (Euler's gamma is minus the
        mean of a log exponential). `site_hazard` is None where there is one site.
        """
        factor = {name: strength[part] / survival_noise for part, names in self.parts.items() for name in names}
        used = {name: value * factor[name] for name, value in self.coefficients.items()}
        shape, scale = self.survival.shape, self.survival.scale_days
        return {
            "coefficients": used | ({} if site_hazard is None else {"site": site_hazard}),
            "weibull_shape": shape / survival_noise,
            "weibull_scale_days": float(scale * np.exp(-np.euler_gamma * (1 - survival_noise) / shape)),
            "follow_up": vars(self.follow_up),
        }

    def truth(self, terms: pd.DataFrame, facts: dict) -> pd.DataFrame:
        """What is true of each patient.

        Parameters
        ----------
        terms : DataFrame
            A column a coefficient, centred and scaled.
        facts : dict
            As `facts` gives it.

        Returns
        -------
        DataFrame
            `term_<name>` for each coefficient; the parts, and `site`; their sum `linear_predictor`; `weibull_shape`,
            `weibull_scale_days`, `true_median_days`.
        """
        used = pd.Series(facts["coefficients"])
        each = terms[list(used.index)] * used
        parts = pd.DataFrame({
            part: each.reindex(columns=names, fill_value=0.0).sum(axis=1)
            for part, names in {**self.parts, "site": ["site"]}.items()
        })  # fmt: skip
        total = parts.sum(axis=1)
        survival = Weibull(facts["weibull_shape"], facts["weibull_scale_days"])
        return terms[list(used.index)].add_prefix("term_").join(parts).assign(
            linear_predictor=total,
            weibull_shape=survival.shape,
            weibull_scale_days=survival.scale_days,
            true_median_days=survival.median_days(total),
        )  # fmt: skip


def require_possible(name: str, choices: dict, parts: Iterable[str], spacing_mm: tuple[float, float]) -> None:
    """Raise BadInput, naming the choice and its range, for one of which no phantom can be made."""
    parts = list(parts)
    given = {key: value for key, value in choices.items() if key != "strength"}
    given |= {
        f"strength.{part}": choices["strength"].get(part) for part in dict.fromkeys([*parts, *choices["strength"]])
    }
    ranges = {
        "patients": (1, 100_000), "sites": (1, choices["patients"]), "spacing_mm": spacing_mm, "seed": (0, 2**63),
        "survival_noise": (0.1, 10), "site_hazard": (-5, 5), **{f"strength.{part}": (0, 5) for part in parts},
    }  # fmt: skip
    for key, value in given.items():
        where = f"params.yaml: cohort.{name}.{key} is {value!r}"
        if key not in ranges:
            raise BadInput(f"{where}, but strength has only {', '.join(parts)}; take it out.")
        low, high = ranges[key]
        kind = int if key in ("patients", "sites", "seed") else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            what = "a whole number" if kind is int else "a number"
            raise BadInput(f"{where}, expected {what} from {low} to {high}; correct it there.")


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
        Processes; -1 is one a core, or what `SURVPACK_JOBS` says.
    """
    rows = workers(n_jobs, return_as="generator", pre_dispatch="2*n_jobs")(delayed(make)(*t) for t in tasks)
    return pd.DataFrame(list(tqdm(rows, total=total, desc=what, mininterval=2, disable=total < 20)))
