"""Volumes by channel, transformed in part where they are read and in part on the device, kept on a local disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "datamodule": ["CachedOmeZarrDataModule"],
        "dataset": ["CachedOmeZarrDataset"],
        "transforms": ["GPUTransformDataModule"],
    },
)
