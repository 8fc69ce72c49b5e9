"""Figures of an embedding that are logged while training; computed in float32, without gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, pairwise_distance

from viscy_losses import functional as F

__all__ = ["batch_metrics", "pair_metrics"]


@torch.no_grad()
def pair_metrics(anchor: Tensor, positive: Tensor, negative: Tensor | None = None) -> dict[str, Tensor]:
    """Compare each anchor with its positive, and with its negative when there is one.

    Parameters
    ----------
    anchor, positive, negative : Tensor, shape (B, P)

    Returns
    -------
    dict
        Means over the batch by name, without ``metrics/`` and stage.
    """
    found = {
        "cosine_similarity/positive": cosine_similarity(anchor.float(), positive.float()).mean(),
        "euclidean_distance/positive": pairwise_distance(anchor.float(), positive.float()).mean(),
    }
    if negative is not None:
        found["cosine_similarity_negative"] = cosine_similarity(anchor.float(), negative.float()).mean()
        found["euclidean_distance_negative"] = pairwise_distance(anchor.float(), negative.float()).mean()
    return found


@torch.no_grad()
def batch_metrics(anchor: Tensor, positive: Tensor) -> dict[str, Tensor]:
    """Compare each anchor with both views of the other cells of the batch.

    Parameters
    ----------
    anchor, positive : Tensor, shape (B, P)
        At least two cells.

    Returns
    -------
    dict
        By name, without ``metrics/`` and stage: means and mean sums over the negatives, margins between positives and
        negatives, and alignment and uniformity on the unit sphere (Wang and Isola, arXiv:2005.10242): the mean squared
        distance of positive pairs, and the logarithm of the mean of exp(-2 d^2) over negatives, 0 when collapsed.
    """
    anchor, positive = anchor.float(), positive.float()
    stacked = F.stack_views(anchor, positive)
    negatives = F.view_relations(stacked)(slice(0, len(anchor))).negatives
    cosine = F.cosine_similarity(anchor, stacked.views)
    distance = torch.cdist(anchor, stacked.views)
    close = pair_metrics(anchor, positive)
    # Sums, not selections, whose length would have to be waited for.
    number = negatives.sum()
    cosine_mean, distance_mean = (cosine * negatives).sum() / number, (distance * negatives).sum() / number
    return {
        "cosine_similarity/negative_mean": cosine_mean,
        "cosine_similarity/negative_sum": (cosine * negatives).sum(dim=1).mean(),
        "margin_positive/negative": close["cosine_similarity/positive"] - cosine_mean,
        "euclidean_distance/negative_mean": distance_mean,
        "euclidean_distance/negative_sum": (distance * negatives).sum(dim=1).mean(),
        "margin_euclidean_positive/negative": distance_mean - close["euclidean_distance/positive"],
        "alignment": 2 - 2 * close["cosine_similarity/positive"],
        "uniformity": torch.log((torch.exp(4 * cosine - 4) * negatives).sum() / number),
    }
