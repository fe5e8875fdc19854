"""A fitted model as a function of what it reads: the embedded image and the prepared columns of the chart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.models import Classical, Deep, Patients

IMAGE = "image"  # the name of the scan among the columns


class Inputs(NamedTuple):
    """What a model reads of n patients.

    Attributes
    ----------
    frame : DataFrame, shape (n, columns)
        Chart and biomarkers, before imputation.
    table : ndarray, shape (n, outputs)
        The same imputed and scaled.
    embedding : ndarray, shape (n, members, …)
        What the networks keep of the image; empty where there are none, or they see no image.
    """

    frame: pd.DataFrame
    table: np.ndarray
    embedding: np.ndarray

    @property
    def seen(self) -> bool:
        """Whether an image is among them."""
        return self.embedding.size > 0

    def take(self, at) -> Inputs:
        return Inputs(self.frame.iloc[at], self.table[at], self.embedding[at])


def inputs(model, patients: Patients) -> Inputs:
    """What a network or a classical model reads of these patients.

    Raises
    ------
    BadInput
        For a model that reads no columns; where a column is named as the image is.
    """
    require_columns(model)
    deep = isinstance(model, Deep)
    frame = model.frame(patients) if deep else model.read(patients)
    if IMAGE in frame:
        raise BadInput("participants table: a column is named `image`, which is the scan's name here; rename it.")
    embedding = model.embed(patients) if deep else np.empty((len(frame), 0))
    return Inputs(frame, prepared(model, frame), embedding)


def require_columns(model) -> None:
    """Raise BadInput for a model that is neither a network nor a classical one of several columns."""
    if not isinstance(model, (Deep, Classical)):
        raise BadInput(
            f"explanation: a model of kind {type(model).__name__} has no columns to explain, expected a network or a "
            "classical model of several columns; choose another in params.yaml."
        )


def prepared(model, frame: pd.DataFrame) -> np.ndarray:
    """The columns imputed and scaled as the model learnt it, shape (n, outputs)."""
    if model.prepare is None:  # a network of the image alone
        return np.zeros((len(frame), 0))
    return np.asarray(model.prepare.transform(frame), float)


def made_of(model, frame: pd.DataFrame) -> np.ndarray:
    """Which prepared columns each column makes, bool, shape (columns, outputs): those that it moves.

    A prepared column in which these patients do not differ is nobody's.
    """
    if model.prepare is None or frame.empty:
        return np.zeros((frame.shape[1], 0), bool)
    frame = frame.reset_index(drop=True)
    base = frame.iloc[np.zeros(len(frame), int)].reset_index(drop=True)
    varied = pd.concat([base.assign(**{name: frame[name]}) for name in frame], ignore_index=True)
    table = prepared(model, varied)
    return (table != prepared(model, base.iloc[:1])).reshape(frame.shape[1], len(frame), -1).any(axis=1)


def risk_of(model):
    """`risk(embedding, table)`, higher is worse, shape (n,)."""
    if isinstance(model, Classical):
        return lambda embedding, table: model.estimator.predict(table)
    return lambda embedding, table: model.objective.risk(_outputs(model, embedding, table))


def survival_of(model, times):
    """`survival(embedding, table)`, event-free probability, shape (n, times)."""
    times = np.asarray(times, float)
    if isinstance(model, Classical):
        return lambda embedding, table: _steps(model.estimator, table, times)
    if model.curve is None:
        return lambda embedding, table: model.objective.survival(_outputs(model, embedding, table), times)
    curve, risk = model.curve, risk_of(model)
    usual = curve.survival(np.array([curve.mean]), times)  # proportional hazards: every curve is a power of this one

    def survival(embedding, table):
        return usual ** np.exp(curve.slope * (risk(embedding, table) - curve.mean) / curve.sd)[:, None]

    return survival


def _outputs(model: Deep, embedding: np.ndarray, table: np.ndarray) -> np.ndarray:
    from survpack.training import fuse

    return np.mean([fuse(net, embedding[:, k], table) for k, net in enumerate(model.nets)], axis=0)


def _steps(estimator, table: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Curves of scikit-survival at `times`, 1 before the first; as arrays, for there are many."""
    curves = np.asarray(estimator.predict_survival_function(table, return_array=True))
    place = np.searchsorted(estimator.unique_times_, times, side="right") - 1
    return np.where(place >= 0, curves[:, np.maximum(place, 0)], 1.0)
