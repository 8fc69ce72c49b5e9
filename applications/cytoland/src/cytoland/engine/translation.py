"""Training of a network that translates images, its tests and its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from cytoland.engine.augmented import Reduction, augmented_prediction, predict_padded, rotation_tta_transforms
from cytoland.engine.data_checks import check_data
from cytoland.engine.metrics_tally import MetricsTally
from cytoland.engine.networks import Architecture, encoder_parts, make_network, network_settings
from viscy_data.checks import Option, check_options, is_pair
from viscy_data.errors import raise_all
from viscy_models.checkpoints import load_weights, mismatches
from viscy_utils.callbacks import HCSPredictionWriter
from viscy_utils.pictures.epoch_samples import EpochSamples, takes_pictures
from viscy_utils.pictures.log_images import log_image
from viscy_utils.training.finite import Step
from viscy_utils.training.module import TrainingModule
from viscy_utils.training.schedule import ScheduleName

__all__ = ["VSUNet"]

_NO_CELLPOSE = "nothing: predict, segment the plate, then compare label images with SegmentationMetrics2D"


class VSUNet(TrainingModule):
    """Translate label-free stacks into fluorescence.

    Batches hold ``source`` and ``target``, (B, C, Z, Y, X), as those of `HCSDataModule`; a list of such batches makes
    one step.

    Parameters
    ----------
    architecture : {"2D", "UNeXt2", "2.5D", "fcmae", "UNeXt2_2D"}
        `Unet2d`, `UNeXt2`, `Unet25d`, and `FullyConvolutionalMAE` for the last two. The network is ``model.*`` in
        checkpoints.
    model_config : dict, optional
        Arguments of the network.
    loss_function : nn.Module, optional
        Of prediction and target; ``torch.nn.MSELoss`` by default.
    lr : float, default 1e-3
        Of AdamW.
    schedule : {"WarmupCosine", "Constant"}, default "Constant"
        "WarmupCosine" rises over `warmup_steps` and falls to 0 at the end of the run.
    warmup_steps : int, default 3
        Epochs, whatever the name says.
    warmup_multiplier : float, default 1e-3
        Share of the rate that "WarmupCosine" begins with.
    freeze_encoder : bool, default False
        Train the decoder alone.
    ckpt_path : str, optional
        Checkpoint to start from; it must fit exactly.
    log_batches_per_epoch, log_samples_per_batch : int, default 8 and 1
        Batches, and samples of each, in the images ``train_samples`` and ``val_samples``: source, target, prediction.
    example_input_yx_shape : sequence of int, default (256, 256)
        Y and X of the input of summaries and exports.
    test_cellpose_model_path, test_cellpose_diameter, test_evaluate_cellpose : optional
        Refused: nothing is segmented in tests.
    test_time_augmentations : bool, default False
        Whether tests and predictions combine those of four quarter turns.
    tta_type : {"mean", "median", "product"}, default "mean"
        How.

    Raises
    ------
    ValueError
        For options out of range, arguments that the network refuses, and a checkpoint that does not fit. While
        training, for a loss that is not finite: on the CPU at once, on a GPU within 50 steps and before a checkpoint is
        written.
    """

    warmup_option = "warmup_steps"

    def __init__(
        self,
        architecture: Architecture,
        model_config: dict | None = None,
        loss_function: nn.Module | None = None,
        lr: float = 1e-3,
        schedule: ScheduleName = "Constant",
        warmup_steps: int = 3,
        warmup_multiplier: float = 1e-3,
        freeze_encoder: bool = False,
        ckpt_path: str | None = None,
        log_batches_per_epoch: int = 8,
        log_samples_per_batch: int = 1,
        example_input_yx_shape: Sequence[int] = (256, 256),
        test_cellpose_model_path: str | None = None,
        test_cellpose_diameter: float | None = None,
        test_evaluate_cellpose: bool | None = False,
        test_time_augmentations: bool | None = False,
        tta_type: Reduction = "mean",
    ) -> None:
        cellpose = (test_cellpose_model_path, test_cellpose_diameter, test_evaluate_cellpose)
        size_holds = is_pair(tuple(example_input_yx_shape))
        options = [
            Option("test_evaluate_cellpose", cellpose, not any(cellpose), _NO_CELLPOSE),
            Option("tta_type", tta_type, tta_type in get_args(Reduction), f"one of {get_args(Reduction)}"),
            Option("example_input_yx_shape", example_input_yx_shape, size_holds, "[height, width] in pixels"),
        ]
        raise_all(check_options(type(self).__name__, options))
        model_config = self.complete_config(architecture, model_config)
        self.settings = network_settings(architecture, model_config)
        shape = (1, self.settings["in_channels"], self.settings.get("in_stack_depth", 1), *example_input_yx_shape)
        super().__init__(lr, schedule, warmup_steps, shape, warmup_multiplier)
        self.save_hyperparameters(ignore=["loss_function", "ckpt_path"])
        self.architecture, self.model = architecture, make_network(architecture, model_config)
        self.loss_function = self.default_loss() if loss_function is None else loss_function
        self.test_time_augmentations, self.tta_type = bool(test_time_augmentations), tta_type
        if ckpt_path is not None:
            self.load_start(ckpt_path)
        if freeze_encoder:
            for part in encoder_parts(architecture, self.model):
                part.requires_grad_(False)
        self._images = {s: EpochSamples(log_batches_per_epoch, log_samples_per_batch) for s in ("train", "val")}
        self._tally = MetricsTally()

    # What a subclass does in another way

    def complete_config(self, architecture: str, model_config: dict | None) -> dict[str, Any]:
        """Return the arguments of the network: one that can pre-train is built to translate."""
        chosen = dict(model_config or {})
        return chosen if architecture not in ("fcmae", "UNeXt2_2D") else {"pretraining": False} | chosen

    def default_loss(self) -> nn.Module:
        """Return the loss where none is given."""
        return nn.MSELoss()

    def load_start(self, path: str) -> None:
        """Begin with the weights of a checkpoint."""
        load_weights(self.model, path)

    @property
    def reconstructs(self) -> bool:
        """Whether the network is trained on the source alone."""
        return False

    def fit_task(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return prediction, target and loss of a batch."""
        predicted = self(batch["source"])
        return predicted, batch["target"], self.loss_function(predicted, batch["target"])

    # Lightning

    def forward(self, x: Tensor) -> Tensor:
        """Translate images (B, C, Z, Y, X) of a size that the network takes."""
        predicted = self.model(x)
        return predicted[0] if isinstance(predicted, tuple) else predicted

    def prepare_data(self) -> None:
        """Refuse data that do not fit the network, before they are read and a run has its folder."""
        trains = self.trainer.state.fn in ("fit", "validate")
        options = {"reconstructs": self.reconstructs, "trains": trains}
        check_data(self.trainer.datamodule, self.architecture, self.settings, **options)

    def trained_parameters(self) -> list[Parameter]:
        """Return all parameters that are not frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute and log the loss of a batch."""
        loss, size = self._step(batch, batch_idx, "train")
        self.log(
            "loss/train", loss.detach(), on_step=True, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=size
        )
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Compute and log the loss of a batch; several loaders have one mean, over all of their samples."""
        loss, size = self._step(batch, batch_idx, "val")
        self._validated += torch.stack([loss.detach().float() * size, loss.new_tensor(size, dtype=torch.float32)])

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Compare the prediction of a batch with its target."""
        self._tally.add(self.predict_images(batch["source"]), batch["target"], self._channel_names(batch))

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Predict the targets of a batch, of any size in Y and X."""
        return self.predict_images(batch["source"])

    def predict_images(self, source: Tensor) -> Tensor:
        """Predict images of any size, of quarter turns if that is asked for."""
        if self.test_time_augmentations:
            return self.perform_test_time_augmentations(source)
        return predict_padded(self.model, source)

    def perform_test_time_augmentations(self, source: Tensor) -> Tensor:
        """Combine the predictions of four quarter turns, by `tta_type`."""
        predict = partial(predict_padded, self.model)
        return augmented_prediction(predict, source, *rotation_tta_transforms(), self.tta_type)

    def on_validation_epoch_start(self) -> None:
        """Begin the mean of an epoch."""
        self._validated = torch.zeros(2, device=self.device)

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss, and images of samples."""
        self.finite_watch.settle()
        total, count = self.all_gather(self._validated).reshape(-1, 2).sum(0)
        self.log("loss/validate", total / count, prog_bar=True)
        self._log_images("val")

    def on_train_epoch_end(self) -> None:
        """Log images of samples."""
        self.finite_watch.settle()
        self._log_images("train")

    def on_test_epoch_end(self) -> None:
        """Log the means of all metrics, channel by channel."""
        for name, value in self._tally.take().items():
            self.log(f"test_metrics/{name}", value, sync_dist=True)

    def misfits(self, found: Mapping[str, Tensor]) -> list[str]:
        """Say in which settings weights differ."""
        return mismatches(self.state_dict(), found)

    def prediction_writer(self, folder: Path) -> HCSPredictionWriter:
        """Return what writes predictions where a configuration names no writer."""
        return HCSPredictionWriter(folder / "prediction.zarr")

    def _step(self, batches: Any, batch_idx: int, stage: Literal["train", "val"]) -> tuple[Tensor, int]:
        """Return the mean loss over the samples of a batch, or of several, and their number."""
        parts = [batches] if isinstance(batches, Mapping) else list(batches)
        losses, sizes = [], [len(part["source"]) for part in parts]
        for part in parts:
            predicted, target, loss = self.fit_task(part)
            losses.append(loss)
            if takes_pictures(self):
                shown = [part["source"], *([] if target is None else [target]), predicted]
                self._images[stage].add(shown, batch_idx)
        weights = torch.tensor(sizes, dtype=torch.float32, device=self.device) / sum(sizes)
        loss = (torch.stack(losses) * weights).sum()
        step, only = Step(stage, self.current_epoch, batch_idx), parts[0] if len(parts) == 1 else None
        self.finite_watch.add(loss, f"the loss of {type(self.loss_function).__name__} is", step, only)
        return loss, sum(sizes)

    def _channel_names(self, batch: Mapping[str, Any]) -> list[str]:
        data = None if self._trainer is None else self.trainer.datamodule
        names = getattr(data, "target_channel", None)
        return names or [f"channel_{number}" for number in range(batch["target"].shape[1])]

    def _log_images(self, stage: str) -> None:
        image = self._images[stage].take()
        if image is not None:
            log_image(self.loggers, f"{stage}_samples", image, self.current_epoch)
