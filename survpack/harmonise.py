"""ComBat over sites (Johnson 2007, Biostatistics 8:118): learnt on the training fold, applied to whoever comes.

A feature is taken as `site's shift + site's scale * noise`; both are shrunk towards what the other features show of
that site. It never sees an outcome, nor any covariate: what differs between sites because their patients differ goes
with the scanner, so a site's own hazard is lost as well. Features are not transformed. ComBat takes them as about
normal within a site: a skewed one (a volume, an energy) is better given as its logarithm, and a positive one may come
back negative.

combatlearn 2.3.0 does the work, with two things put right, both held by tests:
its prior is over sites, a feature at a time, where Johnson's, sva's and neuroCombat's is over features, a site at a
time (results differ by up to half a standard deviation); and it adds 1e-8 to variances, which swamps features of small
units, so features are put on unit scale first.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from survpack.cohort import listed
from survpack.errors import BadInput

SMALLEST = 8  # training patients a site needs: fewer do not tell its scale
UNTOLD = "(not told)"  # where a patient has no site; never learnt
CONSTANT = 1e-10  # spread over size, below which a feature does not vary


class Combat:
    """ComBat learnt on some patients and applied to any.

    Parameters
    ----------
    smallest : int
        Training patients that a site needs to be learnt.

    Attributes
    ----------
    counts : Series of int
        Training patients, by site.
    sites : list of str
        Sites that were learnt; none where fewer than two are large enough, for then there is nothing to level.
    columns : list of str
        Features, as in training.
    adjusted : list of str
        Those that are changed. A feature that is constant, or never measured, within a learnt site is left as it is
        at all sites (as sva leaves it).
    """

    def __init__(self, smallest: int = SMALLEST):
        self.smallest = max(int(smallest), 2)

    def fit(self, features: pd.DataFrame, site: pd.Series) -> Combat:
        """Learn each site's shift and scale, from training patients only.

        Parameters
        ----------
        features : DataFrame, shape (patients, features)
            NaN where not measured: while fitting, the median of the patient's site stands in.
        site : Series of str, by the same patients

        Raises
        ------
        BadInput
            For a patient without row in `site`, and for a column that is no number or comes twice.
        """
        values, site = _checked(features, site)
        values = values.replace([np.inf, -np.inf], np.nan)
        self.columns, self.counts = list(features.columns), site.value_counts().sort_index()
        large = self._large()
        self.sites = list(large) if len(large) > 1 else []
        values, site = values[site.isin(self.sites)], site[site.isin(self.sites)]
        by_site = values.groupby(site)
        varies = (by_site.std() > CONSTANT * values.abs().max()).all()  # False where a site has fewer than two values
        self.adjusted = list(varies.index[varies]) if self.sites else []
        if self.adjusted:
            filled = values[self.adjusted].fillna(by_site[self.adjusted].transform("median"))
            self._centre, self._scale = filled.mean(), filled.std()
            with warnings.catch_warnings():  # of a single feature, for which nothing is borrowed
                warnings.simplefilter("ignore")
                self._model = _johnson().fit((filled - self._centre) / self._scale, batch=site)
        return self

    def transform(self, features: pd.DataFrame, site: pd.Series) -> pd.DataFrame:
        """The features as a scanner between the learnt ones would have given them.

        Patients of a site that was not learnt are left as they are (`unseen` counts them). NaN stays NaN.

        Parameters
        ----------
        features : DataFrame, shape (patients, features)
            The columns of training, in any order.
        site : Series of str, by the same patients

        Returns
        -------
        DataFrame
            Rows and columns as given.

        Raises
        ------
        BadInput
            As `fit`, and for other columns than in training.
        """
        values, site = _checked(features, site)
        self._require_columns(features)
        known = site.isin(self.sites).to_numpy()
        if self.adjusted and known.any():
            unit = (values.loc[known, self.adjusted] - self._centre) / self._scale
            level = self._model.transform(unit, batch=site[known])
            values.loc[known, self.adjusted] = level * self._scale + self._centre
        return values.set_axis(features.index)

    def unseen(self, site: pd.Series) -> pd.Series:
        """How many patients `transform` leaves as they are because of their site, by site; empty for none."""
        told = _named(site)
        left = ~told.isin(self.sites or self._large())
        return told[left].value_counts().sort_index().rename("patients")

    def _large(self) -> pd.Index:
        return self.counts.index[(self.counts >= self.smallest) & (self.counts.index != UNTOLD)]

    def _require_columns(self, features: pd.DataFrame) -> None:
        absent = [name for name in self.columns if name not in features]
        extra = [name for name in features if name not in self.columns]
        if absent or extra:
            said = [f"{word} {listed(names)}" for word, names in (("lack", absent), ("have besides", extra)) if names]
            raise BadInput(
                f"Features to be harmonised {' and '.join(said)}, expected the {len(self.columns)} columns ComBat was "
                "fitted on; give it the same columns, or fit it again."
            )


def variance_by_site(features: pd.DataFrame, site: pd.Series) -> pd.Series:
    """Share of each feature's variance that lies between sites (eta squared), to print before and after.

    Parameters
    ----------
    features : DataFrame, shape (patients, features)
        NaN where not measured: such a patient is left out of that feature.
    site : Series of str, by the same patients

    Returns
    -------
    Series
        0 to 1, by feature; NaN for a constant. Chance alone gives about (sites - 1) / (patients - 1).
    """
    values, site = _checked(features, site)
    values = values.replace([np.inf, -np.inf], np.nan)
    centred = values - values.mean()
    between = (centred.groupby(site).mean() ** 2 * centred.groupby(site).count()).sum()
    total = (centred**2).sum()
    varies = total > (CONSTANT * values.abs().max()) ** 2
    return (between / total.where(varies)).clip(0, 1).rename("eta_squared")


def shrunk(shift: np.ndarray, scale: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Empirical Bayes: each site's shifts and scales drawn towards its mean over features (Johnson 2007, section 3.2).

    Parameters
    ----------
    shift, scale : ndarray, shape (sites, features)
        Means and variances of the standardised features at each site.
    patients : ndarray, shape (sites,)

    Returns
    -------
    shift, scale : ndarray, shape (sites, features)
        Of a single feature nothing can be borrowed: it is returned as it came.
    """
    if shift.shape[1] < 2:
        return shift, scale
    n = np.asarray(patients, dtype=float)[:, None]
    centre, spread = _moments(shift)
    mean, variance = _moments(scale)
    a, b = mean**2 / variance + 2, mean * (mean**2 / variance + 1)  # of the inverse gamma prior
    now, wide = shift, scale
    for _ in range(1000):
        before = now, wide
        now = (n * spread * shift + wide * centre) / (n * spread + wide)
        wide = (((n - 1) * scale + n * (shift - now) ** 2) / 2 + b) / (n / 2 + a - 1)
        if max(np.abs(now - before[0]).max(), np.abs(wide / before[1] - 1).max()) < 1e-8:
            break
    return now, wide


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over features; the variance never quite zero."""
    return values.mean(axis=1, keepdims=True), values.var(axis=1, ddof=1, keepdims=True).clip(1e-12)


def _johnson():
    """combatlearn's ComBat, its prior over features."""
    from combatlearn.core import ComBatModel

    class Johnson(ComBatModel):
        def _shrink_gamma_delta(self, gamma_hat, delta_hat, n_per_batch, **_):
            return shrunk(gamma_hat, delta_hat, np.array(list(n_per_batch.values())))

    return Johnson(method="johnson", eps=1e-12)


def _checked(features: pd.DataFrame, site: pd.Series) -> tuple[pd.DataFrame, pd.Series]:
    """Both as a fresh copy, row by row, numbered from 0."""
    twice = features.columns[features.columns.duplicated()]
    if len(twice):
        raise BadInput(f"Feature {twice[0]} comes twice, expected each column once; drop or rename one.")
    text = [name for name in features if not pd.api.types.is_numeric_dtype(features[name])]
    if text:
        raise BadInput(f"Feature {listed(text)} is no number, expected numbers and NaN only; leave it out or code it.")
    if not site.index.equals(features.index):
        absent = features.index.difference(site.index)
        if len(absent) or not site.index.is_unique:
            who = f"{listed(absent)} without a site" if len(absent) else "listed twice among the sites"
            raise BadInput(f"Patient {who}, expected one site a patient; complete the column `site`.")
        site = site.loc[features.index]
    return features.reset_index(drop=True).astype(float), _named(site).reset_index(drop=True)


def _named(site: pd.Series) -> pd.Series:
    return site.astype(object).where(site.notna(), UNTOLD).astype(str)
