"""How unlike the training patients one is: beyond a stated limit no prognosis is given.

Three groups of numbers are compared: chart and volumes as the network takes them, the crop in hand-made numbers that
no network has a part in (`descriptors`), and what the network keeps of the image (Lee et al. 2018, arXiv:1807.03888).
Each is measured by Mahalanobis' distance of all its numbers together, with the covariance of Ledoit and Wolf (2004,
doi:10.1016/S0047-259X(03)00096-4); the chart also by its one number that is least what the others of the patient make
expected, as a single slip is lost among many that are right. All are divided by what nine in ten training patients keep
within, each measured against all the others; a patient's score is the largest. The limit is the largest score of a
training patient so left out. Of n + 1 patients alike any may be the largest, so one who comes from where they came is
refused with probability at most about 1 / (n + 1).

What is missing is not compared. Only means, covariances and quantiles are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.models.deep import Deep
from survpack.models.patients import Patients
from survpack.numbers import amount, known

CHART, IMAGE, NETWORK = "chart and volumes", "image", "network"
WORDS = {CHART: "chart and volumes", IMAGE: "image", NETWORK: "image, as the network sees it,"}
WIDEST = 48  # numbers of a network's embedding that are compared; of more, their principal components
DIGITS = 6
USUAL = 0.9  # of the training patients have a score of 1 or less, in each group
ALIKE = 1e-6  # a column whose values spread no more than this, or this share of its mean, says nothing
LONE = 0.2  # nor one whose middle nine tenths span less of its standard deviation: one or two patients are all of it


class Group(NamedTuple):
    """Numbers compared together.

    Attributes
    ----------
    columns : list of str
        Of what is given, in order; a name may come twice (the levels of a category).
    centre, spread : ndarray, shape (columns,)
    axes : ndarray, shape (components, columns), or None
        Principal components of what is centred and divided by its spread.
    covariance : ndarray, shape (k, k)
    usual : tuple of floats
        What `USUAL` of the training patients keep within: the distance, and for the chart the single number.
    """

    columns: list
    centre: np.ndarray
    spread: np.ndarray
    axes: np.ndarray | None
    covariance: np.ndarray
    usual: tuple[float, ...] = (1.0,)

    @classmethod
    def learn(cls, values: pd.DataFrame, components: int = 0) -> Group | None:
        """None where no column varies."""
        from sklearn.covariance import ledoit_wolf

        filled = values.to_numpy(float)
        centre, spread = np.nanmean(filled, axis=0), np.nanstd(filled, axis=0)
        kept = spread > ALIKE * np.maximum(np.abs(centre), 1)
        if not kept.any():
            return None
        centre, spread = centre[kept], spread[kept]
        filled = filled[:, kept]
        scaled = np.nan_to_num((filled - centre) / spread)
        axes = None
        if components and scaled.shape[1] > components:
            axes = np.linalg.svd(scaled, full_matrices=False)[2][:components]
            scaled = scaled @ axes.T
        return cls(values.columns[kept].tolist(), centre, spread, axes, ledoit_wolf(scaled)[0])

    def scaled(self, values: pd.DataFrame) -> np.ndarray:
        """Standard deviations from the training patients' mean, shape (n, columns); NaN where missing."""
        at = pd.Index(_told_apart(values.columns)).get_indexer(_told_apart(self.columns))
        found = values.to_numpy(float)[:, np.maximum(at, 0)]
        found[:, at < 0] = np.nan
        return (found - self.centre) / self.spread

    def distances(self, values: pd.DataFrame) -> np.ndarray:
        """Shape (n, 2): Mahalanobis' distance over the root of how many numbers are compared, and the largest number of
        standard deviations from what the others make expected; NaN where none is there."""
        scaled = self.scaled(values)
        return np.array([self._distance(row) for row in (scaled if self.axes is None else scaled @ self.axes.T)])

    def _distance(self, row: np.ndarray) -> tuple[float, float]:
        left = self._unexpected(row)
        there = np.isfinite(row)
        if left is None:
            return np.nan, np.nan
        weighed, residual = left
        return float(np.sqrt(row[there] @ weighed / there.sum())), float(np.abs(residual).max())

    def _unexpected(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Of the numbers that are there: the row times the precision, and standardised residuals on all the others."""
        there = np.flatnonzero(np.isfinite(row))
        if not len(there):
            return None
        precision = np.linalg.inv(self.covariance[np.ix_(there, there)])
        weighed = precision @ row[there]
        return weighed, weighed / np.sqrt(np.diag(precision))

    def furthest(self, values: pd.DataFrame) -> list[str]:
        """Of each patient, the number that is furthest from what the others make expected, in words."""
        said = []
        for row in self.scaled(values):
            left = self._unexpected(row) if self.axes is None else None
            if left is None:
                said.append("")
                continue
            at = int(np.argmax(np.abs(left[1])))
            name, away = np.array(self.columns, object)[np.isfinite(row)][at], left[1][at]
            said.append(
                f"{name} ({abs(away):.1f} standard deviations {'above' if away > 0 else 'below'} what is expected)"
            )
        return said

    def as_json(self) -> dict:
        upper = self.covariance[np.triu_indices(len(self.covariance))]
        axes = None if self.axes is None else [_short(row) for row in self.axes]
        return {"columns": self.columns, "centre": _short(self.centre), "spread": _short(self.spread), "axes": axes,
                "covariance": _short(upper), "usual": _short(self.usual)}  # fmt: skip

    @classmethod
    def from_json(cls, stored: dict) -> Group:
        upper = np.array(stored["covariance"], float)
        size = round((np.sqrt(8 * len(upper) + 1) - 1) / 2)
        covariance = np.zeros((size, size))
        covariance[np.triu_indices(size)] = upper
        covariance = covariance + np.triu(covariance, 1).T
        axes = None if stored["axes"] is None else np.array(stored["axes"], float)
        centre, spread = np.array(stored["centre"], float), np.array(stored["spread"], float)
        return cls(stored["columns"], centre, spread, axes, covariance, tuple(map(float, stored["usual"])))


@dataclass(frozen=True)
class Likeness:
    """What is kept of the training patients, to tell who is unlike them.

    Attributes
    ----------
    groups : dict of str to Group
        Those of `CHART`, `IMAGE`, `NETWORK` that the model has.
    limit : float
        Above it a patient is refused.
    quantiles : ndarray, shape (101,)
        Of the training patients' scores, each left out in turn.
    outputs : list of str
        Of each number of the prepared table, the column that it comes from.
    scanned : list of list of str
        The sets of modalities that training patients have.
    patients : int
    """

    groups: dict[str, Group]
    limit: float
    quantiles: np.ndarray
    outputs: list[str]
    scanned: list[list[str]]
    patients: int

    @classmethod
    def learn(cls, model: Deep, train: Patients) -> Likeness:
        """From the patients that the model was trained on; their outcome is not looked at.

        Raises
        ------
        BadInput
            For fewer than three patients, or where nothing about them varies.
        """
        if len(train.outcome) < 3:
            raise BadInput(
                f"{train.name}: {len(train.outcome)} training patients, expected three at least to say who is like "
                "them; add patients."
            )
        outputs, scanned = _outputs(model, train), sorted({tuple(names) for names in _scanned(train)})
        groups, scores = {}, []
        for name, values in _compared(model, train, outputs, scanned).items():
            values, components = _spread_out(values), WIDEST if name == NETWORK else 0
            group = Group.learn(values, components) if values.shape[1] else None
            if group is None:
                continue
            left_out = np.array([_left_out(values, at, components) for at in range(len(values))])
            left_out = left_out if name == CHART else left_out[:, :1]  # of many numbers, one is always odd
            usual = np.nanquantile(left_out, USUAL, axis=0)
            groups[name] = group._replace(usual=tuple(map(float, usual)))
            scores.append((left_out / usual).max(axis=1))
        if not groups:
            raise BadInput(f"{train.name}: nothing varies among the training patients; there is nothing to compare.")
        combined = np.fmax.reduce(scores)
        quantiles = np.quantile(combined, np.linspace(0, 1, 101))
        said = cls(groups, float(combined.max()), quantiles, outputs, [list(names) for names in scanned], len(combined))
        return cls.from_json(said.as_json())  # rounded as it will be stored: a bundle judges as its maker did

    def judge(self, model: Deep, patients: Patients) -> list[dict]:
        """How unlike the training patients each one is.

        Parameters
        ----------
        model : Deep
            The one it was learnt with.
        patients : Patients
            Their outcome is not looked at.

        Returns
        -------
        list of dict, one a patient
            `score` (1 or less is usual; None where nothing can be compared, which is refused), `limit`, `percentile` (0
            to 100, among the training patients), `refused`, `group` (in which it is least like them), `why` (a sentence).
        """
        compared = _compared(model, patients, self.outputs, [tuple(names) for names in self.scanned])
        scores = {
            name: (group.distances(compared[name])[:, : len(group.usual)] / group.usual).max(axis=1)
            for name, group in self.groups.items()
        }
        furthest = {name: group.furthest(compared[name]) for name, group in self.groups.items() if name != NETWORK}
        found = []
        for at in range(len(patients.outcome)):
            own = {name: float(values[at]) for name, values in scores.items() if np.isfinite(values[at])}
            group = max(own, key=own.get) if own else ""
            found.append(self._said(own.get(group), group, furthest[group][at] if group in furthest else ""))
        return found

    def _said(self, score: float | None, group: str, furthest: str) -> dict:
        if score is None:
            why = "nothing of this patient can be compared with the training patients"
            return {"score": None, "limit": self.limit, "percentile": None, "refused": True, "group": group, "why": why}
        refused = score > self.limit
        most = f"; most of all in {furthest}" if furthest else ""
        verb = "differ" if group == CHART else "differs"
        beyond = (
            f", and none of those {self.patients} differed more than {self.limit:.1f} times as much" if refused else ""
        )
        why = (
            f"the {WORDS[group]} {verb} from the training patients' {score:.1f} times as much as nine in ten of them do"
            f"{beyond}{most}"
        )
        percentile = float(100 * np.mean(self.quantiles < score))
        return {"score": score, "limit": self.limit, "percentile": min(percentile, 100.0), "refused": refused,
                "group": group, "why": why}  # fmt: skip

    def as_json(self) -> dict:
        """Lists and numbers that `from_json` takes back."""
        return {
            "groups": {name: group.as_json() for name, group in self.groups.items()},
            "limit": self.limit,
            "quantiles": _short(self.quantiles),
            "outputs": self.outputs,
            "scanned": self.scanned,
            "patients": self.patients,
        }

    @classmethod
    def from_json(cls, stored: dict) -> Likeness:
        """What `as_json` gave.

        Raises
        ------
        BadInput
            For what it cannot have given.
        """
        try:
            groups = {name: Group.from_json(one) for name, one in stored["groups"].items()}
            rest = [stored[name] for name in ("outputs", "scanned", "patients")]
            return cls(groups, float(stored["limit"]), np.array(stored["quantiles"], float), *rest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"likeness: {error} is amiss in what was stored; make the bundle anew.") from None


def table(learnt: Likeness, network: Deep, held: Patients) -> pd.DataFrame:
    """Who is refused among held-out patients, as they are and after their scans or charts were spoilt.

    Volumes are not measured anew on what was spoilt. No outcome is read.

    Parameters
    ----------
    learnt : Likeness
    network : Deep
        The one it was learnt with.
    held : Patients

    Returns
    -------
    DataFrame, a row a shift (`shifts.SHIFTS`), "none" first
        `shift`, `patients`, `refused` (a share), `score` (median), `limit`, `auroc` (of the score, spoilt against as
        they are; NaN for none), `group` (in which they most often differ most).
    """
    from sklearn.metrics import roc_auc_score

    from survpack.deploy.shifts import SHIFTS

    rows, before = [], None
    for name, spoil in {"none": lambda patients: patients, **SHIFTS}.items():
        spoilt = spoil(held)
        if spoilt is None:
            continue
        said = pd.DataFrame(learnt.judge(network, spoilt))
        score = said["score"].to_numpy(float)
        before = score if before is None else before
        spoilt_ones = np.repeat([0, 1], [len(before), len(score)])
        auroc = roc_auc_score(spoilt_ones, np.r_[before, score]) if name != "none" else np.nan
        rows.append({
            "shift": name, "patients": len(score), "refused": said["refused"].mean(), "score": np.median(score),
            "limit": learnt.limit, "auroc": auroc, "group": said["group"].mode()[0],
        })  # fmt: skip
    return pd.DataFrame(rows)


def text(found: pd.DataFrame) -> pd.DataFrame:
    """`table` for a page."""
    return pd.DataFrame({
        "What is wrong": found["shift"].replace("none", "nothing"),
        "Patients": found["patients"],
        "Declined": [f"{share:.0%}" for share in found["refused"]],
        "Median distance over the limit": [amount(ratio, 2) for ratio in found["score"] / found["limit"]],
        "AUROC": [amount(auc, 2) if known(auc) else "" for auc in found["auroc"]],
        "Unlike in": found["group"].where(found["shift"] != "none", ""),
    })  # fmt: skip


def _compared(model: Deep, patients: Patients, outputs: list[str], scanned: list[tuple]) -> dict[str, pd.DataFrame]:
    """The numbers of each group, NaN where there is nothing to compare."""
    from survpack.deploy.descriptors import descriptors

    ids, found = patients.outcome.index, {}
    if outputs:
        frame = model.frame(patients)
        prepared = pd.DataFrame(model.prepare.transform(frame), ids, outputs)
        missing = pd.DataFrame({name: frame[name].isna() for name in dict.fromkeys(outputs)}, index=ids)
        found[CHART] = prepared.mask(missing[outputs].to_numpy())
    if model.fusion != "chart":
        found[IMAGE] = descriptors(patients)
        embedded = model.embed(patients).reshape(len(ids), -1).astype(float)
        # a network says other things of a patient who lacks what nobody lacked before
        embedded[[names not in scanned for names in _scanned(patients)]] = np.nan
        found[NETWORK] = pd.DataFrame(embedded, ids, [str(k) for k in range(embedded.shape[1])])
    return found


def _outputs(model: Deep, train: Patients) -> list[str]:
    """The column that each number of the prepared table comes from: the one that changes it."""
    if model.prepare is None:
        return []
    frame = model.frame(train)
    before = model.prepare.transform(frame)
    found = [""] * before.shape[1]
    for name in frame:
        rolled = frame.assign(**{name: np.roll(frame[name].to_numpy(), 1)}).astype(frame.dtypes.to_dict())
        for at in np.flatnonzero((model.prepare.transform(rolled) != before).any(axis=0)):
            found[at] = name
    return found


def _scanned(patients: Patients) -> list[tuple]:
    return [tuple(np.array(patients.modalities, object)[there]) for there in patients.present.astype(bool)]


def _spread_out(values: pd.DataFrame) -> pd.DataFrame:
    """Without columns of which one or two patients are all the variation: left out, they would seem infinitely far."""
    there = values.notna().sum().to_numpy() > 1
    low, high = (values.quantile(share).to_numpy() for share in (0.05, 0.95))
    return values.loc[:, there & (high - low > LONE * np.nan_to_num(values.std().to_numpy(), nan=np.inf))]


def _left_out(values: pd.DataFrame, at: int, components: int) -> np.ndarray:
    group = Group.learn(values.drop(index=values.index[at]), components)
    return group.distances(values.iloc[[at]])[0] if group else np.full(2, np.nan)


def _told_apart(names) -> list[tuple]:
    """Each name with how often it came before."""
    names = pd.Series(list(names), dtype=object)
    return list(zip(names, names.groupby(names).cumcount(), strict=True))


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]
