"""A picture beside every checkpoint: what the model makes of a few training samples, always the same ones.

>>> trainer = Trainer(callbacks=[ModelCheckpoint(dirpath="run"), CheckpointVisualization()])  # doctest: +SKIP
"""

from __future__ import annotations

import copy
import io
import os
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from viscy_data.optional import require
from viscy_utils.evaluation.model_outputs import run_model
from viscy_utils.evaluation.visualization import draw_outputs
from viscy_utils.lightning_workarounds import WatchedSaves, prepare_batch, validating
from viscy_utils.pictures.log_images import log_image
from viscy_utils.pictures.training_samples import read_samples
from viscy_utils.randomness import fixed_randomness, generators_of
from viscy_utils.runs.checkpoints import RunCheckpoints

__all__ = ["CheckpointVisualization"]

# Where generators belong to the training: what they draw while a picture is made is not to be undone.
_TRAINING = (Trainer, DataLoader, Dataset, Sampler)


class CheckpointVisualization(Callback):
    """Draw what the model makes of some training samples whenever a checkpoint is saved.

    Models that reconstruct are shown as by :func:`~viscy_utils.evaluation.visualization.plot_reconstructions`; of
    models that embed, the anchors, positives and nearest neighbours of the batch. The picture is written beside the
    checkpoint: ``reconstructions_best.png`` for the best so far of a `ModelCheckpoint` that monitors a quantity,
    ``reconstructions_epoch_{n}.png`` for others, and both where several checkpoints of a monitored quantity are kept.
    It also goes to the loggers that take images.

    Training is the same with and without this callback: the samples are read once from the dataset, beside the loader;
    the model runs in evaluation mode without gradients, and modes and random state are put back. Whatever goes wrong is
    a warning.

    Parameters
    ----------
    num_samples : int, default 10
        Training samples in a picture.
    seed : int, default 0
        Which ones, and the random numbers that the model draws.

    Notes
    -----
    Works on one device and with data-parallel training, where the first process draws. Where a model is divided among
    devices, there are no pictures, and a warning says so. The samples pass the batch hooks of the data module as in
    validation, so that they are normalised but not augmented.
    """

    def __init__(self, num_samples: int = 10, seed: int = 0) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, found {num_samples}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, found {seed}")
        self.num_samples, self.seed = num_samples, seed
        self._samples: Any = None
        self._saves: WatchedSaves | None = None
        self._written: dict[str, tuple[int, int]] = {}
        self._picture: tuple[tuple[int, int], NDArray[np.uint8]] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch for checkpoints."""
        if stage == "fit":
            for module in ("matplotlib", "skimage"):
                require(module, extra="plot", package="viscy-utils")
            self._stop()  # an interrupted run has no teardown
            self._saves = WatchedSaves(trainer, self._on_saved)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the samples, before the loader begins to read in the background."""
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        with _no_failure("there will be no pictures at checkpoints"):
            _check_whole_model(trainer)
            self._samples = read_samples(trainer.train_dataloader, self.num_samples, self.seed)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the samples."""
        if stage == "fit":
            self._stop()

    def _stop(self) -> None:
        if self._saves is not None:
            self._saves.stop()
        self._saves = self._samples = self._picture = None
        self._written = {}

    def _on_saved(self, trainer: Trainer, checkpoint: str) -> None:
        if self._samples is None:
            return
        state = (trainer.current_epoch, trainer.global_step)
        paths = [path for path in _picture_paths(trainer, checkpoint) if self._written.get(path) != state]
        if not paths:
            return
        self._written |= dict.fromkeys(paths, state)
        with _no_failure(f"there is no picture of the checkpoint {checkpoint}"):
            is_new = self._picture is None or self._picture[0] != state
            if is_new:
                self._picture = (state, self._draw(trainer))
            image = self._picture[1]  # several checkpoints of one state share it
            for path in paths:
                _write(image, path)
                trainer.lightning_module.print(f"[VISUALIZATION] Saved: {path}")
            if is_new:
                with _no_failure("the picture did not reach all loggers"):
                    log_image(trainer.loggers, "reconstructions", image, trainer.global_step)

    def _draw(self, trainer: Trainer) -> NDArray[np.uint8]:
        module = trainer.lightning_module
        generators = generators_of(trainer.datamodule, vars(module), beyond=_TRAINING)
        with fixed_randomness(self.seed, module.device, generators), validating(trainer):
            batch = prepare_batch(trainer, copy.deepcopy(self._samples))  # transforms may work in place
            with trainer.precision_plugin.forward_context():
                outputs = run_model(module, [batch], module.device, self.num_samples, self.seed)
        figure = draw_outputs(outputs, f"epoch {trainer.current_epoch}, step {trainer.global_step}")
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _check_whole_model(trainer: Trainer) -> None:
    """Refuse models of which this process has but a part: running it would wait for the other processes for ever."""
    strategy = trainer.strategy
    whole = isinstance(strategy, DDPStrategy) and not isinstance(strategy, DeepSpeedStrategy)
    if trainer.world_size > 1 and not whole:
        raise RuntimeError(f"{type(strategy).__name__} divides the model among processes, none can run it alone")


@contextmanager
def _no_failure(consequence: str) -> Iterator[None]:
    try:
        yield
    except Exception as err:  # noqa: BLE001 - a picture is not worth a training run
        message = f"{consequence}: {type(err).__name__}: {err}\n{traceback.format_exc()}"
        warnings.warn(message, stacklevel=2)


def _picture_paths(trainer: Trainer, checkpoint: str) -> list[str]:
    """Say what the pictures of a checkpoint are called."""
    kinds = (ModelCheckpoint, RunCheckpoints)
    savers = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, kinds)]
    # A metric with a slash in its name puts each checkpoint into a folder of its own: pictures are to stay together.
    roots = [str(saver.dirpath) for saver in savers if saver.dirpath]
    around = [root for root in roots if checkpoint.startswith(os.path.join(root, ""))]
    folder = max(around, key=len) if around else os.path.dirname(checkpoint)
    best = [saver for saver in savers if saver.monitor is not None and saver.best_model_path == checkpoint]
    names = ["reconstructions_best.png"] if best else []
    if not best or any(getattr(saver, "save_top_k", 1) != 1 for saver in best):
        names.append(f"reconstructions_epoch_{trainer.current_epoch}.png")
    return [os.path.join(folder, name) for name in names]


def _write(image: NDArray[np.uint8], path: str) -> None:
    buffer = io.BytesIO()
    require("matplotlib.image", extra="plot", package="viscy-utils").imsave(buffer, image, format="png")
    files = get_filesystem(path)
    files.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    partial = f"{path}.part"  # a picture that is there is whole
    files.pipe_file(partial, buffer.getvalue())
    files.mv(partial, path)
