"""The shared part of data modules, through a third and trivial one; and the border in every one of them."""

from __future__ import annotations

import json
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder
from monai.transforms import MapTransform, Randomizable

from viscy_data.batches import BatchDataModule, PatchDataset, TransformPipeline
from viscy_data.batches.record import described
from viscy_data.errors import InputError
from viscy_data.sampler import BatchPlan, FlexibleBatchSampler
from viscy_data.stores import PlateWriter, read_plate
from viscy_data.testing.encoding import Encoding, write_encoded_plate
from viscy_data.testing.training import Recorder, StopAfter, quiet_trainer
from viscy_data.tracks import write_tracks
from viscy_data.triplet import TripletDataModule
from viscy_data.windows import PatchWindow

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]

N_CELLS, EXTENT = 24, 48
CODE = Encoding(n_plates=1, n_fovs=1, shape=(4, 1, 1, EXTENT, EXTENT))


class Cells(PatchDataset):
    """Two views of every cell."""

    def __init__(self, path: str, read_size: tuple[int, int], final_size: tuple[int, int], fit: bool = True) -> None:
        rng = np.random.default_rng(0)
        places = rng.uniform(0, EXTENT - 1, (2, N_CELLS)).astype(np.float32)
        table = pd.DataFrame({"t": np.arange(N_CELLS) % 4, "y": places[0], "x": places[1], "track_id": range(N_CELLS)})
        fovs = read_plate(path)
        inside = (fovs, [[0]], [["Phase"]], slice(0, 1), read_size, final_size)
        super().__init__(table, np.zeros(N_CELLS, np.int64), *inside, fit=fit, record_columns=["track_id", "t"])

    def __len__(self) -> int:
        return N_CELLS

    def choose(self, positions, rng):
        return {"anchor": positions, "positive": positions} if self.fit else {"anchor": positions}


class CellsDataModule(BatchDataModule):
    """The least that a data module has to say."""

    def __init__(self, path: str, batch_size: int = 4, num_workers: int = 0, augmentations=None, seed: int = 0) -> None:
        window = PatchWindow((0, 1), (12, 12), (8, 8))
        super().__init__(window, batch_size=batch_size, num_workers=num_workers, augmentations=augmentations, seed=seed)
        self.path = path

    def channel_keys(self):
        return ["ch_0"]

    def fit_datasets(self):
        final = self.window.final_size[1:]
        return Cells(self.path, self.read_size(augmented=True), final), Cells(self.path, final, final)

    def prediction_dataset(self):
        return Cells(self.path, (8, 8), (8, 8), fit=False)

    def train_sampler(self, world=None):
        plan = BatchPlan(self.batch_size, experiment_aware=False, condition_balanced=False)
        return FlexibleBatchSampler.from_plan(self.train_dataset.cells, plan, world, self.seed)


class Shift(MapTransform, Randomizable):
    """Add one random number to the whole batch."""

    def __init__(self, keys, most: float = 1e6) -> None:
        super().__init__(keys)
        self.most = most

    def __call__(self, data):
        offset = self.R.uniform(1, self.most)
        return {**data, **{key: data[key] + offset for key in self.keys}}


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    return write_encoded_plate(folder / "cells.zarr", CODE, 0, ["A/1/0"], ["Phase"])


@pytest.fixture(scope="module")
def triplets(tmp_path_factory):
    """Two FOVs of encoded pixels with their tracks, some of them at the border."""
    folder = tmp_path_factory.mktemp("triplets")
    code = Encoding(n_plates=1, n_fovs=2, shape=(4, 1, 1, EXTENT, EXTENT))
    write_encoded_plate(folder / "images.zarr", code, 0, ["A/1/0", "A/1/1"], ["Phase"])
    rows = [(k, t, y, x) for k, (y, x) in enumerate([(1, 2), (20, 20), (46, 30), (24, 47)]) for t in range(4)]
    table = pd.DataFrame(rows, columns=["track_id", "t", "y", "x"]).assign(id=range(16), parent_track_id=-1)
    for name in ("A/1/0", "A/1/1"):
        write_tracks(table, folder / "tracks" / name / "tracks.csv")
    return folder


def triplet_module(folder, **options):
    settings = {"source_channel": "Phase", "z_range": (0, 1), "batch_size": 4, "num_workers": 0, "seed": 1}
    settings |= {"initial_yx_patch_size": (12, 12), "final_yx_patch_size": (8, 8), "split_ratio": 0.5}
    return TripletDataModule(folder / "images.zarr", folder / "tracks", **settings | options)


# Resuming


