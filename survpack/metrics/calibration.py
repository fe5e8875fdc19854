"""Of patients told a probability, how many die by then?

Four looks at one question, from coarse to fine: the intercept (is the level right), the slope (is the spread
right), the smooth curve and its `ici` (is every level right), and D-calibration (is every day right).
Van Calster et al. 2016 (doi:10.1016/j.jclinepi.2015.12.005) name the levels.

The first three are regressions of the event by the horizon, as those of van Geloven et al. 2022
(doi:10.1136/bmj-2021-069249): a complementary log-log link, so that hazards need not be proportional and what happens
after the horizon has no say. Those lost before it are made up for by inverse censoring weights (`known_by`), estimated
anew on every resample. Without censoring it is the regression of a binary outcome.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.metrics.censoring import step
from survpack.metrics.outcome import checked, probabilities
from survpack.metrics.parts import counts_of, deaths_at_risk, ratio
from survpack.metrics.ranking import order_of_death
from survpack.metrics.sample import Sample, survival_at
from survpack.prognosis import curve_at

RIDGE = 1e-3  # of standardised slopes: keeps a separated resample finite, moves nothing else
PER_SLOPE = 20  # of the dead, and of the living, that a degree of freedom of the curve takes
SAME = 1e-6  # a spread of predictions that is none
KNOTS = {1: (), 2: (0.1, 0.5, 0.9), 3: (0.05, 0.35, 0.65, 0.95)}  # Harrell's quantiles, by degrees of freedom


def ici(time_days, event, predicted, horizon, *, counts=None):
    """Integrated calibration index: mean distance between predicted and observed risk at the horizon.

    The observed risk is a smooth function of the predicted one: a restricted cubic spline of log(−log(1 − predicted)),
    three degrees of freedom from 60 dead and 60 living, two from 40, a line below. Knots stay where the sample puts them
    while it is resampled. An absolute distance is never below 0, so small samples and their intervals lie too high.
    Austin, Harrell, van Klaveren 2020 (doi:10.1002/sim.8570), whose curve is of a Cox model.

    Parameters
    ----------
    time_days, event, predicted : array, shape (n,)
        `predicted` is the risk of the event by the horizon.
    horizon : float, days
    counts : array, shape (..., n), optional

    Returns
    -------
    float or ndarray, shape (...,)
        NaN where nobody is known to have had the event by the horizon, or nobody to be without it.
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
    died, weights, defined = _asked(time_days, event, horizon, counts)
    predicted = probabilities(predicted, "predicted risk")
    alive = ~died & (np.asarray(time_days) >= horizon)
    freedom = int(np.clip(min(died.sum(), alive.sum()) // PER_SLOPE, 1, 3))
    basis, basis_at = _spline_basis(predicted, predicted if at is None else at, freedom)
    found = cloglog(died, np.column_stack([np.ones(len(died)), basis]), weights, penalty=[0] + [RIDGE] * basis.shape[1])
    score = found[..., :1] + found[..., 1:] @ basis_at.T
    return np.where(defined[..., None], -np.expm1(-np.exp(np.clip(score, -50, 50))), np.nan)


def calibration_intercept(time_days, event, predicted, horizon, *, counts=None):
    """Calibration in the large: log of the observed over the expected cumulative hazard at the horizon.

    log(−log(1 − predicted)) is an offset with slope 1. Above 0 more patients die than the model says.

    Parameters
    ----------
    time_days, event, predicted : array, shape (n,)
        `predicted` is the risk of the event by the horizon.
    horizon : float, days
    counts : array, shape (..., n), optional

    Returns
    -------
    float or ndarray, shape (...,)
        0 is right. NaN where nobody is known to have had the event by the horizon, or nobody to be without it.
    """
    died, weights, defined = _asked(time_days, event, horizon, counts)
    x = loglog(probabilities(predicted, "predicted risk"))
    return np.where(defined, cloglog(died, np.ones((len(x), 1)), weights, x)[..., 0], np.nan)[()]


def calibration_slope(time_days, event, predicted, horizon, *, counts=None):
    """Calibration slope: the coefficient of log(−log(1 − predicted)) for the event by the horizon.

    Below 1 the predictions are too extreme, as an overfitted model's are; above 1 too timid.

    Parameters
    ----------
    time_days, event, predicted, horizon, counts
        As in `calibration_intercept`.

    Returns
    -------
    float or ndarray, shape (...,)
        1 is right. NaN where `calibration_intercept` is, and where all are predicted the same.
    """
    died, weights, defined = _asked(time_days, event, horizon, counts)
    x = loglog(probabilities(predicted, "predicted risk"))
    known = weights > 0
    spread = np.where(known, x, -np.inf).max(-1, initial=-np.inf) - np.where(known, x, np.inf).min(-1, initial=np.inf)
    scale = x.std() if len(x) and x.std() > 0 else 1.0
    basis = np.column_stack([np.ones(len(x)), (x - x.mean()) / scale if len(x) else x])
    found = cloglog(died, basis, weights, penalty=[0, RIDGE])[..., 1] / scale
    return np.where(defined & (spread > SAME), found, np.nan)[()]


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


def known_by(time, event, horizon, counts):
    """Who died by the horizon, and what each patient counts whose fate on it is known: 1 / G of those like him.

    G is the Kaplan–Meier curve of censoring of the same patients, G(T−) for a death on day T and G(horizon−) for who
    was seen on the horizon: deaths of a day come before its censorings. Those lost before count 0. The weights of the
    dead over all are 1 − Kaplan–Meier, exactly. Graf et al. 1999
    (doi:10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>3.0.CO;2-5).

    Parameters
    ----------
    time, event : ndarray, shape (n,)
    horizon : float, days
    counts : ndarray, shape (..., n)

    Returns
    -------
    died : ndarray of bool, shape (n,)
    weights : ndarray, shape (..., n)
    """
    lost = ~event & (time < horizon)
    place = order_of_death(time, event)
    gone, at_risk = deaths_at_risk(place, lost, counts)
    left = np.cumprod(1 - np.divide(gone, at_risk, out=np.zeros(gone.shape), where=at_risk > 0), axis=-1)
    left = np.concatenate([np.ones((*left.shape[:-1], 1)), left], axis=-1)
    uncensored = left[..., np.searchsorted(np.unique(place[lost]), place, side="left")]
    some = counts * ~lost
    return event & (time <= horizon), np.divide(some, uncensored, out=np.zeros(some.shape), where=some > 0)


def cloglog(died, basis, weights, offset=0.0, penalty=0.0, start=0.0, steps=100):
    """Coefficients of binary regressions with a complementary log-log link, one for each row of weights.

    Newton's method on a concave likelihood; a step that makes a row less likely is halved. Own code because no library
    fits hundreds of weighted copies of one small model at once.

    Parameters
    ----------
    died : array of bool, shape (n,)
    basis : array, shape (n, p)
    weights : array, shape (..., n)
    offset : float or array, shape (n,)
    penalty : float or array, shape (p,)
        Half of it times the square of each coefficient is taken from the likelihood.
    start : float or array, shape (p,)
        Coefficients from which to begin.

    Returns
    -------
    ndarray, shape (..., p)
        0 where nobody died or nobody lives: there the likelihood has no maximum.
    """
    died, basis, (size, width) = np.asarray(died, bool), np.asarray(basis, float), np.shape(basis)
    shape, weights = weights.shape[:-1], weights.reshape(-1, size)
    squares = (basis[:, :, None] * basis[:, None, :]).reshape(size, -1)
    penalty = np.broadcast_to(np.asarray(penalty, float), width)
    found, best = np.zeros((len(weights), width)), np.full(len(weights), -np.inf)
    move = found + start
    rows = np.flatnonzero((weights @ died > 0) & (weights @ ~died > 0))
    for _ in range(steps):
        tried = found[rows] + move[rows]
        hazard = np.exp(np.clip(offset + tried @ basis.T, -50, 50))
        gone = np.where(died, hazard, 1.0)
        likely = np.where(died, np.log(-np.expm1(-gone)), -hazard)
        likely = (weights[rows] * likely).sum(-1) - (penalty * tried**2).sum(-1) / 2
        better = likely >= best[rows] - 1e-9
        move[rows[~better]] /= 2
        on, gone, hazard = rows[better], gone[better], hazard[better]
        found[on], best[on] = tried[better], likely[better]
        share = gone / np.expm1(np.minimum(gone, 500))  # of the hazard that the dead outweigh
        slope = weights[on] * np.where(died, share, -hazard)
        bend = weights[on] * np.where(died, share * (gone + share - 1), hazard)
        curvature = (bend @ squares).reshape(-1, width, width) + np.diag(penalty + 1e-12)
        step = np.linalg.solve(curvature, (slope @ basis - penalty * found[on])[..., None])[..., 0]
        move[on] = step / np.maximum(np.abs(step).max(axis=1, initial=0, keepdims=True), 1)
        rows = rows[np.abs(move[rows]).max(axis=1, initial=0) >= 1e-8]  # a separated resample holds up no other
        if not len(rows):
            break
    return found.reshape(*shape, width)


def loglog(risk, least=1e-4):
    """log(−log(1 − risk)), of a risk held `least` away from 0 and 1: a sure risk has leverage, not infinity."""
    return np.log(-np.log1p(-np.clip(np.asarray(risk, float), least, 1 - least)))


def _asked(time_days, event, horizon, counts):
    """`known_by`, and which samples have somebody of either fate."""
    time, event = checked(time_days, event)
    died, weights = known_by(time, event, horizon, counts_of(counts, len(time)))
    return died, weights, np.asarray((weights @ died > 0) & (weights @ ~died > 0))


def _spline_basis(predicted, at, freedom: int):
    """Restricted cubic spline of log(−log(1 − risk)) for `predicted` and for `at`, scaled by the former."""
    x = loglog(predicted)
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
    return (own - centre) / scale, (basis(loglog(at)) - centre) / scale
