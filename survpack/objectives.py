"""Objectives: what a network's numbers are trained on, and how they are read as risk, days and a survival curve.

The plain functions are the losses, over one batch. An `Objective` adds what is learnt of the training patients
around them: scales, cut points.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch.nn import functional

from survpack.errors import BadInput

INTERVALS = 10  # of the discrete-time hazard, at most
DEATHS_AN_INTERVAL = 5  # at least, where the cohort is small
RANK_WEIGHT = 1.0  # of the ranking term beside the partial likelihood; both are of order one
SPREAD = 80.0  # exp of it, and of its negative, is still a normal number in float32


# --- losses: output, outcome -> scalar --------------------------------------------------------------------------------


def days_mse(output: torch.Tensor, time: torch.Tensor, event: torch.Tensor) -> torch.Tensor:
    """Mean squared error on survival time, the brain-metastasis paper's objective.

    A censored patient has no survival time to compare with and does not count: the price of this objective.

    Parameters
    ----------
    output, time : Tensor, shape (n,)
        In training standard deviations from the training mean.
    event : Tensor of bool, shape (n,)
        All False: zero, with a defined gradient.
    """
    if not event.any():
        return output.sum() * 0.0
    return functional.mse_loss(output[event], time[event])


def days_censored(output: torch.Tensor, time: torch.Tensor, event: torch.Tensor) -> torch.Tensor:
    """Mean squared error of all patients; of a censored one only where the prediction falls short of his last day.

    The extended mean squared error of RankDeepSurv (Jing et al. 2019, doi:10.1016/j.artmed.2019.06.001); one-sided
    errors for censored targets go back to Shivaswamy et al. 2007 (doi:10.1109/ICDM.2007.93). Parameters as of
    `days_mse`; a batch without events teaches what its censored patients outlived.
    """
    short = time - output
    return (torch.where(event, short, short.clamp(min=0)) ** 2).sum() / max(len(time), 1)


def cox(output: torch.Tensor, time: torch.Tensor, event: torch.Tensor) -> torch.Tensor:
    """Negative log partial likelihood, Efron's ties (torchsurv), per event.

    A batch without events, or of one patient, carries no information: zero, with a defined gradient.

    Parameters
    ----------
    output : Tensor, shape (n,)
        Log hazard ratio.
    time : Tensor, shape (n,)
    event : Tensor of bool, shape (n,)
    """
    if len(output) < 2 or not event.any():
        return output.sum() * 0.0
    from torchsurv.loss.cox import neg_partial_log_likelihood

    # a patient censored on the day of a death was at risk: torchsurv 0.2.0 leaves it to the batch's order (since its #121)
    day = 2 * torch.unique(time, return_inverse=True)[1] + ~event
    # torchsurv sums plain exponentials under ties: the partial likelihood does not change with a shift, they do
    middle = (output.detach().min() + output.detach().max()) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it tells of every tie
        total = neg_partial_log_likelihood((output - middle).clamp(-SPREAD, SPREAD), event, day, reduction="sum")
    # its own mean is over distinct event times, which weighs a batch with ties more
    return total / event.sum()


def ranking(output: torch.Tensor, time: torch.Tensor, event: torch.Tensor) -> torch.Tensor:
    """Logistic loss of the differences in risk, a comparable pair, mean over the pairs.

    Its negative bounds the concordance from below (Steck et al. 2007, "On ranking in survival analysis: bounds on
    the concordance index", NeurIPS 20). A pair is comparable as in `survpack.metrics.concordance`: the earlier is a
    death; a death and a censoring on one day count. Parameters as of `cox`; no such pair: zero.
    """
    outlived = (time[:, None] < time) | ((time[:, None] == time) & ~event)
    pairs = event[:, None] & outlived
    if not pairs.any():
        return output.sum() * 0.0
    return functional.softplus(output - output[:, None])[pairs].mean()


def logistic_hazard(logits: torch.Tensor, survived: torch.Tensor, event: torch.Tensor) -> torch.Tensor:
    """Negative log likelihood of hazards in discrete time, mean over patients (Gensheimer & Narasimhan 2019).

    A batch without events teaches what its patients outlived.

    Parameters
    ----------
    logits : Tensor, shape (n, intervals)
        Log odds of death in each interval, given that the patient reaches it.
    survived : Tensor, shape (n,)
        How many intervals the patient lived through.
    event : Tensor of bool, shape (n,)
        Whether he died in the next one.
    """
    interval = torch.arange(logits.shape[1], device=logits.device)
    lived, died = interval < survived[:, None], (interval == survived[:, None]) & event[:, None]
    total = functional.binary_cross_entropy_with_logits(
        logits, died.to(logits.dtype), weight=(lived | died).to(logits.dtype), reduction="sum"
    )
    return total / max(len(logits), 1)


# --- objectives: what is learnt of the training patients --------------------------------------------------------------


class Objective:
    """What a network is trained on, and what its outputs then mean.

    Attributes
    ----------
    outputs : int
        Numbers a patient that the network gives.
    uses : ndarray of bool, shape (n,)
        Which of the training patients it can be trained on.
    """

    outputs = 1

    def __init__(self, time_days: np.ndarray, event: np.ndarray):
        self.uses = np.ones(len(event), dtype=bool)

    @classmethod
    def learn(cls, time_days, event) -> Objective:
        """Learn scales and cut points of training patients, and of no others.

        Parameters
        ----------
        time_days, event : array, shape (n,)

        Raises
        ------
        BadInput
            Where nobody died: there is nothing to learn.
        """
        time_days, event = np.asarray(time_days, dtype=float), np.asarray(event, dtype=bool)
        if not event.any():
            raise BadInput(
                f"training patients: all {len(event)} are censored, at least one event was expected; check the coding "
                "of `event` in participants.tsv (1: died), or make fewer folds (splits.folds in params.yaml)."
            )
        return cls(time_days, event)

    def target(self, time_days, event) -> np.ndarray:
        """What `loss` compares with: time in the objective's unit, then event; float32, shape (n, 2)."""
        return np.column_stack([self._time(np.asarray(time_days, dtype=float), event), event]).astype(np.float32)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss of a batch.

        Finite with a defined gradient whatever the batch; 0 where it has nothing to teach. Half precision is widened.

        Parameters
        ----------
        output : Tensor, shape (n, outputs)
        target : Tensor, shape (n, 2)
            Of `target`.
        """
        output = output if output.dtype == torch.float64 else output.float()
        return self._loss(output, target[:, 0], target[:, 1] > 0.5)

    def risk(self, output: np.ndarray) -> np.ndarray:
        """Higher is worse, shape (n,), from outputs of shape (n, outputs)."""
        return np.asarray(output, dtype=float)[:, 0]

    def days(self, output: np.ndarray) -> np.ndarray | None:
        """Predicted survival in days, shape (n,); None: read it from the curve."""
        return None

    def survival(self, output: np.ndarray, times: np.ndarray) -> np.ndarray | None:
        """Event-free probability, shape (n, times); None: Breslow's baseline on the risk."""
        return None

    def _time(self, time_days, event):
        return time_days

    def _loss(self, output, time, event):
        raise NotImplementedError


class CensoredMse(Objective):
    """Days, by a squared error that a censored patient enters where the prediction falls short of his last day."""

    def __init__(self, time_days, event):
        super().__init__(time_days, event)
        self._scale(time_days)

    def _scale(self, time_days):
        self.mean, self.sd = float(time_days.mean()), max(float(time_days.std()), 1.0)

    def _time(self, time_days, event):
        return (time_days - self.mean) / self.sd

    def _loss(self, output, time, event):
        return days_censored(output[:, 0], time, event)

    def risk(self, output):
        return -super().risk(output)

    def days(self, output):
        return np.clip(-self.risk(output) * self.sd + self.mean, 1.0, None)


class Mse(CensoredMse):
    """Days, by mean squared error on the observed deaths, as in the brain-metastasis paper."""

    def __init__(self, time_days, event):
        self.uses = event.copy()
        self._scale(time_days[event])

    def _loss(self, output, time, event):
        return days_mse(output[:, 0], time, event)


class Cox(Objective):
    """Log hazard ratio, by the partial likelihood."""

    def _loss(self, output, time, event):
        return cox(output[:, 0], time, event)


class CoxRank(Objective):
    """Log hazard ratio, by the partial likelihood and a ranking of the pairs beside it, as in RankDeepSurv, DeepHit."""

    def _loss(self, output, time, event):
        risk = output[:, 0]
        return cox(risk, time, event) + RANK_WEIGHT * ranking(risk, time, event)


class Hazard(Objective):
    """Hazards in discrete time (logistic hazard: Gensheimer & Narasimhan 2019, doi:10.7717/peerj.6257).

    Intervals end at quantiles of the training deaths. The outputs are log odds ratios to the training life table,
    so that a network which says nothing (zeros) says what the life table says. Between the cuts the curve is linear:
    constant density within an interval (Kvamme & Borgan 2021, doi:10.1007/s10985-021-09532-6); after the last death
    it stays where it is.

    Attributes
    ----------
    cuts : ndarray, shape (outputs,), days, increasing
        Where the intervals end; the first begins at 0.
    baseline : ndarray, shape (outputs,)
        Log odds of death in each interval among the training patients.
    """

    def __init__(self, time_days, event):
        super().__init__(time_days, event)
        deaths = time_days[event]
        count = int(np.clip(len(deaths) // DEATHS_AN_INTERVAL, 1, INTERVALS))
        # cuts are days on which someone died: no interval is without a death
        self.cuts = np.unique(np.quantile(deaths, np.arange(1, count + 1) / count, method="inverted_cdf"))
        self.outputs = len(self.cuts)
        survived = self._time(time_days, event)[:, None]
        lived = (np.arange(self.outputs) < survived).sum(axis=0)
        died = ((np.arange(self.outputs) == survived) & event[:, None]).sum(axis=0)
        self.baseline = np.log((died + 0.5) / (lived + 0.5))

    def risk(self, output):
        """Minus the mean survival restricted to the last cut, days."""
        return -np.trapezoid(self._curve(output), self._knots, axis=1)

    def survival(self, output, times):
        return np.stack([np.interp(times, self._knots, row) for row in self._curve(output)])

    @property
    def _knots(self):
        return np.concatenate([[0.0], self.cuts])

    def _curve(self, output):
        fallen = np.cumsum(np.logaddexp(0, np.asarray(output, dtype=float) + self.baseline), axis=1)
        return np.exp(-np.pad(fallen, ((0, 0), (1, 0))))

    def _time(self, time_days, event):
        """Intervals lived through; one during which a patient is censored counts from its middle (Gensheimer)."""
        middles = (self._knots[:-1] + self._knots[1:]) / 2
        dead, censored = np.searchsorted(self.cuts, time_days), np.searchsorted(middles, time_days, side="right")
        return np.where(np.asarray(event, dtype=bool), dead, censored)

    def _loss(self, output, time, event):
        baseline = torch.as_tensor(self.baseline, dtype=output.dtype, device=output.device)
        return logistic_hazard(output + baseline, time, event)


OBJECTIVES: dict[str, type[Objective]] = {
    "mse": Mse,
    "mse-censored": CensoredMse,
    "cox": Cox,
    "cox-rank": CoxRank,
    "hazard": Hazard,
}
