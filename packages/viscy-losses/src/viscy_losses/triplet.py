"""Triplet margin loss with mining in the batch."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from viscy_losses import functional as F
from viscy_losses.base import BaseLoss
from viscy_losses.registry import LossRegistry

__all__ = ["TripletLoss"]


@LossRegistry.register("triplet")
class TripletLoss(BaseLoss):
    r"""Ask that the other view of a cell be closer than other cells, by a margin [1]_ [2]_.

    Mean of :math:`\max(0, d(i, j) - d(i, k) + m)` over the triplets of a view i, the other view j of its cell, and a
    mined view k of another cell, for Euclidean distances d. Embeddings are (B, D) each.

    Parameters
    ----------
    margin : float, default 0.5
        m, larger than 0.
    mining : {"all", "hard", "semi_hard"}, default "semi_hard"
        Which k of each i: all, the closest one, or those farther than j by less than the margin.
    normalize : bool, default True
        Whether embeddings are scaled to length one first.

    References
    ----------
    .. [1] Schroff et al., "FaceNet", CVPR 2015, arXiv:1503.03832.
    .. [2] Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", arXiv:1703.07737.
    """

    def __init__(
        self, margin: float = 0.5, *, mining: Literal["all", "hard", "semi_hard"] = "semi_hard", normalize: bool = True
    ) -> None:
        super().__init__()
        if not (math.isfinite(margin) and margin > 0):
            raise ValueError(f"margin: found {margin}, expected a number larger than 0")
        if mining not in ("all", "hard", "semi_hard"):
            raise ValueError(f"mining: found {mining!r}, expected 'all', 'hard' or 'semi_hard'")
        self.margin = margin
        self.mining = mining
        self.normalize = normalize

    def forward(self, anchor: Tensor, positive: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the mean over the mined triplets.

        Parameters
        ----------
        anchor, positive : Tensor, shape (B, D), floating point
            Row i of both is the same cell.
        labels : Tensor, shape (B,), integer, optional
            Cells of equal label are no negatives of one another.

        Returns
        -------
        dict
            ``"loss"``; ``"violations"``, the share of mined triplets whose loss is not 0. Both are 0 where there are no
            triplets.
        """
        F.check_views(anchor, positive, labels)
        stacked = F.stack_views(anchor, positive, labels)
        relations = F.view_relations(stacked)(slice(0, len(stacked.views)))
        views = F.normalize(stacked.views) if self.normalize else F.widen(stacked.views)
        with F.full_precision(views):
            # Not by way of inner products, which lose the small distances that matter here.
            closeness = -torch.cdist(views, views, compute_mode="donot_use_mm_for_euclid_dist")
        mined = relations._replace(negatives=self._mine(closeness, relations))
        losses, triplets = F.triplet_margin(closeness, mined, self.margin)
        number = triplets.sum().clamp(min=1)
        return {"loss": losses.sum() / number, "violations": (losses > 0).sum() / number}

    def _mine(self, closeness: Tensor, relations: F.Relations) -> Tensor:
        if self.mining == "all":
            return relations.negatives
        if self.mining == "hard":
            return F.top_k_negatives(closeness, relations.negatives, 1)
        positive = closeness[relations.query, relations.positive]
        return F.semi_hard_negatives(closeness, positive, relations.negatives, self.margin)
