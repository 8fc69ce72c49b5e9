"""What a trainer gets beside what its configuration names: loggers, checkpoints and records of a run, and a writer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import BasePredictionWriter, Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.model_helpers import is_overridden

from viscy_data.files import refuse_existing
from viscy_utils.callbacks.embedding_writer import EmbeddingWriter
from viscy_utils.runs.checkpoints import RunCheckpoints
from viscy_utils.runs.folder import CHECKPOINTS, Run
from viscy_utils.runs.keeper import RunKeeper

__all__ = ["added_writer", "callbacks_of_run", "default_logger"]

_logger = logging.getLogger(__name__)
_ELSEWHERE = "--trainer.callbacks+=viscy_utils.callbacks.EmbeddingWriter --trainer.callbacks.output_path=OTHER.zarr"
_PREDICTION_HOOKS = ("on_predict_batch_end", "on_predict_epoch_end")


def default_logger(folder: Path) -> Logger:
    """Log into the folder of a run: to TensorBoard where it is installed, to ``metrics.csv`` otherwise."""
    if find_spec("tensorboard") is None:
        _logger.warning("Logging to CSV files, without TensorBoard: pip install 'viscy-utils[tensorboard]'")
        return CSVLogger(folder, name="", version="")
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="")


def callbacks_of_run(configured: Sequence[Callback], folder: Path, config: str, checkpoints: bool) -> list[Callback]:
    """Make the callbacks that keep a run, and give checkpoints without a place of their own one in its folder.

    Parameters
    ----------
    configured : sequence of Callback
        Of the configuration: with checkpoints among them, only an interruption adds one.
    folder : Path
        Of the run.
    config : str
        Its resolved configuration.
    checkpoints : bool
        Whether the trainer may have checkpoints (``enable_checkpointing``).

    Returns
    -------
    list of Callback
    """
    own = [callback for callback in configured if isinstance(callback, Checkpoint)]
    for callback in own:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder / CHECKPOINTS)
    keeper: list[Callback] = [RunKeeper(folder, config)]
    return [*keeper, RunCheckpoints(folder / CHECKPOINTS, regular=not own)] if checkpoints else keeper


def added_writer(
    configured: Sequence[Callback], run: Run | None, root: str | Path, model: LightningModule
) -> Callback | None:
    """Make a writer where no callback of a prediction does anything with it.

    Parameters
    ----------
    configured : sequence of Callback
    run : Run, optional
        Whose checkpoint is used: its folder is the place of the predictions.
    root : str or Path
        Their place otherwise.
    model : LightningModule
        Its ``prediction_writer(folder)`` makes the writer; without such a method predictions are embeddings.

    Raises
    ------
    FileExistsError
        If there are predictions at that place.
    """
    if any(map(_takes_predictions, configured)):
        return None
    folder = Path(root if run is None else run.path)
    if hasattr(model, "prediction_writer"):
        return model.prediction_writer(folder)
    path = folder / "embeddings.zarr"
    refuse_existing(path, remedy=f"remove it, or name another place: {_ELSEWHERE}")
    return EmbeddingWriter(path)


def _takes_predictions(callback: Any) -> bool:
    if isinstance(callback, BasePredictionWriter):
        return True
    is_ours = not type(callback).__module__.startswith("lightning.")  # progress bars follow predictions, too
    return is_ours and any(is_overridden(hook, callback, Callback) for hook in _PREDICTION_HOOKS)
