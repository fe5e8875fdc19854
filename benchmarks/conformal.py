"""How often lower bounds on survival are outlived, in forms that differ in what a new patient is bounded by.

`python -m benchmarks.conformal` draws cohorts of a Weibull hazard that two columns carry, whatever the number of columns,
fits a ridge of log days, deaths weighted for censoring, on five folds and on all of them, and bounds new patients. Where
columns are as many as patients and nothing is shrunk, the model of all patients is overfitted as those of the folds are
not (the case of Barber et al. 2021, doi:10.1214/20-AOS1965, section 7). Coverage is exact for the patients drawn, from
the hazard that is known; its interval is Wilson's, on the number of patients that would vary as cohorts do.

All goes into `reports/metrics/conformal-coverage.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.linear_model import Ridge
from tqdm import tqdm

from survpack import conformal, paths
from survpack.metrics.censoring import inverse_weights, kaplan_meier
from survpack.phantom.oracle import coverage_true
from survpack.phantom.shared import FollowUp, Weibull
from survpack.prognosis import Prognosis, curve_at, day_at

COVERAGE, HORIZON, FOLDS, NEW, HELD_BACK = 0.9, 365.0, 5, 200, 0.3
SURVIVAL = Weibull(shape=1.2, scale_days=430.0)  # as in the mets phantom
HAZARD = 0.6  # log hazard per standard deviation of each of the first two columns
TIMES = np.quantile(SURVIVAL.draw_days(np.random.default_rng(0), np.zeros(5000)), np.linspace(0.005, 0.99, 60))
SHRINKAGE = {"strong": 100.0, "weak": 1.0, "none": 0.0}  # of the ridge
CENSORING = {
    "none": FollowUp(0, 1e9, 1e12), "random": FollowUp(0, 1e9, 700), "administrative": FollowUp(0, 400, 1e12)
}  # fmt: skip
FORMS = {
    "level": "a level of the final model's curve, calibrated on the curves of fold models (as it was)",
    "cv_plus": "the same levels, each on the curve of its own fold's model (CV+; needs them at prediction)",
    "split": f"a level calibrated on {HELD_BACK:.0%} of patients that are held back from training",
    "thirds": "the third of predicted risk, each calibrated out of fold, none beyond the whole cohort's (in use)",
}
SHARES = (
    "marginal",
    "riskiest",
    "truly_riskiest",
)  # of all; of the quarter at highest predicted, and at highest true risk


class Setting(NamedTuple):
    columns: int
    shrinkage: str
    patients: int
    censoring: str


class Drawn(NamedTuple):
    features: np.ndarray
    risk: np.ndarray
    outcome: pd.DataFrame


def drawn(setting: Setting, patients: int, first: str, rng: np.random.Generator) -> Drawn:
    """Patients in whole days; names begin with `first`."""
    features = rng.normal(size=(patients, setting.columns))
    risk = HAZARD * features[:, :2].sum(axis=1)
    death = np.ceil(SURVIVAL.draw_days(rng, risk))
    last = np.ceil(CENSORING[setting.censoring].draw_days(rng, patients)).clip(1)
    names = [f"{first}{number}" for number in range(patients)]
    known = {"patient_id": names, "time_days": np.minimum(death, last), "event": death <= last}
    return Drawn(features, risk, pd.DataFrame(known))


def fitted(features: np.ndarray, outcome: pd.DataFrame, shrinkage: str) -> Callable:
    """Features to curves at `TIMES`: log days of a ridge, normal about it as those of all deaths are about their mean."""
    died = outcome["event"].to_numpy(bool)
    days = outcome.loc[died, "time_days"].to_numpy(float)
    weight = inverse_weights(outcome, days, before=True)
    model = Ridge(SHRINKAGE[shrinkage], solver="svd").fit(features[died], np.log(days), sample_weight=weight)
    spread = np.log(days).std()
    return lambda new: norm.sf((np.log(TIMES) - model.predict(new)[:, None]) / spread)


def bounds(setting: Setting, cohort: Drawn, new: Drawn) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Days by form, and the predicted risk of the new patients."""
    fold, everyone = np.arange(setting.patients) % FOLDS, np.arange(setting.patients)
    held = everyone >= round((1 - HELD_BACK) * setting.patients)

    def fit(rows):
        return fitted(cohort.features[rows], cohort.outcome[rows], setting.shrinkage)

    folds, final, less = [fit(fold != k) for k in range(FOLDS)], fit(everyone >= 0), fit(~held)
    out_of_fold = np.empty((setting.patients, len(TIMES)))
    for k, model in enumerate(folds):
        out_of_fold[fold == k] = model(cohort.features[fold == k])
    said, smaller, *apart = (model(new.features) for model in (final, less, *folds))
    found = {
        "level": _levels(cohort.outcome, out_of_fold, lambda row: said),
        "cv_plus": _levels(cohort.outcome, out_of_fold, lambda row: apart[fold[row]]),
        "split": _levels(cohort.outcome[held], less(cohort.features[held]), lambda row: smaller),
    }
    prognosis = _prognosis(cohort, new, fold, out_of_fold, said)
    outcome = pd.concat([cohort.outcome, new.outcome], ignore_index=True)
    ours = conformal.lower_bounds(prognosis, outcome, COVERAGE, HORIZON).query("split == 'test'")
    return found | {"thirds": ours["bound_days"].to_numpy()}, 1 - curve_at(said, TIMES, [HORIZON])[:, 0]


