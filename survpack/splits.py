"""Who is in which fold. One row is one patient, so no patient ever straddles two."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from survpack.errors import BadInput

MOST_BINS = 4


def make_splits(outcome: pd.DataFrame, *, folds: int, test_fraction: float, seed: int) -> pd.DataFrame:
    """A held-out test set, and folds of the rest.

    Stratified by event first, then by time (quantile bins within the event) and site as far as the
    numbers allow. The result does not depend on the order of the rows.

    Parameters
    ----------
    outcome : DataFrame
        `patient_id`, `site`, `time_days`, `event`: `Cohort.outcome`.
    folds : int
    test_fraction : float
    seed : int

    Returns
    -------
    DataFrame
        `patient_id`, `split` ("dev" or "test"), `fold` (0 … folds - 1; -1 in the test set).

    Raises
    ------
    BadInput
        Where there are too few events for one in every fold and one in the test set.
    """
    events = int(outcome["event"].sum())
    if events < folds + 1:
        remedy = (
            f"lower splits.folds in params.yaml to {events - 1} or fewer" if events > 2 else "add patients with events"
        )
        raise BadInput(
            f"{events} events among {len(outcome)} patients are too few for {folds} folds and a test set with at least "
            f"one each; {remedy}."
        )
    table = outcome.sort_values("patient_id", ignore_index=True).assign(event=lambda each: each["event"].astype(bool))
    test = pd.concat(_drawn(group, folds, test_fraction, seed) for _, group in table.groupby("event"))
    fold = _folds(table[~table["patient_id"].isin(test)], folds, seed)
    numbers = outcome["patient_id"].map(fold)
    return pd.DataFrame({
        "patient_id": outcome["patient_id"].to_numpy(),
        "split": np.where(numbers.isna(), "test", "dev"),
        "fold": numbers.fillna(-1).astype(int).to_numpy(),
    })  # fmt: skip


def _drawn(group: pd.DataFrame, folds: int, fraction: float, seed: int) -> pd.Series:
    """Patients of the test set among those with the event, or among those without."""
    size = round(fraction * len(group))
    if group["event"].iloc[0]:
        size = min(max(size, 1), len(group) - folds)
    if size in (0, len(group)):
        return group["patient_id"].head(size)
    for strata in _strata(group, bins=size):
        counts = strata.value_counts()
        if counts.min() >= 2 and len(counts) <= min(size, len(group) - size):
            return train_test_split(group["patient_id"], test_size=size, stratify=strata, random_state=seed)[1]
    return train_test_split(group["patient_id"], test_size=size, random_state=seed)[1]


def _folds(dev: pd.DataFrame, folds: int, seed: int) -> pd.Series:
    """Fold of each patient. Sorted by event first, because StratifiedKFold deals classes in order of
    appearance: events, and whole folds, then differ by one patient at most."""
    by_event = [(_strata(group, bins=len(group) // folds), group) for _, group in dev.groupby("event")]
    for candidates in zip(*([*strata, group["event"].astype(str)] for strata, group in by_event), strict=True):
        strata = pd.concat(candidates).sort_values(kind="stable")
        if strata.value_counts().max() >= folds:
            break
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        dealt = StratifiedKFold(folds, shuffle=True, random_state=seed).split(strata, strata)
        numbers = np.empty(len(strata), dtype=int)
        for number, (_, held_out) in enumerate(dealt):
            numbers[held_out] = number
    return pd.Series(numbers, index=dev.loc[strata.index, "patient_id"])


def _strata(group: pd.DataFrame, bins: int) -> list[pd.Series]:
    """Event with time bin and site, with time bin, with site: the finest first."""
    bins = int(np.clip(bins, 1, MOST_BINS))
    ranks = group["time_days"].rank(method="first")
    event = group["event"].astype(int).astype(str)
    time = event + "|" + pd.qcut(ranks, bins, labels=False).astype(str)
    return [time + "|" + group["site"].astype(str), time, event + "|" + group["site"].astype(str)]
