"""SigLIP: every pair of two views judged on its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from viscy_losses import functional as F
from viscy_losses.contrastive import ContrastiveLoss
from viscy_losses.registry import LossRegistry
from viscy_losses.temperature import LearnedTemperature

__all__ = ["SigLIPLoss"]


@LossRegistry.register("siglip")
class SigLIPLoss(ContrastiveLoss):
    r"""Judge for each pair of an anchor and a positive whether they are the same cell [1]_.

    :math:`\frac1B\sum_{ij}\log\left(1 + e^{-y_{ij}(s_{ij}/T + b)}\right)` with :math:`y_{ii} = 1`, else -1, for the
    cosine :math:`s_{ij}` of anchor i and positive j. Embeddings are (B, D) each.

    Parameters
    ----------
    temperature : float, default 0.1
        T, larger than 0; where it begins, if it is learned.
    bias : float, default -10.0
        b, which makes up for the many negatives when training begins; learned with the temperature.
    learn_temperature : bool, default True
        Whether T and b are parameters, T held at 0.01 or above.
    **options
        ``normalize``, ``chunk_size`` and ``gather_distributed`` of `ContrastiveLoss`.

    References
    ----------
    .. [1] Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, arXiv:2303.15343.
    """

    def __init__(
        self, temperature: float = 0.1, bias: float = -10.0, *, learn_temperature: bool = True, **options: Any
    ) -> None:
        super().__init__(LearnedTemperature(temperature) if learn_temperature else temperature, **options)
        self.bias = nn.Parameter(torch.tensor(float(bias))) if learn_temperature else bias

    def query_losses(self, logits: Tensor, relations: F.Relations) -> Tensor:
        """Sum the losses of all pairs of a query."""
        return F.sigmoid_contrast(logits + self.bias, relations)

    def forward(self, anchor: Tensor, positive: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the sum over all pairs, divided by the number of cells.

        Parameters
        ----------
        anchor, positive : Tensor, shape (B, D), floating point
        labels : Tensor, shape (B,), integer, optional
            Pairs of different cells with equal label are left out.

        Returns
        -------
        dict
            ``"loss"`` and, if learned, ``"temperature"`` and ``"bias"``, shape ().
        """
        stacked = self.stack_views(anchor, positive, labels)
        anchors, positives = stacked.views.chunk(2)
        losses = self.contrast(anchors[stacked.ids[: len(anchor)]], positives, F.cross_relations(stacked))
        named = {"loss": self.batch_mean(losses, len(anchors))}
        if isinstance(self.bias, Tensor):
            named |= {"temperature": self.temperature.detach(), "bias": self.bias.detach()}
        return named
