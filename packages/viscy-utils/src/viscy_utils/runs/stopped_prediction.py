"""A prediction that ends when SIGTERM or SIGUSR1 comes, as to a job whose time is over."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from viscy_utils.lightning_workarounds import requeue_job

__all__ = ["StoppedPrediction"]

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class StoppedPrediction(Callback):
    """End a prediction when SIGTERM or SIGUSR1 comes: after the batch in progress, or at once where there is none.

    After SIGUSR1, which SLURM sends before the time of a job is over, the job is queued again. Entered as a context
    around the prediction, and the last of its callbacks: those that write have then kept what is predicted.

    Attributes
    ----------
    is_stopping : bool
        Whether a signal has come.
    signal : int
        The number of the first one; 0 before.
    """

    def __init__(self) -> None:
        self.is_stopping, self.signal = False, 0
        self._is_predicting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        """Take the signals."""
        self._before = self._take()

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, signals wait for the end of a batch, without the handler that Lightning has put before ours."""
        self._is_predicting = True
        self._take()

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop, as after Ctrl-C: writers keep what is predicted."""
        if self.is_stopping:
            raise KeyboardInterrupt

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, signals wait for nothing: what is left is to put together what is written."""
        self._is_predicting = False
        self.on_predict_batch_end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Queue a job again whose time was over."""
        if self.signal == getattr(signal, "SIGUSR1", None) and trainer.is_global_zero:
            requeue_job(trainer)

    def _take(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._on_signal) for number in _SIGNALS}

    def _on_signal(self, number: int, *_: Any) -> None:
        if self.is_stopping:
            return
        self.is_stopping, self.signal = True, number
        until = " after this batch" if self._is_predicting else ""
        sys.stderr.write(f"\n{signal.Signals(number).name}: stopping{until}\n")
        if not self._is_predicting:
            raise KeyboardInterrupt
