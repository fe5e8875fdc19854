"""Predictions beside outcomes, and the times at which they can be asked about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.metrics.censoring import censoring_reach
from survpack.prognosis import Prognosis


@dataclass(frozen=True)
class Sample:
    """Predictions beside outcomes, one entry a row of the prognosis.

    Attributes
    ----------
    prognosis : Prognosis
    time_days, event, risk, days : ndarray, shape (rows,)
    groups : ndarray of int, shape (rows,)
        One number a fitted model (seed, repeat, fold): only risks of one model are compared.
    patient : ndarray of int, shape (rows,)
        Position of the row's patient in `patients`.
    patients : ndarray of str, sorted
    """

    prognosis: Prognosis
    time_days: np.ndarray
    event: np.ndarray
    risk: np.ndarray
    days: np.ndarray
    groups: np.ndarray
    patient: np.ndarray
    patients: np.ndarray

    @classmethod
    def of(cls, prognosis: Prognosis, outcome: pd.DataFrame) -> Sample:
        """Look up what happened to each predicted patient.

        Raises
        ------
        BadInput
            For a patient that was predicted and has no outcome.
        """
        table = prognosis.table
        known = outcome.set_index("patient_id")
        lost = table.loc[~table["patient_id"].isin(known.index), "patient_id"]
        if len(lost):
            raise BadInput(
                f"predictions of {prognosis.model}: patient {lost.iloc[0]} is not among the {len(known)} patients "
                "whose outcome is known; score the predictions against the participants they were made for."
            )
        known = known.loc[table["patient_id"]]
        patients, patient = np.unique(table["patient_id"].to_numpy(str), return_inverse=True)
        return cls(
            prognosis,
            known["time_days"].to_numpy(float),
            known["event"].to_numpy(bool),
            table["risk"].to_numpy(float),
            table["days"].to_numpy(float),
            table.groupby(["seed", "repeat", "fold"], sort=False).ngroup().to_numpy(),
            patient,
            patients,
        )

    def frame(self) -> pd.DataFrame:
        """`model`, `patient_id`, `days_predicted`, `time_days`, `event`, one row a prediction."""
        found = self.prognosis.table[["model", "patient_id"]].copy()
        return found.assign(days_predicted=self.days, time_days=self.time_days, event=self.event)


def survival_at(prognosis: Prognosis, times) -> np.ndarray:
    """S(t) of each row, a right-continuous step function with S(0) = 1; shape (rows, len(times))."""
    before = np.column_stack([np.ones(len(prognosis.table)), prognosis.survival])
    return before[:, np.searchsorted(prognosis.times, times, side="right")]


def valid_times(times, time_days, train_outcome) -> np.ndarray:
    """Those of `times` inside the follow-up of the scored patients and the reach of the censoring weights."""
    times, time = np.asarray(times, float), np.asarray(time_days, float)
    first, last = time.min(initial=np.inf), time.max(initial=-np.inf)
    return times[(times >= first) & (times < last) & (times <= censoring_reach(train_outcome))]
