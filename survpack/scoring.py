"""Scores of someone else's predictions: the same scores as ours, on the same patients, folds and resamples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack import adapters, figures, inference, metrics, paths, readings, tables
from survpack.errors import BadInput
from survpack.models import MODELS
from survpack.prognosis import Prognosis
from survpack.render import by_pandoc
from survpack.study import TEST_FOLD, Study

CURVE = re.compile(r"s_(\d+(?:\.\d+)?)")  # a column of survival curves: S at so many days
BESIDE = ("age", "volume", "clinical-cox")  # of ours, where they were fitted: what any model has to beat
NEAR = 0.9  # a curve speaks of the horizon if it is given there, or not earlier than this share of it
RISING = 1e-6  # what rounding may do to a curve
HEADS = {"cv": "Development patients", "test": "Held-out test set"}


class Outside(NamedTuple):
    """Predictions from a file.

    Attributes
    ----------
    prognosis : Prognosis
        A patient of the test set has `split` "test", another the fold of the study. Without curves in the file, its
        curves only rank; without `days`, its days are NaN-free but mean nothing: `metrics` leaves them out.
    metrics : tuple of str
        Which scores the columns allow.
    notes : list of str
        What was made of the columns, a sentence each.
    """

    prognosis: Prognosis
    metrics: tuple[str, ...]
    notes: list[str]


def read(path: Path, study: Study) -> Outside:
    """Predictions of an outside model, which is called as its file is.

    Parameters
    ----------
    path : Path
        CSV (or parquet, such as the study's own) with a row a patient: `patient_id`, and `risk` (higher is worse) or
        `days` (predicted survival) or columns `s_180`, `s_365`, … (the probability of living beyond so many days),
        or several of these.
    study : Study

    Raises
    ------
    BadInput
        For a file that is not a table, an unknown or repeated patient, a value that is none, or the name of a model
        of the study.
    """
    path = Path(path)
    model = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem)
    if model in MODELS:
        raise BadInput(f"{path}: '{model}' is a model of the study, expected a name of its own; rename the file.")
    table = _table(path)
    table, curves = _checked(path, table, study)
    times = np.array(list(curves.values()))
    survival = table[list(curves)].to_numpy(float)
    folds = study.splits.set_index("patient_id")["fold"].loc[table["patient_id"]].to_numpy()
    if "risk" in table:
        risk, told = table["risk"], "The risk is column `risk`: higher is worse."
    elif "days" in table:
        risk, told = -table["days"], "There is no column `risk`: who has more `days` is at less risk."
    else:
        area = np.column_stack([np.ones(len(table)), survival[:, :-1]]) @ np.diff(times, prepend=0)
        risk, told = -pd.Series(area), f"There is no column `risk`: who has more area under the curve up to {times[-1]:g} days is at less risk."  # fmt: skip
    if not curves:  # they only rank, within a fold since a patient elsewhere changes nothing there
        times = np.asarray(study.times)
        survival = np.repeat(1 - risk.groupby(folds).rank(pct=True).to_numpy()[:, None], len(times), axis=1)
    keys = {"cohort": study.name, "model": model, "seed": 0, "repeat": 0, "fold": folds}
    made = table[["patient_id"]].assign(**keys, split=np.where(folds == TEST_FOLD, "test", "cv"), risk=risk)
    made["days"] = table["days"] if "days" in table else 0.0
    made = pd.concat([made, pd.DataFrame(survival).add_prefix("s_")], axis=1)
    allowed, notes = _allowed(table, curves, study.horizon_days)
    return Outside(Prognosis(made, times), allowed, [told, *notes])


def _table(path: Path) -> pd.DataFrame:
    """Read as text, so that ids keep their zeros and a column named twice is seen."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file, expected a CSV or parquet table of predictions; check its path.")
    try:
        if path.suffix == ".parquet":
            return _parquet(path)
        rows = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:  # what pandas and pyarrow raise for what they cannot read
        why = " ".join(str(error).split())[:120]
        raise BadInput(f"{path}: not readable as a table ({why}); write it as CSV, with commas.") from None
    return rows.iloc[1:].set_axis(rows.iloc[0].fillna("").str.strip(), axis=1).reset_index(drop=True)


def _parquet(path: Path) -> pd.DataFrame:
    """In the study's own files `s_0`, `s_1`, … are numbered, and their days are in the metadata."""
    table = pd.read_parquet(path)
    import pyarrow.parquet as pq

    times = json.loads((pq.read_schema(path).metadata or {}).get(b"times", b"[]"))
    table = table.rename(columns={f"s_{k}": f"s_{days}" for k, days in enumerate(times)})
    return table.reset_index(drop=table.index.name is None)


