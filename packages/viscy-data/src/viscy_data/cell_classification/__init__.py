"""Patches of annotated cells with their labels, for a classifier."""

from __future__ import annotations

from viscy_data.cell_classification.annotations import annotated_cells, read_annotations
from viscy_data.cell_classification.datamodule import ClassificationDataModule
from viscy_data.cell_classification.dataset import ClassificationDataset

__all__ = ["ClassificationDataModule", "ClassificationDataset", "annotated_cells", "read_annotations"]
