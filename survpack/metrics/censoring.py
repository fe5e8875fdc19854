"""The Kaplan–Meier curve of censoring G, the weights that are its inverse, and who counts as alive on a day.

One convention for every score that is weighted for censoring:

- On one day deaths come before censorings. So a death on day T is seen if censoring is not before it, and weighs
  1 / G(T−), G(t−) = P(C ≥ t); and whoever is seen on the day t asked about, last or not, and did not die by it, is alive
  on it and weighs 1 / G(t−). This undoes censoring exactly, on however coarse a scale days are given.
- scikit-survival and torchsurv weigh by G(T) = P(C > T), which is right only where no censoring shares its day with a
  death: on a coarse scale it counts the dead for too much. Move censorings a moment on, and all agree.
- G is trusted down to `LEAST_UNCENSORED`. The day on which it falls below is its reach; where it never does, as when the
  last training patient died, the reach is the last training day. Beyond it G is held, and nothing is said.
- So where all who are left are censored on one day (administrative censoring) that day is still scored, and without
  earlier censoring every weight is 1.
"""

from __future__ import annotations

import numpy as np

from survpack.metrics.outcome import ROUNDING, checked, numbers, table_of

LEAST_UNCENSORED = 0.05  # inverse weights are not trusted where fewer than this share would still be uncensored


def censoring_reach(train_outcome) -> float:
    """The first training day after which fewer than `LEAST_UNCENSORED` would be uncensored; the last if there is none."""
    days, uncensored = kaplan_meier(train_outcome, of_censoring=True)
    return float(days[uncensored < LEAST_UNCENSORED - ROUNDING].min(initial=days.max(initial=0.0)))


def uno_weights(time_days, train_outcome, tau=None) -> np.ndarray:
    """1 / G(t−)², G the Kaplan–Meier curve of censoring; 0 from `tau` on. Uno et al. 2011 (doi:10.1002/sim.4154).

    Parameters
    ----------
    time_days : array, shape (n,)
    train_outcome : DataFrame
        `time_days`, `event`: who G is estimated on.
    tau : float, days, optional
        Never later than `censoring_reach`, which is also what None stands for. Deaths before it count: a death on the
        day on which all others are censored does not, which is Harrell's C of the deaths before that day.
    """
    reach = censoring_reach(train_outcome)
    tau = reach if tau is None else min(tau, reach)
    time = numbers(time_days, "`time_days`")
    return np.where(time < tau, inverse_weights(train_outcome, time) ** 2, 0.0)


def inverse_weights(train_outcome, times, *, before: bool = True):
    """1 / G(t−), what a patient seen on day t weighs; or 1 / G(t). Held at its last trusted value."""
    days, uncensored = kaplan_meier(train_outcome, of_censoring=True)
    trusted = uncensored >= LEAST_UNCENSORED - ROUNDING
    return 1 / step(days[trusted], uncensored[trusted], times, before=before)


def trusted(times, train_outcome) -> np.ndarray:
    """Whether at least `LEAST_UNCENSORED` are uncensored after each of `times`, shape (k,)."""
    return step(*kaplan_meier(train_outcome, of_censoring=True), times) >= LEAST_UNCENSORED - ROUNDING


def alive_on(time_days, event, times, train_outcome) -> tuple[np.ndarray, np.ndarray]:
    """Who is known to be alive on each day asked about, and what such a patient weighs.

    Parameters
    ----------
    time_days, event : ndarray, shape (n,)
    times : array, shape (k,), days
    train_outcome : DataFrame

    Returns
    -------
    alive : ndarray of bool, shape (n, k)
    weights : ndarray, shape (k,)
    """
    time, times = time_days[:, None], np.asarray(times, float)
    return (time > times) | ((time == times) & ~event[:, None]), inverse_weights(train_outcome, times)


def kaplan_meier(outcome, of_censoring=False):
    """Days and the share still alive (uncensored) after each; both empty where there is nobody."""
    from sksurv.nonparametric import kaplan_meier_estimator

    if not len(outcome):
        return np.array([]), np.array([])
    known = table_of(outcome) if "patient_id" in outcome else outcome
    time, event = checked(known["time_days"], known["event"])
    return kaplan_meier_estimator(event, time, reverse=of_censoring)


def step(days, values, times, *, before: bool = False):
    """The value of a curve from 1 after each of `times`, or just before it."""
    return np.r_[1.0, values][np.searchsorted(days, times, side="left" if before else "right")]
