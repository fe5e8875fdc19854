"""Survival curves made true on average, with a band that says how well that is known.

Of a patient who died on day t, u = S(t), the model's own curve on that day, says how far the curve had fallen. Were the
model right, 1 - u would be uniform; the Kaplan–Meier curve of 1 - u over development patients, predicted out of fold,
the living censored, says what it is instead: f(s), the share still alive when their own curves have fallen to s. A new
patient's recalibrated curve is f(S(t)) (D-calibration's transform, Haider et al. 2020, JMLR 21:85; made conformal by
Qi, Yu, Greiner 2024, NeurIPS, who draw what is censored where we leave it to Kaplan–Meier).

The band is simultaneous, of equal precision (Nair 1984, doi:10.2307/1268099), on the log-minus-log scale (Borgan,
Liestøl 1990): with the stated confidence f lies in it for every s at once. No kept Python library has one (the intervals of
lifelines and scikit-survival hold day by day); Hall and Wellner's is wide at high survival, where a patient's first
months lie. It is open, to 1 above and to 0 below, where too few have died or are left. Where a curve has not fallen at
all it begins at the exact binomial bound (Clopper, Pearson 1934, doi:10.1093/biomet/26.4.404): n patients without a
death do not prove 100 %.

The promise is about patients taken together, as with conformal's bounds: f is the same for all, so it mends a model
that is too hopeful or too bold everywhere, not one that is so for some of its patients. Censoring is taken to be independent
of how far a curve has fallen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.prognosis import Prognosis

GRID = np.linspace(0, 1, 201)  # where f is kept: no patient's own number is stored
REACH = (0.05, 0.95)  # of Nair's variance scale: the band is closed between these only
LEAST = 5  # patients still followed, or the band is open below
DIGITS = 6


@dataclass(frozen=True)
class Recalibration:
    """f(s) and its band on `GRID`, of predicted survival s.

    Attributes
    ----------
    middle, low, high : ndarray, shape (201,), each rising with s
    confidence : float
        Of the whole band.
    patients, deaths : int
        Whom it was learnt from.
    """

    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    confidence: float
    patients: int
    deaths: int

    @classmethod
    def learn(cls, prognosis: Prognosis, outcome: pd.DataFrame, confidence: float = 0.95) -> Recalibration:
        """From the predictions made out of fold, of the first run (seed, repeat), so that a patient counts once.

        Parameters
        ----------
        prognosis : Prognosis
            Only its rows of "cv" are read.
        outcome : DataFrame
            `patient_id`, `time_days`, `event` of development patients; others are not looked at.
        confidence : float
            Of the band; between 0 and 1.

        Raises
        ------
        BadInput
            For a confidence that is no probability, a prognosis without "cv", or no death to learn from.
        """
        from survpack import conformal

        if not 0 < confidence < 1:
            raise BadInput(f"recalibration: confidence is {confidence}, expected a number between 0 and 1, as 0.95.")
        fallen, event = conformal.fallen(conformal.first_run(prognosis), outcome)
        if not event.any():
            raise BadInput(
                f"recalibration of {prognosis.model}: no death among {len(event)} development patients within the "
                "predicted days, expected one at least; follow them longer, or predict for later days."
            )
        found = _banded(fallen, event, confidence)
        return cls(*found, confidence, len(event), int(event.sum()))

    def apply(self, survival: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Recalibrated survival and its band, of predicted survival.

        Parameters
        ----------
        survival : array, shape (…, k)
            The model's curves, falling along the last axis.

        Returns
        -------
        middle, low, high : ndarray, shape (…, k)
            Falling, between 0 and 1, low <= middle <= high. Where the model's curve still is 1, `low` is less: that
            everyone is alive on day 0 is the caller's to say.
        """
        falling = np.minimum.accumulate(np.clip(np.asarray(survival, float), 0, 1), axis=-1)
        return tuple(np.interp(falling, GRID, values) for values in (self.middle, self.low, self.high))

    def table(self) -> pd.DataFrame:
        """`said`, `middle`, `low`, `high`: predicted survival, what it has been worth, and the band."""
        return pd.DataFrame({"said": GRID, "middle": self.middle, "low": self.low, "high": self.high})

    def as_json(self) -> dict:
        """Lists and numbers that `from_json` takes back."""
        curves = {name: getattr(self, name).round(DIGITS).tolist() for name in ("middle", "low", "high")}
        said = {name: getattr(self, name) for name in ("confidence", "patients", "deaths")}
        return {**curves, **said}

    @classmethod
    def from_json(cls, stored: dict) -> Recalibration:
        """What `as_json` gave.

        Raises
        ------
        BadInput
            For what it cannot have given.
        """
        try:
            curves = [np.array(stored[name], float) for name in ("middle", "low", "high")]
            rest = [stored[name] for name in ("confidence", "patients", "deaths")]
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"recalibration: {error} is amiss in what was stored; make the bundle anew.") from None
        if any(one.shape != GRID.shape or not (np.diff(one) >= 0).all() for one in curves):
            raise BadInput(
                f"recalibration: a stored curve is not {len(GRID)} rising numbers; make the bundle anew."
            )  # fmt: skip
        return cls(*curves, *rest)


