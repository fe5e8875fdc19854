"""How much a model's ranking rests on each input: permutation importance."""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.explain.folds import out_of_fold
from survpack.explain.inputs import IMAGE, Inputs, inputs, made_of, require_columns, risk_of
from survpack.metrics import concordance
from survpack.models import Deep, Patients, build
from survpack.study import TEST_FOLD, Study


def permutation_importance(
    risk_of, parts: dict[str, np.ndarray], patients: Patients, *, repeats: int, confidence: float, seed: int
) -> pd.DataFrame:
    """How much Harrell's C falls when one input is shuffled among patients.

    Each repeat draws the patients anew with replacement and shuffles within the draw, so that
    the interval holds both the luck of the shuffle and the luck of the patients.

    Parameters
    ----------
    risk_of : callable
        `risk_of(parts)` to risk, a number a row, each of its row alone.
    parts : dict of str to ndarray
        Input by name, rows are patients.
    patients : Patients
        None of whom the model was trained on.

    Returns
    -------
    DataFrame
        `feature`, `importance` (mean fall), `low`, `high`; most important first.
    """
    alone = {name: (name,) for name in parts}
    falls = _falls(risk_of, parts, patients, repeats, np.random.default_rng(seed), alone)
    return _importance(falls, confidence)


def out_of_fold_importance(
    study: Study, model: str, *, repeats: int, confidence: float, seed: int, grouped: bool = False
) -> pd.DataFrame:
    """`permutation_importance` of image and columns, each fold's model on the patients it left out.

    No outcome of a test patient is read. The folds are averaged repeat by repeat; a column that a fold's model does
    not see has no importance in it, and a draw without a comparable pair is left out.

    Parameters
    ----------
    study : Study
    model : str
        A network, or a classical model of several columns.
    repeats, confidence, seed
        As in `permutation_importance`.
    grouped : bool
        Shuffle together what is correlated among development patients: numbers and ordered levels whose average
        |Spearman rho| is above `selection.correlation`. Alone, each would look unimportant, for the others stand in.

    Returns
    -------
    DataFrame
        `feature`, `importance`, `low`, `high`; grouped, also `group` (from 1) and `members`, and the feature names
        them all.

    Raises
    ------
    BadInput
        For a model without columns.
    """
    rng, each = np.random.default_rng(seed), []
    read = [(inputs(fitted, held), held, fitted) for fitted, held in _fold_models(study, model)]
    names = list(dict.fromkeys(name for given, *_ in read for name in given.frame))
    groups = _groups(study, names) if grouped else {name: (name,) for name in names}
    for given, held, fitted in read:
        parts, risk = _parts(fitted, given)
        together = {name: tuple(one for one in members if one in parts) for name, members in groups.items()}
        together = ({IMAGE: (IMAGE,)} if given.seen else {}) | together
        each.append(_falls(risk, parts, held, repeats, rng, {name: some for name, some in together.items() if some}))
    shuffled = list(dict.fromkeys(name for falls in each for name in falls))
    same = pd.concat([falls.reindex(columns=shuffled, fill_value=0.0) for falls in each])
    falls = same.groupby(level=0).mean()  # of the folds in which the repeat's fall is defined
    table = _importance(falls, confidence)
    if not grouped:
        return table
    members = [groups.get(name, (name,)) for name in table["feature"]]
    return table.assign(group=range(1, len(table) + 1), members=[", ".join(some) for some in members])


def _fold_models(study: Study, model: str) -> list[tuple]:
    """Each fold's fitted model, and the patients it left out."""
    fresh = build(model, study.params)
    require_columns(fresh)
    if isinstance(fresh, Deep):
        return out_of_fold(study, model)
    folds = sorted(set(study.splits["fold"]) - {TEST_FOLD})
    sides = [[study.patients.take(ids) for ids in study.fold(fold)] for fold in folds]
    return [(build(model, study.params).fit(train), held) for train, held in sides]


def _parts(model, given: Inputs) -> tuple[dict[str, np.ndarray], object]:
    """Image and columns by name, as prepared for the model, and its risk as a function of them.

    Each column of the chart is prepared alone, so to shuffle what it makes is to shuffle the column.
    """
    made, risk = made_of(model, given.frame), risk_of(model)
    parts = {name: given.table[:, own] for name, own in zip(given.frame, made, strict=True)}
    parts |= {IMAGE: given.embedding} if given.seen else {}

    def risk_from(given_parts: dict[str, np.ndarray]) -> np.ndarray:
        size = len(next(iter(given_parts.values())))
        table = np.repeat(given.table[:1], size, axis=0)
        for name, own in zip(given.frame, made, strict=True):
            table[:, own] = given_parts[name]
        return risk(given_parts.get(IMAGE, np.repeat(given.embedding[:1], size, axis=0)), table)

    return parts, risk_from


def _groups(study: Study, names: list[str]) -> dict[str, tuple[str, ...]]:
    """Columns that say the same, by a name that lists them, in the order of `names`."""
    from survpack.selection import clusters

    patients = study.patients.take(study.development)
    table = patients.clinical.join(patients.biomarkers, rsuffix=" measured")[names]
    kinds = {name: patients.dictionary.get(name, {"kind": "numeric"}) for name in names}
    ranked = {name: table[name] for name in names if kinds[name]["kind"] == "numeric"}
    for name in (name for name in names if kinds[name]["kind"] == "ordered"):
        ranked[name] = table[name].map({level: place for place, level in enumerate(kinds[name]["levels"])})
    ranked = pd.DataFrame(ranked, table.index)[[name for name in names if name in ranked]]
    found = clusters(ranked, study.params.selection.correlation).set_index("column")["cluster"].to_dict()
    together: dict = {}
    for name in names:
        together.setdefault(found.get(name, name), []).append(name)
    return {" + ".join(members): tuple(members) for members in together.values()}


def _falls(
    risk_of, parts: dict, patients: Patients, repeats: int, rng: np.random.Generator, groups: dict[str, tuple]
) -> pd.DataFrame:
    """Fall of Harrell's C, a row a repeat, a column a group of inputs that are shuffled together."""
    time, event = patients.outcome["time_days"].to_numpy(), patients.outcome["event"].to_numpy(dtype=bool)
    rows = []
    for _ in range(repeats):
        drawn = rng.choice(len(time), len(time))
        orders = [rng.permutation(len(drawn)) for _ in groups]
        asked = {}
        for name, values in parts.items():  # as drawn, then with each group shuffled: the model is asked once
            mine = [
                order if name in members else slice(None)
                for order, members in zip(orders, groups.values(), strict=True)
            ]
            asked[name] = np.concatenate([values[drawn], *(values[drawn][one] for one in mine)])
        whole, *shuffled = np.asarray(risk_of(asked)).reshape(len(groups) + 1, -1)
        best = concordance(time[drawn], event[drawn], whole)
        rows.append([best - concordance(time[drawn], event[drawn], risk) for risk in shuffled])
    return pd.DataFrame(rows, columns=list(groups))


def _importance(falls: pd.DataFrame, confidence: float) -> pd.DataFrame:
    tail = (1 - confidence) / 2
    columns = {"importance": falls.mean(), "low": falls.quantile(tail), "high": falls.quantile(1 - tail)}
    table = pd.DataFrame(columns).rename_axis("feature").reset_index()
    return table.sort_values("importance", ascending=False, ignore_index=True)
