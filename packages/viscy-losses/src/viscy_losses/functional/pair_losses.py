r"""InfoNCE and NT-Xent from a similarity matrix, whole or in exact blocks of rows.

Oord et al., arXiv:1807.03748; Chen et al. (SimCLR), arXiv:2002.05709. For a positive pair (i, j) with negatives k:
:math:`-\log \frac{\exp(s_{ij}/T)}{\exp(s_{ij}/T) + \sum_k w_{ik} \exp(s_{ik}/T)}`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from viscy_losses.functional.blocks import in_blocks
from viscy_losses.functional.masks import Relation, Relations, stack_views, view_relations
from viscy_losses.functional.mining import log_negative_mass
from viscy_losses.functional.positive_masks import mask_relations
from viscy_losses.functional.similarity import cosine_similarity

__all__ = ["PairLosses", "contrast", "info_nce", "nt_xent"]


class PairLosses(NamedTuple):
    """The loss of each of P positive pairs."""

    losses: Tensor
    """(P,) float32; 0 for a query without negatives."""
    query: Tensor
    """(P,) int64, ascending over the blocks of rows."""
    positive: Tensor
    """(P,) int64, row of the reference."""


def info_nce(
    similarity: Tensor, relations: Relations | Tensor, temperature: float, concentration: float = 0.0
) -> Tensor:
    """Compute the loss of every positive pair from similarities.

    Parameters
    ----------
    similarity : Tensor, shape (N, M), float32
    relations : Relations, or Tensor of shape (N, M), bool
        Positive pairs and negatives of the N queries; a mask of the positives means what it does in `mask_relations`.
    temperature : float
        Larger than 0.
    concentration : float, default 0.0
        Hardness of the negatives' weights, see `hard_negative_weights`.

    Returns
    -------
    Tensor, shape (P,)
        In the order of the positive pairs; 0 for a query without negatives.
    """
    if isinstance(relations, Tensor):
        relations = mask_relations(relations)(slice(None))
    mass = log_negative_mass(similarity, relations.negatives, temperature, concentration)
    positive = similarity[relations.query, relations.positive] / temperature
    # log(exp(p) + exp(m)) - p, without forming the ratio: its gradient survives where the ratio underflows.
    return torch.nn.functional.softplus(mass[relations.query] - positive)


def contrast(
    query: Tensor,
    reference: Tensor,
    relation: Relation,
    temperature: float,
    concentration: float = 0.0,
    *,
    chunk_size: int | None = None,
    similarity: Callable[[Tensor, Tensor], Tensor] = cosine_similarity,
) -> PairLosses:
    """Compute the loss of every positive pair from embeddings.

    Parameters
    ----------
    query : Tensor, shape (N, D), floating point
    reference : Tensor, shape (M, D), floating point
        May be `query` itself.
    relation : callable
        From a slice of query rows to their `Relations`.
    temperature, concentration : float
        As in `info_nce`.
    chunk_size : int, optional
        Query rows at a time. Value and gradient are the same; the memory is O(chunk_size x M) in place of O(N x M), for
        one more forward computation.
    similarity : callable, default cosine_similarity
        From (R, D) and (M, D) to (R, M), larger is more alike.

    Returns
    -------
    PairLosses
    """

    def block(rows: slice, part: Tensor, reference: Tensor) -> PairLosses:
        relations = relation(rows)
        losses = info_nce(similarity(part, reference), relations, temperature, concentration)
        return PairLosses(losses, relations.query + rows.start, relations.positive)

    return PairLosses(*in_blocks(block, query, reference, chunk_size))


def nt_xent(
    anchor: Tensor,
    positive: Tensor,
    temperature: float = 0.07,
    concentration: float = 0.0,
    *,
    groups: Tensor | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Contrast two views of B cells with one another: the mean over the 2B views.

    Parameters
    ----------
    anchor, positive : Tensor, shape (B, D), floating point
    temperature : float, default 0.07
    concentration : float, default 0.0
        0 is NT-Xent; otherwise hard negatives weigh more, see `hard_negative_weights`.
    groups : Tensor, shape (B,), optional
        Cells of the same group are no negatives of each other.
    chunk_size : int, optional
        As in `contrast`.

    Returns
    -------
    Tensor, shape ()

    Examples
    --------
    >>> import torch
    >>> views = torch.eye(4)
    >>> round(nt_xent(views, views, temperature=1.0).item(), 4)  # log(e + 6) - 1
    1.1654
    """
    stacked = stack_views(anchor, positive, groups)
    relation = view_relations(stacked)
    pairs = contrast(stacked.views, stacked.views, relation, temperature, concentration, chunk_size=chunk_size)
    return pairs.losses.mean()
