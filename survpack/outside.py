"""Predictions of someone else, from a file: what its columns say, and which scores they allow.

The risk is column `risk`; without it fewer `days` are more risk; without these it is the mean of 1 − S over the days
that the curve is given at, by trapezoids from 1 on day 0, so that every column counts and a single one says 1 − S.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from survpack import metrics, tables
from survpack.adapters.reading import without_blanks
from survpack.errors import BadInput
from survpack.metrics.outcome import ROUNDING, table_of
from survpack.models import MODELS
from survpack.prognosis import Prognosis
from survpack.study import TEST_FOLD, Study

CURVE = re.compile(r"s_(\d+(?:\.\d+)?)")  # a column of survival curves: S at so many days
NEAR = 0.9  # a curve speaks of the horizon if it is given there, or not earlier than this share of it,
STEPS = 20  # or reaches it in so many columns that it may be read between two of them


EARLY = 0.1  # curves that end before this share of the median follow-up may be named by months


class Outside(NamedTuple):
    """Predictions from a file.

    Attributes
    ----------
    prognosis : Prognosis
        Columns that the file lacks are filled (curves that only rank, 0 days).
    metrics : tuple of str
        Which scores the columns allow.
    notes : list of str
        What was made of the columns, a sentence each.
    given : tuple of float
        Days at which curves are given; none where they were filled.
    horizon : float, days
        The day of Brier score and calibration.
    """

    prognosis: Prognosis
    metrics: tuple[str, ...]
    notes: list[str]
    given: tuple[float, ...]
    horizon: float

    def speaks_of(self, day: float) -> bool:
        """Whether curves tell the probability of living beyond the day."""
        return _speaks_of(self.given, day)


def read(path: Path, study: Study, *, together: bool = False, horizon: float | None = None) -> Outside:
    """Predictions of an outside model, which is called as its file is.

    Parameters
    ----------
    path : Path
        CSV (or parquet, such as the study's own) with a row a patient: `patient_id`, and `risk` (higher is worse) or
        `days` (predicted survival) or columns `s_180`, `s_365`, … (the probability of living beyond so many days),
        or several of these.
    study : Study
    together : bool
        All patients are of one group, split "everyone", or of the groups that a column `fold` names, where the file
        brings one. Else folds and splits are those of the study.
    horizon : float, optional
        That of params.yaml if None; together, and with a single column of a curve, the day of that column.

    Raises
    ------
    BadInput
        For a file that is not a table, an unknown or repeated patient, a value that is none, or the name of a model
        of the study.
    """
    path = Path(path)
    model = _name(path)
    if model in MODELS:
        refuse(path, f"'{model}' is a model of the study", "a name of its own", "rename the file")
    table, curves = _checked(path, _table(path), study)
    curves = curves if any(curves.values()) else {}  # of day 0 alone a curve says nothing
    times, survival = np.array(list(curves.values())), table[list(curves)].to_numpy(float)
    if together and "fold" in table:
        _no_gaps(path, table)
    several = together and "fold" in table and table["fold"].nunique() > 1
    if together:
        folds, split = (pd.factorize(table["fold"].astype(str))[0] if several else 0), "everyone"
    else:
        folds = study.splits.set_index("patient_id")["fold"].loc[table["patient_id"]].to_numpy()
        split = np.where(folds == TEST_FOLD, "test", "cv")
    risk, notes = _risk(table, survival, curves)
    if curves and _flat(risk, survival, np.broadcast_to(folds, len(table))):
        notes.append(
            "All patients of one model have one curve: its AUC is one half, while concordance ranks by the risk."
        )
    if several:
        notes.append(f"Column `fold` names {len(set(folds))} models: only patients of one of them are compared.")
    if not curves:  # ranked within a fold: a patient elsewhere changes nothing there
        times = study.times
        ranks = risk.groupby(pd.Series(folds, risk.index)).rank(pct=True).to_numpy()
        survival = np.repeat(
            (1 - ranks[:, None]) / 2, len(times), axis=1
        )  # at most one half: it says nothing of a median
    keys = {"cohort": study.name, "model": model, "seed": 0, "repeat": 0, "fold": folds}
    made = table[["patient_id"]].assign(**keys, split=split, risk=risk, days=table.get("days", 0.0))
    made = pd.concat([made, pd.DataFrame(survival).add_prefix("s_")], axis=1)
    given = tuple(day for day in curves.values() if day)
    horizon = horizon or (given[0] if together and len(given) == 1 else study.horizon_days)
    allowed, more = _allowed(table, curves, horizon, {"fold"} if several else set())
    hint = _in_months(given, study, table["patient_id"])
    return Outside(Prognosis(made, times), allowed, [*notes, *hint, *more], given, horizon)


def risk_of(survival, times) -> np.ndarray:
    """Mean of 1 − S over `times`, by the trapezoids under a curve from 1 on day 0; of one column 1 − S.

    Parameters
    ----------
    survival : array, shape (n, k)
    times : array, shape (k,), days, increasing, the last above 0

    Returns
    -------
    ndarray, shape (n,)
        Like curves have like risks to the last digit.
    """
    widths = np.diff(times, prepend=0.0)
    weights = widths + np.r_[widths[1:], 0.0]
    return ((1 - np.asarray(survival, float)) * (weights / weights.sum())).sum(axis=1)


def _risk(table: pd.DataFrame, survival: np.ndarray, curves: dict[str, float]) -> tuple[pd.Series, list[str]]:
    """The risk, and a sentence on where it is from; another where it says little."""
    area = risk_of(survival, np.array(list(curves.values()))) if curves else None
    if "risk" in table:
        risk, told = table["risk"], "The risk is column `risk`: higher is worse."
    elif "days" in table:
        risk, told = -table["days"], "There is no column `risk`: more `days` are less risk."
    else:
        how = "1 − `{}`".format(*curves) if len(curves) == 1 else f"the mean of 1 − S over the {len(curves)} days given"
        risk, told = pd.Series(area, table.index), f"There is no column `risk`: it is {how}."
    notes = [told]
    if len(risk) > 1 and risk.nunique() == 1:
        notes.append("All patients have one risk: nothing is ranked.")
    elif area is not None and np.ptp(area) > 0 and risk.corr(pd.Series(area, table.index), method="spearman") < 0:
        notes.append("The risk and the curves rank patients against each other: check that a higher risk is worse.")
    return risk, notes


def _flat(risk: pd.Series, survival: np.ndarray, folds: np.ndarray) -> bool:
    """Whether the curves part nobody whom the risk parts."""
    one = pd.DataFrame(survival).assign(risk=risk).groupby(folds).nunique()
    return bool((one["risk"] > 1).any() and (one.drop(columns="risk") <= 1).all(axis=None))


def _in_months(given: tuple[float, ...], study: Study, ids) -> list[str]:
    """A hint where curves end so early that their columns may be named by months or years."""
    known = study.cohort.outcome
    followed = table_of(known[known["patient_id"].isin(ids)])["time_days"].median()
    if not given or not max(given) < EARLY * followed:
        return []
    return [
        f"The last column of the curve is of day {max(given):g}, and half of the patients were followed for {followed:g} days "
        "or more: check that the columns are named by days, not by months or years."
    ]


def refuse(path: Path, found: str, expected: str, remedy: str) -> NoReturn:
    """Raise BadInput in the one sentence that all of it has."""
    raise BadInput(f"{path}: {found}, expected {expected}; {remedy}.") from None


def _name(path: Path) -> str:
    """What the model is called: its file, with letters, accents and digits of any script; a folder is named so too."""
    stem = unicodedata.normalize("NFC", path.stem)  # some systems write an accent apart from its letter
    if not any(map(str.isalnum, stem)):
        refuse(path, f"the file is called '{stem}'", "a name with a letter or digit", "rename the file")
    kept = (one if one.isalnum() or one in "_.-" or unicodedata.category(one)[0] == "M" else " " for one in stem)
    return re.sub(" +", "-", "".join(kept))


def _days(path: Path, times: bytes) -> list[float]:
    """The days of curves that are numbered, as the study's own file names them in its metadata."""
    try:
        days = json.loads(times)
    except ValueError:
        days = None
    if not (isinstance(days, list) and all(isinstance(day, int | float) and 0 <= day < np.inf for day in days)):
        _damaged(path, f"'{times[:40].decode(errors='replace')}'")
    return days


def _damaged(path: Path, found: str) -> NoReturn:
    expected = "the day of each of the columns `s_0`, `s_1`, …"
    refuse(path, f"`times` in its metadata is {found}", expected, "write it as CSV, with columns such as `s_180`")


def _table(path: Path) -> pd.DataFrame:
    """A CSV is read as text, so that ids keep their zeros and a column named twice is seen."""
    if not path.is_file():
        refuse(path, "no such file", "a CSV or parquet table of predictions", "check its path")
    try:
        if path.suffix == ".parquet":  # in the study's own `s_0`, `s_1`, … are numbered, their days in the metadata
            table, times = pd.read_parquet(path), (pq.read_schema(path).metadata or {}).get(b"times")
            table = table.reset_index(drop=table.index.name is None)
            curves = [name for name in table if CURVE.fullmatch(str(name))]
            if times is None or not curves:
                return table
            own = {f"s_{k}": f"s_{days}" for k, days in enumerate(_days(path, times))}
            if set(own) != set(curves):
                _damaged(path, f"{len(own)} days for {len(curves)} columns")
            return table.rename(columns=own)
        rows = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:  # what pandas and pyarrow raise for what they cannot read
        refuse(path, f"not readable ({' '.join(str(error).split())[:120]})", "a table", "write it as CSV, with commas")
    return rows.iloc[1:].set_axis(rows.iloc[0].fillna("").str.strip(), axis=1).reset_index(drop=True)


def _checked(path: Path, table: pd.DataFrame, study: Study) -> tuple[pd.DataFrame, dict[str, float]]:
    """The table with numbers in it, and its curve columns with their days, in order."""
    table = without_blanks(table)
    curves = {name: float(found[1]) for name in table if (found := CURVE.fullmatch(str(name)))}
    curves = dict(sorted(curves.items(), key=lambda one: one[1]))
    if "patient_id" not in table or not (any(curves.values()) or {"risk", "days"} & set(table)):
        names = ", ".join(map(str, table.columns))[:200] or "none"
        expected = "`patient_id` with `risk`, `days` or `s_180` (survival at 180 days), separated by commas"
        refuse(path, f"columns {names}", expected, "name them so")
    twice = [*table.columns[table.columns.duplicated()], *(pd.Series(curves).loc[lambda days: days.duplicated()].index)]
    if twice:
        refuse(path, f"column `{twice[0]}` is there twice", "it once", "drop one of the two")
    table = table.assign(patient_id=table["patient_id"].astype(str).str.strip())
    ids, known = table["patient_id"], set(study.cohort.outcome["patient_id"])
    strange, repeated = ids[~ids.isin(known)], ids[ids.duplicated()]
    if len(strange):
        found = f"patient '{strange.iloc[0]}' ({len(strange)} of {len(ids)}) is not of cohort {study.name}"
        remedy = "write them as the cohort does (a spreadsheet drops leading zeros)"
        refuse(path, found, f"ids such as '{min(known)}'", remedy)
    if len(repeated):
        refuse(path, f"patient {repeated.iloc[0]} has several rows", "one a patient", "keep one")
    for name in [*(name for name in ("risk", "days") if name in table), *curves]:
        table[name] = _numbers(path, table, name, curves.get(name))
    rises = (np.diff(table[list(curves)].to_numpy(float), axis=1) > ROUNDING).any(axis=1)
    if rises.any():
        found = f"the survival curve of patient {ids[rises].iloc[0]} rises with time"
        refuse(path, found, "it to fall", "check that the columns are S(t), not 1 - S(t), and their days")
    return table, curves


def _numbers(path: Path, table: pd.DataFrame, name: str, at: float | None) -> pd.Series:
    """A column as numbers; `at` is the day of a column of curves."""
    given = table[name]
    if not pd.api.types.is_numeric_dtype(given):
        given = given.astype(str)  # dates and durations, which would turn into nanoseconds, are text that is no number
    numbers = pd.to_numeric(given, errors="coerce").astype(float)
    expected, right = "a finite number", np.isfinite(numbers)
    if name == "days":
        expected, right = "a number of days, 0 or more (`inf`: none)", numbers >= 0
    elif at == 0:
        expected, right = "1, the survival at day 0 (a column is named by its days, as `s_180`)", numbers == 1
    elif at is not None:
        expected, right = "a probability from 0 to 1", numbers.between(0, 1)
    if not right.all():
        first = table[~right].iloc[0]
        found = f"`{name}` of patient {first['patient_id']} ({(~right).sum()} in all) is '{first[name]}'"
        refuse(path, found, expected, "correct it")
    return numbers


def _no_gaps(path: Path, table: pd.DataFrame) -> None:
    """Refuse a column `fold` that is empty for some: they would be the patients of one more model."""
    gaps = table["fold"].isna() | table["fold"].astype(str).str.strip().str.lower().isin(["", "na", "nan", "none"])
    if gaps.any():
        found = f"`fold` of patient {table.loc[gaps, 'patient_id'].iloc[0]} ({gaps.sum()} of {len(gaps)}) is empty"
        refuse(path, found, "the model of every patient", "fill it in, or drop the column to compare all patients")


def _speaks_of(days, horizon: float) -> bool:
    """Whether curves tell S at the horizon: it is given there or shortly before, or the curve is fine."""
    last = max((day for day in days if 0 < day <= horizon), default=0)
    return last >= NEAR * horizon or (last > 0 and len(days) >= STEPS and max(days) >= horizon)


def _read_at(days, horizon: float) -> str:
    """From which columns S at the horizon is: as `prognosis.curve_at` reads curves."""
    last, later = max(day for day in days if day <= horizon), [day for day in days if day > horizon]
    if last == horizon or not later:
        return f"by the column of {last:g} days"
    return f"straight between the columns of {last:g} and {min(later):g} days"


def _allowed(
    table: pd.DataFrame, curves: dict[str, float], horizon: float, used: set[str]
) -> tuple[tuple[str, ...], list[str]]:
    """The scores that the columns allow, and a sentence on each choice."""
    allowed, notes, days = {*metrics.RANKING}, [], list(curves.values())
    if len(days) > 1:
        allowed |= {"ibs", "ibs_skill"}
        notes.append(
            f"Curves are given at {len(days)} times from {days[0]:g} to {days[-1]:g} days: integrated scores, and the AUC "
            "over time, are means over those of them within follow-up (an AUC counts for the deaths since the day before), "
            "and compare only with curves given there."
        )
    if _speaks_of(days, horizon):
        allowed |= {"brier", *metrics.CALIBRATION}
        notes.append(f"Brier score and calibration are of {horizon:g} days, {_read_at(days, horizon)}.")
    if "days" in table:
        allowed |= {*metrics.DAYS}
    absent = [tables.HEADINGS[one] for one in metrics.METRICS if one not in allowed and one not in metrics.GROUPS]
    if absent:
        notes.append(
            f"Not scored: {'; '.join(absent)}. Errors in days need `days`, integrated scores two columns such as `s_180`, "
            f"Brier score and calibration `s_{horizon:g}` (or one shortly before)."
        )
    unused = [f"`{name}`" for name in table if name not in {"patient_id", "risk", "days", *curves, *used}]
    if unused:
        notes.append(f"Columns not used: {', '.join(unused)}.")
    return tuple(name for name in metrics.METRICS if name in allowed), notes
