"""The data module of predicted segmentations beside true ones."""

from __future__ import annotations

from pathlib import Path

from viscy_data.batches.stages import StagedDataModule
from viscy_data.checks import Option
from viscy_data.segmentation.dataset import SLICE, SegmentationDataset
from viscy_data.stores import read_fovs

__all__ = ["SegmentationDataModule"]


class SegmentationDataModule(StagedDataModule):
    """Frames of predicted and of true labels, for :meth:`lightning.pytorch.Trainer.test`.

    Batches hold ``pred`` and ``target`` (B, Y, X) int16, ``position_idx`` and ``time_idx`` (B,).

    Parameters
    ----------
    pred_dataset, target_dataset : str or Path
        HCS OME-Zarr stores with FOVs of the same names.
    pred_channel, target_channel, pred_z_slice, target_z_slice
        See :class:`~viscy_data.segmentation.SegmentationDataset`.
    batch_size : int
        Frames per batch of each rank; FOVs of different size need 1.
    num_workers : int
        Processes that read; 0 reads in a background thread.

    Raises
    ------
    InputError
        For options out of range; at set-up as :class:`~viscy_data.segmentation.SegmentationDataset`.
    NotImplementedError
        At set-up for another stage than ``test``.
    """

    stages = ("test",)

    def __init__(
        self,
        pred_dataset: str | Path,
        target_dataset: str | Path,
        pred_channel: str,
        target_channel: str,
        pred_z_slice: int | slice,
        target_z_slice: int | slice,
        batch_size: int,
        num_workers: int,
    ) -> None:
        slices = {"pred_z_slice": pred_z_slice, "target_z_slice": target_z_slice}
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            options=[Option(name, z, isinstance(z, int | slice), SLICE) for name, z in slices.items()],
        )
        self.pred_dataset, self.target_dataset = pred_dataset, target_dataset
        self._choices = {"pred_channel": pred_channel, "target_channel": target_channel, **slices}

    def testing_dataset(self) -> SegmentationDataset:
        """Pair the frames of both plates."""
        return SegmentationDataset(read_fovs(self.pred_dataset), read_fovs(self.target_dataset), **self._choices)
