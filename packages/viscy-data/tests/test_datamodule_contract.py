"""What holds for every data module: the same batches for any number of workers and ranks, and after a resumption."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.utilities import CombinedLoader

import viscy_data
from viscy_data import CellDivisionTripletDataModule, ConcatDataModule
from viscy_data.errors import InputError
from viscy_data.testing.training import Recorder, StopAfter, last_image, quiet_trainer

pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
from viscy_data.testing.datamodules import DATA_MODULES, write_data

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
    # pycocotools 2.0.11 with numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

Factory = Callable[..., LightningDataModule]
NAMES = [name for name in DATA_MODULES if name != "livecell" or (find_spec("tifffile") and find_spec("pycocotools"))]
TRAINING = [name for name in NAMES if name != "segmentation"]
PREDICTING = ["triplets", "windows", "classification", "cell_division"]
SHARED_ORDER = [name for name in TRAINING if name != "concatenated_frames"]
"""Whose ranks share the batches of a lone process; the other one gives each rank a part of its own."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("contract"))


@pytest.fixture(params=TRAINING)
def make(request, folder) -> Factory:
    return lambda num_workers=0: DATA_MODULES[request.param](folder, num_workers)


@contextmanager
def as_rank(monkeypatch, data: LightningDataModule, size: int, rank: int) -> Iterator[None]:
    """Make a data module believe that it is one of several processes."""
    data.trainer = quiet_trainer()
    with monkeypatch.context() as patch:
        patch.setattr(type(data.trainer), "world_size", size)
        patch.setattr(type(data.trainer), "global_rank", rank)
        yield


def assert_equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected) > 0
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_every_data_module_of_the_package_is_among_them(folder):
    among = {type(DATA_MODULES[name](folder)).__name__ for name in NAMES} | {"LiveCellDataModule"}
    public = {name for name in viscy_data.__all__ if name.endswith("DataModule")}
    assert public - among == {"GPUTransformDataModule", "BatchedConcatDataModule"}, (
        "the parent of some, and an old name"
    )


def test_epochs_differ_in_training_and_not_in_validation(make):
    model, data = Recorder(), make()
    quiet_trainer().fit(model, data)
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
        epochs.append([last_image(batch) for batch in data.train_dataloader()])
    assert_equal(epochs[1], epochs[0])


@pytest.mark.parametrize("asks_for_steps", [False, True])
@pytest.mark.parametrize("killed_after", [1, 5])
def test_a_run_resumed_in_mid_epoch_goes_on_as_an_unbroken_one(make, tmp_path, killed_after, asks_for_steps):
    whole, killed, resumed = (Recorder(asks_for_steps) for _ in range(3))
    quiet_trainer().fit(whole, make())
    path = tmp_path / "killed.ckpt"
    with pytest.raises(SystemExit):
        quiet_trainer(callbacks=[StopAfter(path, killed_after)]).fit(killed, make())
    quiet_trainer().fit(resumed, make(), ckpt_path=path, weights_only=True)
    assert_equal(resumed.seen["train"], whole.seen["train"][killed_after:])


@pytest.mark.parametrize("name", SHARED_ORDER)
def test_ranks_share_the_order_of_a_lone_process(folder, name, monkeypatch):
    orders = {}
    for size, rank in [(1, 0), (2, 0), (2, 1)]:
        data = DATA_MODULES[name](folder)
        with as_rank(monkeypatch, data, size, rank):
            data.setup("fit")
            orders[size, rank] = images_of(data.train_dataloader())
    dealt = [batch for turn in zip(orders[2, 0], orders[2, 1], strict=True) for batch in turn]
    assert_equal(dealt[: len(orders[1, 0])], orders[1, 0])


def loader_of(monkeypatch, data: LightningDataModule, size: int, rank: int, state: dict | None = None) -> Iterable:
    """Return the training loader of a rank, from the place of a state on."""
    with as_rank(monkeypatch, data, size, rank):
        data.setup("fit")
        if state is not None:
            data.load_state_dict(state)
        return data.train_dataloader()


def images_of(loader: Iterable) -> list[torch.Tensor]:
    """Return an image of each batch, or one after the other those of all members that are side by side."""
    if not isinstance(loader, CombinedLoader):
        return [last_image(batch) for batch in loader]
    return [torch.cat([last_image(part).double().flatten() for part in parts]) for parts, _, _ in loader]


def state_of(data: LightningDataModule, loader: Iterable) -> dict:
    """Return the state that a checkpoint holds of a data module whose loader this is."""
    state = data.state_dict()
    return state if "train_loaders" in state else state | {"train_loader": loader.state_dict()}


