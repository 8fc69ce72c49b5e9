"""The data module of predicted segmentations beside true ones."""

from __future__ import annotations

from pathlib import Path

from viscy_data.batches.stages import StagedDataModule
from viscy_data.checks import Option
from viscy_data.segmentation.dataset import SLICE, SegmentationDataset
from viscy_data.stores import DEFAULT_STORAGE, StoragePolicy

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
    storage : StoragePolicy, default ``DEFAULT_STORAGE``
        What to do about FOVs that cannot be read (``bad_fovs: leave_out`` goes on without them), and about chunks that
        are not stored (``missing_chunks: refuse``), see :class:`viscy_data.stores.StoragePolicy`.
        A FOV that is left out in one store is not read in the other either.

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
        *,
        storage: StoragePolicy = DEFAULT_STORAGE,
    ) -> None:
        slices = {"pred_z_slice": pred_z_slice, "target_z_slice": target_z_slice}
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            storage=storage,
            options=[Option(name, z, isinstance(z, int | slice), SLICE) for name, z in slices.items()],
        )
        self.pred_dataset, self.target_dataset = pred_dataset, target_dataset
        self._choices = {"pred_channel": pred_channel, "target_channel": target_channel, **slices}

    def testing_dataset(self) -> SegmentationDataset:
        """Pair the frames of both plates."""
        both = [self.read_fovs(store) for store in (self.pred_dataset, self.target_dataset)]
        left_out = {key.name for key in self.left_out_fovs}
        pred, target = ([fov for fov in fovs if fov.name not in left_out] for fovs in both)
        return SegmentationDataset(pred, target, **self._choices)
