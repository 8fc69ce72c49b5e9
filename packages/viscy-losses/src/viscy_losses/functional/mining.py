"""How much each negative counts: hard ones more, by importance weights.

Robinson et al., "Contrastive Learning with Hard Negative Samples", ICLR 2021, arXiv:2010.04592, without the correction
for false negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["hard_negative_weights", "log_negative_mass"]


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
