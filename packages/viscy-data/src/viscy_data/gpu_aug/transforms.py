"""Data modules with two sets of transforms: of single samples in the workers, of batches on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.transforms import Compose
from torch.utils.data import Dataset, Sampler

from viscy_data.batches.samples import SampleDataset, collate_samples
from viscy_data.batches.stages import Pipeline, StagedDataModule
from viscy_data.batches.transform_checks import check_statistics, check_transforms
from viscy_data.checks import Option
from viscy_data.errors import InputError
from viscy_data.loaders import BatchLoader
from viscy_data.stores import DEFAULT_STORAGE, StoragePolicy

__all__ = ["DeviceTransforms", "GPUTransformDataModule"]


class GPUTransformDataModule(StagedDataModule):
    """What data modules with CPU and GPU transforms share.

    CPU transforms see one sample, ``{channel: (1, Z, Y, X), ...}``, and may return several patches of it. GPU
    transforms see the batch, ``{channel: (B, 1, Z, Y, X), ...}``, after it has come to the device; they may return
    samples again, which are collated. Tests and prediction use neither.

    A subclass makes its datasets of :attr:`train_cpu_transforms` and :attr:`val_cpu_transforms`; any dataset of single
    samples will do. It hands its lists of transforms over, or overrides the four properties.

    Parameters
    ----------
    batch_size : int, default 1
        Samples per batch, before the CPU transforms make patches of them.
    num_workers, seed, storage, options
        As for :class:`~viscy_data.batches.StagedDataModule`.
    pin_memory, prefetch_factor
        See :class:`torch.utils.data.DataLoader`. Loaders go by the attributes.
    transforms : mapping of str to sequence of transforms, optional
        The lists by the names of the properties.
    """

    stages = ("fit", "validate")
    drop_last = False

    def __init__(
        self,
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        pin_memory: bool = False,
        prefetch_factor: int | None = None,
        *,
        transforms: Mapping[str, Sequence[Any]] | None = None,
        storage: StoragePolicy = DEFAULT_STORAGE,
        options: Sequence[Option] = (),
    ) -> None:
        checks = check_transforms(**(transforms or {}))
        super().__init__(
            batch_size=batch_size, num_workers=num_workers, seed=seed, storage=storage, options=[*checks, *options]
        )
        self.pin_memory, self.prefetch_factor = pin_memory, prefetch_factor
        self._transforms = {name: list(listed or ()) for name, listed in (transforms or {}).items()}

    @property
    def train_cpu_transforms(self) -> Compose:
        """Transforms of a training sample."""
        return self._listed("train_cpu_transforms")

    @property
    def val_cpu_transforms(self) -> Compose:
        """Transforms of a validation sample."""
        return self._listed("val_cpu_transforms")

    @property
    def train_gpu_transforms(self) -> Compose:
        """Transforms of a training batch."""
        return self._listed("train_gpu_transforms")

    @property
    def val_gpu_transforms(self) -> Compose:
        """Transforms of a validation batch."""
        return self._listed("val_gpu_transforms")

    def _listed(self, name: str) -> Compose:
        if name not in self._transforms:
            raise NotImplementedError(f"{type(self).__name__} does not say its {name}")
        return Compose(self._transforms[name])

    def make_pipeline(self) -> Pipeline:
        """Return the GPU transforms."""
        return DeviceTransforms(self.train_gpu_transforms, self.val_gpu_transforms)

    def check_dataset(self, dataset: Any) -> list[InputError]:
        """Say where statistics are missing that a transform needs."""
        if not hasattr(dataset, "missing_statistics"):
            return []
        listed = [transform for transforms in self._transforms.values() for transform in transforms]
        return check_statistics(dataset, listed)

    def has_images(self, batch: Any) -> bool:
        """Tell a batch of training or validation from an example input and from batches of tests."""
        testing = self.trainer is not None and (self.trainer.testing or self.trainer.predicting)
        return isinstance(batch, Mapping) and not testing

    def loader_options(self) -> dict[str, Any]:
        """Return what the attributes say."""
        return {"pin_memory": self.pin_memory, "prefetch_factor": self.prefetch_factor}

    def _loader(self, dataset: Dataset, batches: Sampler) -> BatchLoader:
        return super()._loader(dataset if isinstance(dataset, SampleDataset) else _Items(dataset), batches)


class DeviceTransforms:
    """The pipeline of training and validation batches.

    Parameters
    ----------
    train, val : Compose
        Their random numbers come from the seed that a batch carries.
    """

    def __init__(self, train: Compose, val: Compose) -> None:
        self._train, self._val = train, val

    def __call__(self, batch: Mapping[str, Any], *, training: bool, augment: bool) -> dict[str, Any]:
        """Return the transformed batch; samples, where a transform gives them, are collated."""
        batch = dict(batch)
        transform, seed = self._train if training else self._val, batch.pop("rng_seed", None)
        if seed is not None:
            transform.set_random_state(seed=seed)
        found = transform(batch)
        return collate_samples(found) if isinstance(found, list | tuple) else found


class _Items(Dataset):
    """Batches of a dataset of single samples, or of lists of patches."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, positions: Sequence[int]) -> dict[str, Any]:
        items = [self._dataset[position] for position in positions]
        return collate_samples([patch for item in items for patch in (item if isinstance(item, list) else [item])])
