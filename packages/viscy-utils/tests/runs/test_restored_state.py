"""Checkpoints whose state of the training is spoilt are refused with file and entry."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.demos.boring_classes import BoringDataModule

from viscy_utils.cli import main
from viscy_utils.training.module import TrainingModule

LAST = "runs/one/checkpoints/last.ckpt"
BORING = "lightning.pytorch.demos.boring_classes"

pytestmark = [
    pytest.mark.filterwarnings("ignore:GPU available", "ignore:.*litlogger"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
]


class Model(TrainingModule):
    """AdamW at a rate that falls; may fail at the end of an epoch, when the checkpoint of its validation is saved."""

    fails = False

    def __init__(self):
        super().__init__(0.1, "WarmupCosine", 0, (1, 32))
        self.layer = torch.nn.Linear(32, 2)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("loss/val", self.layer(batch).square().mean())

    def on_train_epoch_end(self):
        if self.fails:
            raise RuntimeError("the end of the first epoch")


class Alike(BoringDataModule):
    """With a state of its own, as those that begin in mid-epoch have."""

    def state_dict(self):
        return {"done": 4}

    def load_state_dict(self, state_dict):
        assert state_dict["done"] == 4


EARLY = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "loss/val", "patience": 9}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train the first of two epochs in a folder, up to its validation; return the checkpoint."""
    folder = tmp_path_factory.mktemp("restored")
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "limit_train_batches": 4, "limit_val_batches": 1}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "callbacks": [EARLY]}
    content = {
        "seed_everything": 0,
        "trainer": settings,
        "model": {"class_path": f"{BORING}.BoringModel"},
        "data": {"class_path": f"{BORING}.BoringDataModule"},
    }
    (folder / "fit.yml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(f"{BORING}.BoringModel", Model)
        patch.setattr(f"{BORING}.BoringDataModule", Alike)
        patch.setattr(Model, "fails", True)
        with pytest.raises(SystemExit):
            main(["fit", "-c", "fit.yml", "--run", "one"])
        patch.setattr(Model, "fails", False)
        yield torch.load("runs/one/checkpoints/last.ckpt", weights_only=True)


@pytest.fixture
def goes_on(trained, capsys):
    """Return a function that goes on from a checkpoint in its run; it returns the exit code and what is said."""

    def run(checkpoint):
        if not Path("kept").exists():
            shutil.copytree("runs", "kept")
        shutil.rmtree("runs")
        shutil.copytree("kept", "runs")
        torch.save(checkpoint, LAST)
        capsys.readouterr()
        try:
            main(["fit", "-c", "fit.yml", "--run", "one", "--resume"])
        except SystemExit as err:
            return err.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


def spoilt(checkpoint, where, value):
    """Return a checkpoint with another value at a place; with the ellipsis, with none there."""
    checkpoint = copy.deepcopy(checkpoint)
    *parents, last = where
    inside = checkpoint
    for name in parents:
        inside = inside[name]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return checkpoint


BATCHES = ("loops", "fit_loop", "epoch_loop.batch_progress")
MOMENTS = ("optimizer_states", 0, "state")
GROUP = ("optimizer_states", 0, "param_groups", 0)
SCHEDULE = ("lr_schedulers", 0)
BEST = ("callbacks", "RunCheckpoints")
STOPPING = ("callbacks", "EarlyStopping{'monitor': 'loss/val', 'mode': 'min'}")
CASES = [  # place, value, field and what is told of it
    (("loops",), ..., "loops\n.*None\n.*entries by name"),
    (("loops",), 3, "loops\n.*TypeError"),
    (("loops", "fit_loop"), ..., "loops"),
    (("loops", "fit_loop", "epoch_progress", "current", "completed"), "x", "epoch_progress, current, completed\n.*'x'"),
    ((*BATCHES, "current", "ready"), -1, "batch_progress, current, ready\n.*-1\n.*a whole number of at least 0"),
    ((*BATCHES, "current"), ..., "loops\n.*KeyError: 'current'"),
    ((*BATCHES, "total", "completed"), 2.5, "batch_progress, total, completed\n.*2.5\n.*a whole number"),
    ((*BATCHES, "is_last_batch"), "yes", "batch_progress, is_last_batch\n.*'yes'\n.*true or false"),
    (("loops", "fit_loop", "state_dict"), None, "loops\n.*AttributeError"),
    (("loops", "fit_loop", "epoch_loop.state_dict", "_batches_that_stepped"), "4", "_batches_that_stepped\n.*'4'"),
    (("optimizer_states",), ..., "optimizer_states and lr_schedulers\n.*only the model"),
    (("optimizer_states",), [], r"optimizer_states\n.*\[\]\n.*a list of 1"),
    (("optimizer_states",), {"x": 1}, "optimizer_states\n.*\n.*a list of 1"),
    (("optimizer_states", 0), "x", "optimizer_states\n.*what cannot be restored"),
    ((*MOMENTS, 0), "x", "optimizer_states, 0, state, 0\n.*'x'\n.*entries by name"),
    ((*MOMENTS, 0, "exp_avg"), ..., "state, 0, exp_avg\n.*None"),
    ((*MOMENTS, 1, "exp_avg_sq"), torch.zeros(3), r"state, 1, exp_avg_sq\n.*shape \(3,\)\n.*shape \(2,\)"),
    ((*MOMENTS, 0, "step"), "x", "state, 0, step\n.*'x'\n.*a number"),
    ((*MOMENTS, "other"), {}, "state, other\n.*\n.*the number of one of 2 parameters"),
    ((*GROUP, "lr"), "0.1", "optimizer_states, 0, 0, lr\n.*'0.1'\n.*a number"),
    ((*GROUP, "lr"), ..., "optimizer_states, 0, 0, lr\n.*None"),
    ((*GROUP, "betas"), (0.9,), r"optimizer_states, 0, 0, betas\n.*\(0.9,\)\n.*2 values"),
    ((*GROUP, "params"), [0], r"optimizer_states, 0, params\n.*\[\[0\]\]\n.*\[\[0, 1\]\]"),
    ((*GROUP, "params"), [1, 0], r"optimizer_states, 0, params\n.*\[\[1, 0\]\]"),
    ((*GROUP, "amsgrad"), "no", "optimizer_states, 0, 0, amsgrad\n.*'no'\n.*true or false"),
    (("lr_schedulers",), [], "lr_schedulers\n.*\n.*a list of 1"),
    (("lr_schedulers", 0), 3, "lr_schedulers\n.*what cannot be restored"),
    ((*SCHEDULE, "last_epoch"), "x", "lr_schedulers, 0, last_epoch\n.*'x'"),
    ((*SCHEDULE, "base_lrs"), [], r"lr_schedulers, 0, base_lrs\n.*\[\]\n.*1 values"),
    (("callbacks",), [], "callbacks\n.*what cannot be restored"),
    (BEST, 3, "callbacks\n.*AttributeError"),
    ((*BEST, "best_score"), "x", "callbacks, RunCheckpoints, best_score\n.*'x'\n.*a number"),
    ((*STOPPING, "wait_count"), "x", "wait_count\n.*'x'\n.*a number"),
    ((*STOPPING, "best_score"), 1, "best_score\n.*1\n.*a tensor"),
    (("Alike", "done"), 3, "data module\n.*AssertionError"),
    (("Alike",), 7, "data module\n.*TypeError"),
    (("pytorch-lightning_version",), "x", "pytorch-lightning_version\n.*InvalidVersion"),
    (("pytorch-lightning_version",), ..., "pytorch-lightning_version\n.*KeyError"),
    ((*BEST, "metrics"), {"loss/val": "x"}, "callbacks\n.*what cannot be restored"),
    ((*BEST, "metrics"), {"loss/val": None}, "callbacks\n.*what cannot be restored .*loss/val is None"),
]


@pytest.mark.parametrize("value", [0.01, 0])
def test_settings_of_the_optimizer_that_are_others_are_no_fault(trained, goes_on, value):
    spoilt_once = spoilt(trained, (*GROUP, "weight_decay"), value)
    code, said = goes_on(spoilt(spoilt_once, (*GROUP, "fused"), None))
    assert code == 0, said


@pytest.mark.parametrize(("where", "value", "told"), CASES, ids=[f"{case[0][-1]} {n}" for n, case in enumerate(CASES)])
def test_a_spoilt_state_is_told_by_its_entry(trained, goes_on, where, value, told):
    code, said = goes_on(spoilt(trained, where, value))
    assert code == 2, said
    message = said[said.index(f"viscy: error: {LAST}") :]
    assert re.search(f"field .*{told}", message), message
    assert len(message) < 1500
    assert "Traceback" not in message


def test_what_is_as_it_was_saved_is_gone_on_with_as_in_an_unbroken_run(trained, goes_on):
    code, said = goes_on(trained)
    assert code == 0, said
    main(["fit", "-c", "fit.yml", "--run", "unbroken"])
    unbroken = LAST.replace("one", "unbroken")
    found, expected = (torch.load(path, weights_only=True) for path in (LAST, unbroken))
    assert found["callbacks"][STOPPING[1]] == expected["callbacks"][STOPPING[1]]
    torch.testing.assert_close(found["state_dict"], expected["state_dict"], rtol=0, atol=0)


def test_a_checkpoint_that_does_not_say_its_step_is_passed_over(trained, goes_on, caplog):
    code, said = goes_on(spoilt(trained, ("global_step",), "x"))
    assert code == 0, said
    assert f"passed over: {LAST} ('x')" in caplog.text


def test_metrics_of_the_epoch_before_are_there_at_its_end(trained, goes_on):
    """Early stopping asks for them: the checkpoint is of the end of a validation, which the run does not make again."""
    code, said = goes_on(spoilt(trained, (*BEST, "metrics"), {}))
    assert code == 2
    assert "'loss/val', which is not logged" in said
    assert trained["callbacks"]["RunCheckpoints"]["metrics"].keys() == {"loss/val"}
