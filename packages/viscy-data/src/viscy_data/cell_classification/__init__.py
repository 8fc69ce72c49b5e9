"""Patches of annotated cells with their labels, for a classifier."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "annotations": ["annotated_cells", "read_annotations"],
        "datamodule": ["ClassificationDataModule"],
        "dataset": ["ClassificationDataset"],
    },
)
