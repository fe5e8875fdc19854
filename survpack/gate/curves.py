"""Whether the days of survival curves tell of the outcome of those they are predicted for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from survpack.cohort import listed
from survpack.gate.found import Found, judged, untested

LATER = 1.5  # how much longer the exchanged live


def own_outcome(cohort, splits: pd.DataFrame, outcome: pd.DataFrame, grid=None) -> Found:
    """The days of the curves stay as they are when the outcomes of those held out are exchanged for others.

    Made of everybody's events they end at the last one: a curve out of fold that does not halve is then given that day,
    which is the day of death of a patient held out.

    Parameters
    ----------
    cohort : Cohort
    splits : DataFrame
    outcome : DataFrame
        Of development patients, the only ones who are named.
    grid : callable, optional
        From a cohort to the days of its curves.
    """
    name = "no curve by one's own outcome"
    if grid is None:
        return untested(name, "no curves are asked for")
    days, died = np.asarray(grid(cohort), float), outcome.loc[outcome["event"], "time_days"]
    wrong, whose = [], []
    for fold, held in splits.groupby("fold")["patient_id"]:
        after = np.asarray(grid(_exchanged(cohort, held)), float)
        if np.array_equal(days, after):
            continue
        own = died[died.index.isin(held) & died.isin(np.setdiff1d(days, after))].index.tolist()
        told = f", and tell the day of death of {listed(own)}" if own else ""
        wrong.append(f"the days of curves move with the outcomes of fold {fold}, which is held out{told}")
        whose += own
    return judged(name, wrong, whose, "the days of curves are the same, whoever died when", "days that no outcome moves",
                  "take the days of curves from params.yaml (`prognosis.time_grid`), whatever the model")  # fmt: skip


def _exchanged(cohort, held: pd.Series):
    """The cohort with other days and fates of some patients."""
    people = cohort.participants
    some, event = people["patient_id"].isin(held), people["event"].astype(bool)
    later = people["time_days"].where(~some, people["time_days"] * LATER + 1)
    return replace(cohort, participants=people.assign(time_days=later, event=event ^ some))
