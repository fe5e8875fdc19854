"""The table's imputation and scaling as numbers: what `models.prepare_table` has learnt, without scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from survpack.errors import BadInput

LEAST = 1e-2  # below it, a volume or a ratio is taken as this before its logarithm, as in `models.prepare_table`
KINDS = {
    "skewed": {"name", "fill", "mean", "scale"},
    "numeric": {"name", "fill", "mean", "scale"},
    "ordered": {"name", "levels", "fill", "mean", "scale"},
    "categorical": {"name", "levels", "fill", "shown"},
}


@dataclass(frozen=True)
class Columns:
    """Chart and lesion biomarkers to the numbers that a network reads.

    Attributes
    ----------
    steps : dict of str to list of dict
        By kind ("skewed", "numeric", "ordered", "categorical"), one entry a column in the order in which they come
        out: `name`, `fill` (what a missing value is taken as; of an ordered column, a rank), `mean` and `scale`,
        `levels`, and `shown`, the levels that have a column of their own.
    kept : list of int
        Which of the columns made go on to the network; the others never varied.
    """

    steps: dict[str, list[dict]]
    kept: list[int]

    @classmethod
    def learned(cls, pipeline) -> Columns:
        """From the fitted pipeline of `models.prepare_table`."""
        table, varying = pipeline[0], pipeline[-1]
        steps = {kind: [] for kind in KINDS}
        for kind, fitted, names in table.transformers_:
            if kind in steps and len(names):
                steps[kind] = _read(kind, fitted, list(names))
        return cls(steps, [int(at) for at in np.flatnonzero(varying.get_support())])

    @property
    def names(self) -> list[str]:
        """The columns it asks for."""
        return [step["name"] for kind in KINDS for step in self.steps[kind]]

    @property
    def fills(self) -> dict:
        """What stands for a missing value, by column, in the column's own unit or level; None where there is none.

        An ordered column is imputed with the median rank; between two levels, the lower one is named here.
        """
        found = {
            step["name"]: step["fill"] for kind in ("skewed", "numeric", "categorical") for step in self.steps[kind]
        }
        for step in self.steps["ordered"]:
            found[step["name"]] = step["levels"][int(step["fill"])] if step["levels"] else None
        return {name: found[name] for name in self.names}

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """The table as the network reads it, float64, shape (n, len(kept)).

        Parameters
        ----------
        frame : DataFrame, shape (n, columns)
            Missing is NaN or None; a level that is none counts as missing.

        Raises
        ------
        BadInput
            For a column that is absent, no number, or infinite.
        """
        absent = [name for name in self.names if name not in frame]
        if absent:
            raise BadInput(
                f"table: no column {', '.join(absent)}, expected {', '.join(self.names)}; add it, empty where nothing "
                "is known."
            )
        parts = [_BY_KIND[kind](frame[step["name"]], step) for kind in KINDS for step in self.steps[kind]]
        made = np.concatenate(parts, axis=1) if parts else np.zeros((len(frame), 0))
        return made[:, self.kept]

    def as_json(self) -> dict:
        return {"steps": self.steps, "kept": self.kept}

    @classmethod
    def from_json(cls, content: dict) -> Columns:
        """Back from `as_json`.

        Raises
        ------
        BadInput
            For what is not of its form.
        """
        try:
            steps, kept = {kind: list(content["steps"][kind]) for kind in KINDS}, [int(at) for at in content["kept"]]
            whole = all(set(step) == KINDS[kind] for kind in KINDS for step in steps[kind])
        except (KeyError, TypeError, ValueError):
            whole = False
        if not whole:
            raise BadInput("bundle: `columns` is not the imputation and scaling of a table; make the bundle again.")
        return cls(steps, kept)


def _read(kind: str, fitted, names: list[str]) -> list[dict]:
    """What scikit-learn has learnt of some columns of one kind."""
    if kind == "categorical":
        _, fill, one_hot = (step for _, step in fitted.steps)
        return [
            {"name": name, "levels": _plain(levels), "fill": _plain([most])[0], "shown": _plain(_shown(levels, drop))}
            for name, levels, most, drop in zip(
                names, one_hot.categories_, fill.statistics_, _dropped(one_hot, names), strict=True
            )
        ]
    steps = dict(fitted.steps)
    fill, scaler = steps["simpleimputer"].statistics_, steps["standardscaler"]
    rows = [
        {"name": name, "fill": float(fill[k]), "mean": float(scaler.mean_[k]), "scale": float(scaler.scale_[k])}
        for k, name in enumerate(names)
    ]
    if kind == "ordered":
        rows = [
            row | {"levels": _plain(levels)}
            for row, levels in zip(rows, steps["ordinalencoder"].categories_, strict=True)
        ]
    return rows


def _dropped(one_hot, names: list[str]) -> list:
    return [None] * len(names) if one_hot.drop_idx_ is None else list(one_hot.drop_idx_)


def _shown(levels, drop) -> list:
    return [level for k, level in enumerate(levels) if drop is None or k != drop]


def _plain(levels) -> list:
    """Without numpy's types, which JSON does not know."""
    return [level.item() if isinstance(level, np.generic) else level for level in levels]


def _numbers(column: pd.Series) -> np.ndarray:
    try:
        values = column.to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):
        raise BadInput(f"table: column {column.name} holds what is no number; correct it there.") from None
    if np.isinf(values).any():
        raise BadInput(
            f"table: column {column.name} holds an infinite value, expected a number or nothing; correct it."
        )
    return values


def _ranks(column: pd.Series, levels: list) -> np.ndarray:
    """Place of each value among the levels; NaN for what is none."""
    known = column.isin(levels)
    place = {level: float(k) for k, level in enumerate(levels)}
    return np.array([place[value] if here else np.nan for value, here in zip(column, known, strict=True)])


def _scaled(values: np.ndarray, step: dict) -> np.ndarray:
    return ((values - step["mean"]) / step["scale"])[:, None]


def _filled(values: np.ndarray, step: dict) -> np.ndarray:
    return np.where(np.isnan(values), step["fill"], values)


def _skewed(column: pd.Series, step: dict) -> np.ndarray:
    return _scaled(np.log(np.clip(_filled(_numbers(column), step), LEAST, None)), step)


def _numeric(column: pd.Series, step: dict) -> np.ndarray:
    return _scaled(_filled(_numbers(column), step), step)


def _ordered(column: pd.Series, step: dict) -> np.ndarray:
    return _scaled(_filled(_ranks(column, step["levels"]), step), step)


def _categorical(column: pd.Series, step: dict) -> np.ndarray:
    values = column.astype(object).where(column.isin(step["levels"]), step["fill"])
    return np.column_stack([values == level for level in step["shown"]] or [np.zeros((len(column), 0))]).astype(float)


_BY_KIND = {"skewed": _skewed, "numeric": _numeric, "ordered": _ordered, "categorical": _categorical}
