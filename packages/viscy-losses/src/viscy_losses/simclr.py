"""SimCLR: NT-Xent of two views."""

from __future__ import annotations

from viscy_losses.contrastive import ContrastiveLoss
from viscy_losses.registry import LossRegistry

__all__ = ["SimCLRLoss"]


@LossRegistry.register("nt_xent")
@LossRegistry.register("simclr")
class SimCLRLoss(ContrastiveLoss):
    r"""Tell the other view of a cell from the views of all other cells (NT-Xent) [1]_.

    :math:`\frac{1}{2B}\sum_i -\log\frac{e^{s_{ij}/T}}{e^{s_{ij}/T} + \sum_k e^{s_{ik}/T}}` for cosines s, the other
    view j of i, and the views k of other cells. Embeddings are (B, D) each; relatives (of equal label) are left
    out of k.

    Parameters
    ----------
    temperature, normalize, chunk_size, gather_distributed
        As in `ContrastiveLoss`.

    References
    ----------
    .. [1] Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
       arXiv:2002.05709.

    Examples
    --------
    >>> import torch
    >>> views = torch.eye(4)
    >>> round(SimCLRLoss(temperature=1.0)(views, views)["loss"].item(), 4)  # log(e + 6) - 1
    1.1654
    """
