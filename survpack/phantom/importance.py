"""Do importances order the columns of the chart as a phantom's planted hazard does?"""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pandas as pd

from survpack.study import Study


def importance_against_planted(
    study: Study, importances: dict[str, pd.DataFrame], *, repeats: int = 2000, confidence: float = 0.95
) -> pd.DataFrame | None:
    """Do importances order the columns of the chart as the planted hazard does?

    What a column truly does is the standard deviation, over all patients, of its part of the log hazard; a column
    that is not of the hazard does nothing. The truth is read here, after the importances were made.

    Parameters
    ----------
    study : Study
    importances : dict of str to DataFrame
        `feature`, `importance`; a feature `image` is left out, for the truth gives it no coefficient.

    Returns
    -------
    DataFrame or None
        None where the cohort is no phantom, or nothing asked about is of its hazard. `method`, `columns` (how many), `spearman` with `_low` and `_high` (percentiles, resampling columns), `p`
        (share of random orders that do as well, one-sided), `kendall`. All NaN with fewer than `FEWEST` columns that
        differ, where all importances are one, and where one is not known.
    """
    if not study.paths.truth.exists():
        return None
    strength, rows = planted_strength(study), []
    rng = np.random.default_rng(study.params.explain.seed)
    for method, importance in importances.items():
        own = importance.set_index("feature")["importance"].drop("image", errors="ignore").astype(float)
        true = strength.reindex(own.index).fillna(0.0)
        if not true.any():
            continue
        a, b = own.to_numpy(), true.to_numpy()
        rows.append({"method": method, "columns": len(a)} | _alike(a, b, rng, repeats, confidence))
    return pd.DataFrame(rows) if rows else None


FEWEST = 3  # pairs that differ, of which there is an order to speak of
TRIES = 10  # draws for each that is wanted: some hold one value only
TERMS = {  # of a phantom's hazard to columns of chart and lesion biomarkers; what is not named has its own name
    "breast": "primary",
    "melanoma_or_gi": "primary",
    "volume": "enhancing_ml",
    "oedema": "oedema_to_tumour",
}


def planted_strength(study: Study) -> pd.Series:
    """Standard deviation over patients of what each column adds to the planted log hazard, by column."""
    truth = pd.read_parquet(study.paths.truth)
    coefficients = json.loads(study.paths.truth.with_suffix(".json").read_text())["coefficients"]
    parts: dict[str, pd.Series] = {}
    for term, coefficient in coefficients.items():
        column = TERMS.get(term, term)
        parts[column] = parts.get(column, 0.0) + coefficient * truth[f"term_{term}"].astype(float)
    return pd.DataFrame(parts).std()


def _several(rng: np.random.Generator, size: int, repeats: int, *columns: np.ndarray):
    """Draws of rows with replacement in which no column is constant, as many as asked or as `TRIES` give."""
    draws = (rng.integers(size, size=size) for _ in range(TRIES * repeats))
    return islice((drawn for drawn in draws if all(np.ptp(column[drawn]) > 0 for column in columns)), repeats)


def _alike(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, repeats: int, confidence: float) -> dict:
    """Correlations of `importance_against_truth` for one method."""
    from scipy.stats import kendalltau, spearmanr

    usable = np.isfinite(a).all() and np.ptp(a) > 0 and np.ptp(b) > 0
    if not usable or len(np.unique(np.c_[a, b], axis=0)) < FEWEST:
        return dict.fromkeys(("spearman", "spearman_low", "spearman_high", "p", "kendall"), np.nan)
    rho = float(spearmanr(a, b).statistic)
    dealt = np.array([spearmanr(rng.permutation(a), b).statistic for _ in range(repeats)])
    drawn = [spearmanr(a[k], b[k]).statistic for k in _several(rng, len(a), repeats, a, b)]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]) if drawn else (np.nan, np.nan)
    p = ((dealt >= rho - 1e-12).sum() + 1) / (repeats + 1)
    return {"spearman": rho, "spearman_low": low, "spearman_high": high, "p": p,
            "kendall": float(kendalltau(a, b).statistic)}  # fmt: skip
