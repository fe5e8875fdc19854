"""Would it do good to act on the predictions: net benefit, and the curve of it over thresholds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.metrics.outcome import checked, probabilities
from survpack.metrics.parts import counts_of, deaths_at_risk, ratio
from survpack.metrics.sample import Sample, survival_at

THRESHOLDS = np.round(np.arange(0.05, 0.951, 0.025), 3)
TREAT_ALL, TREAT_NONE = "treat all", "treat none"


def net_benefit(time_days, event, predicted, horizon, thresholds, *, counts=None):
    """Share rightly treated minus share wrongly treated, weighed by the odds of the threshold.

    Who would act at a risk of 0.2 takes four needless treatments for one needed. Treated are those with a predicted
    risk of at least the threshold; how many of them have the event by the horizon is Kaplan–Meier's among them.
    Vickers, Elkin 2006 (doi:10.1177/0272989X06295361); with censoring Vickers et al. 2008
    (doi:10.1186/1472-6947-8-53).

    Parameters
    ----------
    time_days, event, predicted : array, shape (n,)
        `predicted` is the risk of the event by the horizon.
    horizon : float, days
    thresholds : array, shape (m,)
        From 0 to below 1.
    counts : array, shape (..., n), optional

    Returns
    -------
    ndarray, shape (..., m)
        0 where nobody is treated; NaN where the treated were not followed to the horizon.

    Raises
    ------
    BadInput
        For a threshold outside [0, 1).
    """
    (time, event), predicted = checked(time_days, event), probabilities(predicted, "predicted risk")
    thresholds = np.atleast_1d(np.asarray(thresholds, float))
    outside = thresholds[~((thresholds >= 0) & (thresholds < 1))]
    if len(outside):
        raise BadInput(f"net benefit: threshold {outside[0]:g} is not a risk from 0 to below 1; leave it out.")
    counts = counts_of(counts, len(time))
    everyone = counts.sum(-1)
    found = []
    for threshold in thresholds:
        above = predicted > threshold - 1e-9  # 1 - 0.8 is a little less than 0.2
        treated = ratio(counts[..., above].sum(-1), everyone)
        alive = _alive(time[above], event[above], horizon, counts[..., above])
        benefit = treated * (1 - alive - alive * threshold / (1 - threshold))
        found.append(np.where(treated == 0, 0.0, benefit))
    return np.stack(found, -1)


def decision_curve(prognoses: dict, outcome, horizon, *, thresholds=THRESHOLDS, **resampling) -> pd.DataFrame:
    """Net benefit of every model over thresholds, beside treating all and treating none.

    Parameters
    ----------
    prognoses : dict of model to Prognosis
        Of one split and the same patients.
    outcome : DataFrame
    horizon : float, days
    resampling
        As in `survpack.inference.bootstrap`.
    thresholds : array, shape (m,)

    Returns
    -------
    DataFrame
        `model`, `threshold`, `net_benefit`, `low`, `high`, where two models are called "treat all" and "treat none".
        NaN where not defined (see `net_benefit`), as where follow-up ends before the horizon.

    Raises
    ------
    BadInput
        If the models did not predict the same patients.
    """
    from survpack.inference import bootstrap, folds_of  # which imports this package

    samples = {model: Sample.of(one, outcome) for model, one in prognoses.items()}
    patients = _patients_of(samples)
    if not len(patients):
        return pd.DataFrame(columns=["model", "threshold", "net_benefit", "low", "high"])
    strata = folds_of(next(iter(prognoses.values())))
    risks = {model: 1 - survival_at(one, [horizon])[:, 0] for model, one in prognoses.items()}
    first = next(iter(samples))
    samples[TREAT_ALL], risks[TREAT_ALL] = samples[first], np.ones(len(risks[first]))

    def of(model, counts):
        sample = samples[model]
        rows = counts[..., sample.patient]
        found = net_benefit(sample.time_days, sample.event, risks[model], horizon, thresholds, counts=rows)
        return dict(zip(thresholds, np.moveaxis(found, -1, 0), strict=True))

    rows = []
    for model in samples:
        found = bootstrap(
            lambda counts, model=model: of(model, counts),
            len(patients), strata=strata, sure=True, **resampling,
        )  # fmt: skip
        rows += [(model, at, *(found[at][key] for key in ("estimate", "low", "high"))) for at in thresholds]
    rows += [(TREAT_NONE, at, 0.0, 0.0, 0.0) for at in thresholds]
    table = pd.DataFrame(rows, columns=["model", "threshold", "net_benefit", "low", "high"])
    return table.astype({name: float for name in table.columns[1:]})


def _patients_of(samples: dict[str, Sample]) -> np.ndarray:
    """Patients of all samples, which are the same."""
    patients = next((sample.patients for sample in samples.values()), np.array([]))
    for model, sample in samples.items():
        odd = sorted(set(patients) ^ set(sample.patients))
        if odd:
            raise BadInput(
                f"decision curve: patient {odd[0]} is predicted by only one of {next(iter(samples))} and {model}, "
                "expected the same patients in both; pass predictions of one split, trained on the same splits."
            )
    return patients


def _alive(time, event, horizon, counts):
    """Kaplan–Meier at the horizon (...,), for each row of counts; NaN where nobody alive was followed to it."""
    deaths, at_risk = deaths_at_risk(time, event & (time <= horizon), counts)
    hazard = np.divide(deaths, at_risk, out=np.zeros(deaths.shape), where=at_risk > 0)
    alive = (1 - hazard).prod(-1)
    followed = counts @ (time >= horizon) > 0
    return np.where(followed | (alive == 0), alive, np.nan)
