"""LIVECell for Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.transforms import Compose, MapTransform

from viscy_data.errors import InputError, raise_all
from viscy_data.gpu_aug import GPUTransformDataModule
from viscy_data.livecell.annotations import read_annotations
from viscy_data.livecell.datasets import LiveCellDataset, LiveCellTestDataset

__all__ = ["LiveCellDataModule"]


class LiveCellDataModule(GPUTransformDataModule):
    """Images to train and validate on, and images with outlined cells to test.

    Batches of training and validation are what the transforms make of ``{"source": (B, 1, 1, Y, X)}``; of tests also
    ``target``, the image again, and per image ``detections`` and ``file_name``.

    Parameters
    ----------
    train_val_images, test_images : str or Path, optional
        Folders of TIFF images; a stage needs its own.
    train_annotations, val_annotations, test_annotations : str or Path, optional
        COCO files, which say what images there are.
    train_cpu_transforms, val_cpu_transforms, train_gpu_transforms, val_gpu_transforms : sequence of transforms
        See :class:`~viscy_data.gpu_aug.GPUTransformDataModule`; the key is ``source``.
    test_transforms : sequence of transforms, default ()
        Of one test sample.
    batch_size : int, default 16
    num_workers : int, default 8
    pin_memory : bool, default True
    seed : int, default 0
        Of the order of training, and augmentation.

    Raises
    ------
    InputError
        If a folder or file that is given does not exist, or one that a stage needs is not given.
    """

    stages = ("fit", "validate", "test")

    def __init__(
        self,
        train_val_images: str | Path | None = None,
        test_images: str | Path | None = None,
        train_annotations: str | Path | None = None,
        val_annotations: str | Path | None = None,
        test_annotations: str | Path | None = None,
        train_cpu_transforms: Sequence[MapTransform] = (),
        val_cpu_transforms: Sequence[MapTransform] = (),
        train_gpu_transforms: Sequence[MapTransform] = (),
        val_gpu_transforms: Sequence[MapTransform] = (),
        test_transforms: Sequence[MapTransform] = (),
        batch_size: int = 16,
        num_workers: int = 8,
        pin_memory: bool = True,
        *,
        prefetch_factor: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size,
            num_workers,
            seed,
            pin_memory,
            prefetch_factor,
            transforms={
                "train_cpu_transforms": train_cpu_transforms,
                "val_cpu_transforms": val_cpu_transforms,
                "train_gpu_transforms": train_gpu_transforms,
                "val_gpu_transforms": val_gpu_transforms,
                "test_transforms": test_transforms,
            },
        )
        folders = {"train_val_images": train_val_images, "test_images": test_images}
        files = {
            "train_annotations": train_annotations,
            "val_annotations": val_annotations,
            "test_annotations": test_annotations,
        }
        self._paths = {name: Path(path) for name, path in (folders | files).items() if path is not None}
        there = {name: path.is_dir() if name in folders else path.is_file() for name, path in self._paths.items()}
        expected = {name: "a folder" if name in folders else "a file" for name in there}
        raise_all(
            InputError(type(self).__name__, field=name, found=str(path), expected=f"{expected[name]} that there is")
            for name, path in self._paths.items()
            if not there[name]
        )

    def fit_datasets(self) -> tuple[LiveCellDataset, LiveCellDataset]:
        """Read the images that the annotations list."""
        train = self._images("train_annotations", self.train_cpu_transforms)
        return train, self.evaluation_dataset()

    def evaluation_dataset(self) -> LiveCellDataset:
        """Read the images to validate on."""
        return self._images("val_annotations", self.val_cpu_transforms)

    def testing_dataset(self) -> LiveCellTestDataset:
        """Read images with their outlines."""
        where = self._path("test_images"), self._listed("test_transforms"), self._path("test_annotations")
        return LiveCellTestDataset(*where, load_target=True, load_labels=True)

    def _images(self, annotations: str, transform: Compose) -> LiveCellDataset:
        folder = self._path("train_val_images")
        names = [image.file_name for image in read_annotations(self._path(annotations))]
        return LiveCellDataset([folder / name for name in names], transform, seed=self.seed)

    def _path(self, name: str) -> Path:
        if name not in self._paths:
            raise InputError(type(self).__name__, field=name, found="none", expected="a path, which this stage needs")
        return self._paths[name]
