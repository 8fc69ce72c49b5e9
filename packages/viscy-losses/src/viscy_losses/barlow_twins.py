"""Barlow Twins: cross-correlation towards the identity."""

from __future__ import annotations

import math

from torch import Tensor

from viscy_losses import functional as F
from viscy_losses.base import BaseLoss
from viscy_losses.registry import LossRegistry

__all__ = ["BarlowTwinsLoss"]


@LossRegistry.register("barlow_twins")
class BarlowTwinsLoss(BaseLoss):
    r"""Correlate each dimension with itself in the other view, and with no other [1]_.

    :math:`\sum_d (1 - C_{dd})^2 + \lambda \sum_{d \neq e} C_{de}^2` for the `cross_correlation` C of the views over the
    batch. Embeddings are (B, D) each. There are no negatives: labels have no part in it.

    Parameters
    ----------
    redundancy_weight : float, default 0.0051
        :math:`\lambda`, 0 or larger.
    gather_distributed : bool, default False
        Whether C is that of the batch of all processes, with exact gradients.

    References
    ----------
    .. [1] Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021,
       arXiv:2103.03230.
    """

    def __init__(self, redundancy_weight: float = 0.0051, *, gather_distributed: bool = False) -> None:
        super().__init__()
        if not (math.isfinite(redundancy_weight) and redundancy_weight >= 0):
            raise ValueError(f"redundancy_weight: found {redundancy_weight}, expected 0 or a larger number")
        self.redundancy_weight = redundancy_weight
        self.gather_distributed = gather_distributed

    def forward(self, anchor: Tensor, positive: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the weighted sum of both terms.

        Parameters
        ----------
        anchor, positive : Tensor, shape (B, D), floating point
            Row i of both is the same cell. A single cell correlates with nothing: its loss is D, without gradient.
        labels : Tensor, shape (B,), optional
            Not looked at.

        Returns
        -------
        dict
            ``"loss"``; its terms before weighting, ``"invariance"`` and ``"redundancy"``, shape ().
        """
        F.check_views(anchor, positive, labels)
        if self.gather_distributed:
            anchor, positive = F.gather_views(anchor, positive).views.chunk(2)
        correlation = F.cross_correlation(anchor, positive)
        invariance = (1 - correlation.diagonal()).square().sum()
        redundancy = F.off_diagonal(correlation).square().sum()
        loss = invariance + self.redundancy_weight * redundancy
        return {"loss": loss, "invariance": invariance, "redundancy": redundancy}
