"""Which sets of patients are scored at all: those with as many patients and events as `scores.small_cell` asks for.

One rule for the development and the test set, each fold, site, landmark and part of a cohort: a smaller set is counted,
and its scores are not made, since a few events decide them. Predictions of others are scored, as their maker asked, with
a word of warning.
"""

from __future__ import annotations

import numpy as np


def enough(event, least) -> bool:
    """Whether patients are scored.

    Parameters
    ----------
    event : array of bool, shape (patients,)
    least : params.SmallCell
        `patients`, `events`.
    """
    return len(event) >= least.patients and int(np.sum(event)) >= least.events


def not_scored(patients: int, events: int, least) -> str:
    """In place of scores: `not scored: 10 patients, 3 events; at least 10 patients and 5 events are needed`."""
    found, needed = (
        [_count(size, what) for size, what in zip(sizes, ("patient", "event"), strict=True)]
        for sizes in ((patients, events), (least.patients, least.events))
    )
    return f"not scored: {', '.join(found)}; at least {' and '.join(needed)} are needed"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
