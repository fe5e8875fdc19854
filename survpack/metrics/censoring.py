"""The Kaplan–Meier curve of censoring, and the weights that are its inverse."""

from __future__ import annotations

import numpy as np

LEAST_UNCENSORED = 0.05  # inverse weights are not trusted where fewer than this share would still be uncensored


def censoring_reach(train_outcome) -> float:
    """The last training day by which at least `LEAST_UNCENSORED` of the patients would be uncensored."""
    days, uncensored = kaplan_meier(train_outcome, of_censoring=True)
    return float(days[uncensored >= LEAST_UNCENSORED].max(initial=0.0))


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
    return np.where(np.asarray(time_days) < tau, inverse_weights(train_outcome, time_days) ** 2, 0.0)


def inverse_weights(train_outcome, times):
    """1 / G(t), held at its last trusted value."""
    times = np.minimum(times, censoring_reach(train_outcome))
    uncensored = step(*kaplan_meier(train_outcome, of_censoring=True), times)
    return 1 / np.maximum(uncensored, LEAST_UNCENSORED)  # lower only where nearly all are censored on day 0


def kaplan_meier(outcome, of_censoring=False):
    """Days and the share still alive (uncensored) after each; both empty where there is nobody."""
    from sksurv.nonparametric import kaplan_meier_estimator

    if not len(outcome):
        return np.array([]), np.array([])
    event, time = outcome["event"].to_numpy(bool), outcome["time_days"].to_numpy(float)
    return kaplan_meier_estimator(event, time, reverse=of_censoring)


def step(days, values, times):
    return np.r_[1.0, values][np.searchsorted(days, times, side="right")]
