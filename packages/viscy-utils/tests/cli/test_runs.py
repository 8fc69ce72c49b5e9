"""Runs at the command line: folders, checkpoints that are used, Ctrl-C, and going on."""

from __future__ import annotations

import json
import os
import signal
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from viscy_utils.cli import main
from viscy_utils.runs.folder import find_run

BORING = "lightning.pytorch.demos.boring_classes"

pytestmark = pytest.mark.filterwarnings("ignore:GPU available", "ignore:.*litlogger")


class Steps(BoringModel):
    """Logs a validation loss that is smallest after the second epoch, and predicts what can be written."""

    def __init__(self, width: int = 2):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(32, width)

    def on_validation_epoch_end(self):
        self.log("loss/val", abs(self.current_epoch - 1.0))

    def predict_step(self, batch, batch_idx):
        index = [{"fov_name": "A/1/0", "track_id": batch_idx, "t": i} for i in range(len(batch))]
        return {"features": self.layer(batch), "index": index}


class Alike(BoringDataModule):
    """All batches are alike: it does not matter that the loader cannot begin in the middle."""

    n_predicted = 0

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(4, 32))

    def data_record(self):
        return {}

    def skip_predicted(self, n_samples):
        self.n_predicted = n_samples

    def predict_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(2 - self.n_predicted, 32))


class CtrlC(Callback):
    """Press Ctrl-C in the middle of a training step."""

    def __init__(self, at_step: int = 3):
        self.at_step = at_step

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_step == self.at_step:
            os.kill(os.getpid(), signal.SIGINT)


class Terminate(Callback):
    """Send a signal in the middle of the first batch of a prediction, or at its set-up, or when its rows are merged."""

    def __init__(self, number: int, when: str = "on_predict_batch_start"):
        self.number = number
        setattr(self, when, self.send)

    def send(self, *args, **kwargs):
        os.kill(os.getpid(), self.number)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a configuration of a small training, and return its path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VISCY_DEBUG", raising=False)
    monkeypatch.setattr(f"{BORING}.BoringModel", Steps)
    monkeypatch.setattr(f"{BORING}.BoringDataModule", Alike)
    monkeypatch.setattr(f"{BORING}.CtrlC", CtrlC, raising=False)
    monkeypatch.setattr(f"{BORING}.Terminate", Terminate, raising=False)

    def make(name="fit.yml", trainer=(), **sections):
        settings = {"accelerator": "cpu", "devices": 1, "max_epochs": 3, "limit_train_batches": 4}
        settings |= {"limit_val_batches": 1, "limit_predict_batches": 2, "enable_progress_bar": False}
        settings |= {"enable_model_summary": False, "logger": False, "log_every_n_steps": 1}
        config = {"seed_everything": 0, "trainer": settings | dict(trainer)}
        config |= {
            "model": {"class_path": f"{BORING}.BoringModel"},
            "data": {"class_path": f"{BORING}.BoringDataModule"},
        }
        path = tmp_path / name
        path.write_text(yaml.safe_dump(config | sections))
        return name

    return make


def fail(args, capsys, code=2):
    with pytest.raises(SystemExit) as caught:
        main(args)
    said = capsys.readouterr().err
    assert caught.value.code == code, said
    return said


def only_run():
    (folder,) = Path("runs").iterdir()
    return folder


def weights(path):
    return {key: value.clone() for key, value in torch.load(path, weights_only=True)["state_dict"].items()}


def test_a_training_keeps_everything_in_its_folder(write, capsys):
    main(["fit", "-c", write()])
    folder = only_run()
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "config.yaml", "run.json", "train.log"]
    assert sorted(path.name for path in Path().iterdir()) == ["fit.yml", "runs"]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["steps"] == 12
    assert record["versions"]["torch"] == version("torch")
    assert record["checkpoints"]["best"] == ["checkpoints/best.ckpt"]
    assert torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["epoch"] == 1
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 2
    said = capsys.readouterr().out
    assert f"wrote {folder}: config.yaml, checkpoints/best.ckpt, checkpoints/last.ckpt" in said
    assert f"next: viscy predict --config {folder / 'config.yaml'}" in said


