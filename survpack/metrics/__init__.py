"""Scores of a `Prognosis`: does it rank, is it calibrated, how far off are the days.

Every score takes `counts`, how often each patient (or row) is in the sample: ones for the sample itself, a
matrix of resamples for its bootstrap, which then costs one matrix product instead of hundreds of calls.
A score that is not defined (no event, no comparable pair, no valid time) is NaN, never an error.
"""

from __future__ import annotations

import numpy as np

from survpack.metrics.calibration import calibration_curve, calibration_smooth, ici, observed_risk
from survpack.metrics.censoring import censoring_reach, uno_weights
from survpack.metrics.days import mae_days, r2
from survpack.metrics.parts import counts_of, integral, mean_defined
from survpack.metrics.probability import brier, ibs_null
from survpack.metrics.ranking import auc_over_time, concordance, cumulative_auc
from survpack.metrics.sample import Sample, survival_at, valid_times

__all__ = [
    "METRICS", "Sample", "auc_over_time", "brier", "calibration_curve", "calibration_smooth", "censoring_reach",
    "concordance", "cumulative_auc", "ibs_null", "ici", "mae_days", "observed_risk", "r2", "scores", "survival_at",
    "uno_weights", "valid_times",
]  # fmt: skip
METRICS = ("harrell_c", "uno_c", "auc", "ibs", "ici", "mae_days", "r2")


def scores(prognosis, outcome, train_outcome, horizon, *, counts=None, metrics=METRICS) -> dict:
    """All seven scores of one split.

    Parameters
    ----------
    prognosis : Prognosis
        Rows of one split (`prognosis.of("cv")`).
    outcome, train_outcome : DataFrame
        `patient_id`, `time_days`, `event` of the scored and of the development patients; censoring weights are
        estimated on the latter. In cross-validation a patient is so part of his own weight, which is one in many.
    horizon : float, days
        Of calibration.
    counts : ndarray of int, shape (..., patients), optional
        How often each patient, in order of id, is in the sample.
    metrics : sequence of str
        Which of `METRICS` to compute.

    Returns
    -------
    dict
        Metric to float; to an array of shape (...,) where `counts` is given.
    """
    sample = Sample.of(prognosis, outcome)
    rows = counts_of(None if counts is None else np.asarray(counts)[..., sample.patient], len(sample.patient))
    time, event, groups = sample.time_days, sample.event, sample.groups
    grid = valid_times(prognosis.times, time, train_outcome)
    survival = survival_at(prognosis, grid)
    compute = {
        "harrell_c": lambda: concordance(time, event, sample.risk, groups=groups, counts=rows),
        "uno_c": lambda: concordance(
            time, event, sample.risk, groups=groups, counts=rows, case_weights=uno_weights(time, train_outcome)
        ),
        "auc": lambda: mean_defined(
            cumulative_auc(time, event, 1 - survival, grid, train_outcome, groups=groups, counts=rows)
        ),
        "ibs": lambda: integral(brier(time, event, survival, grid, train_outcome, counts=rows), grid),
        "ici": lambda: ici(time, event, 1 - survival_at(prognosis, [horizon])[:, 0], horizon, counts=rows),
        "mae_days": lambda: mae_days(time, event, sample.days, counts=rows),
        "r2": lambda: r2(time, event, sample.days, counts=rows),
    }
    found = {name: compute[name]() for name in metrics}
    return found if counts is not None else {name: float(value) for name, value in found.items()}
