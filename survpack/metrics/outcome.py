"""The door of every score: what may stand for an outcome, and for a prediction.

An event is True or False, or 1 and 0; nothing else is guessed at, since 2 is a competing event in one table and death
in another, and the text "False" is true to Python. A time is a number of days, 0 or more. A table has one row a
patient. A prediction is a number; a probability lies from 0 to 1. All else is one sentence.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.errors import BadInput

ROUNDING = 1e-6  # what rounding may do to a probability, or to a curve that should fall
BINARY = "True or False, or 1 and 0"


def checked(time_days, event, *, ids=None, where: str = "outcome", least: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Times as numbers and events as booleans, shape (n,) each.

    Parameters
    ----------
    time_days, event : array, shape (n,)
    ids : sequence of str, shape (n,), optional
        To name a patient by; else by the row.
    where : str
        What a sentence begins with.
    least : float
        The lowest time there may be.

    Raises
    ------
    BadInput
        For whatever the module's docstring does not allow.
    """
    if np.shape(time_days) != np.shape(event) or np.ndim(event) != 1:
        raise BadInput(
            f"{where}: times of shape {np.shape(time_days)} and events of shape {np.shape(event)}, expected one of each "
            "a patient; pass both from one table."
        )
    time, event = numbers(time_days, f"{where}: `time_days`", ids), binary(event, f"{where}: `event`", ids)
    _refuse(
        time < least, time, f"{where}: `time_days`", ids, "0 or more days", "count from baseline, or leave them out"
    )
    _refuse(np.isinf(time), time, f"{where}: `time_days`", ids, "a number of days", "correct it")
    return time, event


def table_of(outcome: pd.DataFrame, where: str = "outcome") -> pd.DataFrame:
    """`time_days` (float) and `event` (bool) of a table of outcomes, indexed by `patient_id` (str).

    Parameters
    ----------
    outcome : DataFrame
        `patient_id`, `time_days`, `event`; other columns are left.

    Raises
    ------
    BadInput
        As `checked`; for an absent column, and for a patient that is there twice.
    """
    absent = [f"`{name}`" for name in ("patient_id", "time_days", "event") if name not in outcome]
    if absent:
        raise BadInput(
            f"{where}: no column {', '.join(absent)}, expected `patient_id`, `time_days` and `event`; rename them "
            f"(there are {', '.join(map(str, outcome.columns))[:200] or 'none'})."
        )
    ids = pd.Index(outcome["patient_id"].astype(str), name="patient_id")
    twice = ids[ids.duplicated()]
    if len(twice):
        raise BadInput(
            f"{where}: patient {twice[0]} is there twice ({twice.nunique()} of {ids.nunique()} patients are), expected "
            "one row a patient; keep one."
        )
    time, event = checked(outcome["time_days"], outcome["event"], ids=ids, where=where)
    return pd.DataFrame({"time_days": time, "event": event}, index=ids)


def binary(values, what: str, ids=None) -> np.ndarray:
    """Booleans of True and False or of 1 and 0, shape (n,); `what` names the column in a sentence."""
    given = pd.Series(np.asarray(values))
    if given.dtype == bool:
        return given.to_numpy()
    _refuse(given.isna(), given, what, ids, BINARY, "leave out whose outcome is unknown")
    text = given.map(lambda one: isinstance(one, str))
    _refuse(text, given, what, ids, f"{BINARY}, no text", "convert it by what it says, as with `column == 'dead'`")
    _refuse(~given.isin([0, 1]), given, what, ids, BINARY, _which_code(given))
    return given.astype(bool).to_numpy()


def numbers(values, what: str, ids=None) -> np.ndarray:
    """Floats of numbers, none of them NaN; neither text nor dates or durations, which turn into nanoseconds."""
    given = np.asarray(values)
    if given.dtype.kind not in "biuf":
        flat = pd.Series(given.ravel())
        odd = flat.map(lambda one: not isinstance(one, int | float | np.number) and not pd.isna(one))
        _refuse(odd, flat, what, ids if given.ndim == 1 else None, "numbers", "convert it first")
        given = flat.astype(float).to_numpy(float, na_value=np.nan).reshape(given.shape)
    given = given.astype(float)
    if np.isnan(given).any():
        missing = np.isnan(given).reshape(len(given), -1).any(axis=1)
        _refuse(missing, np.full(len(given), np.nan), what, ids, "a number of every patient", "leave out who has none")
    return given


def probabilities(values, what: str, ids=None) -> np.ndarray:
    """As `numbers`, each from 0 to 1, but for `ROUNDING`."""
    given = numbers(values, what, ids)
    outside = (given < -ROUNDING) | (given > 1 + ROUNDING)
    if outside.any():
        row = outside.reshape(len(given), -1).any(axis=1)
        first = given[outside][:1]
        _refuse(row, np.where(row, first, 0.0), what, ids, "a probability from 0 to 1", "divide per cent by 100")
    return given


def _which_code(given: pd.Series) -> str:
    """What codes that are not 1 and 0 may be."""
    codes = set(given)
    if codes == {1, 2}:
        return "1 and 2 may be censored and dead, as in R: say which code is the event, as with `event == 2`"
    if 2 in codes:
        return "2 looks like a competing event: say which code is the event, as with `event == 1`"
    return "say which code is the event, as with `event == 1`"


def _refuse(wrong, values, what: str, ids, expected: str, remedy: str) -> None:
    """One sentence on the first of those that are wrong."""
    wrong = np.asarray(wrong, bool)
    if not wrong.any():
        return
    first = int(np.flatnonzero(wrong)[0])
    who = f"row {first}" if ids is None else f"patient {ids[first]}"
    value = np.asarray(values, object)[first]
    shown = f"'{value}'" if isinstance(value, str) else "missing" if pd.isna(value) else str(value)
    raise BadInput(f"{what} is {shown} in {who} ({wrong.sum()} of {len(wrong)}), expected {expected}; {remedy}.")
