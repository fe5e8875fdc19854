"""Models of visits: ridge Cox and a small network on summaries of them, and a recurrent network on the visits as such.

Each gives a risk at a landmark from what `Known` says was known there. The chart and the landmark are inputs of all.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack.growth import slope
from survpack.models.columns import prepare_table
from survpack.params import Params

COMPONENTS = 8  # of the measurements of a visit, however many there are: follow-up cohorts have few patients
SIZES = ("_ml", "_mm")  # end the names of what grows by a factor
SMALLEST = 1e-2
OUTLYING = 4.0  # standard deviations, beyond which a measurement is not believed
MEMBERS = (
    3  # networks from other seeds, whose risks are averaged: a single one of a hundred patients is a matter of luck
)
RATE = 0.01


class Seen(NamedTuple):
    """What models see at n landmarks, standardised in the training fold, and what came after.

    Attributes
    ----------
    baseline, last, delta : ndarray, shape (n, columns)
        First visit; last visit and the days since; last visit, change from the first, rate in 30 days, and the days
        since. Chart and landmark in each.
    visits : ndarray, shape (n, longest, columns)
        Each visit, its change since the one before, its day and the gap between the two; zeros after the last.
    lengths : ndarray of int, shape (n,)
    table : ndarray, shape (n, columns)
        Chart, landmark, days since the last visit.
    time, event, landmark : ndarray, shape (n,)
    """

    baseline: np.ndarray
    last: np.ndarray
    delta: np.ndarray
    visits: np.ndarray
    lengths: np.ndarray
    table: np.ndarray
    time: np.ndarray
    event: np.ndarray
    landmark: np.ndarray


class Known:
    """From measurements to numbers, learnt on training patients at their landmarks.

    A missing number is the training median, and a column says what share of the visit is missing. Volumes and lengths
    are logarithms. Of many measurements the first principal components are kept.

    Parameters
    ----------
    days : ndarray, shape (visits,)
    values : DataFrame, shape (visits, measurements)
    chart : DataFrame, indexed by `patient_id`
    dictionary : dict
        Of the chart.
    """

    def __init__(self, days: np.ndarray, values: pd.DataFrame, chart: pd.DataFrame, dictionary: dict):
        self.days, self.values, self.chart, self.dictionary = days, values, chart, dictionary

    def fit(self, train) -> Known:
        """Learn from the rows of a `longitudinal.Stack`: only visits known at a landmark, each once."""
        from sklearn.preprocessing import StandardScaler

        used = self.values.iloc[np.unique(np.concatenate(train.known))]
        self.visit_columns = _measurements(used.shape).fit(_logarithms(used))
        self.landmarks = np.unique(train.rows["landmark_days"])[1:]
        self.patient_columns = None
        if self.chart.shape[1]:
            learnt = self.chart.loc[train.rows["patient_id"].unique()]
            self.patient_columns = prepare_table(learnt, self.dictionary)[:-1].fit(learnt)
        raw = self._raw(train)
        self.scalers = {name: StandardScaler().fit(raw[name]) for name in ("baseline", "last", "delta", "table")}
        self.longest_day = max(float(np.max(train.rows["landmark_days"])), 1.0)
        return self

    def of(self, stack) -> Seen:
        """What is seen at each row of a stack."""
        raw = self._raw(stack)
        scaled = {name: scaler.transform(raw[name]) for name, scaler in self.scalers.items()}
        rows = stack.rows
        outcome = (rows["time_days"].to_numpy(float), rows["event"].to_numpy(bool), rows["landmark_days"].to_numpy())
        return Seen(**scaled, visits=self._sequences(stack.known, raw["z"]), lengths=_lengths(stack), time=outcome[0],
                    event=outcome[1], landmark=outcome[2])  # fmt: skip

    def _raw(self, stack) -> dict[str, np.ndarray]:
        missing = self.values.isna().mean(axis=1).to_numpy()[:, None] if self.values.shape[1] else None
        z = np.hstack([self.visit_columns.transform(_logarithms(self.values)), missing])
        first, last = (np.array([known[end] for known in stack.known]) for end in (0, -1))
        rate = np.array([[_rate(self.days[known], column) for column in z[known].T] for known in stack.known])
        landmark = stack.rows["landmark_days"].to_numpy()
        chart = np.hstack([self._chart(stack.rows["patient_id"]), landmark[:, None] == self.landmarks])
        since = (landmark - self.days[last])[:, None] / 30
        return {
            "z": z,
            "baseline": np.hstack([z[first], chart]),
            "last": np.hstack([z[last], since, chart]),
            "delta": np.hstack([z[last], z[last] - z[first], rate, since, chart]),
            "table": np.hstack([chart, since]),
        }

    def _chart(self, patients: pd.Series) -> np.ndarray:
        if self.patient_columns is None:
            return np.empty((len(patients), 0))
        return np.asarray(self.patient_columns.transform(self.chart.loc[patients]), dtype=float)

    def _sequences(self, known: list[np.ndarray], z: np.ndarray) -> np.ndarray:
        longest = max(map(len, known), default=1)
        visits = np.zeros((len(known), longest, 2 * z.shape[1] + 2))
        for row, at in enumerate(known):
            days, change = self.days[at], np.diff(z[at], axis=0, prepend=z[at[:1]])
            timing = np.column_stack([days / self.longest_day, np.log1p(np.diff(days, prepend=days[0]) / 30)])
            visits[row, : len(at)] = np.hstack([z[at], change, timing])
        return visits


def _measurements(shape: tuple[int, int]):
    """Median for what is missing, standardised, evened out (Yeo & Johnson 2000), principal components."""
    from sklearn.decomposition import PCA
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, PowerTransformer, StandardScaler

    components = PCA(min(COMPONENTS, *shape), svd_solver="full")
    fill = SimpleImputer(strategy="median", keep_empty_features=True)
    within = FunctionTransformer(np.clip, kw_args={"a_min": -OUTLYING, "a_max": OUTLYING})
    return make_pipeline(fill, StandardScaler(), PowerTransformer(), within, components)


def _logarithms(values: pd.DataFrame) -> np.ndarray:
    sizes = [name.endswith(SIZES) for name in values]
    table = values.to_numpy(float, copy=True)
    table[:, sizes] = np.log(np.clip(table[:, sizes], SMALLEST, None))
    return table


def _rate(days: np.ndarray, values: np.ndarray) -> float:
    """Least squares over the visits, in 30 days; 0 for a single one."""
    return float(np.nan_to_num(30 * slope(days, values)))


def _lengths(stack) -> np.ndarray:
    return np.array([len(known) for known in stack.known], dtype=int)


class RidgeCox:
    """Cox regression on a summary of the visits, all columns shrunk alike (scikit-survival)."""

    def __init__(self, summary: str, params: Params):
        self.summary, self.ridge = summary, params.longitudinal.ridge

    def fit(self, seen: Seen, label: str = "") -> RidgeCox:
        from sksurv.linear_model import CoxPHSurvivalAnalysis
        from sksurv.util import Surv

        target = Surv.from_arrays(seen.event, seen.time)
        self.model = CoxPHSurvivalAnalysis(alpha=self.ridge, ties="efron").fit(getattr(seen, self.summary), target)
        return self

    def predict(self, seen: Seen) -> np.ndarray:
        """Log hazard ratios, shape (n,)."""
        return self.model.predict(getattr(seen, self.summary)) if len(seen.time) else np.empty(0)


class Network:
    """A network on a summary, or on the visits in turn; trained by the partial likelihood of each landmark."""

    def __init__(self, summary: str | None, params: Params):
        self.summary, self.params = summary, params

    def fit(self, seen: Seen, label: str = "") -> Network:
        from survpack.training import seed_everything

        self.members = []
        for member in range(MEMBERS):
            seed = self.params.longitudinal.seed + member
            seed_everything(seed)
            self.members.append(self._trained(seen, seed, label))
        return self

    def predict(self, seen: Seen) -> np.ndarray:
        """Log hazard ratios, the mean of the networks, shape (n,)."""
        import torch

        if not len(seen.time):
            return np.empty(0)
        with torch.no_grad():
            given = self._tensors(seen)
            return np.mean([net.cpu().eval()(*given).double().numpy() for net in self.members], axis=0)

    def _trained(self, seen: Seen, seed: int, label: str):
        import torch

        from survpack.objectives import cox
        from survpack.training import optimise
        from survpack.visit_networks import VisitNet

        choice, given = self.params.training, self._tensors(seen)
        net = VisitNet(given[0].shape[2], given[2].shape[1], self.params.longitudinal.width, choice.dropout,
                       recurrent=self.summary is None)  # fmt: skip
        outcome = (torch.as_tensor(seen.time, dtype=torch.float32), torch.as_tensor(seen.event))
        at = [torch.as_tensor(np.flatnonzero(seen.landmark == day)) for day in np.unique(seen.landmark)]

        def batches(epoch: int, rng: np.random.Generator):
            return [tuple(one[at[k]] for one in (*given, *outcome)) for k in rng.permutation(len(at))]

        def loss_of(module, batch):
            *known, time, event = batch
            return cox(module(*known).float(), time, event)

        optimise(net, batches, loss_of, choice, epochs=self.params.longitudinal.epochs, seed=seed, label=label,
                 learning_rate=RATE)  # fmt: skip
        return net

    def _tensors(self, seen: Seen):
        """Visits (n, longest, columns), how many there are (n,), and the table beside them (n, columns)."""
        import torch

        if self.summary is None:
            visits, lengths = seen.visits, seen.lengths
        else:
            visits, lengths = getattr(seen, self.summary)[:, None], np.ones(len(seen.time), dtype=int)
        single = (torch.as_tensor(one, dtype=torch.float32) for one in (visits, seen.table))
        visits, table = single
        return visits, torch.as_tensor(lengths), table


METHODS = {
    **{f"{summary}-cox": partial(RidgeCox, summary) for summary in ("baseline", "last", "delta")},
    **{f"{summary}-dense": partial(Network, summary) for summary in ("baseline", "last", "delta")},
    "gru": partial(Network, None),
}


def build(method: str, params: Params):
    """A fresh model by name (`METHODS`), with `fit(seen, label)` and `predict(seen)`."""
    return METHODS[method](params)
