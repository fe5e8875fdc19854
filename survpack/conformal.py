"""Lower bounds on survival time that are kept with a stated probability, however wrong the model is.

A patient's bound is the day on which the predicted curve falls to some level. The level is read from development
patients whose predictions were made out of fold: a death weighs by the inverse chance of having been seen (IPCW), and
the share of deaths before their bound, with one more death added for the next patient, may be at most 1 - coverage.

Without censoring this is split conformal prediction, whose coverage is at least nominal for any model and any n.
Under censoring it holds as far as censoring is independent of survival and its curve is well estimated (Candès, Lei,
Ren 2023, doi:10.1093/jrsssb/qkac004; Gui et al. 2024, doi:10.1093/biomet/asad076; Davidov et al. 2025, ICLR; Sesia,
Svetnik 2024, arXiv:2412.09729; the predicted survival at death as the score: Qi, Yu, Greiner 2024, ICML and NeurIPS).
It is coverage of patients taken together: a group may lie below it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm

from survpack.errors import BadInput
from survpack.metrics.censoring import LEAST_UNCENSORED, inverse_weights, kaplan_meier, step
from survpack.metrics.outcome import table_of
from survpack.metrics.sample import Sample
from survpack.phantom.oracle import covered
from survpack.prognosis import SPLITS, Prognosis

CAPPED = -1.0  # a level that no curve reaches: the bound is the last day anything can be said about


def lower_bounds(prognosis: Prognosis, outcome: pd.DataFrame, coverage: float) -> pd.DataFrame:
    """A day that each patient outlives with probability `coverage` or more.

    A fold is calibrated on the other folds, the test set on all of development, each run (seed, repeat) by itself.
    The models of the other folds were trained on the fold's own patients, as in CV+ (Barber et al. 2021,
    doi:10.1214/20-AOS1965): exact for neither, near nominal in practice.

    Parameters
    ----------
    prognosis : Prognosis
        With its rows of "cv"; those of "test" may be absent.
    outcome : DataFrame
        `patient_id`, `time_days`, `event`; only that of other folds decides a patient's bound.
    coverage : float
        Between 0 and 1, say 0.9.

    Returns
    -------
    DataFrame, a row a prediction
        `patient_id`, `split`, `fold`, `bound_days`, which is 0 where the calibrating patients are too few to say
        anything, and never later than the last predicted day or the day from which too few are still followed.

    Raises
    ------
    BadInput
        For a coverage that is no probability, or a patient without an outcome.
    """
    _require_probability(coverage)
    sample = Sample.of(prognosis, outcome)
    table, curves, times = prognosis.table, *_curves(prognosis)
    at_time = _at_time(curves, times, sample.time_days)
    known = pd.DataFrame({"time_days": sample.time_days, "event": sample.event})
    out_of_fold = table["split"].eq("cv").to_numpy()
    bound = np.zeros(len(table))
    for (seed, repeat, fold), rows in table.groupby(["seed", "repeat", "fold"]).indices.items():
        same = table["seed"].eq(seed) & table["repeat"].eq(repeat)
        others = (same & table["fold"].ne(fold)).to_numpy() & out_of_fold
        bound[rows] = _calibrated(known[others], at_time[others], curves[rows], times, coverage)
    return table[["patient_id", "split", "fold"]].assign(bound_days=bound)


def learn(prognosis: Prognosis, outcome: pd.DataFrame, coverage: float) -> dict:
    """The rule of `lower_bounds` for a patient who is yet to come, from all development patients of the first run.

    Parameters
    ----------
    prognosis : Prognosis
        Only its rows of "cv" are read.
    outcome : DataFrame
        `patient_id`, `time_days`, `event`.
    coverage : float

    Returns
    -------
    dict
        `level`, the predicted survival at which the bound lies, or None where nothing can be said; `cap`, days, the
        latest bound; `coverage`.

    Raises
    ------
    BadInput
        As `lower_bounds`; and where there is no row of "cv".
    """
    _require_probability(coverage)
    run = first_run(prognosis)
    sample = Sample.of(run, outcome)
    known = pd.DataFrame({"time_days": sample.time_days, "event": sample.event})
    level, cap = _rule(known, _at_time(*_curves(run), sample.time_days), run.times[-1], coverage)
    return {"level": None if level is None else float(level), "cap": float(cap), "coverage": coverage}


def bound(rule: dict, curve: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The day that a new patient outlives with the rule's coverage; 0 where nothing can be said.

    Parameters
    ----------
    rule : dict
        Of `learn`.
    curve : array, shape (…, k)
        Survival as the model predicts it, at `times`.
    times : array, shape (k,), days

    Returns
    -------
    ndarray, shape (…)
    """
    curve = np.asarray(curve, float)
    curves = _from_one(curve.reshape(-1, curve.shape[-1]))
    return _bounds(curves, np.r_[0.0, times], rule["level"], rule["cap"]).reshape(curve.shape[:-1])