@pytest.mark.parametrize("name", SHARED_ORDER)
def test_other_numbers_of_ranks_go_on_in_mid_epoch_with_the_batches_that_are_left(folder, name, monkeypatch):
    alone = images_of(loader_of(monkeypatch, DATA_MODULES[name](folder), 1, 0))
    done, state = 0, None
    for size in (1, 3, 2):  # a step with each
        for rank in reversed(range(size)):
            data = DATA_MODULES[name](folder)
            loader = loader_of(monkeypatch, data, size, rank, state)
            left = images_of(loader)
            assert len(left) == -(-(len(alone) - done) // size)
            numbers = [done + rank + turn * size for turn in range(len(left))]
            assert_equal(left, [alone[number % len(alone)] for number in numbers])
        done += size
        if done >= len(alone):
            return
        next(iter(loader))
        state = state_of(data, loader)


def test_parts_of_ranks_are_gone_on_with_by_as_many_ranks(folder, monkeypatch):
    data = DATA_MODULES["concatenated_frames"](folder)
    loader = loader_of(monkeypatch, data, 2, 0)
    place = loader.state_dict()
    assert place["batches"] >= 4

    def go_on(done: int) -> Iterable:
        state = {"train_loader": place | {"done": done}}
        return loader_of(monkeypatch, DATA_MODULES["concatenated_frames"](folder), 1, 0, state)

    assert go_on(0).sampler.start_batch == 0
    over = go_on(place["batches"])
    assert over.sampler.start_batch == len(over)
    with pytest.raises(InputError, match=r"number of ranks\n.*1, and 2 in the checkpoint"):
        go_on(2)


class Steps(Callback):
    """Write down the number of each batch of training, and after which ones there was a validation."""

    def __init__(self) -> None:
        self.made: list[tuple] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.made.append((trainer.current_epoch, batch_idx))

    def on_validation_start(self, trainer, pl_module):
        self.made.append((trainer.current_epoch, "validation"))


def with_two_ranks(path: Path, n_done: int) -> None:
    """Let a checkpoint of a lone process be one of two, which have gone as far together."""
    checkpoint = torch.load(path, weights_only=True)
    loop = checkpoint["loops"]["fit_loop"]
    (data,) = [value for value in checkpoint.values() if isinstance(value, dict) and "train_loader" in value]
    data["train_loader"] = {**data["train_loader"], "ranks": 2}
    assert data["train_loader"]["done"] == n_done
    loop["state_dict"]["combined_loader"] = [data["train_loader"]]
    current = loop["epoch_loop.batch_progress"]["current"]
    current.update({count: number // 2 for count, number in current.items()})
    torch.save(checkpoint, path)


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 0.5}, {"limit_train_batches": 5}])
def test_lightning_counts_batches_as_if_there_had_been_as_many_ranks_before(folder, tmp_path, options):
    path, whole, resumed = tmp_path / "two.ckpt", Steps(), Steps()
    quiet_trainer(callbacks=[whole], **options).fit(Recorder(), DATA_MODULES["triplets"](folder))
    stopped = quiet_trainer(callbacks=[StopAfter(path, 2)], **options)
    with pytest.raises(SystemExit):
        stopped.fit(Recorder(), DATA_MODULES["triplets"](folder))
    with_two_ranks(path, 2)
    quiet_trainer(callbacks=[resumed], **options).fit(
        Recorder(), DATA_MODULES["triplets"](folder), ckpt_path=path, weights_only=True
    )
    assert (0, 2) in whole.made
    assert resumed.made == whole.made[whole.made.index((0, 2)) :]


@pytest.mark.parametrize("name", PREDICTING)
def test_ranks_predict_everything_once_in_order(folder, name, monkeypatch):
    whole, parts = Recorder(), []
    quiet_trainer().predict(whole, DATA_MODULES[name](folder), return_predictions=False)
    for rank in range(2):
        data = DATA_MODULES[name](folder)
        with as_rank(monkeypatch, data, 2, rank):
            data.setup("predict")
            parts += [last_image(batch) for batch in data.predict_dataloader()]
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


# Two processes


_RANK = """
import sys
import warnings
from pathlib import Path

import torch

from viscy_data.testing.datamodules import DATA_MODULES
from viscy_data.testing.training import Recorder, quiet_trainer

folder, names, predicting, target = sys.argv[1:]
warnings.simplefilter("ignore")
options, found = {"strategy": "ddp", "devices": 2}, {}
for name in names.split():
    model, data = Recorder(), DATA_MODULES[name](Path(folder))
    if name == "segmentation":
        quiet_trainer(**options).test(model, data, verbose=False)
    else:
        quiet_trainer(**options).fit(model, data)
    if name in predicting.split():
        quiet_trainer(**options).predict(model, DATA_MODULES[name](Path(folder)), return_predictions=False)
    found[name] = {**model.seen, "weight": model.weight.detach()}
torch.save(found, target)
"""


def run_on_two_ranks(folder, tmp_path) -> list[dict[str, dict]]:
    """Let two processes go through all data modules; what comes back is what each has seen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"TORCHELASTIC_RUN_ID": "contract", "GROUP_RANK": "0"}
    running = []
    for rank in range(2):
        arguments = [str(folder), " ".join(NAMES), " ".join(PREDICTING), str(tmp_path / f"{rank}.pt")]
        own = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-c", _RANK, *arguments]
        running.append(subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    said = [process.communicate(timeout=500)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_two_processes_share_every_stage_of_every_data_module(folder, tmp_path):
    ranks = run_on_two_ranks(folder, tmp_path)
    for name in NAMES:
        first, second = (rank[name] for rank in ranks)
        assert torch.equal(first["weight"], second["weight"]), name
        stages = ["test"] if name == "segmentation" else ["train", "val"]
        for stage in stages:
            assert len(first[stage]) == len(second[stage]) > 0, name
        if name in TRAINING and name not in SHARED_ORDER:  # parts of their own, see the tests of these modules
            continue
        lone, data = Recorder(), DATA_MODULES[name](folder)
        if name == "segmentation":
            quiet_trainer().test(lone, data, verbose=False)
        else:
            quiet_trainer(max_epochs=1).fit(lone, data)
        for stage in stages:
            dealt = [batch for turn in zip(first[stage], second[stage], strict=True) for batch in turn]
            assert_equal(dealt[: len(lone.seen[stage])], lone.seen[stage])
        if name in PREDICTING:
            quiet_trainer().predict(lone, DATA_MODULES[name](folder), return_predictions=False)
            parts = torch.cat(first["predict"] + second["predict"])
            assert torch.equal(parts, torch.cat(lone.seen["predict"])), name
