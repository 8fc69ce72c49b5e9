"""Triplets around tracked cells of one plate: dataset and data module.

An anchor is a tracked cell; its positive is the same cell ``time_interval`` frames later (or the anchor itself, for
two augmented views), its negative another cell. For several experiments at once see the ``dynaclr`` application.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "datamodule": ["TripletDataModule"],
        "dataset": ["TripletDataset"],
    },
)
