"""Supervised contrastive learning."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from viscy_losses import functional as F
from viscy_losses.contrastive import ContrastiveLoss
from viscy_losses.registry import LossRegistry

__all__ = ["SupConLoss"]


@LossRegistry.register("supcon")
class SupConLoss(ContrastiveLoss):
    r"""Draw together all views of all cells of one label [1]_.

    :math:`\frac{1}{2B}\sum_i -\frac{1}{|P_i|}\sum_{j \in P_i}\log\frac{e^{s_{ij}/T}}{\sum_{k \neq i} e^{s_{ik}/T}}` for
    the other views :math:`P_i` of the label of i. Embeddings are (B, D) each. Here relatives are positives.

    Parameters
    ----------
    temperature : float, default 0.1
        T, larger than 0.
    **options
        ``normalize``, ``chunk_size`` and ``gather_distributed`` of `ContrastiveLoss`.

    References
    ----------
    .. [1] Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv:2004.11362; the form "out".
    """

    def __init__(self, temperature: float = 0.1, **options: Any) -> None:
        super().__init__(temperature, **options)

    def query_losses(self, logits: Tensor, relations: F.PairMasks) -> Tensor:
        """Average over the positives of a query."""
        return F.supervised_info_nce(logits, relations)

    def forward(self, anchor: Tensor, positive: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the mean loss over the 2B views.

        Parameters
        ----------
        anchor, positive : Tensor, shape (B, D), floating point
        labels : Tensor, shape (B,), integer, optional
            By default every cell is of a label of its own, which makes this NT-Xent.

        Returns
        -------
        dict
            ``"loss"``, shape ().
        """
        stacked = self.stack_views(anchor, positive, labels)
        losses = self.contrast(stacked.queries, stacked.views, F.group_masks(stacked))
        return {"loss": self.batch_mean(losses, len(stacked.views))}
