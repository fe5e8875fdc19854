"""What papers tell of one day: who had died by then, and was it foreseen?

A figure that was published is mostly one of these, where every patient is dead or alive by a day, say at two years:

| score | of whom |
|---|---|
| `auc` | all; deaths weigh 1 / G for those hidden by censoring (`ranking.auc_at`) |
| `auc_known` | those whose fate is known on the day; the others are left out, as most papers do, which favours nobody only if they left early by chance |
| `accuracy`, `sensitivity`, `specificity` | the same, of a yes or no: the risk reaches a threshold |

Known is who died by the day, or was seen on it or later; a patient last seen on the very day was alive on it. Where
nobody left before the day, that is everybody, and both AUCs are those of a binary outcome. Past the last day of
follow-up only the dead are known, and nothing is told.
"""

from __future__ import annotations

import numpy as np

from survpack.metrics.parts import counts_of, ratio
from survpack.metrics.ranking import auc_at, share_won
from survpack.metrics.sample import Sample

RANKED = ("auc", "auc_known")
CALLED = ("accuracy", "sensitivity", "specificity")


def day_scores(sample: Sample, day: float, train_outcome, *, risk, called=None, counts=None) -> dict:
    """`RANKED`, and `CALLED` where somebody is called; NaN where not defined.

    Parameters
    ----------
    sample : Sample
        Its groups part the pairs.
    day : float
    train_outcome : DataFrame
    risk : array, shape (rows,)
        Higher is worse.
    called : array of bool, shape (rows,), optional
        Who is predicted to be dead by the day.
    counts : array, shape (..., patients), optional

    Returns
    -------
    dict
        Score to float, or to an array of shape (...,).
    """
    rows = counts_of(None if counts is None else np.asarray(counts)[..., sample.patient], len(sample.patient))
    dead, alive = fates(sample, day)
    asked = {"groups": sample.groups, "counts": rows}
    found = {
        "auc": auc_at(sample.time_days, sample.event, risk, day, train_outcome, **asked),
        "auc_known": share_won(dead.astype(float), alive, risk, **asked),
    }
    if called is not None:
        followed = (rows @ alive > 0) | (rows @ (~dead & ~alive) == 0)  # else only the dead are known
        right = {"accuracy": (np.where(called, dead, alive), dead | alive), "sensitivity": (dead & called, dead),
                 "specificity": (alive & ~called, alive)}  # fmt: skip
        found |= {
            name: np.where(followed, ratio(rows @ hit, rows @ of), np.nan)[()] for name, (hit, of) in right.items()
        }
    return found


def fates(sample: Sample, day: float) -> tuple[np.ndarray, np.ndarray]:
    """Who had died by the day, and who was alive on it; neither where it is not known."""
    dead = sample.event & (sample.time_days <= day)
    return dead, (sample.time_days >= day) & ~dead
