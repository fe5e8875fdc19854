"""Whether one patient is in two places: in the splits, under two spellings of an id, as two rows of the tables."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pandas as pd

from survpack.checks import plain_id
from survpack.gate.found import Found, judged
from survpack.radiomics import RADIOMIC

BY_CHANCE = 1e-3  # pairs expected to agree in chart and outcome by chance, above which agreement says nothing
FEWEST = 3  # lesion biomarkers that must agree to say that two masks are one
ONE_SIDE = "every patient in one place: one fold, or the test set"


def checks(cohort, splits: pd.DataFrame, measured) -> list[Found]:
    return [one_side(cohort.participants, splits), one_spelling(splits), one_row(cohort, measured)]


def sides(splits: pd.DataFrame) -> pd.Series:
    """Where each row of the splits puts its patient: "test", or "fold 0" and so on; indexed by `patient_id`."""
    where = np.where(splits["split"].eq("test"), "test", "fold " + splits["fold"].astype(str))
    return pd.Series(where, index=splits["patient_id"])


def one_side(participants: pd.DataFrame, splits: pd.DataFrame) -> Found:
    """Each patient of the cohort has one row in the splits; test patients have no fold, the others have one."""
    side = sides(splits)
    places = side.groupby(level=0).agg(lambda each: " and ".join(each))
    twice = places[side.groupby(level=0).size() > 1]
    mixed = splits.loc[splits["split"].eq("test") != splits["fold"].eq(-1), "patient_id"]
    known = set(participants["patient_id"])
    lost = [one for one in participants["patient_id"] if one not in places.index]
    strange = [one for one in places.index if one not in known]
    wrong = [f"{patient} is in {where}" for patient, where in twice.items()]
    wrong += [f"{patient} is of the test set and in a fold of the others" for patient in mixed]
    wrong += [f"{patient} is in no split" for patient in lost] + [
        f"{patient} is not in the cohort" for patient in strange
    ]
    return judged(
        "one side a patient",
        wrong,
        [*twice.index, *mixed, *lost, *strange],
        f"{len(places)} patients, each in one place",
        ONE_SIDE,
        "make the splits anew (stage 01)",
    )


def one_spelling(splits: pd.DataFrame) -> Found:
    """No two ids that differ in case, zeros, separators or a last letter lie on different sides."""
    side = sides(splits).groupby(level=0).first()
    plain = pd.Series([re.sub(r"(?<=\d)[a-z]$", "", plain_id(one)) for one in side.index], index=side.index)
    groups = side[plain.duplicated(keep=False)].groupby(plain)
    apart = [group for _, group in groups if group.nunique() > 1]
    wrong = [", ".join(f"{one} is in {where}" for one, where in group.items()) for group in apart]
    return judged("one spelling a patient", wrong, [one for group in apart for one in group.index],
                  "no two ids that may be one patient on two sides", "ids that differ in more than a last letter",
                  "keep one row if they are one patient, rename if they are not")  # fmt: skip


def one_row(cohort, measured) -> Found:
    """No two patients with the same chart and outcome, nor with the same lesion measurements."""
    table = cohort.participants.drop_duplicates("patient_id").set_index("patient_id")
    rows = table[[*cohort.dictionary, "time_days", "event"]]
    lesion = measured.features[[name for name in measured.features if not name.startswith(RADIOMIC)]]
    same = {pair: "chart and outcome" for pair in _same(rows)}
    if lesion.shape[1] >= FEWEST:
        same |= {pair: "lesion measurements" for pair in _same(lesion[lesion.notna().sum(axis=1) >= FEWEST])}
    wrong = [f"{one} and {other} have the same {what}" for (one, other), what in same.items()]
    return judged("one row a patient", wrong, [one for pair in same for one in pair],
                  "no two patients with the same chart and outcome, or the same lesion", "patients of their own each",
                  "find out who it is, and remove the one listed twice")  # fmt: skip


def _same(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs that agree in every column, where so many would not by chance."""
    alike = [group.index for _, group in rows.groupby(list(rows), dropna=False, sort=False) if len(group) > 1]
    pairs = [pair for group in alike for pair in combinations(group, 2)]
    return pairs if pairs and _expected(rows, len(pairs)) < BY_CHANCE else []


def _expected(rows: pd.DataFrame, found: int) -> float:
    """Pairs that would agree in every column if columns were independent; those found are not counted as chance."""
    pairs = len(rows) * (len(rows) - 1) / 2
    counts = [rows[name].value_counts(dropna=False).to_numpy() for name in rows]
    share = [max((count * (count - 1) / 2).sum() - found, 0.5) / pairs for count in counts]
    return pairs * float(np.prod(share))