def test_the_command_that_is_advised_after_a_training_works(write, capsys):
    main(["fit", "-c", write()])
    folder = only_run()
    main(["predict", "-c", str(folder / "config.yaml")])
    said = capsys.readouterr().out
    assert f"weights of {folder / 'checkpoints/best.ckpt'} (epoch 1, step 8)" in said
    assert f"wrote {folder / 'embeddings.zarr'}: 2 embeddings of 2 features" in said


@pytest.mark.parametrize("logger", [None, True])
def test_logs_go_to_the_folder_of_the_run(write, logger):
    main(["fit", "-c", write(trainer={"logger": logger})])
    assert not Path("lightning_logs").exists()
    assert list(only_run().glob("events.out.tfevents*")) or list(only_run().glob("metrics.csv"))


def test_two_trainings_leave_two_folders_and_the_latest_is_used(write, capsys):
    path = write()
    main(["fit", "-c", path, "--run", "one", "--trainer.max_epochs", "1"])
    main(["fit", "-c", path, "--run", "two"])
    main(["predict", "-c", path, "--run", "latest"])
    assert "weights of runs/two/checkpoints/best.ckpt (epoch 1, step 8)" in capsys.readouterr().out
    main(["predict", "-c", path, "--run", "one"])
    assert "weights of runs/one/checkpoints/best.ckpt (epoch 0, step 4)" in capsys.readouterr().out
    main(["validate", "-c", path, "--run", "runs/two", "--ckpt_path", "last"])
    assert "weights of runs/two/checkpoints/last.ckpt (epoch 2, step 12)" in capsys.readouterr().out
    assert "did you mean 'two'" in fail(["predict", "-c", path, "--run", "twoo"], capsys)
    message = fail(["fit", "-c", path, "--run", "one"], capsys)
    assert "runs/one, field run\n  found    another run" in message
    assert "--run one --ckpt_path last" in message


def test_settings_of_the_user_win(write):
    checkpoint = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    checkpoint["init_args"] = {"dirpath": "mine", "save_last": True, "monitor": "loss/val"}
    main(["fit", "-c", write(trainer={"callbacks": [checkpoint], "default_root_dir": "results"})])
    assert Path("mine/last.ckpt").exists()
    (folder,) = Path("results/runs").iterdir()
    assert not (folder / "checkpoints").exists()
    record = find_run("latest", "results").record
    assert [Path(name).name for name in record["checkpoints"]["last"]] == ["last.ckpt"]
    assert Path(record["checkpoints"]["best"][0]).parent == Path("mine").resolve()


def test_no_checkpoints_and_no_log_where_none_are_wanted(write):
    main(["fit", "-c", write(trainer={"enable_checkpointing": False})])
    assert sorted(path.name for path in only_run().iterdir()) == ["config.yaml", "run.json", "train.log"]
    main(["fit", "-c", write(trainer={"fast_dev_run": True})])
    assert len(list(Path("runs").iterdir())) == 1


def test_a_training_that_does_not_begin_leaves_no_folder(write, capsys, monkeypatch):
    def refuse(self, stage):
        raise ValueError("no such plate")

    monkeypatch.setattr(BoringDataModule, "setup", refuse)
    fail(["fit", "-c", write(trainer={"logger": True})], capsys, code=1)
    assert not list(Path("runs").glob("*"))


