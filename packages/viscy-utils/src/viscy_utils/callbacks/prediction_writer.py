"""Write predicted images as an OME-Zarr plate, stack by stack."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from viscy_data.errors import InputError
from viscy_data.files import refuse_existing
from viscy_utils.embeddings.origin import manifest_of, prediction_origin
from viscy_utils.lightning_workarounds import before_loaders_of_prediction
from viscy_utils.predicted_plate import PredictedPlate

__all__ = ["HCSPredictionWriter"]

_logger = logging.getLogger(__name__)
_REMEDY = "choose another output_store or set overwrite: true"


class HCSPredictionWriter(Callback):
    """Write what a module predicts of the windows of an ``HCSDataModule``.

    Predictions are (B, C, Z, Y, X), one channel per target channel of the data module. Windows that overlap are
    averaged; fewer slices than the window has are those in its middle. The plate has the FOVs, frames, slices and
    scales of the data; slices that no window predicts (above and below the first and last middle slice) stay zero.

    Stacks are written as they come, to ``<output_store>.parts``, which gets its name when all are there. A run that was
    interrupted is continued by the same command, after the last whole stack. Ranks share one plate.

    Parameters
    ----------
    output_store : str or Path
        Where the plate will be.
    overwrite : bool, default False
        Replace an existing plate, once the new one is complete, and start over where a run was interrupted.
    write_input : bool, default False
        Write the source channels, normalised as the model saw them, before the predicted ones.
    write_interval : {"batch"}, default "batch"
        Stacks are written as they come, and no other way.

    Raises
    ------
    FileExistsError
        At set-up, if the plate exists and ``overwrite`` is False.
    InputError
        At set-up, if the data module has no windows, or an interrupted run was of another model or other data; later,
        if predictions are of another size.
    """

    def __init__(
        self,
        output_store: str | Path,
        overwrite: bool = False,
        write_input: bool = False,
        write_interval: Literal["batch"] = "batch",
    ) -> None:
        if write_interval != "batch":
            raise InputError(
                type(self).__name__, field="write_interval", found=repr(write_interval), expected="'batch'"
            )
        self.output_store, self.overwrite, self.write_input = Path(output_store), overwrite, write_input

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse existing output, and data without windows, before anything is computed."""
        if stage != "predict":
            return
        refuse_existing(self.output_store, self.overwrite, remedy=_REMEDY)
        data = getattr(trainer, "datamodule", None)
        if not all(hasattr(data, name) for name in ("predict_dataset", "z_window_size", "target_channel")):
            found = "none" if data is None else type(data).__name__
            raise InputError(type(self).__name__, field="data module", found=found, expected="an HCSDataModule")
        before_loaders_of_prediction(trainer, lambda: self._begin(trainer, pl_module, data))

    def _begin(self, trainer: Trainer, pl_module: LightningModule, data: Any) -> None:
        """Make the plate, or continue an interrupted prediction of the same."""
        self._inputs = list(data.source_channel) if self.write_input else []
        names = [*self._inputs, *(f"{name}_prediction" for name in data.target_channel)]
        dataset, self._window = data.predict_dataset, data.z_window_size
        self._numbers = {f"/{fov.name}/{fov.array_key}": number for number, fov in enumerate(dataset.fovs)}
        self._n_targets = len(data.target_channel)
        self._plate = PredictedPlate(self.output_store, dataset.fovs, names, self._window, trainer.global_rank)
        if trainer.is_global_zero:
            manifest = manifest_of(prediction_origin(trainer, pl_module, {}))
            self._plate.create(manifest | {"channels": names}, self.overwrite)
        trainer.strategy.barrier("the plate is ready")
        n_done = self._plate.n_done()
        # Batches begin where they did before: convolutions round otherwise in batches of other windows.
        self._n_repeated = n_done % data.items_per_batch("predict")
        if n_done:
            data.skip_predicted(n_done - self._n_repeated)
            _logger.info("continuing after %d windows in %s", n_done, self._plate.folder)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Blend the windows of a batch, and write the stacks that are whole."""
        predicted, source = _as_array(outputs), _as_array(batch["source"]) if self._inputs else None
        expected = (len(batch["source"]), self._n_targets)
        if predicted.ndim != 5 or predicted.shape[:2] != expected or predicted.shape[3:] != batch["source"].shape[3:]:
            raise InputError(
                type(pl_module).__name__,
                field="predict_step",
                found=f"predictions of shape {predicted.shape}",
                expected=f"{expected[0]} x {expected[1]} target channels of (Z, {', '.join(map(str, _yx(batch)))})",
            )
        lost = self._window // 2 - predicted.shape[2] // 2
        of_input, of_target = slice(0, len(self._inputs)), slice(len(self._inputs), None)
        n_repeated = min(self._n_repeated, len(predicted))
        self._n_repeated -= n_repeated
        for number, (image, t, z) in enumerate(zip(*batch["index"], strict=True)):
            if number < n_repeated:
                continue
            first = int(z)
            parts = [(predicted[number], first + lost, of_target)]
            parts += [] if source is None else [(source[number], first, of_input)]
            self._plate.add(self._numbers[image], int(t), first, parts)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the last stack has of this rank's windows."""
        self._plate.flush()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the plate its name, if all of it has been predicted."""
        if stage != "predict" or not hasattr(self, "_plate"):
            return
        trainer.strategy.barrier("every rank has written its stacks")
        if trainer.is_global_zero:
            if self._plate.complete(self.overwrite):
                _logger.info("wrote %s", self.output_store)
            else:
                _logger.warning("%s is not complete; the same command continues it", self._plate.folder)
        trainer.strategy.barrier("the plate has its name")


def _yx(batch: Any) -> tuple[int, ...]:
    return tuple(batch["source"].shape[3:])


def _as_array(values: torch.Tensor) -> np.ndarray:
    return values.detach().to("cpu", torch.float32).numpy()
