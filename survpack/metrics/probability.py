"""How good are the probabilities: the Brier score and its null."""

from __future__ import annotations

import numpy as np

from survpack.metrics.censoring import inverse_weights, kaplan_meier, step
from survpack.metrics.parts import counts_of, integral, ratio
from survpack.metrics.sample import Sample, valid_times


def brier(time_days, event, survival, times, train_outcome, *, counts=None):
    """Squared error of S(t), weighted for censoring (Graf et al. 1999).

    Parameters
    ----------
    time_days, event : array, shape (n,)
    survival : array, shape (n, k)
    times : array, shape (k,), days
        See `valid_times`.
    train_outcome : DataFrame
    counts : array, shape (..., n), optional

    Returns
    -------
    ndarray, shape (..., k)
    """
    time, event = np.asarray(time_days, float)[:, None], np.asarray(event, bool)[:, None]
    counts = counts_of(counts, len(time))
    dead = (event & (time <= times)) * survival**2 * inverse_weights(train_outcome, time)
    alive = (time > times) * (1 - survival) ** 2 * inverse_weights(train_outcome, times)
    return ratio(counts @ (dead + alive), counts.sum(-1, keepdims=True))


def brier_at(time_days, event, survival_at_horizon, horizon, train_outcome, *, counts=None):
    """`brier` at one day; `survival_at_horizon` has shape (n,), the result (...,).

    NaN where the day is past the follow-up of the scored or the reach of the censoring weights.
    """
    counts = counts_of(counts, len(time_days))
    if not len(valid_times([horizon], time_days, train_outcome)):
        return np.full(counts.shape[:-1], np.nan)[()]
    survival = np.asarray(survival_at_horizon, float)[:, None]
    return brier(time_days, event, survival, np.array([horizon], float), train_outcome, counts=counts)[..., 0][()]


def ibs_null(prognosis, outcome, train_outcome) -> float:
    """Integrated Brier score of Kaplan–Meier, on the times at which the prognosis is scored; see `null_survival`."""
    sample = Sample.of(prognosis, outcome)
    grid = valid_times(prognosis.times, sample.time_days, train_outcome)
    survival = null_survival(sample, grid, train_outcome)
    return float(integral(brier(sample.time_days, sample.event, survival, grid, train_outcome), grid))


def null_survival(sample: Sample, times, train_outcome) -> np.ndarray:
    """The Kaplan–Meier curve that each patient is given by those outside his group, shape (rows, times).

    In cross-validation each fold is so predicted by the development patients outside it.
    """
    survival = np.empty((len(sample.time_days), len(times)))
    for group in np.unique(sample.groups):
        inside = sample.groups == group
        others = train_outcome[~train_outcome["patient_id"].isin(sample.patients[sample.patient[inside]])]
        survival[inside] = step(*kaplan_meier(others), times)
    return survival
