"""Who outlives whom: concordance and time-dependent AUC."""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.metrics.censoring import alive_on, inverse_weights
from survpack.metrics.outcome import checked, numbers
from survpack.metrics.parts import counts_of, deaths_at_risk, ratio
from survpack.metrics.sample import Sample, survival_at, valid_times

FEW_PAIRS = 250_000  # pairs up to which a matrix of them is the faster way; beyond, they are counted by sorting
AT_ONCE = 4_000_000  # counts (patients x resamples) sorted at once: bounds the memory


def concordance(time_days, event, risk, *, case_weights=None, groups=None, counts=None):
    """Share of comparable pairs in which the patient who dies first has the higher risk.

    A pair is comparable if the earlier time is a death. Ties in time: of two deaths on one day neither is first,
    the pair does not count; a death and a censoring on one day count, the censored patient lived longer. A tie in
    risk counts one half. Only pairs within a group count: the risks of two folds come from two models and are not
    on one scale. A matrix of pairs where they are few, n log n where they are many, the same to rounding. Harrell et al. 1996 (doi:10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4).

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
    (time, event), risk = checked(time_days, event), numbers(risk, "risk")
    counts = counts_of(counts, len(time))
    weights = np.ones(len(time)) if case_weights is None else np.asarray(case_weights)
    groups = _numbered(groups, len(time))
    case = np.flatnonzero(event & (weights > 0))
    if len(case) * len(time) > FEW_PAIRS:
        return _in_parts(_share_by_halving, counts, order_of_death(time, event), groups, risk, event * weights)
    later = (time[case, None] < time) | ((time[case, None] == time) & ~event)
    pairs = (later & (groups[case, None] == groups)) * weights[case, None]
    return _share_of_pairs(pairs, _wins(risk[case], risk), counts[..., case], counts)


def cumulative_auc(time_days, event, risk_at, times, train_outcome, *, groups=None, counts=None):
    """Cumulative/dynamic AUC: who died by t against who is alive after t, deaths weighted by 1 / G.

    Who counts as alive is said in `survpack.metrics.censoring`.

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
    (time, event), risk_at = checked(time_days, event), numbers(risk_at, "risk")
    counts, weights = counts_of(counts, len(time)), inverse_weights(train_outcome, time)
    alive, _ = alive_on(time, event, times, train_outcome)
    values = np.empty((*counts.shape[:-1], len(times)))
    for k, t in enumerate(times):
        dead = np.where(event & (time <= t), weights, 0.0)
        values[..., k] = share_won(dead, alive[:, k], risk_at[:, k], groups=groups, counts=counts)
    return values


def deaths_between(time_days, event, times, *, counts=None):
    """How far Kaplan–Meier's curve falls to each of `times` since the one before, or day 0: what an AUC of it counts for.

    The mean so weighted is scikit-survival's, and depends little on which days are asked about. Lambert, Chevret 2016
    (doi:10.1177/0962280213515571).

    Parameters
    ----------
    time_days, event : array, shape (n,)
    times : array, shape (k,), days, increasing
    counts : array, shape (..., n), optional

    Returns
    -------
    ndarray, shape (..., k)
    """
    time, event = checked(time_days, event)
    deaths, at_risk = deaths_at_risk(time, event, counts_of(counts, len(time)))
    died = np.divide(deaths, at_risk, out=np.zeros(deaths.shape), where=at_risk > 0)
    alive = np.concatenate([np.ones((*died.shape[:-1], 1)), np.cumprod(1 - died, axis=-1)], axis=-1)
    place = np.searchsorted(np.unique(time[event]), times, side="right")
    return -np.diff(alive[..., np.r_[0, place]], axis=-1)


def share_won(dead, alive, risk, *, groups=None, counts=None):
    """Share of pairs of one dead and one alive, within groups, in which the dead has the higher risk; ties one half.

    Parameters
    ----------
    dead : array, shape (n,)
        What the pairs of each of the dead weigh; 0 for the others.
    alive : array of bool, shape (n,)
    risk : array, shape (n,)
    groups : array, shape (n,), optional
    counts : array, shape (..., n), optional

    Returns
    -------
    float or ndarray, shape (...,)
        NaN without a pair.
    """
    counts, groups = counts_of(counts, len(risk)), _numbered(groups, len(risk))
    case, control = np.flatnonzero(dead), np.flatnonzero(alive)
    if len(case) * len(control) > FEW_PAIRS:
        rows = np.r_[case, control]
        weights = np.r_[dead[case], np.zeros(len(control))]
        return _in_parts(_share_by_sorting, counts[..., rows], groups[rows], risk[rows], weights)
    pairs = (groups[case, None] == groups[control]) * dead[case, None]
    return _share_of_pairs(pairs, _wins(risk[case], risk[control]), counts[..., case], counts[..., control])


