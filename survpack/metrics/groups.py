"""Do the patients called high risk fare worse than the others, and by how many days?

All of them as the groups were cut in the training fold (`Prognosis.table["high_risk"]`), never anew on those scored.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from survpack.metrics.outcome import binary, checked, probabilities
from survpack.metrics.parts import counts_of, ratio


def rmst(time_days, event, until, *, counts=None):
    """Restricted mean survival time: the area under the Kaplan–Meier curve up to `until`.

    The days lived, on average, of the first `until`. Royston, Parmar 2013 (doi:10.1186/1471-2288-13-152).

    Parameters
    ----------
    time_days, event : array, shape (n,)
    until : float, days
    counts : array, shape (..., n), optional

    Returns
    -------
    float or ndarray, shape (...,)
        Days; NaN where nobody is followed to `until` and not all have died, for the curve is not known so far.
    """
    days, curve = survival_curve(time_days, event, until, counts=counts)
    return curve @ np.diff(np.r_[days, until])


def survival_curve(time_days, event, until, *, counts=None):
    """Kaplan–Meier curve up to `until`, for each row of counts.

    Returns
    -------
    days : ndarray, shape (k,)
        0 and the days of death before `until`.
    curve : ndarray, shape (..., k)
        Survival from each of them on; NaN where nobody is followed to `until` and not all have died.
    """
    time, event = checked(time_days, event)
    counts = counts_of(counts, len(time))
    days = np.unique(time[event & (time < until)])
    at_risk = counts @ (time[:, None] >= days)
    deaths = counts @ (event[:, None] & (time[:, None] == days))
    left = np.cumprod(1 - np.divide(deaths, at_risk, out=np.zeros(deaths.shape), where=at_risk > 0), axis=-1)
    curve = np.concatenate([np.ones((*counts.shape[:-1], 1)), left], axis=-1)
    followed = (counts @ (time >= until) > 0) | (curve[..., -1] < 1e-12)
    return np.r_[0.0, days], np.where(followed[..., None], curve, np.nan)


def survival_to(time_days, event, horizon, *, counts=None):
    """Kaplan–Meier survival at the horizon, deaths on the day itself among the dead; shape (...,)."""
    after = np.nextafter(horizon, np.inf)
    time, event = checked(time_days, event)
    # who was last seen on the very day was followed to it
    _, curve = survival_curve(np.where((time == horizon) & ~event, after, time), event, after, counts=counts)
    return curve[..., -1][()]


def rmst_difference(time_days, event, high_risk, until, *, counts=None):
    """Days lived by the low risk group less those of the high, of the first `until`; more is better.

    Parameters
    ----------
    high_risk : array of bool, shape (n,)
        The others are as in `rmst`.

    Returns
    -------
    float or ndarray, shape (...,)
    """
    high = binary(high_risk, "high risk")
    counts = counts_of(counts, len(high))
    return rmst(time_days, event, until, counts=counts * ~high) - rmst(time_days, event, until, counts=counts * high)


def logrank_p(time_days, event, high_risk, inflation: float = 1.0) -> float:
    """One-sided p of the log-rank test that those at high risk die sooner (lifelines); NaN where a group is empty.

    One-sided because a group is called high before anybody's outcome is read: groups the wrong way round show nothing.

    Parameters
    ----------
    time_days, event, high_risk : array, shape (n,)
    inflation : float
        Standard errors of the statistic in one of the test, which takes the groups as given: above 1 for groups made by
        models that the same patients taught in turn.
    """
    from lifelines.statistics import logrank_test

    (time, event), high = checked(time_days, event), binary(high_risk, "high risk")
    if high.all() or not high.any() or not event.any():
        return np.nan
    squared = logrank_test(time[high], time[~high], event[high], event[~high]).test_statistic
    sooner = 1 if hazard_ratio(time, event, high) > 1 or not event[~high].any() else -1
    return float(norm.sf(sooner * np.sqrt(squared) / inflation))


def hazard_ratio(time_days, event, high_risk, *, counts=None, steps=50):
    """Cox hazard ratio of high over low risk, ties as Breslow has them.

    So a patient drawn twice is two patients, which with Efron's ties he is not. Own code because no library fits a
    thousand resamples at once.

    Parameters
    ----------
    time_days, event, high_risk : array, shape (n,)
    counts : array, shape (..., n), optional

    Returns
    -------
    float or ndarray, shape (...,)
        NaN where the likelihood has no maximum: a group without a death, or none while both were at risk.
    """
    (time, event), high = checked(time_days, event), binary(high_risk, "high risk")
    counts = counts_of(counts, len(time))
    days = np.unique(time[event])
    at_risk, dies = time[:, None] >= days, event[:, None] & (time[:, None] == days)
    in_high, in_low = (counts * high) @ at_risk, (counts * ~high) @ at_risk
    both = (in_high > 0) & (in_low > 0)  # a death says something while both groups could have had it
    deaths, of_high = (np.where(both, some @ dies, 0.0) for some in (counts, counts * high))
    total, seen = deaths.sum(-1), of_high.sum(-1)
    defined = (seen > 0) & (seen < total)
    log_ratio = np.zeros(defined.shape)
    for _ in range(steps):
        hazard = np.exp(log_ratio)[..., None] * in_high
        share = np.divide(hazard, hazard + in_low, out=np.zeros(hazard.shape), where=both)
        slope, curvature = seen - (deaths * share).sum(-1), (deaths * share * (1 - share)).sum(-1)
        move = np.divide(slope, curvature, out=np.zeros(defined.shape), where=defined & (curvature > 0))
        log_ratio = log_ratio + np.clip(move, -1, 1)  # the likelihood is concave: short steps always arrive
        if np.abs(move).max(initial=0) < 1e-10:
            break
    return np.where(defined, np.exp(log_ratio), np.nan)[()]


def observed_over_expected(time_days, event, predicted, horizon, *, counts=None):
    """Deaths by the horizon (Kaplan–Meier) over those predicted; 1 is calibrated in the large, above 1 is too hopeful.

    Parameters
    ----------
    predicted : array, shape (n,)
        Risk of the event by the horizon.

    Returns
    -------
    float or ndarray, shape (...,)
        NaN without follow-up to the horizon.
    """
    counts, predicted = counts_of(counts, len(predicted)), probabilities(predicted, "predicted risk")
    expected = ratio(counts @ predicted, counts.sum(-1))
    return ratio(1 - survival_to(time_days, event, horizon, counts=counts), expected)
