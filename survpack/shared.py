"""Who is a patient of two cohorts: whoever is learnt from in one must not be predicted in the other.

Known by one scan under two names, by an id that both use, by the same features, by the same chart with the same outcome.
An id that only counts (`sub-001`, `case_12`) is one patient

- where one cohort is said to share patients with the other (`Source.overlaps`, `overlaps` of a cohort of one's own);
- where scan, features or outcome are the same too, and no chart contradicts;
- where at least `ENOUGH` of the ids that both use, a tenth, and more than chance would give, are proven so: by scan or features,
  by the same outcome, or by a follow-up that is longer in one (censored earlier in the other) with the same chart.

Times are the same within half a day, or within half a unit of the last decimal to which one cohort gives months or years,
which its times show. Where patients are said to be shared and none is found, or most ids of a cohort of one's own are
another's and neither is proven, nobody can tell who they are (`unknown`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binom

from survpack import adapters, overlap
from survpack.checks import plain_id
from survpack.cohort import DAYS, Cohort
from survpack.errors import BadInput
from survpack.study import Study

COUNTED = re.compile(r"(sub|case|patient|pat|pt|id|subject|[a-z])?[-_ ]?\d+(\.0+)?", re.IGNORECASE)
PAIRS = ["patient_id", "other_patient_id", "how"]
FEWEST = 2  # chart variables that must agree beside the outcome
ENOUGH = 3  # ids that must be proven before all are taken for the same
SHARE = 0.1  # of the ids that both cohorts use
CHANCE = 1e-3  # probability of so many by chance
CONTRADICTED = 0.2  # of the ids that both use: then they are numbers of other people
COLUMNS = 5  # measured columns in common that make a row a patient's own
FINE = 3  # of them with values that most patients have for themselves
VALUES = 10  # values without which nothing is said of how times were rounded


def pairs(one: Study, other: Study) -> pd.DataFrame:
    """Patients of `one` who are patients of `other`: `patient_id`, `other_patient_id`, `how`, each pair once.

    Parameters
    ----------
    one, other : Study
        Of which stage 01 has run.
    """
    return _of_studies(one, other).table[PAIRS]


def unknown(one: Study, other: Study) -> str:
    """Why it cannot be told who is in both cohorts, as a sentence; "" where it can."""
    return _of_studies(one, other).unknown


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


@dataclass(frozen=True)
class Shared:
    """Patients of two cohorts: `PAIRS` and `sure`, False where only a telling id says so or it may be chance; `shared.unknown`."""

    table: pd.DataFrame
    unknown: str = ""


def found(
    names: tuple[str, str],
    cohorts: tuple[Cohort, Cohort] | None,
    hashes: tuple[pd.DataFrame, pd.DataFrame] | None,
) -> Shared:
    """Patients of two cohorts, by whatever is at hand.

    Parameters
    ----------
    names : tuple of str
    cohorts : tuple of Cohort, optional
    hashes : tuple of DataFrame, optional
        As `overlap.HASHES`.
    """
    scans = _by_scan(*hashes) if hashes else _as_pairs([], [], "the same scan")
    said = _said(names, cohorts)
    if cohorts is None:
        return Shared(scans, _untold(names) if said and scans.empty else "")
    cohorts = tuple(
        replace(each, participants=each.participants.dropna(subset="patient_id").drop_duplicates("patient_id"))
        for each in cohorts
    )  # `check` looks at cohorts that are not in order
    rows = _by_features(*cohorts)
    charts = _Charts(*cohorts)
    ways, unproven = [scans, rows], ""
    if said is not False:
        ids, unproven = _by_id(names, cohorts, charts, pd.concat([scans, rows]), bool(said))
        ways = [scans, ids, rows, _by_chart(charts)]
    table = pd.concat(ways, ignore_index=True)
    table = table.sort_values("sure", ascending=False, kind="stable").drop_duplicates(PAIRS[:2]).sort_index()
    table = table.reset_index(drop=True)
    return Shared(table, _untold(names) if said and table.empty else unproven)


def _of_studies(one: Study, other: Study) -> Shared:
    both = (one, other)
    read = all((each.paths.cohort / "cohort.json").exists() for each in both)
    files = [each.paths.tables("cohort") / "hashes.csv" for each in both]
    hashes = (
        tuple(pd.read_csv(file, dtype=str, keep_default_na=False) for file in files)
        if all(file.exists() for file in files)
        else None
    )
    return found((one.name, other.name), (one.cohort, other.cohort) if read else None, hashes)


def _untold(names: tuple[str, str]) -> str:
    return (
        f"{names[0]} and {names[1]} share patients, as their sources say, and neither ids, scans nor charts tell which; "
        "write the ids alike, or leave one of the two out of `cohorts`."
    )


def _test(study: Study) -> set:
    return set(study.splits.loc[study.splits["split"] == "test", "patient_id"])


def _said(names, cohorts) -> bool | None:
    """Whether the two are said to share patients, or to share none; None where nothing is said."""
    short = [Path(name).name for name in names]
    own = cohorts or (None, None)
    sides = list(zip(names, own, reversed(short), strict=True))
    yes = any(
        there in {*adapters.source(name).overlaps, *(each.overlaps if each else ())} for name, each, there in sides
    )
    no = any(there in (each.no_overlap if each else ()) for _, each, there in sides)
    if yes and no:
        raise BadInput(
            f"{short[0]} and {short[1]}: one says `overlaps` and the other `no_overlap`, expected one of them; correct it in "
            "cohort.yaml (of a BIDS folder, dataset_description.json)."
        )
    return yes or (False if no else None)


def _by_scan(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    same = overlap.shared(one, other)
    return _as_pairs(same["patient_id"], same["other_patient_id"], "the same scan")


def _by_id(names, cohorts, charts: _Charts, proven: pd.DataFrame, said: bool) -> tuple[pd.DataFrame, str]:
    """Pairs with one id, and why it cannot be told whether they are one patient ("" where it can)."""
    ids = [each.outcome["patient_id"].astype(str) for each in cohorts]
    plain = [each.map(plain_id).to_numpy(dtype=str) for each in ids]
    equal = plain[0][:, None] == plain[1][None, :]
    if not equal.any():
        return _as_pairs([], [], "the same id"), ""
    counted = ids[0].map(lambda name: bool(COUNTED.fullmatch(name.removeprefix("sub-")))).to_numpy(dtype=bool)[:, None]
    known = np.zeros_like(equal)
    at = [pd.Index(each).get_indexer(proven[column].astype(str)) for each, column in zip(ids, PAIRS[:2], strict=True)]
    there = (at[0] >= 0) & (at[1] >= 0)
    known[at[0][there], at[1][there]] = True
    outcome = charts.same & ~charts.contradict
    evidence = known | outcome | (charts.longer & ~charts.contradict & (charts.agree >= FEWEST))
    many, hits = int(equal.sum()), int((evidence & equal).sum())
    all_same = said or (hits >= max(ENOUGH, SHARE * many) and _beyond_chance(evidence, equal))
    sure = known | (outcome & (charts.exact | (charts.agree > 0))) | all_same
    left, right = np.nonzero(equal & (sure | ~counted))
    table = _as_pairs(
        ids[0].to_numpy()[left], ids[1].to_numpy()[right], "the same id", sure=(sure & equal)[left, right]
    )
    numbers = equal & counted
    most = numbers.sum() >= max(ENOUGH, min(equal.shape) / 2)
    own = any(name not in adapters.names() for name in names)
    if all_same or not most or not own:
        return table, ""
    other_people = (charts.contradict | ~(charts.same | charts.longer))[numbers].mean() >= CONTRADICTED
    if other_people and not charts.beyond_chance(numbers):
        return table, ""
    return table, (
        f"{names[0]} and {names[1]}: {int(numbers.sum())} ids are the same numbers, and neither scans, features, charts nor "
        f"outcomes tell whether they are the same patients; write `overlaps: [{Path(names[1]).name}]` in the cohort.yaml of "
        f"{Path(names[0]).name} (`no_overlap: [{Path(names[1]).name}]` if they are other people), or the other way round; of a "
        "BIDS folder, `Overlaps` or `NoOverlap` in dataset_description.json."
    )


def _by_features(one: Cohort, other: Cohort) -> pd.DataFrame:
    """Rows of measured numbers that agree in every column as float32: features alone, or with the chart's numbers."""
    numbers = [
        name for name in one.dictionary if name in other.dictionary
        if _meaning(one.dictionary[name]) == _meaning(other.dictionary[name]) and one.dictionary[name]["kind"] == "numeric"
    ]  # fmt: skip
    charts, features = [], []
    for each in (one, other):
        chart = each.participants.drop_duplicates("patient_id").set_index("patient_id")[numbers]
        charts.append(chart.apply(pd.to_numeric, errors="coerce"))
        features.append(each.features.set_index("patient_id"))
    with_charts = [
        row.join(chart.add_prefix("chart "), how="outer") for row, chart in zip(features, charts, strict=True)
    ]
    same = _same_rows(*features) | _same_rows(*with_charts)
    return _as_pairs([pair[0] for pair in sorted(same)], [pair[1] for pair in sorted(same)], "the same features")


