"""How sure are we of a score: bootstrap intervals over patients, and paired differences between models."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
from tqdm import tqdm

from survpack.errors import BadInput
from survpack.metrics import METRICS, scores
from survpack.numbers import amount, interval_text
from survpack.params import Scores, per_cohort
from survpack.prognosis import SPLITS, Prognosis

MOST_UNDEFINED = 0.2  # share of resamples without a score above which there is no interval


def resamples(patients: int, *, repeats: int, seed: int) -> np.ndarray:
    """How often each patient is drawn when as many are drawn with replacement.

    The same seed and number of patients give the same resamples, which is what pairs two models.

    Returns
    -------
    ndarray of int, shape (repeats, patients)
    """
    return np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=repeats)


def bootstrap(score, patients: int, *, repeats: int, confidence: float, seed: int) -> dict:
    """Percentile intervals of scores by resampling patients.

    A patient keeps his fold and is resampled whole, drawn twice he counts twice. The models are not refitted and
    the censoring weights not re-estimated: the interval is that of these predictions.
    Efron, Tibshirani 1993, chapter 13.

    Parameters
    ----------
    score : callable
        From counts, shape (..., patients), to `{metric: array of shape (...,)}`.
    patients : int
    repeats : int
    confidence : float
        0.95 for a 95 % interval.
    seed : int

    Returns
    -------
    dict
        `{metric: {"estimate", "low", "high"}}`, floats or None. Undefined resamples are dropped; where more than
        `MOST_UNDEFINED` of them are, there is no interval.
    """
    if patients == 0:
        raise BadInput("bootstrap: no patient to resample, expected at least one; check the split of the predictions.")
    estimates = score(np.ones(patients))
    drawn = score(resamples(patients, repeats=repeats, seed=seed))
    return {name: interval(estimates[name], drawn[name], confidence) for name in estimates}


def interval(estimate: float, drawn, confidence: float) -> dict:
    """`{"estimate", "low", "high"}` of one score from its resamples, None where not defined."""
    drawn = np.asarray(drawn, float)
    defined = drawn[np.isfinite(drawn)]
    low = high = math.nan
    if np.isfinite(estimate) and len(defined) >= (1 - MOST_UNDEFINED) * len(drawn):
        low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {"estimate": _finite(estimate), "low": _finite(low), "high": _finite(high)}


def paired_difference(
    prognosis_a, prognosis_b, outcome, metric, *, train_outcome, horizon, repeats, confidence, seed
) -> dict:
    """Score of a minus score of b on the same resamples of the same patients.

    Parameters
    ----------
    prognosis_a, prognosis_b : Prognosis
        Of one split.
    outcome, train_outcome : DataFrame
    metric : str
        One of `METRICS`.
    horizon : float, days
    repeats, confidence, seed
        As in `bootstrap`.

    Returns
    -------
    dict
        `{"estimate", "low", "high"}`.

    Raises
    ------
    BadInput
        For an unknown metric, or if the two did not predict the same patients.
    """
    if metric not in METRICS:
        raise BadInput(f"paired difference: metric '{metric}' is not one of {', '.join(METRICS)}; choose one of these.")
    _same_patients([prognosis_a, prognosis_b])

    def difference(counts):
        a, b = (
            scores(one, outcome, train_outcome, horizon, counts=counts, metrics=[metric])[metric]
            for one in (prognosis_a, prognosis_b)
        )
        return {metric: a - b}

    patients = prognosis_a.table["patient_id"].nunique()
    return bootstrap(difference, patients, repeats=repeats, confidence=confidence, seed=seed)[metric]


def compare(prognoses: dict[str, Prognosis], participants, train_outcome, horizon, params: Scores) -> dict:
    """Paired differences in Harrell's C, out of fold, of the pairs of models that params.yaml names.

    Returns
    -------
    dict
        `(a, b)` to `{"estimate", "low", "high"}`, for the pairs of which both were trained.
    """
    return {
        (a, b): paired_difference(
            prognoses[a].of("cv"), prognoses[b].of("cv"), participants, "harrell_c",
            train_outcome=train_outcome, horizon=horizon,
            repeats=params.bootstrap, confidence=params.confidence, seed=params.seed,
        )
        for a, b in params.compare
        if {a, b} <= set(prognoses)
    }  # fmt: skip


def reading(difference: dict, label_a: str, label_b: str) -> str:
    """A paired difference as a line: shown only if its interval excludes 0."""
    estimate, low, high = difference["estimate"], difference["low"], difference["high"]
    named = f"{label_a} minus {label_b}"
    if estimate is None:
        return f"{named}: not defined"
    if low is None:
        return f"{named}: {amount(estimate, 2)} (no interval): not shown"
    # a bound is never printed as 0 unless it is 0, or the verdict would seem to contradict it
    smallest = min((abs(bound) for bound in (low, high) if bound), default=1.0)
    digits = min(max(2, math.ceil(-math.log10(2 * smallest)) if smallest < 0.005 else 2), 6)
    shown = "shown" if low > 0 or high < 0 else "not shown"
    return f"{named}: {interval_text(difference, digits)}: {shown}"


def evaluate(prognoses: dict[str, Prognosis], participants: pd.DataFrame, dev_ids, params: Scores, cohort: str) -> dict:
    """Every score of every model, out of fold and held out, with intervals on shared resamples.

    Parameters
    ----------
    prognoses : dict of str to Prognosis
    participants : DataFrame
        `patient_id`, `time_days`, `event`.
    dev_ids : collection of str
        The development patients: who the censoring weights are estimated on, and the only ones cross-validated.
    params : Scores
        The `scores` of params.yaml.
    cohort : str
        For the horizon of calibration.

    Returns
    -------
    dict
        `{"cv": {model: {metric: {"estimate", "low", "high"}}}, "test": {…}}`, ready for JSON.

    Raises
    ------
    BadInput
        If models of one split predicted different patients, or a patient is on both sides of the split.
    """
    train_outcome = participants[participants["patient_id"].isin(dev_ids)]
    horizon = per_cohort(params.horizon_days, cohort)
    splits = {split: {name: one.of(split) for name, one in prognoses.items()} for split in SPLITS}
    for split, models in splits.items():
        _check_side(models, set(dev_ids), split)
        _same_patients(list(models.values()))
    found = {split: {} for split in SPLITS}
    jobs = [(split, name, one) for split, models in splits.items() for name, one in models.items() if len(one.table)]
    for split, name, one in tqdm(jobs, desc=f"{cohort}: scores", mininterval=2):
        score = partial(_scores_of, one, participants, train_outcome, horizon)
        found[split][name] = bootstrap(
            score,
            one.table["patient_id"].nunique(),
            repeats=params.bootstrap,
            confidence=params.confidence,
            seed=params.seed,
        )
    return found


def _scores_of(prognosis, outcome, train_outcome, horizon, counts):
    return scores(prognosis, outcome, train_outcome, horizon, counts=counts)


def _same_patients(prognoses: list[Prognosis]) -> None:
    for one in prognoses[1:]:
        odd = sorted(set(prognoses[0].table["patient_id"]) ^ set(one.table["patient_id"]))
        if odd:
            names = " and ".join(dict.fromkeys(pd.concat([prognoses[0].table, one.table])["model"]))
            raise BadInput(
                f"predictions of {names}: patient {odd[0]} is in only one of the two, expected the same patients in "
                "both, or their scores cannot be compared; train both on the same splits."
            )


def _check_side(models: dict[str, Prognosis], dev_ids: set, split: str) -> None:
    for name, one in models.items():
        wrong = one.table.loc[one.table["patient_id"].isin(dev_ids) != (split == "cv"), "patient_id"]
        if len(wrong):
            where = "not a development patient" if split == "cv" else "a development patient"
            raise BadInput(
                f"predictions of {name}, split '{split}': patient {wrong.iloc[0]} is {where}, expected no patient on "
                "both sides of the split; train it again on the present splits."
            )


def _finite(value) -> float | None:
    return float(value) if np.isfinite(value) else None
