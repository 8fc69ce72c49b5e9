"""Cut-out tracks for Lightning: which files train, validate and are predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from monai.transforms import Compose, MapTransform

from viscy_data.batches.stages import StagedDataModule
from viscy_data.batches.transform_checks import check_keys, check_transforms
from viscy_data.cell_division_triplet.dataset import CellDivisionTripletDataset
from viscy_data.cell_division_triplet.npy_tracks import NpyTracks
from viscy_data.checks import Option, is_count, is_names, is_number, is_pair
from viscy_data.errors import InputError, MissingInputError, raise_all

__all__ = ["CellDivisionTripletDataModule"]


class CellDivisionTripletDataModule(StagedDataModule):
    """Triplets from a folder of tracks that were cut out, one NPY file (T, C, Y, X) each.

    Batches hold ``anchor``, ``positive`` and ``negative``, (B, C, 1, Y, X) float32; in prediction ``anchor`` and
    ``index`` (``fov_name``: the name of the file, ``id``: the frame).

    Parameters
    ----------
    data_path : str or Path
        Folder of the files.
    source_channel : str or sequence of str
        ``bf``, ``h2b`` or numbers, which are also the keys that the transforms see.
    final_yx_patch_size : tuple of int, default (64, 64)
        Height and width of the central part that is kept after the transforms.
    split_ratio : float, default 0.8
        Share of the files for training. Which ones is a function of ``seed`` and their names.
    batch_size : int, default 16
        Triplets per batch of each rank.
    num_workers : int, default 8
        Processes that read; 0 reads in a background thread. Batches are the same for any number.
    normalizations, augmentations : sequence of dictionary transforms, default ()
        Called on ``{channel: (1, 1, Y, X)}`` of each patch. Augmentations are applied in training, and in validation
        with ``augment_validation``; never to anchors whose positive shows the same frame.
    augment_validation : bool, default True
    time_interval, return_negative, output_2d
        See :class:`CellDivisionTripletDataset`.
    persistent_workers, prefetch_factor, pin_memory
        See :class:`torch.utils.data.DataLoader`; the first two when there are workers.
    seed : int, default 0
        Of the split, the order of training, negatives and augmentation.

    Raises
    ------
    InputError
        If options are out of range; at set-up if there are no tracks, or files that are none.
    """

    stages = ("fit", "validate", "predict")

    def __init__(
        self,
        data_path: str | Path,
        source_channel: str | Sequence[str],
        final_yx_patch_size: tuple[int, int] = (64, 64),
        split_ratio: float = 0.8,
        batch_size: int = 16,
        num_workers: int = 8,
        normalizations: Sequence[MapTransform] | None = None,
        augmentations: Sequence[MapTransform] | None = None,
        augment_validation: bool = True,
        time_interval: Literal["any"] | int = "any",
        return_negative: bool = True,
        output_2d: bool = False,
        persistent_workers: bool = False,
        prefetch_factor: int | None = None,
        pin_memory: bool = False,
        *,
        seed: int = 0,
    ) -> None:
        channels = [source_channel] if isinstance(source_channel, str) else source_channel
        size = final_yx_patch_size
        size_holds = is_pair(size) and all(is_count(length, 1) for length in size)
        interval_holds = time_interval == "any" or is_count(time_interval)
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            augment_validation=augment_validation,
            loader_options={
                "persistent_workers": persistent_workers,
                "prefetch_factor": prefetch_factor,
                "pin_memory": pin_memory,
            },
            options=[
                *check_transforms(normalizations=normalizations, augmentations=augmentations),
                Option("source_channel", source_channel, is_names(channels) and len(channels) > 0, "different names"),
                Option(
                    "final_yx_patch_size", final_yx_patch_size, size_holds, "[height, width] in pixels, more than 0"
                ),
                Option("split_ratio", split_ratio, is_number(split_ratio) and 0 < split_ratio < 1, "between 0 and 1"),
                Option("time_interval", time_interval, interval_holds, "a number of frames, 0 or more, or 'any'"),
            ],
        )
        self.data_path, self.source_channel = Path(data_path), list(channels)
        self.split_ratio, self.time_interval = split_ratio, time_interval
        self.normalizations, self.augmentations = list(normalizations or ()), list(augmentations or ())
        raise_all(check_keys(type(self).__name__, [*self.normalizations, *self.augmentations], self.source_channel))
        self._dataset_options = {
            "time_interval": time_interval,
            "return_negative": return_negative,
            "output_2d": output_2d,
            "final_yx_patch_size": tuple(final_yx_patch_size),
            "seed": seed,
        }

    def fit_datasets(self) -> tuple[CellDivisionTripletDataset, CellDivisionTripletDataset]:
        """Split the files."""
        paths = {path.stem: path for path in self._files()}
        train, val = (
            [paths[track.name] for track in side]
            for side in self.split_fovs(NpyTracks(list(paths.values())).fovs, self.split_ratio, str(self.data_path))
        )
        return self._dataset(train, augmented=True), self._dataset(val, augmented=self.augment_validation)

    def prediction_dataset(self) -> CellDivisionTripletDataset:
        """Take every frame of every track, only normalised."""
        return self._dataset(self._files(), augmented=False, fit=False)

    def _dataset(self, paths: Sequence[Path], *, augmented: bool, **options: Any) -> CellDivisionTripletDataset:
        plain = Compose(self.normalizations)
        other = Compose([*self.normalizations, *self.augmentations]) if augmented else plain
        # An anchor whose positive shows the same frame is the view that stays as it is.
        anchor = plain if self.time_interval in ("any", 0) else other
        return CellDivisionTripletDataset(
            paths, self.source_channel, anchor, other, other, **self._dataset_options, **options
        )

    def _files(self) -> list[Path]:
        if not self.data_path.is_dir():
            raise MissingInputError(str(self.data_path), found="no folder", expected="a folder of NPY files")
        # Names with a leading dot are left by file managers and unfinished writes.
        files = sorted(path for path in self.data_path.glob("*.npy") if not path.name.startswith("."))
        if not files:
            raise InputError(str(self.data_path), found="no .npy file", expected="one per track, (T, C, Y, X)")
        return files
