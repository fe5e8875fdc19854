"""What each input adds to one patient's answer: SHAP, SHAP over time, partial dependence, drivers of one card."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.explain.inputs import IMAGE, Inputs, inputs, made_of, prepared, risk_of, survival_of
from survpack.explain.shapley import shapley
from survpack.inference import resamples
from survpack.models import Classical, Deep, Patients

DRAWN = 8  # orders of the inputs, each followed both ways
AT_ONCE = 16384  # rows that a model is asked for at once: bounds the memory
DEPENDENCE = ["feature", "value", "risk", "low", "high"]
GRID = 20  # values of a number at which partial dependence is asked


def shap_linear(model: Classical, train: Patients, patients: Patients) -> tuple[pd.DataFrame, pd.DataFrame]:
    """SHAP values of a linear Cox model's log risk (Lundberg and Lee 2017), against the training patients.

    Returns
    -------
    values, features : DataFrame, shape (n, columns)
        Contribution of, and (scaled) value of, each column.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a notebook widget that nothing here needs
        import shap

    names = model.prepare.get_feature_names_out()
    background = model.prepare.transform(model.read(train))
    table = model.prepare.transform(model.read(patients))
    everyone = shap.maskers.Independent(background, max_samples=len(background))  # its default draws 100 of them
    values = shap.LinearExplainer((model.estimator.coef_, 0.0), everyone).shap_values(table)
    index = patients.outcome.index
    return pd.DataFrame(values, index, names), pd.DataFrame(table, index, names)


