"""Long runs: nothing grows over thousands of batches, and nothing is left behind when a process is killed."""

from __future__ import annotations

import mmap
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from dynaclr.datamodule import MultiExperimentDataModule

pytest_plugins = ["viscy_data.testing.fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts are read from /proc")

N_EPOCHS, BATCHES, WARM_UP = 25, 100, 8
GROWTH = 24 * 2**20  # bytes; a batch kept would be more than 100 MB at the end
PATCH = {"z_range": (0, 1), "yx_patch_size": (32, 32), "final_yx_patch_size": (24, 24)}


class Held(NamedTuple):
    """What the process holds at the end of an epoch."""

    files: int
    threads: int
    children: int
    resident: int

    @classmethod
    def now(cls) -> Held:
        """Measure."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        files = len(os.listdir("/proc/self/fd"))
        return cls(files, threading.active_count(), len(children), pages * os.sysconf("SC_PAGE_SIZE"))


def refuse_growth(seen: list[Held]) -> None:
    """Compare the last epochs with those after the first ones."""
    begin, end = seen[WARM_UP : WARM_UP + 4], seen[-4:]
    for field in ("files", "threads", "children"):
        counts = [[getattr(held, field) for held in part] for part in (begin, end)]
        # Workers that are about to end hold files for a moment; what is kept stays in the smallest count as well.
        assert min(counts[1]) <= min(counts[0]) + 1, (field, seen)
    grown = statistics.median(held.resident for held in end) - statistics.median(held.resident for held in begin)
    assert grown < GROWTH, ("resident", seen)


def _file(kept: list) -> None:
    kept.append(open(os.devnull))


def _thread(kept: list) -> None:
    kept.append(threading.Event())
    threading.Thread(target=kept[-1].wait, daemon=True).start()


def _child(kept: list) -> None:
    kept.append(subprocess.Popen(["sleep", "60"]))


def _memory(kept: list) -> None:
    kept.append(mmap.mmap(-1, 2**22))  # of its own: a heap may have room from before
    kept[-1].write(b"x" * len(kept[-1]))


LEAKS = {"files": _file, "threads": _thread, "children": _child, "resident": _memory}


@pytest.mark.parametrize("field", LEAKS)
def test_a_leak_is_noticed(field):
    kept = []
    try:
        seen = []
        for _ in range(N_EPOCHS):
            LEAKS[field](kept)
            seen.append(Held.now())
        with pytest.raises(AssertionError, match=f"'{field}'"):
            refuse_growth(seen)
    finally:
        for own in kept:
            if isinstance(own, threading.Event):
                own.set()
            elif isinstance(own, subprocess.Popen):
                own.kill()
                own.wait()
            elif hasattr(own, "close"):
                own.close()


def test_what_comes_and_goes_is_no_leak():
    seen = []
    for epoch in range(N_EPOCHS):
        kept = []
        for _ in range(1 + epoch % 3):
            _file(kept)
        passing = b"x" * (2**21 * (1 + epoch % 3))
        seen.append(Held.now())
        del passing
        for own in kept:
            own.close()
    refuse_growth(seen)


class Watch(Callback):
    """Note what is held after each epoch."""

    def __init__(self):
        self.seen: list[Held] = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen.append(Held.now())


class Small(LightningModule):
    """A network of one convolution, so that nearly all of the time goes into batches."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv3d(2, 4, (1, 3, 3))

    def training_step(self, batch, batch_idx):
        loss = (self.layer(batch["anchor"]) - self.layer(batch["positive"])).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val", self.layer(batch["anchor"]).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Slow(Small):
    """Takes its time, so that whatever is killed is killed within an epoch, when all workers are there.

    Between two epochs, or two workers, another server is started for one that is gone, and the training goes on.
    """

    def training_step(self, batch, batch_idx):
        time.sleep(0.5)
        if batch_idx == 2:
            Path("has_begun").touch()
        return super().training_step(batch, batch_idx)


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*bottleneck")
def test_nothing_grows_over_thousands_of_batches(synthetic_experiments, tmp_path):
    path = str(synthetic_experiments(2).yaml)
    data = MultiExperimentDataModule(path, **PATCH, val_experiments=["second"], batch_size=4, num_workers=1)
    watch = Watch()
    kept = ModelCheckpoint(tmp_path, every_n_train_steps=BATCHES // 2, save_top_k=2, monitor="loss", save_last=True)
    Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=N_EPOCHS,
        limit_train_batches=BATCHES,
        limit_val_batches=5,
        reload_dataloaders_every_n_epochs=1,  # workers end with each epoch and begin again
        logger=False,
        callbacks=[watch, kept],
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Small(), data)
    assert len(watch.seen) == N_EPOCHS
    refuse_growth(watch.seen)
    assert len(list(tmp_path.glob("*.ckpt"))) == 3


def _members(session: int) -> dict[int, str]:
    """Return the living processes of a session with their command lines."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = stat.read_text().rpartition(")")[2].split()[:4]
            if int(own) == session and state != "Z":
                found[int(stat.parent.name)] = (stat.parent / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _roles(session: int) -> dict[str, int]:
    """Tell command, server of the workers and a worker of it from each other."""
    members = _members(session)
    server = [pid for pid, line in members.items() if "forkserver" in line and _parent(pid) == session]
    workers = [pid for pid in members if server and _parent(pid) == server[0]]
    return {"command": session} | {"server": server[0], "worker": workers[0]} if workers else {}


def _within(seconds: float, condition) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return False


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("role", ["command", "server", "worker"])
def test_no_process_is_left_when_one_is_killed(synthetic_experiments, tmp_path, role):
    config = {
        "data": {
            "class_path": "dynaclr.datamodule.MultiExperimentDataModule",
            "init_args": {
                "experiments_yaml": str(synthetic_experiments(2).yaml),
                **{name: list(value) for name, value in PATCH.items()},
                "val_experiments": ["second"],
                "batch_size": 4,
                "num_workers": 2,
            },
        },
        "model": {"class_path": "applications.dynaclr.tests.test_soak.Slow"},
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1000,
            "num_sanity_val_steps": 0,
            "logger": False,
            "enable_progress_bar": False,
        },
    }
    (tmp_path / "fit.yml").write_text(yaml.safe_dump(config))
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    with (tmp_path / "said.txt").open("w") as said:
        running = subprocess.Popen(
            [sys.executable, "-m", "dynaclr", "fit", "--config", "fit.yml", "--run", "soak"],
            cwd=tmp_path,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        assert _within(240, lambda: (tmp_path / "has_begun").exists() or running.poll() is not None)
        assert running.poll() is None, (tmp_path / "said.txt").read_text()
        os.kill(_roles(running.pid)[role], signal.SIGKILL)
        assert _within(60, lambda: running.poll() is not None), (tmp_path / "said.txt").read_text()
        assert _within(30, lambda: not _members(running.pid)), _members(running.pid)
        assert running.returncode != 0
    finally:
        for pid in _members(running.pid):
            os.kill(pid, signal.SIGKILL)
        running.wait()
