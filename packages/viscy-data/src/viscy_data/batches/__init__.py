"""What every data module of cells shares: rows of a table to patches, patches to batches, batches to Lightning."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "datamodule": ["BatchDataModule"],
        "dataset": ["PatchDataset"],
        "pipeline": ["TransformPipeline"],
        "stages": ["StagedDataModule"],
    },
)
