"""Which radiomic features a model sees: chosen inside the training fold, and never from the outcome."""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.cohort import listed
from survpack.errors import BadInput
from survpack.params import Selection as Choice
from survpack.radiomics import RADIOMIC
from survpack.robustness import FEWEST, icc, robust

SHAPE = "_morph_"  # radiomics of shape: no intensity in them, so nothing of the scanner to harmonise
OVERLAP = 3  # patients in common, below which two features are not said to correlate


class Selection:
    """Measured, varying, robust, harmonised, and one of each cluster of correlated features.

    Attributes
    ----------
    columns : list of str
        What is kept, in the order of the table.
    steps : list of dict
        In order: `step`, `removed`, `remaining`; removed + remaining is what remained before.
    clusters : DataFrame
        Every column that came to the last step: `column`, `cluster` (from 1), `kept`, `icc` (NaN where not known).
    """

    def __init__(self, choice: Choice):
        self.choice = choice

    def fit(self, features: pd.DataFrame, site: pd.Series, perturbed: pd.DataFrame | None = None) -> Selection:
        """Learn the choice from training patients.

        Parameters
        ----------
        features : DataFrame
            Of the training patients, indexed by `patient_id`; NaN where not measured.
        site : Series of str, of at least these patients
        perturbed : DataFrame, optional
            Features of perturbed images, indexed by (`patient_id`, `perturbation`); those of other patients are not
            looked at. Radiomics it does not show to be robust go, also those it lacks. Without five training patients
            in it, the step is skipped and said to be.

        Raises
        ------
        BadInput
            As `Combat.fit`: for a patient without site, say.
        """
        table = _finite(features).sort_index(kind="stable")  # sums come out the same in whatever order patients come
        self.steps = [{"step": "extracted", "removed": 0, "remaining": table.shape[1]}]
        measured = f"measured in {self.choice.measured:.0%} of patients or more"
        table = self._keep(table, _measured(table, self.choice.measured), measured)
        table = self._keep(table, _varying(table), "varies")
        known, table = self._robust(table, perturbed)
        table = self._harmonised(table, site)
        self.clusters = clusters(table, self.choice.correlation, known)
        kept = self.clusters.loc[self.clusters["kept"], "column"].tolist()
        self.columns = list(self._keep(table, kept, f"one of each cluster of |rho| above {self.choice.correlation:g}"))
        return self

    def transform(self, features: pd.DataFrame, site: pd.Series) -> pd.DataFrame:
        """The kept columns, harmonised, of any patients.

        Raises
        ------
        BadInput
            Where a column that was learnt from is missing.
        """
        needed = [*dict.fromkeys([*self._intensity, *self.columns])]
        missing = [name for name in needed if name not in features]
        if missing:
            raise BadInput(
                f"biomarkers: no column {listed(missing)}, expected all that the selection was learnt from; "
                "extract the same features of these patients (stage 02)."
            )
        table = _finite(features[needed])
        if self._combat is not None:
            table = _replaced(table, self._combat.transform(table[self._intensity], site))
        return table[self.columns]

    def _keep(self, table: pd.DataFrame, columns: list[str], step: str) -> pd.DataFrame:
        self.steps.append({"step": step, "removed": table.shape[1] - len(columns), "remaining": len(columns)})
        return table[columns]

    def _robust(self, table: pd.DataFrame, perturbed: pd.DataFrame | None) -> tuple[pd.Series, pd.DataFrame]:
        """ICC of the columns as far as known, and the columns that reach it; lesion biomarkers stay in any case."""
        step = f"ICC of {self.choice.icc:g} or more"
        mine = _of_training(perturbed, table)
        patients, levels = (mine.index.get_level_values(k).nunique() if mine is not None else 0 for k in (0, 1))
        if patients < FEWEST or levels < 2:
            few = f"{patients} training patients with perturbed images, {FEWEST} are needed"
            why = f"{step} (skipped: {few if patients < FEWEST else 'no perturbation changes these scans'})"
            return pd.Series(np.nan, table.columns), self._keep(table, list(table), why)
        found = icc(mine)
        firm = {*robust(found, self.choice.icc)}
        columns = [name for name in table if name in firm or not name.startswith(RADIOMIC)]
        kept = self._keep(table, columns, f"{step} under perturbation ({patients} training patients)")
        return found["estimate"].reindex(columns), kept

    def _harmonised(self, table: pd.DataFrame, site: pd.Series) -> pd.DataFrame:
        """Intensity radiomics without what the site does to them."""
        self._combat, self._intensity = None, [name for name in table if carries_intensity(name)]
        if not self.choice.harmonise or not self._intensity:
            why = "no radiomics of intensity" if self.choice.harmonise else "not asked for"
            return self._keep(table, list(table), f"harmonised over sites (skipped: {why})")
        from survpack.harmonise import Combat

        self._combat = Combat().fit(table[self._intensity], site)
        adjusted, sites = len(self._combat.adjusted), len(self._combat.sites)
        said = f"{adjusted} of them, over {sites} sites" if sites else "skipped: fewer than two sites are large enough"
        self._keep(table, list(table), f"harmonised ({said})")
        return _replaced(table, self._combat.transform(table[self._intensity], site))