def shap_chart(
    network: Deep, train: Patients, patients: Patients, seed: int, *, drawn: int = DRAWN
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """SHAP values of a hybrid's risk over chart and lesion biomarkers, the image held at the patient's own.

    Against all training patients (interventional, Lundberg and Lee 2017): a patient's values sum to his risk less the
    mean risk of his image with each of their charts.

    Parameters
    ----------
    network : Deep
    train, patients : Patients
    seed, drawn : int
        See `shapley.shapley`.

    Returns
    -------
    values, features : DataFrame, shape (n, columns)
        Contribution of, and value of, each column, before imputation.

    Raises
    ------
    BadInput
        For a network of the image alone.
    """
    others, own = inputs(network, train), inputs(network, patients)
    if not own.frame.shape[1]:
        raise BadInput(
            "SHAP of the chart: the network sees the image alone, expected one that sees a chart; choose a hybrid."
        )
    speak, made = risk_of(network), _made(network, others, own)
    found = [
        _contributions(speak, made, one, others._replace(embedding=one.embedding), image=False, drawn=drawn, seed=seed)
        for one in _each(own)
    ]
    values = pd.DataFrame(np.stack(found), patients.outcome.index, own.frame.columns)
    return values, own.frame


def survshap(
    model, train: Patients, patients: Patients, times, *, drawn: int = DRAWN // 2, seed: int = 0
) -> pd.DataFrame:
    """SurvSHAP(t): what each input adds to a patient's event-free probability, day by day.

    At each day the values sum to S(t | patient) less the mean S(t) of the training patients. A network's image is one
    of the inputs. Krzyzinski 2023 (doi:10.1016/j.knosys.2022.110234).

    Parameters
    ----------
    model : Deep or Classical
    train, patients : Patients
    times : array, shape (k,), days
    drawn, seed : int
        See `shapley.shapley`.

    Returns
    -------
    DataFrame
        `patient_id`, `feature`, `day`, `value`; below zero shortens life.
    """
    others, own = inputs(model, train), inputs(model, patients)
    speak, names = survival_of(model, times), [*own.frame, *([IMAGE] if own.seen else [])]
    made, parts = _made(model, others, own), []
    for name, one in zip(patients.outcome.index, _each(own), strict=True):
        values = _contributions(speak, made, one, others, image=own.seen, drawn=drawn, seed=seed)
        index = pd.MultiIndex.from_product([[name], names, np.asarray(times)], names=["patient_id", "feature", "day"])
        parts.append(pd.Series(values.ravel(), index, name="value"))
    return pd.concat(parts).reset_index()


def partial_dependence(
    model, patients: Patients, columns: list[str], *, confidence: float = 0.95, repeats: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean risk were every patient's column the same, value by value (Friedman 2001).

    The interval is over patients, of the column's effect: each patient's curve counts from its own mean, so that one
    who is at high risk at every value does not widen it. Without interactions it has no width.

    Parameters
    ----------
    model : Deep or Classical
    patients : Patients
        Whom the model was not trained on; outcomes are not read.
    columns : list of str
        Of chart and biomarkers.
    confidence, repeats, seed
        Of the bootstrap over patients.

    Returns
    -------
    DataFrame
        `feature`, `value`, `risk`, `low`, `high`. Values are levels that are there, or up to twenty numbers from the
        5th to the 95th percentile.

    Raises
    ------
    BadInput
        For a column that the model does not see.
    """
    given, risk = inputs(model, patients), risk_of(model)
    unknown = [name for name in columns if name not in given.frame]
    if unknown:
        raise BadInput(
            f"partial dependence: the model sees no column `{unknown[0]}`; choose from {', '.join(given.frame) or 'none'}."
        )
    counts = resamples(len(given.frame), repeats=repeats, seed=seed) / len(given.frame)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    tables = []
    for name in columns:
        values = _grid(given.frame[name], patients.dictionary.get(name, {"kind": "numeric"}))
        if not values:
            continue
        frames = [given.frame.assign(**{name: value}) for value in values]
        table = prepared(model, pd.concat(frames, ignore_index=True))
        embedding = np.concatenate([given.embedding] * len(values))
        curves = risk(embedding, table).reshape(len(values), -1)  # values, patients
        effect = counts @ (curves - curves.mean(axis=0)).T
        low, high = np.quantile(effect, tails, axis=0) + curves.mean()
        table = {"feature": name, "value": values, "risk": curves.mean(axis=1), "low": low, "high": high}
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=DEPENDENCE)


def drivers(
    model: Deep,
    reference_frame: pd.DataFrame,
    reference_embedding: np.ndarray,
    patient: Patients,
    *,
    drawn: int,
    seed: int,
) -> pd.DataFrame:
    """What makes one patient's risk differ from that of a reference patient: Shapley values of columns and image.

    They sum to the patient's risk less the reference's. An input that is the reference's once it is imputed adds
    nothing, and is not asked. Exact where at most `shapley.FEW` differ.

    Parameters
    ----------
    model : Deep
    reference_frame : DataFrame, one row
        A typical chart, as `model.frame` gives it.
    reference_embedding : ndarray, shape (1, members, …)
        As `model.embed` gives it.
    patient : Patients
        One.
    drawn, seed : int
        See `shapley.shapley`.

    Returns
    -------
    DataFrame
        `feature`, `value` (the patient's own; NaN where missing, None of the image), `contribution`; greatest first.
    """
    if len(patient.outcome) != 1 or len(reference_frame) != 1:
        raise BadInput(
            f"drivers: {len(patient.outcome)} patients and {len(reference_frame)} reference charts, expected one of "
            "each; ask for one patient at a time."
        )
    own = inputs(model, patient)
    reference_frame = reference_frame[list(own.frame)]
    reference = Inputs(reference_frame, prepared(model, reference_frame), np.asarray(reference_embedding))
    made = _made(model, reference, own)
    values = _contributions(risk_of(model), made, own, reference, image=own.seen, drawn=drawn, seed=seed)
    names, said = list(own.frame), list(own.frame.iloc[0])
    names, said = (names + [IMAGE], said + [None]) if own.seen else (names, said)
    table = pd.DataFrame({"feature": names, "value": pd.Series(said, dtype=object), "contribution": values})
    return table.sort_values("contribution", key=np.abs, ascending=False, kind="stable", ignore_index=True)


def _grid(column: pd.Series, about: dict) -> list:
    """Values of a column that are there: levels in their order, or numbers spread over the patients."""
    there = column.dropna()
    if about["kind"] != "numeric":
        return [level for level in about["levels"] if (there == level).any()]
    return np.unique(np.quantile(there, np.linspace(0.05, 0.95, GRID), method="nearest")).tolist() if len(there) else []


def _each(given: Inputs) -> list[Inputs]:
    return [given.take([at]) for at in range(len(given.frame))]


def _made(model, *given: Inputs) -> np.ndarray:
    return made_of(model, pd.concat([one.frame for one in given], ignore_index=True))


def _contributions(
    speak, made: np.ndarray, own: Inputs, others: Inputs, *, image: bool, drawn: int, seed: int
) -> np.ndarray:
    """Shapley values of one patient's columns and, where it plays, his image, shape (columns or one more, …).

    What a coalition says is the mean over the others, each with the coalition's inputs from the patient.
    """
    differs = [(own.table[:, outputs] != others.table[:, outputs]).any() for outputs in made]
    players = np.flatnonzero([*differs, image])  # who says what all others say adds nothing

    def value(inside: np.ndarray) -> np.ndarray:
        shape = (len(inside), len(others.table))
        table = np.where((inside[:, :-1] @ made)[:, None], own.table, others.table)
        its = inside[:, -1].reshape(-1, *[1] * own.embedding.ndim)
        embedding = np.where(its, own.embedding, others.embedding)
        embedding = np.array(np.broadcast_to(embedding, shape + own.embedding.shape[1:]))
        rows = shape[0] * shape[1]
        said = speak(embedding.reshape(rows, *own.embedding.shape[1:]), table.reshape(rows, own.table.shape[1]))
        return said.reshape(*shape, *said.shape[1:]).mean(axis=1)

    def game(playing: np.ndarray) -> np.ndarray:
        inside = np.zeros((len(playing), len(made) + 1), bool)
        inside[:, players] = playing
        return np.concatenate(
            [value(part) for part in np.array_split(inside, -(-len(inside) * len(others.table) // AT_ONCE))]
        )

    found = shapley(game, len(players), drawn=drawn, seed=seed)
    values = np.zeros((len(made) + image, *found.shape[1:]))
    values[players] = found
    return values
