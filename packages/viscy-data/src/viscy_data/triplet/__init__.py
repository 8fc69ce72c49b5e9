"""Triplets around tracked cells of one plate: dataset and data module.

An anchor is a tracked cell; its positive is the same cell ``time_interval`` frames later (or the anchor itself, for
two augmented views), its negative another cell. For several experiments at once see the ``dynaclr`` application.
"""

from __future__ import annotations

from viscy_data.triplet.datamodule import TripletDataModule
from viscy_data.triplet.dataset import TripletDataset

__all__ = ["TripletDataModule", "TripletDataset"]
