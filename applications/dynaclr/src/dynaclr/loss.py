"""NT-Xent with hard-negative concentration, with the reducers, distances and miners of pytorch-metric-learning.

>>> loss = NTXentHCL(temperature=0.07, beta=0.5)
>>> loss.forward_pairs(anchor, positive, lineage)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pytorch_metric_learning.distances import BaseDistance, CosineSimilarity
from pytorch_metric_learning.losses import NTXentLoss
from pytorch_metric_learning.utils.common_functions import labels_or_indices_tuple_required
from torch import Tensor

from viscy_losses import HardNegativeLoss
from viscy_losses import functional as F

__all__ = ["NTXentHCL"]


class NTXentHCL(NTXentLoss):
    r"""NT-Xent whose negatives weigh more the harder they are.

    For a positive pair (i, j), similarities s and negatives k of i:
    :math:`-\log \frac{\exp(s_{ij}/T)}{\exp(s_{ij}/T) + \sum_k w_{ik} \exp(s_{ik}/T)}` with
    :math:`w_{ik} \propto \exp(c\,s_{ik})`, of mean one over the negatives. Time and memory are quadratic in the batch
    size, and sums are formed as logarithms in float32 whatever the precision of the embeddings.

    Parameters
    ----------
    temperature : float, default 0.07
        T, larger than 0.
    beta : float, default 0.5
        0 is plain NT-Xent.
    beta_scale : {"similarity", "logit"}, default "similarity"
        Whether the concentration c is `beta` itself, or ``beta / temperature`` as in the publication [1]_.
    chunk_size : int, optional
        Rows of the similarity matrix at a time. Same value and gradient; memory O(B x chunk_size) for some more time.
    gather_distributed : bool, default False
        Whether cells of the other processes are negatives too, with exact gradients; for `forward_pairs`.
    mask_lineage : bool, default True
        Whether cells of an anchor's own lineage are left out of its negatives, where `forward_pairs` is told lineages.
    **kwargs
        Of `pytorch_metric_learning.losses.NTXentLoss`: ``reducer``, ``distance``, ``embedding_regularizer``, ...

    Raises
    ------
    ValueError
        For parameters out of range; when called, for embeddings with NaN or infinite values, naming the rows.

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
        chunk_size: int | None = None,
        gather_distributed: bool = False,
        mask_lineage: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(temperature=temperature, **kwargs)
        self.beta, self.beta_scale, self.mask_lineage = beta, beta_scale, mask_lineage
        self.chunk_size, self.gather_distributed = chunk_size, gather_distributed
        self.hard_negatives = _OfDistance(
            self.distance,
            temperature,
            beta,
            beta_scale=beta_scale,
            chunk_size=chunk_size,
            gather_distributed=gather_distributed,
        )

    def forward_pairs(self, anchor: Tensor, positive: Tensor, lineage: Tensor | None = None) -> Tensor:
        """Contrast the two views of each cell with those of all others.

        Parameters
        ----------
        anchor, positive : Tensor, shape (B, D), floating point
            Row i of both is the same cell.
        lineage : Tensor, shape (B,), int64, optional
            Lineage of each cell, unique across experiments.

        Returns
        -------
        Tensor, shape ()
            Float32. With gathering, the mean over the processes is the loss of the whole batch.
        """
        stacked = self.hard_negatives.stack_views(anchor, positive, lineage if self.mask_lineage else None)
        pairs = self.hard_negatives.pair_losses(stacked.queries, stacked.views, F.view_relations(stacked))
        # Processes may hold unequal shares of the batch; their plain mean is to be the mean over all cells.
        n_shares = F.world_size() if self.gather_distributed else 1
        pairs = pairs._replace(losses=pairs.losses * (n_shares * len(stacked.ids) / len(stacked.views)))
        embeddings = torch.cat([anchor, positive])
        losses = self._loss_dict(pairs)
        self.add_embedding_regularization_to_loss_dict(losses, embeddings)
        return self.reducer(losses, embeddings, torch.arange(len(anchor), device=anchor.device).repeat(2))

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> dict[str, Any]:
        """Compute the loss of every positive pair, for `forward` of the parent class (general labels, miners)."""
        labels_or_indices_tuple_required(labels, indices_tuple)
        if self.gather_distributed and F.world_size() > 1:
            raise ValueError("gather_distributed: labels of different processes cannot be compared; use forward_pairs")
        for name, rows in {"embeddings": embeddings, "reference embeddings": ref_emb}.items():
            if rows.device.type == "cpu" and (name == "embeddings" or rows is not embeddings):
                F.check_finite(rows, name)
        if indices_tuple is None:
            relation = F.label_relations(labels, None if ref_labels is labels else ref_labels)
        else:
            anchor, positive, *repelled, negative = indices_tuple
            relation = F.listed_relations((anchor, positive), (*(repelled or [anchor]), negative), len(ref_emb))
        return self._loss_dict(self.hard_negatives.pair_losses(embeddings, ref_emb, relation))

    def _loss_dict(self, pairs: F.PairLosses) -> dict[str, Any]:
        if not len(pairs.losses):
            return self.zero_losses()
        indices = (pairs.query, pairs.positive)
        return {"loss": {"losses": pairs.losses, "indices": indices, "reduction_type": "pos_pair"}}


class _OfDistance(HardNegativeLoss):
    """The loss on any distance of pytorch-metric-learning."""

    def __init__(self, distance: BaseDistance, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.distance = distance

    def compute_similarity(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute similarities divided by the temperature; of distances, their negative."""
        if type(self.distance) is CosineSimilarity and self.distance.power == 1:
            return super().compute_similarity(query, reference)
        with F.full_precision(query):
            matrix = self.distance(query.float(), reference.float())
        return (matrix if self.distance.is_inverted else -matrix) / self.temperature
