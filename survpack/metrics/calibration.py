"""Of patients told a probability, how many die by then?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.metrics.censoring import step
from survpack.metrics.parts import counts_of, ratio
from survpack.metrics.sample import Sample, survival_at

RIDGE = 1e-3  # of the calibration curve: keeps a separated resample finite, moves nothing else
KNOTS = {1: (), 2: (0.1, 0.5, 0.9), 3: (0.05, 0.35, 0.65, 0.95)}  # Harrell's quantiles, by degrees of freedom


def ici(time_days, event, predicted, horizon, *, counts=None):
    """Integrated calibration index: mean distance between predicted and observed risk at the horizon.

    The observed risk is a Cox regression on a restricted cubic spline of log(−log(1 − predicted)), three degrees
    of freedom from 30 events, two from 20, a line below. Knots stay where the sample puts them while it is
    resampled. An absolute distance is never below 0, so small samples and their intervals lie too high.
    Austin, Harrell, van Klaveren 2020 (doi:10.1002/sim.8570).

    Parameters
    ----------
    time_days, event, predicted : array, shape (n,)
        `predicted` is the risk of the event by the horizon.
    horizon : float, days
    counts : array, shape (..., n), optional

    Returns
    -------
    float or ndarray, shape (...,)
        NaN without an event by the horizon, or without follow-up to it.
    """
    predicted = np.asarray(predicted, float)
    counts = counts_of(counts, len(predicted))
    observed = observed_risk(time_days, event, predicted, horizon, counts=counts)
    return ratio((counts * np.abs(observed - predicted)).sum(-1), counts.sum(-1))


def observed_risk(time_days, event, predicted, horizon, *, at=None, counts=None):
    """Smooth calibration curve: the risk seen in patients of a predicted risk. See `ici`.

    Parameters
    ----------
    at : array, shape (m,), optional
        Predicted risks at which to read the curve; those of the patients themselves if None.

    Returns
    -------
    ndarray, shape (..., n) or (..., m)
    """
    time, event = np.asarray(time_days, float), np.asarray(event, bool)
    counts = counts_of(counts, len(time))
    freedom = int(np.clip(event.sum() // 10, 1, 3))
    basis, basis_at = _spline_basis(predicted, predicted if at is None else at, freedom)
    slopes, baseline = _cox(time, event, basis, counts, horizon)
    risk = 1 - np.exp(-baseline[..., None] * np.exp(np.clip(slopes @ basis_at.T, -50, 50)))
    followed = (counts * (time >= horizon)).sum(-1) > 0
    return np.where((followed & (baseline > 0))[..., None], risk, np.nan)


def calibration_curve(prognosis, outcome, horizon, *, confidence=0.95) -> pd.DataFrame:
    """Predicted against Kaplan–Meier risk in groups of like prediction.

    Quintiles of predicted risk; fewer groups where there are fewer than five events for each.

    Returns
    -------
    DataFrame
        `predicted` (mean), `observed`, `low`, `high` (Greenwood, log–log), `patients`, one row a group. NaN where
        the group was not followed to the horizon; no interval where nobody or everybody died.
    """
    from sksurv.nonparametric import kaplan_meier_estimator

    sample = Sample.of(prognosis, outcome)
    predicted = 1 - survival_at(prognosis, [horizon])[:, 0]
    number = int(np.clip(sample.event.sum() // 5, 1, 5))
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, number + 1)[1:-1])) if len(predicted) else []
    group = np.searchsorted(edges, predicted, side="left")
    rows = []
    for inside in (group == g for g in np.unique(group)):
        time, event = sample.time_days[inside], sample.event[inside]
        days, survival, interval = kaplan_meier_estimator(event, time, conf_level=confidence, conf_type="log-log")
        alive, low, high = (step(days, curve, [horizon])[0] for curve in (survival, *interval))
        alive = alive if time.max() >= horizon or alive == 0 else np.nan
        low, high = (low, high) if 0 < alive < 1 else (np.nan, np.nan)
        rows.append((predicted[inside].mean(), 1 - alive, 1 - high, 1 - low, inside.sum()))
    return pd.DataFrame(rows, columns=["predicted", "observed", "low", "high", "patients"])


def calibration_smooth(prognosis, outcome, horizon, size=50) -> pd.DataFrame:
    """`predicted`, `observed`: the curve whose distance from the diagonal `ici` averages, for a figure."""
    sample = Sample.of(prognosis, outcome)
    predicted = 1 - survival_at(prognosis, [horizon])[:, 0]
    at = np.linspace(predicted.min(), predicted.max(), size)
    observed = observed_risk(sample.time_days, sample.event, predicted, horizon, at=at)
    return pd.DataFrame({"predicted": at, "observed": observed})


def _spline_basis(predicted, at, freedom: int):
    """Restricted cubic spline of log(−log(1 − risk)) for `predicted` and for `at`, scaled by the former."""

    def loglog(risk):
        return np.log(-np.log1p(-np.clip(risk, 1e-4, 1 - 1e-4)))  # a sure prediction has leverage, not infinity

    x = loglog(np.asarray(predicted, float))
    knots = np.quantile(x, KNOTS[freedom]) if len(x) else np.array([])
    if len(np.unique(knots)) < len(knots):
        knots = np.array([])

    def basis(value):
        columns = [value]
        for knot in knots[:-2]:
            last, before = knots[-1], knots[-2]
            cubes = [np.maximum(value - k, 0) ** 3 for k in (knot, before, last)]
            columns.append(
                cubes[0] - cubes[1] * (last - knot) / (last - before) + cubes[2] * (before - knot) / (last - before)
            )
        return np.column_stack(columns)

    own = basis(x)
    centre, scale = own.mean(0), own.std(0)
    scale = np.where(scale > 1e-9, scale, np.inf)  # one prediction for all: the curve is Kaplan–Meier's one point
    return (own - centre) / scale, (basis(loglog(np.asarray(at, float))) - centre) / scale


def _cox(time, event, basis, counts, horizon, steps=30):
    """Slopes (..., p) and Breslow baseline hazard to the horizon (...,) of a Cox model, for each row of counts.

    Own code because no library fits hundreds of weighted copies of one small model at once.
    """
    days = np.unique(time[event])
    at_risk = (time[:, None] >= days).astype(float)
    deaths = counts @ (event[:, None] & (time[:, None] == days))
    slopes = np.zeros((*counts.shape[:-1], basis.shape[1]))
    products = basis[:, :, None] * basis[:, None, :]

    def hazards():
        hazard = counts * np.exp(np.clip(slopes @ basis.T, -50, 50))
        total = hazard @ at_risk
        return hazard, np.where(total > 0, total, 1.0)  # nobody at risk: nobody died

    for _ in range(steps):
        hazard, total = hazards()
        mean = np.einsum("...n,np,nk->...kp", hazard, basis, at_risk, optimize=True) / total[..., None]
        expected = hazard * ((deaths / total) @ at_risk.T)
        gradient = (counts * event - expected) @ basis - RIDGE * slopes
        curvature = np.tensordot(expected, products, axes=1) + RIDGE * np.eye(basis.shape[1])
        curvature = curvature - np.einsum("...k,...kp,...kq->...pq", deaths, mean, mean, optimize=True)
        move = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        slopes = slopes + np.clip(move, -1, 1)  # a full step from a flat start can overshoot
        if np.abs(move).max(initial=0) < 1e-8:
            break
    _, total = hazards()
    return slopes, (deaths / total) @ (days <= horizon)
