"""The plain models: one number, Cox, and tuned ones; late fusion; and the negative control of shuffled outcomes."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.models.columns import learn_columns, prepare_table
from survpack.models.curves import RiskCurve, at, require_event
from survpack.models.patients import Forecast, Patients
from survpack.prognosis import day_at

FOREST = {"min_samples_leaf": [3, 6, 10, 15], "max_features": ["sqrt", 0.1, 0.2], "max_depth": [None, 3]}
BOOSTING = {
    "n_estimators": [50, 100, 200],
    "learning_rate": [0.02, 0.05, 0.1],
    "max_depth": [1, 2, 3],
    "subsample": [0.5, 0.75],
}


class OneNumber:
    """Age, log tumour volume, or a clinical score alone: the risk is the number itself, not learnt."""

    about = "one number, not fitted; Cox and Breslow turn it into curves"

    def __init__(self, read):
        self.read = read

    def fit(self, patients: Patients, label: str = "") -> OneNumber:
        known = self.read(patients).dropna()
        if known.empty:
            raise BadInput(
                f"{label or 'one number'}: it is missing for all {len(patients.outcome)} training patients; complete "
                "the column, or drop the model in params.yaml."
            )
        self.typical = float(known.median())
        risk = self._risk(patients)
        self.usual_risk = float(np.median(risk))
        self.curve = RiskCurve().fit(risk, patients.target, label)
        return self

    def predict(self, patients: Patients, times: np.ndarray) -> Forecast:
        risk = self._risk(patients)
        survival = self.curve.survival(risk, times)
        return Forecast(risk, day_at(survival, times, 0.5), survival)

    def _risk(self, patients: Patients) -> np.ndarray:
        return self.read(patients).fillna(self.typical).to_numpy(dtype=float)


class Classical:
    """A scikit-survival estimator on columns that are imputed and scaled in the training fold."""

    def __init__(self, read, estimator):
        self.read, self.estimator = read, estimator

    @property
    def about(self) -> str:
        return f"scikit-survival's {type(self.estimator).__name__} on imputed and scaled columns"

    def fit(self, patients: Patients, label: str = "") -> Classical:
        require_event(patients.target, label)
        frame = learn_columns(self.read, patients, label)
        self.prepare = prepare_table(frame, patients.dictionary)
        table = self.prepare.fit_transform(frame)
        self.estimator.set_params(**self._settings(frame, table, patients)).fit(table, patients.target)
        self.usual_risk = float(np.median(self.estimator.predict(table)))
        return self

    def predict(self, patients: Patients, times: np.ndarray) -> Forecast:
        table = self.prepare.transform(self.read(patients))
        survival = at(self.estimator.predict_survival_function(table), times)
        return Forecast(self.estimator.predict(table), day_at(survival, times, 0.5), survival)

    def _settings(self, frame: pd.DataFrame, table: np.ndarray, patients: Patients) -> dict:
        """Of the estimator, from the columns before and after imputation and scaling."""
        return {}


class Tuned(Classical):
    """An estimator and its settings, chosen inside the training fold; every tuned model has the same budget.

    `choice.budget` settings are tried: the estimator's own, then a seeded random draw from the grid. Each is scored
    by Harrell's C on each of `choice.inner_folds` folds of the training patients, which learn imputation and scale
    anew. The highest mean wins, the first of equals, and is fitted to all of them. A setting that fails on an inner
    fold, or meets no two patients to compare there, scores chance. With one event nothing can be compared: the first.

    Parameters
    ----------
    read : callable
        Patients to columns; with a `fit`, it first learns on the training patients which they are (never from
        outcomes).
    estimator : scikit-survival estimator
    grid : dict of str to list
        Values of its parameters to draw from.
    choice : params.Classical
    quick : dict, optional
        Settings during the search only, such as fewer trees.
    """

    def __init__(self, read, estimator, grid: dict, choice, quick: dict | None = None):
        super().__init__(read, estimator)
        self.grid, self.choice, self.quick = grid, choice, quick or {}

    @property
    def about(self) -> str:
        return f"{super().about}; {self.choice.budget} settings tried in {self.choice.inner_folds} inner folds"

    def _candidates(self, table: np.ndarray, target: np.ndarray) -> list[dict]:
        from sklearn.model_selection import ParameterSampler

        more = self.choice.budget - 1
        return [{}, *(ParameterSampler(self.grid, more, random_state=self.choice.seed) if more else [])]

    def _settings(self, frame: pd.DataFrame, table: np.ndarray, patients: Patients) -> dict:
        candidates = self._candidates(table, patients.target)
        folds = inner_folds(patients.target["event"], self.choice)
        scores = [self._scores(candidates, frame, patients, *fold) for fold in folds] or [[0.5]]
        return candidates[int(np.argmax(np.mean(scores, axis=0)))]

    def _scores(self, candidates: list[dict], frame: pd.DataFrame, patients: Patients, train, held) -> list[float]:
        """Harrell's C of each candidate on one inner fold."""
        from joblib import Parallel, delayed
        from sklearn.base import clone

        prepare = prepare_table(frame, patients.dictionary)
        try:
            seen, unseen = prepare.fit_transform(frame.iloc[train]), prepare.transform(frame.iloc[held])
        except ValueError:  # no column varies in this inner fold
            return [0.5] * len(candidates)
        tables = (seen, patients.target[train], unseen, patients.target[held])
        fresh = [clone(self.estimator).set_params(**{**each, **self.quick}) for each in candidates]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a setting that keeps no column scores 0.5 and needs no telling
            return Parallel(n_jobs=-1, prefer="threads")(delayed(_concordance)(one, *tables) for one in fresh)