def test_weights_have_to_be_named(write, capsys):
    path = write()
    for command in ("predict", "validate", "test"):
        message = fail([command, "-c", path], capsys)
        assert "field ckpt_path" in message
        assert "--ckpt_path null" in message
    assert not Path("embeddings.zarr").exists()
    main(["predict", "-c", path, "--ckpt_path", "null"])
    said = capsys.readouterr().out
    assert "random weights, as ckpt_path is null" in said
    assert "wrote embeddings.zarr: 2 embeddings of 2 features" in said
    message = fail(["predict", "-c", path, "--ckpt_path", "null"], capsys)
    options = message.rpartition("name another place: ")[2].replace("OTHER", "other").split()
    main(["predict", "-c", path, "--ckpt_path", "null", *options])
    assert Path("other.zarr").is_dir()


def test_a_run_and_a_checkpoint_of_another_one_exclude_each_other(write, capsys):
    path = write(trainer={"max_epochs": 1})
    main(["fit", "-c", path, "--run", "one"])
    main(["fit", "-c", path, "--run", "two"])
    args = ["predict", "-c", path, "--run", "one", "--ckpt_path", "runs/two/checkpoints/last.ckpt"]
    assert "which is not in it" in fail(args, capsys)


def test_an_older_checkpoint_of_a_folder_with_two_runs_is_refused(write, capsys):
    checkpoint = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    checkpoint["init_args"] = {"dirpath": "mine", "save_last": True}
    path = write(trainer={"callbacks": [checkpoint], "max_epochs": 1})
    main(["fit", "-c", path])
    with pytest.warns(UserWarning, match="exists and is not empty"):
        main(["fit", "-c", path])
    assert sorted(found.name for found in Path("mine").glob("last*")) == ["last-v1.ckpt", "last.ckpt"]
    assert "last-v1.ckpt beside it" in fail(["predict", "-c", path, "--ckpt_path", "mine/last.ckpt"], capsys)
    main(["predict", "-c", path, "--ckpt_path", "mine/last-v1.ckpt"])


