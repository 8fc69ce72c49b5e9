"""What holds for every data module: the same batches for any number of workers and ranks, and after a resumption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from monai.transforms import MapTransform, Randomizable, RandSpatialCropSamplesd, Transform

from viscy_data import (
    CachedConcatDataModule,
    CachedOmeZarrDataModule,
    CellDivisionTripletDataModule,
    ClassificationDataModule,
    CombinedDataModule,
    ConcatDataModule,
    HCSDataModule,
    TripletDataModule,
)
from viscy_data.stores import update_attributes
from viscy_data.testing.encoding import Encoding, write_encoded_plate
from viscy_data.tracks import write_tracks

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]

N_FRAMES, EXTENT, FOVS = 4, 32, ["A/1/0", "A/1/1", "A/1/2"]
Factory = Callable[..., LightningDataModule]


class Shift(Randomizable, Transform):
    """Add one random number to an image."""

    def __call__(self, image):
        return image + self.R.uniform(1, 1e6)


class Shiftd(MapTransform, Randomizable):
    """Add one random number to every image of a sample."""

    def __call__(self, data):
        return {**data, **{key: data[key] + self.R.uniform(1, 1e6) for key in self.keys}}


class Center(MapTransform):
    """Subtract the mean of the FOV."""

    level = "fov_statistics"

    def __call__(self, data):
        means = {key: data["norm_meta"][key][self.level]["mean"] for key in self.keys}
        return {**data, **{key: data[key] - mean.view(-1, *[1] * (data[key].ndim - 1)) for key, mean in means.items()}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A plate of encoded pixels, with annotations of two cells per FOV and frame; and tracks that were cut out."""
    folder = tmp_path_factory.mktemp("contract")
    code = Encoding(n_plates=1, n_fovs=len(FOVS), shape=(N_FRAMES, 1, 1, EXTENT, EXTENT))
    write_encoded_plate(folder / "images.zarr", code, 0, FOVS, ["Phase"])
    places = [(0, 3, 4), (1, 20, 30)]
    for fov in FOVS:
        update_attributes(
            folder / "images.zarr", fov, "normalization", {"Phase": {"fov_statistics": {"mean": 0.0, "std": 1.0}}}
        )
    rows = [(fov, track, t, y, x) for fov in FOVS for t in range(N_FRAMES) for track, y, x in places]
    table = pd.DataFrame(rows, columns=["fov_name", "track_id", "t", "y", "x"])
    for fov, own in table.groupby("fov_name"):
        write_tracks(own.drop(columns="fov_name"), folder / "tracks" / fov / "tracks.csv")
    table.assign(id=range(len(rows)), infection_state=table["track_id"]).to_csv(folder / "labels.csv", index=False)
    (folder / "npy").mkdir()
    for number in range(5):
        np.save(folder / "npy" / f"{number}.npy", np.random.default_rng(number).random((number + 2, 1, 6, 6)))
    return folder


def classification(folder, num_workers: int = 0) -> ClassificationDataModule:
    return ClassificationDataModule(
        image_path=folder / "images.zarr",
        annotation_path=folder / "labels.csv",
        val_fovs=["A/1/2"],
        channel_name="Phase",
        z_range=(0, 1),
        train_exclude_timepoints=[],
        train_transforms=[Shift()],
        val_transforms=[Shift()],
        initial_yx_patch_size=(8, 8),
        batch_size=4,
        num_workers=num_workers,
    )


def cell_division(folder, num_workers: int = 0) -> CellDivisionTripletDataModule:
    return CellDivisionTripletDataModule(
        folder / "npy", "bf", (4, 4), 0.7, batch_size=3, num_workers=num_workers, augmentations=[Shiftd(["bf"])]
    )


def triplets(folder, num_workers: int = 0) -> TripletDataModule:
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
        normalizations=[Center(["Phase"])],
        augmentations=[Shiftd(["Phase"])],
        time_interval=1,
    )


def concatenated(folder, num_workers: int = 0) -> ConcatDataModule:
    return ConcatDataModule([triplets(folder, num_workers), triplets(folder, num_workers)])


def concatenated_windows(folder, num_workers: int = 0) -> ConcatDataModule:
    options = {"yx_patch_size": (8, 8), "split_ratio": 0.7, "batch_size": 4, "num_workers": num_workers}
    options["augmentations"] = [RandSpatialCropSamplesd(["Phase"], (-1, 12, 12), num_samples=2, random_size=False)]
    return ConcatDataModule([HCSDataModule(folder / "images.zarr", "Phase", "Phase", 1, **options) for _ in range(2)])


def cached(folder, num_workers: int = 0) -> CachedConcatDataModule:
    options = {"pin_memory": False, "scratch_dir": folder / "scratch", "preprocess_transforms": [Center(["Phase"])]}
    transforms = [[], [], [Shiftd(["Phase"])], []]
    frames = [
        CachedOmeZarrDataModule(folder / "images.zarr", "Phase", 2, num_workers, 0.7, *transforms, **options)
        for _ in range(2)
    ]
    return CachedConcatDataModule(frames)


def combined(folder, num_workers: int = 0) -> CombinedDataModule:
    return CombinedDataModule([classification(folder, num_workers), cell_division(folder, num_workers)])


