"""How far off are the days: of the observed deaths as they are, and three ways to let the censored speak.

| score | of the censored it knows |
|---|---|
| `mae_days`, `r2` | nothing: they are left out, and with them the long survivors |
| `mae_hinge` | that they lived at least so long: a prediction before that is wrong by the difference |
| `mae_ipcw`, `r2_ipcw` | how many deaths were hidden: each observed death stands for 1 / G of them |
| `mae_pseudo` | a stand-in for their day: what they add to the mean survival of a cohort |

Qi et al. 2023, An effective meaningful way to evaluate survival models, PMLR 202:28244–28276.
"""

from __future__ import annotations

import numpy as np

from survpack.metrics.censoring import inverse_weights, kaplan_meier, step
from survpack.metrics.outcome import checked, numbers
from survpack.metrics.parts import counts_of, ratio

ANY = -np.inf  # a distance of days needs no baseline


def mae_days(time_days, event, days, *, counts=None):
    """Mean absolute error of the predicted days, over observed deaths only.

    Censored patients have no day to be compared with. They are the long survivors, so this is a score of the
    early deaths: a model that predicts everyone to die early looks better here than it is.
    """
    (time, dead), days = checked(time_days, event, least=ANY), numbers(days, "predicted days")
    return _mean(np.abs(time - days), counts_of(counts, len(time)) * dead)


def mae_hinge(time_days, event, days, *, counts=None):
    """Mean absolute error in which a censored patient errs only by what was predicted too early.

    A prediction past the day of censoring costs nothing, so this is at most the error that would be seen with
    complete follow-up, and a model that predicts too late is not found out by it. Shivaswamy, Chu, Jansche 2007
    (doi:10.1109/ICDM.2007.93).

    Parameters
    ----------
    time_days, event, days : array, shape (n,)
        `days` is predicted.
    counts : array, shape (..., n), optional

    Returns
    -------
    float or ndarray, shape (...,)
        Days; NaN where nobody is in the sample.
    """
    time, dead = checked(time_days, event)
    early = time - numbers(days, "predicted days")
    return _mean(np.where(dead, np.abs(early), np.maximum(early, 0.0)), counts_of(counts, len(time)))


def mae_ipcw(time_days, event, days, train_outcome, *, counts=None):
    """Mean absolute error over observed deaths, each weighted by 1 / G(t−), G the censoring of the training patients.

    A death at a time by which half would be censored stands for two. Deaths later than anyone is followed stay
    unseen: the error is that of deaths within follow-up. Weights are held from `censoring_reach` on, and divided
    by their sum (Hájek), so that equal errors of 100 days are 100 days.

    Parameters
    ----------
    train_outcome : DataFrame
        `time_days`, `event`: who G is estimated on. The others are as in `mae_hinge`.

    Returns
    -------
    float or ndarray, shape (...,)
        Days; NaN without a death.
    """
    (time, dead), days = checked(time_days, event), numbers(days, "predicted days")
    return _mean(np.abs(time - days), _death_weights(time, dead, train_outcome, counts))


def mae_pseudo(time_days, event, days, train_outcome, *, counts=None):
    """Mean absolute error in which a censored patient is compared with his pseudo-observation.

    All days are restricted to the last training day, as their mean is. A censored patient counts by the share of
    training patients that had died by then, 1 − S(c): of one censored early nothing is known. See `surrogate_days`.

    Returns
    -------
    float or ndarray, shape (...,)
        Days; NaN where nobody is in the sample.
    """
    (time, dead), days = checked(time_days, event), numbers(days, "predicted days")
    last = train_outcome["time_days"].max()
    known = dead | (time >= last)
    weights = np.where(known, 1.0, 1 - step(*kaplan_meier(train_outcome), time))
    error = np.abs(surrogate_days(time, dead, train_outcome) - np.minimum(days, last))
    return _mean(error, counts_of(counts, len(time)) * weights)


def surrogate_days(time_days, event, train_outcome):
    """The day of each patient restricted to the last training day; for the censored, their pseudo-observation.

    That is (N + 1) m⁺ − N m: m the restricted mean survival of N training patients, m⁺ with this patient among
    them. Of one censored patient among followed ones it is the mean day of those who outlive him; where many are
    censored it is later, may pass the last day, and is right only on average over everyone's pseudo-observations,
    the dead's too, who here keep their day as in Qi et al. Andersen, Hansen, Klein 2004
    (doi:10.1007/s10985-004-4771-0).

    Returns
    -------
    ndarray, shape (n,), days
    """
    time, dead = checked(time_days, event)
    known, event = checked(train_outcome["time_days"], train_outcome["event"])
    died, lived, size, last = known[event], known[~event], len(known), known.max()
    day, deaths = np.unique(died, return_counts=True)
    at_risk = size - np.searchsorted(np.sort(np.r_[died, lived]), day)
    width = np.diff(np.r_[0.0, day, last])  # of the steps: from 0, from each death
    alone = np.r_[1.0, np.cumprod(1 - deaths / at_risk)]
    joined = np.r_[1.0, np.cumprod(1 - deaths / (at_risk + 1))]  # with one more at risk throughout
    area, area_joined = (np.cumsum(np.r_[0.0, curve * width]) for curve in (alone, joined))
    k = np.searchsorted(day, time, side="right")  # deaths up to his last day had him at risk
    after = np.divide(joined[k], alone[k], out=np.zeros(len(time)), where=alone[k] > 0) * (area[-1] - area[k + 1])
    pseudo = (size + 1) * (area_joined[k + 1] + after) - size * area[-1]
    return np.where(dead | (time >= last), np.minimum(time, last), pseudo)


def r2(time_days, event, days, *, counts=None):
    """Variance of days explained, over observed deaths only; the caution of `mae_days` holds.

    NaN with fewer than two distinct days of death; below 0 where the mean day of death predicts better.
    """
    time, dead = checked(time_days, event, least=ANY)
    return _explained(time, numbers(days, "predicted days"), counts_of(counts, len(time)) * dead)


def r2_ipcw(time_days, event, days, train_outcome, *, counts=None):
    """Variance of days explained, over deaths weighted by 1 / G(t−) as in `mae_ipcw`; 0 is their weighted mean day.

    Returns
    -------
    float or ndarray, shape (...,)
        NaN with fewer than two distinct days of death.
    """
    time, dead = checked(time_days, event)
    return _explained(time, numbers(days, "predicted days"), _death_weights(time, dead, train_outcome, counts))


def _death_weights(time, dead, train_outcome, counts):
    weights = np.where(dead, inverse_weights(train_outcome, time), 0.0)
    return counts_of(counts, len(time)) * weights


def _mean(error, weights):
    return ratio(weights @ error, weights.sum(-1))


def _explained(time, days, weights):
    mean = ratio(weights @ time, weights.sum(-1))
    spread = (weights * (time - mean[..., None]) ** 2).sum(-1)
    # one day only, but for rounding: of a resample of equal days the mean is not exactly that day
    spread = np.where(spread > 1e-9 * (1 + mean**2), spread, 0.0)
    return 1 - ratio(weights @ (time - days) ** 2, spread)
