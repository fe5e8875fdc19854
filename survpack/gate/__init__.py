"""What is proven of a cohort before anything is fitted to it: no leak of patients, of time or of the outcome.

Whatever sets a predictor beside an outcome looks at development patients only: the test set stays unread.
"""

from __future__ import annotations

import pandas as pd

from survpack.cohort import Cohort, listed
from survpack.errors import BadInput
from survpack.gate import controls, curves, identity, predictors, scans
from survpack.gate.found import FAILED, PASSED, UNTESTED, Found

__all__ = ["FAILED", "PASSED", "UNTESTED", "Found", "as_json", "check", "require_passed", "table"]


def check(
    cohort: Cohort, splits: pd.DataFrame, measured, crops, choice, hashes: pd.DataFrame | None = None, grid=None
) -> list[Found]:
    """Every check, in order; none raises, whatever is wrong.

    Parameters
    ----------
    cohort : Cohort
    splits : DataFrame
        `patient_id`, `split`, `fold`.
    measured : Biomarkers
    crops : CropSet
    choice : params.Gate
    hashes : DataFrame, optional
        `overlap.HASHES` of the whole scans, as stage 01 wrote them.
    grid : callable, optional
        From a cohort to the days of its survival curves: `Study.times_of`.

    Returns
    -------
    list of Found
    """
    ids = splits.loc[splits["split"].eq("dev"), "patient_id"].drop_duplicates()
    known = cohort.participants.drop_duplicates("patient_id").set_index("patient_id")
    ids = [one for one in ids if one in known.index and one in measured.features.index]
    outcome = known.loc[ids, ["time_days", "event"]].astype({"time_days": float, "event": bool})
    return [
        *identity.checks(cohort, splits, measured),
        *scans.identity_checks(crops, splits, hashes),
        *predictors.checks(cohort, measured, crops, outcome),
        scans.outcome_check(crops, outcome),
        curves.own_outcome(cohort, splits, outcome, grid),
        *controls.checks(cohort, splits, measured, outcome, choice),
    ]


def table(findings: list[Found]) -> pd.DataFrame:
    """A row a check: `check`, `verdict`, `found`, `patients`."""
    rows = [(one.check, one.verdict, one.found, listed(one.patients)) for one in findings]
    return pd.DataFrame(rows, columns=["check", "verdict", "found", "patients"])


def as_json(findings: list[Found]) -> dict:
    """`{check: {"verdict", "found", "patients"}}`."""
    return {one.check: {"verdict": one.verdict, "found": one.found, "patients": list(one.patients)} for one in findings}


def require_passed(findings: list[Found]) -> None:
    """Nothing where every check passed.

    Raises
    ------
    BadInput
        Naming the first check that failed, its patients, and how many more failed.
    """
    failed = [one for one in findings if one.verdict == FAILED]
    if not failed:
        return
    first, more = failed[0], [one.check for one in failed[1:]]
    who = f", patient{'s' * (len(first.patients) > 1)} {listed(first.patients)}" if first.patients else ""
    also = f" (also failed: {listed(more)})" if more else ""
    raise BadInput(f"leakage gate, {first.check}{who}: {first.found}, expected {first.expected}; {first.fix}{also}.")