def _checked(path: Path, table: pd.DataFrame, study: Study) -> tuple[pd.DataFrame, dict[str, float]]:
    """The table with numbers in it, and its curve columns with their days, in order."""
    curves = {name: float(found[1]) for name in table if (found := CURVE.fullmatch(str(name)))}
    curves = dict(sorted(curves.items(), key=lambda one: one[1]))
    names = ", ".join(map(str, table.columns))[:200] or "none"
    twice = [*table.columns[table.columns.duplicated()], *pd.Series(curves)[lambda days: days.duplicated()].index]
    if "patient_id" not in table or not (curves or {"risk", "days"} & set(table)):
        raise BadInput(
            f"{path}: columns {names} found, expected `patient_id` with `risk`, `days` or `s_180` (survival at 180 days), "
            "separated by commas; name them so."
        )
    if twice:
        raise BadInput(f"{path}: column `{twice[0]}` is there twice, expected it once; drop one of the two.")
    table = table.assign(patient_id=table["patient_id"].astype(str).str.strip())
    _check_patients(path, table["patient_id"], study)
    for name in [*({"risk": 0, "days": 0}.keys() & set(table)), *curves]:
        table[name] = _numbers(path, table, name, curves.get(name))
    rises = (np.diff(table[list(curves)].to_numpy(float), axis=1) > RISING).any(axis=1)
    if rises.any():
        raise BadInput(
            f"{path}: the survival curve of patient {table.loc[rises, 'patient_id'].iloc[0]} rises with time, expected it "
            "to fall; check that the columns are S(t), not 1 - S(t), and their days."
        )
    return table, curves


def _check_patients(path: Path, ids: pd.Series, study: Study) -> None:
    known = set(study.splits["patient_id"])
    strange, twice = ids[~ids.isin(known)], ids[ids.duplicated()]
    if len(strange):
        raise BadInput(
            f"{path}: patient '{strange.iloc[0]}' ({len(strange)} of {len(ids)}) is not of cohort {study.name}, expected "
            f"ids such as '{min(known)}'; write them as the cohort does (a spreadsheet drops leading zeros)."
        )
    if len(twice):
        raise BadInput(f"{path}: patient {twice.iloc[0]} has several rows, expected one a patient; keep one.")


def _numbers(path: Path, table: pd.DataFrame, name: str, at: float | None) -> pd.Series:
    """A column as numbers; `at` is the day of a column of curves."""
    numbers = pd.to_numeric(table[name], errors="coerce").astype(float)
    expected, bad = "a finite number", ~np.isfinite(numbers)
    if name == "days":
        expected, bad = "a number of days, 0 or more", bad | (numbers < 0)
    elif at == 0:
        expected, bad = "1, the survival at day 0 (a column is named by its days, as `s_180`)", bad | (numbers != 1)
    elif at is not None:
        expected, bad = "a probability from 0 to 1", bad | ~numbers.between(0, 1)
    if bad.any():
        first = table[bad].iloc[0]
        raise BadInput(
            f"{path}: `{name}` of patient {first['patient_id']} ({bad.sum()} in all) is '{first[name]}', expected "
            f"{expected}; correct it."
        )
    return numbers


def _allowed(table: pd.DataFrame, curves: dict[str, float], horizon: float) -> tuple[tuple[str, ...], list[str]]:
    """The scores that the columns allow, and a sentence on each choice."""
    allowed, notes, days = {*metrics.RANKING}, [], list(curves.values())
    if len(days) > 1:
        allowed |= {"ibs", "ibs_skill"}
        notes.append(
            f"Curves are given at {len(days)} times from {days[0]:g} to {days[-1]:g} days: integrated scores, and the AUC "
            "over time, are means over those of them within follow-up, and compare only with curves given there."
        )
    if any(NEAR * horizon <= day <= horizon for day in days):
        allowed |= {"brier", *metrics.CALIBRATION}
        notes.append(f"Brier score and calibration are of {horizon:g} days.")
    if "days" in table:
        allowed |= {*metrics.DAYS}
    absent = [one for one in metrics.METRICS if one not in allowed and one not in metrics.GROUPS]
    if absent:
        notes.append(
            f"Not scored: {', '.join(tables.HEADINGS[name] for name in absent)}. Errors in days need `days`, integrated "
            f"scores two columns such as `s_180`, Brier score and calibration `s_{horizon:g}` (or one shortly before)."
        )
    unused = [str(name) for name in table if name not in {"patient_id", "risk", "days", *curves}]
    if unused:
        notes.append(f"Columns not used: {', '.join(f'`{name}`' for name in unused)}.")
    return tuple(name for name in metrics.METRICS if name in allowed), notes
