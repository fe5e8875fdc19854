"""Survival curves made true on average, with a band that says how well that is known.

At a few fixed days the event is regressed on the curve predicted out of fold, log(−log S) with a complementary log-log
link: one slope, which mends predictions that are too wide or too narrow, and a level for each day (logistic
recalibration of Cox 1958, doi:10.1093/biomet/45.3-4.562, as `metrics.calibration` has it at the horizon). Those lost
before a day are made up for by inverse censoring weights. Between the days levels run straight in log time; the curve
never rises, and on every day patients keep the order of their own curves. Levels and slope are drawn a little towards
the model as it is, and of fewer than `FEW` deaths nothing is learnt: the curve is the model's own, its band from 0 to 1.

A Kaplan–Meier curve of how far patients' own curves had fallen, which stood here before, is fooled by censoring: the day
on which follow-up ends cuts the curves of low risk higher up. Pseudo-values in place of weights do no better where
censoring is independent and worse where it depends on risk (`benchmarks/recalibration.py`).

The band is simultaneous: with the stated confidence it holds a patient's curve on all days up to the last fixed one. Its
covariance is that of the jackknife, its width from the largest of normal deviates. It is open below beyond the last
fixed day, and n patients prove neither 100 % nor 0 % (Clopper, Pearson 1934, doi:10.1093/biomet/26.4.404).

The promise is about patients taken together, as with conformal's bounds: it mends a model that is wrong in its level or
spread, not one that is so for some of its patients. Censoring is taken not to depend on risk; `dependent` says how far
the curves move if it does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.metrics.calibration import cloglog, known_by, loglog
from survpack.metrics.ranking import order_of_death
from survpack.metrics.sample import Sample
from survpack.prognosis import Prognosis, curve_at

DAYS = 5  # at which curves are set right
FEW = 10  # deaths by the first of these days; with fewer in all the curve is left as it is
LEAST = 5  # patients alive on the last
TOWARDS = 0.25  # inverse variance of level and slope about none: standard deviations of 2
PARTS = 100  # patients left out in turn for the covariance; of more, as many parts
SURE = 1e-12  # how near to 0 or 1 a curve is read
DIGITS = 6
SAID = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Recalibration:
    """Level and slope at fixed days, and how well they are known; no fixed days where too few died.

    Attributes
    ----------
    days : ndarray, shape (k,), days, increasing
    usual, level : ndarray, shape (k,)
        Of log(−log S): the mean of development patients, and what is added at it.
    slope : float
        Of the distance from `usual`, 0 or more; 1 is as predicted.
    covariance : ndarray, shape (k + 1, k + 1)
        Of `level` and `slope`.
    width : float
        Standard errors to either side of the curve.
    confidence : float
        That the band holds all of a patient's curve.
    patients, deaths : int
        Whom it was learnt from.
    dependent : float or None
        Mean distance between these curves and those learnt with censoring that depends on risk, on the worst day.
    """

    days: np.ndarray
    usual: np.ndarray
    level: np.ndarray
    slope: float
    covariance: np.ndarray
    width: float
    confidence: float
    patients: int
    deaths: int
    dependent: float | None = None

    @classmethod
    def learn(cls, prognosis: Prognosis, outcome: pd.DataFrame, confidence: float = 0.95) -> Recalibration:
        """From the predictions made out of fold, of the first run (seed, repeat), so that a patient counts once.

        Parameters
        ----------
        prognosis : Prognosis
            Only its rows of "cv" are read.
        outcome : DataFrame
            `patient_id`, `time_days`, `event` of development patients; others are not looked at.
        confidence : float
            Of the band; between 0 and 1.

        Raises
        ------
        BadInput
            For a confidence that is no probability, or a prognosis without "cv".
        """
        from survpack import conformal

        if not 0 < confidence < 1:
            raise BadInput(f"recalibration: confidence is {confidence}, expected a number between 0 and 1, as 0.95.")
        run = conformal.first_run(prognosis)
        sample = Sample.of(run, outcome)
        time, event = sample.time_days, sample.event
        days = fixed_days(run.times, time, event)
        score = loglog(1 - curve_at(run.survival, run.times, days))
        usual = score.mean(0) if len(days) else np.zeros(0)
        found = fitted(time, event, score, days)
        covariance = _jackknife(time, event, score, days, found)
        width = _width(covariance, score - usual, confidence)
        deaths = int((event & (time <= run.times[-1])).sum())
        about = {"patients": len(time), "deaths": deaths, "dependent": _moved(time, event, score, days, found)}
        return cls(days, usual, found[:-1], float(found[-1]), covariance, width, confidence, **about)

    def apply(self, survival: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Recalibrated survival and its band, of predicted survival.

        Parameters
        ----------
        survival : array, shape (…, k)
            The model's curves, falling along the last axis.
        times : array, shape (k,), days, increasing

        Returns
        -------
        middle, low, high : ndarray, shape (…, k)
            Falling, between 0 and 1, low <= middle <= high. Where the model's curve still is 1, `low` is less: that
            everyone is alive on day 0 is the caller's to say.
        """
        falling = np.minimum.accumulate(np.clip(np.asarray(survival, float), 0, 1), axis=-1)
        if not len(self.days):
            return falling, np.zeros(falling.shape), np.ones(falling.shape)
        at, fixed, times = np.log(np.maximum(times, 1e-3)), np.log(self.days), np.asarray(times, float)
        share = np.column_stack([np.interp(at, fixed, one) for one in np.eye(len(fixed))])
        score = loglog(1 - falling, SURE)
        apart = score - _straight(at, fixed, self.usual)
        middle = score + share @ self.level + (self.slope - 1) * apart
        with_slope = np.concatenate([np.broadcast_to(share, (*apart.shape, len(fixed))), apart[..., None]], axis=-1)
        error = self.width * np.sqrt(np.clip(((with_slope @ self.covariance) * with_slope).sum(-1), 0, None))
        middle, low, high = (np.exp(-np.exp(np.clip(middle + move * error, -50, 50))) for move in (0, 1, -1))
        beyond = times > self.days[-1]
        low, high = np.where(beyond, 0, low), np.where(beyond, 1, high)
        middle, high = (np.minimum.accumulate(one, axis=-1) for one in (middle, high))
        low = np.maximum.accumulate(low[..., ::-1], axis=-1)[..., ::-1]  # what bounds it later bounds it before
        least = (1 - self.confidence) ** (
            1 / self.patients
        )  # the exact bound of a share of survivors of whom none died
        return middle, np.minimum(np.minimum(low, middle), least), np.maximum(high, 1 - least)

    def table(self, day: float) -> pd.DataFrame:
        """`said`, `middle`, `low`, `high`: survival predicted to a day, what it has been worth, and the band."""
        found = self.apply(SAID[:, None], np.array([day]))
        return pd.DataFrame(
            {"said": SAID} | dict(zip(("middle", "low", "high"), (one[:, 0] for one in found), strict=True))
        )

    def told(self) -> str:
        """One sentence: what was learnt, or that nothing was."""
        if not len(self.days):
            return (
                f"The curve is the model's own and its band is open: to recalibrate it takes {FEW} deaths and {LEAST} patients "
                f"alive after them (deaths: {self.deaths} of {self.patients} patients)."
            )
        text = (
            f"The curve is recalibrated on {self.deaths} deaths among {self.patients} patients (slope {self.slope:.2f})"
        )
        if self.dependent is None:
            return f"{text}."
        return f"{text}; were censoring to depend on risk, chances would move by {100 * self.dependent:.1f} points on average."

    def as_json(self) -> dict:
        """Lists and numbers that `from_json` takes back."""
        lists = {name: getattr(self, name).round(DIGITS).tolist() for name in ("usual", "level", "covariance")}
        lists["days"] = self.days.tolist()  # as they stand in the model's grid
        said = ("slope", "width", "confidence", "patients", "deaths", "dependent")
        return lists | {name: getattr(self, name) for name in said}

    @classmethod
    def from_json(cls, stored: dict) -> Recalibration:
        """What `as_json` gave.

        Raises
        ------
        BadInput
            For what it cannot have given.
        """
        try:
            lists = [np.array(stored[name], float) for name in ("days", "usual", "level", "covariance")]
            numbers = [float(stored[name]) for name in ("slope", "width", "confidence")]
            rest = [stored[name] for name in ("patients", "deaths", "dependent")]
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"recalibration: {error} is amiss in what was stored; make the bundle anew.") from None
        (days, usual, level, covariance), (slope, width, confidence) = lists, numbers
        shapes = days.shape == usual.shape == level.shape == (len(level),) and covariance.shape == (len(days) + 1,) * 2
        if (
            not shapes
            or not (np.diff(days, prepend=0) > 0).all()
            or not (slope >= 0 and width >= 0 and 0 < confidence < 1)
        ):
            raise BadInput("recalibration: what was stored is no rule of rising days; make the bundle anew.")
        return cls(days, usual, level, slope, covariance, width, confidence, *rest)


