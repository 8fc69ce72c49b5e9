r"""Relatives of InfoNCE: the loss of each query from a block of similarities and its `Relations`.

Like `info_nce`, they take similarities s and a temperature T, or logits s/T and a temperature of 1, in float32 or
better.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from viscy_losses.functional.masks import PairMasks, Relations
from viscy_losses.functional.mining import log_negative_mass

__all__ = ["debiased_info_nce", "decoupled_info_nce", "sigmoid_contrast", "supervised_info_nce", "triplet_margin"]


def decoupled_info_nce(similarity: Tensor, relations: Relations, temperature: float = 1.0) -> Tensor:
    r"""Leave the positive out of the denominator: :math:`-s_{ij}/T + \log \sum_k \exp(s_{ik}/T)` [1]_.

    Parameters
    ----------
    similarity : Tensor, shape (N, M)
    relations : Relations
    temperature : float, default 1.0

    Returns
    -------
    Tensor, shape (P,)
        Of each positive pair; it may be negative. 0 for a query without negatives.

    References
    ----------
    .. [1] Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, arXiv:2110.06848.
    """
    mass = log_negative_mass(similarity, relations.negatives, temperature)[relations.query]
    losses = mass - similarity[relations.query, relations.positive] / temperature
    return losses.masked_fill(mass == -math.inf, 0)


def debiased_info_nce(
    similarity: Tensor, relations: Relations, temperature: float = 1.0, prior: float = 0.1, *, lowest: float = -1.0
) -> Tensor:
    r"""Correct for negatives that are in truth of the positive's class [1]_.

    :math:`-\log \frac{e^{s_{ij}/T}}{e^{s_{ij}/T} + G}` with
    :math:`G = \max\left(\frac{1}{1-\tau}\left(\sum_k e^{s_{ik}/T} - N\tau\,e^{s_{ij}/T}\right), N e^{l/T}\right)` for N
    negatives k.

    Parameters
    ----------
    similarity : Tensor, shape (N, M)
    relations : Relations
    temperature : float, default 1.0
    prior : float, default 0.1
        Probability :math:`\tau` that a cell drawn at random is of the anchor's class, from 0 to less than 1; 0 is
        `info_nce`.
    lowest : float, default -1.0
        The smallest similarity l that there can be, in the units of `similarity`.

    Returns
    -------
    Tensor, shape (P,)
        Of each positive pair; 0 for a query without negatives.

    References
    ----------
    .. [1] Chuang et al., "Debiased Contrastive Learning", NeurIPS 2020, arXiv:2007.00224.
    """
    if not 0 <= prior < 1:
        raise ValueError(f"prior: found {prior}, expected a probability of at least 0 and less than 1")
    positive = similarity[relations.query, relations.positive] / temperature
    number = relations.negatives.sum(dim=1, dtype=similarity.dtype)[relations.query]
    alone = number == 0
    log_number = number.clamp(min=1).log()
    mass = log_negative_mass(similarity, relations.negatives, temperature)[relations.query].masked_fill(alone, 0)
    # With r = N tau exp(p) / exp(mass), the corrected sum is exp(mass) (1 - r) / (1 - tau).
    log_ratio = positive - mass + log_number + (math.log(prior) if prior else -math.inf)
    floor = log_number + lowest / temperature
    with torch.no_grad():
        corrected = mass + torch.log1p(-log_ratio.exp().clamp(max=1)) - math.log1p(-prior)
        usable = corrected > floor
    # What falls below the floor is replaced before the logarithm as well, whose slope is infinite there.
    log_ratio = torch.where(usable, log_ratio, -1.0)
    corrected = mass + torch.log1p(-log_ratio.exp()) - math.log1p(-prior)
    return softplus(torch.where(usable, corrected, floor) - positive).masked_fill(alone, 0)


def supervised_info_nce(similarity: Tensor, relations: Relations | PairMasks, temperature: float = 1.0) -> Tensor:
    r"""Average over all positives of a query, each told from all others.

    :math:`-\frac{1}{|P_i|} \sum_{j \in P_i} \log \frac{\exp(s_{ij}/T)}{\sum_{k \in P_i \cup N_i} \exp(s_{ik}/T)}`,
    the form "out" of Khosla et al. [1]_.

    Parameters
    ----------
    similarity : Tensor, shape (N, M)
    relations : Relations or PairMasks
    temperature : float, default 1.0

    Returns
    -------
    Tensor, shape (N,)
        Of each query; 0 for one without positives.

    References
    ----------
    .. [1] Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv:2004.11362.
    """
    logits = similarity / temperature
    if isinstance(relations, PairMasks):
        positives = relations.positives
    else:
        positives = torch.zeros_like(logits, dtype=torch.bool)
        positives[relations.query, relations.positive] = True
    number = positives.sum(dim=1, dtype=logits.dtype)
    attraction = (logits * positives).sum(dim=1) / number.clamp(min=1)
    return (log_negative_mass(logits, positives | relations.negatives, 1.0) - attraction).masked_fill(number == 0, 0)


def sigmoid_contrast(logits: Tensor, relations: Relations) -> Tensor:
    r"""Judge every pair on its own: :math:`\sum_{j} \log(1 + e^{-z_{ij}}) + \sum_k \log(1 + e^{z_{ik}})` [1]_.

    Parameters
    ----------
    logits : Tensor, shape (N, M)
        Scaled similarities plus a bias.
    relations : Relations

    Returns
    -------
    Tensor, shape (N,)
        Of each query, over its positives j and negatives k.

    References
    ----------
    .. [1] Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, arXiv:2303.15343.
    """
    repulsion = (softplus(logits) * relations.negatives).sum(dim=1)
    return repulsion.index_add(0, relations.query, softplus(-logits[relations.query, relations.positive]))


def triplet_margin(similarity: Tensor, relations: Relations, margin: float) -> tuple[Tensor, Tensor]:
    r"""Ask that positives be closer than negatives by a margin: :math:`\max(0, s_{ik} - s_{ij} + m)`.

    Parameters
    ----------
    similarity : Tensor, shape (N, M)
        Minus the distance.
    relations : Relations
        Bool negatives, for instance those that a function of `mining` left.
    margin : float

    Returns
    -------
    losses : Tensor, shape (P, M)
        Of each positive pair with each reference, 0 where that is no negative.
    triplets : Tensor, shape (P, M), bool
        Which are negatives.
    """
    triplets = relations.negatives[relations.query]
    attraction = similarity[relations.query, relations.positive]
    losses = torch.relu(similarity[relations.query] - attraction[:, None] + margin)
    return losses.masked_fill(~triplets, 0), triplets
