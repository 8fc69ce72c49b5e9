"""The parts of contrastive losses as pure functions; names are loaded on first use.

A loss is put together from four decisions: how alike two embeddings are (`similarity`), which pairs are positive and
which are negative (`masks`, `positive_masks`), how much each negative counts (`mining`), and what is made of them
(`pair_losses`, `query_losses`). `gather` brings in the embeddings of the other processes, `blocks` saves memory. Losses
without negatives are made of `redundancy`, those of classes of `imbalance`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "PairLosses": "pair_losses",
    "PairMasks": "masks",
    "Relation": "masks",
    "Relations": "masks",
    "StackedViews": "masks",
    "check_finite": "similarity",
    "check_views": "similarity",
    "class_weights": "imbalance",
    "contrast": "pair_losses",
    "cosine_similarity": "similarity",
    "covariance": "redundancy",
    "covariance_term": "redundancy",
    "cross_correlation": "redundancy",
    "cross_relations": "masks",
    "debiased_info_nce": "query_losses",
    "decoupled_info_nce": "query_losses",
    "focal_cross_entropy": "imbalance",
    "focal_modulation": "imbalance",
    "full_precision": "similarity",
    "gather_rows": "gather",
    "gather_views": "gather",
    "group_masks": "masks",
    "group_relations": "masks",
    "hard_negative_concentration": "mining",
    "hard_negative_weights": "mining",
    "id_mask": "positive_masks",
    "in_blocks": "blocks",
    "info_nce": "pair_losses",
    "label_mask": "positive_masks",
    "label_relations": "masks",
    "listed_relations": "masks",
    "log_negative_mass": "mining",
    "mask_relations": "positive_masks",
    "normalize": "similarity",
    "nt_xent": "pair_losses",
    "off_diagonal": "redundancy",
    "pair_mask": "positive_masks",
    "percentile_negatives": "mining",
    "scaled_similarity": "similarity",
    "semi_hard_negatives": "mining",
    "sigmoid_contrast": "query_losses",
    "stack_views": "masks",
    "supervised_info_nce": "query_losses",
    "top_k_negatives": "mining",
    "triplet_margin": "query_losses",
    "variance_term": "redundancy",
    "view_relations": "masks",
    "widen": "similarity",
    "world_size": "gather",
}

__all__ = [
    "PairLosses",
    "PairMasks",
    "Relation",
    "Relations",
    "StackedViews",
    "check_finite",
    "check_views",
    "class_weights",
    "contrast",
    "cosine_similarity",
    "covariance",
    "covariance_term",
    "cross_correlation",
    "cross_relations",
    "debiased_info_nce",
    "decoupled_info_nce",
    "focal_cross_entropy",
    "focal_modulation",
    "full_precision",
    "gather_rows",
    "gather_views",
    "group_masks",
    "group_relations",
    "hard_negative_concentration",
    "hard_negative_weights",
    "id_mask",
    "in_blocks",
    "info_nce",
    "label_mask",
    "label_relations",
    "listed_relations",
    "log_negative_mass",
    "mask_relations",
    "normalize",
    "nt_xent",
    "off_diagonal",
    "pair_mask",
    "percentile_negatives",
    "scaled_similarity",
    "semi_hard_negatives",
    "sigmoid_contrast",
    "stack_views",
    "supervised_info_nce",
    "top_k_negatives",
    "triplet_margin",
    "variance_term",
    "view_relations",
    "widen",
    "world_size",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