def fitted(time, event, score, days, counts=None, weights=None, start=0.0) -> np.ndarray:
    """Level at each day and slope.

    Parameters
    ----------
    time, event : ndarray, shape (n,)
    score : ndarray, shape (n, k)
        log(−log S) as predicted.
    days : ndarray, shape (k,)
    counts : ndarray, shape (..., n), optional
    weights : ndarray, shape (n, k), optional
        Of patients whose fate on each day is known, in place of those of `known_by`.
    start : array, shape (k + 1,), optional
        Level and slope less 1 from which to begin.

    Returns
    -------
    ndarray, shape (..., k + 1)
        Without counts the slope is never below 0.
    """
    size, each = len(time), np.ones(len(time)) if counts is None else counts
    if not len(days):
        return np.ones((*each.shape[:-1], 1))
    fates = [known_by(time, event, day, each) for day in days]
    died = np.concatenate([one for one, _ in fates])
    weights = np.concatenate([one for _, one in fates], axis=-1) if weights is None else weights.T.ravel()
    of_day, usual = np.kron(np.eye(len(days)), np.ones((size, 1))), np.repeat(score.mean(0), size)
    penalty = np.r_[np.full(len(days), TOWARDS), len(days) * TOWARDS]  # each patient has a row a day for the slope
    flat = score.T.ravel()
    found = cloglog(died, np.column_stack([of_day, flat - usual]), weights, flat, penalty, start)
    found[..., -1] += 1
    if counts is None and found[-1] < 0:  # backwards: patients' order would be turned over
        return np.r_[cloglog(died, of_day, weights, usual, penalty[:-1]), 0.0]
    return found


