"""Cross-entropy in which rare classes count more, and well-known samples less."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn

from dynaclr.imbalance.counts import count_classes
from viscy_losses import FocalLoss
from viscy_losses import functional as F

__all__ = ["BalancedCrossEntropy", "ClassBalance", "ClassWeightMethod", "choose_class_loss"]

ClassWeightMethod = Literal["none", "inverse", "sqrt_inverse", "balanced"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassBalance:
    """What a configuration says about rare classes; see :class:`BalancedCrossEntropy`."""

    focal_gamma: float | None = None
    class_weight_method: ClassWeightMethod = "none"
    class_weights: Sequence[float] | None = None

    @property
    def weighs(self) -> bool:
        """Whether classes are weighed."""
        return self.class_weight_method != "none" or self.class_weights is not None

    @property
    def is_plain(self) -> bool:
        """Whether it asks for nothing."""
        return self.focal_gamma is None and not self.weighs


class BalancedCrossEntropy(nn.Module):
    """Focal cross-entropy whose class weights are given, or found in the training set.

    Parameters
    ----------
    num_classes : int
        K, at least 2.
    gamma : float, default 0.0
        Of the focal loss (`viscy_losses.functional.focal_cross_entropy`); 0 is cross-entropy.
    class_weight_method : {"none", "inverse", "sqrt_inverse", "balanced"}, default "none"
        How weights follow from the counts of the training set (`viscy_losses.functional.class_weights`).
    class_weights : sequence of float, optional
        The K weights themselves; excludes a method.
    reduction : {"mean", "sum"}, default "mean"
        "mean" is weighted, as in `torch.nn.CrossEntropyLoss`.

    Attributes
    ----------
    class_weight : Tensor, shape (K,)
        A buffer, saved in checkpoints; 1 until the training set has been counted.

    Raises
    ------
    ValueError
        For options out of range or that exclude each other.
    """

    class_weight: Tensor

    def __init__(
        self,
        num_classes: int,
        gamma: float = 0.0,
        class_weight_method: ClassWeightMethod = "none",
        class_weights: Sequence[float] | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes: found {num_classes}, expected at least 2")
        if not 0 <= gamma < float("inf"):
            raise ValueError(f"focal_gamma: found {gamma}, expected 0 or a larger number")
        if class_weight_method not in get_args(ClassWeightMethod):
            expected = ", ".join(map(repr, get_args(ClassWeightMethod)))
            raise ValueError(f"class_weight_method: found {class_weight_method!r}, expected one of {expected}")
        if class_weights is not None and class_weight_method != "none":
            raise ValueError(
                f"class_weights and class_weight_method {class_weight_method!r} exclude each other: give the weights, "
                "or the method by which they are found"
            )
        self.num_classes, self.gamma, self.method, self.reduction = num_classes, gamma, class_weight_method, reduction
        self.register_buffer("class_weight", _given_weights(class_weights, num_classes))
        self.is_pending = class_weight_method != "none"
        """Whether the training set has still to be counted."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits (N, K, ...) and classes (N, ...)."""
        return F.focal_cross_entropy(logits, target, self.gamma, self.class_weight, self.reduction)

    def count_at_setup(self, trainer: Trainer, stage: str, labels_of: Callable[[Any], Tensor]) -> None:
        """Find the weights in the data module of a run; without one, `count_at_start` does it.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer
        stage : str
            Only "fit" counts: a model that predicts has the weights of its checkpoint.
        labels_of : callable
            From a batch to its labels.
        """
        data: LightningDataModule | None = getattr(trainer, "datamodule", None)
        if stage == "fit" and self.is_pending and data is not None:
            self._count(data.train_dataloader(), trainer, labels_of)

    def count_at_start(self, trainer: Trainer, labels_of: Callable[[Any], Tensor]) -> None:
        """Find the weights in the training loader if need be, and log them, one number per class, to every logger."""
        if self.is_pending:
            self._count(trainer.train_dataloader, trainer, labels_of)
        weights = self.class_weight.tolist()
        if trainer.is_global_zero:
            _logger.info("class weights (%s): %s", self.method, ", ".join(f"{weight:.4g}" for weight in weights))
        for logger in trainer.loggers:
            logger.log_metrics({f"class_weight/{k}": weight for k, weight in enumerate(weights)}, trainer.global_step)

    def _count(self, loader: Iterable[Any], trainer: Trainer, labels_of: Callable[[Any], Tensor]) -> None:
        counts = count_classes(loader, labels_of, self.num_classes)
        weights = F.class_weights(counts, self.method)
        # Processes may have read different parts; gradients are only averaged rightly under one set of weights.
        self.class_weight.copy_(trainer.strategy.broadcast(weights))
        self.is_pending = False


def _given_weights(class_weights: Sequence[float] | None, num_classes: int) -> Tensor:
    weights = torch.ones(num_classes) if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
    if weights.shape != (num_classes,) or not torch.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"class_weights: found {class_weights}, expected {num_classes} numbers, 0 or larger")
    return weights.clone()


def choose_class_loss(
    loss: nn.Module | None, num_classes: int, balance: ClassBalance, reduction: Literal["mean", "sum"] = "mean"
) -> nn.Module:
    """Put a loss and the options for imbalance together.

    Parameters
    ----------
    loss : nn.Module, optional
        Kept as it is when no option is given. With weights of classes, a focal loss or a cross-entropy that has none
        of its own becomes a :class:`BalancedCrossEntropy` of its gamma and reduction.
    num_classes : int
        K.
    balance : ClassBalance
        Its `focal_gamma` excludes a loss.
    reduction : {"mean", "sum"}, default "mean"
        Of a loss that is made here.

    Returns
    -------
    nn.Module

    Raises
    ------
    ValueError
        For options out of range or that exclude each other, and for a loss that cannot be weighted.
    """
    weights = (balance.class_weight_method, balance.class_weights)
    if loss is None:
        return BalancedCrossEntropy(num_classes, balance.focal_gamma or 0.0, *weights, reduction)
    if balance.focal_gamma is not None:
        raise ValueError(f"focal_gamma and the loss {type(loss).__name__} exclude each other: leave one of them out")
    if not balance.weighs:
        return loss
    gamma = _unweighted_gamma(loss)
    if gamma is None:
        raise ValueError(
            f"class_weight_method and class_weights cannot weigh the loss {type(loss).__name__} as it is configured: "
            "leave the loss out and set focal_gamma, or give the loss weights of its own"
        )
    kept = loss.reduction if loss.reduction in ("mean", "sum") else reduction
    return BalancedCrossEntropy(num_classes, gamma, *weights, kept)


def _unweighted_gamma(loss: nn.Module) -> float | None:
    """Return the gamma of a loss that is a focal loss or a cross-entropy without weights, and None for another one."""
    if isinstance(loss, FocalLoss):
        return loss.gamma if loss.class_weight is None else None
    if isinstance(loss, nn.CrossEntropyLoss):
        return 0.0 if loss.weight is None and not loss.label_smoothing else None
    if isinstance(loss, nn.BCEWithLogitsLoss):
        weighted = loss.weight is not None or (loss.pos_weight is not None and bool((loss.pos_weight != 1).any()))
        return None if weighted else 0.0
    return None
