"""Windows of a plate for Lightning: what trains, validates, is tested and predicted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Compose, MapTransform

from viscy_data.batches.stages import Pipeline, Stage, StagedDataModule
from viscy_data.batches.transform_checks import check_keys, check_statistics, check_transforms
from viscy_data.cache_room import max_cache_option
from viscy_data.checks import Option, is_count, is_names, is_number, is_pair
from viscy_data.errors import InputError, raise_all
from viscy_data.frame_cache import frame_cache, frame_folder
from viscy_data.gpu_aug.transforms import DeviceTransforms
from viscy_data.hcs.augmentations import patches_per_window, slices_to_read, without_keys
from viscy_data.select import fovs_named
from viscy_data.sliding_window import MaskTestDataset, SlidingWindowDataset
from viscy_data.store_copies import StoreCopy
from viscy_data.stores import DEFAULT_STORAGE, FovInfo, Source, StoragePolicy
from viscy_data.typing import ChannelMap
from viscy_data.volume_files import VolumeFiles

__all__ = ["HCSDataModule"]

_NAMES = "a name, or a list of different names"


class HCSDataModule(StagedDataModule):
    """Windows of slices of one plate, transformed one by one where they are read.

    Batches hold ``source`` and ``target``: (B, C, Z, Y, X) float32; ``index``: ``(images, time, z)`` of each patch, the
    image as ``/A/1/0/0``; ``norm_meta`` where the plate has statistics; in tests ``labels`` where there are masks.
    Prediction reads the source alone and every window once.

    Parameters
    ----------
    data_path : str, Path, or sequence of these
        HCS OME-Zarr store, single image, pattern of paths or list, see :func:`viscy_data.read_fovs`.
    source_channel, target_channel : str or sequence of str
        Channels by name, which are also the keys that the transforms see. Without a target (an empty list) batches
        have none, as for pre-training on the source.
    z_window_size : int
        Slices of a window. Training reads more where a ``RandAffined`` stretches z.
    split_ratio : float, default 0.8
        Share of the FOVs for training. Which ones is a function of ``seed`` and their names.
    batch_size : int, default 16
        Patches per batch; 1 in tests.
    num_workers : int, default 8
        Processes that read; 0 reads in a background thread. Batches are the same for any number.
    target_2d : bool, default False
        Keep the middle slice of the target only.
    yx_patch_size : tuple of int, default (256, 256)
        Height and width of the central part that training and validation keep. Tests and prediction see whole frames.
    normalizations, augmentations : sequence of dictionary transforms, optional
        Called with ``{channel: (1, Z, Y, X), "weight": first target, "norm_meta": ...}``, in training one after the
        other, otherwise the normalizations alone. Those that make several patches are allowed in training.
    val_augmentations : sequence of dictionary transforms, optional
        What validation sees after the normalizations: the same for a window in every epoch.
    gpu_augmentations, val_gpu_augmentations : sequence of dictionary transforms, optional
        What training and validation batches see last, on the device: ``{"source": (B, C, Z, Y, X), "target": ...}``.
    caching : bool, default False
        Copy the plate, or the images, to a local disk first and read them from there, see
        :class:`viscy_data.store_copies.StoreCopy`.
    ground_truth_masks : str or Path, optional
        See :class:`MaskTestDataset`.
    persistent_workers, prefetch_factor, pin_memory
        See :class:`torch.utils.data.DataLoader`; the first two when there are workers.
    array_key : str, optional
        Array of each FOV; by default the first that its metadata list, the full resolution.
    include_fov_names, exclude_fov_names : iterable of str, optional
        Use only these wells and FOVs, and leave those out, in all stages.
    mmap_preload : bool, default False
        Keep the frames to fit decoded on a local disk, float32, where each is read for the first time; windows are
        taken from memory-mapped files then, also by later runs.
    scratch_dir : str or Path, optional
        Where copies and frames are, in a folder of the user's own; the system's folder for temporary files by default.
    max_cache_gb : float, optional
        GiB that all kept copies in that folder may take: those that no process uses are removed to keep to it, see
        :func:`viscy_data.cache_room.reserve`. By default nothing is removed.
    seed : int, default 0
        Of the split, the order of training, and augmentation.
    storage : StoragePolicy, default ``DEFAULT_STORAGE``
        What to do about FOVs that cannot be read (``bad_fovs: leave_out`` goes on without them), and about chunks that
        are not stored (``missing_chunks: refuse``), see :class:`viscy_data.stores.StoragePolicy`.

    Raises
    ------
    InputError
        If options are out of range or do not fit together.
    """

    def __init__(
        self,
        data_path: Source,
        source_channel: str | Sequence[str],
        target_channel: str | Sequence[str],
        z_window_size: int,
        split_ratio: float = 0.8,
        batch_size: int = 16,
        num_workers: int = 8,
        target_2d: bool = False,
        yx_patch_size: tuple[int, int] = (256, 256),
        normalizations: Sequence[MapTransform] | None = None,
        augmentations: Sequence[MapTransform] | None = None,
        caching: bool = False,
        ground_truth_masks: str | Path | None = None,
        persistent_workers: bool = False,
        prefetch_factor: int | None = None,
        array_key: str | None = None,
        pin_memory: bool = False,
        *,
        val_augmentations: Sequence[MapTransform] | None = None,
        gpu_augmentations: Sequence[MapTransform] | None = None,
        val_gpu_augmentations: Sequence[MapTransform] | None = None,
        include_fov_names: Iterable[str] | None = None,
        exclude_fov_names: Iterable[str] | None = None,
        mmap_preload: bool = False,
        scratch_dir: str | Path | None = None,
        max_cache_gb: float | None = None,
        seed: int = 0,
        storage: StoragePolicy = DEFAULT_STORAGE,
    ) -> None:
        source, target = ([name] if isinstance(name, str) else name for name in (source_channel, target_channel))
        patch_holds = is_pair(yx_patch_size) and all(is_count(size, 1) for size in yx_patch_size)
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            storage=storage,
            loader_options={
                "pin_memory": pin_memory,
                "persistent_workers": persistent_workers,
                "prefetch_factor": prefetch_factor,
            },
            options=[
                *check_transforms(
                    normalizations=normalizations,
                    augmentations=augmentations,
                    val_augmentations=val_augmentations,
                    gpu_augmentations=gpu_augmentations,
                    val_gpu_augmentations=val_gpu_augmentations,
                ),
                Option("source_channel", source_channel, is_names(source) and len(source) > 0, _NAMES),
                Option("target_channel", target_channel, is_names(target), _NAMES),
                max_cache_option(max_cache_gb),
                Option("z_window_size", z_window_size, is_count(z_window_size, 1), "a whole number of at least 1"),
                Option("split_ratio", split_ratio, is_number(split_ratio) and 0 < split_ratio < 1, "between 0 and 1"),
                Option("yx_patch_size", yx_patch_size, patch_holds, "[height, width] in pixels, more than 0"),
            ],
        )
        self.data_path, self.array_key, self.caching = data_path, array_key, caching
        self.mmap_preload, self.scratch_dir, self.max_cache_gb = mmap_preload, scratch_dir, max_cache_gb
        self.source_channel, self.target_channel = list(source), list(target)
        self.z_window_size, self.target_2d = z_window_size, target_2d
        self.yx_patch_size, self.split_ratio = tuple(yx_patch_size), split_ratio
        self.normalizations, self.augmentations = list(normalizations or ()), list(augmentations or ())
        self.val_augmentations = list(val_augmentations or ())
        self.gpu_augmentations = list(gpu_augmentations or ())
        self.val_gpu_augmentations = list(val_gpu_augmentations or ())
        self.ground_truth_masks = ground_truth_masks
        self.include_fov_names, self.exclude_fov_names = include_fov_names, exclude_fov_names
        where = type(self).__name__
        self.train_patches_per_stack = patches_per_window(self.augmentations, batch_size, where)
        self.train_z_window_size = slices_to_read(self.augmentations, z_window_size, where)
        transforms = [*self.normalizations, *self.augmentations, *self.val_augmentations]
        on_device = [*self.gpu_augmentations, *self.val_gpu_augmentations]
        raise_all(
            [
                *check_keys(where, transforms, [*source, *target, "weight"]),
                *check_keys(where, on_device, ["source", "target"] if target else ["source"]),
            ]
        )

    @property
    def cache_path(self) -> Path:
        """Where the copy of the plate is, with ``caching``."""
        return self._copy().folder

    @property
    def maybe_cached_data_path(self) -> Source:
        """What is read: the plate, or its copy."""
        return self._copy().source if self.caching else self.data_path

    def prepare_data(self) -> None:
        """Copy the plate, with ``caching``: once per machine."""
        if self.caching:
            self._copy().make(self.max_cache_gb)

    def fit_datasets(self) -> tuple[SlidingWindowDataset, SlidingWindowDataset]:
        """Split the FOVs."""
        fovs = self._fovs()
        train, val = self.split_fovs(fovs, self.split_ratio, str(self.data_path))
        both = {
            "crop_size": (self.z_window_size, *self.yx_patch_size),
            "seeds_batches": bool(self.gpu_augmentations or self.val_gpu_augmentations),
            "kept_frames": self._kept_frames(fovs) if self.mmap_preload else None,
        }
        augmented = Compose([*self.normalizations, *self.augmentations])
        return (
            self._windows(train, augmented, z_window_size=self.train_z_window_size, **both),
            self._windows(val, Compose([*self.normalizations, *self.val_augmentations]), **both),
        )

    def testing_dataset(self) -> SlidingWindowDataset:
        """Read whole frames of all FOVs, with their masks where there are any."""
        if self.ground_truth_masks is None:
            return self._windows(self._fovs(), Compose(self.normalizations))
        masks = {"ground_truth_masks": self.ground_truth_masks}
        return self._windows(self._fovs(), Compose(self.normalizations), MaskTestDataset, **masks)

    def prediction_dataset(self) -> SlidingWindowDataset:
        """Read the source of all FOVs."""
        only_target = set(self.target_channel) - set(self.source_channel)
        transform = Compose(without_keys(self.normalizations, only_target))
        return self._windows(self._fovs(), transform, channels=ChannelMap(source=self.source_channel))

    def items_per_batch(self, stage: Stage) -> int:
        """Return the number of windows in a batch."""
        if stage == "fit":
            return max(1, self.batch_size // self.train_patches_per_stack)
        return 1 if stage == "test" else self.batch_size

    def check_dataset(self, dataset: SlidingWindowDataset) -> list[InputError]:
        """Say where statistics are missing, and frames that cannot be in one batch."""
        problems = check_statistics(dataset, self.normalizations)
        sizes = {fov.shape[3:] for fov in dataset.fovs}
        if dataset.crop_size is None and len(sizes) > 1 and dataset is self.predict_dataset and self.batch_size > 1:
            found = f"{self.batch_size}, but whole frames of the sizes {sorted(sizes)}"
            where, expected = type(self).__name__, "1 where frames differ in size"
            problems.append(InputError(where, field="batch_size", found=found, expected=expected))
        return problems

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Keep the middle slice of the target, with ``target_2d``."""
        if not (self.target_2d and self.has_images(batch) and "target" in batch):
            return batch
        middle = self.z_window_size // 2
        return batch | {"target": batch["target"][:, :, middle : middle + 1]}

    def make_pipeline(self) -> Pipeline:
        """Return the augmentations on the device."""
        return DeviceTransforms(Compose(self.gpu_augmentations), Compose(self.val_gpu_augmentations))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment on the device, in training and validation."""
        is_to_be = self.has_images(batch) and "rng_seed" in batch
        return super().on_after_batch_transfer(batch, dataloader_idx) if is_to_be else batch

    def _kept_frames(self, fovs: Sequence[FovInfo]) -> VolumeFiles:
        channels = list(dict.fromkeys([*self.source_channel, *self.target_channel]))
        folder = frame_folder(self.data_path, channels, self.array_key, scratch_dir=self.scratch_dir)
        return frame_cache(folder, fovs, len(channels), max_cache_gb=self.max_cache_gb)

    def _copy(self) -> StoreCopy:
        return StoreCopy(self.data_path, self.scratch_dir)

    def _fovs(self) -> list[FovInfo]:
        """List the FOVs that are used."""
        fovs = list(self.read_fovs(self.maybe_cached_data_path, array_key=self.array_key))
        known = {"where": str(self.data_path), "left_out": self.left_out_fovs}
        if self.include_fov_names is not None:
            fovs = fovs_named(fovs, list(self.include_fov_names), field="include_fov_names", **known)
        excluded = fovs_named(fovs, list(self.exclude_fov_names or ()), field="exclude_fov_names", **known)
        return [fov for fov in fovs if fov not in excluded]

    def _windows(
        self, fovs: Sequence[FovInfo], transform: Compose, kind: type = SlidingWindowDataset, **options: Any
    ) -> Any:
        channels = ChannelMap(source=self.source_channel, target=self.target_channel)
        settings = {"channels": channels, "z_window_size": self.z_window_size, "seed": self.seed} | options
        return kind(fovs, transform=transform if transform.transforms else None, **settings)
