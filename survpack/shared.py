"""Who is a patient of two cohorts: whoever is learnt from in one must not be predicted in the other.

Known by one scan under two names, by an id that both use, by the same chart with the same outcome. An id that only counts
(`sub-001`, `case_12`) is one patient where one cohort is said to share patients with the other (`Source.overlaps`), or
where the outcome is the same too. Where patients are said to be shared and none is found, nobody can tell who they are.
"""

from __future__ import annotations

import re

import pandas as pd

from survpack import adapters, overlap
from survpack.checks import plain_id
from survpack.study import Study

COUNTED = re.compile(r"(sub|case|patient|pat|p|pt|id|subject)?[-_ ]?\d+", re.IGNORECASE)
PAIRS = ["patient_id", "other_patient_id", "how"]
FEWEST = 2  # chart variables that must agree beside the outcome


def pairs(one: Study, other: Study) -> pd.DataFrame:
    """Patients of `one` who are patients of `other`: `patient_id`, `other_patient_id`, `how`, each pair once.

    Parameters
    ----------
    one, other : Study
        Of which stage 01 has run.
    """
    ways = (
        [_by_scan, _by_id, _by_chart]
        if all((each.paths.cohort / "cohort.json").exists() for each in (one, other))
        else [_by_scan]
    )
    found = pd.concat([way(one, other) for way in ways], ignore_index=True)
    return found.drop_duplicates(PAIRS[:2]).reset_index(drop=True)


def unknown(one: Study, other: Study) -> str:
    """Why it cannot be told who is in both cohorts, as a sentence; "" where it can."""
    if not _declared(one, other) or len(pairs(one, other)):
        return ""
    return (
        f"{one.name} and {other.name} share patients, as their sources say, and neither ids, scans nor charts tell which; "
        "write the ids alike, or leave one of the two out of `cohorts`."
    )


def taken_out(one: Study, others: list[Study]) -> pd.DataFrame:
    """How many patients of each other cohort are in `one` too, and how that is known: a row a cohort and a way."""
    rows = [
        {
            "cohort": other.name,
            "how": how,
            "patients": len(some),
            "in the test set here": int(some["patient_id"].isin(_test(one)).sum()),
        }
        for other in others
        for how, some in pairs(one, other).groupby("how")
    ]
    return pd.DataFrame(rows, columns=["cohort", "how", "patients", "in the test set here"])


def _test(study: Study) -> set:
    return set(study.splits.loc[study.splits["split"] == "test", "patient_id"])


def _declared(one: Study, other: Study) -> bool:
    return other.name in adapters.source(one.name).overlaps or one.name in adapters.source(other.name).overlaps


def _by_id(one: Study, other: Study) -> pd.DataFrame:
    outcomes = [
        study.cohort.outcome.assign(plain=study.cohort.outcome["patient_id"].map(plain_id)) for study in (one, other)
    ]
    both = outcomes[0].merge(outcomes[1], on="plain", suffixes=("", "_other"))
    same = (both["time_days"] == both["time_days_other"]) & (both["event"] == both["event_other"])
    counted = both["patient_id"].map(lambda name: bool(COUNTED.fullmatch(str(name)))).astype(bool)
    kept = both[same | ~counted | _declared(one, other)]
    return _as_pairs(kept["patient_id"], kept["patient_id_other"], "the same id")


def _by_scan(one: Study, other: Study) -> pd.DataFrame:
    files = [study.paths.tables("cohort") / "hashes.csv" for study in (one, other)]
    if not all(file.exists() for file in files):
        return pd.DataFrame(columns=PAIRS)
    same = overlap.shared(*(pd.read_csv(file, dtype=str, keep_default_na=False) for file in files))
    return _as_pairs(same["patient_id"], same["other_patient_id"], "the same scan")


def _by_chart(one: Study, other: Study) -> pd.DataFrame:
    names = [name for name in one.cohort.dictionary if name in other.cohort.dictionary]
    tables = [study.cohort.participants[["patient_id", "time_days", "event", *names]] for study in (one, other)]
    both = tables[0].merge(tables[1], on=["time_days", "event"], suffixes=("", "_other"))
    known = pd.DataFrame({name: both[name].notna() & both[f"{name}_other"].notna() for name in names}, both.index)
    alike = pd.DataFrame(
        {name: both[name].astype(str) == both[f"{name}_other"].astype(str) for name in names}, both.index
    )
    kept = both[(known.sum(axis=1) >= FEWEST) & (alike | ~known).all(axis=1)] if len(both) else both
    return _as_pairs(kept["patient_id"], kept["patient_id_other"], "the same chart and outcome")


def _as_pairs(ours, theirs, how: str) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": list(ours), "other_patient_id": list(theirs), "how": how}, columns=PAIRS)
