"""`Prognosis`: what any model says of patients, and its file form.

Predictions are the interface of the study: a model's work ends in such a file, and every score,
figure and table is made from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from survpack.errors import BadInput
from survpack.paths import written_whole

KEYS = ["cohort", "model", "seed", "repeat", "fold", "split", "patient_id"]
SPLITS = ("cv", "test")


@dataclass(frozen=True)
class Prognosis:
    """Predictions of one model, long form.

    Attributes
    ----------
    table : DataFrame
        `cohort, model, seed, repeat, fold, split, patient_id`, then `risk` (higher is worse),
        `days` (predicted survival; infinite where a curve does not fall to one half and has no median) and `s_0 … s_k`:
        the probability of being event-free at each of `times`. `split` is "cv" (out of fold) or "test" (held out; its
        fold is -1).
    times : ndarray of float, shape (k,), days
        `time_grid`; `curve_at` and `day_at` read the curves between them.
    """

    table: pd.DataFrame
    times: np.ndarray

    def __post_init__(self):
        absent = [name for name in [*KEYS, "risk", "days", *self.columns] if name not in self.table]
        if absent:
            raise BadInput(f"predictions: no column {', '.join(absent)}; see survpack.prognosis.Prognosis.")
        wrong = self.table[["risk", "days", *self.columns]].isna().any(axis=1)
        if wrong.any():
            patients = ", ".join(self.table.loc[wrong, "patient_id"].head(5))
            raise BadInput(f"predictions of {self.model}: NaN for patient {patients}; every patient needs a value.")

    @property
    def model(self) -> str:
        return str(self.table["model"].iloc[0])

    @property
    def columns(self) -> list[str]:
        return [f"s_{k}" for k in range(len(self.times))]

    @property
    def survival(self) -> np.ndarray:
        """Event-free probability, shape (rows, times)."""
        return self.table[self.columns].to_numpy()

    def of(self, split: str) -> Prognosis:
        """The rows of one split."""
        return Prognosis(self.table[self.table["split"] == split].reset_index(drop=True), self.times)

    def save(self, path: Path) -> None:
        """Write as parquet; `times` goes into the file's metadata."""
        arrow = pa.Table.from_pandas(self.table, preserve_index=False)
        metadata = {**(arrow.schema.metadata or {}), b"times": json.dumps(list(map(float, self.times))).encode()}
        with written_whole(path) as part:
            pq.write_table(arrow.replace_schema_metadata(metadata), part)

    @classmethod
    def load(cls, path: Path) -> Prognosis:
        arrow = pq.read_table(path)
        return cls(arrow.to_pandas(), np.array(json.loads(arrow.schema.metadata[b"times"])))


def time_grid(choice, horizons=()) -> np.ndarray:
    """The days on which survival curves are kept: of params.yaml alone, so that they tell of nobody's outcome.

    Their square roots are evenly spaced, for a curve bends most in its first months. Read by `curve_at`, a Weibull
    curve with a median of 60 days or more is so off by less than 0.002 with the numbers of params.yaml.

    Parameters
    ----------
    choice : params.Curves
        `last_day`, and how many `days`.
    horizons : array, shape (m,), days
        Days that are asked about, which become days of the grid.

    Returns
    -------
    ndarray, shape (at most choice.days + m,), days, increasing
    """
    return np.union1d(choice.last_day * np.linspace(0, 1, choice.days + 1)[1:] ** 2, np.asarray(horizons, float))


def curve_at(survival, times, days) -> np.ndarray:
    """Survival curves on other days: straight between the days of their grid, from 1 on day 0, level beyond its end.

    The one rule by which curves are read: scores, medians, conformal bounds and cards share it.

    Parameters
    ----------
    survival : array, shape (n, k)
    times : array, shape (k,), days, increasing
    days : array, shape (m,), or (n, m) where every curve has days of its own

    Returns
    -------
    ndarray, shape (n, m)
    """
    (known, curve), days = _from_day_0(survival, times), np.asarray(days, float)
    after, row = np.clip(np.searchsorted(known, days), 1, len(known) - 1), np.arange(len(curve))[:, None]
    share = np.clip((days - known[after - 1]) / (known[after] - known[after - 1]), 0, 1)
    return curve[row, after - 1] * (1 - share) + curve[row, after] * share


def day_at(survival, times, level) -> np.ndarray:
    """The day on which each curve, read as by `curve_at`, first falls to a level; infinite where it does not.

    Parameters
    ----------
    survival : array, shape (n, k)
    times : array, shape (k,), days, increasing
    level : float or array, shape (n,)

    Returns
    -------
    ndarray, shape (n,), days
    """
    (known, curve), level = _from_day_0(survival, times), np.broadcast_to(np.asarray(level, float), len(survival))
    low = curve <= level[:, None]
    row, after = np.arange(len(curve)), np.maximum(low.argmax(axis=1), 1)
    above, below = curve[row, after - 1], curve[row, after]
    share = np.clip((above - level) / np.where(above > below, above - below, 1.0), 0, 1)
    return np.where(low.any(axis=1), known[after - 1] + share * (known[after] - known[after - 1]), np.inf)


def _from_day_0(survival, times) -> tuple[np.ndarray, np.ndarray]:
    """Days and curves with day 0 before them and a day more, on which they are where they ended."""
    survival, times = np.asarray(survival, float), np.asarray(times, float)
    known, curve = np.r_[0.0, times[times > 0]], np.column_stack([np.ones(len(survival)), survival[:, times > 0]])
    return np.r_[known, known[-1] + 1], np.column_stack([curve, curve[:, -1]])
