"""Focal loss of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from viscy_losses import functional as F
from viscy_losses.base import BaseLoss
from viscy_losses.registry import LossRegistry
from viscy_losses.temperature import check_temperature

__all__ = ["FocalLoss"]


@LossRegistry.register("focal")
class FocalLoss(BaseLoss):
    r"""Cross-entropy that looks at what is told badly: :math:`-w_y (1 - p_y)^\gamma \log p_y` [1]_.

    Logits are (N, K, ...), targets (N, ...). Of two views of cells, each view is to find its other view among all views
    of the batch: NT-Xent with the same focus.

    Parameters
    ----------
    gamma : float, default 2.0
        Focus, 0 or larger; 0 is cross-entropy.
    class_weight : sequence of float, optional
        Weight w of each class; see `functional.class_weights`.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the sum of the weights of the targets.
    ignore_index : int, default -100
        Target of samples that do not count.
    temperature : float, default 0.07
        For two views of cells, larger than 0.

    References
    ----------
    .. [1] Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        class_weight: Sequence[float] | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean",
        *,
        ignore_index: int = -100,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        if not 0 <= gamma < float("inf"):
            raise ValueError(f"gamma: found {gamma}, expected 0 or a larger number")
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction: found {reduction!r}, expected 'mean', 'sum' or 'none'")
        self.gamma = gamma
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.temperature = check_temperature(temperature)
        weight = None if class_weight is None else torch.as_tensor(class_weight, dtype=torch.float32)
        self.register_buffer("class_weight", weight, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Compute the loss of classes.

        Parameters
        ----------
        logits : Tensor, shape (N, K, ...), floating point
        target : Tensor, shape (N, ...), integer or bool

        Returns
        -------
        dict
            ``"loss"``, shape (), or (N, ...) without reduction.
        """
        loss = F.focal_cross_entropy(
            logits, target, self.gamma, self.class_weight, self.reduction, ignore_index=self.ignore_index
        )
        return {"loss": loss}

    def forward_pairs(self, anchor: Tensor, positive: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute the mean focal loss of the views of cells, shape (); relatives are no negatives."""
        if self.class_weight is not None or self.reduction != "mean":
            raise ValueError("class_weight or reduction is set, but views of cells have no classes; leave it out")
        F.check_views(anchor, positive, labels)
        stacked = F.stack_views(anchor, positive, labels)
        pairs = F.contrast(stacked.views, stacked.views, F.view_relations(stacked), self.temperature)
        return F.focal_modulation(pairs.losses, self.gamma).mean()
