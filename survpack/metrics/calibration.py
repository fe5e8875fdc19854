"""Of patients told a probability, how many die by then?

Four looks at one question, from coarse to fine: the intercept (is the level right), the slope (is the spread
right), the smooth curve and its `ici` (is every level right), and D-calibration (is every day right).
Van Calster et al. 2016 (doi:10.1016/j.jclinepi.2015.12.005) name the levels.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.metrics.censoring import step
from survpack.metrics.outcome import checked, probabilities
from survpack.metrics.parts import counts_of, ratio
from survpack.metrics.sample import Sample, survival_at
from survpack.prognosis import curve_at

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
    predicted = probabilities(predicted, "predicted risk")
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
    (time, event), predicted = checked(time_days, event), probabilities(predicted, "predicted risk")
    counts = counts_of(counts, len(time))
    freedom = int(np.clip(event.sum() // 10, 1, 3))
    basis, basis_at = _spline_basis(predicted, predicted if at is None else at, freedom)
    slopes, baseline = _cox(time, event, basis, counts, horizon)
    risk = 1 - np.exp(-baseline[..., None] * np.exp(np.clip(slopes @ basis_at.T, -50, 50)))
    followed = (counts * (time >= horizon)).sum(-1) > 0
    return np.where((followed & (baseline > 0))[..., None], risk, np.nan)


def calibration_intercept(time_days, event, predicted, horizon, *, counts=None):
    """Calibration in the large: log of the observed over the expected cumulative hazard at the horizon.

    The Breslow baseline of a Cox model whose one term, log(−log(1 − predicted)), is an offset with slope 1. Above 0
    more patients die than the model says. Crowson, Atkinson, Therneau 2016 (doi:10.1177/0962280213497434);
    McLernon et al. 2023 (doi:10.7326/M22-0844).

    Parameters
    ----------
    time_days, event, predicted : array, shape (n,)
        `predicted` is the risk of the event by the horizon.
    horizon : float, days
    counts : array, shape (..., n), optional

    Returns
    -------
    float or ndarray, shape (...,)
        0 is right. NaN without an event by the horizon, or without follow-up to it.
    """
    time, event, counts, defined = _until(time_days, event, horizon, counts)
    predicted = probabilities(predicted, "predicted risk")
    deaths, expected = deaths_at_risk(time, event, counts, np.exp(_loglog(predicted)))
    hazard = np.divide(deaths, expected, out=np.zeros(deaths.shape), where=expected > 0).sum(-1)
    return np.log(hazard, out=np.full(np.shape(hazard), np.nan), where=defined)[()]


def calibration_slope(time_days, event, predicted, horizon, *, counts=None):
    """Calibration slope: the coefficient of log(−log(1 − predicted)) in a Cox model of the time to the horizon.

    Below 1 the predictions are too extreme, as an overfitted model's are; above 1 too timid. Follow-up is cut at the
    horizon, so later deaths have no say. Hazards are taken to be proportional, as in the sources of
    `calibration_intercept`.

    Parameters
    ----------
    time_days, event, predicted, horizon, counts
        As in `calibration_intercept`.

    Returns
    -------
    float or ndarray, shape (...,)
        1 is right. NaN where `calibration_intercept` is, and where all are predicted the same.
    """
    time, event, counts, defined = _until(time_days, event, horizon, counts)
    x = _loglog(probabilities(predicted, "predicted risk"))
    if not defined.any():
        return np.full(defined.shape, np.nan)[()]
    spread = np.sqrt(np.clip(_mean(counts, x**2) - _mean(counts, x) ** 2, 0, None))
    scale = x.std() or 1.0
    slopes, _ = _cox(time, event, ((x - x.mean()) / scale)[:, None], counts, horizon)
    return np.where(defined & (spread > 1e-6), slopes[..., 0] / scale, np.nan)[()]


def d_calibration(survival, times, time_days, event, bins: int = 10) -> dict:
    """Distributional calibration: is the predicted survival at the day of death spread evenly from 0 to 1?

    A patient censored where his curve is at s dies later, anywhere from s to 0: he is spread evenly over that. So is
    a death past the last of `times`. Between `times` a curve is a straight line, from 1 on day 0. Censoring makes
    the test conservative. Haider et al. 2020 (https://www.jmlr.org/papers/v21/18-772.html).

    Parameters
    ----------
    survival : array, shape (n, k)
        One row a patient: rows of one patient from several models are not independent, as the test assumes.
    times : array, shape (k,), days
    time_days, event : array, shape (n,)

    Returns
    -------
    dict
        `bins`: patients by predicted survival, from 0 to 0.1 up to 0.9 to 1, ndarray of shape (bins,); `p`: of
        Pearson's χ² against equal bins, NaN without a death.
    """
    from scipy.stats import chisquare

    time, event = checked(time_days, event)
    at = curve_at(probabilities(survival, "predicted survival"), times, time[:, None])[:, 0].clip(0, 1)
    known = event & (time <= times[-1])
    edges = np.linspace(0, 1, bins + 1)
    inside = np.clip(np.searchsorted(edges, at[known], side="right") - 1, 0, bins - 1)
    below = np.maximum(at[~known], 1e-12)[:, None]  # a curve at 0: all of him is in the first bin
    found = np.bincount(inside, minlength=bins) + (np.clip(below - edges[:-1], 0, np.diff(edges)) / below).sum(0)
    return {"p": float(chisquare(found).pvalue) if event.any() else np.nan, "bins": found}


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


def calibration_band(prognosis, outcome, horizon, *, size=50, **resampling) -> pd.DataFrame:
    """The curve whose distance from the diagonal `ici` averages, with a bootstrap interval at each point, by resampling patients.

    Parameters
    ----------
    prognosis : Prognosis
        Of one split.
    outcome : DataFrame
    horizon : float, days
    resampling
        As in `survpack.inference.bootstrap`.

    Returns
    -------
    DataFrame
        `predicted`, `observed`, `low`, `high`, in order of `predicted`; NaN where not defined, no row without a
        patient. The interval is pointwise.
    """
    from survpack.inference import bootstrap, folds_of  # which imports this package

    columns = ["predicted", "observed", "low", "high"]
    sample = Sample.of(prognosis, outcome)
    if not len(sample.patient):
        return pd.DataFrame(columns=columns, dtype=float)
    predicted = 1 - survival_at(prognosis, [horizon])[:, 0]
    at = np.unique(np.linspace(predicted.min(), predicted.max(), size))

    def curve(counts):
        rows = counts[..., sample.patient]
        found = observed_risk(sample.time_days, sample.event, predicted, horizon, at=at, counts=rows)
        return dict(enumerate(np.moveaxis(found, -1, 0)))

    found = bootstrap(curve, len(sample.patients), strata=folds_of(prognosis), **resampling)
    rows = [[risk, *(found[k][name] for name in ("estimate", "low", "high"))] for k, risk in enumerate(at)]
    return pd.DataFrame(rows, columns=columns, dtype=float)


def deaths_at_risk(time, event, counts, weights=1.0):
    """Deaths on each day with one, and the weights of those at risk on it; each of shape (..., days)."""
    order = np.argsort(time, kind="stable")
    days = np.unique(time[event])
    first, after = (np.searchsorted(time[order], days, side=side) for side in ("left", "right"))

    def from_day(values):  # of the patient in each place and all after him; 0 after the last
        sums = np.cumsum((counts * values)[..., order][..., ::-1], axis=-1)[..., ::-1]
        return np.concatenate([sums, np.zeros((*sums.shape[:-1], 1))], axis=-1)

    died = from_day(event)
    return died[..., first] - died[..., after], from_day(weights)[..., first]


def _loglog(risk):
    return np.log(
        -np.log1p(-np.clip(np.asarray(risk, float), 1e-4, 1 - 1e-4))
    )  # a sure risk has leverage, not infinity


def _mean(counts, values):
    return ratio(counts @ values, counts.sum(-1))


def _until(time_days, event, horizon, counts):
    """Outcomes cut at the horizon, counts, and which samples have an event by it and follow-up to it."""
    time, event = checked(time_days, event)
    counts = counts_of(counts, len(time))
    died = event & (time <= horizon)
    defined = ((counts @ died) > 0) & ((counts @ (time >= horizon)) > 0)
    return np.minimum(time, horizon), died, counts, np.asarray(defined)


def _spline_basis(predicted, at, freedom: int):
    """Restricted cubic spline of log(−log(1 − risk)) for `predicted` and for `at`, scaled by the former."""
    x = _loglog(predicted)
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
    return (own - centre) / scale, (basis(_loglog(at)) - centre) / scale


def _cox(time, event, basis, counts, horizon, steps=60):
    """Slopes (..., p) and Breslow baseline hazard to the horizon (...,) of a Cox model, for each row of counts.

    Newton's method; a step that makes a resample less likely is halved. Own code because no library fits hundreds of
    weighted copies of one small model at once.
    """
    shape, counts = counts.shape[:-1], counts.reshape(-1, len(time))
    days = np.unique(time[event])
    at_risk = (time[:, None] >= days).astype(float)
    deaths = counts @ (event[:, None] & (time[:, None] == days))
    slopes, move = np.zeros((2, len(counts), basis.shape[1]))
    best = np.full(len(counts), -np.inf)

    def hazards(rows):
        score = np.clip((slopes[rows] + move[rows]) @ basis.T, -50, 50)
        hazard = counts[rows] * np.exp(score)
        total = hazard @ at_risk
        return score, hazard, np.where(total > 0, total, 1.0)  # nobody at risk: nobody died

    rows = np.arange(len(counts))  # those that still move: a separated resample holds up no other
    for _ in range(steps if len(days) else 0):
        score, hazard, total = hazards(rows)
        likely = (counts[rows] * event * score).sum(-1) - (deaths[rows] * np.log(total)).sum(-1)
        likely -= RIDGE / 2 * ((slopes[rows] + move[rows]) ** 2).sum(-1)
        better = likely >= best[rows] - 1e-9
        move[rows[~better]] /= 2
        on = rows[better]
        slopes[on] += move[on]
        best[on] = likely[better]
        move[on] = _newton(slopes[on], counts[on] * event, deaths[on], hazard[better], total[better], basis, at_risk)
        rows = rows[np.abs(move[rows]).max(axis=1, initial=0) >= 1e-8]
        if not len(rows):
            break
    *_, total = hazards(slice(None))
    baseline = (deaths / total) @ (days <= horizon)
    return (slopes + move).reshape(*shape, basis.shape[1]), baseline.reshape(shape)


def _newton(slopes, died, deaths, hazard, total, basis, at_risk):
    """One step of at most 1 a slope (rows, p), from the hazards of each row's patients and their sums on each day."""
    mean = ((hazard[:, None] * basis.T) @ at_risk / total[:, None]).swapaxes(1, 2)
    expected = hazard * ((deaths / total) @ at_risk.T)
    gradient = (died - expected) @ basis - RIDGE * slopes
    curvature = np.tensordot(expected, basis[:, :, None] * basis[:, None, :], axes=1) + RIDGE * np.eye(basis.shape[1])
    curvature = curvature - (deaths[..., None] * mean).swapaxes(1, 2) @ mean
    move = np.linalg.solve(curvature, gradient[..., None])[..., 0]
    return move / np.maximum(np.abs(move).max(axis=1, keepdims=True), 1)
