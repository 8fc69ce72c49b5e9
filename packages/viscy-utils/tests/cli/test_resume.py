"""Going on with runs that were stopped, killed, or left a checkpoint that is not whole."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from viscy_utils.cli import main
from viscy_utils.runs.folder import find_run

BORING = "lightning.pytorch.demos.boring_classes"

pytestmark = [
    pytest.mark.filterwarnings("ignore:GPU available", "ignore:.*litlogger"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
]


class Model(BoringModel):
    """Its weight says which steps it has made."""

    validated: ClassVar[list[int]] = []
    """Steps after which there was a validation."""
    batches: ClassVar[list[tuple[int, int]]] = []
    """Epoch and number of each batch of training."""

    def on_train_batch_start(self, batch, batch_idx):
        self.batches.append((self.current_epoch, batch_idx))

    def on_validation_epoch_end(self):
        self.log("loss/val", 1.0)
        self.validated.append(self.global_step)


class Alike(BoringDataModule):
    """All batches are alike: it does not matter that the loader cannot begin in the middle."""

    def __init__(self, batch_size: int = 1, seed: int | None = None):  # most settings of a data module are null
        super().__init__()

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(4, 32))


class Step:
    """What a list of a configuration names."""

    def __init__(self, key: str = "a"):
        self.key = key


class WithSteps(Alike):
    """A data module as it was."""

    def __init__(self, batch_size: int = 1, seed: int | None = None, steps: list[Step] | None = None):
        super().__init__()


class LaterStep(Step):
    """The same with one more option."""

    def __init__(self, key: str = "a", sigma: float = 2.0):
        super().__init__(key)


class WithMoreOptions(Alike):
    """The same in a later version: with two more options, and another default of one that there was."""

    def __init__(
        self,
        batch_size: int = 1,
        seed: int | None = None,
        steps: list[Step] | None = None,
        shuffle: bool = True,
        level: str = "fov",
    ):
        super().__init__()


class WithFewerOptions(Alike):
    """The same in a version without the seed, and with one more option."""

    def __init__(self, batch_size: int = 1, steps: list[Step] | None = None, shuffle: bool = True):
        super().__init__()


class Signal(Callback):
    """Send a signal to the process itself in the middle of a training step, or of a validation."""

    def __init__(self, number: int, at_step: int, in_validation: bool = False):
        self.number, self.at_step, self.in_validation = number, at_step, in_validation

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == self.at_step and not self.in_validation:
            os.kill(os.getpid(), self.number)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if trainer.global_step == self.at_step and self.in_validation:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VISCY_DEBUG", raising=False)
    monkeypatch.setattr(f"{BORING}.BoringModel", Model)
    monkeypatch.setattr(Model, "validated", [])
    monkeypatch.setattr(Model, "batches", [])
    monkeypatch.setattr(f"{BORING}.BoringDataModule", Alike)
    monkeypatch.setattr(f"{BORING}.Signal", Signal, raising=False)
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": 3, "limit_train_batches": 4, "limit_val_batches": 2}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "log_every_n_steps": 1}
    content = {
        "seed_everything": 0,
        "trainer": settings,
        "model": {"class_path": f"{BORING}.BoringModel"},
        "data": {"class_path": f"{BORING}.BoringDataModule"},
    }
    Path("fit.yml").write_text(yaml.safe_dump(content))
    return content


def write_config(name, config, *callbacks):
    trainer = config["trainer"] | {"callbacks": list(callbacks)}
    Path(name).write_text(yaml.safe_dump(config | {"trainer": trainer}))
    return name


def signalling(number, at_step, **options):
    return {"class_path": f"{BORING}.Signal", "init_args": {"number": int(number), "at_step": at_step, **options}}


def fail(args, capsys, code=2):
    with pytest.raises(SystemExit) as caught:
        main(args)
    said = capsys.readouterr().err
    assert caught.value.code == code, said
    return said


def checkpoint(run, name="last"):
    return torch.load(f"runs/{run}/checkpoints/{name}.ckpt", weights_only=True)


def assert_ends_alike(run, other):
    found, expected = checkpoint(run), checkpoint(other)
    assert found["global_step"] == expected["global_step"]
    torch.testing.assert_close(found["state_dict"], expected["state_dict"], rtol=0, atol=0)


@pytest.mark.parametrize(("at_step", "in_validation"), [(5, False), (7, False), (8, True)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_after_the_step_and_resume_ends_as_an_unbroken_run(
    config, capsys, number, at_step, in_validation
):
    main(["fit", "-c", "fit.yml", "--run", "unbroken"])
    validated, Model.validated = Model.validated, []
    assert validated == [0, 4, 8, 12]  # the first is the check before training
    stop = write_config("stop.yml", config, signalling(number, at_step, in_validation=in_validation))
    message = fail(["fit", "-c", stop, "--run", "broken"], capsys, code=128 + number)
    assert f"{signal.Signals(number).name}: stopping after this step\n" in message
    assert f"saved after step {at_step + (not in_validation)}" in message
    assert find_run("broken").record["status"] == "interrupted"
    assert checkpoint("broken")["global_step"] == at_step + (not in_validation)
    assert signal.getsignal(number) == signal.SIG_DFL
    main(["fit", "-c", "fit.yml", "--run", "broken", "--resume"])
    assert_ends_alike("broken", "unbroken")
    assert [step for step in Model.validated if step] == validated[1:]
    assert find_run("broken").record["status"] == "finished"


@pytest.mark.parametrize("validation", [{"limit_val_batches": 0}, {"val_check_interval": 3}])
@pytest.mark.parametrize("last", [3, 7])
def test_batches_keep_their_numbers_after_a_stop_at_the_end_of_an_epoch(config, capsys, last, validation):
    """Lightning goes on with the next epoch, but numbers the batches of a later one anew when it is stopped again."""
    if "val_check_interval" in validation:
        validation = validation | {"check_val_every_n_epoch": None}
    config["trainer"] |= validation
    for at_step in (last, 9):
        stop = write_config("stop.yml", config, signalling(signal.SIGTERM, at_step))
        fail(["fit", "-c", stop, "--run", "broken", "--resume"], capsys, code=128 + signal.SIGTERM)
    main(["fit", "-c", write_config("fit.yml", config), "--run", "broken", "--resume"])
    assert Model.batches == [(epoch, number) for epoch in range(3) for number in range(4)]
    counts = checkpoint("broken")["loops"]["fit_loop"]["epoch_progress"]["total"]
    assert counts["ready"] == counts["started"] == 3


@pytest.mark.parametrize(
    ("array", "job"), [({}, "7"), ({"SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}, "9_3")]
)
def test_slurm_is_asked_to_queue_the_job_again_and_the_same_command_goes_on(
    config, capsys, monkeypatch, slurm, array, job
):
    main(["fit", "-c", "fit.yml", "--run", "unbroken"])
    for name, value in array.items():
        monkeypatch.setenv(name, value)
    stop = write_config("stop.yml", config, signalling(signal.SIGUSR1, 6))
    fail(["fit", "-c", stop, "--run", "job", "--resume"], capsys, code=128 + signal.SIGUSR1)
    assert slurm() == [f"requeue {job}"]
    assert not list(Path("runs/job").glob("hpc_ckpt*"))
    main(["fit", "-c", "fit.yml", "--run", "job", "--resume"])
    assert_ends_alike("job", "unbroken")
    assert slurm() == [f"requeue {job}"]


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_a_checkpoint_that_is_not_whole_is_passed_over_in_words(config, caplog, damage):
    main(["fit", "-c", "fit.yml", "--run", "one", "--trainer.max_epochs", "2"])
    last = Path("runs/one/checkpoints/last.ckpt")
    content = bytearray(last.read_bytes())
    if damage == "flipped":
        place = content.find(b"layer.weight")
        content[place] ^= 1
    last.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "flipped": content}[damage])
    main(["fit", "-c", "fit.yml", "--run", "one", "--ckpt_path", "last"])
    assert "not whole are passed over: runs/one/checkpoints/last.ckpt (" in caplog.text
    assert checkpoint("one")["global_step"] == 12


def test_where_no_checkpoint_is_whole_nothing_is_begun_anew(config, capsys):
    main(["fit", "-c", "fit.yml", "--run", "one", "--trainer.max_epochs", "1"])
    for path in Path("runs/one/checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert "no checkpoint that is whole" in fail(["fit", "-c", "fit.yml", "--resume"], capsys)


def test_what_has_been_trained_longest_counts_and_not_what_was_copied_last(config, capsys):
    main(["fit", "-c", "fit.yml", "--run", "one", "--trainer.max_epochs", "2"])
    shutil.copyfile("runs/one/checkpoints/best.ckpt", "copy")  # of the first epoch
    os.replace("copy", "runs/one/checkpoints/best.ckpt")
    main(["fit", "-c", "fit.yml", "--resume"])
    assert "going on with runs/one from runs/one/checkpoints/last.ckpt" in capsys.readouterr().out


@pytest.mark.parametrize("how", [["--resume"], ["--resume=true"], ["--ckpt_path", "last"]])
def test_the_latest_run_is_gone_on_with(config, how, capsys):
    main(["fit", "-c", "fit.yml", "--trainer.max_epochs", "1"])
    main(["fit", "-c", "fit.yml", *how])
    (folder,) = Path("runs").iterdir()
    assert f"going on with {folder} from {folder}/checkpoints/last.ckpt" in capsys.readouterr().out
    assert checkpoint(folder.name)["global_step"] == 12


def test_one_command_begins_and_goes_on(config, caplog):
    for epochs in ("1", "2"):
        main(["fit", "-c", "fit.yml", "--run", "job", "--resume", "--trainer.max_epochs", epochs])
    assert "no run to go on with: a new one begins" in caplog.text
    assert checkpoint("job")["global_step"] == 8
    assert len(list(Path("runs").iterdir())) == 1


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again_in_its_folder(config):
    main(["fit", "-c", "fit.yml", "--run", "one", "--trainer.max_epochs", "1"])
    shutil.rmtree("runs/one/checkpoints")
    main(["fit", "-c", "fit.yml", "--resume"])
    assert checkpoint("one")["global_step"] == 12


def test_runs_that_cannot_be_meant_are_refused(config, capsys):
    message = fail(["fit", "-c", "fit.yml", "--ckpt_path", "last"], capsys)
    assert "no run" in message
    main(["fit", "-c", "fit.yml", "--run", "one", "--trainer.max_epochs", "1"])
    other = config | {"model": {"class_path": "lightning.pytorch.demos.boring_classes.ManualOptimBoringModel"}}
    Path("other.yml").write_text(yaml.safe_dump(other))
    message = fail(["fit", "-c", "other.yml", "--resume"], capsys)
    assert "runs/one, field model\n" in message
    assert "other settings: model.class_path" in message
    message = fail(["fit", "-c", "fit.yml", "--data.seed", "5", "--resume"], capsys)
    assert "runs/one, field data\n" in message
    assert "other settings: data.seed None -> 5\n" in message
    message = fail(["fit", "-c", "fit.yml", "--resume", "--ckpt_path", "runs/one/checkpoints/best.ckpt"], capsys)
    assert "field resume, ckpt_path" in message


@pytest.fixture
def begun_before(config, monkeypatch):
    """Return a function that begins a run with a data module of an earlier version, and upgrades to a later one."""

    def begin(later, **options):
        monkeypatch.setattr(f"{BORING}.BoringDataModule", WithSteps)
        monkeypatch.setattr(f"{BORING}.Step", Step, raising=False)
        data = {"class_path": f"{BORING}.BoringDataModule", "init_args": options}
        Path("fit.yml").write_text(yaml.safe_dump(config | {"data": data}))
        main(["fit", "-c", "fit.yml", "--run", "one", "--trainer.max_epochs", "1"])
        monkeypatch.setattr(f"{BORING}.BoringDataModule", later)
        monkeypatch.setattr(f"{BORING}.Step", LaterStep, raising=False)

    return begin


def test_options_that_there_were_not_when_a_run_began_have_their_defaults(begun_before, capsys):
    begun_before(WithMoreOptions, seed=3, steps=[{"class_path": f"{BORING}.Step", "init_args": {"key": "b"}}])
    main(["fit", "-c", "fit.yml", "--resume"])
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if "options that there were not" in line]
    assert line.endswith(": data.steps[0].sigma 2.0; data.shuffle True; data.level 'fov'")
    assert checkpoint("one")["global_step"] == 12
    main(["fit", "-c", "fit.yml", "--resume", "--trainer.max_epochs", "4"])  # now they are in its configuration
    assert "options that there were not" not in capsys.readouterr().out


def test_new_options_of_another_value_and_real_differences_are_refused(begun_before, capsys):
    begun_before(WithMoreOptions, seed=3)
    more = ["--data.shuffle", "false", "--data.seed", "4"]
    message = fail(["fit", "-c", "fit.yml", "--resume", *more], capsys)
    assert "runs/one, field data\n" in message
    assert "other settings: data.seed 3 -> 4; data.shuffle True -> False\n" in message
    assert checkpoint("one")["global_step"] == 4


def test_an_option_that_is_gone_is_a_difference(begun_before, capsys):
    begun_before(WithFewerOptions, seed=3)
    data = {"class_path": f"{BORING}.BoringDataModule"}
    Path("fit.yml").write_text(yaml.safe_dump(yaml.safe_load(Path("fit.yml").read_text()) | {"data": data}))
    assert "data.seed 3 -> None" in fail(["fit", "-c", "fit.yml", "--resume"], capsys)


def test_a_run_that_is_still_going_on_is_left_alone(config, capsys):
    fcntl = pytest.importorskip("fcntl")
    main(["fit", "-c", "fit.yml", "--run", "one", "--trainer.max_epochs", "1"])
    record = Path("runs/one/run.json").read_bytes()
    with open("runs/one/train.log", "a") as held:  # as the process that trains holds it
        fcntl.flock(held, fcntl.LOCK_EX)
        message = fail(["fit", "-c", "fit.yml", "--run", "one", "--resume"], capsys)
    assert "still going on in this folder" in message
    assert Path("runs/one/run.json").read_bytes() == record
    main(["fit", "-c", "fit.yml", "--run", "one", "--resume"])


def test_a_folder_that_another_process_has_gone_on_with_is_left_alone(config, capsys, monkeypatch):
    """Of two that begin one run with --resume at the same moment, one trains and the other is refused."""
    fcntl = pytest.importorskip("fcntl")
    held = []

    class Late(Alike):
        def setup(self, stage=None):
            super().setup(stage)
            held.append(open("runs/one/train.log", "a"))  # as the other does, which has begun later and is ready sooner
            fcntl.flock(held[0], fcntl.LOCK_EX)

    monkeypatch.setattr(f"{BORING}.BoringDataModule", Late)
    message = fail(["fit", "-c", "fit.yml", "--run", "one", "--resume"], capsys)
    assert "still going on in this folder" in message
    assert Path("runs/one/train.log").exists()
    held[0].close()
