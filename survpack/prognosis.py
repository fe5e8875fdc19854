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
