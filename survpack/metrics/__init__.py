"""Scores of a `Prognosis`: does it rank, is it calibrated, how far off are the days, does it part the groups.

Every score takes `counts`, how often each patient (or row) is in the sample: ones for the sample itself, a
matrix of resamples for its bootstrap, which then costs one matrix product instead of hundreds of calls.
A score that is not defined (no event, no comparable pair, no valid time) is NaN, never an error. Days are scored of a
model that has a day for every patient scored, else none of `DAYS` is defined: a curve that does not fall to one half has
no median, and a score of the others would leave out those whom the model gives the longest life (`without_day`). What is no outcome
or no prediction is refused at the door, in one sentence: `survpack.metrics.outcome`. Censoring: `survpack.metrics.censoring`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from survpack.metrics.calibration import (
    calibration_band,
    calibration_curve,
    calibration_intercept,
    calibration_slope,
    d_calibration,
    ici,
    observed_risk,
)
from survpack.metrics.censoring import censoring_reach, uno_weights
from survpack.metrics.day import day_scores, fates
from survpack.metrics.days import mae_days, mae_hinge, mae_ipcw, mae_pseudo, r2, r2_ipcw
from survpack.metrics.decision import decision_curve, net_benefit
from survpack.metrics.groups import hazard_ratio, logrank_p, rmst, rmst_difference
from survpack.metrics.outcome import binary
from survpack.metrics.parts import counts_of, integral, mean_defined, ratio
from survpack.metrics.probability import brier, brier_at, ibs_null, null_survival
from survpack.metrics.ranking import auc_at, auc_over_time, concordance, cumulative_auc, deaths_between
from survpack.metrics.sample import Sample, survival_at, valid_times
from survpack.prognosis import Prognosis

__all__ = [
    "CALIBRATION", "DAYS", "GROUPS", "METRICS", "PROBABILITY", "RANKING", "Sample", "auc_at", "auc_over_time", "brier",
    "brier_at",
    "calibration_band", "calibration_curve", "calibration_intercept", "calibration_slope", "censoring_reach", "concordance", "cumulative_auc",
    "d_calibration", "day_scores", "decision_curve", "fates", "ibs_null", "ici", "logrank_p", "mae_days", "net_benefit", "observed_risk",
    "p_values", "r2", "rmst", "scores", "survival_at", "uno_weights", "valid_times", "without_day",
]  # fmt: skip
RANKING = ("harrell_c", "uno_c", "auc")
PROBABILITY = ("brier", "ibs", "ibs_skill")
CALIBRATION = ("calibration_intercept", "calibration_slope", "ici")
DAYS = ("mae_days", "mae_hinge", "mae_ipcw", "mae_pseudo", "r2", "r2_ipcw")
GROUPS = ("hazard_ratio", "rmst_difference")
METRICS = (*RANKING, *PROBABILITY, *CALIBRATION, *DAYS, *GROUPS)


@dataclass(frozen=True)
class _Asked:
    """Predictions and outcomes of one split, and what several scores share of them."""

    prognosis: Prognosis
    sample: Sample
    train: pd.DataFrame
    horizon: float
    counts: np.ndarray

    @property
    def outcome(self) -> tuple[np.ndarray, np.ndarray]:
        return self.sample.time_days, self.sample.event

    @cached_property
    def grid(self) -> np.ndarray:
        return valid_times(self.prognosis.times, self.sample.time_days, self.train, self.sample.event)

    @cached_property
    def survival(self) -> np.ndarray:
        return survival_at(self.prognosis, self.grid)

    @cached_property
    def at_horizon(self) -> np.ndarray:
        """Predicted risk by the horizon."""
        return 1 - survival_at(self.prognosis, [self.horizon])[:, 0]

    @cached_property
    def ibs(self) -> np.ndarray:
        return self._integrated(self.survival)

    @cached_property
    def ibs_null(self) -> np.ndarray:
        return self._integrated(null_survival(self.sample, self.grid, self.train))

    @property
    def high(self) -> np.ndarray:
        """Who is called high risk; nobody where the predictions do not say."""
        table = self.prognosis.table
        where = f"predictions of {self.prognosis.model}: `high_risk`"
        return binary(table.get("high_risk", pd.Series(False, table.index)), where, table["patient_id"].tolist())

    def _integrated(self, survival: np.ndarray):
        return integral(brier(*self.outcome, survival, self.grid, self.train, counts=self.counts), self.grid)


def _ranked(one: _Asked, **weights):
    return concordance(*one.outcome, one.sample.risk, groups=one.sample.groups, counts=one.counts, **weights)


def _auc(one: _Asked):
    """Mean over the days, each weighted by the deaths since the one before; others are not asked about."""
    fallen = deaths_between(*one.outcome, one.grid, counts=one.counts)
    on = fallen.any(axis=tuple(range(fallen.ndim - 1)))
    risk, asked = 1 - one.survival[:, on], {"groups": one.sample.groups, "counts": one.counts}
    return mean_defined(cumulative_auc(*one.outcome, risk, one.grid[on], one.train, **asked), fallen[..., on])


def _days(score, *, weighted: bool = False):
    """A score of days, weighted by the training patients' censoring or not; NaN where some patient has no day."""

    def scored(one: _Asked):
        if np.isinf(one.sample.days).any():
            return np.full(one.counts.shape[:-1], np.nan)[()]
        return score(*one.outcome, one.sample.days, *([one.train] if weighted else []), counts=one.counts)

    return scored


