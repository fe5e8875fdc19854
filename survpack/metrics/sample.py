"""Predictions beside outcomes, and the times at which they can be asked about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.metrics.censoring import alive_on, censoring_reach, trusted
from survpack.metrics.outcome import ROUNDING, checked, numbers, probabilities, table_of
from survpack.prognosis import Prognosis, curve_at


@dataclass(frozen=True)
class Sample:
    """Predictions beside outcomes, one entry a row of the prognosis.

    Attributes
    ----------
    prognosis : Prognosis
    time_days, event, risk, days : ndarray, shape (rows,)
        `days` is infinite where the model has none for the patient.
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
        """Look up what happened to each predicted patient; outcomes of patients not predicted are left.

        Raises
        ------
        BadInput
            For a patient that was predicted and has no outcome, or twice by one model; as `outcome.table_of`; for
            curves that are none.
        """
        table, known = prognosis.table, table_of(outcome)
        _check(prognosis)
        ids = table["patient_id"].astype(str)
        lost = ids[~ids.isin(known.index)]
        if len(lost):
            raise BadInput(
                f"predictions of {prognosis.model}: patient {lost.iloc[0]} is not among the {len(known)} patients "
                "whose outcome is known; score the predictions against the participants they were made for."
            )
        known = known.loc[ids]
        patients, patient = np.unique(ids.to_numpy(str), return_inverse=True)
        return cls(
            prognosis,
            known["time_days"].to_numpy(),
            known["event"].to_numpy(),
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
    """S(t) of each row, by `curve_at`; shape (rows, len(times))."""
    return curve_at(prognosis.survival, prognosis.times, times)


def valid_times(times, time_days, train_outcome, event=None) -> np.ndarray:
    """Those of `times` inside the follow-up of the scored patients and the reach of the censoring weights.

    Parameters
    ----------
    times : array, shape (k,), days
    time_days : array, shape (n,)
    train_outcome : DataFrame
    event : array, shape (n,), optional
        With it the last day of follow-up is one of them too, if somebody was alive on it, and the reach itself (see
        `survpack.metrics.censoring`). Without it the days are those that scikit-survival takes.
    """
    times, time = np.asarray(times, float), numbers(time_days, "outcome: `time_days`")
    inside = (times >= time.min(initial=np.inf)) & (times <= censoring_reach(train_outcome))
    if event is None:
        return times[inside & (times < time.max(initial=-np.inf)) & trusted(times, train_outcome)]
    alive, _ = alive_on(*checked(time_days, event), times, train_outcome)
    return times[inside & alive.any(axis=0)]


def _check(prognosis: Prognosis) -> None:
    """One row a patient and model; numbers, days that grow, and curves that fall from 1 to 0."""
    table, times = prognosis.table, np.asarray(prognosis.times, float)
    where, ids = f"predictions of {prognosis.model}" if len(table) else "predictions", table["patient_id"].tolist()
    twice = table.duplicated(["seed", "repeat", "fold", "patient_id"])
    if twice.any():
        raise BadInput(
            f"{where}: patient {table.loc[twice, 'patient_id'].iloc[0]} is predicted twice by one model, expected one "
            "row a patient, seed, repeat and fold; keep one."
        )
    if len(times) and not (np.isfinite(times).all() and times[0] >= 0 and (np.diff(times) > 0).all()):
        raise BadInput(
            f"{where}: the days of its curves do not grow from 0 on ({', '.join(f'{day:g}' for day in times[:5])}, …), "
            "expected them in order, each once; sort them with their columns."
        )
    for name in ("risk", "days"):
        numbers(table[name], f"{where}: `{name}`", ids)
    survival = probabilities(prognosis.survival, f"{where}: predicted survival", ids)
    rises = (np.diff(survival, axis=1) > ROUNDING).any(axis=1)
    if rises.any():
        raise BadInput(
            f"{where}: the survival curve of patient {ids[int(rises.argmax())]} rises with time ({rises.sum()} of "
            f"{len(ids)} do), expected it to fall; check that they are S(t), not 1 - S(t), and their days."
        )
