"""What holds for every data module: the same batches for any number of workers and ranks, and after a resumption."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
import torch
from lightning.pytorch import LightningDataModule

from viscy_data import CellDivisionTripletDataModule, ConcatDataModule
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
SHARED_ORDER = [name for name in TRAINING if name not in ("concatenated_frames", "combined")]
"""Whose ranks share the batches of a lone process; the others give each rank a part of its own."""


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
            orders[size, rank] = [last_image(batch) for batch in data.train_dataloader()]
    dealt = [batch for turn in zip(orders[2, 0], orders[2, 1], strict=True) for batch in turn]
    assert_equal(dealt[: len(orders[1, 0])], orders[1, 0])


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
