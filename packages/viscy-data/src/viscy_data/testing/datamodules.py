"""One small instance of every data module of this package, for what has to hold for all of them.

>>> import tempfile
>>> folder = write_data(tempfile.mkdtemp())
>>> data = DATA_MODULES["triplets"](folder)
>>> data.setup("fit")
>>> next(iter(data.train_dataloader()))["anchor"].shape  # with the margin that augmentation needs
torch.Size([3, 1, 1, 12, 12])
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from monai.transforms import MapTransform, Randomizable, RandSpatialCropSamplesd, Transform

from viscy_data import (
    CachedConcatDataModule,
    CachedOmeZarrDataModule,
    CellDivisionTripletDataModule,
    ClassificationDataModule,
    CombinedDataModule,
    ConcatDataModule,
    CTMCv1DataModule,
    HCSDataModule,
    LiveCellDataModule,
    MmappedDataModule,
    SegmentationDataModule,
    TripletDataModule,
)
from viscy_data.optional import require
from viscy_data.stores import PlateWriter, update_attributes
from viscy_data.synthetic import write_ctmc, write_livecell
from viscy_data.testing.encoding import Encoding, write_encoded_plate
from viscy_data.tracks import write_tracks

__all__ = ["DATA_MODULES", "write_data"]

N_FRAMES, EXTENT, FOVS = 4, 32, ["A/1/0", "A/1/1", "A/1/2"]


class _Shift(Randomizable, Transform):
    """Add one random number to an image."""

    def __call__(self, image: Any) -> Any:
        return image + self.R.uniform(1, 1e6)


class _Shiftd(MapTransform, Randomizable):
    """Add one random number to every image of a sample."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, **{key: data[key] + self.R.uniform(1, 1e6) for key in self.keys}}


class _Center(MapTransform):
    """Subtract the mean of the FOV."""

    level = "fov_statistics"

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        means = {key: data["norm_meta"][key][self.level]["mean"] for key in self.keys}
        return {**data, **{key: data[key] - mean.view(-1, *[1] * (data[key].ndim - 1)) for key, mean in means.items()}}


def write_data(folder: str | Path) -> Path:
    """Write what the data modules read: plates, tables of two cells per FOV and frame, cut-out tracks, public sets.

    LIVECell's images need the extra ``livecell``.
    """
    folder = Path(folder)
    pandas = require("pandas", extra="triplet")
    code = Encoding(n_plates=1, n_fovs=len(FOVS), shape=(N_FRAMES, 1, 1, EXTENT, EXTENT))
    store = write_encoded_plate(folder / "images.zarr", code, 0, FOVS, ["Phase"])
    for fov in FOVS:
        update_attributes(store, fov, "normalization", {"Phase": {"fov_statistics": {"mean": 0.0, "std": 1.0}}})
    places = [(0, 3, 4), (1, 20, 30)]
    rows = [(fov, track, t, y, x) for fov in FOVS for t in range(N_FRAMES) for track, y, x in places]
    table = pandas.DataFrame(rows, columns=["fov_name", "track_id", "t", "y", "x"])
    for fov, own in table.groupby("fov_name"):
        write_tracks(own.drop(columns="fov_name"), folder / "tracks" / fov / "tracks.csv")
    table.assign(id=range(len(rows)), infection_state=table["track_id"]).to_csv(folder / "labels.csv", index=False)
    (folder / "npy").mkdir()
    for number in range(5):
        np.save(folder / "npy" / f"{number}.npy", np.random.default_rng(number).random((number + 2, 1, 6, 6)))
    for seed, name in enumerate(["predicted.zarr", "true.zarr"]):
        with PlateWriter(folder / name, ["nuclei"]) as plate:
            plate.write("A/1/0", np.random.default_rng(seed).integers(0, 3, (5, 1, 1, 16, 16)).astype(np.uint16))
    if find_spec("tifffile") is not None:
        write_livecell(folder / "livecell", n_images=(12, 3, 3), size=(16, 16))
    write_ctmc(folder / "ctmc_train.zarr", size=(16, 16), seed=1)
    write_ctmc(folder / "ctmc_val.zarr", size=(16, 16), seed=2)
    return folder


def _classification(folder: Path, num_workers: int = 0, **given: Any) -> ClassificationDataModule:
    return ClassificationDataModule(
        image_path=folder / "images.zarr",
        annotation_path=folder / "labels.csv",
        val_fovs=["A/1/2"],
        channel_name="Phase",
        z_range=(0, 1),
        train_exclude_timepoints=[],
        train_transforms=[_Shift()],
        val_transforms=[_Shift()],
        initial_yx_patch_size=(8, 8),
        batch_size=4,
        num_workers=num_workers,
        **given,
    )