MODULES: dict[str, Factory] = {
    "classification": classification,
    "cell_division": cell_division,
    "concatenated": concatenated,
    "concatenated_windows": concatenated_windows,
    "cached": cached,
    "combined": combined,
}
PREDICTING = ["classification", "cell_division"]
SHARED_ORDER = ["classification", "cell_division", "concatenated", "concatenated_windows"]
"""Whose ranks share the batches of a lone process; the others give each rank a part of its own."""


@pytest.fixture(params=MODULES)
def make(request, folder) -> Factory:
    return lambda **options: MODULES[request.param](folder, **options)


def image(batch: Any) -> torch.Tensor:
    """The last image of a batch: the one that most is random about."""
    if isinstance(batch, dict):
        batch = [value for value in batch.values() if isinstance(value, torch.Tensor)][::-1]
    return batch if isinstance(batch, torch.Tensor) else image(batch[0])


class Recorder(LightningModule):
    """Keep the batches that come; perhaps ask for the number of steps before a checkpoint is read."""

    def __init__(self, asks_for_steps: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[torch.Tensor]] = {"train": [], "val": [], "predict": []}
        self.asks_for_steps = asks_for_steps

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(image(batch).clone())
        return self.weight * image(batch).mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen["val"].append(image(batch).clone())

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen["predict"].append(image(batch).clone())
        return 0

    def configure_optimizers(self):
        if self.asks_for_steps:
            assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stop(Callback):
    def __init__(self, path, after):
        self.path, self.after = path, after

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if len(module.seen["train"]) == self.after:
            trainer.save_checkpoint(self.path)
            raise SystemExit(1)


def make_trainer(**options) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"max_epochs": 2, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    return Trainer(**quiet | options)


@contextmanager
def as_rank(monkeypatch, data: LightningDataModule, size: int, rank: int) -> Iterator[None]:
    """Make a data module believe that it is one of several processes."""
    data.trainer = make_trainer()
    with monkeypatch.context() as patch:
        patch.setattr(type(data.trainer), "world_size", size)
        patch.setattr(type(data.trainer), "global_rank", rank)
        yield


def assert_equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected) > 0
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_epochs_differ_in_training_and_not_in_validation(make):
    model, data = Recorder(), make()
    make_trainer().fit(model, data)
    n_train, n_val = len(model.seen["train"]) // 2, len(model.seen["val"]) // 2
    assert n_train > 1
    assert not torch.equal(model.seen["train"][0], model.seen["train"][n_train])
    assert_equal(model.seen["val"][n_val:], model.seen["val"][:n_val])


@pytest.mark.slow
def test_batches_do_not_depend_on_the_number_of_workers(make):
    epochs = []
    for num_workers in (0, 2):
        data = make(num_workers=num_workers)
        data.setup("fit")
        epochs.append([image(batch) for batch in data.train_dataloader()])
    assert_equal(epochs[1], epochs[0])


@pytest.mark.parametrize("asks_for_steps", [False, True])
@pytest.mark.parametrize("killed_after", [1, 5])
def test_a_run_resumed_in_mid_epoch_goes_on_as_an_unbroken_one(make, tmp_path, killed_after, asks_for_steps):
    whole, killed, resumed = (Recorder(asks_for_steps) for _ in range(3))
    make_trainer().fit(whole, make())
    path = tmp_path / "killed.ckpt"
    with pytest.raises(SystemExit):
        make_trainer(callbacks=[Stop(path, killed_after)]).fit(killed, make())
    make_trainer().fit(resumed, make(), ckpt_path=path, weights_only=True)
    assert_equal(resumed.seen["train"], whole.seen["train"][killed_after:])


@pytest.mark.parametrize("name", SHARED_ORDER)
def test_ranks_share_the_order_of_a_lone_process(folder, name, monkeypatch):
    orders = {}
    for size, rank in [(1, 0), (2, 0), (2, 1)]:
        data = MODULES[name](folder)
        with as_rank(monkeypatch, data, size, rank):
            data.setup("fit")
            orders[size, rank] = [image(batch) for batch in data.train_dataloader()]
    dealt = [batch for turn in zip(orders[2, 0], orders[2, 1], strict=True) for batch in turn]
    assert_equal(dealt[: len(orders[1, 0])], orders[1, 0])


@pytest.mark.parametrize("name", PREDICTING)
def test_ranks_predict_everything_once_in_order(folder, name, monkeypatch):
    whole, parts = Recorder(), []
    make_trainer().predict(whole, MODULES[name](folder), return_predictions=False)
    for rank in range(2):
        data = MODULES[name](folder)
        with as_rank(monkeypatch, data, 2, rank):
            data.setup("predict")
            parts += [image(batch) for batch in data.predict_dataloader()]
    assert torch.equal(torch.cat(parts), torch.cat(whole.seen["predict"]))


def test_a_concatenation_keeps_the_split_of_its_checkpoint(folder):
    def trained_on(seed: int) -> tuple[ConcatDataModule, list[str]]:
        member = CellDivisionTripletDataModule(folder / "npy", "bf", (4, 4), 0.7, num_workers=0, seed=seed)
        data = ConcatDataModule([member])
        data.setup("fit")
        return data, files(data)

    def files(data: ConcatDataModule) -> list[str]:
        return [fov.name for fov in data.train_dataset.datasets[0].tracks.fovs]

    first, kept = trained_on(0)
    resumed, other = next(found for found in map(trained_on, range(1, 20)) if found[1] != kept)
    with pytest.warns(UserWarning, match="whose split is kept"):
        resumed.load_state_dict(first.state_dict())
    assert files(resumed) == kept != other
