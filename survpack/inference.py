"""How sure are we of a score: intervals over patients, and differences between models that are shown or not."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student
from tqdm import tqdm

from survpack import few, settings
from survpack.errors import BadInput
from survpack.metrics import METRICS, scores
from survpack.numbers import amount, interval_text, known
from survpack.params import Scores, per_cohort
from survpack.prognosis import SPLITS, Prognosis

MOST_UNDEFINED = 0.2  # share of resamples without a score above which there is no interval
MOST_PARTS = 250  # patients left out in turn; of more, as many parts: the acceleration is a sum of cubes, and small


def resamples(patients: int, *, repeats: int, seed: int, strata=None) -> np.ndarray:
    """How often each patient is drawn when as many are drawn with replacement.

    The same seed, number of patients and strata give the same resamples, which is what pairs two models.

    Parameters
    ----------
    patients, repeats, seed : int
    strata : array, shape (patients,), optional
        As many are drawn of each value as there are: of folds, which are as large in every cross-validation.

    Returns
    -------
    ndarray of int, shape (repeats, patients)
    """
    rng, counts = np.random.default_rng(seed), np.zeros((repeats, patients), int)
    strata = np.zeros(patients) if strata is None else np.asarray(strata)
    for inside in (np.flatnonzero(strata == one) for one in np.unique(strata)):
        counts[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=repeats)
    return counts


def folds_of(prognosis: Prognosis) -> np.ndarray | None:
    """Fold of each patient, in order of id; None where a patient is in several, as in repeated cross-validation."""
    folds = prognosis.table.groupby("patient_id")["fold"]
    return folds.first().to_numpy() if (folds.nunique() == 1).all() else None


def bootstrap(
    score,
    patients: int,
    *,
    repeats: int,
    confidence: float,
    seed: int,
    strata=None,
    inflation: float = 1.0,
    paired=None,
    sure: bool = False,
) -> dict:
    """Intervals of scores by resampling patients, bias-corrected and accelerated (BCa).

    A patient keeps his fold and is resampled whole, drawn twice he counts twice. The models are not refitted and
    the censoring weights not re-estimated: the interval is that of these predictions, unless `inflation` widens it.
    Efron 1987 (doi:10.1080/01621459.1987.10478410). How often they hold the truth is counted in benchmarks/coverage.py:
    too seldom for a Brier score held out where half are censored (the weights' own error is not in them).

    Parameters
    ----------
    score : callable
        From counts, shape (..., patients), to `{metric: array of shape (...,)}`.
    patients : int
    repeats : int
    confidence : float
        0.95 for a 95 % interval.
    seed : int
    strata : array, shape (patients,), optional
        See `resamples`.
    inflation : float
        See `interval`.
    sure : bool
        See `interval`.
    paired : callable, optional
        Whether a metric, by its name, is a paired difference: these are told by `difference`, with a p.

    Returns
    -------
    dict
        `{metric: {"estimate", "low", "high"}}`, floats or None. Undefined resamples are dropped; where more than
        `MOST_UNDEFINED` of them are, there is no interval.
    """
    estimates, drawn, left_out = _resampled(score, patients, repeats, seed, strata)
    return {
        name: difference(estimate, drawn[name], confidence, inflation)
        if paired and paired(name)
        else interval(estimate, drawn[name], confidence, left_out[name], inflation, sure)
        for name, estimate in estimates.items()
    }


def _resampled(score, patients: int, repeats: int, seed: int, strata=None) -> tuple[dict, dict, dict]:
    """Scores of the sample, of its resamples, and with each patient (or each of `MOST_PARTS` parts) left out."""
    if patients == 0:
        raise BadInput("bootstrap: no patient to resample, expected at least one; check the split of the predictions.")
    part = np.arange(patients) % MOST_PARTS
    without = (part != np.arange(min(patients, MOST_PARTS))[:, None]).astype(float)
    return tuple(
        score(counts)
        for counts in (np.ones(patients), resamples(patients, repeats=repeats, seed=seed, strata=strata), without)
    )


def interval(
    estimate: float, drawn, confidence: float, left_out=None, inflation: float = 1.0, sure: bool = False
) -> dict:
    """`{"estimate", "low", "high"}` of one score from its resamples, None where not defined.

    No interval where all resamples agree: three deaths in perfect order are not certain to be. But `sure` has one.

    Parameters
    ----------
    estimate : float
    drawn : array, shape (repeats,)
        The score of each resample.
    confidence : float
    left_out : array, shape (parts,), optional
        The score without each patient: with it the interval is BCa, without it that of the percentiles.
    inflation : float
        Standard errors of the truth in one of the resamples, which hold the fitted models fixed: `params.Inflation`
        for models that cross-validation fitted, 1 for a model that is given.
    sure : bool
        Whether the score is so sure where resamples agree: a number of each patient, averaged, and no rank.
    """
    drawn = np.asarray(drawn, float)
    defined = drawn[np.isfinite(drawn)]
    low = high = math.nan
    if np.isfinite(estimate) and len(defined) >= (1 - MOST_UNDEFINED) * len(drawn):
        reach = inflation * norm.ppf((1 + confidence) / 2) * np.array([-1, 1])
        tails = norm.cdf(reach)
        if left_out is not None:
            bias, acceleration = _corrections(estimate, defined, left_out, reach[1])
            moved = bias + reach
            tails = norm.cdf(bias + moved / (1 - acceleration * moved))
        low, high = np.quantile(defined, tails)
    if not sure and not high - low > 1e-12:  # equal but for rounding
        low = high = math.nan
    return {"estimate": _finite(estimate), "low": _finite(low), "high": _finite(high)}


def _corrections(estimate: float, drawn, left_out, furthest: float) -> tuple[float, float]:
    """Bias and acceleration of BCa; 0, 0 (percentiles) where they would turn the interval over.

    That is where the estimate is itself outside the percentile interval, as of an absolute distance near 0.
    """
    bias = norm.ppf(_share_below(drawn, estimate))
    left_out = np.asarray(left_out, float)
    moves = np.nanmean(left_out) - left_out if np.isfinite(left_out).any() else np.zeros(1)
    moves = np.where(np.isfinite(moves), moves, 0.0)
    spread = (moves**2).sum()
    # moves at the level of rounding are a score that nobody moves
    acceleration = (moves**3).sum() / (6 * spread**1.5) if spread > 1e-20 * (1 + estimate**2) else 0.0
    if abs(bias) >= furthest or abs(acceleration) * (abs(bias) + furthest) >= 1:
        return 0.0, 0.0
    return float(bias), float(acceleration)


def _share_below(drawn, value: float) -> float:
    """Share of resamples below a value, ties half, never quite 0 or 1."""
    least = 1 / (len(drawn) + 1)
    return float(np.clip(((drawn < value).sum() + 0.5 * (drawn == value).sum()) / len(drawn), least, 1 - least))


def difference(estimate: float, drawn, confidence: float, inflation: float = 1.0) -> dict:
    """A paired difference from its resamples: normal, so that interval and p tell the same, however small p is.

    Parameters
    ----------
    estimate : float
    drawn : array, shape (repeats,)
        The difference in each resample.
    confidence, inflation : float
        As in `interval`.

    Returns
    -------
    dict
        `{"estimate", "low", "high", "p"}`; but for the estimate None where too few resamples are defined, or all agree.
    """
    drawn = np.asarray(drawn, float)
    defined = drawn[np.isfinite(drawn)]
    error = inflation * defined.std() if len(defined) >= max(2, (1 - MOST_UNDEFINED) * len(drawn)) else math.nan
    told = {"estimate": _finite(estimate), "low": None, "high": None, "p": None}
    if not np.isfinite(estimate) or not error > 1e-12:  # equal but for rounding
        return told
    half = error * norm.ppf((1 + confidence) / 2)
    p = 2 * norm.sf(abs(estimate) / error)
    return {**told, "low": float(estimate - half), "high": float(estimate + half), "p": float(p)}


def paired_difference(
    prognosis_a, prognosis_b, outcome, metric, *, train_outcome, horizon, repeats, confidence, seed, inflation=1.0
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
    repeats, confidence, seed, inflation
        As in `bootstrap`.

    Returns
    -------
    dict
        `{"estimate", "low", "high", "p"}`; see `difference`.

    Raises
    ------
    BadInput
        For an unknown metric, or if the two did not predict the same patients.
    """
    if metric not in METRICS:
        raise BadInput(f"paired difference: metric '{metric}' is not one of {', '.join(METRICS)}; choose one of these.")
    _same_patients([prognosis_a, prognosis_b])

    def ahead(counts):
        a, b = (
            scores(one, outcome, train_outcome, horizon, counts=counts, metrics=[metric])[metric]
            for one in (prognosis_a, prognosis_b)
        )
        return a - b

    patients = prognosis_a.table["patient_id"].nunique()
    counts = resamples(patients, repeats=repeats, seed=seed, strata=folds_of(prognosis_a))
    return difference(ahead(np.ones(patients)), ahead(counts), confidence, inflation)


def compare(prognoses: dict[str, Prognosis], participants, train_outcome, horizon, params: Scores, split="cv") -> dict:
    """Paired differences in Harrell's C of the pairs of models that params.yaml names: one family.

    Returns
    -------
    dict
        `(a, b)` to the difference, as `family`, for the pairs of which both were trained and have predictions in the split.
    """
    there = {name: one.of(split) for name, one in prognoses.items()}
    reached = {name: concordance_of(one, participants) for name, one in there.items()}
    return family({
        (a, b): paired_difference(
            there[a], there[b], participants, "harrell_c",
            train_outcome=train_outcome, horizon=horizon,
            **params.resampling((reached[a] + reached[b]) / 2, fitted=split == "cv"),
        )
        for a, b in params.compare
        if {a, b} <= set(there) and len(there[a].table)
    })  # fmt: skip


def family(found: dict) -> dict:
    """Differences that are read together: each with Holm's `p_adjusted`, and `comparisons`, how many they are."""
    adjusted = holm({name: one["p"] for name, one in found.items()})
    comparisons = sum(p is not None for p in adjusted.values())
    return {name: {**one, "p_adjusted": adjusted[name], "comparisons": comparisons} for name, one in found.items()}


def least_shown(found: dict, confidence: float, power: float = 0.8) -> float | None:
    """The smallest true difference that would be shown with this power, alone: of the middle one of these comparisons.

    Parameters
    ----------
    found : dict
        Differences as of `compare`.
    """
    z, errors = (
        norm.ppf((1 + confidence) / 2),
        [one["high"] - one["low"] for one in found.values() if one["p"] is not None],
    )
    return float(np.median(errors) / (2 * z) * (z + norm.ppf(power))) if errors else None


def holm(p_values: dict) -> dict:
    """P values adjusted for their number (Holm 1979, Scand J Stat 6:65); what is not known is None and not counted."""
    names = sorted((name for name, p in p_values.items() if known(p)), key=lambda name: p_values[name])
    times = np.arange(len(names), 0, -1) * np.array([p_values[name] for name in names])
    adjusted = dict(zip(names, np.minimum(np.maximum.accumulate(times), 1).tolist(), strict=True))
    return {name: adjusted.get(name) for name in p_values}


def corrected_resampled_test(
    differences, n_train: float, n_test: float, *, confidence: float = 0.95, inflation: float = 1.0
) -> dict:
    """Test of a mean difference over repeated cross-validation, whose training sets overlap.

    The variance of the mean is s² (1 / J + n_test / n_train), not s² / J, against t with J - 1 degrees of freedom.
    Nadeau, Bengio 2003 (doi:10.1023/A:1024068626366).

    Parameters
    ----------
    differences : array, shape (J,)
        Score of one model minus score of another, one of each held-out fold; NaN is dropped.
    n_train, n_test : float
        Patients of a training set and of a held-out fold.
    confidence, inflation : float
        As in `interval`.

    Returns
    -------
    dict
        `{"estimate", "low", "high", "p"}`, None where not defined: bounds and p need two differences that are not equal.
    """
    values = np.asarray(differences, float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return {"estimate": _finite(values.mean()) if len(values) else None, "low": None, "high": None, "p": None}
    mean = float(values.mean())
    error = inflation * values.std(ddof=1) * math.sqrt(1 / len(values) + n_test / n_train)
    half = error * student.ppf((1 + confidence) / 2, len(values) - 1)
    if not error > 1e-12:  # equal but for rounding: folds that agree are not certain
        return {"estimate": mean, "low": None, "high": None, "p": None}
    p = 2 * student.sf(abs(mean) / error, len(values) - 1)
    return {"estimate": mean, "low": float(mean - half), "high": float(mean + half), "p": float(p)}


def spreads(table: pd.DataFrame, intervals: pd.DataFrame | None = None) -> pd.DataFrame:
    """How far a score spreads over folds, splits and seeds, apart from its interval over patients.

    Parameters
    ----------
    table : DataFrame
        `model, design, repeat, seed, fold, metric, value, n`: one row a held-out fold, `n` its patients.
    intervals : DataFrame, optional
        `model, design, metric, estimate, low, high` of the bootstrap over patients.

    Returns
    -------
    DataFrame
        `model, design, metric, estimate, low, high, fold_sd, split_sd, seed_sd`, one row a model, design and metric.
        `estimate` is that of `intervals`, else the mean over folds weighted by `n`. `fold_sd` is the standard
        deviation over the folds of one split and seed, `split_sd` that of whole cross-validations of one seed on
        other splits, `seed_sd` that of other seeds on one split; each pooled (root mean variance), NaN where there
        is but one.
    """
    keys = ["model", "design", "metric"]
    known = table[table["value"].notna()].assign(weighted=lambda rows: rows["value"] * rows["n"])
    whole = known.groupby([*keys, "repeat", "seed"], sort=False)[["weighted", "n"]].sum()
    whole["value"] = whole["weighted"] / whole["n"]

    def pooled(rows: pd.DataFrame, within: list[str]) -> pd.Series:
        variances = rows.groupby([*keys, *within], sort=False)["value"].var()
        return np.sqrt(variances.groupby(keys, sort=False).mean())

    found = whole.groupby(keys, sort=False)["value"].mean().to_frame("estimate").assign(low=np.nan, high=np.nan)
    if intervals is not None:
        given = intervals.set_index(keys)[["estimate", "low", "high"]]
        found = given.reindex(found.index).astype(float)
    found["fold_sd"] = pooled(known, ["repeat", "seed"])
    found["split_sd"] = pooled(whole.reset_index(), ["seed"])
    found["seed_sd"] = pooled(whole.reset_index(), ["repeat"])
    return found.reset_index()


def reading(difference: dict, label_a: str, label_b: str, *, confidence: float = 0.95) -> str:
    """A paired difference as a line: "a minus b: 0.03 (−0.01 to 0.07): not shown". See `verdict`."""
    named = f"{label_a} minus {label_b}"
    if difference["estimate"] is None:
        return f"{named}: not defined"
    return f"{named}: {_in_digits(difference)}: {verdict(difference, confidence)}"


def adds(difference: dict, what: str, *, confidence: float = 0.95) -> str:
    """What a predictor adds as a line: "the image adds 0.03 (−0.01 to 0.07): not shown". See `verdict`."""
    if difference["estimate"] is None:
        return f"what {what} adds: not defined"
    return f"{what} adds {_in_digits(difference)}: {verdict(difference, confidence)}"


def verdict(difference: dict, confidence: float = 0.95) -> str:
    """Shown only if the interval excludes 0, and where there is a `p_adjusted` that is below 1 − confidence."""
    if shown(difference, confidence):
        return "shown"
    if shown({**difference, "p_adjusted": None}, confidence):
        return f"not shown after adjusting for {difference.get('comparisons', 'all')} comparisons"
    return "not shown"


def shown(difference: dict, confidence: float = 0.95) -> bool:
    """See `verdict`."""
    low, high, adjusted = difference["low"], difference["high"], difference.get("p_adjusted")
    return known(low) and not low <= 0 <= high and (not known(adjusted) or adjusted < 1 - confidence)


def _in_digits(difference: dict) -> str:
    estimate, low, high = difference["estimate"], difference["low"], difference["high"]
    if low is None:
        return f"{amount(estimate, 2)} (no interval)"
    # a bound is never printed as 0 unless it is 0, or the verdict would seem to contradict it
    smallest = min((abs(bound) for bound in (low, high) if bound), default=1.0)
    digits = min(max(2, math.ceil(-math.log10(2 * smallest)) if smallest < 0.005 else 2), 6)
    return interval_text(difference, digits)


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
        `{"cv": {model: {metric: {"estimate", "low", "high"}}}, "test": {…}}`, ready for JSON. Whether a split is
        large enough to be scored is `unscored`, and for the caller to ask.

    Raises
    ------
    BadInput
        If models of one split predicted different patients, or a patient is on both sides of the split.
    """
    train_outcome = participants[participants["patient_id"].isin(dev_ids)]
    horizon = per_cohort(params.horizon_days, cohort, lambda: settings.horizon(train_outcome)[0])
    splits = {split: {name: one.of(split) for name, one in prognoses.items()} for split in SPLITS}
    for split, models in splits.items():
        _check_side(models, set(dev_ids), split)
        _same_patients([one for one in models.values() if len(one.table)])  # a locked test set is not there
    found = {split: {} for split in SPLITS}
    jobs = [(split, name, one) for split, models in splits.items() for name, one in models.items() if len(one.table)]
    for split, name, one in tqdm(jobs, desc=f"{cohort}: scores", mininterval=2):
        score = partial(_scores_of, one, participants, train_outcome, horizon)
        found[split][name] = of_patients(score, one, params, fitted=split == "cv")
    return found


def unscored(participants: pd.DataFrame, dev_ids, params: Scores) -> dict[str, str]:
    """Why a split is not scored (`few.not_scored`), by split: "cv" of the development patients, "test" of the others."""
    developed = participants["patient_id"].isin(dev_ids)
    events = {"cv": participants.loc[developed, "event"], "test": participants.loc[~developed, "event"]}
    least = params.small_cell
    return {
        split: few.not_scored(len(event), int(event.sum()), least)
        for split, event in events.items()
        if not few.enough(event, least)
    }


def of_patients(score, prognosis: Prognosis, params: Scores, *, fitted: bool) -> dict:
    """`bootstrap` of the patients of a prognosis, within its folds, as params.yaml has it.

    Parameters
    ----------
    score, prognosis, params
    fitted : bool
        Whether the folds of these patients taught the models that predict them.
    """
    patients = prognosis.table["patient_id"].nunique()
    again = params.resampling(score(np.ones(patients)).get("harrell_c"), fitted=fitted)
    return bootstrap(score, patients, strata=folds_of(prognosis), **again)


def concordance_of(prognosis: Prognosis, outcome) -> float:
    """Harrell's C within folds; NaN where it is not defined."""
    if not len(prognosis.table):
        return math.nan
    return float(scores(prognosis, outcome, outcome, math.nan, metrics=["harrell_c"])["harrell_c"])


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
