"""Training and prediction of a classifier of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dynaclr.classification.head import class_logits, loss_value, split_encoder
from dynaclr.engine.training import TrainingModule
from dynaclr.imbalance import (
    BalancedCrossEntropy,
    ClassBalance,
    ClassMetrics,
    ClassTally,
    ClassWeightMethod,
    choose_class_loss,
)
from viscy_utils.training.finite import Step

__all__ = ["ClassificationModule"]


class ClassificationModule(TrainingModule):
    """Classify cells with an encoder and a linear layer, all of it trained.

    Logs ``loss/{stage}``, and for each epoch ``metric/accuracy/{stage}``, ``metric/f1_score/{stage}``,
    ``metric/balanced_accuracy/{stage}``, ``metric/majority_share/{stage}`` (the share of predictions that the class
    predicted most gets) and ``metric/accuracy_class_{k}/{stage}``, with stage ``train`` or ``val``.

    Parameters
    ----------
    encoder : nn.Module
        `viscy_models.ContrastiveEncoder` on any backbone, or another encoder with ``num_features``; it is copied.
        Weights are ``stem.*`` and ``backbone.*`` in checkpoints.
    lr : float or None
        Of AdamW; None for a module that is not trained.
    loss : nn.Module, optional
        A `torch.nn.BCEWithLogitsLoss`, called with (B, 1) logits and labels, or a module called with (B, K) logits and
        (B,) classes. By default a new ``BCEWithLogitsLoss(pos_weight=1)`` for two classes and cross-entropy for more,
        or what the options below say. The weights of classes also apply to a loss given here that has none of its own.
    example_input_array_shape : sequence of int, default (2, 1, 15, 160, 160)
        Of the input of summaries, graphs and exports.
    num_classes : int, default 2
        K. Two classes have one logit.
    focal_gamma : float, optional
        Use the focal loss with this gamma.
    class_weight_method : {"none", "inverse", "sqrt_inverse", "balanced"}, default "none"
        Weigh classes by their counts in the training set; the weights are logged as ``class_weight/{k}``.
    class_weights : sequence of float, optional
        Weigh classes by these K numbers.

    Attributes
    ----------
    figures : dict of str to ClassMetrics
        Of the last complete epoch, by stage.

    Raises
    ------
    ValueError
        For options out of range or that exclude each other.
    NonFiniteError
        In training, for logits or a loss that are not finite: on the CPU at once, on a GPU within 50 steps and before a
        checkpoint is written.
    """

    def __init__(
        self,
        encoder: nn.Module,
        lr: float | None,
        loss: nn.Module | None = None,
        example_input_array_shape: Sequence[int] = (2, 1, 15, 160, 160),
        *,
        num_classes: int = 2,
        focal_gamma: float | None = None,
        class_weight_method: ClassWeightMethod = "none",
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(lr, "Constant", 0, example_input_array_shape)
        if num_classes < 2:
            raise ValueError(f"num_classes: found {num_classes}, expected at least 2")
        self.save_hyperparameters(ignore=["encoder", "loss"])
        self.stem, self.backbone = split_encoder(encoder, 1 if num_classes == 2 else num_classes)
        self.loss = _choose_loss(loss, num_classes, ClassBalance(focal_gamma, class_weight_method, class_weights))
        self.num_classes = num_classes
        self.figures: dict[str, ClassMetrics] = {}
        self._tallies = nn.ModuleDict({f"{stage}_tally": ClassTally(num_classes) for stage in ("train", "val")})

    def setup(self, stage: str) -> None:
        """Count the classes of the training set if the loss is to be weighted by them."""
        if isinstance(self.loss, BalancedCrossEntropy):
            self.loss.count_at_setup(self.trainer, stage, _labels)

    def on_train_start(self) -> None:
        """Log the class weights."""
        if isinstance(self.loss, BalancedCrossEntropy):
            self.loss.count_at_start(self.trainer, _labels)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of images (B, C, Z, Y, X): (B, 1) of class 1 for two classes, else (B, K)."""
        return self.backbone(self.stem(x))

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Compute and log the loss of a batch (images, labels)."""
        return self._step(batch, batch_idx, "train")

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Compute and log the loss of a batch (images, labels)."""
        return self._step(batch, batch_idx, "val")

    def predict_step(self, batch: Sequence[Any], batch_idx: int, dataloader_idx: int | None = None) -> dict[str, Any]:
        """Predict a batch (images, labels, index columns).

        Returns
        -------
        dict
            The index columns, ``label`` and ``prediction``: the probability of class 1 for two classes, and otherwise
            the class, with the probabilities as ``probability_{k}``.
        """
        images, labels, index = batch
        outputs = self(images).float()
        found = {**index, "label": labels}
        if self.num_classes == 2:
            return found | {"prediction": torch.sigmoid(outputs)}
        probabilities = torch.softmax(outputs, dim=1)
        columns = {f"probability_{k}": probabilities[:, k] for k in range(self.num_classes)}
        return found | {"prediction": probabilities.argmax(dim=1)} | columns

    def on_train_epoch_end(self) -> None:
        """Log the figures of the epoch."""
        self._log_figures("train")

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the epoch."""
        self._log_figures("val")

    def _step(self, batch: Sequence[Tensor], batch_idx: int, stage: Literal["train", "val"]) -> Tensor:
        images, labels = batch[0], _labels(batch)
        step, known = Step(stage, self.current_epoch, batch_idx), {"anchor": images}
        outputs = self(images)
        self.finite_watch.add(outputs, "logits", step, known)
        loss = self._loss_of(outputs, labels)
        self.finite_watch.add(loss, f"the loss of {type(self.loss).__name__} is", step, known)
        self._tallies[f"{stage}_tally"].update(class_logits(outputs), labels)
        options = {"on_step": stage == "train", "on_epoch": True, "prog_bar": True, "sync_dist": True}
        self.log(f"loss/{stage}", loss.detach(), batch_size=len(images), **options)
        return loss

    def _loss_of(self, outputs: Tensor, labels: Tensor) -> Tensor:
        if labels.min() < 0 or labels.max() >= self.num_classes:
            found = sorted(set(labels.tolist()) - set(range(self.num_classes)))[0]
            raise ValueError(f"label {found} in a batch, expected 0 to {self.num_classes - 1} (num_classes)")
        if isinstance(self.loss, nn.BCEWithLogitsLoss):
            return self.loss(outputs, labels[:, None].to(outputs.dtype))
        return loss_value(self.loss(class_logits(outputs), labels))

    def _log_figures(self, stage: Literal["train", "val"]) -> None:
        self.finite_watch.settle()
        self.figures[stage] = self._tallies[f"{stage}_tally"].take()
        for name, value in self.figures[stage].scalars().items():
            self.log(f"metric/{name}/{stage}", value, sync_dist=True)


def _labels(batch: Sequence[Any] | Mapping[str, Any]) -> Tensor:
    """Return the classes of a batch as integers (B,), from labels (B,) or (B, 1) of any type."""
    labels = batch[1].reshape(len(batch[1]), -1)
    if labels.shape[1] != 1:
        raise ValueError(f"labels: found shape {tuple(batch[1].shape)}, expected one label per image, (B, 1) or (B,)")
    whole = labels[:, 0].long()
    if labels.is_floating_point() and not torch.equal(whole.to(labels.dtype), labels[:, 0]):
        raise ValueError(f"labels: found {labels[:, 0].tolist()}, expected whole numbers, the class of each image")
    return whole


def _choose_loss(loss: nn.Module | None, num_classes: int, balance: ClassBalance) -> nn.Module:
    if isinstance(loss, nn.BCEWithLogitsLoss) and num_classes != 2:
        raise ValueError(f"loss BCEWithLogitsLoss is for two classes, found num_classes {num_classes}")
    if loss is None and num_classes == 2 and balance.is_plain:
        return nn.BCEWithLogitsLoss(pos_weight=torch.tensor(1.0))
    return choose_class_loss(loss, num_classes, balance)
