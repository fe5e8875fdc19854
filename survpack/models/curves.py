"""Survival curves from a risk alone."""

from __future__ import annotations

import numpy as np

from survpack.errors import BadInput


class RiskCurve:
    """Survival curves from one risk score: Cox on the score, Breslow's baseline.

    The coefficient is not allowed below zero, so that the curves never contradict the risk.
    """

    def fit(self, risk: np.ndarray, target: np.ndarray, label: str = "") -> RiskCurve:
        from sksurv.linear_model import CoxPHSurvivalAnalysis
        from sksurv.linear_model.coxph import BreslowEstimator

        require_event(target, label)

        self.mean, self.sd = float(np.mean(risk)), max(float(np.std(risk)), 1e-9)
        scaled = self._scaled(risk)
        self.slope = max(float(CoxPHSurvivalAnalysis(alpha=0.1).fit(scaled[:, None], target).coef_[0]), 0.0)
        self.breslow = BreslowEstimator().fit(self.slope * scaled, target["event"], target["time"])
        return self

    def survival(self, risk: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Shape (n, times)."""
        return at(self.breslow.get_survival_function(self.slope * self._scaled(risk)), times)

    def _scaled(self, risk):
        return (np.asarray(risk, dtype=float) - self.mean) / self.sd


def at(functions, times: np.ndarray) -> np.ndarray:
    """scikit-survival's step functions at `times`: 1 before their first step (theirs give the value after it)."""
    return np.stack([np.where(times < fn.x[0], 1.0, fn(np.clip(times, *fn.domain))) for fn in functions])


def require_event(target: np.ndarray, label: str = "") -> None:
    """Raise BadInput where there is nothing to learn survival from: no event, or all followed up equally long."""
    events, times = int(np.sum(target["event"])), len(np.unique(target["time"]))
    if not events or times < 2:
        raise BadInput(
            f"{label or 'training fold'}: {events} events among {len(target)} training patients of {times} different "
            "times, expected one event and two times at least; lower splits.folds in params.yaml, or add patients."
        )
