"""How far a network's answer depends on the image at all; no outcome is read.

Held-out patients are given each other's images, chart and lesion biomarkers kept. The image's effect is the standard
deviation of the change in risk over that of the risk between the patients: near 0 the image is not looked at, and a
network of the image alone, where both come of the same numbers, has 1.4. Intervals are from patients drawn with
replacement within their fold, who take their images with them.

The rules. An image branch has collapsed where the upper end of the interval is below `LEAST`. A network whose numbers
(log hazard ratios, log odds, or days in standard deviations) differ between patients by less than `STILL` says one
thing of everyone: its effect is 0, whatever the ratio of two roundings is. Where no fold has two patients to exchange
images between, nothing is known, and nothing is said.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

LEAST = 0.05
STILL = 0.01
REPEATS, CONFIDENCE, SEED = 1000, 0.95, 61
ENDS = ("estimate", "low", "high")


def image_effect(table: pd.DataFrame) -> dict:
    """The effect of the image with its interval, and whether the branch has collapsed.

    Parameters
    ----------
    table : DataFrame
        `fold`, `patient_id`, `image_of`, `risk`, `output`, as `Deep.exchanged` of each fold's held-out patients; a
        patient's own image is among the images.

    Returns
    -------
    dict
        `image_effect`: `estimate`, `low`, `high`, floats or None; `collapsed`: bool, or None where it is not known.
    """
    folds = [own for _, own in table.groupby("fold") if own["patient_id"].nunique() > 1]
    if not folds:
        return {"image_effect": dict.fromkeys(ENDS), "collapsed": None}
    once = [np.ones((1, own["patient_id"].nunique())) for own in folds]
    if _pooled(folds, once, "output")[1][0] < STILL:
        return {"image_effect": dict.fromkeys(ENDS, 0.0), "collapsed": True}
    rng = np.random.default_rng(SEED)
    drawn = [rng.multinomial(each.size, np.full(each.size, 1 / each.size), size=REPEATS) for each in once]
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    with np.errstate(invalid="ignore", divide="ignore"):  # a patient who is drawn alone has nobody to exchange with
        estimate, resampled = (np.divide(*_pooled(folds, counts, "risk")) for counts in (once, drawn))
    ends = [estimate[0], *np.nanquantile(resampled, tails)]
    return {"image_effect": dict(zip(ENDS, map(float, ends), strict=True)), "collapsed": bool(ends[-1] < LEAST)}


def _pooled(folds: list[pd.DataFrame], counts: list[np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation of the change in `name`, and that of `name`, within the folds: each (resamples,).

    Both are over the same pairs of patients, which makes the second the usual one (half the mean squared difference).
    `counts`, a fold each, (resamples, patients): how often each patient is drawn; pairs of one with oneself are none.
    """
    change, square, apart, total = np.zeros((4, len(counts[0])))
    for own, drawn in zip(folds, counts, strict=True):
        said = own.pivot(index="patient_id", columns="image_of", values=name)  # not given: NaN
        said = said.reindex(columns=said.index).to_numpy(float)
        value = np.diag(said)
        patient, other = np.nonzero(np.isfinite(said) & ~np.eye(len(said), dtype=bool))
        moved, weight = said[patient, other] - value[patient], drawn[:, patient] * drawn[:, other]
        own_total = weight.sum(axis=1)
        change += (weight @ moved) ** 2 / np.maximum(own_total, 1)
        square += weight @ moved**2
        apart += weight @ (value[patient] - value[other]) ** 2 / 2
        total += own_total
    return np.sqrt((square - change).clip(0) / total), np.sqrt(apart / total)
