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
