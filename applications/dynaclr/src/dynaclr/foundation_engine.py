"""Pretrained encoders in predictions, and heads trained on their features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dynaclr.adaptation import BatchStatistics
from dynaclr.engine.contrastive.module import ContrastiveModule
from viscy_data.errors import InputError
from viscy_models.foundation import PretrainedEncoder
from viscy_utils.training.schedule import ScheduleName

__all__ = ["FoundationModule"]


class FoundationModule(ContrastiveModule):
    """Embed cells with a pretrained encoder, and train its projection on them.

    Parameters
    ----------
    model : PretrainedEncoder
        Such as `viscy_models.foundation.DINOv3Model`; ``model.*`` in checkpoints.
    lr : float, default 1e-4
        Of AdamW.
    loss_function, schedule, log_batches_per_epoch, log_samples_per_batch, log_embeddings
        As those of `dynaclr.engine.ContrastiveModule`.
    log_negative_metrics_every_n_epochs, ckpt_path, warmup_epochs
        As there.
    example_input_array_shape : sequence of int, default (1, 1, 1, 224, 224)
        Of the input of summaries, graphs and exports.
    cache_features : bool, default False
        Compute the features of each cell once and keep them in memory, 4 F bytes per cell: from the second epoch on
        only the projection is computed. For a frozen encoder, and images that are always the same: without augmentation
        and channel dropout.
    batch_statistics, predict_turned
        As there. A frozen encoder stays as it is, its own batch normalisation included: what is brought to a mean of 0
        and a variance of 1 per experiment are its features, those that are kept, and inside of the projection what its
        batch normalisation takes, as in training.

    Raises
    ------
    InputError
        If there is nothing to train, or features are to be kept that would change.
    ValueError
        For options out of range.
    """

    def __init__(
        self,
        model: PretrainedEncoder,
        lr: float = 1e-4,
        loss_function: nn.Module | None = None,
        schedule: ScheduleName = "Constant",
        log_batches_per_epoch: int = 8,
        log_samples_per_batch: int = 1,
        log_embeddings: bool = False,
        log_negative_metrics_every_n_epochs: int = 2,
        example_input_array_shape: Sequence[int] = (1, 1, 1, 224, 224),
        ckpt_path: str | None = None,
        *,
        warmup_epochs: int = 3,
        cache_features: bool = False,
        batch_statistics: BatchStatistics | None = None,
        predict_turned: bool = False,
    ) -> None:
        super().__init__(
            model,
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
        if cache_features and not model.freeze:
            raise self._refused("cache_features", "true with freeze: false", "a frozen model, whose features stay")
        self.cache_features = cache_features
        self._kept: dict[str, FeatureCache] = {"train": FeatureCache(), "val": FeatureCache()}

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return what is not frozen."""
        found = [parameter for parameter in super().trained_parameters() if parameter.requires_grad]
        if not found:
            expected = "something to train: projection_dim, or freeze: false"
            raise self._refused("model", "a frozen encoder without a projection", expected)
        return found

    def on_fit_start(self) -> None:
        """Refuse to keep features of images that are never the same again."""
        data = self.trainer.datamodule
        if not self.cache_features or data is None:
            return
        dropout = data.channel_dropout() if hasattr(data, "channel_dropout") else None
        changing = [type(transform).__name__ for transform in getattr(data, "augmentations", None) or []]
        if dropout is not None and dropout.channels and dropout.p:
            changing.append("channel dropout")
        if changing:
            expected = "images that stay the same: no augmentations, channel_dropout_channels: []"
            raise self._refused("cache_features", f"true with {', '.join(changing)}", expected)

    def compared(self, model: PretrainedEncoder) -> nn.Module:
        """Return what projects images, or features where they are kept."""
        return _Projecting(model) if self.cache_features else model

    def compared_input(self, batch: dict[str, Any], role: str = "anchor") -> Tensor:
        """Return the images of a role, or their features where they are kept."""
        images = self.images_of(batch, role)
        if not self.cache_features:
            return images
        rows = batch.get("observation" if role == "anchor" else f"{role}_observation")
        if rows is None:
            return self.model.forward_features(images)
        numbers, kept = rows.tolist(), self._kept["train" if self.training else "val"]
        missing = kept.missing(numbers)
        if missing:
            kept.add([numbers[place] for place in missing], self.model.forward_features(images[missing]))
        return kept.of(numbers).to(images.device)

    def _refused(self, field: str, found: str, expected: str) -> InputError:
        return InputError(type(self).__name__, field=field, found=found, expected=expected)


class _Projecting(nn.Module):
    """From the features of a pretrained encoder to these and their projections."""

    def __init__(self, encoder: PretrainedEncoder) -> None:
        super().__init__()
        self.encoder, self.num_features = encoder, encoder.num_features

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return features, self.encoder.project(features)


class FeatureCache:
    """Features of cells by their number, on the CPU."""

    def __init__(self) -> None:
        self._features: dict[int, Tensor] = {}

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Return the places of cells without features, of each cell the first one."""
        first = {number: place for place, number in reversed(list(enumerate(numbers)))}
        return sorted(place for number, place in first.items() if number not in self._features)

    def add(self, numbers: Iterable[int], features: Tensor) -> None:
        """Keep the features (N, F) of cells."""
        self._features.update(zip(numbers, features.detach().float().cpu().unbind(), strict=True))

    def of(self, numbers: Iterable[int]) -> Tensor:
        """Return the features (N, F) of cells."""
        return torch.stack([self._features[number] for number in numbers])
