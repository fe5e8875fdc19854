"""Negative controls: what must not predict, fitted and scored as models are, out of fold on development patients."""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.gate.found import Found, judged, passed, untested
from survpack.inference import bootstrap
from survpack.metrics import concordance
from survpack.models.columns import beside, prepare_table
from survpack.numbers import interval_text
from survpack.radiomics import parsed

COMPONENTS = 20  # of many columns, learnt in the fold and never from outcomes
RIDGE = 10.0
FEWEST = 10  # events
REPEATS = 1000  # resamples of an interval
FIRST_ORDER = ("intensity", "histogram")  # what shuffling voxels leaves as it was
EXPECTED = "nothing but chance"


def checks(cohort, splits: pd.DataFrame, measured, outcome: pd.DataFrame, choice) -> list[Found]:
    """`shuffled labels` and `shuffled voxels`."""
    fold = splits.drop_duplicates("patient_id").set_index("patient_id")["fold"].reindex(outcome.index).to_numpy()
    return [shuffled_labels(cohort, measured, outcome, fold, choice), shuffled_voxels(measured, outcome, fold, choice)]


def shuffled_labels(cohort, measured, outcome: pd.DataFrame, fold: np.ndarray, choice) -> Found:
    """Ridge Cox on all predictors and outcomes of other patients: 0.5 lies in the interval of its concordance.

    The mean over permutations. What fails is judged once more on others: one in a hundred clean cohorts fails once.
    """
    name = "shuffled labels"
    frame = beside(cohort.covariates, measured.features).loc[outcome.index].replace([np.inf, -np.inf], np.nan)
    if outcome["event"].sum() < FEWEST or not (frame.nunique() > 1).any():
        return untested(name, f"{int(outcome['event'].sum())} events and {frame.shape[1]} columns: too few to tell")
    tables = [_table(frame, cohort.dictionary, fold == held) for held in np.unique(fold)]
    for seed in (choice.seed, choice.seed + 1):
        rng = np.random.default_rng(seed)
        orders = [rng.permutation(len(outcome)) for _ in range(choice.permutations)]
        found = _interval([(tables, outcome.iloc[order]) for order in orders], fold, choice)
        told = f"C {interval_text(found, 3) or 'not defined'} on outcomes of other patients, {choice.permutations} permutations"
        if found["low"] is None or found["low"] <= 0.5 <= found["high"]:
            return passed(name, told)
    return judged(name, [told], (), "", "0.5 inside the interval",
                  "the scores themselves are wrong: run the tests of the code, and do not trust a number until they pass")  # fmt: skip


def shuffled_voxels(measured, outcome: pd.DataFrame, fold: np.ndarray, choice) -> Found:
    """Texture of shuffled voxels adds nothing to volume and histogram, which shuffling leaves as they were.

    Nor does texture and intensity of noise in their place add anything to volume. "Adds": the interval of the
    difference in concordance, out of fold, lies above 0.
    """
    name = "shuffled voxels"
    features = measured.features.reindex(outcome.index)
    if "tumour_ml" not in features or not measured.shuffled.shape[1] or outcome["event"].sum() < FEWEST:
        return untested(name, "no such control, or too few events, to tell")
    volume = np.log(features[["tumour_ml"]].clip(lower=1e-3))
    control, noise = (each.reindex(outcome.index) for each in (measured.shuffled, measured.noise))
    family = parsed(control.columns).set_index("feature")["family"]
    order = family.index[family.isin(FIRST_ORDER)]
    asked = {
        "texture of shuffled voxels, to volume and histogram": ([volume, control[order]], control.drop(columns=order)),
        "noise for voxels, to volume": ([volume], noise),
    }
    wrong, told = [], []
    for what, (base, more) in asked.items():
        found = _added(base, more, outcome, fold, choice)
        told.append(f"{what} adds {interval_text(found, 3) or 'not defined'}")
        if found["low"] is not None and found["low"] > 0:
            wrong.append(told[-1])
    return judged(name, wrong, (), "; ".join(told), EXPECTED,
                  "the controls know the outcome by another way than voxels: look how they were made")  # fmt: skip


def _added(base: list[pd.DataFrame], more: pd.DataFrame, outcome: pd.DataFrame, fold: np.ndarray, choice) -> dict:
    """Concordance of base and more, less that of base, with its interval."""
    risks = [
        _risk([_blocks(blocks, fold == held) for held in np.unique(fold)], outcome, fold)
        for blocks in ([*base, more], base)
    ]

    def difference(counts):
        with_more, without = (_concordance(outcome, risk, fold, counts) for risk in risks)
        return {"c": with_more - without}

    return bootstrap(difference, len(outcome), repeats=REPEATS, confidence=choice.level, seed=choice.seed)["c"]


def _interval(fits: list, fold: np.ndarray, choice) -> dict:
    """Mean concordance over permutations, with its interval."""
    risks = [(outcome, _risk(tables, outcome, fold)) for tables, outcome in fits]

    def mean(counts):
        return {"c": np.mean([_concordance(outcome, risk, fold, counts) for outcome, risk in risks], axis=0)}

    return bootstrap(mean, len(fold), repeats=REPEATS, confidence=choice.level, seed=choice.seed)["c"]


def _concordance(outcome: pd.DataFrame, risk: np.ndarray, fold: np.ndarray, counts):
    return concordance(outcome["time_days"], outcome["event"], risk, groups=fold, counts=counts)


def _risk(tables: list[np.ndarray], outcome: pd.DataFrame, fold: np.ndarray) -> np.ndarray:
    """Risk out of fold by ridge Cox; a table of all patients a fold, learnt without those of it."""
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.util import Surv

    target = Surv.from_arrays(outcome["event"].to_numpy(bool), outcome["time_days"].to_numpy(float))
    risk = np.zeros(len(outcome))
    for table, held in zip(tables, np.unique(fold), strict=True):
        out = fold == held
        if target["event"][~out].any():
            risk[out] = CoxPHSurvivalAnalysis(alpha=RIDGE).fit(table[~out], target[~out]).predict(table[out])
    return risk


def _table(frame: pd.DataFrame, dictionary: dict, held: np.ndarray) -> np.ndarray:
    """All patients as numbers: imputed, scaled and reduced by what the others show."""
    prepare = prepare_table(frame, dictionary).fit(frame[~held])
    return _reduced(prepare.transform(frame), held)


def _blocks(blocks: list[pd.DataFrame], held: np.ndarray) -> np.ndarray:
    return np.hstack([_table(block.replace([np.inf, -np.inf], np.nan), {}, held) for block in blocks])


def _reduced(values: np.ndarray, held: np.ndarray) -> np.ndarray:
    from sklearn.decomposition import PCA

    if values.shape[1] <= COMPONENTS:
        return values
    learnt = PCA(min(COMPONENTS, (~held).sum() - 1), random_state=0).fit(values[~held])
    return learnt.transform(values) / np.sqrt(learnt.explained_variance_[0] / 4)
