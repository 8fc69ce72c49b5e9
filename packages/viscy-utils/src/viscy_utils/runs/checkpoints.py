"""The checkpoints of a run: ``last.ckpt``, ``best.ckpt``, and one more when the run is stopped by a signal."""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from viscy_utils.lightning_workarounds import (
    begin_next_epoch,
    count_validation_anew,
    owe_validation,
    requeue_job,
    save_on_one_rank,
    without_broadcasts_of_signals,
)
from viscy_utils.runs.agreement import Agreement

__all__ = ["MONITORED", "RunCheckpoints"]

MONITORED = ("loss/val", "val_loss", "val/loss", "loss/validate")
"""Metrics whose smallest value makes the best checkpoint; the first that is logged counts."""

_logger = logging.getLogger(__name__)
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class RunCheckpoints(Checkpoint):
    """Save ``last.ckpt`` after every epoch, and ``best.ckpt`` when a metric is the smallest so far.

    Ctrl-C, SIGTERM and SIGUSR1 let the step in progress end and save; a second Ctrl-C stops at once, and saves as well.
    After SIGUSR1, which SLURM sends before the time of a job is over, the job is queued again. With several ranks it is
    enough that one gets the signal: they tell each other about once a second, and stop after the same step. A run that
    goes on makes the validation that it was stopped in, or before.

    Parameters
    ----------
    dirpath : str or Path
        Where they go.
    regular : bool, default True
        False saves at an interruption only, to ``interrupted.ckpt``, for runs with checkpoints of their own.
    monitored : sequence of str, optional
        Names of metrics, as in ``MONITORED``.

    Attributes
    ----------
    is_stopping : bool
        Whether a signal has come.
    signal : int
        The one that came first, to whichever rank; 0 before.
    """

    def __init__(self, dirpath: str | Path, regular: bool = True, monitored: Sequence[str] = MONITORED) -> None:
        self.dirpath, self.regular, self.monitored = str(dirpath), regular, tuple(monitored)
        self.monitor: str | None = None
        self._until = "this step"
        self.best_score = math.inf
        self.is_stopping = False
        self.signal = 0
        self._handlers: dict[int, Any] = {}
        self._while_training = ExitStack()
        self._agreement, self._is_validating = Agreement(), False
        self._step = self._validated_step = -1
        self._metrics: dict[str, torch.Tensor] = {}

    @property
    def best_model_path(self) -> str:
        """Path of the best checkpoint, whether there is one or not."""
        return str(Path(self.dirpath, "best.ckpt"))

    @property
    def last_model_path(self) -> str:
        """Path of the last checkpoint, whether there is one or not."""
        return str(Path(self.dirpath, "last.ckpt" if self.regular else "interrupted.ckpt"))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Agree on the folder: the first rank has made it."""
        self.dirpath = trainer.strategy.broadcast(self.dirpath)
        self._until = "this step" if trainer.world_size == 1 else "the step in which all ranks know of it"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, signals wait for the end of a step; metrics are those of the run that goes on."""
        trainer.callback_metrics.update(self._metrics)
        begin_next_epoch(trainer)
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
            self._while_training.enter_context(without_broadcasts_of_signals(trainer))
        self._agreement, self._is_validating = Agreement(), False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember where the step began."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop where no gradient is left half accumulated."""
        if trainer.global_step != self._step:
            self._stop_if_asked(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, a checkpoint is one of a validation that is to be made again."""
        if _is_training(trainer):
            self._is_validating = True
            count_validation_anew(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, the validation is made."""
        self._is_validating = False

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop in the middle of a validation, which a continued run begins anew."""
        if _is_training(trainer):
            self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after a validation, which has told how good the model is."""
        if self.regular and _is_training(trainer) and trainer.global_step:
            self._validated_step = trainer.global_step
            self._save_best(trainer)
            trainer.save_checkpoint(self.last_model_path, weights_only=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after an epoch that has not ended with a validation."""
        if self.regular and _is_training(trainer) and self._validated_step != trainer.global_step:
            trainer.save_checkpoint(self.last_model_path, weights_only=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what has been trained before an interrupted run ends."""
        self._restore()
        if self.is_stopping or isinstance(exception, KeyboardInterrupt):
            self.is_stopping = True
            if _is_training(trainer) and trainer.global_step:
                save_on_one_rank(trainer, self.last_model_path)
            if self.signal == getattr(signal, "SIGUSR1", None) and trainer.is_global_zero:
                requeue_job(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let a continued run begin with the validation that is still to come, and with the metrics that there are.

        One that was saved after a validation goes on with the end of the epoch, where early stopping asks for them.
        """
        if _is_training(trainer):
            owe_validation(trainer, checkpoint, self._is_validating)
            metrics = {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()}
            checkpoint["callbacks"][self.state_key]["metrics"] = metrics

    def state_dict(self) -> dict[str, Any]:
        """Keep what is the best so far for a continued run."""
        return {"monitor": self.monitor, "best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best so far, if this run continues in the same folder, and from the metrics."""
        metrics = state_dict.get("metrics", {})
        if wrong := [name for name, value in metrics.items() if not isinstance(value, torch.Tensor | float | int)]:
            raise ValueError(f"the metric {wrong[0]} is {metrics[wrong[0]]!r} and no number")
        self._metrics = {name: torch.as_tensor(value) for name, value in metrics.items()}
        if Path(self.best_model_path).exists():
            self.monitor, self.best_score = state_dict["monitor"], state_dict["best_score"]

    def _save_best(self, trainer: Trainer) -> None:
        metrics = trainer.callback_metrics
        self.monitor = self.monitor or next((name for name in self.monitored if name in metrics), None)
        score = float(metrics[self.monitor]) if self.monitor in metrics else math.inf
        if trainer.strategy.reduce_boolean_decision(score < self.best_score):  # metrics of ranks may differ
            self.best_score = score
            trainer.save_checkpoint(self.best_model_path, weights_only=False)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        """Stop on all ranks where one is asked to: a rank that went on would wait for the others."""
        number = self._agreement.largest(trainer, self.signal)
        if number:
            self.is_stopping, self.signal = True, number
            raise KeyboardInterrupt

    def _on_signal(self, number: int, *_: Any) -> None:
        if self.is_stopping:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.is_stopping, self.signal = True, number
        again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
        sys.stderr.write(f"\n{signal.Signals(number).name}: stopping after {self._until}{again}\n")

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            if handler is not None and signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        self._handlers = {}
        self._while_training.close()


def _is_training(trainer: Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking and not trainer.fast_dev_run
