"""A model that keeps the batches it is given, and a trainer that is quiet: for tests of data modules.

>>> recorder = Recorder()
>>> quiet_trainer(max_epochs=1).max_epochs, recorder.seen["train"]
(1, [])
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

__all__ = ["Recorder", "StopAfter", "last_image", "quiet_trainer"]


def last_image(batch: Any) -> Tensor:
    """Return the last tensor of a batch, wherever it is: the one that most is random about."""
    if isinstance(batch, dict):
        batch = [value for value in batch.values() if isinstance(value, Tensor)][::-1]
    return batch if isinstance(batch, Tensor) else last_image(batch[0])


def _copy_of_last(batch: Any) -> Tensor:
    return last_image(batch).clone()


class Recorder(LightningModule):
    """Keep something of every batch, by stage, and train one weight that has nothing to learn.

    Parameters
    ----------
    keep : callable, optional
        What is kept of a batch: a copy of its :func:`last_image` by default; ``dict`` keeps all of it.
    asks_for_steps : bool, default False
        Ask for the number of steps before a checkpoint is read, as schedules of learning rates do.

    Attributes
    ----------
    seen : dict of str to list
        For ``train``, ``val``, ``test`` and ``predict``.
    """

    def __init__(self, asks_for_steps: bool = False, keep: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.keep = _copy_of_last if keep is None else keep
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[Any]] = {"train": [], "val": [], "test": [], "predict": []}
        self.asks_for_steps = asks_for_steps

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Keep the batch."""
        self.seen["train"].append(self.keep(batch))
        return self.weight * last_image(batch).double().mean().float()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep the batch."""
        self.seen["val"].append(self.keep(batch))

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep the batch."""
        self.seen["test"].append(self.keep(batch))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> int:
        """Keep the batch."""
        self.seen["predict"].append(self.keep(batch))
        return 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return an optimizer of the weight."""
        if self.asks_for_steps:
            assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.SGD(self.parameters(), lr=0.1)


class StopAfter(Callback):
    """Write a checkpoint after some batches and die, as a job does whose time is over.

    Parameters
    ----------
    path : str or Path
        Of the checkpoint.
    n_batches : int
        Batches of training.
    """

    def __init__(self, path: str | Path, n_batches: int) -> None:
        self.path, self.n_batches = path, n_batches

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop."""
        if trainer.global_step == self.n_batches:
            trainer.save_checkpoint(self.path)
            raise SystemExit(1)


def quiet_trainer(**options: Any) -> Trainer:
    """Return a trainer of two epochs on the CPU that writes nothing."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"max_epochs": 2, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    return Trainer(**quiet | options)
