"""The parts of contrastive losses as pure functions; names are loaded on first use.

A loss is put together from four decisions: how alike two embeddings are (`similarity`), which pairs are positive and
which are negative (`masks`), how much each negative counts (`mining`), and what is made of them (`info_nce`).
`gather` brings in the embeddings of the other processes.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "PairLosses": "info_nce",
    "Relation": "masks",
    "Relations": "masks",
    "StackedViews": "masks",
    "check_finite": "similarity",
    "contrast": "info_nce",
    "cosine_similarity": "similarity",
    "gather_rows": "gather",
    "gather_views": "gather",
    "hard_negative_weights": "mining",
    "info_nce": "info_nce",
    "label_relations": "masks",
    "listed_relations": "masks",
    "log_negative_mass": "mining",
    "normalize": "similarity",
    "nt_xent": "info_nce",
    "stack_views": "masks",
    "view_relations": "masks",
    "world_size": "gather",
}

__all__ = [
    "PairLosses",
    "Relation",
    "Relations",
    "StackedViews",
    "check_finite",
    "contrast",
    "cosine_similarity",
    "gather_rows",
    "gather_views",
    "hard_negative_weights",
    "info_nce",
    "label_relations",
    "listed_relations",
    "log_negative_mass",
    "normalize",
    "nt_xent",
    "stack_views",
    "view_relations",
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