def test_a_checkpoint_of_another_architecture_is_refused_before_data_are_read(write, capsys, monkeypatch):
    path = write(trainer={"max_epochs": 1})
    main(["fit", "-c", path, "--run", "one", "--model.init_args.width=5"])
    monkeypatch.setattr(BoringDataModule, "setup", lambda *_: pytest.fail("data were read"))
    message = fail(["predict", "-c", path, "--run", "one"], capsys)
    message = message[message.index("viscy: error") :]
    assert "width 5 -> 2" in message
    assert "size mismatch of 2, such as layer.weight (5, 32) instead of (2, 32)" in message
    assert len(message) < 1000


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
def test_ctrl_c_saves_and_the_command_it_prints_ends_as_an_unbroken_run(write, capsys):
    before = signal.getsignal(signal.SIGINT)
    main(["fit", "-c", write(), "--run", "unbroken"])
    callbacks = [{"class_path": f"{BORING}.CtrlC", "init_args": {"at_step": 5}}]
    message = fail(["fit", "-c", write("stop.yml", trainer={"callbacks": callbacks}), "--run", "broken"], capsys, 130)
    assert "SIGINT: stopping after this step" in message
    said = message.rpartition("viscy: interrupted; ")[2]
    assert "saved after step 6" in said
    record = find_run("broken").record
    assert record["status"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before
    command = said.rpartition("Go on with: viscy ")[2].split()
    assert command[:3] == ["fit", "--config", "runs/broken/config.yaml"]
    main([*command, "--trainer.callbacks", "null"])
    assert len(list(Path("runs").iterdir())) == 2
    record = find_run("broken").record
    assert record["status"] == "finished"
    assert len(record["continued"]) == 1
    unbroken, broken = (weights(f"runs/{name}/checkpoints/last.ckpt") for name in ("unbroken", "broken"))
    assert all(torch.equal(unbroken[key], broken[key]) for key in unbroken)
    assert torch.load("runs/broken/checkpoints/best.ckpt", weights_only=True)["epoch"] == 1


def test_a_run_goes_on_from_its_newest_checkpoint_only(write, capsys):
    path = write(trainer={"max_epochs": 3})
    main(["fit", "-c", path, "--run", "one"])
    message = fail(["fit", "-c", path, "--run", "one", "--ckpt_path", "runs/one/checkpoints/best.ckpt"], capsys)
    assert "not its newest checkpoint" in message
    main(["fit", "-c", path, "--run", "one", "--ckpt_path", "last", "--trainer.max_epochs", "4"])
    assert torch.load("runs/one/checkpoints/last.ckpt", weights_only=True)["epoch"] == 3
    assert torch.load("runs/one/checkpoints/best.ckpt", weights_only=True)["epoch"] == 1
    main(["fit", "-c", path, "--run", "two", "--ckpt_path", "runs/one/checkpoints/best.ckpt"])
    assert Path("runs/two/checkpoints/last.ckpt").exists()


def test_ctrl_c_of_a_run_with_checkpoints_of_its_own_saves_one_more(write, capsys):
    callbacks = [{"class_path": f"{BORING}.CtrlC"}, {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}]
    message = fail(["fit", "-c", write(trainer={"callbacks": callbacks}), "--run", "one"], capsys, 130)
    assert "--ckpt_path runs/one/checkpoints/interrupted.ckpt" in message


def terminated(write, capsys, number, when="on_predict_batch_start"):
    """Predict, and return what is said when a signal comes."""
    stop = {"class_path": f"{BORING}.Terminate", "init_args": {"number": int(number), "when": when}}
    path = write("stop.yml", trainer={"max_epochs": 1, "callbacks": [stop]})
    return fail(["predict", "-c", path, "--run", "one"], capsys, 128 + number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_prediction_after_the_batch_whose_rows_are_kept(write, capsys, number):
    from viscy_utils.embeddings.reading import read_embedding_dataset

    main(["fit", "-c", write(trainer={"max_epochs": 1}), "--run", "one"])
    message = terminated(write, capsys, number)
    assert f"{signal.Signals(number).name}: stopping after this batch\n" in message
    assert "what is predicted is kept; the same command goes on: " in message
    assert signal.getsignal(number) == signal.SIG_DFL
    assert not Path("runs/one/embeddings.zarr").exists()
    assert read_embedding_dataset("runs/one/embeddings.zarr.parts")["features"].shape == (1, 2)


@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
def test_a_prediction_whose_time_is_over_is_queued_again_whatever_it_does(write, capsys, slurm):
    main(["fit", "-c", write(trainer={"max_epochs": 1}), "--run", "one"])
    for n, when in enumerate(["setup", "on_predict_batch_start", "teardown"], start=1):
        assert "SIGUSR1: stopping" in terminated(write, capsys, signal.SIGUSR1, when)
        assert slurm() == ["requeue 7"] * n
        assert not Path("runs/one/embeddings.zarr").exists()
    terminated(write, capsys, signal.SIGTERM, "teardown")
    assert slurm() == ["requeue 7"] * 3, "a job that is cancelled is not"
    main(["predict", "-c", "fit.yml", "--run", "one"])
    assert "wrote runs/one/embeddings.zarr: 2 embeddings" in capsys.readouterr().out
    assert not list(Path().rglob("hpc_ckpt*"))


def test_embeddings_name_checkpoint_and_configuration(write):
    from viscy_utils.embeddings.origin import read_origin

    path = write(trainer={"max_epochs": 1})
    main(["fit", "-c", path, "--run", "one"])
    main(["predict", "-c", path, "--run", "one"])
    origin = read_origin("runs/one/embeddings.zarr")
    assert origin["checkpoint"]["path"] == str(Path("runs/one/checkpoints/best.ckpt").resolve())
    assert origin["checkpoint"]["step"] == 4
    assert yaml.safe_load(origin["config"])["trainer"]["max_epochs"] == 1
    import anndata

    assert np.asarray(anndata.read_zarr("runs/one/embeddings.zarr").X).shape == (2, 2)
