"""Several data modules as one: side by side, or their samples mixed in one batch."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "concat": ["BatchedConcatDataModule", "CachedConcatDataModule", "ConcatDataModule"],
        "concat_dataset": ["BatchedConcatDataset"],
        "side_by_side": ["CombineMode", "CombinedDataModule"],
    },
)
