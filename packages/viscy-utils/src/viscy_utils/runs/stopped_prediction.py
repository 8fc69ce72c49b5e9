"""A prediction that ends when SIGTERM comes, as a job does whose time is over."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["StoppedPrediction"]


class StoppedPrediction(Callback):
    """End a prediction after the batch in progress when SIGTERM comes; Lightning would go on to its end.

    Attributes
    ----------
    is_stopping : bool
        Whether the signal has come.
    signal : int
        Its number; 0 before.
    """

    def __init__(self) -> None:
        self.is_stopping, self.signal = False, 0
        self._before: Any = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, the signal waits for the end of a batch."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_signal)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop, as after Ctrl-C: writers keep what is predicted."""
        if self.is_stopping:
            raise KeyboardInterrupt

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signal back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signal back."""
        self._restore()

    def _on_signal(self, number: int, *_: Any) -> None:
        self.is_stopping, self.signal = True, number
        sys.stderr.write(f"\n{signal.Signals(number).name}: stopping after this batch\n")

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        self._before = None