def dependent_weights(time, event, risk, days) -> np.ndarray:
    """Weights of known fates where censoring depends on risk, by a Cox model of censoring (scikit-survival); shape (n, k)."""
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.util import Surv

    place = order_of_death(time, event) + 1.0  # on one day deaths come before censorings
    censoring = CoxPHSurvivalAnalysis(alpha=1e-3).fit(risk[:, None], Surv.from_arrays(~event, place))
    hazard, size = censoring.cum_baseline_hazard_, np.exp(censoring.predict(risk[:, None]))
    weights = np.empty((len(time), len(days)))
    for k, day in enumerate(days):
        last = place[time < day].max(initial=0.0)
        lost = ~event & (time < day)
        weights[:, k] = np.where(lost, 0, np.exp(size * hazard(np.clip(np.minimum(place - 0.5, last), *hazard.domain))))
    return weights


def fixed_days(times, time, event) -> np.ndarray:
    """Days of the model's grid, spread over those with deaths before and patients after; none where few died."""
    times = np.asarray(times, float)
    died = (event[:, None] & (time[:, None] <= times)).sum(0)
    alive = ((time[:, None] >= times) & ~(event[:, None] & (time[:, None] <= times))).sum(0)
    usable = times[(died >= FEW) & (alive >= LEAST) & (times > 0)]
    return usable[np.unique(np.linspace(0, len(usable) - 1, DAYS if len(usable) else 0).round().astype(int))]


def _jackknife(time, event, score, days, start) -> np.ndarray:
    """Covariance of level and slope, each patient (or each of `PARTS` parts) left out in turn."""
    size = min(len(time), PARTS)
    without = (np.arange(len(time)) % size != np.arange(size)[:, None]).astype(float)
    found = fitted(time, event, score, days, without, start=start - np.r_[np.zeros(len(days)), 1])
    apart = found - found.mean(0)
    return (size - 1) / size * apart.T @ apart


def _width(covariance, apart, confidence: float) -> float:
    """Standard errors within which the largest error of a patient's days lies; of the middle one of patients."""
    if not apart.shape[1]:
        return 0.0
    order = np.argsort(apart.mean(1))
    shown = apart[order[np.linspace(0, len(order) - 1, min(len(order), 20)).astype(int)]]
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(covariance)))
    drawn = np.random.default_rng(0).normal(size=(2000, len(covariance))) @ root.T
    errors = drawn[:, None, :-1] + drawn[:, None, -1:] * shown
    largest = np.abs(errors / np.sqrt((errors**2).mean(0))).max(-1)
    return float(np.median(np.quantile(largest, confidence, axis=0)))


def _moved(time, event, score, days, found) -> float | None:
    """`Recalibration.dependent`; None where nobody is lost before the last day."""
    if not len(days) or not (~event & (time < days[-1])).any():
        return None
    risk = score.mean(1)
    other = fitted(time, event, score, days, weights=dependent_weights(time, event, risk, days))
    apart = score - score.mean(0)
    curves = [np.exp(-np.exp(np.clip(score + one[:-1] + (one[-1] - 1) * apart, -50, 50))) for one in (found, other)]
    return float(np.abs(curves[0] - curves[1]).mean(0).max())


def _straight(at, known, values):
    """Straight between and beyond `known`; of one point, as a hazard that does not change: slope 1 in log time."""
    slopes = np.diff(values) / np.diff(known) if len(known) > 1 else np.ones(1)
    inside = np.interp(at, known, values)
    return inside + slopes[0] * np.minimum(at - known[0], 0) + slopes[-1] * np.maximum(at - known[-1], 0)
