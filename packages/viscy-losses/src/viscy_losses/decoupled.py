"""Decoupled contrastive learning (DCL)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from viscy_losses import functional as F
from viscy_losses.contrastive import ContrastiveLoss
from viscy_losses.registry import LossRegistry

__all__ = ["DCLLoss"]


@LossRegistry.register("dcl")
class DCLLoss(ContrastiveLoss):
    r"""NT-Xent without the positive in the denominator, for small batches [1]_.

    :math:`\frac{1}{2B}\sum_i \left(-s_{ij}/T + \log\sum_k e^{s_{ik}/T}\right)` for the other view j of i and the
    views k of other cells. Embeddings are (B, D) each. The loss may be negative.

    Parameters
    ----------
    temperature : float, default 0.1
        T, larger than 0.
    **options
        ``normalize``, ``chunk_size`` and ``gather_distributed`` of `ContrastiveLoss`.

    References
    ----------
    .. [1] Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, arXiv:2110.06848.
    """

    def __init__(self, temperature: float = 0.1, **options: Any) -> None:
        super().__init__(temperature, **options)

    def query_losses(self, logits: Tensor, relations: F.Relations) -> Tensor:
        """Compute attraction and repulsion apart."""
        return F.decoupled_info_nce(logits, relations)
