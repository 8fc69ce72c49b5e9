"""Several data modules as one: side by side, or their samples mixed in one batch."""

from __future__ import annotations

from viscy_data.combined.concat import BatchedConcatDataModule, CachedConcatDataModule, ConcatDataModule
from viscy_data.combined.concat_dataset import BatchedConcatDataset
from viscy_data.combined.side_by_side import CombinedDataModule, CombineMode

__all__ = [
    "BatchedConcatDataModule",
    "BatchedConcatDataset",
    "CachedConcatDataModule",
    "CombineMode",
    "CombinedDataModule",
    "ConcatDataModule",
]
