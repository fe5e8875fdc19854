"""How good are the probabilities: the Brier score and its null."""

from __future__ import annotations

import numpy as np

from survpack.metrics.censoring import alive_on, inverse_weights, kaplan_meier, step
from survpack.metrics.outcome import checked, probabilities, table_of
from survpack.metrics.parts import counts_of, integral, ratio
from survpack.metrics.sample import Sample, valid_times


def brier(time_days, event, survival, times, train_outcome, *, counts=None):
    """Squared error of S(t), weighted for censoring (Graf et al. 1999); see `survpack.metrics.censoring`.

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
    time, event = checked(time_days, event)
    survival, counts = probabilities(survival, "predicted survival"), counts_of(counts, len(time))
    dead = (event[:, None] & (time[:, None] <= times)) * inverse_weights(train_outcome, time)[:, None]
    alive, weights = alive_on(time, event, times, train_outcome)
    errors = dead * survival**2 + alive * weights * (1 - survival) ** 2
    return ratio(counts @ errors, counts.sum(-1, keepdims=True))


def brier_at(time_days, event, survival_at_horizon, horizon, train_outcome, *, counts=None):
    """`brier` at one day; `survival_at_horizon` has shape (n,), the result (...,).

    NaN where the day is past the follow-up of the scored or the reach of the censoring weights.
    """
    counts = counts_of(counts, len(time_days))
    if not len(valid_times([horizon], time_days, train_outcome, event)):
        return np.full(counts.shape[:-1], np.nan)[()]
    survival = np.asarray(survival_at_horizon, float)[:, None]
    return brier(time_days, event, survival, np.array([horizon], float), train_outcome, counts=counts)[..., 0][()]


def ibs_null(prognosis, outcome, train_outcome) -> float:
    """Integrated Brier score of Kaplan–Meier, on the times at which the prognosis is scored; see `null_survival`."""
    sample = Sample.of(prognosis, outcome)
    grid = valid_times(prognosis.times, sample.time_days, train_outcome, sample.event)
    survival = null_survival(sample, grid, train_outcome)
    return float(integral(brier(sample.time_days, sample.event, survival, grid, train_outcome), grid))


def null_survival(sample: Sample, times, train_outcome) -> np.ndarray:
    """The Kaplan–Meier curve that each patient is given by those outside his group, shape (rows, times).

    In cross-validation each fold is so predicted by the development patients outside it. Where there is nobody
    outside, as where one group is scored by itself, the curve is that of all: a null that has seen them.
    """
    survival, known = np.empty((len(sample.time_days), len(times))), table_of(train_outcome)
    for group in np.unique(sample.groups):
        inside = sample.groups == group
        others = known[~known.index.isin(sample.patients[sample.patient[inside]])]
        survival[inside] = step(*kaplan_meier(others if len(others) else known), times)
    return survival
