"""Faults in a process: something that happens in a step of a training, and a kill at the n-th write."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

__all__ = ["Fault", "digest", "kill_at"]

_WRITING = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


def digest(value: Any) -> str:
    """Return a digest of all that is in a batch, to the last bit."""
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        array = value.detach().cpu().contiguous().numpy()
        found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            found.update(f"{key}:".encode())
            _feed(found, value[key])
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _feed(found, item)
    else:
        found.update(repr(value).encode())


class Fault(Callback):
    """Write down each step, and let something happen in one of them.

    Parameters
    ----------
    steps : str
        File of JSON lines, with the number of the rank behind its name: epoch, batch, digest of the batch, and loss to
        the last bit.
    hook : str, optional
        Name of the hook of a callback in which it happens.
    after : int, default 0
        Steps of the optimizer after which it does.
    kind : str, optional
        Name of a signal, ``full disk``, or ``error``.
    rank : int, optional
        To which it happens; all by default.
    """

    def __init__(
        self, steps: str, hook: str | None = None, after: int = 0, kind: str | None = None, rank: int | None = None
    ) -> None:
        self.steps, self.hook, self.after, self.kind, self.rank = steps, hook, after, kind, rank
        if hook is not None and hook != "on_train_batch_end":
            setattr(self, hook, lambda trainer, *args, **kwargs: self._happen(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write down the step."""
        step = [trainer.current_epoch, batch_idx, digest(batch), float(outputs["loss"]).hex()]
        with open(f"{self.steps}.{trainer.global_rank}", "a") as file:
            file.write(json.dumps(step) + "\n")
        if self.hook == "on_train_batch_end":
            self._happen(trainer)

    def _happen(self, trainer: Trainer) -> None:
        if self.kind is None or trainer.global_step != self.after or self.rank not in (None, trainer.global_rank):
            return
        if self.kind == "full disk":
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        elif self.kind == "error":
            raise ValueError("a rank has failed")
        else:
            os.kill(os.getpid(), getattr(signal, self.kind))
        self.kind = None


def kill_at(n: int, folder: str) -> None:
    """Be killed at the n-th time that something is about to be written below a folder.

    How often something was is written into ``<folder>.events``.

    Parameters
    ----------
    n : int
    folder : str
        With a slash at its end.
    """
    seen, counting = [0], [False]

    def audit(event: str, args: tuple) -> None:
        if counting[0]:
            return
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not writes and event not in _WRITING:
            return
        if any(isinstance(arg, str | os.PathLike) and str(arg).startswith(folder) for arg in args):
            seen[0] += 1
            if seen[0] == n:
                os.kill(os.getpid(), signal.SIGKILL)
            counting[0] = True
            Path(f"{folder.rstrip('/')}.events").write_text(str(seen[0]))
            counting[0] = False

    sys.addaudithook(audit)
