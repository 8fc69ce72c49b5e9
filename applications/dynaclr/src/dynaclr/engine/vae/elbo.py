"""The parts of the evidence lower bound: how beta grows, and what the reconstruction costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor, nn

from dynaclr.imbalance import BalancedCrossEntropy
from viscy_losses import FocalLoss

__all__ = ["CLASS_LOSSES", "BetaSchedule", "BetaScheduleName", "reconstruction_loss"]

CLASS_LOSSES = (nn.CrossEntropyLoss, BalancedCrossEntropy, FocalLoss)
"""Losses of logits (B, K, ...) and classes (B, ...)."""

BetaScheduleName = Literal["linear", "cosine", "warmup"]


@dataclass(frozen=True)
class BetaSchedule:
    """Weight of the divergence over the epochs.

    Parameters
    ----------
    beta : float
        Reached after the warm-up, and the weight throughout without a schedule; 0 is a plain autoencoder.
    name : {"linear", "cosine", "warmup"}, optional
        How beta grows from `beta_min`: on a line, on half a cosine, or in one step at the end.
    beta_min : float
        Weight in the first epoch of a schedule.
    warmup_epochs : int
        Epochs until `beta`.

    Raises
    ------
    ValueError
        For a name that is none of these, and for values out of range.
    """

    beta: float = 1.0
    name: BetaScheduleName | None = None
    beta_min: float = 0.1
    warmup_epochs: int = 50

    def __post_init__(self) -> None:
        if self.name is not None and self.name not in get_args(BetaScheduleName):
            expected = ", ".join(map(repr, get_args(BetaScheduleName)))
            raise ValueError(f"beta_schedule: found {self.name!r}, expected {expected} or None")
        for field in ("beta", "beta_min", "warmup_epochs"):
            if not 0 <= getattr(self, field) < math.inf:
                option = "beta_warmup_epochs" if field == "warmup_epochs" else field
                raise ValueError(f"{option}: found {getattr(self, field)}, expected 0 or larger")
        if self.name is not None and self.beta_min > self.beta:
            raise ValueError(
                f"beta_min {self.beta_min} is larger than beta {self.beta}: beta_schedule {self.name!r} grows from "
                "beta_min to beta"
            )

    def at(self, epoch: int) -> float:
        """Return beta in an epoch, counted from 0."""
        if self.name is None or epoch >= self.warmup_epochs:
            return self.beta
        progress = epoch / self.warmup_epochs
        grown = {"linear": progress, "cosine": 0.5 * (1 + math.cos(math.pi * (1 - progress))), "warmup": 0.0}
        return self.beta_min + (self.beta - self.beta_min) * grown[self.name]


def reconstruction_loss(loss_function: nn.Module, reconstruction: Tensor, target: Tensor) -> Tensor:
    """Compute the reconstruction term, per image.

    Parameters
    ----------
    loss_function : nn.Module
        `torch.nn.MSELoss` and the losses of classes give the sum over the elements of an image, averaged over the
        batch, whether their reduction is "sum" or "mean": the scale of the divergence, which is summed over the
        dimensions. The value of any other loss is left as it is.
    reconstruction : Tensor, shape (B, C, ...)
        Images, or logits of C classes.
    target : Tensor, shape (B, C, ...) or (B, ...)
        Images, or classes.

    Returns
    -------
    Tensor, shape ()
    """
    found: Tensor | Mapping[str, Any] = loss_function(reconstruction, target)
    value = found["loss"] if isinstance(found, Mapping) else found
    if not isinstance(loss_function, (nn.MSELoss, *CLASS_LOSSES)):
        return value
    return value * target[0].numel() if loss_function.reduction == "mean" else value / len(target)