def _levels(known: pd.DataFrame, own: np.ndarray, curves_for: Callable) -> np.ndarray:
    """Bounds where curves fall to where each death's own curve (`own`) was; `curves_for` the row of that death."""
    rows, weight, cap = conformal.deaths(known, kaplan_meier(known, of_censoring=True), COVERAGE)
    time = known["time_days"].to_numpy(float)
    level = [curve_at(own[[row]], TIMES, [time[row]])[0, 0] for row in rows]
    days = [day_at(curves_for(row), TIMES, one) for row, one in zip(rows, level, strict=True)]
    return conformal.calibrated(np.array(days).reshape(len(rows), NEW).T, weight, cap, len(known), COVERAGE)


def _prognosis(cohort: Drawn, new: Drawn, fold: np.ndarray, out_of_fold: np.ndarray, said: np.ndarray) -> Prognosis:
    names = pd.concat([cohort.outcome["patient_id"], new.outcome["patient_id"]], ignore_index=True)
    split = np.repeat(["cv", "test"], [len(fold), NEW])
    keys = {"cohort": "drawn", "model": "ridge", "seed": 0, "repeat": 0, "fold": np.r_[fold, np.full(NEW, -1)]}
    table = pd.DataFrame({**keys, "split": split, "patient_id": names, "risk": 0.0, "days": HORIZON})
    curves = pd.DataFrame(np.vstack([out_of_fold, said]), columns=[f"s_{k}" for k in range(len(TIMES))])
    return Prognosis(pd.concat([table, curves], axis=1), TIMES)


def one_cohort(setting: Setting, seed: Iterable[int]) -> pd.DataFrame:
    """A row a form: the shares of new patients that outlive their bounds, and the mean bound."""
    rng = np.random.default_rng(seed)
    cohort, new = drawn(setting, setting.patients, "c", rng), drawn(setting, NEW, "n", rng)
    shape = {"weibull_shape": SURVIVAL.shape, "weibull_scale_days": SURVIVAL.scale_days}
    truth = pd.DataFrame({"patient_id": new.outcome["patient_id"], "linear_predictor": new.risk, **shape})
    found, risk = bounds(setting, cohort, new)
    rows = []
    for form, days in found.items():
        given = truth[["patient_id"]].assign(bound_days=days)
        outlived = coverage_true(given, truth)
        quarter = coverage_true(given[risk >= np.quantile(risk, 0.75)], truth)
        shares = dict(zip(SHARES, (outlived["estimate"], quarter["estimate"], outlived["highest_risk"]), strict=True))
        rows.append({"form": form, **shares, "mean_bound_days": days.mean(), "without_bound": (days <= 0).mean()})
    return pd.DataFrame(rows).assign(censored=1 - cohort.outcome["event"].mean())


def interval(shares: pd.Series) -> dict[str, float]:
    """Mean over cohorts with Wilson's 95 % interval; at most as many patients as were drawn, at least one a cohort."""
    share, error = shares.mean(), shares.var(ddof=1) / len(shares)
    size = np.clip(share * (1 - share) / max(error, 1e-12), len(shares), len(shares) * NEW)
    return {"estimate": round(float(share), 4)} | {
        end: round(value, 4) for end, value in conformal.wilson(share, size, 0.95).items()
    }


def covered(setting: Setting, cohorts: int, seed: int = 83) -> dict:
    """The setting in words and numbers, and each form's coverage over cohorts."""
    rows = pd.concat([one_cohort(setting, [seed, number, *setting[::2]]) for number in range(cohorts)])
    forms = {
        form: {name: interval(one[name]) for name in SHARES}
        | {name: round(float(one[name].mean()), 4) for name in ("mean_bound_days", "without_bound")}
        for form, one in rows.groupby("form", sort=False)
    }
    return {**setting._asdict(), "censored": round(float(rows["censored"].mean()), 3), "forms": forms}


def summary(settings: list[dict]) -> dict:
    """Form to the lowest and highest coverage of any setting."""
    ends = {"lowest": min, "highest": max}
    return {
        form: {
            name: {
                end: pick((one["forms"][form][name] for one in settings), key=lambda x: x["estimate"])
                for end, pick in ends.items()
            }
            for name in SHARES
        }
        for form in FORMS
    }


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformal", description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=35)
    parser.add_argument("--columns", type=int, nargs="+", default=[2, 20, 100])
    parser.add_argument("--shrinkage", nargs="+", default=list(SHRINKAGE), choices=list(SHRINKAGE))
    parser.add_argument("--patients", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--censoring", nargs="+", default=list(CENSORING), choices=list(CENSORING))
    parser.add_argument("--out", type=Path, default=paths.METRICS / "conformal-coverage.json")
    asked = parser.parse_args(arguments)
    grid = [Setting(*one) for one in product(asked.columns, asked.shrinkage, asked.patients, asked.censoring)]
    each = [covered(one, asked.cohorts) for one in tqdm(grid, "settings", mininterval=5)]
    found = {
        "cohorts": asked.cohorts, "coverage": COVERAGE, "guaranteed": conformal.guaranteed(COVERAGE), "forms": FORMS,
        "summary": summary(each), "settings": each,
    }  # fmt: skip
    told = {form: {name: [one[end]["estimate"] for end in one] for name, one in of.items()} for form, of in found["summary"].items()}  # fmt: skip
    print("lowest and highest of all settings:", pd.DataFrame(told).T.to_string(), sep="\n")
    with paths.written_whole(asked.out) as part:
        part.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
