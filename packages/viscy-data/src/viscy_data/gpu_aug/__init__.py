"""Volumes by channel, transformed in part where they are read and in part on the device, kept on a local disk."""

from viscy_data.gpu_aug.datamodule import CachedOmeZarrDataModule
from viscy_data.gpu_aug.dataset import CachedOmeZarrDataset
from viscy_data.gpu_aug.transforms import GPUTransformDataModule

__all__ = ["CachedOmeZarrDataModule", "CachedOmeZarrDataset", "GPUTransformDataModule"]