SCORES = {
    "harrell_c": _ranked,
    "uno_c": lambda one: _ranked(one, case_weights=uno_weights(one.sample.time_days, one.train)),
    "auc": _auc,
    "brier": lambda one: brier_at(*one.outcome, 1 - one.at_horizon, one.horizon, one.train, counts=one.counts),
    "ibs": lambda one: one.ibs,
    "ibs_skill": lambda one: 1 - ratio(one.ibs, one.ibs_null),
    "calibration_intercept": lambda one: calibration_intercept(
        *one.outcome, one.at_horizon, one.horizon, counts=one.counts
    ),
    "calibration_slope": lambda one: calibration_slope(*one.outcome, one.at_horizon, one.horizon, counts=one.counts),
    "ici": lambda one: ici(*one.outcome, one.at_horizon, one.horizon, counts=one.counts),
    "mae_days": _days(mae_days),
    "mae_hinge": _days(mae_hinge),
    "mae_ipcw": _days(mae_ipcw, weighted=True),
    "mae_pseudo": _days(mae_pseudo, weighted=True),
    "r2": _days(r2),
    "r2_ipcw": _days(r2_ipcw, weighted=True),
    "hazard_ratio": lambda one: hazard_ratio(*one.outcome, one.high, counts=one.counts),
    "rmst_difference": lambda one: rmst_difference(*one.outcome, one.high, one.horizon, counts=one.counts),
}


def scores(prognosis, outcome, train_outcome, horizon, *, counts=None, metrics=None) -> dict:
    """Scores of one split.

    Parameters
    ----------
    prognosis : Prognosis
        Rows of one split (`prognosis.of("cv")`).
    outcome, train_outcome : DataFrame
        `patient_id`, `time_days`, `event` of the scored and of the development patients; censoring weights are
        estimated on the latter. In cross-validation a patient is so part of his own weight, which is one in many.
    horizon : float, days
        Of the Brier score, calibration and restricted means.
    counts : ndarray of int, shape (..., patients), optional
        How often each patient, in order of id, is in the sample.
    metrics : sequence of str, optional
        Which of `METRICS` to compute; all that the predictions allow if None: `GROUPS` need a column `high_risk`.

    Returns
    -------
    dict
        Metric to float; to an array of shape (...,) where `counts` is given.

    Raises
    ------
    BadInput
        As `Sample.of`; for training patients of whom the same can be said.
    """
    if metrics is None:
        metrics = [name for name in METRICS if name not in GROUPS or "high_risk" in prognosis.table]
    sample = Sample.of(prognosis, outcome)
    rows = counts_of(None if counts is None else np.asarray(counts)[..., sample.patient], len(sample.patient))
    asked = _Asked(prognosis, sample, train_outcome, horizon, rows)
    found = {name: SCORES[name](asked) for name in metrics}
    return found if counts is not None else {name: float(value) for name, value in found.items()}


def without_day(prognosis) -> tuple[int, int]:
    """How many patients the model has no day for, in one of its rows or more, and of how many."""
    table = prognosis.table
    lacking = np.isinf(table["days"].to_numpy(float))
    return table.loc[lacking, "patient_id"].nunique(), table["patient_id"].nunique()


def p_values(prognosis, outcome, inflation: float = 1.0) -> dict[str, float]:
    """Of D-calibration (small: the curves are wrong) and of the log-rank test (small: those at high risk die sooner).

    Parameters
    ----------
    prognosis, outcome
    inflation : float
        Of the log-rank statistic, as of an interval (`inference.interval`).
    """
    sample = Sample.of(prognosis, outcome)
    asked = _Asked(prognosis, sample, outcome, np.nan, np.ones(len(sample.risk)))
    return {
        "d_calibration": d_calibration(prognosis.survival, prognosis.times, *asked.outcome)["p"],
        "logrank": logrank_p(*asked.outcome, asked.high, inflation),
    }
