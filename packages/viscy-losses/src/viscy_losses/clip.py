"""CLIP: InfoNCE across two views, in both directions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from viscy_losses import functional as F
from viscy_losses.contrastive import ContrastiveLoss
from viscy_losses.registry import LossRegistry
from viscy_losses.temperature import LearnedTemperature

__all__ = ["CLIPLoss"]


@LossRegistry.register("clip")
class CLIPLoss(ContrastiveLoss):
    r"""Find the positive of each anchor among all positives, and its anchor among all anchors [1]_.

    :math:`-\frac{1}{2B}\sum_i\left(\log\frac{e^{s_{ii}/T}}{\sum_j e^{s_{ij}/T}} + \log\frac{e^{s_{ii}/T}}{\sum_j
    e^{s_{ji}/T}}\right)` for the cosine :math:`s_{ij}` of anchor i and positive j. Embeddings are (B, D) each, of two
    encoders or one. Views of the same kind are not compared.

    Parameters
    ----------
    temperature : float, default 0.07
        T, larger than 0; where it begins, if it is learned.
    learn_temperature : bool, default False
        Whether T is a parameter, held at 0.01 or above as in the publication.
    **options
        ``normalize``, ``chunk_size`` and ``gather_distributed`` of `ContrastiveLoss`.

    References
    ----------
    .. [1] Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
       arXiv:2103.00020.
    """

    def __init__(self, temperature: float = 0.07, *, learn_temperature: bool = False, **options: Any) -> None:
        super().__init__(LearnedTemperature(temperature) if learn_temperature else temperature, **options)

    def forward(self, anchor: Tensor, positive: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the mean loss over both directions.

        Parameters
        ----------
        anchor, positive : Tensor, shape (B, D), floating point
        labels : Tensor, shape (B,), integer, optional
            Cells of equal label are no negatives of one another.

        Returns
        -------
        dict
            ``"loss"`` and, if learned, ``"temperature"``, shape ().
        """
        stacked = self.stack_views(anchor, positive, labels)
        anchors, positives = stacked.views.chunk(2)
        own, relation = stacked.ids[: len(anchor)], F.cross_relations(stacked)
        losses = self.contrast(anchors[own], positives, relation) + self.contrast(positives[own], anchors, relation)
        named = {"loss": self.batch_mean(losses, len(stacked.views))}
        return named | ({"temperature": self.temperature.detach()} if isinstance(self.temperature, Tensor) else {})