def first_run(prognosis: Prognosis) -> Prognosis:
    """The out-of-fold predictions of the first seed and repeat: a row a patient.

    Raises
    ------
    BadInput
        Where nothing was predicted out of fold.
    """
    table = prognosis.table[prognosis.table["split"] == "cv"]
    if table.empty:
        raise BadInput(
            f"predictions of {prognosis.model}: no row of split 'cv', expected those made out of fold; "
            "run `dvc repro` to remake them."
        )  # fmt: skip
    same = (table[["seed", "repeat"]] == table[["seed", "repeat"]].min()).all(axis=1)
    return Prognosis(table[same].reset_index(drop=True), prognosis.times)


def fallen(prognosis: Prognosis, outcome: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """How far each patient's own curve had fallen on the last day they were seen, and whether they died then.

    Who was seen beyond the last predicted day is censored there.
    """
    sample = Sample.of(prognosis, outcome)
    at_time = _at_time(*_curves(prognosis), sample.time_days)
    return 1 - at_time, sample.event & (sample.time_days <= prognosis.times[-1])


def coverage_observed(bounds: pd.DataFrame, outcome: pd.DataFrame, train_outcome: pd.DataFrame, *, confidence) -> dict:
    """Share of patients who reach their bound, of those seen until then or dead before, inversely weighted.

    Weights as in the Brier score (Graf et al. 1999): a death before the bound by its own day, a patient seen alive on
    the bound by the bound's, each 1 / G(t−): who is censored on the very day reached it. Wilson's interval on Kish's effective number; it does not shrink to a point at 100 %.

    Parameters
    ----------
    bounds : DataFrame
        `patient_id`, `bound_days`.
    outcome, train_outcome : DataFrame
        `patient_id`, `time_days`, `event`; the censoring weights are estimated on the latter.
    confidence : float

    Returns
    -------
    dict
        `{"estimate", "low", "high"}`; None where no patient's fate is known.
    """
    known = table_of(outcome).loc[bounds["patient_id"].astype(str)]
    time, event = known["time_days"].to_numpy(), known["event"].to_numpy()
    bound = bounds["bound_days"].to_numpy(float)
    kept = time >= bound
    weight = np.where(kept | event, inverse_weights(train_outcome, np.minimum(time, bound), before=True), 0.0)
    if not weight.any():
        return {"estimate": None, "low": None, "high": None}
    share = float(weight @ kept / weight.sum())
    once = bounds["patient_id"].nunique() / len(bounds)  # a patient predicted by many runs is one patient
    return {"estimate": share, **_wilson(share, once * weight.sum() ** 2 / (weight @ weight), confidence)}


def table(study, prognoses: dict[str, Prognosis], coverage: float) -> pd.DataFrame:
    """How the bounds of each model hold: observed, and on a phantom true.

    Parameters
    ----------
    study : Study
    prognoses : dict of str to Prognosis
    coverage : float

    Returns
    -------
    DataFrame, a row a model and split
        `model`, `split`, `patients`; `observed`, `low`, `high` (`coverage_observed`); `true`, and `true_worst`, that
        of the quarter at highest true risk (NaN without a truth); `median_bound_days`; `without_bound`, the patients
        of whom nothing can be said.
    """
    outcome = study.cohort.outcome
    development = outcome[outcome["patient_id"].isin(study.development)]
    rows = []
    for model, prognosis in prognoses.items():
        found = lower_bounds(prognosis, outcome, coverage)
        for split, bounds in ((split, found[found["split"] == split]) for split in SPLITS):
            if bounds.empty:
                continue
            seen = coverage_observed(bounds, outcome, development, confidence=study.params.scores.confidence)
            known = covered(study, bounds) or {"estimate": np.nan, "highest_risk": np.nan}
            rows.append({
                "model": model, "split": split, "patients": bounds["patient_id"].nunique(),
                "observed": seen["estimate"], "low": seen["low"], "high": seen["high"],
                "true": known["estimate"], "true_worst": known["highest_risk"],
                "median_bound_days": bounds["bound_days"].median(),
                "without_bound": bounds.loc[bounds["bound_days"] <= 0, "patient_id"].nunique(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _require_probability(coverage: float) -> None:
    if not 0 < coverage < 1:
        raise BadInput(f"conformal bounds: coverage is {coverage}, expected a number between 0 and 1, such as 0.9.")


def _curves(prognosis: Prognosis) -> tuple[np.ndarray, np.ndarray]:
    """Predicted survival from 1 on day 0, never rising, read linearly between its `times`; both returned."""
    return _from_one(prognosis.survival), np.r_[0.0, prognosis.times]


def _from_one(survival: np.ndarray) -> np.ndarray:
    return np.minimum.accumulate(np.column_stack([np.ones(len(survival)), survival]), axis=1)


def _at_time(curves: np.ndarray, times: np.ndarray, days: np.ndarray) -> np.ndarray:
    """What each curve says of its own day."""
    return np.array([np.interp(day, times, curve) for day, curve in zip(days, curves, strict=True)])


def _calibrated(known: pd.DataFrame, at_time: np.ndarray, curves: np.ndarray, times: np.ndarray, coverage: float):
    """Bounds of `curves`, from the outcomes of others (`known`) and their predicted survival `at_time`."""
    return _bounds(curves, times, *_rule(known, at_time, times[-1], coverage))


def _rule(known: pd.DataFrame, at_time: np.ndarray, last: float, coverage: float) -> tuple[float | None, float]:
    """The level to which a curve falls on its bound (None: nothing can be said), and the latest day of a bound."""
    if known.empty:
        return None, 0.0
    days, uncensored = kaplan_meier(known, of_censoring=True)
    # from there on one more death, with its weight, would by itself break the promise
    needed = max(LEAST_UNCENSORED, coverage / (1 - coverage) / len(known))
    cap = min(last, days[uncensored < needed - 1e-9].min(initial=days[-1]))
    before = known["time_days"].to_numpy() < cap  # a later death misses no bound
    weight = 1 / step(days, uncensored, known["time_days"].to_numpy()[before], before=True)
    died = known["event"].to_numpy()[before]
    score = np.r_[at_time[before][died], CAPPED]
    return _level(score, np.r_[weight[died], weight.max(initial=1.0)], len(known), coverage), cap


def _bounds(curves: np.ndarray, times: np.ndarray, level: float | None, cap: float) -> np.ndarray:
    return np.zeros(len(curves)) if level is None else np.minimum(_first_day(curves, times, level), cap)


def _level(score: np.ndarray, weight: np.ndarray, patients: int, coverage: float) -> float | None:
    """The least level at which few enough deaths lie above it; None where not even the highest will do.

    The next patient counts as missed, with the largest weight of a death missed or at the level.
    """
    order = np.argsort(-score, kind="stable")
    score, weight = score[order], weight[order]
    following = np.maximum.accumulate(weight)
    missed = (weight.cumsum() - weight + following) / (patients + following)
    allowed = int((missed <= 1 - coverage + 1e-9).sum())
    return score[allowed - 1] if allowed else None


def _first_day(curves: np.ndarray, times: np.ndarray, level: float) -> np.ndarray:
    """When each curve falls to the level; the last of `times` where it does not."""
    below = curves <= level
    after = np.where(below.any(axis=1), below.argmax(axis=1), len(times) - 1)
    before, row = np.maximum(after - 1, 0), np.arange(len(curves))
    fall = curves[row, before] - curves[row, after]
    share = np.divide(curves[row, before] - level, fall, out=np.ones(len(curves)), where=fall > 0).clip(0, 1)
    return times[before] + share * (times[after] - times[before])


def _wilson(share: float, size: float, confidence: float) -> dict:
    """Wilson 1927; scipy's takes whole numbers only."""
    z2 = norm.ppf((1 + confidence) / 2) ** 2
    middle = (share + z2 / (2 * size)) / (1 + z2 / size)
    half = np.sqrt(z2 * (share * (1 - share) / size + z2 / (4 * size**2))) / (1 + z2 / size)
    return {"low": float(max(middle - half, 0)), "high": float(min(middle + half, 1))}
