"""Who outlives whom: concordance and time-dependent AUC."""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.metrics.censoring import inverse_weights
from survpack.metrics.parts import counts_of, ratio
from survpack.metrics.sample import Sample, survival_at, valid_times


def concordance(time_days, event, risk, *, case_weights=None, groups=None, counts=None):
    """Share of comparable pairs in which the patient who dies first has the higher risk.

    A pair is comparable if the earlier time is a death. Ties in time: of two deaths on one day neither is first,
    the pair does not count; a death and a censoring on one day count, the censored patient lived longer. A tie in
    risk counts one half. Only pairs within a group count: the risks of two folds come from two models and are not
    on one scale. Harrell et al. 1996 (doi:10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4).

    Parameters
    ----------
    time_days, event, risk : array, shape (n,)
    case_weights : array, shape (n,), optional
        Weight of the pairs in which the patient is the one who dies: ones (Harrell) or `uno_weights`.
    groups : array, shape (n,), optional
    counts : array, shape (..., n), optional

    Returns
    -------
    float or ndarray, shape (...,)
        NaN without a comparable pair.
    """
    time, event, risk = np.asarray(time_days, float), np.asarray(event, bool), np.asarray(risk, float)
    counts = counts_of(counts, len(time))
    weights = np.ones(len(time)) if case_weights is None else np.asarray(case_weights)
    case = np.flatnonzero(event & (weights > 0))
    later = (time[case, None] < time) | ((time[case, None] == time) & ~event)
    if groups is not None:
        groups = np.asarray(groups)
        later &= groups[case, None] == groups
    pairs = later * weights[case, None]
    return _share_of_pairs(pairs, _wins(risk[case], risk), counts[..., case], counts)


def cumulative_auc(time_days, event, risk_at, times, train_outcome, *, groups=None, counts=None):
    """Cumulative/dynamic AUC: who died by t against who is alive after t, deaths weighted by 1 / G.

    Pairs are formed within groups, as in `concordance`: pooled over folds, the curves of a model that knows
    nothing would rank patients backwards, because a fold with many deaths is predicted from one with few.

    Parameters
    ----------
    time_days, event : array, shape (n,)
    risk_at : array, shape (n, k)
        1 − S(t) at each of `times`.
    times : array, shape (k,), days
        See `valid_times`.
    train_outcome : DataFrame
    groups : array, shape (n,), optional
    counts : array, shape (..., n), optional

    Returns
    -------
    ndarray, shape (..., k)
        NaN where nobody has died yet or nobody is left.
    """
    time, event = np.asarray(time_days, float), np.asarray(event, bool)
    counts, groups = counts_of(counts, len(time)), np.zeros(len(time)) if groups is None else np.asarray(groups)
    weights = inverse_weights(train_outcome, time)
    values = np.empty((*counts.shape[:-1], len(times)))
    for k, t in enumerate(times):
        case, control = np.flatnonzero(event & (time <= t)), np.flatnonzero(time > t)
        pairs = (groups[case, None] == groups[control]) * weights[case, None]
        wins = _wins(risk_at[case, k], risk_at[control, k])
        values[..., k] = _share_of_pairs(pairs, wins, counts[..., case], counts[..., control])
    return values


def auc_over_time(prognosis, outcome, train_outcome) -> pd.DataFrame:
    """`time_days`, `auc` at the valid times of the prognosis; see `cumulative_auc`."""
    sample = Sample.of(prognosis, outcome)
    grid = valid_times(prognosis.times, sample.time_days, train_outcome)
    risk_at = 1 - survival_at(prognosis, grid)
    auc = cumulative_auc(sample.time_days, sample.event, risk_at, grid, train_outcome, groups=sample.groups)
    return pd.DataFrame({"time_days": grid, "auc": auc})


def _wins(risk, risk_of_later):
    return (risk[:, None] > risk_of_later) + 0.5 * (risk[:, None] == risk_of_later)


def _share_of_pairs(pairs, wins, case_counts, other_counts):
    """Weighted share of pairs (cases, others) won; a patient drawn twice makes every pair twice."""
    won = ((case_counts @ (pairs * wins)) * other_counts).sum(-1)
    return ratio(won, ((case_counts @ pairs) * other_counts).sum(-1))