def _concordance(estimator, seen, target, unseen, held) -> float:
    try:
        return estimator.fit(seen, target).score(unseen, held)
    except (ArithmeticError, ValueError, IndexError):  # no finite solution, no two patients to compare, one time only
        return 0.5


class ElasticNet(Tuned):
    """Cox elastic net; its settings are penalties, from below the one that keeps no column down to `least` of it.

    With many columns and few events there is no finite solution far below it.
    """

    def __init__(self, read, choice, least: float = 0.2):
        from sksurv.linear_model import CoxnetSurvivalAnalysis

        net = CoxnetSurvivalAnalysis(l1_ratio=choice.l1_ratio, max_iter=20000, fit_baseline_model=True)
        super().__init__(read, net, {}, choice)
        self.least = least

    def _candidates(self, table: np.ndarray, target: np.ndarray) -> list[dict]:
        from sklearn.base import clone

        path = clone(self.estimator).set_params(n_alphas=2, alpha_min_ratio=1.0, fit_baseline_model=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that neither penalty keeps a column
            largest = path.fit(table, target).alphas_[-1]
        return [{"alphas": [largest * share]} for share in np.geomspace(1, self.least, self.choice.budget + 1)[1:]]


class Stack:
    """Late fusion: a ridge Cox on the risks that other models give to patients they were not fitted to.

    Every member is fitted in `choice.inner_folds` folds of the training patients, stratified by event, and gives each
    of them a risk out of fold; then it is fitted to all of them. A risk is counted from the median of the patients its
    fit was on, in their standard deviations, so that fits on fewer patients and models of other scales compare. With
    one event there is no inner fold, and the risks are those of the patients fitted to. (Wolpert 1992, Neural Netw
    5:241.)

    Parameters
    ----------
    members : list of (str, callable)
        Name and builder of a fresh model with `fit(patients, label)`, `predict(patients, times)` and `usual_risk`.
    choice : params.Classical

    Attributes
    ----------
    models : dict of str to model, fitted to all training patients
    weights : dict of str to float
        Log hazard ratio of a standard deviation of each member's risk out of fold.
    """

    def __init__(self, members: list[tuple], choice):
        self.members, self.choice = members, choice

    @property
    def about(self) -> str:
        names = ", ".join(name for name, _ in self.members)
        return f"late fusion: ridge Cox on the risks of {names}, each learnt from {self.choice.inner_folds} inner folds"

    def fit(self, patients: Patients, label: str = "") -> Stack:
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sksurv.linear_model import CoxPHSurvivalAnalysis

        require_event(patients.target, label)
        self.models = {name: build().fit(patients, label=f"{label} {name}".strip()) for name, build in self.members}
        self.scale = {name: _scale(model, patients) for name, model in self.models.items()}
        table = np.column_stack([self._out_of_fold(name, build, patients, label) for name, build in self.members])
        fuse = make_pipeline(StandardScaler(), CoxPHSurvivalAnalysis(alpha=self.choice.ridge))
        self.estimator = fuse.fit(table, patients.target)
        self.weights = dict(zip(self.models, fuse[-1].coef_, strict=True))
        self.usual_risk = float(np.median(fuse.predict(table)))
        return self

    def predict(self, patients: Patients, times: np.ndarray) -> Forecast:
        columns = [_standard(model, self.scale[name], patients) for name, model in self.models.items()]
        table = np.column_stack(columns)
        survival = at(self.estimator.predict_survival_function(table), times)
        return Forecast(self.estimator.predict(table), day_at(survival, times, 0.5), survival)

    def _out_of_fold(self, name: str, build, patients: Patients, label: str) -> np.ndarray:
        ids, folds = patients.outcome.index, inner_folds(patients.target["event"], self.choice)
        if not folds:
            return _standard(self.models[name], self.scale[name], patients)
        risk = np.empty(len(ids))
        for number, (train, held) in enumerate(folds):
            fitted_to = patients.take(ids[train])
            model = build().fit(fitted_to, label=f"{label} {name} inner-{number}".strip())
            risk[held] = _standard(model, _scale(model, fitted_to), patients.take(ids[held]))
        return risk


def _scale(model, patients: Patients) -> float:
    """Spread of the risks of the patients that a model was fitted to."""
    return max(float(np.std(_risk(model, patients))), 1e-9)


def _standard(model, scale: float, patients: Patients) -> np.ndarray:
    return (_risk(model, patients) - model.usual_risk) / scale


def _risk(model, patients: Patients) -> np.ndarray:
    return np.asarray(model.predict(patients, np.array([0.0])).risk, dtype=float)


def inner_folds(event: np.ndarray, choice) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows fitted to and rows held, a pair a fold, an event in each; fewer folds with fewer events, none with one."""
    from sklearn.model_selection import StratifiedKFold

    count = min(choice.inner_folds, int(np.sum(event)))
    if count < 2:
        return []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # hardly anyone censored
        dealt = StratifiedKFold(count, shuffle=True, random_state=choice.seed)
        return list(dealt.split(np.zeros(len(event)), np.asarray(event, dtype=bool)))


class ShuffledLabels:
    """Any model, trained on the outcomes of other patients: what is left of its score is not learnt."""

    def __init__(self, model, seed: int):
        self.model, self.seed = model, seed

    @property
    def about(self) -> str:
        return f"{self.model.about}; trained on the outcomes of other patients"

    def fit(self, patients: Patients, label: str = "") -> ShuffledLabels:
        order = np.random.default_rng([self.seed, *label.encode()]).permutation(len(patients.outcome))
        outcome = patients.outcome.copy()
        outcome[["time_days", "event"]] = patients.outcome[["time_days", "event"]].to_numpy()[order]
        outcome = outcome.astype(patients.outcome.dtypes.to_dict())
        self.model.fit(replace(patients, outcome=outcome), label)
        self.usual_risk = self.model.usual_risk
        return self

    def predict(self, patients: Patients, times: np.ndarray) -> Forecast:
        return self.model.predict(patients, times)
