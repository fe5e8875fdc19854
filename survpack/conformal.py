"""Lower bounds on survival time that patients taken together outlive as often as is stated, however wrong the model is.

A patient's bound is that of their third of predicted risk: the day before which, of the development patients whom models
of other folds put into that third, at most 1 - coverage died, the next patient counted among the dead (conformal
prediction within groups: Vovk 2013, doi:10.1007/s10994-013-5355-6). Deaths weigh by the inverse chance of having been
seen (Candès, Lei, Ren 2023, doi:10.1093/jrsssb/qkac004). No curve is read but to rank patients: a level of the curve
that is right for the models of the folds is wrong for a final model that is more, or less, overfitted than they
(`benchmarks.conformal`: 0.90 becomes 0.6).

What is promised, of patients taken together, never of one of them:

- `coverage`, as far as the final model puts patients into the thirds into which the models of the folds put them. This
  is no theorem; `benchmarks.conformal` counts it with models fitted anew.
- 1 - 2 (1 - coverage), the guarantee of the jackknife+ (Barber et al. 2021, doi:10.1214/20-AOS1965), here for any model
  at all: no third's bound lies beyond that which the whole cohort outlives so often, and that one has no model in it.
  Without censoring it holds for every n; under censoring as far as that is independent of survival and its curve
  well estimated (Gui et al. 2024, doi:10.1093/biomet/asad076).

CV+ has almost the same guarantee and needs the model of every fold at prediction; split conformal holds patients back from
training. A group that the model does not know of may lie below either promise.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm

from survpack.errors import BadInput
from survpack.metrics.censoring import LEAST_UNCENSORED, inverse_weights, kaplan_meier, step
from survpack.metrics.outcome import ROUNDING, table_of
from survpack.metrics.sample import Sample
from survpack.numbers import amount
from survpack.phantom.oracle import covered
from survpack.prognosis import SPLITS, Prognosis, curve_at

THIRDS = (1 / 3, 2 / 3)
RUN = ["seed", "repeat", "fold"]


def lower_bounds(prognosis: Prognosis, outcome: pd.DataFrame, coverage: float, horizon: float) -> pd.DataFrame:
    """A day a patient, outlived as often as the module's text says.

    A fold is calibrated on the other folds, the test set on all of development, each run (seed, repeat) by itself.

    Parameters
    ----------
    prognosis : Prognosis
        With its rows of "cv"; those of "test" may be absent.
    outcome : DataFrame
        `patient_id`, `time_days`, `event`; only that of other folds decides a patient's bound.
    coverage : float
        Between 0.5 and 1, say 0.9.
    horizon : float, days
        The predicted risk of dying by then parts the thirds.

    Returns
    -------
    DataFrame, a row a prediction
        `patient_id`, `split`, `fold`; `bound_days`, which is 0 where nothing can be said (`unsaid`), and never later than
        the day from which too few are still followed; `riskiest`, whether among the quarter of the model's patients to
        whom it gives the highest risk.

    Raises
    ------
    BadInput
        For a coverage that is none, or a patient without an outcome.
    """
    _require_coverage(coverage)
    sample, table, risk = Sample.of(prognosis, outcome), prognosis.table, risk_at(prognosis, horizon)
    known = pd.DataFrame({"time_days": sample.time_days, "event": sample.event})
    out_of_fold = table["split"].eq("cv").to_numpy()
    bound = np.zeros(len(table))
    for (seed, repeat, fold), rows in table.groupby(RUN).indices.items():
        same = table["seed"].eq(seed) & table["repeat"].eq(repeat)
        others = (same & table["fold"].ne(fold)).to_numpy() & out_of_fold
        if others.any():
            cuts = np.quantile(risk[others], THIRDS)
            days = of_thirds(known[others], third(risk[others], cuts), coverage)
            bound[rows] = days[third(risk[rows], cuts)]
    found = table[["patient_id", "split", "fold"]].assign(bound_days=bound)
    cut = table[RUN].assign(risk=risk).groupby(RUN)["risk"].transform("quantile", 0.75)
    return found.assign(riskiest=risk >= cut.to_numpy())


def risk_at(prognosis: Prognosis, horizon: float) -> np.ndarray:
    """Predicted risk of dying by the horizon, shape (rows,)."""
    return 1 - curve_at(prognosis.survival, prognosis.times, [horizon])[:, 0]


def third(risk, cuts) -> np.ndarray:
    """0, 1 or 2: the low, the middle or the high third, parted by the two risks of `cuts`."""
    return np.searchsorted(cuts, risk, side="left")


def of_thirds(known: pd.DataFrame, member: np.ndarray, coverage: float) -> np.ndarray:
    """The bound of each third, that of the whole cohort where a third is too small; 0 where nothing can be said.

    Parameters
    ----------
    known : DataFrame
        `time_days`, `event` of the calibrating patients.
    member : ndarray of int, shape (n,)
        Their `third`, as a model says that has not seen them.
    coverage : float

    Returns
    -------
    ndarray, shape (3,), days
    """
    if unsaid(known, coverage):
        return np.zeros(3)
    censoring = kaplan_meier(known, of_censoring=True)

    def day(of: pd.DataFrame, coverage: float) -> float:
        rows, weight, cap = deaths(of, censoring, coverage)
        return calibrated(of["time_days"].to_numpy(float)[rows][None], weight, cap, len(of), coverage)[0]

    days = np.array([day(known[member == k], coverage) for k in range(3)])
    return np.minimum(np.where(days > 0, days, day(known, coverage)), day(known, guaranteed(coverage)))


def guaranteed(coverage: float) -> float:
    """What holds whatever the model: 1 - 2 (1 - coverage)."""
    return 1 - 2 * (1 - coverage)


def unsaid(known: pd.DataFrame, coverage: float) -> str:
    """Why no bound can be given from these outcomes, in a sentence; empty where one can."""
    least = int(np.ceil(coverage / (1 - coverage) - ROUNDING))
    deaths = known.loc[known["event"].astype(bool), "time_days"].nunique()
    if len(known) < least:
        return f"No lower bound is given: {len(known)} patients are too few for {amount(100 * coverage)} %, which takes {least}."
    if deaths < 2:
        when = "all events are on one day" if deaths else "nobody has had the event"
        return f"No lower bound is given: of {len(known)} patients {when}."
    return ""


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


def coverage_observed(bounds: pd.DataFrame, outcome: pd.DataFrame, train_outcome: pd.DataFrame, *, confidence) -> dict:
    """Share of patients who reach their bound, of those seen until then or dead before, inversely weighted.

    Weights as in the Brier score (Graf et al. 1999): a death before the bound by its own day, a patient seen alive on
    the bound by the bound's, each 1 / G(t−): who is censored on the very day reached it. Wilson's interval on Kish's
    effective number; it does not shrink to a point at 100 %.

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
    return {"estimate": share, **wilson(share, once * weight.sum() ** 2 / (weight @ weight), confidence)}


