"""Objectives: what a network's one number is trained on."""

from __future__ import annotations

import torch


def days_mse(output: torch.Tensor, time: torch.Tensor, event: torch.Tensor) -> torch.Tensor:
    """Mean squared error on survival time, the brain-metastasis paper's objective.

    A censored patient has no survival time to compare with and does not count: the price of
    this objective. `time` is in training standard deviations from the training mean.
    """
    if not event.any():
        return output.sum() * 0.0
    return torch.nn.functional.mse_loss(output[event], time[event])


def cox(output: torch.Tensor, time: torch.Tensor, event: torch.Tensor) -> torch.Tensor:
    """Negative log partial likelihood, Efron's ties (torchsurv), per event.

    A batch without events carries no information: zero, with a defined gradient.
    """
    if not event.any():
        return output.sum() * 0.0
    from torchsurv.loss.cox import neg_partial_log_likelihood

    # torchsurv's own mean is over distinct event times, which weighs a batch with ties more
    return neg_partial_log_likelihood(output, event, time, reduction="sum") / event.sum()


OBJECTIVES = {"mse": days_mse, "cox": cox}
