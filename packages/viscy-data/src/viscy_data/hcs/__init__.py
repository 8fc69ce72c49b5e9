"""Whole plates for image translation: windows of slices, source channels in and target channels out."""

from viscy_data.hcs.datamodule import HCSDataModule
from viscy_data.sliding_window import MaskTestDataset, SlidingWindowDataset

__all__ = ["HCSDataModule", "MaskTestDataset", "SlidingWindowDataset"]