def observed(bounds: pd.DataFrame, outcome: pd.DataFrame, train_outcome: pd.DataFrame, confidence: float) -> dict:
    """`coverage_observed` of "all" patients, and of the "riskiest" quarter, by predicted risk.

    Parameters
    ----------
    bounds : DataFrame
        Of `lower_bounds`; patients without a bound have outlived theirs, day 0, and are left out.
    """
    given = bounds[bounds["bound_days"] > 0]
    parts = {"all": given, "riskiest": given[given["riskiest"]]}
    return {name: coverage_observed(one, outcome, train_outcome, confidence=confidence) for name, one in parts.items()}


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
        `model`, `split`, `patients`; `observed`, `low`, `high` (`coverage_observed`), and with `riskiest` before them
        those of the quarter at highest predicted risk; `true`, and `true_worst`, that of the quarter at highest true risk
        (NaN without a truth); `median_bound_days`; `without_bound`, the patients of whom nothing can be said.
    """
    outcome = study.cohort.outcome
    development = outcome[outcome["patient_id"].isin(study.development)]
    rows = []
    for model, prognosis in prognoses.items():
        found = lower_bounds(prognosis, outcome, coverage, study.horizon_days)
        for split, bounds in ((split, found[found["split"] == split]) for split in SPLITS):
            if bounds.empty:
                continue
            whole, part = observed(bounds, outcome, development, study.params.scores.confidence).values()
            given = bounds[bounds["bound_days"] > 0]
            known = (covered(study, given) if len(given) else None) or {"estimate": np.nan, "highest_risk": np.nan}
            rows.append({
                "model": model, "split": split, "patients": bounds["patient_id"].nunique(),
                "observed": whole["estimate"], "low": whole["low"], "high": whole["high"],
                "riskiest": part["estimate"], "riskiest_low": part["low"], "riskiest_high": part["high"],
                "true": known["estimate"], "true_worst": known["highest_risk"],
                "median_bound_days": bounds["bound_days"].median(),
                "without_bound": bounds.loc[bounds["bound_days"] <= 0, "patient_id"].nunique(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def words(coverage: float, seen: dict) -> str:
    """What a bound promises, and what it does not: for cards, answers and documents.

    Parameters
    ----------
    coverage : float
    seen : dict
        Of `observed`.
    """
    promise = (
        f"This is marginal coverage: of all such patients together {amount(100 * coverage)} % are meant to reach their "
        f"bounds, and {amount(100 * guaranteed(coverage))} % are guaranteed to, whatever the model, if new patients are like "
        "these and leave follow-up by chance; of one patient alone it says nothing."
    )
    told = {name: _share(one) for name, one in seen.items()}
    return f"{promise} Out of fold, {told['all']} did; of the quarter at highest predicted risk, {told['riskiest']}."


def _share(one: dict) -> str:
    if one["estimate"] is None:
        return "it is not known how many"
    share, low, high = (amount(100 * one[end]) for end in ("estimate", "low", "high"))
    return f"{share} % ({low} to {high} %)"


def _require_coverage(coverage: float) -> None:
    if not 0.5 < coverage < 1:
        raise BadInput(f"conformal bounds: coverage is {coverage}, expected a number between 0.5 and 1, such as 0.9.")


def deaths(known: pd.DataFrame, censoring: tuple, coverage: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Rows of the deaths that a bound may miss, what each weighs, and the latest day that a bound can lie on."""
    days, uncensored = censoring
    # from there on one more death, with its weight, would by itself break the promise
    needed = max(LEAST_UNCENSORED, coverage / (1 - coverage) / max(len(known), 1))
    cap = float(days[uncensored < needed - ROUNDING].min(initial=days[-1]))
    time = known["time_days"].to_numpy(float)
    rows = np.flatnonzero(known["event"].to_numpy(bool) & (time < cap))
    return rows, 1 / step(days, uncensored, time[rows], before=True), cap


