"""Contrastive training of one encoder, and its predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from dynaclr.adaptation import BatchStatistics, embed_by_experiment, require_width
from dynaclr.engine.contrastive.average import check_momentum, follow, frozen_copy
from dynaclr.engine.contrastive.embedding import Embedding
from dynaclr.engine.contrastive.images import EpochImages
from dynaclr.engine.contrastive.metrics import batch_metrics, pair_metrics
from dynaclr.engine.contrastive.objective import Objective, Views, objective_of
from dynaclr.engine.training import TrainingModule
from viscy_data.errors import InputError
from viscy_models.checkpoints import load_weights, uncompiled
from viscy_utils.pictures.epoch_samples import takes_pictures
from viscy_utils.pictures.log_images import log_image
from viscy_utils.training.finite import Step
from viscy_utils.training.schedule import ScheduleName

__all__ = ["ContrastiveModule", "ContrastivePrediction", "MissingNegativeError"]


class MissingNegativeError(InputError, KeyError):
    """A batch without the negative images that the loss compares with."""

    def __str__(self) -> str:
        # KeyError would print the text in quotes.
        return str(self.args[0])


class ContrastivePrediction(TypedDict):
    """Embeddings of a batch."""

    features: Tensor
    """Output of the backbone, (B, F)."""
    projections: Tensor
    """Output of the projection head, (B, P)."""
    index: Any
    """Where the cells come from, as the batch has it."""


class ContrastiveModule(TrainingModule):
    """Train an encoder so that a cell and its later self come close and other cells stay apart.

    Parameters
    ----------
    encoder : nn.Module
        From images (B, C, Z, Y, X) to features (B, F) and projections (B, P); ``model.*`` in checkpoints.
    loss_function : nn.Module, optional
        Any loss of `viscy_losses`, `dynaclr.loss.NTXentHCL`, any loss of pytorch-metric-learning,
        `torch.nn.CosineEmbeddingLoss`, or a loss of (anchor, positive, negative). The last two need ``negative`` in a
        batch. By default a new ``TripletMarginLoss(margin=0.5)``.
    lr : float, default 1e-3
        Of AdamW.
    schedule : {"WarmupCosine", "Constant"}, default "Constant"
        "WarmupCosine" rises over `warmup_epochs` and falls to 0 at the end of the run, step by step.
    log_batches_per_epoch, log_samples_per_batch : int, default 8 and 1
        Batches, and samples of each, in the images ``train_samples`` and ``val_samples``.
    log_embeddings : bool, default False
        Whether to log ``val_embeddings``, the first two principal components of the validation projections coloured by
        lineage, as an image at the end of each validation epoch.
    log_negative_metrics_every_n_epochs : int, default 2
        How often to compare with the other cells of a batch, for losses that contrast these.
    example_input_array_shape : sequence of int, default (1, 2, 15, 256, 256)
        Of the input of summaries, graphs and exports.
    ckpt_path : str, optional
        Checkpoint to start from; it must fit exactly.
    warmup_epochs : int, default 3
        Of "WarmupCosine".
    momentum : float, optional
        From 0 to less than 1, such as 0.99: keep an average of the encoder, ``average.*`` in checkpoints, that after
        each step of the optimiser becomes ``momentum`` times itself plus the rest of the encoder. It makes the keys of
        `viscy_losses.MoCoLoss`. A checkpoint without one begins it with the weights of the encoder.
    predict_with_average : bool, default False
        Whether predictions and exports come from the average instead of the encoder itself.
    batch_statistics : BatchStatistics, optional
        Predict, and validate on, each experiment with statistics of batch normalisation of its own cells (AdaBN),
        instead of the running averages of training, and bring its features to a mean of 0 and a variance of 1. Those
        of a prediction are stored with the embeddings, in ``uns["batch_statistics"]``; those of a validation are
        estimated anew before each.
    predict_turned : bool, default False
        Whether a prediction is the mean over the quarter turns of an image and of its mirror image, 8 (or 4 where Y and
        X differ), at as many times the cost. For cells that may lie in any direction.

    Raises
    ------
    ValueError
        For options out of range, and for a checkpoint that does not fit the encoder. While training, for projections or
        a loss that are not finite, naming the cells: on the CPU at once, on a GPU within 50 steps and before a
        checkpoint is written.
    """

    def __init__(
        self,
        encoder: nn.Module,
        loss_function: nn.Module | None = None,
        lr: float = 1e-3,
        schedule: ScheduleName = "Constant",
        log_batches_per_epoch: int = 8,
        log_samples_per_batch: int = 1,
        log_embeddings: bool = False,
        log_negative_metrics_every_n_epochs: int = 2,
        example_input_array_shape: Sequence[int] = (1, 2, 15, 256, 256),
        ckpt_path: str | None = None,
        *,
        warmup_epochs: int = 3,
        momentum: float | None = None,
        predict_with_average: bool = False,
        batch_statistics: BatchStatistics | None = None,
        predict_turned: bool = False,
    ) -> None:
        super().__init__(lr, schedule, warmup_epochs, example_input_array_shape)
        if log_negative_metrics_every_n_epochs < 1:
            found = log_negative_metrics_every_n_epochs
            raise ValueError(f"log_negative_metrics_every_n_epochs: found {found}, expected at least 1")
        if predict_with_average and momentum is None:
            raise ValueError(
                "predict_with_average: found true, expected false without momentum, which makes the average"
            )
        # A checkpoint holds plain values only, and loading it does not load what it was once started from.
        # How a prediction normalises and turns is no property of the weights.
        own = ("batch_statistics", "predict_turned")
        self.save_hyperparameters(ignore=["encoder", "model", "loss_function", "ckpt_path", *own])
        self.model = encoder
        self.loss_function = nn.TripletMarginLoss(margin=0.5) if loss_function is None else loss_function
        self.log_negative_metrics_every_n_epochs = log_negative_metrics_every_n_epochs
        self._images = {
            "train": EpochImages(log_batches_per_epoch, log_samples_per_batch),
            "val": EpochImages(log_batches_per_epoch, log_samples_per_batch, scatter=log_embeddings),
        }
        if ckpt_path is not None:
            load_weights(self.model, ckpt_path)
        self.momentum = None if momentum is None else check_momentum(momentum)
        self.predict_with_average = predict_with_average
        self.average = None if momentum is None else frozen_copy(encoder)
        if batch_statistics is not None:
            require_width(encoder)
        self.embedding = Embedding(batch_statistics, predict_turned)

    @property
    def predictor(self) -> nn.Module:
        """What predictions come from, without compilation."""
        return _plain(self.average if self.predict_with_average else self.model)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and projections of what a prediction takes of a batch, without statistics of experiments."""
        return self(images)

    def predicted_input(self, batch: dict[str, Any]) -> Tensor:
        """Return what a prediction takes of a batch."""
        return batch["anchor"]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, C, Z, Y, X) into features (B, F) and projections (B, P), as for a prediction."""
        return (self.average if self.predict_with_average else self.model)(x)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compute and log the loss of a batch."""
        return self._step(batch, batch_idx, "train")

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compute and log the loss of a batch."""
        return self._step(batch, batch_idx, "val")

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> ContrastivePrediction:
        """Embed the anchors of a batch."""
        images, index = self.predicted_input(batch), batch["index"]
        features, projections = self.embedding.predict(self.embed, self.predictor, images, index)
        return {"features": features, "projections": projections, "index": index}

    def setup(self, stage: str) -> None:
        """Forget statistics of an earlier prediction: the weights may be others now."""
        self.embedding.forget("predict")

    def on_predict_start(self) -> None:
        """Estimate the statistics of each experiment, where they are asked for."""
        self.embedding.prepare("predict", self.predictor, self.trainer.datamodule, self.predicted_input)

    def prediction_record(self) -> dict[str, Any]:
        """Say what decides a prediction beside weights and data; only its like goes on where one was interrupted."""
        return self.embedding.record()

    def prediction_uns(self) -> dict[str, Any]:
        """Return what is stored with the embeddings; a rank may have had nothing to predict before."""
        self.on_predict_start()
        return self.embedding.as_uns()

    def on_validation_start(self) -> None:
        """Estimate the statistics of each experiment that is validated on, where they are asked for."""
        network = self.compared(_plain(self.model))
        self.embedding.prepare("val", network, self.trainer.datamodule, self.compared_input)

    def on_validation_end(self) -> None:
        """Forget them: the next steps change the weights."""
        self.embedding.forget("val")

    def on_train_epoch_end(self) -> None:
        """Log images of samples."""
        self.finite_watch.settle()
        self._log_images("train")

    def on_validation_epoch_end(self) -> None:
        """Log images of samples, and of the embedding if asked for."""
        self.finite_watch.settle()
        self._log_images("val")

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return all parameters but those of the average."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("average.")]

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Make a step, and let the average follow; batches whose gradients only accumulate do not come here."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.average is not None:
            makes_keys = objective_of(self.loss_function).takes_keys
            follow(self.average, self.model, self.momentum, buffers=not makes_keys)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take weights; a checkpoint without an average begins one, and one that is not used is left out."""
        state = {name: value for name, value in state_dict.items() if not name.startswith("average.")}
        if self.average is not None:
            own = {uncompiled(name): value for name, value in state.items() if name.startswith("model.")}
            begun = {f"average.{name.removeprefix('model.')}": value for name, value in own.items()}
            state |= {name: state_dict.get(name, value) for name, value in begun.items()}
        return super().load_state_dict(state, strict, assign)

    def _step(self, batch: dict[str, Any], batch_idx: int, stage: Literal["train", "val"]) -> Tensor:
        objective = objective_of(self.loss_function)
        compared = self.views(batch, objective)
        views = compared[0]
        step = Step(stage, self.current_epoch, batch_idx)
        projections = torch.cat([view for each in compared for view in (each.anchor, each.positive)], dim=1)
        self.finite_watch.add(projections, "projections", step, batch)
        loss = sum(objective.compute(each) for each in compared)
        self.finite_watch.add(loss, f"the loss of {type(self.loss_function).__name__} is", step, batch)
        size = len(views.anchor)
        # A cell alone has nothing to be told from. It is logged without weight rather than not at all, since all
        # processes have to log alike.
        weight = 0 if objective.contrasts_batch and size == 1 else size
        if not weight:
            rank_zero_warn(f"a {stage} batch of one cell has no negatives; it has no weight in the logged figures")
        figures = pair_metrics(views.anchor, views.positive, views.negative)
        if objective.contrasts_batch and self.current_epoch % self.log_negative_metrics_every_n_epochs == 0:
            figures |= batch_metrics(views.anchor, views.positive)
        self._log(f"loss/{stage}", loss.detach(), weight, on_step=True, prog_bar=True)
        for name, value in figures.items():
            self._log(f"metrics/{name}/{stage}", value, weight)
        self._collect(batch, views, batch_idx, stage)
        return loss

    def views(self, batch: dict[str, Any], objective: Objective) -> tuple[Views, ...]:
        """Return the projections that the loss compares: it is summed over them, and figures are of the first.

        Parameters
        ----------
        batch : dict
            ``anchor`` and ``positive``, (B, C, Z, Y, X), for some losses ``negative``, and perhaps ``lineage`` (B,).
        objective : Objective
            How the loss wants to be called.

        Raises
        ------
        MissingNegativeError
            If the loss compares with negatives, and the batch has none.
        """
        negative = None if objective.contrasts_batch else self.project(batch, "negative")[0]
        anchor = self.project(batch, "anchor")[0]
        if objective.takes_keys and self.average is not None:
            with torch.no_grad():
                positive = self.average(batch["positive"])[1]
        else:
            positive = self.project(batch, "positive")[0]
        return (Views(anchor, positive, negative, batch.get("lineage")),)

    def project(self, batch: dict[str, Any], role: str) -> tuple[Tensor, ...]:
        """Return the projections, (B, P) each, of a role, such as ``anchor``."""
        images, statistics = self.compared_input(batch, role), self.embedding.validated()
        if statistics is None:
            return self.compared(self.model)(images)[1:]
        index = self.trainer.datamodule.val_dataset.index
        experiments = index.tracks["experiment"].iloc[batch["observation"].cpu().numpy()].to_numpy().astype(str)
        return embed_by_experiment(self.compared(_plain(self.model)), images, experiments, statistics)[1:]

    def compared(self, model: nn.Module) -> nn.Module:
        """Return what makes features and then projections of :meth:`compared_input`, from the trained network."""
        return model

    def compared_input(self, batch: dict[str, Any], role: str = "anchor") -> Tensor:
        """Return what is projected of a role."""
        return self.images_of(batch, role)

    def images_of(self, batch: dict[str, Any], role: str) -> Tensor:
        """Return the images of a role, or say how to get negatives."""
        if role == "negative" and role not in batch:
            raise MissingNegativeError(
                "batch",
                field=role,
                found="none",
                expected=f"a negative image, with which {type(self.loss_function).__name__} compares",
                fix="set return_negative: true in the data module, or use a loss such as dynaclr.loss.NTXentHCL",
            )
        return batch[role]

    def _log(self, name: str, value: Tensor, weight: int, on_step: bool = False, prog_bar: bool = False) -> None:
        value = value if weight else torch.zeros_like(value)
        self.log(name, value, on_step=on_step, on_epoch=True, prog_bar=prog_bar, sync_dist=True, batch_size=weight)

    def _collect(self, batch: dict[str, Any], views: Views, batch_idx: int, stage: str) -> None:
        if takes_pictures(self):
            self._images[stage].add(batch, views, batch_idx)

    def _log_images(self, stage: str) -> None:
        for name, image in self._images[stage].render().items():
            log_image(self.loggers, f"{stage}_{name}", image, self.current_epoch)


def _plain(network: nn.Module) -> nn.Module:
    return getattr(network, "_orig_mod", network)
