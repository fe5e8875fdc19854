"""Who is in which fold. One row is one patient, so no patient ever straddles two."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from survpack.errors import BadInput

MOST_BINS = 4


TEST = ("test", "testing", "held-out", "heldout", "external", "1", "1.0", "true", "yes")
TRAIN = ("train", "training", "dev", "development", "0", "0.0", "false", "no")


def make_splits(
    outcome: pd.DataFrame, *, folds: int, test_fraction: float, seed: int, given: pd.DataFrame | None = None
) -> pd.DataFrame:
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
    given : DataFrame, optional
        `patient_id`, `split` ("dev" or "test") and, if the folds are given too, `fold`: as `read_given` has it. What it says
        is taken; folds that it does not say are dealt.

    Returns
    -------
    DataFrame
        `patient_id`, `split` ("dev" or "test"), `fold` (0 … folds - 1; -1 in the test set).

    Raises
    ------
    BadInput
        Where there are too few events for one in every fold and one in the test set.
    """
    if given is not None and len(given):
        return _as_given(outcome, given, folds, seed)
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


def read_given(named: pd.Series, folds: pd.Series | None, patients: pd.Series, where: str) -> pd.DataFrame:
    """Who is in the test set, in the words of a table, and the folds of the others where they are told.

    Parameters
    ----------
    named, folds : Series
        A value a patient: `TEST` or `TRAIN`, whatever its case; a number of the fold.
    patients : Series of str
    where : str
        Named in the sentence.

    Raises
    ------
    BadInput
        For a patient without a side, another word, or nobody on one of the two sides.
    """
    words = named.astype("string").str.strip().str.casefold()
    side = words.map(dict.fromkeys(TEST, "test") | dict.fromkeys(TRAIN, "dev"))
    bad = side.isna().to_numpy()
    if bad.any():
        found = "nothing" if words[bad].isna().all() else f"'{words[bad].dropna().iloc[0]}'"
        who = f"patient {patients[bad].iloc[0]} ({bad.sum()} such)"
        raise BadInput(f"{where}: {found} for {who}, expected test or train for every patient; correct it there.")
    if side.nunique() < 2:
        raise BadInput(
            f"{where}: everybody is in `{side.iloc[0]}`, expected some patients in the test set; correct it there."
        )
    number = pd.to_numeric(folds, errors="coerce") if folds is not None else pd.Series(np.nan, named.index)
    if folds is not None and number[(side == "dev").to_numpy()].isna().any():
        raise BadInput(
            f"{where}: no `fold` for some who are trained on, expected a number for each of them; correct it there."
        )
    return pd.DataFrame({"patient_id": patients.to_numpy(), "split": side.to_numpy(), "fold": number.to_numpy(float)})


def _as_given(outcome: pd.DataFrame, given: pd.DataFrame, folds: int, seed: int) -> pd.DataFrame:
    found = outcome[["patient_id", "site", "time_days", "event"]].merge(given, on="patient_id", how="left")
    dev = found[found["split"] == "dev"].sort_values("patient_id", ignore_index=True)
    if dev["fold"].notna().all():
        fold = dev.set_index("patient_id")["fold"].rank(method="dense").astype(int) - 1
    else:
        events = int(dev["event"].sum())
        if events < folds:
            raise BadInput(
                f"{events} events among the {len(dev)} patients who are trained on are too few for {folds} folds; lower "
                "splits.folds in params.yaml, or give the folds."
            )
        fold = _folds(dev.assign(event=dev["event"].astype(bool)), folds, seed)
    event = dev.set_index("patient_id")["event"].astype(bool)
    dead = event.groupby(fold).any()
    if fold.nunique() < 2 or not dead.all() or not found.loc[found["split"] == "test", "event"].any():
        raise BadInput(
            "the split that is given: a fold or the test set without an event, or a single fold, expected two folds or more "
            "with an event in each; correct it in the column or file that `splits.given` names."
        )
    numbers = found["patient_id"].map(fold).fillna(-1).astype(int)
    return pd.DataFrame({"patient_id": found["patient_id"], "split": found["split"], "fold": numbers})


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
