"""How far off are the days."""

from __future__ import annotations

import numpy as np

from survpack.metrics.parts import counts_of, ratio


def mae_days(time_days, event, days, *, counts=None):
    """Mean absolute error of the predicted days, over observed deaths only.

    Censored patients have no day to be compared with. They are the long survivors, so this is a score of the
    early deaths: a model that predicts everyone to die early looks better here than it is.
    """
    time, dead = np.asarray(time_days, float), np.asarray(event, float)
    counts = counts_of(counts, len(time))
    return ratio(counts @ (dead * np.abs(time - days)), counts @ dead)


def r2(time_days, event, days, *, counts=None):
    """Variance of days explained, over observed deaths only; the caution of `mae_days` holds.

    NaN with fewer than two distinct days of death; below 0 where the mean day of death predicts better.
    """
    time, dead = np.asarray(time_days, float), np.asarray(event, float)
    weights = counts_of(counts, len(time)) * dead
    mean = ratio(weights @ time, weights.sum(-1))
    spread = (weights * (time - mean[..., None]) ** 2).sum(-1)
    spread = np.where(spread > 1e-9 * (1 + mean**2), spread, 0.0)  # one day only, but for rounding
    return 1 - ratio(weights @ (time - days) ** 2, spread)