def _cell_division(folder: Path, num_workers: int = 0) -> CellDivisionTripletDataModule:
    options = {"batch_size": 3, "num_workers": num_workers, "augmentations": [_Shiftd(["bf"])]}
    return CellDivisionTripletDataModule(folder / "npy", "bf", (4, 4), 0.7, **options)


def _triplets(folder: Path, num_workers: int = 0, **given: Any) -> TripletDataModule:
    return TripletDataModule(
        folder / "images.zarr",
        folder / "tracks",
        "Phase",
        (0, 1),
        (12, 12),
        (8, 8),
        split_ratio=0.7,
        batch_size=3,
        num_workers=num_workers,
        normalizations=[_Center(["Phase"])],
        augmentations=[_Shiftd(["Phase"])],
        time_interval=1,
        **given,
    )


def _windows(folder: Path, num_workers: int = 0, **given: Any) -> HCSDataModule:
    options = {"yx_patch_size": (8, 8), "split_ratio": 0.7, "batch_size": 4, "num_workers": num_workers}
    options["augmentations"] = [RandSpatialCropSamplesd(["Phase"], (-1, 12, 12), num_samples=2, random_size=False)]
    return HCSDataModule(folder / "images.zarr", "Phase", "Phase", 1, **options, **given)


def _frames(folder: Path, num_workers: int = 0, **given: Any) -> CachedOmeZarrDataModule:
    options = {"pin_memory": False, "scratch_dir": folder / "scratch", "preprocess_transforms": [_Center(["Phase"])]}
    transforms = [[], [], [_Shiftd(["Phase"])], []]
    return CachedOmeZarrDataModule(
        folder / "images.zarr", "Phase", 2, num_workers, 0.7, *transforms, **options, **given
    )


def _mapped(folder: Path, num_workers: int = 0, **given: Any) -> MmappedDataModule:
    options = {"pin_memory": False, "scratch_dir": folder / "scratch"}
    transforms = [[_Center(["Phase"])], [_Shiftd(["Phase"])], [], [], []]
    return MmappedDataModule(folder / "images.zarr", "Phase", 2, num_workers, 0.7, *transforms, **options, **given)


def _ctmc(folder: Path, num_workers: int = 0, **given: Any) -> CTMCv1DataModule:
    options = {"pin_memory": False, "scratch_dir": folder / "scratch", "val_subsample_ratio": 3, "batch_size": 2}
    paths, transforms = (folder / "ctmc_train.zarr", folder / "ctmc_val.zarr"), [[_Shiftd(["DIC"])], [], [], []]
    return CTMCv1DataModule(*paths, *transforms, num_workers=num_workers, **options, **given)


def _livecell(folder: Path, num_workers: int = 0) -> LiveCellDataModule:
    paths = {f"{part}_annotations": folder / f"livecell/livecell_coco_{part}.json" for part in ("train", "val", "test")}
    paths |= {f"{part}_images": folder / f"livecell/images/livecell_{part}_images" for part in ("train_val", "test")}
    options = {"train_cpu_transforms": [_Shiftd(["source"])], "batch_size": 2, "pin_memory": False}
    return LiveCellDataModule(**paths, num_workers=num_workers, **options)


def _segmentation(folder: Path, num_workers: int = 0, **given: Any) -> SegmentationDataModule:
    paths = folder / "predicted.zarr", folder / "true.zarr"
    return SegmentationDataModule(*paths, "nuclei", "nuclei", 0, 0, batch_size=2, num_workers=num_workers, **given)


DATA_MODULES: dict[str, Callable[..., LightningDataModule]] = {
    "triplets": _triplets,
    "windows": _windows,
    "frames": _frames,
    "mapped": _mapped,
    "ctmc": _ctmc,
    "livecell": _livecell,
    "classification": _classification,
    "cell_division": _cell_division,
    "segmentation": _segmentation,
    "concatenated": lambda folder, n=0: ConcatDataModule([_triplets(folder, n), _triplets(folder, n)]),
    "concatenated_windows": lambda folder, n=0: ConcatDataModule([_windows(folder, n), _windows(folder, n)]),
    "concatenated_frames": lambda folder, n=0: CachedConcatDataModule([_frames(folder, n), _frames(folder, n)]),
    "combined": lambda folder, n=0: CombinedDataModule([_classification(folder, n), _cell_division(folder, n)]),
}
"""``(folder, num_workers=0)`` to a data module that reads what :func:`write_data` has written there.

Those of FOVs take further arguments of their constructor by name.
"""
