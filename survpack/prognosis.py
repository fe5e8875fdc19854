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
        `days` (predicted survival) and `s_0 … s_k`: the probability of being event-free at each
        of `times`. `split` is "cv" (out of fold) or "test" (held out; its fold is -1). Where `own_days` is there and
        True, `days` are none that `median_days` made.
    times : ndarray of float, shape (k,), days
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


def time_grid(time_days, event, size: int = 40) -> np.ndarray:
    """The common grid of survival curves: quantiles of the event times given.

    Parameters
    ----------
    time_days, event : array, shape (n,)
        Of training patients only.

    Returns
    -------
    ndarray, shape (at most size,), days, increasing
    """
    events = np.asarray(time_days, dtype=float)[np.asarray(event, dtype=bool)]
    return np.unique(np.quantile(events, np.linspace(0, 1, size)))


def median_days(survival, times) -> np.ndarray:
    """Where each curve first falls to one half; the last time where it does not (restricted).

    Parameters
    ----------
    survival : array, shape (n, k)
    times : array, shape (k,), days
    """
    low = np.asarray(survival) <= 0.5
    first = np.where(low.any(axis=1), low.argmax(axis=1), len(times) - 1)
    return np.asarray(times)[first]


def curve_at(survival, times, days) -> np.ndarray:
    """Survival curves on other days: straight between the days of their grid, from 1 on day 0, level beyond its end.

    The one rule by which curves are read: scores, medians, conformal bounds and cards share it.

    Parameters
    ----------
    survival : array, shape (n, k)
    times : array, shape (k,), days, increasing
    days : array, shape (m,)

    Returns
    -------
    ndarray, shape (n, m)
    """
    survival, times, days = np.asarray(survival, float), np.asarray(times, float), np.asarray(days, float)
    if len(times) and times[0] <= 0:  # its own value of day 0
        survival, times = survival[:, times > 0], times[times > 0]
    known = np.concatenate([[0.0], times])
    curve = np.column_stack([np.ones(len(survival)), survival])
    if not len(times):
        return np.ones((len(survival), len(days)))
    after = np.clip(np.searchsorted(known, days, side="left"), 1, len(times))
    share = np.clip((days - known[after - 1]) / (known[after] - known[after - 1]), 0, 1)
    return curve[:, after - 1] * (1 - share) + curve[:, after] * share


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
    times = np.asarray(times, float)
    if not len(times):
        return np.full(len(survival), np.inf)
    known = np.concatenate([[0.0], times])
    curve = np.column_stack([np.ones(len(survival)), np.asarray(survival, float)])
    low = curve <= np.asarray(level, float).reshape(-1, 1)
    row, first = np.arange(len(curve)), np.maximum(low.argmax(axis=1), 1)
    above, below = curve[row, first - 1], curve[row, first]
    fall = np.where(above > below, above - below, 1.0)
    share = np.clip((above - np.broadcast_to(np.asarray(level, float), len(curve))) / fall, 0, 1)
    days = known[first - 1] + share * (known[first] - known[first - 1])
    return np.where(low.any(axis=1), days, np.inf)
