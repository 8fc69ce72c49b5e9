"""NT-Xent with hard-negative concentration, on the functions of `viscy_losses`.

>>> loss = NTXentHCL(temperature=0.07, beta=0.5)
>>> loss.forward_pairs(anchor, positive, lineage)  # doctest: +SKIP
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import NTXentLoss
from pytorch_metric_learning.utils.common_functions import labels_or_indices_tuple_required
from torch import Tensor

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
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature: found {temperature}, expected a number larger than 0")
        F.hard_negative_concentration(beta, beta_scale, temperature)
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size: found {chunk_size}, expected None or at least 1")
        super().__init__(temperature=temperature, **kwargs)
        self.beta = beta
        self.beta_scale = beta_scale
        self.chunk_size = chunk_size
        self.gather_distributed = gather_distributed
        self.mask_lineage = mask_lineage

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
        F.check_views(anchor, positive, lineage)
        groups = lineage.to(anchor.device) if self.mask_lineage and lineage is not None else None
        stacked = (F.gather_views if self.gather_distributed else F.stack_views)(anchor, positive, groups)
        query = stacked.views if len(stacked.ids) == len(stacked.views) else stacked.views[stacked.ids]
        pairs = self._contrast(query, stacked.views, F.view_relations(stacked))
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
        F.check_finite(embeddings)
        if ref_emb is not embeddings:
            F.check_finite(ref_emb, "reference embeddings")
        if indices_tuple is None:
            relation = F.label_relations(labels, None if ref_labels is labels else ref_labels)
        else:
            anchor, positive, *repelled, negative = indices_tuple
            relation = F.listed_relations((anchor, positive), (*(repelled or [anchor]), negative), len(ref_emb))
        return self._loss_dict(self._contrast(embeddings, ref_emb, relation))

    def _contrast(self, query: Tensor, reference: Tensor, relation: F.Relation) -> F.PairLosses:
        return F.contrast(
            query,
            reference,
            relation,
            self.temperature,
            F.hard_negative_concentration(self.beta, self.beta_scale, self.temperature),
            chunk_size=self.chunk_size,
            similarity=self._similarity,
        )

    def _similarity(self, query: Tensor, reference: Tensor) -> Tensor:
        if type(self.distance) is CosineSimilarity and self.distance.power == 1:
            return F.cosine_similarity(query, reference)
        with torch.autocast(query.device.type, enabled=False):
            matrix = self.distance(query.float(), reference.float())
        return matrix if self.distance.is_inverted else -matrix

    def _loss_dict(self, pairs: F.PairLosses) -> dict[str, Any]:
        if not len(pairs.losses):
            return self.zero_losses()
        indices = (pairs.query, pairs.positive)
        return {"loss": {"losses": pairs.losses, "indices": indices, "reduction_type": "pos_pair"}}
