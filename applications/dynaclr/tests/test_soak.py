"""Long runs: nothing grows over thousands of batches."""

from __future__ import annotations

import os
import statistics
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from dynaclr.datamodule import MultiExperimentDataModule

pytest_plugins = ["viscy_data.testing.fixtures"]
pytestmark = [
    pytest.mark.soak,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="counts are read from /proc"),
]

N_EPOCHS, BATCHES, WARM_UP = 25, 100, 8
GROWTH = 24 * 2**20  # bytes; a batch kept would be more than 100 MB at the end
PATCH = {"z_range": (0, 1), "yx_patch_size": (32, 32), "final_yx_patch_size": (24, 24)}


class Held(NamedTuple):
    """What the process holds at the end of an epoch."""

    files: int
    threads: int
    children: int
    resident: int


class Watch(Callback):
    """Note what is held after each epoch."""

    def __init__(self):
        self.seen: list[Held] = []

    def on_train_epoch_end(self, trainer, pl_module):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        files = len(os.listdir("/proc/self/fd"))
        self.seen.append(Held(files, threading.active_count(), len(children), pages * os.sysconf("SC_PAGE_SIZE")))


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
    begin, end = watch.seen[WARM_UP : WARM_UP + 4], watch.seen[-4:]
    for field in ("files", "threads", "children"):
        counts = [[getattr(held, field) for held in part] for part in (begin, end)]
        assert max(counts[1]) <= max(counts[0]) + 1, (field, watch.seen)
    grown = statistics.median(held.resident for held in end) - statistics.median(held.resident for held in begin)
    assert grown < GROWTH, watch.seen
    assert len(list(tmp_path.glob("*.ckpt"))) == 3