def _same_rows(one: pd.DataFrame, other: pd.DataFrame) -> set[tuple[str, str]]:
    names = [name for name in one if name in set(other)]
    if len(names) < COLUMNS or one.empty or other.empty:
        return set()
    values = [table[names].to_numpy(dtype=np.float32) for table in (one, other)]
    told = [~np.isnan(each) & (each != 0) for each in values]  # an empty mask gives a row of zeros to anybody
    fine = np.ones(len(names), dtype=bool)
    for each, known in zip(values, told, strict=True):
        fine &= [2 * len(np.unique(each[known[:, k], k])) > known[:, k].sum() for k in range(len(names))]
    if fine.sum() < FINE:
        return set()
    pairs = set()
    for k in np.flatnonzero(fine)[: 4 * FINE]:  # one of so many is told of every row
        places = [
            pd.DataFrame({"value": each[known[:, k], k], "row": np.flatnonzero(known[:, k])})
            for each, known in zip(values, told, strict=True)
        ]
        both = places[0].merge(places[1], on="value")
        pairs |= set(zip(both["row_x"], both["row_y"], strict=True))
    same = []
    for left, right in pairs:
        known = ~np.isnan(values[0][left]) & ~np.isnan(values[1][right])
        alike = values[0][left] == values[1][right]
        own = told[0][left] & known & fine
        distinct = len(set(values[0][left][own].tolist()))
        if known.sum() >= COLUMNS and alike[known].all() and distinct >= FINE:
            same.append((str(one.index[left]), str(other.index[right])))
    table = pd.DataFrame(same, columns=PAIRS[:2])
    alone = ~(table.duplicated(PAIRS[0], keep=False) | table.duplicated(PAIRS[1], keep=False))  # else it is a filler
    return set(table[alone].itertuples(index=False, name=None))


