"""How near a model's predictions come to the hazard that generated the outcomes: after the fact, of predictions made."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack.inference import bootstrap
from survpack.metrics import concordance
from survpack.prognosis import Prognosis

IMAGE_ONLY = ("oedema", "rim", "texture")  # parts that no chart and no volume tells
VOLUME = "volume"
ORACLES = {"oracle": "linear_predictor", "oracle-baseline": "linear_predictor_baseline"}


class Compared(NamedTuple):
    """A model's predictions out of fold beside the truth.

    Attributes
    ----------
    patients : DataFrame
        `patient_id`, `fold`, `event`, `generating` (the hazard's risk at baseline) and `predicted`, both in standard
        deviations, the latter of its fold.
    agreement : DataFrame
        `part` of the hazard ("all", each part, and "image": those only the image tells, beyond volume), the rank
        correlation with predicted risk as `estimate`, `low`, `high`, and `oracle`, what the hazard itself has.
    scores : dict
        `harrell_c` and `oracle_c` of the same patients, and `recovered`, the share of (oracle's C - 0.5).
    """

    patients: pd.DataFrame
    agreement: pd.DataFrame
    scores: dict


def compared(study, prognosis: Prognosis) -> Compared | None:
    """Compare predictions out of fold with the hazard; None where the cohort is no phantom.

    Ranks are taken within a fold, whose model alone made them, and are not taken anew in a resample.

    Parameters
    ----------
    study : Study
    prognosis : Prognosis
    """
    path = study.paths.truth
    table = prognosis.of("cv").table
    if not path.exists() or table.empty:
        return None
    planted = pd.read_parquet(path).set_index("patient_id").loc[table["patient_id"]]
    parts = [*import_module(f"survpack.phantom.{study.name}").HAZARD.parts, "site"]
    known = planted[[name for name in parts if planted[name].nunique() > 1]].assign(
        all=planted["linear_predictor_baseline" if "linear_predictor_baseline" in planted else "linear_predictor"],
        image=planted[[name for name in parts if name in IMAGE_ONLY]].sum(axis=1),
    )
    outcome = study.outcome(table["patient_id"])
    fold = pd.factorize(table["fold"])[0]
    risk, generating = table["risk"].to_numpy(float), known["all"].to_numpy(float)
    patients = pd.DataFrame({
        "patient_id": table["patient_id"],
        "fold": table["fold"],
        "event": outcome["event"].to_numpy(bool),
        "generating": _standard(generating, np.zeros_like(fold)),
        "predicted": _standard(risk, fold),
    })  # fmt: skip
    scored = partial(_scores, outcome, risk, generating, fold)
    drawn = {**study.params.scores.resampling(scored(np.ones(len(table)))["harrell_c"]), "strata": fold}
    scores = bootstrap(scored, len(table), **drawn)
    return Compared(patients, _agreement(known, risk, fold, drawn), scores)


def _scores(outcome: pd.DataFrame, risk: np.ndarray, generating: np.ndarray, fold: np.ndarray, counts) -> dict:
    time, event = outcome["time_days"].to_numpy(float), outcome["event"].to_numpy(bool)
    ours, best = (concordance(time, event, one, groups=fold, counts=counts) for one in (risk, generating))
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"harrell_c": ours, "oracle_c": best, "recovered": (ours - 0.5) / (best - 0.5)}


def _agreement(known: pd.DataFrame, risk: np.ndarray, fold: np.ndarray, drawn: dict) -> pd.DataFrame:
    """Rank correlation of risk, and of the oracle, with the whole hazard, its parts, and what only the image tells."""
    ranks = {name: _ranks(values.to_numpy(float), fold) for name, values in known.items()}
    ranked = _ranks(risk, fold)
    order = ["all", *(name for name in known if name not in ("all", "image"))]
    order += ["image"] if VOLUME in known and known["image"].nunique() > 1 else []

    def found(one: np.ndarray, counts) -> dict:
        plain = {name: _correlation(one, ranks[name], counts) for name in order if name != "image"}
        if "image" not in order:
            return plain
        return plain | {"image": _partial(one, ranks["image"], ranks[VOLUME], counts)}

    ours = bootstrap(lambda counts: found(ranked, counts), len(risk), **drawn)
    best = found(ranks["all"], np.ones(len(risk)))
    return pd.DataFrame([{"part": name, **ours[name], "oracle": float(best[name])} for name in order])


def _ranks(values: np.ndarray, fold: np.ndarray) -> np.ndarray:
    return pd.Series(values).groupby(fold).rank(pct=True).to_numpy()


def _standard(values: np.ndarray, fold: np.ndarray) -> np.ndarray:
    grouped = pd.Series(values).groupby(fold)
    spread = grouped.transform("std", ddof=0).replace(0, np.nan)
    return ((values - grouped.transform("mean")) / spread).fillna(0).to_numpy()


def _correlation(x: np.ndarray, y: np.ndarray, counts) -> np.ndarray:
    """Pearson's, each entry counted as often as `counts`, shape (..., n), says."""
    weight = np.asarray(counts, float)
    weight = weight / weight.sum(axis=-1, keepdims=True)
    mean_x, mean_y = weight @ x, weight @ y
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt((weight @ x**2 - mean_x**2) * (weight @ y**2 - mean_y**2))
        return np.where(spread > 1e-12, (weight @ (x * y) - mean_x * mean_y) / spread, np.nan)


def _partial(x: np.ndarray, y: np.ndarray, given: np.ndarray, counts) -> np.ndarray:
    """Correlation of x and y, `given` held."""
    xy, xz, yz = (_correlation(*pair, counts) for pair in ((x, y), (x, given), (y, given)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))


def coverage_true(bounds: pd.DataFrame, truth: pd.DataFrame) -> dict:
    """The exact probability of outliving the bounds, averaged over these patients.

    Days are recorded rounded up (`shared.observed`), so a bound of L is kept by who lives past ceil(L) - 1.

    Parameters
    ----------
    bounds : DataFrame
        `patient_id`, `bound_days`.
    truth : DataFrame
        `patient_id`, `linear_predictor`, `weibull_shape`, `weibull_scale_days`.

    Returns
    -------
    dict
        `estimate`, and `highest_risk`: that of the quarter whose hazard is highest, which no marginal guarantee
        protects. There is no interval: nothing is sampled.
    """
    known = truth.set_index("patient_id").loc[bounds["patient_id"]]
    past = (np.ceil(bounds["bound_days"].to_numpy(float)) - 1).clip(0)
    risk = known["linear_predictor"].to_numpy(float)
    shape, scale = known["weibull_shape"].to_numpy(float), known["weibull_scale_days"].to_numpy(float)
    alive = np.exp(-((past / scale) ** shape) * np.exp(risk))
    return {"estimate": float(alive.mean()), "highest_risk": float(alive[risk >= np.quantile(risk, 0.75)].mean())}


def covered(study, bounds: pd.DataFrame) -> dict | None:
    """`coverage_true` of bounds already made; None where the cohort is no phantom.

    Parameters
    ----------
    study : Study
    bounds : DataFrame
        `conformal.lower_bounds`.
    """
    path = study.paths.truth
    return coverage_true(bounds, pd.read_parquet(path)) if path.exists() else None


def with_oracle(predictions: pd.DataFrame, study) -> pd.DataFrame:
    """Predictions at landmarks, and beside them the risks that generated the outcomes, where the cohort is a phantom.

    With proportional hazards the true ranking is the same at every landmark. "oracle-baseline" is all that baseline
    can tell.

    Parameters
    ----------
    predictions : DataFrame
        `longitudinal.landmark_predictions`.
    study : Study
    """
    path = study.paths.truth
    if not path.exists() or predictions.empty:
        return predictions
    truth = pd.read_parquet(path).set_index("patient_id")
    rows = predictions[predictions["model"] == predictions["model"].iloc[0]]
    risks = {name: truth[column] for name, column in ORACLES.items() if column in truth}
    oracles = [rows.assign(model=name, risk=rows["patient_id"].map(risk)) for name, risk in risks.items()]
    return pd.concat([predictions, *oracles], ignore_index=True)
