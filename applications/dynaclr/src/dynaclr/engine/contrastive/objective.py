"""How a loss wants to be called, decided once by its type.

A loss of another kind is added with one function: ``@objective_of.register``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import NamedTuple

import torch
from pytorch_metric_learning.losses import BaseMetricLossFunction
from torch import Tensor, nn

from dynaclr.loss import NTXentHCL
from viscy_losses import BaseLoss, MoCoLoss

__all__ = ["Objective", "Views", "objective_of"]


class Views(NamedTuple):
    """Projections of a batch, (B, P) each, and the lineage of its cells, (B,)."""

    anchor: Tensor
    positive: Tensor
    negative: Tensor | None = None
    lineage: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """A loss as a function of the views of a batch."""

    compute: Callable[[Views], Tensor]
    contrasts_batch: bool
    """Whether the negatives are the other cells of the batch; otherwise the batch brings them."""
    takes_keys: bool = False
    """Whether positives get no gradient, so that an encoder may make them that only follows the trained one."""


@singledispatch
def objective_of(loss: nn.Module) -> Objective:
    """Adapt a loss; by default it is called as ``loss(anchor, positive, negative)``, like a triplet loss."""
    return Objective(lambda views: loss(views.anchor, views.positive, views.negative), contrasts_batch=False)


@objective_of.register
def _(loss: nn.CosineEmbeddingLoss) -> Objective:
    def attract_and_repel(views: Views) -> Tensor:
        target = torch.ones(len(views.anchor), device=views.anchor.device)
        others = torch.cat([views.positive, views.negative])
        return loss(views.anchor.repeat(2, 1), others, torch.cat([target, -target]))

    return Objective(attract_and_repel, contrasts_batch=False)


@objective_of.register
def _(loss: BaseMetricLossFunction) -> Objective:
    def contrast_labels(views: Views) -> Tensor:
        labels = torch.arange(len(views.anchor), device=views.anchor.device)
        return loss(torch.cat([views.anchor, views.positive]), labels.repeat(2))

    return Objective(contrast_labels, contrasts_batch=True)


@objective_of.register
def _(loss: NTXentHCL | BaseLoss) -> Objective:
    def contrast_pairs(views: Views) -> Tensor:
        return loss.forward_pairs(views.anchor, views.positive, views.lineage)

    return Objective(contrast_pairs, contrasts_batch=True, takes_keys=isinstance(loss, MoCoLoss))