class _Charts:
    """Each patient of one cohort against each of the other: matrices of shape (one, other).

    The same `event`, the `same` outcome within rounding or `exact`, a `longer` follow-up of one in the other; how many chart
    variables `agree`, and whether any of them does `contradict`.
    """

    def __init__(self, one: Cohort, other: Cohort):
        self.one, self.other = one, other
        times = [pd.to_numeric(each.outcome["time_days"], errors="coerce").to_numpy(float) for each in (one, other)]
        events = [each.outcome["event"].to_numpy() == 1 for each in (one, other)]
        apart = np.abs(times[0][:, None] - times[1][None, :])
        self.within = _tolerance(*times)
        self.event = events[0][:, None] == events[1][None, :]
        self.exact = (apart == 0) & self.event
        self.same = (apart <= self.within) & self.event
        later = times[1][None, :] - times[0][:, None]
        self.longer = (~events[0][:, None] & (later >= -self.within)) | (~events[1][None, :] & (later <= self.within))
        self.agree = np.zeros(apart.shape, dtype=np.int16)
        self.contradict = np.zeros(apart.shape, dtype=bool)
        for known, alike in self._variables():
            self.agree += known & alike
            self.contradict |= known & ~alike

    def beyond_chance(self, equal: np.ndarray) -> bool:
        """Whether the event or a chart variable agrees in most `equal` pairs, and more often than in others by chance."""
        every = [(np.ones_like(self.event), self.event), *self._variables()]
        return any(
            2 * (alike & known & equal).sum() > (known & equal).sum() and _beyond_chance(alike, equal, known)
            for known, alike in every
        )

    def _variables(self):
        for name, entry in self.one.dictionary.items():
            theirs = self.other.dictionary.get(name)
            if theirs is None or _meaning(entry) != _meaning(theirs):
                continue
            columns = [each.participants[name] for each in (self.one, self.other)]
            if entry["kind"] == "numeric":
                values = [pd.to_numeric(column, errors="coerce").to_numpy(float) for column in columns]
                step = max(*map(_step, values), 1e-6)
                alike = np.abs(values[0][:, None] - values[1][None, :]) < step * 0.99  # rounded or cut
                missing = [np.isnan(each) for each in values]
            else:
                missing = [column.isna().to_numpy() for column in columns]
                words = [column.astype(str).str.casefold().str.strip() for column in columns]
                if not set(words[0][~missing[0]]) & set(words[1][~missing[1]]):
                    continue  # other words for the levels
                codes = pd.factorize(pd.concat(words))[0]
                alike = codes[: len(words[0]), None] == codes[None, len(words[0]) :]
            yield ~missing[0][:, None] & ~missing[1][None, :], alike