@pytest.mark.parametrize(
    ("kind", "num_workers", "killed_after"),
    [
        *((kind, 0, killed_after) for kind in ("cells", "triplets") for killed_after in (1, 3, 4)),
        pytest.param("triplets", 2, 3, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("asks_for_steps", [False, True])
def test_a_run_resumed_in_mid_epoch_goes_on_with_the_batches_of_an_unbroken_one(
    plate, triplets, tmp_path, kind, killed_after, asks_for_steps, num_workers
):
    def data(num_workers=num_workers):
        augmentations = [Shift(["ch_0" if kind == "cells" else "Phase"])]
        if kind == "cells":
            return CellsDataModule(str(plate), num_workers=num_workers, augmentations=augmentations)
        options = {"augmentations": augmentations, "persistent_workers": num_workers > 0}
        return triplet_module(triplets, num_workers=num_workers, time_interval=1, **options)

    whole, killed, resumed = (Recorder(asks_for_steps) for _ in range(3))
    quiet_trainer().fit(whole, data(num_workers=0))  # batches are the same for any number of workers
    assert len(whole.seen["train"]) > killed_after
    path = tmp_path / "killed.ckpt"
    with pytest.raises(SystemExit):
        quiet_trainer(callbacks=[StopAfter(path, killed_after)]).fit(killed, data())
    quiet_trainer().fit(resumed, data(), ckpt_path=path, weights_only=True)
    expected = whole.seen["train"][killed_after:]
    assert len(resumed.seen["train"]) == len(expected)
    assert all(torch.equal(*pair) for pair in zip(resumed.seen["train"], expected, strict=True))


# Stages, ranks, batch size


def test_a_batch_that_no_memory_holds_is_refused_in_words(plate):
    with pytest.raises(InputError, match=r"(?s)CellsDataModule, field batch_size\n.*batches of 1000000000 patches.*GB"):
        CellsDataModule(str(plate), batch_size=10**9).setup()


def test_a_trivial_data_module_trains_validates_and_predicts(plate):
    model, data = Recorder(), CellsDataModule(str(plate), augmentations=[Shift(["ch_0"])])
    quiet_trainer().fit(model, data)
    assert len(model.seen["train"]) == 2 * N_CELLS // 4
    assert model.seen["train"][0].shape == (4, 1, 1, 8, 8)
    predicted = Recorder()
    quiet_trainer().predict(predicted, data, return_predictions=False)
    origin = CODE.decode(torch.cat(predicted.seen["predict"]).numpy())
    table = data.predict_dataset.cells
    assert origin.t[:, 0, 0, 0, 0].tolist() == table["t"].tolist()


def test_ranks_share_every_order(plate, monkeypatch):
    orders = {}
    for size in (1, 2):
        for rank in range(size):
            data = CellsDataModule(str(plate))
            data.setup("fit")
            data.setup("predict")
            data.trainer = quiet_trainer()
            monkeypatch.setattr(type(data.trainer), "world_size", size)
            monkeypatch.setattr(type(data.trainer), "global_rank", rank)
            loaders = data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()
            orders[size, rank] = [list(loader.sampler) for loader in loaders]
            monkeypatch.undo()
    for stage in (0, 1):
        dealt = [batch for turn in zip(orders[2, 0][stage], orders[2, 1][stage], strict=True) for batch in turn]
        assert dealt == orders[1, 0][stage]
    predicted = [position for rank in (0, 1) for batch in orders[2, rank][2] for position in batch]
    assert predicted == list(range(N_CELLS))


def test_the_batch_size_is_what_the_attribute_says(plate, triplets):
    for data in (CellsDataModule(str(plate)), triplet_module(triplets)):
        data.setup("fit")
        data.setup("predict")
        data.batch_size = 3
        for loader in (data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()):
            assert len(next(iter(loader))["anchor"]) == 3


def test_lightnings_batch_size_finder_trains_with_the_size_that_it_reports(plate, tmp_path):
    finder = BatchSizeFinder(max_trials=2, steps_per_trial=1)
    model, data = Recorder(), CellsDataModule(str(plate), batch_size=2)
    quiet_trainer(default_root_dir=tmp_path, max_epochs=1, callbacks=[finder]).fit(model, data)
    assert finder.optimal_batch_size == data.batch_size == 4
    assert [len(batch) for batch in model.seen["train"][-6:]] == [4] * 6  # the epoch after the trials


def test_a_data_module_that_says_nothing_is_told_what_to_say(plate):
    class Silent(BatchDataModule):
        def __init__(self) -> None:
            super().__init__(PatchWindow((0, 1), (8, 8)), batch_size=1)

    with pytest.raises(NotImplementedError, match="Silent does not name its channels"):
        Silent().setup("predict")


# Border


def spot_plate(folder):
    image = np.zeros((1, 1, 1, 128, 128), np.float32)
    cells = {100: (5, 5), 200: (12, 20), 300: (64, 64)}
    for value, (y, x) in cells.items():
        image[..., y, x] = value
    with PlateWriter(folder / "images.zarr", ["Phase"]) as writer:
        for name in ("A/1/0", "A/1/1"):
            writer.write(name, image)
    rows = [(k, 0, float(y), float(x)) for k, (y, x) in enumerate(cells.values())]
    table = pd.DataFrame(rows, columns=["track_id", "t", "y", "x"]).assign(id=range(3), parent_track_id=-1)
    for name in ("A/1/0", "A/1/1"):
        write_tracks(table, folder / "tracks" / name / "tracks.csv")


@pytest.mark.parametrize("stage", ["fit", "validate", "predict"])
@pytest.mark.parametrize("augmentations", [[], [Shift(["Phase"], 1.0)]])
def test_a_cell_is_in_its_own_patch(tmp_path, stage, augmentations):
    spot_plate(tmp_path)
    sizes = {"initial_yx_patch_size": (96, 96), "final_yx_patch_size": (64, 64), "augmentations": augmentations}
    data = triplet_module(tmp_path, return_negative=False, augment_validation=False, **sizes)
    data.setup(stage)
    dataset = {"fit": "train_dataset", "validate": "val_dataset", "predict": "predict_dataset"}[stage]
    dataset = getattr(data, dataset)
    batch = data.pipeline(dataset[list(range(3))], training=stage == "fit", augment=False)
    rows = np.arange(3)
    y, x = dataset.places(rows).T
    patches = batch["anchor"][:, 0, 0].numpy()
    assert patches.shape == (3, 64, 64)
    for value, patch in zip((100, 200, 300), patches, strict=True):
        assert value in patch
    if stage == "predict" or not augmentations:
        assert patches[rows, y, x].tolist() == [100, 200, 300]
    assert dataset.cells["border_shift"].tolist()[:3] == [27, 20, 0]


def test_what_is_read_with_a_margin_is_cut_to_the_patch_of_a_prediction(plate):
    """Where the margin is as large as the shift, training without augmentation sees what a prediction sees."""
    wide, exact = Cells(str(plate), (20, 20), (8, 8)), Cells(str(plate), (8, 8), (8, 8))
    pipeline = TransformPipeline(["ch_0"], final_size=(1, 8, 8))
    rows = list(range(N_CELLS))
    read, expected = wide[rows], exact[rows]["anchor"]
    assert read["anchor"].shape[-1] == 20
    assert len(np.unique(read["anchor_cut"], axis=0)) > 3
    for role in ("anchor", "positive"):
        assert torch.equal(pipeline(read, training=True)[role], expected)


# The record of the data


def test_records_of_a_few_cells_do_not_copy_the_table(plate):
    dataset, n = Cells(plate, (8, 8), (8, 8), fit=False), 200_000
    names = pd.Categorical(np.arange(n) % 7, range(7)).rename_categories([f"track{k}" for k in range(7)])
    dataset.cells = pd.DataFrame({"track_id": names, "t": np.arange(n)})
    rows = np.array([3, n - 1, 8])
    tracemalloc.start()
    records = dataset.records(rows)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    expected = [{"track_id": f"track{row % 7}", "t": row} for row in rows.tolist()]
    assert records == expected
    assert [type(value) for value in records[0].values()] == [str, int]
    assert held < 100_000


def test_the_record_tells_data_and_transforms_apart(plate, triplets, tmp_path):
    def record(**options):
        data = triplet_module(triplets, **options)
        data.setup("predict")
        return json.dumps(data.data_record(), sort_keys=True)

    same = record(augmentations=[Shift(["Phase"], 3.0)])
    assert same == record(augmentations=[Shift(["Phase"], 3.0)])
    assert same == record(augmentations=[Shift(["Phase"], 3.0)], cache_pool_bytes=7, num_workers=1)
    others = [record(augmentations=[Shift(["Phase"], 4.0)]), record(), record(z_window_size=1), record(seed=3)]
    assert len({same, *others}) == 5


def test_the_record_notices_other_cells_in_the_same_place(plate):
    data = CellsDataModule(str(plate))
    data.setup("predict")
    before = data.data_record()
    data.predict_dataset.cells.loc[3, "y"] += 1
    assert before != data.data_record()
    (source,) = before["sources"]["predict"]
    assert source["store"].endswith("cells.zarr")
    assert (source["fovs"], source["observations"]) == (1, N_CELLS)
    assert source["images"] == [{"experiment": None, "channels": ["Phase"], "z_range": [0, 1], "yx_size": [8, 8]}]
    cells = data.predict_dataset.cells
    cells["experiment"] = "monday"
    assert data.data_record()["sources"]["predict"][0]["images"][0]["experiment"] == "monday"


def test_descriptions_are_plain_and_tell_objects_apart():
    first, second = Shift(["a"], 1.0), Shift(["a"], 1.0)
    first.set_random_state(0)
    first({"a": torch.zeros(1)})
    assert described(first) == described(second) != described(Shift(["a"], 2.0))
    assert described(np.arange(3)) != described(np.arange(3) + 1) != described(np.arange(3).astype(float))
    assert described(lambda x: x + 1) != described(lambda x: x + 2)
    assert described(partial(max, 1)) != described(partial(max, 2))
    loop: dict = {"path": Path("a"), "none": None, "type": int}
    loop["itself"] = loop
    assert json.loads(json.dumps(described(loop)))["itself"] == "..."
