"""What every score is made of: counts of patients, and ratios that may be undefined."""

from __future__ import annotations

import numpy as np


def counts_of(counts, size: int) -> np.ndarray:
    return np.ones(size) if counts is None else np.asarray(counts, float)


def ratio(above, below):
    """above / below, NaN where there is nothing below."""
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)[()]


def mean_defined(values, weights):
    """Weighted mean over the last axis of what is defined; NaN where nothing with a weight is."""
    weights = weights * np.isfinite(values)
    return ratio((np.nan_to_num(values) * weights).sum(-1), weights.sum(-1))


def integral(values, times):
    """Trapezoidal mean over the span of `times`; NaN with fewer than two."""
    if len(times) < 2:
        return np.full(values.shape[:-1], np.nan)[()]
    return np.trapezoid(values, times, axis=-1) / (times[-1] - times[0])


def deaths_at_risk(time, event, counts, weights=1.0):
    """Deaths on each day with one, and the weights of those at risk on it; each of shape (..., days)."""
    order = np.argsort(time, kind="stable")
    days = np.unique(time[event])
    first, after = (np.searchsorted(time[order], days, side=side) for side in ("left", "right"))

    def from_day(values):  # of the patient in each place and all after him; 0 after the last
        sums = np.cumsum((counts * values)[..., order][..., ::-1], axis=-1)[..., ::-1]
        return np.concatenate([sums, np.zeros((*sums.shape[:-1], 1))], axis=-1)

    died = from_day(event)
    return died[..., first] - died[..., after], from_day(weights)[..., first]
