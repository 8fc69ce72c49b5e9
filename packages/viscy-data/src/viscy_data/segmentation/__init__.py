"""Predicted segmentations beside true ones, for tests.

``SegmentationDataModule`` hands whole frames of two plates to a model's ``test_step``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "datamodule": ["SegmentationDataModule"],
        "dataset": ["SegmentationDataset"],
    },
)
