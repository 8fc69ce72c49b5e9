"""How much each negative counts: hard ones more, by importance weights, or only hard ones, by selection.

Weights: Robinson et al., "Contrastive Learning with Hard Negative Samples", ICLR 2021, arXiv:2010.04592, without the
correction for false negatives.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "hard_negative_concentration",
    "hard_negative_weights",
    "log_negative_mass",
    "percentile_negatives",
    "semi_hard_negatives",
    "top_k_negatives",
]


def top_k_negatives(similarity: Tensor, negatives: Tensor, k: int) -> Tensor:
    """Keep the k negatives of each query that are most alike to it.

    Parameters
    ----------
    similarity : Tensor, shape (N, M)
    negatives : Tensor, shape (N, M), bool
    k : int
        At least 1; a query with fewer negatives keeps them all.

    Returns
    -------
    Tensor, shape (N, M), bool
    """
    if k < 1:
        raise ValueError(f"k: found {k}, expected at least 1")
    ranked = similarity.detach().masked_fill(~negatives, -torch.inf)
    hardest = ranked.topk(min(k, ranked.shape[1]), dim=1).indices
    return torch.zeros_like(negatives).scatter_(1, hardest, True) & negatives


def percentile_negatives(similarity: Tensor, negatives: Tensor, percentile: float) -> Tensor:
    """Keep the negatives of each query at or above a percentile of its own negatives.

    Parameters
    ----------
    similarity : Tensor, shape (N, M)
    negatives : Tensor, shape (N, M), bool
    percentile : float
        From 0, which keeps all, to 100, which keeps the most similar; 90 keeps the hardest tenth.

    Returns
    -------
    Tensor, shape (N, M), bool
        At least one per query that has negatives.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile: found {percentile}, expected 0 to 100")
    ascending = similarity.detach().masked_fill(~negatives, torch.inf).sort(dim=1).values
    last = (negatives.sum(dim=1, keepdim=True) - 1).clamp(min=0)
    rank = (last.double() * percentile / 100).ceil().long()
    return negatives & (similarity >= ascending.gather(1, rank))


def semi_hard_negatives(similarity: Tensor, positive: Tensor, negatives: Tensor, margin: float) -> Tensor:
    """Keep the negatives that are less alike than the positive, but by less than a margin.

    Parameters
    ----------
    similarity : Tensor, shape (N, M)
    positive : Tensor, shape (N,)
        Similarity of each query with its positive.
    negatives : Tensor, shape (N, M), bool
    margin : float
        Larger than 0, in units of the similarity.

    Returns
    -------
    Tensor, shape (N, M), bool

    Notes
    -----
    Schroff et al. (FaceNet), arXiv:1503.03832: the very hardest negatives, often mislabelled, are left out.
    """
    if not margin > 0:
        raise ValueError(f"margin: found {margin}, expected a number larger than 0")
    closeness = positive[:, None]
    return negatives & (similarity < closeness) & (similarity > closeness - margin)


def hard_negative_concentration(
    beta: float, scale: Literal["similarity", "logit"] = "similarity", temperature: float = 1.0
) -> float:
    """Turn the parameter beta of a loss into the concentration of `hard_negative_weights`.

    Parameters
    ----------
    beta : float
        0 or larger.
    scale : {"similarity", "logit"}, default "similarity"
        Whether the concentration is `beta` itself, or ``beta / temperature`` as published.
    temperature : float, default 1.0

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For parameters out of range.
    """
    if not (math.isfinite(beta) and beta >= 0):
        raise ValueError(f"beta: found {beta}, expected 0 or a larger number")
    if scale not in ("similarity", "logit"):
        raise ValueError(f"beta_scale: found {scale!r}, expected 'similarity' or 'logit'")
    return beta if scale == "similarity" else beta / temperature


def hard_negative_weights(similarity: Tensor, negatives: Tensor, concentration: float) -> Tensor:
    r"""Weigh negatives by how alike they are to the query.

    Parameters
    ----------
    similarity : Tensor, shape (N, M)
    negatives : Tensor, shape (N, M), bool, or counts
    concentration : float
        0 weighs all alike; larger values look at the most similar only.

    Returns
    -------
    Tensor, shape (N, M)
        :math:`w_{ik} \propto \exp(c\,s_{ik})`, zero where there is no negative, with a mean of one over the
        negatives of each row.
    """
    empty = ~negatives.any(dim=1, keepdim=True)
    counts = negatives.to(similarity.dtype)
    logits = torch.add(counts.log().masked_fill_(empty, 0), similarity, alpha=concentration)
    shares = torch.softmax(logits, dim=1).masked_fill(empty, 0)
    return shares * counts.sum(dim=1, keepdim=True) / counts.clamp(min=1)


def log_negative_mass(similarity: Tensor, negatives: Tensor, temperature: float, concentration: float = 0.0) -> Tensor:
    r"""Sum the negatives of each query: :math:`\log \sum_k w_{ik} \exp(s_{ik}/T)`.

    Parameters
    ----------
    similarity : Tensor, shape (N, M), float32
    negatives : Tensor, shape (N, M), bool, or counts
    temperature : float
    concentration : float, default 0.0
        See `hard_negative_weights`; the gradient flows through the weights.

    Returns
    -------
    Tensor, shape (N,)
        Minus infinity where a row has no negatives.

    Notes
    -----
    The weights are never formed: with :math:`n_i` negatives the sum is
    :math:`\log n_i + \mathrm{LSE}_k((c + 1/T) s_{ik}) - \mathrm{LSE}_k(c\,s_{ik})`, finite for any concentration.
    """
    empty = ~negatives.any(dim=1)
    offset = _log_counts(negatives, similarity.dtype)
    # Rows without negatives are computed as if all were, and replaced: minus infinity throughout has no gradient.
    offset = offset.masked_fill_(empty[:, None], 0)
    mass = torch.logsumexp(torch.add(offset, similarity, alpha=concentration + 1 / temperature), dim=1)
    if concentration:
        number = negatives.sum(dim=1, dtype=similarity.dtype).log()
        mass = mass + number - torch.logsumexp(torch.add(offset, similarity, alpha=concentration), dim=1)
    return mass.masked_fill(empty, -torch.inf)


def _log_counts(negatives: Tensor, dtype: torch.dtype) -> Tensor:
    if negatives.dtype != torch.bool:
        return negatives.to(dtype).log()
    return torch.zeros(negatives.shape, dtype=dtype, device=negatives.device).masked_fill_(~negatives, -torch.inf)