def clusters(features: pd.DataFrame, correlation: float, prefer: pd.Series | None = None) -> pd.DataFrame:
    """Groups of features whose average |Spearman rho| is above `correlation`, and the one kept of each.

    Average linkage on 1 - |rho|. Kept is the first lesion biomarker of the cluster (a column without `rad_`), else
    the feature with the highest `prefer`, else the first in column order.

    Parameters
    ----------
    features : DataFrame, indexed by patient; NaN where not measured
    correlation : float, in (0, 1]
    prefer : Series, optional
        ICC by column; NaN comes last.

    Returns
    -------
    DataFrame
        `column`, `cluster` (from 1, by first column), `kept`, `icc`; rows in column order.
    """
    names = list(features)
    preferred = pd.Series(dtype=float) if prefer is None else prefer
    found = pd.DataFrame({"column": names, "cluster": _grouped(features, correlation)})
    found["icc"] = preferred.reindex(names).to_numpy(dtype=float)
    radiomic = found["column"].str.startswith(RADIOMIC) if names else []
    worth = found["icc"].where(radiomic, np.inf).fillna(-np.inf)
    first = worth.sort_values(ascending=False, kind="stable").index
    kept = found.loc[first].drop_duplicates("cluster").index
    found["kept"] = found.index.isin(kept)
    return found[["column", "cluster", "kept", "icc"]]


def volume_dependence(features: pd.DataFrame, volume: pd.Series) -> pd.Series:
    """Spearman rho of each feature with tumour volume (`tumour_ml`), over the patients who have both.

    NaN where a feature does not vary, or fewer than three patients have it.
    """
    table, volume = _finite(features), volume.reindex(features.index)
    known = (table.notna().mul(volume.notna(), axis=0).sum() >= OVERLAP) & (table.max() > table.min())
    return table.loc[:, known].corrwith(volume, method="spearman").reindex(table.columns).rename("rho")


def correlations(features: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rho of every column with every other, as pandas has it, which ranks anew for every pair."""
    return pd.DataFrame(_spearman(_finite(features)), list(features), list(features))


def _grouped(features: pd.DataFrame, correlation: float) -> np.ndarray:
    """The cluster of each column, numbered from 1 in column order."""
    from scipy.cluster.hierarchy import fcluster, linkage

    if features.shape[1] < 2:
        return np.ones(features.shape[1], int)
    distance = 1 - np.abs(np.nan_to_num(_spearman(_finite(features))))
    upper = distance[np.triu_indices(features.shape[1], 1)].round(10)  # a rounding error must not part duplicates
    del distance
    groups = fcluster(linkage(upper, "average"), round(1 - correlation, 10), "distance")
    return pd.factorize(groups)[0] + 1


def _spearman(table: pd.DataFrame) -> np.ndarray:
    """Rho of every column with every other, over the patients who have both; NaN if unknown.

    Ranks are taken once a column, not once a pair: the same where nothing is missing, and thousands of times quicker.
    """
    ranks, present = _ranks(table)
    if present.all():
        return (
            (ranks.T @ ranks / max(len(ranks), 1)).clip(-1, 1)
            if len(ranks) >= OVERLAP
            else np.full((ranks.shape[1],) * 2, np.nan)
        )
    n = present.T @ present
    with np.errstate(all="ignore"):
        mean = ranks.T @ present / n  # of the row's feature, over the patients who have the column's too
        variance = (ranks**2).T @ present / n - mean**2
        variance[variance < 1e-12] = np.nan  # constant among the patients in common
        rho = (ranks.T @ ranks / n - mean * mean.T) / np.sqrt(variance * variance.T)
    rho[n < OVERLAP] = np.nan
    return rho.clip(-1, 1)


def _replaced(table: pd.DataFrame, columns: pd.DataFrame) -> pd.DataFrame:
    """The table with these columns in the place of its own: all at once, for a column at a time thousands take seconds."""
    return pd.concat([table.drop(columns=list(columns)), columns], axis=1)[list(table)]


def _ranks(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Ranks scaled to variance 1, 0 where missing; and 1 where measured."""
    ranks = table.rank().to_numpy(dtype=float)
    present = np.isfinite(ranks)
    ranks = np.where(present, ranks, 0.0)
    with np.errstate(all="ignore"):
        ranks = np.where(present, ranks - ranks.sum(axis=0) / present.sum(axis=0), 0.0)
        scaled = ranks / np.sqrt((ranks**2).sum(axis=0) / present.sum(axis=0))
    return np.nan_to_num(scaled), present.astype(float)


def _finite(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(float).replace([np.inf, -np.inf], np.nan)


def _measured(table: pd.DataFrame, share: float) -> list[str]:
    return table.columns[table.notna().mean() >= share].tolist()


def _varying(table: pd.DataFrame) -> list[str]:
    span, size = table.max() - table.min(), table.abs().max()
    return table.columns[span > 1e-12 * size].tolist()


def _of_training(perturbed: pd.DataFrame | None, table: pd.DataFrame) -> pd.DataFrame | None:
    if perturbed is None or perturbed.empty:
        return None
    mine = perturbed[perturbed.index.get_level_values(0).isin(table.index)]
    return mine[[name for name in table if name in mine]]


def carries_intensity(name: str) -> bool:
    return name.startswith(RADIOMIC) and SHAPE not in name
