"""The best that any model could do on a phantom: scores of the hazard itself, over redraws of the outcomes.

Covariates stay as they are and the outcomes are drawn anew from the known hazard and follow-up. What is left unexplained
is chance: no model, image or network can tell it before it happens. In a phantom of visits the hazard knows what comes
after baseline too: no model of baseline then gets as far as this.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack.metrics import concordance
from survpack.metrics.censoring import inverse_weights
from survpack.metrics.days import mae_days, mae_ipcw, r2, r2_ipcw
from survpack.phantom.shared import FollowUp, Weibull, observed

DRAWS = 400  # cohorts of outcomes
LEAST_NOISE, MOST_NOISE = 0.02, 10.0  # of survival, between which is searched
QUANTILES = (np.arange(500) + 0.5) / 500  # of a patient's days of death


class Known(NamedTuple):
    """Hazard and follow-up of some patients."""

    risk: np.ndarray  # linear predictor
    survival: Weibull
    follow_up: FollowUp

    @property
    def days(self) -> np.ndarray:
        """Quantiles of each patient's day of death, shape (n, quantiles)."""
        unit = -np.log1p(-QUANTILES)
        return self.survival.scale_days * (unit / np.exp(self.risk)[:, None]) ** (1 / self.survival.shape)


def ceiling(study, *, draws: int = DRAWS) -> dict | None:
    """Scores of the best prediction of each patient's day; None where the cohort is no phantom.

    The best for R² is the mean, for MAE the median of the days of death among those who would be scored: deaths that are
    seen before follow-up ends, weighted as the score weighs them.

    Parameters
    ----------
    study : Study
        Its development patients are redrawn.
    draws : int
        Cohorts of outcomes.

    Returns
    -------
    dict
        "deaths" (naive scores of the dead) and "everyone" (R² and MAE weighted by inverse probability of censoring, C of
        all) to `{"r2", "mae_days", "harrell_c"}`, each `estimate` (the mean over draws), `low` and `high`, between which
        the study's confidence of such cohorts fall.
    """
    known = of(study)
    if known is None:
        return None
    development, choice = study.outcome(study.development), study.params.scores
    rng = np.random.default_rng(choice.seed)
    plain, weighted = np.ones_like, lambda days: inverse_weights(development, days)
    best = {"deaths": _best(known, plain), "everyone": _best(known, weighted)}
    cohorts = [_redrawn(known, rng) for _ in range(draws)]
    found = [{of: _scores(known.risk, *best[of], cohort, development, of) for of in best} for cohort in cohorts]
    tail = (1 - choice.confidence) / 2
    return {of: {metric: _summary([one[of][metric] for one in found], tail) for metric in found[0][of]} for of in best}


def noise_for(study, r2: float = 0.97) -> dict | None:
    """The survival noise at which the best R² of the dead would be `r2`, by bisection; None where no phantom.

    Returns
    -------
    dict
        `survival_noise`, the best `r2` and `mae_days` at it, and the cohort's own noise as `actual`. `survival_noise` is None where not even `LEAST_NOISE` would do.
    """
    known = of(study)
    if known is None:
        return None
    low, high = LEAST_NOISE, MOST_NOISE
    if _at_noise(study, low)["r2"] < r2:
        return {"survival_noise": None, "r2": None, "mae_days": None, "actual": _noise(study)}
    while high / low > 1.01:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if _at_noise(study, middle)["r2"] > r2 else (low, middle)
    return _at_noise(study, low) | {"actual": _noise(study)}


def by_noise(study, noises) -> pd.DataFrame | None:
    """Best R² and MAE of the dead at each survival noise: `survival_noise`, `r2`, `mae_days`; None where no phantom."""
    return None if of(study) is None else pd.DataFrame([_at_noise(study, noise) for noise in noises])


def of(study, noise: float | None = None) -> Known | None:
    """The development patients' hazard, at another survival noise where one is given; None where no phantom.

    Noise divides shape and coefficients and keeps the expected log time, as `Hazard.facts` does; the site's hazard stays.
    """
    path = study.paths.truth
    if not path.exists():
        return None
    facts = json.loads(path.with_suffix(".json").read_text())
    truth = pd.read_parquet(path).set_index("patient_id").loc[study.development]
    factor = 1.0 if noise is None else noise / _noise(study)
    shape, scale = facts["weibull_shape"], facts["weibull_scale_days"]
    risk = (truth["linear_predictor"] - truth["site"]) / factor + truth["site"]
    moved = Weibull(shape / factor, float(scale * np.exp(-np.euler_gamma * (1 - factor) / shape)))
    return Known(risk.to_numpy(float), moved, FollowUp(**facts["follow_up"]))


def _noise(study) -> float:
    facts = json.loads(study.paths.truth.with_suffix(".json").read_text())
    return float(facts.get("choices", {}).get("survival_noise", 1.0))


def _at_noise(study, noise: float) -> dict:
    known, rng = of(study, noise), np.random.default_rng(study.params.scores.seed)  # the same draws at every noise
    mean, median = _best(known, np.ones_like)
    cohorts = [_redrawn(known, rng) for _ in range(DRAWS // 2)]
    found = [(r2(*cohort, mean), mae_days(*cohort, median)) for cohort in cohorts]
    return {"survival_noise": noise} | dict(zip(("r2", "mae_days"), np.nanmean(found, axis=0).tolist(), strict=True))


def _best(known: Known, weigh) -> tuple[np.ndarray, np.ndarray]:
    """Mean and median day of each patient's deaths that are seen, each weighing `weigh(days)`; (n,) and (n,)."""
    last_seen = np.sort(known.follow_up.draw_days(np.random.default_rng(0), 20_000))
    days = np.ceil(known.days).clip(1)
    seen = 1 - np.searchsorted(last_seen, known.days) / len(last_seen)
    weight = (seen * weigh(days.ravel()).reshape(days.shape)).clip(1e-12)  # who never dies in time keeps his first days
    share = np.cumsum(weight, axis=1) / weight.sum(1, keepdims=True)
    median = days[np.arange(len(days)), np.argmax(share >= 0.5, axis=1)]
    return (weight * days).sum(1) / weight.sum(1), median


def _redrawn(known: Known, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Days and events of one cohort."""
    death = np.asarray(known.survival.draw_days(rng, known.risk))
    table = observed(death, known.follow_up.draw_days(rng, len(death)))
    return table["time_days"].to_numpy(), table["event"].to_numpy(bool)


def _scores(risk, mean, median, cohort, development: pd.DataFrame, of: str) -> dict:
    time, event = cohort
    if of == "deaths":
        return {"r2": r2(time, event, mean), "mae_days": mae_days(time, event, median),
                "harrell_c": concordance(time, event, risk, counts=event.astype(float))}  # fmt: skip
    return {"r2": r2_ipcw(time, event, mean, development), "mae_days": mae_ipcw(time, event, median, development),
            "harrell_c": concordance(time, event, risk)}  # fmt: skip


def _summary(values: list, tail: float) -> dict:
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return {"estimate": float(np.nanmean(values)), "low": float(low), "high": float(high)}
