"""Triplets of dividing cells, from tracks that were cut out and stored as NPY files."""

from __future__ import annotations

from viscy_data.cell_division_triplet.datamodule import CellDivisionTripletDataModule
from viscy_data.cell_division_triplet.dataset import CellDivisionTripletDataset

__all__ = ["CellDivisionTripletDataModule", "CellDivisionTripletDataset"]