def _meaning(entry: dict) -> tuple:
    """What two variables of one name must have in common to be compared."""
    return entry.get("kind") == "numeric", entry.get("unit")


def _by_chart(charts: _Charts) -> pd.DataFrame:
    """The same chart with the same outcome; of times that agree only within rounding, where that is no chance."""
    fits = ~charts.contradict & (charts.agree >= FEWEST)
    outcome = charts.same if _more(charts.same, fits) else charts.exact
    left, right = np.nonzero(outcome & fits)
    ids = [each.outcome["patient_id"].to_numpy() for each in (charts.one, charts.other)]
    return _as_pairs(ids[0][left], ids[1][right], "the same chart and outcome", sure=_more(outcome, fits))


def _more(outcome: np.ndarray, fits: np.ndarray) -> bool:
    """Whether outcome and chart are the same in over three times as many pairs as if one did not tell of the other."""
    return bool((outcome & fits).sum() > 3 * outcome.sum() * fits.sum() / max(fits.size, 1))


def _beyond_chance(hits: np.ndarray, equal: np.ndarray, known: np.ndarray | bool = True) -> bool:
    """Whether hits are more frequent among the equal than among the others, by more than chance."""
    here, elsewhere = equal & known, ~equal & known
    rate = (hits & elsewhere).sum() / max(elsewhere.sum(), 1)
    return bool(binom.sf((hits & here).sum() - 1, here.sum(), rate) < CHANCE)


def _tolerance(one: np.ndarray, other: np.ndarray) -> float:
    """By how many days two times of one patient may differ: half a day, or half of what each was rounded to."""
    steps = [_step(times, tuple(DAYS.values())) for times in (one, other)]
    rounded = 0.0 if steps[0] == steps[1] else sum(step / 2 for step in steps if step not in (0.0, 1.0))
    return max(0.5, rounded) + 1e-6


def _step(values: np.ndarray, units: tuple[float, ...] = (1.0,)) -> float:
    """The largest unit, or decimal of one, of which all values are multiples; 0 where it is none or cannot be told."""
    values = np.unique(values[np.isfinite(values)])
    if len(values) < (VALUES if len(units) > 1 else 1):
        return 0.0
    steps = sorted((unit / 10**decimals for unit in units for decimals in range(4)), reverse=True)
    return next((step for step in steps if np.all(np.abs(values / step - np.round(values / step)) < 0.02)), 0.0)


def _as_pairs(ours, theirs, how: str, sure=True) -> pd.DataFrame:
    return pd.DataFrame({
        "patient_id": list(ours), "other_patient_id": list(theirs), "how": how,
        "sure": np.asarray(sure) if np.ndim(sure) else np.full(len(ours), sure, dtype=bool),
    })  # fmt: skip
