"""NT-Xent with hard-negative concentration."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from viscy_losses import functional as F
from viscy_losses.contrastive import ContrastiveLoss
from viscy_losses.registry import LossRegistry

__all__ = ["HardNegativeLoss"]


@LossRegistry.register("nt_xent_hcl")
class HardNegativeLoss(ContrastiveLoss):
    r"""NT-Xent whose negatives weigh more the harder they are [1]_.

    :math:`\frac{1}{2B}\sum_i -\log\frac{e^{s_{ij}/T}}{e^{s_{ij}/T} + \sum_k w_{ik} e^{s_{ik}/T}}` with
    :math:`w_{ik} \propto e^{c\,s_{ik}}`, of mean one over the negatives k of i. Embeddings are (B, D) each.

    Parameters
    ----------
    temperature : float, default 0.07
        T, larger than 0.
    beta : float, default 0.5
        0 is NT-Xent.
    beta_scale : {"similarity", "logit"}, default "similarity"
        Whether the concentration c is `beta` itself, or ``beta / temperature`` as in the publication.
    **options
        ``normalize``, ``chunk_size`` and ``gather_distributed`` of `ContrastiveLoss`.

    References
    ----------
    .. [1] Robinson et al., "Contrastive Learning with Hard Negative Samples", ICLR 2021, arXiv:2010.04592.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        beta: float = 0.5,
        *,
        beta_scale: Literal["similarity", "logit"] = "similarity",
        **options: Any,
    ) -> None:
        super().__init__(temperature, **options)
        # Of logits: c s = (c T) (s / T).
        self.concentration = F.hard_negative_concentration(beta, beta_scale, temperature) * temperature

    def query_losses(self, logits: Tensor, relations: F.Relations) -> Tensor:
        """Compute -log softmax of the positive among weighted negatives."""
        return F.info_nce(logits, relations, 1.0, self.concentration)
