"""Scores of a `Prognosis`: does it rank, is it calibrated, how far off are the days.

Every score takes `counts`, how often each patient (or row) is in the sample: ones for the sample itself, a
matrix of resamples for its bootstrap, which then costs one matrix product instead of hundreds of calls.
A score that is not defined (no event, no comparable pair, no valid time) is NaN, never an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.prognosis import Prognosis

METRICS = ("harrell_c", "uno_c", "auc", "ibs", "ici", "mae_days", "r2")
LEAST_UNCENSORED = 0.05  # inverse weights are not trusted where fewer than this share would still be uncensored
RIDGE = 1e-3  # of the calibration curve: keeps a separated resample finite, moves nothing else
KNOTS = {1: (), 2: (0.1, 0.5, 0.9), 3: (0.05, 0.35, 0.65, 0.95)}  # Harrell's quantiles, by degrees of freedom


@dataclass(frozen=True)
class Sample:
    """Predictions beside outcomes, one entry a row of the prognosis.

    Attributes
    ----------
    prognosis : Prognosis
    time_days, event, risk, days : ndarray, shape (rows,)
    groups : ndarray of int, shape (rows,)
        One number a fitted model (seed, repeat, fold): only risks of one model are compared.
    patient : ndarray of int, shape (rows,)
        Position of the row's patient in `patients`.
    patients : ndarray of str, sorted
    """

    prognosis: Prognosis
    time_days: np.ndarray
    event: np.ndarray
    risk: np.ndarray
    days: np.ndarray
    groups: np.ndarray
    patient: np.ndarray
    patients: np.ndarray

    @classmethod
    def of(cls, prognosis: Prognosis, outcome: pd.DataFrame) -> Sample:
        """Look up what happened to each predicted patient.

        Raises
        ------
        BadInput
            For a patient that was predicted and has no outcome.
        """
        table = prognosis.table
        known = outcome.set_index("patient_id")
        lost = table.loc[~table["patient_id"].isin(known.index), "patient_id"]
        if len(lost):
            raise BadInput(
                f"predictions of {prognosis.model}: patient {lost.iloc[0]} is not among the {len(known)} patients "
                "whose outcome is known; score the predictions against the participants they were made for."
            )
        known = known.loc[table["patient_id"]]
        patients, patient = np.unique(table["patient_id"].to_numpy(str), return_inverse=True)
        return cls(
            prognosis,
            known["time_days"].to_numpy(float),
            known["event"].to_numpy(bool),
            table["risk"].to_numpy(float),
            table["days"].to_numpy(float),
            table.groupby(["seed", "repeat", "fold"], sort=False).ngroup().to_numpy(),
            patient,
            patients,
        )

    def frame(self) -> pd.DataFrame:
        """`model`, `patient_id`, `days_predicted`, `time_days`, `event`, one row a prediction."""
        found = self.prognosis.table[["model", "patient_id"]].copy()
        return found.assign(days_predicted=self.days, time_days=self.time_days, event=self.event)


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
    rows = _counts(None if counts is None else np.asarray(counts)[..., sample.patient], len(sample.patient))
    time, event, groups = sample.time_days, sample.event, sample.groups
    grid = valid_times(prognosis.times, time, train_outcome)
    survival = survival_at(prognosis, grid)
    compute = {
        "harrell_c": lambda: concordance(time, event, sample.risk, groups=groups, counts=rows),
        "uno_c": lambda: concordance(
            time, event, sample.risk, groups=groups, counts=rows, case_weights=uno_weights(time, train_outcome)
        ),
        "auc": lambda: _mean_defined(
            cumulative_auc(time, event, 1 - survival, grid, train_outcome, groups=groups, counts=rows)
        ),
        "ibs": lambda: _integral(brier(time, event, survival, grid, train_outcome, counts=rows), grid),
        "ici": lambda: ici(time, event, 1 - survival_at(prognosis, [horizon])[:, 0], horizon, counts=rows),
        "mae_days": lambda: mae_days(time, event, sample.days, counts=rows),
        "r2": lambda: r2(time, event, sample.days, counts=rows),
    }
    found = {name: compute[name]() for name in metrics}
    return found if counts is not None else {name: float(value) for name, value in found.items()}


# --- who outlives whom -------------------------------------------------------------------------------------------


def concordance(time_days, event, risk, *, case_weights=None, groups=None, counts=None):
    """Share of comparable pairs in which the patient who dies first has the higher risk.

    A pair is comparable if the earlier time is a death. Ties in time: of two deaths on one day neither is first,
    the pair does not count; a death and a censoring on one day count, the censored patient lived longer. A tie in
    risk counts one half. Only pairs within a group count: the risks of two folds come from two models and are not
    on one scale. Harrell et al. 1996 (doi:10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4).

    Parameters
    ----------
    time_days, event, risk : array, shape (n,)
    case_weights : array, shape (n,), optional
        Weight of the pairs in which the patient is the one who dies: ones (Harrell) or `uno_weights`.
    groups : array, shape (n,), optional
    counts : array, shape (..., n), optional

    Returns
    -------
    float or ndarray, shape (...,)
        NaN without a comparable pair.
    """
    time, event, risk = np.asarray(time_days, float), np.asarray(event, bool), np.asarray(risk, float)
    counts = _counts(counts, len(time))
    weights = np.ones(len(time)) if case_weights is None else np.asarray(case_weights)
    case = np.flatnonzero(event & (weights > 0))
    later = (time[case, None] < time) | ((time[case, None] == time) & ~event)
    if groups is not None:
        groups = np.asarray(groups)
        later &= groups[case, None] == groups
    pairs = later * weights[case, None]
    return _share_of_pairs(pairs, _wins(risk[case], risk), counts[..., case], counts)


def uno_weights(time_days, train_outcome, tau=None) -> np.ndarray:
    """1 / G(t)², G the Kaplan–Meier curve of censoring; 0 from `tau` on.

    G is taken at t, deaths before censorings on one day, as scikit-survival does; G(t−) differs from it only where
    a training patient is censored on the very day. Uno et al. 2011 (doi:10.1002/sim.4154).

    Parameters
    ----------
    time_days : array, shape (n,)
    train_outcome : DataFrame
        `time_days`, `event`: who G is estimated on.
    tau : float, days, optional
        Never later than `censoring_reach`, which is also what None stands for.
    """
    reach = censoring_reach(train_outcome)
    tau = reach if tau is None else min(tau, reach)
    return np.where(np.asarray(time_days) < tau, _inverse_weights(train_outcome, time_days) ** 2, 0.0)


def cumulative_auc(time_days, event, risk_at, times, train_outcome, *, groups=None, counts=None):
    """Cumulative/dynamic AUC: who died by t against who is alive after t, deaths weighted by 1 / G.

    Pairs are formed within groups, as in `concordance`: pooled over folds, the curves of a model that knows
    nothing would rank patients backwards, because a fold with many deaths is predicted from one with few.

    Parameters
    ----------
    time_days, event : array, shape (n,)
    risk_at : array, shape (n, k)
        1 − S(t) at each of `times`.
    times : array, shape (k,), days
        See `valid_times`.
    train_outcome : DataFrame
    groups : array, shape (n,), optional
    counts : array, shape (..., n), optional

    Returns
    -------
    ndarray, shape (..., k)
        NaN where nobody has died yet or nobody is left.
    """
    time, event = np.asarray(time_days, float), np.asarray(event, bool)
    counts, groups = _counts(counts, len(time)), np.zeros(len(time)) if groups is None else np.asarray(groups)
    weights = _inverse_weights(train_outcome, time)
    values = np.empty((*counts.shape[:-1], len(times)))
    for k, t in enumerate(times):
        case, control = np.flatnonzero(event & (time <= t)), np.flatnonzero(time > t)
        pairs = (groups[case, None] == groups[control]) * weights[case, None]
        wins = _wins(risk_at[case, k], risk_at[control, k])
        values[..., k] = _share_of_pairs(pairs, wins, counts[..., case], counts[..., control])
    return values


def auc_over_time(prognosis, outcome, train_outcome) -> pd.DataFrame:
    """`time_days`, `auc` at the valid times of the prognosis; see `cumulative_auc`."""
    sample = Sample.of(prognosis, outcome)
    grid = valid_times(prognosis.times, sample.time_days, train_outcome)
    risk_at = 1 - survival_at(prognosis, grid)
    auc = cumulative_auc(sample.time_days, sample.event, risk_at, grid, train_outcome, groups=sample.groups)
    return pd.DataFrame({"time_days": grid, "auc": auc})


# --- how good are the probabilities ------------------------------------------------------------------------------


def brier(time_days, event, survival, times, train_outcome, *, counts=None):
    """Squared error of S(t), weighted for censoring (Graf et al. 1999).

    Parameters
    ----------
    time_days, event : array, shape (n,)
    survival : array, shape (n, k)
    times : array, shape (k,), days
        See `valid_times`.
    train_outcome : DataFrame
    counts : array, shape (..., n), optional

    Returns
    -------
    ndarray, shape (..., k)
    """
    time, event = np.asarray(time_days, float)[:, None], np.asarray(event, bool)[:, None]
    counts = _counts(counts, len(time))
    dead = (event & (time <= times)) * survival**2 * _inverse_weights(train_outcome, time)
    alive = (time > times) * (1 - survival) ** 2 * _inverse_weights(train_outcome, times)
    return _ratio(counts @ (dead + alive), counts.sum(-1, keepdims=True))


def ibs_null(prognosis, outcome, train_outcome) -> float:
    """Integrated Brier score of Kaplan–Meier, on the times at which the prognosis is scored.

    In cross-validation each fold is predicted by the development patients outside it.
    """
    sample = Sample.of(prognosis, outcome)
    grid = valid_times(prognosis.times, sample.time_days, train_outcome)
    survival = np.empty((len(sample.time_days), len(grid)))
    for group in np.unique(sample.groups):
        inside = sample.groups == group
        others = train_outcome[~train_outcome["patient_id"].isin(sample.patients[sample.patient[inside]])]
        survival[inside] = _step(*_kaplan_meier(others), grid)
    return float(_integral(brier(sample.time_days, sample.event, survival, grid, train_outcome), grid))


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
    counts = _counts(counts, len(predicted))
    observed = observed_risk(time_days, event, predicted, horizon, counts=counts)
    return _ratio((counts * np.abs(observed - predicted)).sum(-1), counts.sum(-1))


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
    counts = _counts(counts, len(time))
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
        alive, low, high = (_step(days, curve, [horizon])[0] for curve in (survival, *interval))
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


# --- how far off are the days ------------------------------------------------------------------------------------


def mae_days(time_days, event, days, *, counts=None):
    """Mean absolute error of the predicted days, over observed deaths only.

    Censored patients have no day to be compared with. They are the long survivors, so this is a score of the
    early deaths: a model that predicts everyone to die early looks better here than it is.
    """
    time, dead = np.asarray(time_days, float), np.asarray(event, float)
    counts = _counts(counts, len(time))
    return _ratio(counts @ (dead * np.abs(time - days)), counts @ dead)


def r2(time_days, event, days, *, counts=None):
    """Variance of days explained, over observed deaths only; the caution of `mae_days` holds.

    NaN with fewer than two distinct days of death; below 0 where the mean day of death predicts better.
    """
    time, dead = np.asarray(time_days, float), np.asarray(event, float)
    weights = _counts(counts, len(time)) * dead
    mean = _ratio(weights @ time, weights.sum(-1))
    spread = (weights * (time - mean[..., None]) ** 2).sum(-1)
    spread = np.where(spread > 1e-9 * (1 + mean**2), spread, 0.0)  # one day only, but for rounding
    return 1 - _ratio(weights @ (time - days) ** 2, spread)


# --- times at which all this can be asked ------------------------------------------------------------------------


def survival_at(prognosis: Prognosis, times) -> np.ndarray:
    """S(t) of each row, a right-continuous step function with S(0) = 1; shape (rows, len(times))."""
    before = np.column_stack([np.ones(len(prognosis.table)), prognosis.survival])
    return before[:, np.searchsorted(prognosis.times, times, side="right")]


def censoring_reach(train_outcome) -> float:
    """The last training day by which at least `LEAST_UNCENSORED` of the patients would be uncensored."""
    days, uncensored = _kaplan_meier(train_outcome, of_censoring=True)
    return float(days[uncensored >= LEAST_UNCENSORED].max(initial=0.0))


def valid_times(times, time_days, train_outcome) -> np.ndarray:
    """Those of `times` inside the follow-up of the scored patients and the reach of the censoring weights."""
    times, time = np.asarray(times, float), np.asarray(time_days, float)
    first, last = time.min(initial=np.inf), time.max(initial=-np.inf)
    return times[(times >= first) & (times < last) & (times <= censoring_reach(train_outcome))]


# --- parts -------------------------------------------------------------------------------------------------------


def _counts(counts, size: int) -> np.ndarray:
    return np.ones(size) if counts is None else np.asarray(counts, float)


def _ratio(above, below):
    """above / below, NaN where there is nothing below."""
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)[()]


def _wins(risk, risk_of_later):
    return (risk[:, None] > risk_of_later) + 0.5 * (risk[:, None] == risk_of_later)


def _share_of_pairs(pairs, wins, case_counts, other_counts):
    """Weighted share of pairs (cases, others) won; a patient drawn twice makes every pair twice."""
    won = ((case_counts @ (pairs * wins)) * other_counts).sum(-1)
    return _ratio(won, ((case_counts @ pairs) * other_counts).sum(-1))


def _mean_defined(values):
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


def _integral(values, times):
    """Trapezoidal mean over the span of `times`; NaN with fewer than two."""
    if len(times) < 2:
        return np.full(values.shape[:-1], np.nan)[()]
    return np.trapezoid(values, times, axis=-1) / (times[-1] - times[0])


def _kaplan_meier(outcome, of_censoring=False):
    from sksurv.nonparametric import kaplan_meier_estimator

    event, time = outcome["event"].to_numpy(bool), outcome["time_days"].to_numpy(float)
    return kaplan_meier_estimator(event, time, reverse=of_censoring)


def _step(days, values, times):
    return np.r_[1.0, values][np.searchsorted(days, times, side="right")]


def _inverse_weights(train_outcome, times):
    """1 / G(t), held at its last trusted value."""
    times = np.minimum(times, censoring_reach(train_outcome))
    return 1 / _step(*_kaplan_meier(train_outcome, of_censoring=True), times)


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
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        slopes = slopes + np.clip(step, -1, 1)  # a full step from a flat start can overshoot
        if np.abs(step).max(initial=0) < 1e-8:
            break
    _, total = hazards()
    return slopes, (deaths / total) @ (days <= horizon)
