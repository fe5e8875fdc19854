"""What only the truth can tell: the best ranking there is, and whether Cox regression finds the hazard again."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from survpack.cohort import Cohort
from survpack.phantom.shared import followed


def recovered(
    truth: pd.DataFrame, facts: dict, outcome: pd.DataFrame, *, cohorts: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Each planted coefficient beside its estimate, and how often a 95 % interval holds it.

    Parameters
    ----------
    truth : DataFrame
        A phantom's truth.parquet: `term_<name>` columns and `linear_predictor`.
    facts : dict
        Its truth.json.
    outcome : DataFrame
        `time_days`, `event` of the same patients, in the same order.
    cohorts : int
        Fresh outcomes of the same patients, drawn from the same hazard and follow-up.
    seed : int

    Returns
    -------
    DataFrame
        A row a coefficient: `term`, `true`, `estimate`, `low`, `high` (95 %, Wald), and `coverage`, the share of
        fresh cohorts whose interval holds the true value (a fit that does not converge holds none). Terms that do
        not vary have no row.
    """
    terms = truth.filter(regex="^term_").rename(columns=lambda name: name.removeprefix("term_")).astype(float)
    terms = terms.loc[:, terms.nunique() > 1]
    true = pd.Series(facts["coefficients"])[list(terms)]
    low, estimate, high = _interval(terms, outcome)
    held = np.zeros(len(true))
    rng = np.random.default_rng(seed)
    for _ in range(cohorts):
        bottom, _, top = _interval(terms, followed(rng, truth["linear_predictor"], facts))
        held += (bottom <= true) & (true <= top)
    columns = {"true": true, "estimate": estimate, "low": low, "high": high, "coverage": held / max(cohorts, 1)}
    return pd.DataFrame(columns).rename_axis("term").reset_index()


def risks(cohort: Cohort, truth: pd.DataFrame) -> dict[str, pd.Series]:
    """What ranks a phantom's patients without being fitted and only a phantom knows, and the published score.

    Age and the volume on the mask, which every cohort has, are ranked once, in stage 02.

    Parameters
    ----------
    truth : DataFrame, indexed by `patient_id` in the cohort's order

    Returns
    -------
    dict
        Some of `oracle oracle_baseline gpa true_volume` to risk, higher is worse; Series of one value a patient.
    """
    found = {"oracle": truth["linear_predictor"]}
    if "linear_predictor_baseline" in truth:
        found["oracle_baseline"] = truth["linear_predictor_baseline"]
    chart = cohort.covariates
    if {"age", "karnofsky", "lesion_count", "extracranial_disease"} <= set(chart):
        from survpack.clinical import graded_prognostic_assessment

        found["gpa"] = -graded_prognostic_assessment(chart)
    volume = next((name for name in ("enhancing_ml", "volume_ml") if name in truth), None)
    return found | ({"true_volume": truth[volume]} if volume else {})


def _interval(terms: pd.DataFrame, outcome: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Low, estimate and high of each coefficient, by lifelines (partial likelihood, Efron's ties); NaN without fit."""
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError, ConvergenceWarning

    table = terms.assign(time_days=np.asarray(outcome["time_days"]), event=np.asarray(outcome["event"]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a rare level looks like separation
            fit = CoxPHFitter().fit(table, "time_days", "event", fit_options={"step_size": 0.5})
    except ConvergenceError:
        return (pd.Series(np.nan, index=terms.columns),) * 3
    return fit.confidence_intervals_.iloc[:, 0], fit.params_, fit.confidence_intervals_.iloc[:, 1]