def calibrated(days: np.ndarray, weight: np.ndarray, cap: float, patients: int, coverage: float) -> np.ndarray:
    """The last day on which few enough deaths are missed; 0 where not even one may be.

    The next patient counts as missed, with the largest weight of a death missed or on the day.

    Parameters
    ----------
    days : array, shape (m, d)
        Of each of m bounds, the day beyond which it misses each of d deaths.
    weight : array, shape (d,)
    cap : float, days
    patients : int
        Who calibrate, the living among them.
    coverage : float

    Returns
    -------
    ndarray, shape (m,)
    """
    days = np.column_stack([np.minimum(days, cap), np.full(len(days), cap)])
    order = np.argsort(days, axis=1, kind="stable")
    weight = np.r_[weight, weight.max(initial=1.0)][order]
    following = np.maximum.accumulate(weight, axis=1)
    missed = (weight.cumsum(axis=1) - weight + following) / (patients + following)
    allowed = (missed <= 1 - coverage + ROUNDING).sum(axis=1)
    last = np.take_along_axis(np.take_along_axis(days, order, axis=1), np.maximum(allowed - 1, 0)[:, None], axis=1)
    return np.where(allowed > 0, last[:, 0], 0.0)


def wilson(share: float, size: float, confidence: float) -> dict:
    """Wilson 1927; scipy's takes whole numbers only."""
    z2 = norm.ppf((1 + confidence) / 2) ** 2
    middle = (share + z2 / (2 * size)) / (1 + z2 / size)
    half = np.sqrt(z2 * (share * (1 - share) / size + z2 / (4 * size**2))) / (1 + z2 / size)
    return {"low": float(max(middle - half, 0)), "high": float(min(middle + half, 1))}
