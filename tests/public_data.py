"""Six public cohorts that ship with libraries, each halved at random: a Cox model of one half predicts the other.

They bring what simulations leave out: ties in time, whole-month follow-up, few deaths (aids), many (veterans).
Sources: scikit-survival's `sksurv.datasets` (whas500, gbsg2, veterans_lung_cancer, aids, flchain) and lifelines'
`lifelines.datasets` (rossi, in weeks). Read from the installed packages, nothing is downloaded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from sksurv.linear_model import CoxPHSurvivalAnalysis

from survpack.prognosis import Prognosis, day_at

SKSURV = ("whas500", "gbsg2", "veterans_lung_cancer", "aids", "flchain")
NAMES = (*SKSURV, "rossi")
MOST = 1500  # patients of one cohort: flchain has 7,874


class Halved(NamedTuple):
    """What a score is given.

    Attributes
    ----------
    prognosis : Prognosis
        Of the second half: split "test", fold -1.
    outcome, train_outcome : DataFrame
        `patient_id`, `time_days`, `event` of the second and of the first half.
    horizon : float
        Median event time of the first half, between two distinct days: where "by" and "before" a day part, two
        libraries differ for no reason of interest.
    """

    prognosis: Prognosis
    outcome: pd.DataFrame
    train_outcome: pd.DataFrame
    horizon: float


@lru_cache
def datasets() -> dict[str, Halved]:
    """Name to `Halved`, the same at every call; fitted once a session."""
    return {name: halved(name) for name in NAMES}


def halved(name: str) -> Halved:
    """Fit a lightly penalised Cox model on a random half and predict the other."""
    from sksurv.util import Surv

    features, time, event = _read(name)
    chosen = np.random.default_rng(0).permutation(len(time))[:MOST]
    train, held = np.split(chosen, [len(chosen) // 2])
    known = pd.DataFrame({"patient_id": [f"{name}-{k:04d}" for k in range(len(time))], "time_days": time})
    known["event"] = event
    x = features.fillna(features.iloc[train].median())
    x = (x - x.iloc[train].mean()) / x.iloc[train].std().where(lambda spread: spread > 0, np.inf)
    fitted = CoxPHSurvivalAnalysis(alpha=1.0).fit(x.iloc[train], Surv.from_arrays(event[train], time[train]))
    days = np.quantile(time[train][event[train]], np.linspace(0, 1, 40))  # of use in whatever unit the data are
    times = np.unique(np.round(days, 6))  # a day is the same in single precision
    survival = np.array([curve(times) for curve in fitted.predict_survival_function(x.iloc[held])])
    keys = {"cohort": name, "model": "cox", "seed": 0, "repeat": 0, "fold": -1, "split": "test"}
    table = pd.DataFrame({**keys, "patient_id": known["patient_id"].iloc[held].to_numpy()})
    days = np.minimum(day_at(survival, times, 0.5), times[-1])  # a day of everyone, so that scores of days are defined
    table["risk"], table["days"] = fitted.predict(x.iloc[held]), days
    table = table.assign(high_risk=table["risk"] > np.median(fitted.predict(x.iloc[train])))
    table = table.assign(**{f"s_{k}": column for k, column in enumerate(survival.T)})
    outcome, train_outcome = (known.iloc[half].reset_index(drop=True) for half in (held, train))
    return Halved(Prognosis(table, times), outcome, train_outcome, _between(time[train][event[train]]))


def _read(name: str):
    """Features (numbers only), time and event of a cohort."""
    if name == "rossi":
        from lifelines.datasets import load_rossi

        table = load_rossi()
        return table.drop(columns=["week", "arrest"]), table["week"].to_numpy(float), table["arrest"].to_numpy(bool)
    from sksurv import datasets as public

    features, outcome = getattr(public, f"load_{name}")()
    event, time = (outcome[field] for field in outcome.dtype.names)
    if name == "flchain":
        features = features.drop(columns="chapter")  # the cause of death
    return pd.get_dummies(features, drop_first=True, dtype=float).astype(float), time.astype(float), event.astype(bool)


def _between(days) -> float:
    """Half way from the median day of death to the next distinct one."""
    distinct = np.unique(days)
    middle = np.searchsorted(distinct, np.median(days), side="right")
    return float(distinct[middle - 1 : middle + 1].mean())
