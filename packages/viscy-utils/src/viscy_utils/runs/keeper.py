"""Keeps the record of a run while it trains: configuration, versions, data, log, checkpoints, and how it ended."""

from __future__ import annotations

import logging
import shlex
import sys
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import IO

from lightning.pytorch import Callback, LightningModule, Trainer

from viscy_data.errors import InputError
from viscy_data.files import replacing
from viscy_data.stores import left_out_text
from viscy_utils.lightning_workarounds import WatchedSaves
from viscy_utils.runs.folder import CONFIG, place_in, read_run, update_record
from viscy_utils.runs.nonfinite import write_nonfinite_cells
from viscy_utils.runs.versions import package_versions
from viscy_utils.training.finite import NonFiniteError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["RunKeeper", "is_trained_in"]

_LOG, _CELLS = "train.log", "nonfinite_cells"

_logger = logging.getLogger(__name__)


class RunKeeper(Callback):
    """Write what belongs to a run into its folder; the first rank does.

    Parameters
    ----------
    folder : str or Path
        Claimed for this run, or that of the run that goes on.
    config : str
        The resolved configuration, as YAML.
    """

    def __init__(self, folder: str | Path, config: str) -> None:
        self.folder, self.config = Path(folder), config
        self._saves: WatchedSaves | None = None
        self._log: logging.Handler | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin the record, once the data are set up."""
        if stage != "fit":
            return
        self.folder = trainer.strategy.broadcast(self.folder)  # the first rank has made it
        if not trainer.is_global_zero:
            return
        self._open_log()
        # The data were set up before there was a log; which FOVs are in is decided there, and does not change any more.
        if left_out := getattr(trainer.datamodule, "left_out_fovs", {}):
            _logger.warning(left_out_text(left_out, shown=len(left_out)))
        begun = read_run(self.folder).record
        now = _now()
        name = self._name_of_next_config(now) if begun else CONFIG  # a run that goes on keeps both
        with replacing(self.folder / name) as temporary:
            temporary.write_text(self.config, encoding="utf-8")
        describe = getattr(trainer.datamodule, "data_record", None)
        update_record(
            self.folder,
            started=begun.get("started", now),
            continued=[*begun.get("continued", []), *([now] if begun else [])],
            ended=None,
            status="running",
            command=shlex.join(sys.argv),
            folder_of_command=str(Path.cwd()),
            config=name,
            versions=package_versions(),
            data=describe() if describe is not None else None,
        )
        self._saves = WatchedSaves(trainer, self._on_saved)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say in the record why the run has ended; every rank names its cells."""
        if isinstance(exception, NonFiniteError):
            self._name_cells(trainer, exception)
        if self._saves is not None:  # the checkpoint of an interruption is still to come
            is_interrupted = isinstance(exception, KeyboardInterrupt)
            error = None if is_interrupted else f"{type(exception).__name__}: {exception}"
            status = "interrupted" if is_interrupted else "failed"
            try:
                update_record(self.folder, ended=_now(), status=status, error=error, steps=trainer.global_step)
            except OSError as err:  # the full disk that has ended the run, which is what the user has to be told of
                _logger.warning("the record of the run could not be written (%s)", err)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say in the record that the run has ended."""
        if self._saves is not None:
            update_record(self.folder, ended=_now(), status="finished", steps=trainer.global_step)
            self.close()

    def close(self) -> None:
        """Close the log."""
        if self._saves is not None:
            self._saves.stop()
        if self._log is not None:
            logging.getLogger().removeHandler(self._log)
            self._log.close()
        self._log = self._saves = None

    def _name_cells(self, trainer: Trainer, error: NonFiniteError) -> None:
        path = self.folder / (f"{_CELLS}.csv" if trainer.is_global_zero else f"{_CELLS}-rank{trainer.global_rank}.csv")
        try:
            n_rows = write_nonfinite_cells(path, error, trainer.datamodule)
        except OSError as err:
            _logger.warning("the cells could not be written (%s)", err)
        else:
            error.add_note(f"{n_rows} images of this step that may be the cause are listed in {path}")

    def _open_log(self) -> None:
        """Open the log, which belongs to one process at a time: the system gives it free when the process is gone."""
        log = logging.FileHandler(self.folder / _LOG, encoding="utf-8")
        if not _is_ours(log.stream):
            log.close()
            raise InputError(
                str(self.folder),
                field="run",
                found="a training that is still going on in this folder",
                expected="one that has ended",
                fix="wait for its end, or give the new run a name of its own with --run",
            )
        log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(log)
        self._log = log

    def _name_of_next_config(self, now: str) -> str:
        stem = f"{Path(CONFIG).stem}-{now.replace(':', '')}"
        names = chain([f"{stem}.yaml"], (f"{stem}-{number}.yaml" for number in count(2)))
        return next(name for name in names if not (self.folder / name).exists())

    def _on_saved(self, trainer: Trainer, path: str) -> None:
        """Record what there is now: whatever is neither the best nor the last one is another one."""
        savers = trainer.checkpoint_callbacks
        best = [saver.best_model_path for saver in savers if getattr(saver, "monitor", None) is not None]
        last = [getattr(saver, "last_model_path", "") for saver in savers]
        kinds = {"best": self._existing(best), "last": self._existing(last)}
        others = read_run(self.folder).record.get("checkpoints", {}).get("other", [])
        if place_in(self.folder, path) not in [*kinds["best"], *kinds["last"], *others]:
            others = [*others, place_in(self.folder, path)]
        update_record(self.folder, checkpoints={**kinds, "other": others})

    def _existing(self, paths: list[str]) -> list[str]:
        return [place_in(self.folder, path) for path in paths if path and Path(path).exists()]


def is_trained_in(folder: Path) -> bool:
    """Tell whether a process, this one or another, trains in the folder of a run."""
    try:
        with open(folder / _LOG, "r+", encoding="utf-8") as log:
            return not _is_ours(log)
    except FileNotFoundError:
        return False


def _is_ours(stream: IO[str]) -> bool:
    """Lock a file; true as well where there are no locks, as on Windows and some file systems of clusters."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
