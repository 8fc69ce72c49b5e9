"""The parts of contrastive losses as pure functions; names are loaded on first use.

A loss is put together from four decisions: how alike two embeddings are (`similarity`), which pairs are positive and
which are negative (`masks`, `positive_masks`), how much each negative counts (`mining`), and what is made of them
(`pair_losses`, `query_losses`). `gather` brings in the embeddings of the other processes, `blocks` saves memory. Losses
without negatives are made of `redundancy`, those of classes of `imbalance`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "blocks": ["in_blocks"],
        "gather": ["gather_rows", "gather_views", "world_size"],
        "imbalance": ["class_weights", "focal_cross_entropy", "focal_modulation"],
        "masks": [
            "PairMasks",
            "Relation",
            "Relations",
            "StackedViews",
            "cross_relations",
            "group_masks",
            "group_relations",
            "label_relations",
            "listed_relations",
            "stack_views",
            "view_relations",
        ],
        "mining": [
            "hard_negative_concentration",
            "hard_negative_weights",
            "log_negative_mass",
            "percentile_negatives",
            "semi_hard_negatives",
            "top_k_negatives",
        ],
        "pair_losses": ["PairLosses", "contrast", "info_nce", "nt_xent"],
        "positive_masks": ["id_mask", "label_mask", "mask_relations", "pair_mask"],
        "query_losses": [
            "debiased_info_nce",
            "decoupled_info_nce",
            "sigmoid_contrast",
            "supervised_info_nce",
            "triplet_margin",
        ],
        "redundancy": ["covariance", "covariance_term", "cross_correlation", "off_diagonal", "variance_term"],
        "similarity": [
            "check_finite",
            "check_views",
            "cosine_similarity",
            "full_precision",
            "normalize",
            "scaled_similarity",
            "widen",
        ],
    },
)
