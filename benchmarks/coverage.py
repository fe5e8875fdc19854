"""How often our intervals hold the truth: cohorts drawn again and again from a population that is known.

`python -m benchmarks.coverage` draws 200 cohorts of 148 patients for each setting, scores one fixed prediction rule as
the study does (`metrics.scores`, `inference.bootstrap`), and writes reports/metrics/coverage.json. The truth is the
rule's score among 200,000 patients: Harrell's C under the same censoring, the others without any, since their weights
are to undo it, over the days each cohort was scored on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest, rankdata
from tqdm import tqdm

from survpack import params, paths
from survpack.inference import bootstrap, folds_of
from survpack.metrics import brier_at, censoring_reach, concordance, scores, survival_at, valid_times
from survpack.phantom.shared import FollowUp, Weibull
from survpack.prognosis import Prognosis, time_grid

POPULATION = 200_000
HORIZON = 365.0
METRICS = ("harrell_c", "uno_c", "auc", "ibs")
SURVIVAL = Weibull(shape=1.2, scale_days=430.0)  # as in the mets phantom
FORESEEN, UNFORESEEN = 0.8, 0.5  # log hazard per standard deviation of what the rule sees, and of what it does not


class Setting(NamedTuple):
    """How patients are followed, and on whom the censoring weights are estimated."""

    follow_up: FollowUp
    cross_validated: bool  # weights from the scored patients, in five folds; else from another cohort, in one


LONG, SHORT = FollowUp(1100, 2200, 8000), FollowUp(1100, 1150, 3000)  # a tenth and a half of the patients censored
SETTINGS = {
    "cross-validated": Setting(LONG, True),
    "held out": Setting(LONG, False),
    "cross-validated, half censored": Setting(SHORT, True),
    "held out, half censored": Setting(SHORT, False),
}


class Drawn(NamedTuple):
    """Patients: what the rule sees, the day of death, and what is known of it. Arrays of shape (n,)."""

    seen: np.ndarray
    death: np.ndarray
    time_days: np.ndarray
    event: np.ndarray

    def outcome(self) -> pd.DataFrame:
        names = [f"{number:06d}" for number in range(len(self.seen))]
        return pd.DataFrame({"patient_id": names, "time_days": self.time_days, "event": self.event})


def drawn(setting: Setting, patients: int, seed) -> Drawn:
    """Patients of a Weibull hazard, in whole days."""
    rng = np.random.default_rng(seed)
    seen, unseen = rng.normal(size=(2, patients))
    death = np.ceil(SURVIVAL.draw_days(rng, FORESEEN * seen + UNFORESEEN * unseen))
    last = np.ceil(setting.follow_up.draw_days(rng, patients))
    return Drawn(seen, death, np.minimum(death, last), death <= last)


def survival(seen, times) -> np.ndarray:
    """The fixed rule: right in its ranks, too sure in its probabilities. Shape (n, k)."""
    return np.exp(-((np.asarray(times, float) / SURVIVAL.scale_days) ** SURVIVAL.shape) * np.exp(seen)[:, None])


def prognosis(cohort: Drawn, times, folds: int) -> Prognosis:
    """What the rule says of a cohort."""
    size = len(cohort.seen)
    split = {"seed": 0, "repeat": 0, "fold": np.arange(size) % folds, "split": "cv"}
    table = pd.DataFrame({"cohort": "drawn", "model": "rule", **split, "patient_id": cohort.outcome()["patient_id"]})
    curves = pd.DataFrame(survival(cohort.seen, times), columns=[f"s_{k}" for k in range(len(times))])
    return Prognosis(pd.concat([table.assign(risk=cohort.seen, days=HORIZON), curves], axis=1), times)


class Truth(NamedTuple):
    """The rule's scores in the population: C under censoring, Uno's C by its last day; the living, AUC and Brier by day."""

    harrell_c: float
    uno_days: np.ndarray
    uno_c: np.ndarray
    times: np.ndarray
    alive: np.ndarray
    auc: np.ndarray
    brier: np.ndarray

    def of(self, grid, last_day: float) -> dict[str, float]:
        """What a cohort estimates that is scored on `grid`, with weights that reach to `last_day`."""
        inside = np.isin(self.times, grid)
        area = np.trapezoid(self.brier[inside], grid) / (grid[-1] - grid[0])
        uno = float(np.interp(last_day, self.uno_days, self.uno_c))
        at_horizon = float(self.brier[self.times == HORIZON][0])
        died = -np.diff(self.alive[inside], prepend=1.0)
        auc = np.average(self.auc[inside][died > 0], weights=died[died > 0])
        return {"harrell_c": self.harrell_c, "uno_c": uno, "auc": auc, "ibs": area, "brier": at_horizon}


def truth(setting: Setting, times, population: int = POPULATION) -> Truth:
    """Scores of the rule by counting deaths, no censoring weights anywhere."""
    people = drawn(setting, population, [1, 0])
    days = np.linspace(0.5, 1.0, 6) * setting.follow_up.study_days
    later = [concordance(people.death, people.death < day, people.seen) for day in days]
    ranks, left, auc, brier = rankdata(people.seen), [], [], []
    for day, alive in zip(times, survival(people.seen, times).T, strict=True):
        dead = people.death <= day
        count = dead.sum()
        left.append(1 - count / population)
        pairs = count * (population - count)
        auc.append((ranks[dead].sum() - count * (count + 1) / 2) / pairs if pairs else np.nan)
        brier.append(np.mean((alive - ~dead) ** 2))
    known = concordance(people.time_days, people.event, people.seen)
    return Truth(known, days, np.array(later), times, *map(np.array, (left, auc, brier)))


def held(setting: Setting, exact: Truth, patients: int, repeats: int, confidence: float, seed) -> dict[str, bool]:
    """Metric to whether the interval of one cohort holds the truth."""
    cohort = drawn(setting, patients, [*seed, 0])
    outcome = cohort.outcome()
    train = outcome if setting.cross_validated else drawn(setting, patients, [*seed, 1]).outcome()
    said = prognosis(cohort, exact.times, 5 if setting.cross_validated else 1)
    score = partial(_scored, said, outcome, train)
    found = bootstrap(score, patients, repeats=repeats, confidence=confidence, seed=seed[-1], strata=folds_of(said))
    grid = valid_times(exact.times, cohort.time_days, train)
    right = exact.of(grid, censoring_reach(train))
    # no interval holds nothing
    return {name: one["low"] is not None and one["low"] <= right[name] <= one["high"] for name, one in found.items()}


def _scored(said: Prognosis, outcome: pd.DataFrame, train: pd.DataFrame, counts) -> dict:
    alive = survival_at(said, [HORIZON])[:, 0]
    time, event = outcome["time_days"].to_numpy(), outcome["event"].to_numpy()
    return scores(said, outcome, train, HORIZON, counts=counts, metrics=METRICS) | {
        "brier": brier_at(time, event, alive, HORIZON, train, counts=counts)
    }


def covered(setting: Setting, *, cohorts=200, patients=148, repeats=1000, confidence=0.95, seed=61,
            population=POPULATION) -> pd.DataFrame:  # fmt: skip
    """One row a cohort, one column a metric: did the interval hold the truth?"""
    times = time_grid(params.load().curves, [HORIZON])
    exact = truth(setting, times[times <= setting.follow_up.study_days], population)
    bar = tqdm(range(cohorts), desc="cohorts", mininterval=5)
    return pd.DataFrame([held(setting, exact, patients, repeats, confidence, [seed, number]) for number in bar])


def shares(rows: pd.DataFrame) -> dict[str, dict]:
    """Metric to the share of cohorts covered, with Wilson's 95 % interval of that share."""
    found = {}
    for name in rows:
        told = binomtest(int(rows[name].sum()), len(rows)).proportion_ci(0.95, method="wilson")
        found[name] = {"estimate": float(rows[name].mean()), "low": float(told.low), "high": float(told.high)}
    return found


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=200)
    parser.add_argument("--patients", type=int, default=148)
    parser.add_argument("--repeats", type=int, default=1000, help="resamples of a cohort")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--out", type=Path, default=paths.METRICS / "coverage.json")
    chosen = parser.parse_args(arguments)
    each = {}
    for name in chosen.settings:
        drawn_as = {"cohorts": chosen.cohorts, "patients": chosen.patients, "repeats": chosen.repeats}
        each[name] = shares(covered(SETTINGS[name], **drawn_as))
        print(pd.DataFrame(each[name]).T.round(3).to_string(header=["covered", "low", "high"]), f"\n({name})")
    main_one = each[chosen.settings[0]]
    found = {"patients": chosen.patients, "cohorts": chosen.cohorts, "confidence": 0.95, "coverage": main_one,
             "settings": each}  # fmt: skip
    with paths.written_whole(chosen.out) as part:
        part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
