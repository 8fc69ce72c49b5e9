"""Triplets of dividing cells, from tracks that were cut out and stored as NPY files."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "datamodule": ["CellDivisionTripletDataModule"],
        "dataset": ["CellDivisionTripletDataset"],
    },
)
