"""What Lightning does otherwise than is needed here, each with what is done about it.

Each piece relies on some behaviour of Lightning that is not its documented interface; a test states that behaviour, so
that a release which changes it is noticed.
"""

from __future__ import annotations

import logging
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from viscy_data.files import has_no_room, replacing

__all__ = [
    "NoBatchTracking",
    "WatchedSaves",
    "WholeCheckpointIO",
    "around_restoring",
    "before_loaders_of_prediction",
    "count_validation_anew",
    "owe_validation",
    "prepare_batch",
    "requeue_job",
    "save_on_one_rank",
    "validating",
    "without_advertisements",
    "without_broadcasts_of_signals",
]

_logger = logging.getLogger(__name__)

_MESSAGES = tuple(f"lightning.{name}" for name in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero"))
_OF_TRAINING = (*_MESSAGES, "lightning.fabric.utilities.seed")
_UNHELPFUL = (
    r".*callbacks used to create the checkpoint need to be provided.*",  # of a prediction with a checkpoint of fit
    r".*does not have many workers.*",  # batches are read in a background thread
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*LightningCLI's args parameter is intended to run from within Python.*",
    r".*Could not find any nodes of type.*",
    r".*in eval mode at the start of training.*",  # a frozen encoder, on purpose
)
_UNASKED = ("Tip: For seamless", "TPU available: False")


class WatchedSaves:
    """Calls back after each checkpoint that a trainer has saved, on all ranks.

    Lightning has no hook for that: ``on_save_checkpoint`` comes before the file and before it is known where it goes,
    and not at all when only weights are saved; callbacks that poll `ModelCheckpoint` miss what others save.

    Parameters
    ----------
    trainer : Trainer
    then : callable
        Called with the trainer and the path.
    """

    def __init__(self, trainer: Trainer, then: Callable[[Trainer, str], None]) -> None:
        self._trainer, self._then = trainer, then
        self._previous = vars(trainer).get("save_checkpoint")
        self._save = trainer.save_checkpoint
        trainer.save_checkpoint = self

    def __call__(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save as the trainer does, then call back."""
        self._save(filepath, *args, **kwargs)
        if self._then is not None:
            self._then(self._trainer, os.fspath(filepath))

    def stop(self) -> None:
        """Call back no more."""
        self._then = None
        if vars(self._trainer).get("save_checkpoint") is self:
            del self._trainer.save_checkpoint
            if self._previous is not None:
                self._trainer.save_checkpoint = self._previous


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it.

    Lightning writes its files through the temporary folder of the system: from another disk they are copied into place,
    and a run killed meanwhile leaves half of one; and it holds a second copy of them in memory.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the file whole or not at all; what is behind a URL as Lightning does."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            with replacing(path, overwrite=True) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as err:  # torch has its own words for a disk that is full
            if isinstance(err, OSError) and not has_no_room(err):
                raise
            raise OSError(f"{path} could not be written, and is as it was; is the disk full? ({err})") from err

    @classmethod
    def install(cls, trainer: Trainer) -> None:
        """Let a trainer save that way, unless its settings or its strategy bring a way of their own."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = cls()


class NoBatchTracking:
    """In place of a prediction writer's ``interval``: Lightning's own bookkeeping warns without a sampler it knows."""

    on_batch = on_epoch = False


def before_loaders_of_prediction(trainer: Trainer, then: Callable[[], None]) -> None:
    """Call back once, when the weights of a prediction are loaded and its loaders are not yet made.

    Lightning has no hook there: set-up comes before the weights, and ``on_predict_start`` when loaders already read.
    """
    loop = trainer.predict_loop
    make_loaders = loop.setup_data

    def setup_data() -> None:
        vars(loop).pop("setup_data", None)
        then()
        make_loaders()

    loop.setup_data = setup_data


def around_restoring(trainer: Trainer, around: Callable[[str, Any], AbstractContextManager]) -> None:
    """Let what Lightning restores of a training happen within contexts, one for each entry of the checkpoint.

    Its hooks come before or after some of that, and it has none for loops, optimizers and schedules.

    Parameters
    ----------
    trainer : Trainer
    around : callable
        Called with the name of the entry and its value, where the checkpoint has one of that name; returns a context.
    """
    connector = trainer._checkpoint_connector
    parts = {
        "resume_start": "pytorch-lightning_version",
        "restore_datamodule": "data module",
        "restore_callbacks": "callbacks",
        "restore_precision_plugin_state": "precision",
        "restore_loops": "loops",
        "restore_optimizers_and_schedulers": "optimizer_states and lr_schedulers",
        "restore_optimizers": "optimizer_states",
        "restore_lr_schedulers": "lr_schedulers",
    }

    def within(entry: str, restore: Callable) -> Callable:
        def restored(*args: Any, **kwargs: Any) -> None:
            with around(entry, connector._loaded_checkpoint.get(entry)):
                restore(*args, **kwargs)

        return restored

    for name, entry in parts.items():
        setattr(connector, name, within(entry, getattr(connector, name)))
    of_loaders = "_load_combined_loader_states"  # later than all others, when there are loaders
    setattr(trainer.fit_loop, of_loaders, within("place in the epoch", getattr(trainer.fit_loop, of_loaders)))


def save_on_one_rank(trainer: Trainer, path: str | os.PathLike) -> None:
    """Save a checkpoint without waiting for the other ranks, which may be gone after Ctrl-C."""
    if trainer.world_size == 1:
        trainer.save_checkpoint(path, weights_only=False)
    elif trainer.is_global_zero:
        trainer.strategy.save_checkpoint(trainer._checkpoint_connector.dump_checkpoint(False), path)


def owe_validation(trainer: Trainer, checkpoint: dict[str, Any], is_validating: bool) -> None:
    """Let a run that goes on from a checkpoint begin with the validation that comes next, where one does.

    Lightning leaves it out: it goes back to a validation only if it was interrupted within a step of it.

    Parameters
    ----------
    trainer : Trainer
    checkpoint : dict
        About to be saved; what it says of the loops is changed.
    is_validating : bool
        Whether a validation has begun and is not over.
    """
    loop = trainer.fit_loop.epoch_loop
    current = loop.batch_progress.current
    after_batch = current.processed == current.ready > current.completed
    if not is_validating and not (after_batch and loop._should_check_val_fx(trainer.fit_loop._data_fetcher)):
        return
    state = checkpoint["loops"]["fit_loop"]
    for count in ("total", "current"):
        progress = state["epoch_loop.batch_progress"][count]
        progress["completed"] = progress["processed"]
    validation = state["epoch_loop.val_loop.batch_progress"]
    validation["current"] = dict.fromkeys(validation["current"], 0)
    validation["total"] = {**validation["current"], "ready": 1, "started": 1}


def begin_next_epoch(trainer: Trainer) -> None:
    """Let a run that goes on from after the last batch of an epoch begin the next one.

    Lightning counts the epoch as ended, but takes the next one for one that it is in the middle of, not one that it
    begins. A run that is stopped in the middle of a later epoch then goes on with its batches numbered from 0.
    """
    loop, progress = trainer.fit_loop, trainer.fit_loop.epoch_progress.current
    if loop.restarted_mid_epoch and progress.processed == progress.ready:
        loop.reset_restart_stage()


def count_validation_anew(trainer: Trainer) -> None:
    """Forget the batch that was not ended when a checkpoint was saved: the next one would seem to be of that moment."""
    total = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
    if total.ready != total.completed:
        total.reset()


@contextmanager
def without_broadcasts_of_signals(trainer: Trainer) -> Iterator[None]:
    """Keep Lightning from asking the first rank before each batch whether it has got a SIGTERM."""
    loop, name = trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor"
    setattr(loop, name, lambda: None)
    try:
        yield
    finally:
        vars(loop).pop(name, None)


def requeue_job(trainer: Trainer) -> None:
    """Queue the job of a trainer again, if SLURM runs it and may.

    Lightning does so while it handles the signal, in the middle of a step, with a checkpoint of weights that are half
    updated.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as err:
        _logger.warning("job %s could not be queued again (%s %s)", job, err, getattr(err, "stderr", None) or "")
    else:
        _logger.info("job %s is queued again", job)


@contextmanager
def validating(trainer: Trainer) -> Iterator[None]:
    """Let data modules believe that a validation batch comes: they augment those of the training."""
    stage = trainer.state.stage
    trainer.validating = True
    try:
        yield
    finally:
        trainer.state.stage = stage


def prepare_batch(trainer: Trainer, batch: Any) -> Any:
    """Bring a batch to the device as the loops of Lightning do."""
    batch = trainer.precision_plugin.convert_input(batch)
    hook, data = "on_before_batch_transfer", trainer.datamodule
    owner = data if data is not None and is_overridden(hook, data) else trainer.lightning_module
    return trainer.strategy.batch_to_device(owner.on_before_batch_transfer(batch, 0), dataloader_idx=0)


@contextmanager
def without_advertisements(chatty: bool = True) -> Iterator[None]:
    """Keep away tips for products, and warnings about what is meant to be so.

    Parameters
    ----------
    chatty : bool, default True
        False also keeps away what Lightning says of devices and seeds, for commands that train and predict nothing.
    """
    loggers = [logging.getLogger(name) for name in _MESSAGES]
    levels = {name: logging.getLogger(name).level for name in (() if chatty else _OF_TRAINING)}
    for name in levels:
        logging.getLogger(name).setLevel(logging.WARNING)
    for logger in loggers:
        logger.addFilter(_is_no_tip)
    try:
        with warnings.catch_warnings():
            for message in _UNHELPFUL:
                warnings.filterwarnings("ignore", message=message)
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_no_tip)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _is_no_tip(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _UNASKED)