def equal_precision(first: float, last: float, confidence: float) -> float:
    """How many standard errors wide the band is to either side, closed between `first` and `last` of Nair's scale.

    The tail of the largest of a standardised Brownian bridge (Miller and Siegmund 1982), solved for its quantile.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    span = np.log(last * (1 - first) / (first * (1 - last)))

    def excess(c: float) -> float:
        return norm.pdf(c) * (4 / c + (c - 1 / c) * span) - (1 - confidence)

    pointwise = float(norm.ppf((1 + confidence) / 2))
    return max(pointwise, brentq(excess, 1.0, 10.0)) if excess(1.0) > 0 else pointwise


def _banded(fallen: np.ndarray, event: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kaplan–Meier of `fallen` and its band, read at survival `GRID`."""
    at, alive, variance, left = _kaplan_meier(fallen, event)
    scale = 1 - 1 / (1 + len(fallen) * variance)
    closed = np.flatnonzero((scale >= REACH[0]) & (scale <= REACH[1]) & (left > 0))
    low, high = np.zeros(len(at)), np.ones(len(at))
    if len(closed):
        c = equal_precision(scale[closed[0]], max(scale[closed[-1]], scale[closed[0]] + 1e-6), confidence)
        width = np.exp(c * np.sqrt(variance[closed]) / np.log(alive[closed]))
        low[closed], high[closed] = alive[closed] ** (1 / width), alive[closed] ** width
    low = np.maximum.accumulate(low[::-1])[::-1]  # f falls: what bounds it later bounds it before
    high = np.minimum.accumulate(high)
    place = np.searchsorted(at, 1 - GRID + 1e-12, side="right")
    first = low[0] if len(low) else 0.0
    middle, low, high = (np.r_[start, values][place] for start, values in ((1, alive), (first, low), (1, high)))
    followed = len(fallen) - np.searchsorted(np.sort(fallen), 1 - GRID - 1e-12)
    low[followed < LEAST] = 0
    low[-1] = max(low[-2], _least(len(fallen), int(event[fallen <= 0].sum()), confidence))
    return middle, low, high


def _least(patients: int, deaths: int, confidence: float) -> float:
    """One-sided exact lower bound of a share of survivors; (1 - confidence) ** (1 / patients) without a death."""
    from scipy.stats import beta

    return float(beta.ppf(1 - confidence, patients - deaths, deaths + 1)) if deaths < patients else 0.0


def _kaplan_meier(fallen: np.ndarray, event: np.ndarray):
    """At each place of a death: the share left, Greenwood's sum, and how many are left after it."""
    at, deaths = np.unique(fallen[event], return_counts=True)
    risk = len(fallen) - np.searchsorted(np.sort(fallen), at, side="left")
    left = risk - deaths
    alive = np.cumprod(left / risk)
    variance = np.cumsum(np.divide(deaths, risk * left, out=np.full(len(at), np.inf), where=left > 0))
    return at, alive, variance, left