def auc_at(time_days, event, risk_at_horizon, horizon, train_outcome, *, groups=None, counts=None):
    """`cumulative_auc` at one day; `risk_at_horizon` has shape (n,), the result (...,).

    NaN also where the day is past the follow-up of the scored or the reach of the censoring weights.
    """
    if not len(valid_times([horizon], time_days, train_outcome, event)):
        return np.full(counts_of(counts, len(time_days)).shape[:-1], np.nan)[()]
    risk_at = np.asarray(risk_at_horizon, float)[:, None]
    return cumulative_auc(time_days, event, risk_at, [horizon], train_outcome, groups=groups, counts=counts)[..., 0][()]


def auc_over_time(prognosis, outcome, train_outcome) -> pd.DataFrame:
    """`time_days`, `auc` at the valid times of the prognosis; see `cumulative_auc`."""
    sample = Sample.of(prognosis, outcome)
    grid = valid_times(prognosis.times, sample.time_days, train_outcome, sample.event)
    risk_at = 1 - survival_at(prognosis, grid)
    auc = cumulative_auc(sample.time_days, sample.event, risk_at, grid, train_outcome, groups=sample.groups)
    return pd.DataFrame({"time_days": grid, "auc": auc})


def _wins(risk, risk_of_later):
    return (risk[:, None] > risk_of_later) + 0.5 * (risk[:, None] == risk_of_later)


def _share_of_pairs(pairs, wins, case_counts, other_counts):
    """Weighted share of pairs (cases, others) won; a patient drawn twice makes every pair twice."""
    won = ((case_counts @ (pairs * wins)) * other_counts).sum(-1)
    return ratio(won, ((case_counts @ pairs) * other_counts).sum(-1))


def _numbered(groups, size: int):
    return np.zeros(size, int) if groups is None else np.unique(groups, return_inverse=True)[1]


def order_of_death(time, event):
    """Number of each patient such that the higher outlives the lower; deaths of one day share theirs."""
    order = np.lexsort((~event, time))
    changes = (np.diff(time[order]) > 0) | (event[order][1:] != event[order][:-1])
    numbers = np.empty(len(time), int)
    numbers[order] = np.r_[0, np.cumsum(changes)]
    return numbers


def _in_parts(share, counts, *arguments):
    """`share(counts of shape (n, resamples), …)` for counts of any shape (..., n), a part of the resamples at a time."""
    columns = counts.reshape(-1, counts.shape[-1]).T
    width = max(1, AT_ONCE // len(columns))
    parts = [share(columns[:, k : k + width], *arguments) for k in range(0, columns.shape[1], width)]
    return np.concatenate(parts).reshape(counts.shape[:-1])[()]


def _share_by_halving(counts, number, groups, risk, weights):
    """Share of pairs won in n log n, as a merge sort by `number` (who outlives whom) counts them.

    Patients whose numbers agree in all bits above one are a block. Those without the bit die before those with it, so
    that each block, sorted by risk, is a rank sum; over all bits every pair meets once, where its numbers part.
    """
    bits = int(number.max()).bit_length()
    place = groups << bits | number
    order = np.lexsort((risk, groups))
    won = pairs = np.zeros(counts.shape[1])
    for bit in reversed(range(bits)):
        here = place[order]
        later = (here >> bit & 1).astype(bool)
        found = _rank_sum(counts[order], here >> (bit + 1), risk[order], np.where(later, 0, weights[order]), later)
        won, pairs = won + found[0], pairs + found[1]
        order = order[np.argsort(here >> bit, kind="stable")]
    return ratio(won, pairs)


def _share_by_sorting(counts, groups, risk, weights):
    """Share of pairs won of cases (those with a weight) and controls (those without)."""
    order = np.lexsort((risk, groups))
    weights = weights[order]
    return ratio(*_rank_sum(counts[order], groups[order], risk[order], weights, weights == 0))


def _rank_sum(counts, block, risk, weights, later):
    """Pairs won and pairs in all, of `weights` > 0 with `later` in one block; rows sorted by block, then risk."""
    below = np.zeros((len(counts) + 1, counts.shape[1]))
    np.cumsum(counts * later[:, None], axis=0, out=below[1:])
    new_block = np.r_[True, block[1:] != block[:-1]]
    new_risk = new_block | np.r_[True, risk[1:] != risk[:-1]]
    case = np.flatnonzero(weights > 0)
    (first, last), (lowest, highest) = (_bounds(new, case) for new in (new_risk, new_block))
    own, base = counts[case] * weights[case, None], below[lowest]
    won = np.einsum("ij,ij->j", own, (below[first] + below[last]) / 2 - base)
    return won, np.einsum("ij,ij->j", own, below[highest] - base)


def _bounds(starts, rows):
    """Where the run that each of `rows` is in begins, and where the next one does."""
    first, run = np.flatnonzero(starts), np.cumsum(starts)[rows] - 1
    return first[run], np.r_[first[1:], len(starts)][run]
