"""The checkpoints of a run: ``last.ckpt``, ``best.ckpt``, and one more when the run is interrupted."""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from viscy_utils.lightning_workarounds import save_on_one_rank

__all__ = ["MONITORED", "RunCheckpoints"]

MONITORED = ("loss/val", "val_loss", "val/loss", "loss/validate")
"""Metrics whose smallest value makes the best checkpoint; the first that is logged counts."""

_logger = logging.getLogger(__name__)


class RunCheckpoints(Checkpoint):
    """Save ``last.ckpt`` after every epoch, and ``best.ckpt`` when a metric is the smallest so far.

    Ctrl-C lets the step in progress end and saves; a second one stops at once, and saves as well.

    Parameters
    ----------
    dirpath : str or Path
        Where they go.
    regular : bool, default True
        False saves at an interruption only, to ``interrupted.ckpt``, for runs with checkpoints of their own.
    monitored : sequence of str, optional
        Names of metrics, as in ``MONITORED``.
    """

    def __init__(self, dirpath: str | Path, regular: bool = True, monitored: Sequence[str] = MONITORED) -> None:
        self.dirpath, self.regular, self.monitored = str(dirpath), regular, tuple(monitored)
        self.monitor: str | None = None
        self.best_score = math.inf
        self.is_stopping = False
        self._handler: Any = None
        self._step = self._validated_step = -1

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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, Ctrl-C waits for the end of a step."""
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._on_ctrl_c)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember where the step began."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop where no gradient is left half accumulated."""
        if self.is_stopping and trainer.global_step != self._step:
            raise KeyboardInterrupt

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop in the middle of a validation, which a continued run begins anew."""
        if self.is_stopping:
            raise KeyboardInterrupt

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
        """Give Ctrl-C back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what has been trained before an interrupted run ends."""
        self._restore()
        if self.is_stopping or isinstance(exception, KeyboardInterrupt):
            self.is_stopping = True
            if _is_training(trainer) and trainer.global_step:
                save_on_one_rank(trainer, self.last_model_path)

    def state_dict(self) -> dict[str, Any]:
        """Keep what is the best so far for a continued run."""
        return {"monitor": self.monitor, "best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best so far, if this run continues in the same folder."""
        if Path(self.best_model_path).exists():
            self.monitor, self.best_score = state_dict["monitor"], state_dict["best_score"]

    def _save_best(self, trainer: Trainer) -> None:
        metrics = trainer.callback_metrics
        self.monitor = self.monitor or next((name for name in self.monitored if name in metrics), None)
        score = float(metrics[self.monitor]) if self.monitor in metrics else math.inf
        if trainer.strategy.reduce_boolean_decision(score < self.best_score):  # metrics of ranks may differ
            self.best_score = score
            trainer.save_checkpoint(self.best_model_path, weights_only=False)

    def _on_ctrl_c(self, *_: Any) -> None:
        if self.is_stopping:
            raise KeyboardInterrupt
        self.is_stopping = True
        sys.stderr.write("\nstopping after this step; Ctrl-C again stops at once\n")

    def _restore(self) -> None:
        if self._handler is not None and signal.getsignal(signal.SIGINT) == self._on_ctrl_c:
            signal.signal(signal.SIGINT, self._handler)
        self._handler = None


def _is_training(trainer: Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking and not trainer.fast_dev_run
