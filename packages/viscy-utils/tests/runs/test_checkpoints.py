"""What is left to do after a checkpoint is done by the run that goes on from it."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from viscy_utils.runs.checkpoints import RunCheckpoints

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers", "ignore:GPU available"),
    pytest.mark.filterwarnings("ignore:.*litlogger", "ignore:You're resuming from a checkpoint that ended before"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:Checkpoint directory .* exists"),
]


class Alike(BoringDataModule):
    """All batches are alike: it does not matter that the loader cannot begin in the middle."""

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(4, 32))


class Events(Callback):
    """Write down what is done, in order."""

    def __init__(self):
        self.done = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.done.append(("train", trainer.current_epoch, batch_idx))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.done.append(("validate", trainer.current_epoch, trainer.global_step, batch_idx))


def fit(folder, ckpt_path=None, **options):
    events = Events()
    savers = [RunCheckpoints(folder), ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(
        **{"max_epochs": 2, "limit_val_batches": 2, "num_sanity_val_steps": 0, **quiet, **options},
        devices=1,
        callbacks=[events, *savers],
    )
    trainer.fit(BoringModel(), Alike(), ckpt_path=ckpt_path)
    return events.done


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 0.5}, {"check_val_every_n_epoch": 2}])
def test_from_each_step_on_all_steps_and_validations_follow(tmp_path, options):
    whole = fit(tmp_path / "whole", **options)
    assert len(whole) == 8 + {"val_check_interval": 8, "check_val_every_n_epoch": 2}.get(next(iter(options), ""), 4)
    trained = [place for place, event in enumerate(whole) if event[0] == "train"]
    for step in range(1, 9):
        left = fit(tmp_path / str(step), tmp_path / "whole" / f"step={step}.ckpt", **options)
        assert left == whole[trained[step - 1] + 1 :], step
    assert fit(tmp_path / "over", tmp_path / "whole" / "last.ckpt", **options) == []
