"""Debiased NT-Xent, which expects some negatives to be of the anchor's own class."""

from __future__ import annotations

from torch import Tensor

from viscy_losses import functional as F
from viscy_losses.contrastive import ContrastiveLoss
from viscy_losses.registry import LossRegistry

__all__ = ["DebiasedLoss"]


@LossRegistry.register("debiased")
class DebiasedLoss(ContrastiveLoss):
    r"""NT-Xent corrected for false negatives [1]_.

    :math:`\frac{1}{2B}\sum_i -\log\frac{e^{s_{ij}/T}}{e^{s_{ij}/T} + G_i}` with
    :math:`G_i = \max\left(\frac{1}{1-\tau}\left(\sum_k e^{s_{ik}/T} - N\tau e^{s_{ij}/T}\right), N e^{-1/T}\right)` for
    the N negatives k of i. Embeddings are (B, D) each; similarities are cosines, whose bound the formula uses.

    Parameters
    ----------
    temperature : float, default 0.07
        T, larger than 0.
    prior : float, default 0.1
        :math:`\tau`, the probability that a cell drawn at random is of the anchor's class; 0 is NT-Xent.
    chunk_size, gather_distributed
        As in `ContrastiveLoss`.

    References
    ----------
    .. [1] Chuang et al., "Debiased Contrastive Learning", NeurIPS 2020, arXiv:2007.00224.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        prior: float = 0.1,
        *,
        chunk_size: int | None = None,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__(temperature, chunk_size=chunk_size, gather_distributed=gather_distributed)
        if not 0 <= prior < 1:
            raise ValueError(f"prior: found {prior}, expected a probability of at least 0 and less than 1")
        self.prior = prior

    def query_losses(self, logits: Tensor, relations: F.Relations) -> Tensor:
        """Compute -log of the positive's corrected share."""
        return F.debiased_info_nce(logits, relations, 1.0, self.prior, lowest=-1 / self.temperature)
