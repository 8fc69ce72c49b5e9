"""Two encoders, one per channel, trained so that both see the same of a cell (Radford et al. 2021, "CLIP")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from dynaclr.adaptation import BatchStatistics
from dynaclr.engine.contrastive.module import ContrastiveModule
from dynaclr.engine.contrastive.objective import Objective, Views
from viscy_utils.training.schedule import ScheduleName

__all__ = ["JointContrastiveModule", "JointEncoders", "MultiModalContrastiveModule"]

Arm = Literal["source", "target"]

_CHANNELS: dict[str, int] = {"source": 0, "target": 1}


class JointEncoders(nn.Module):
    """Two encoders side by side.

    Parameters
    ----------
    source_encoder, target_encoder : nn.Module
        Each from images (B, 1, Z, Y, X) to features (B, F) and projections (B, P) of the same P;
        ``source_encoder.*`` and ``target_encoder.*`` in checkpoints.
    """

    def __init__(self, source_encoder: nn.Module, target_encoder: nn.Module) -> None:
        super().__init__()
        self.source_encoder = source_encoder
        self.target_encoder = target_encoder

    @property
    def num_features(self) -> int:
        """Features of both together."""
        return self.source_encoder.num_features + self.target_encoder.num_features

    def forward(self, source: Tensor, target: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return (features, projections) of the source and of the target."""
        return self.source_encoder(source), self.target_encoder(target)

    def forward_features(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of both, (B, F) each."""
        return self.source_encoder(source)[0], self.target_encoder(target)[0]

    def forward_projections(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the projections of both, (B, P) each."""
        return self.source_encoder(source)[1], self.target_encoder(target)[1]


class MultiModalContrastiveModule(ContrastiveModule):
    """Train two encoders so that a cell's first channel (source) and second channel (target) come together.

    The loss is summed over two comparisons: the anchor's source with the anchor's target, and the positive's target
    with its source. The logged figures are of the first one.

    Parameters
    ----------
    encoder : JointEncoders
        ``model.source_encoder.*`` and ``model.target_encoder.*`` in checkpoints.
    loss_function, lr, schedule, log_batches_per_epoch, log_samples_per_batch, log_embeddings
        As those of `dynaclr.engine.ContrastiveModule`. A loss that compares with a negative image compares with the
        negative's target in the first comparison, and with its source in the second one.
    embedding_log_frequency : int, default 10
        Epochs from one picture of the embedding to the next, with ``log_embeddings``.
    log_negative_metrics_every_n_epochs, ckpt_path, warmup_epochs
        As there.
    example_input_array_shape : sequence of int, default (1, 2, 15, 256, 256)
        Of a batch of both channels.
    prediction_arm : {"source", "target"}, default "source"
        Which encoder predictions come from; "source" sees channel 0, and "target" channel 1.
    batch_statistics, predict_turned
        As there. Those of a prediction are of the encoder of the arm, and those of a validation of both.

    Raises
    ------
    ValueError
        For an encoder that is no pair, an arm that is none, a shape of other than two channels, or a frequency below 1.
    """

    def __init__(
        self,
        encoder: JointEncoders,
        loss_function: nn.Module | None = None,
        lr: float = 1e-3,
        schedule: ScheduleName = "Constant",
        log_batches_per_epoch: int = 8,
        log_samples_per_batch: int = 1,
        log_embeddings: bool = False,
        embedding_log_frequency: int = 10,
        example_input_array_shape: Sequence[int] = (1, 2, 15, 256, 256),
        prediction_arm: Arm = "source",
        log_negative_metrics_every_n_epochs: int = 2,
        ckpt_path: str | None = None,
        *,
        warmup_epochs: int = 3,
        batch_statistics: BatchStatistics | None = None,
        predict_turned: bool = False,
    ) -> None:
        if prediction_arm not in get_args(Arm):
            raise ValueError(f"prediction_arm: found {prediction_arm!r}, expected 'source' or 'target'")
        if not all(hasattr(encoder, f"{arm}_encoder") for arm in get_args(Arm)):
            found = type(encoder).__name__
            raise ValueError(f"encoder: found {found}, expected dynaclr.multi_modal.JointEncoders of two encoders")
        if embedding_log_frequency < 1:
            raise ValueError(f"embedding_log_frequency: found {embedding_log_frequency}, expected at least 1")
        if len(example_input_array_shape) != 5 or example_input_array_shape[1] != 2:
            found = tuple(example_input_array_shape)
            raise ValueError(f"example_input_array_shape: found {found}, expected (B, 2, Z, Y, X), a channel per arm")
        super().__init__(
            encoder,
            loss_function,
            lr,
            schedule,
            log_batches_per_epoch,
            log_samples_per_batch,
            log_embeddings,
            log_negative_metrics_every_n_epochs,
            example_input_array_shape,
            ckpt_path,
            warmup_epochs=warmup_epochs,
            batch_statistics=batch_statistics,
            predict_turned=predict_turned,
        )
        self.prediction_arm = prediction_arm
        self._pictures_every = embedding_log_frequency if log_embeddings else None

    @property
    def example_input_array(self) -> tuple[Tensor, Tensor]:
        """An image of each channel, for summaries and exports."""
        both = super().example_input_array
        return _channel(both, "source"), _channel(both, "target")

    def expected_input(self) -> dict[str, int]:
        """Say that images have a channel per arm, of the depth of the encoders as far as they tell."""
        return super().expected_input() | {"channels": len(_CHANNELS)}

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Project images of both channels, (B, 1, Z, Y, X) each, to (B, P) each."""
        return self.model.forward_projections(source, target)

    def views(self, batch: dict[str, Any], objective: Objective) -> tuple[Views, ...]:
        """Return the projections of both comparisons."""
        lineage, negative = batch.get("lineage"), (None, None)
        anchor, positive = self.project(batch, "anchor"), self.project(batch, "positive")
        if not objective.contrasts_batch:
            negative = self.project(batch, "negative")
        (anchor_source, anchor_target), (source, target), (of_source, of_target) = anchor, positive, negative
        return Views(anchor_source, anchor_target, of_target, lineage), Views(target, source, of_source, lineage)

    def compared(self, model: JointEncoders) -> nn.Module:
        """Return what projects images of both channels."""
        return _SideBySide(model)

    def on_validation_epoch_start(self) -> None:
        """Draw the embedding in some epochs."""
        every = self._pictures_every
        self._images["val"].scatter = every is not None and self.current_epoch % every == 0

    @property
    def predictor(self) -> nn.Module:
        """The encoder of the arm."""
        return getattr(self.model, f"{self.prediction_arm}_encoder")

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and projections of images of the channel of the arm."""
        return self.predictor(images)

    def predicted_input(self, batch: dict[str, Any]) -> Tensor:
        """Return the channel of the arm."""
        return _channel(batch["anchor"], self.prediction_arm)


class _SideBySide(nn.Module):
    """Both encoders as one: from images of both channels to features side by side, and the projections of each."""

    def __init__(self, encoders: JointEncoders) -> None:
        super().__init__()
        self.encoders = encoders

    @property
    def num_features(self) -> int:
        return self.encoders.num_features

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (source, of_source), (target, of_target) = self.encoders(*(_channel(images, arm) for arm in _CHANNELS))
        return torch.cat([source, target], dim=1), of_source, of_target


def _channel(images: Tensor, arm: str) -> Tensor:
    number = _CHANNELS[arm]
    if images.shape[1] != len(_CHANNELS):
        raise ValueError(f"images of {images.shape[1]} channels; expected 2, source and target")
    return images[:, number : number + 1]


JointContrastiveModule = MultiModalContrastiveModule
"""The name of VisCy v2.2."""
