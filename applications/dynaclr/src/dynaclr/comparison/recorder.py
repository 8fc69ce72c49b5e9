"""Callbacks that make runs comparable and write down what they did."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from viscy_utils.reports.files import json_line

__all__ = ["EpochRecord", "EpochRecorder", "SameDataOrder", "observed_epochs", "read_records"]

_observer: ContextVar[Callable[[EpochRecord], None] | None] = ContextVar("observer", default=None)


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch came to.

    Parameters
    ----------
    epoch : int
        From 0.
    train_loss, val_loss : float or None
        Mean over the epoch. Of autoencoders the reconstruction, since the weight of the KL may change.
    confusion : list of list of int, or None
        Counts of true (rows) and predicted classes, of validation or else of training.
    latent_kl : list of float, or None
        Mean KL of each latent dimension.
    data_order : int
        Checksum of the training batches in their order.
    """

    epoch: int
    train_loss: float | None
    val_loss: float | None
    confusion: list[list[int]] | None
    latent_kl: list[float] | None
    data_order: int


_NAMES = [field.name for field in fields(EpochRecord)]


class SameDataOrder(Callback):
    """Start every epoch from a random state that depends on nothing but the seed and the epoch.

    What a variant draws while it is built or trained then does not change the batches of another epoch.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed what the first iterator over the data draws."""
        self._seed(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed the epoch."""
        self._seed(trainer.current_epoch)

    def _seed(self, epoch: int) -> None:
        state = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint32)
        seed_everything(int(state[0]), verbose=False)


class EpochRecorder(Callback):
    """Append a line of JSON to a file when an epoch is over, so that a run that stops leaves what it got to.

    Parameters
    ----------
    path : str
        Of the file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._checksum = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new file, unless the run continues a checkpoint."""
        if trainer.is_global_zero and trainer.current_epoch == 0:
            self.path.unlink(missing_ok=True)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Add a batch to the checksum."""
        for tensor in _tensors(batch):
            sample = tensor.detach().reshape(-1)[:256].float().cpu().numpy()
            self._checksum = zlib.crc32(sample.tobytes(), self._checksum)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the epoch before, of which everything has been logged by now."""
        if trainer.current_epoch:
            self._record(trainer, pl_module, trainer.current_epoch - 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the last epoch."""
        self._record(trainer, pl_module, max(trainer.current_epoch - 1, 0))

    def _record(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        if not trainer.is_global_zero:
            return
        metrics, latent_kl = getattr(pl_module, "figures", {}), getattr(pl_module, "latent_kl", {})
        last = next((metrics[stage] for stage in ("val", "train") if stage in metrics), None)
        kl = next((latent_kl[stage] for stage in ("val", "train") if stage in latent_kl), None)
        record = EpochRecord(
            epoch,
            _loss(trainer, "train"),
            _loss(trainer, "val"),
            None if last is None else last.confusion.tolist(),
            None if kl is None else kl.tolist(),
            self._checksum,
        )
        self._checksum = 0
        with self.path.open("a", encoding="utf8") as file:
            file.write(_line(record))
        observer = _observer.get()
        if observer is not None:
            observer(record)


@contextmanager
def observed_epochs(observer: Callable[[EpochRecord], None]) -> Iterator[None]:
    """Call a function with every record that is made meanwhile, such as one that moves a progress bar."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def read_records(path: Path) -> list[EpochRecord]:
    """Read the records of a run; none if it did not complete an epoch."""
    if not path.exists():
        return []
    return [_record(json.loads(line)) for line in path.read_text(encoding="utf8").splitlines()]


def _line(record: EpochRecord) -> str:
    """Write what a run has; null is a number that is not finite."""
    return json_line({name: value for name, value in asdict(record).items() if value is not None})


def _record(written: dict[str, Any]) -> EpochRecord:
    return EpochRecord(**{name: _finite_or_nan(written[name]) if name in written else None for name in _NAMES})


def _finite_or_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite_or_nan(entry) for entry in value]
    return math.nan if value is None else value


def _loss(trainer: Trainer, stage: str) -> float | None:
    for name in (f"loss/{stage}", f"loss/{stage}/reconstruction"):
        for key in (f"{name}_epoch", name):
            if key in trainer.callback_metrics:
                return float(trainer.callback_metrics[key])
    return None


def _tensors(batch: Any) -> Iterator[Tensor]:
    entries = batch.values() if isinstance(batch, Mapping) else batch
    for entry in [batch] if isinstance(batch, Tensor) else entries:
        if isinstance(entry, Tensor):
            yield entry
