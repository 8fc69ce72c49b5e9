"""Training of variational autoencoders with a weighted divergence, on images and on label images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dynaclr.engine.training import TrainingModule
from dynaclr.engine.vae.elbo import CLASS_LOSSES, BetaSchedule, BetaScheduleName, reconstruction_loss
from dynaclr.engine.vae.label_maps import NetworkInput, label_map
from dynaclr.engine.vae.latent import LatentTally, kl_per_dimension, kl_scalars
from dynaclr.engine.vae.logging import BetaVaeLogger
from dynaclr.imbalance import (
    BalancedCrossEntropy,
    ClassBalance,
    ClassMetrics,
    ClassTally,
    ClassWeightMethod,
    choose_class_loss,
)
from viscy_utils.pictures.epoch_samples import EpochSamples, takes_pictures
from viscy_utils.pictures.log_images import log_image
from viscy_utils.training.finite import Step
from viscy_utils.training.schedule import ScheduleName

__all__ = ["BetaVaeModule"]

Stage = Literal["train", "val"]


class BetaVaeModule(TrainingModule):
    """Train a variational autoencoder to reconstruct its input; beta weighs the divergence from the prior.

    The scales are those of the evidence lower bound: both terms are sums, over the elements of an image and over the
    latent dimensions, averaged over the batch. Logs what `dynaclr.engine.vae.logging.BetaVaeLogger` says; with
    `num_classes` also, for each epoch, ``metrics/accuracy/{stage}`` of pixels, ``metrics/accuracy_class_{k}/{stage}``,
    ``metrics/balanced_accuracy/{stage}``, ``metrics/f1_score/{stage}`` and ``metrics/majority_share/{stage}``.

    Parameters
    ----------
    vae : nn.Module
        From images to an object with ``recon_x``, ``mean``, ``logvar`` and ``z``, such as `viscy_models.BetaVae25D` or
        `viscy_models.BetaVaeMonai`; ``model.*`` in checkpoints. A 2D model takes flat images (B, C, 1, Y, X).
    loss_function : nn.Module, optional
        Of (reconstruction, target); see `dynaclr.engine.vae.elbo.reconstruction_loss` for scales. By default a new
        ``MSELoss(reduction="sum")``, or with `num_classes` cross-entropy as the options below say, whose weights of
        classes also apply to a loss given here that has none of its own.
    beta : float, default 1.0
        Weight of the divergence; 0 is 0.
    beta_schedule : {"linear", "cosine", "warmup"}, optional
        How beta grows from `beta_min` over `beta_warmup_epochs`.
    beta_min : float, default 0.1
    beta_warmup_epochs : int, default 50
    lr : float, default 1e-5
        Of AdamW.
    lr_schedule : {"WarmupCosine", "Constant"}, default "Constant"
        "WarmupCosine" rises over `warmup_epochs` and falls to 0 at the end of the run, step by step.
    log_batches_per_epoch, log_samples_per_batch : int, default 8 and 1
        Batches, and samples of each, in the images ``train_reconstructions`` and ``val_reconstructions``.
    example_input_array_shape : sequence of int, default (1, 2, 30, 256, 256)
        Of the input of summaries, graphs and exports.
    log_enhanced_visualizations : bool, default False
        Whether to log latent traversals, interpolations and the matrix of factors.
    log_enhanced_visualizations_frequency : int, default 30
        Every how many epochs.
    num_classes : int, optional
        K: the images are label images, and the model's output is K logits per pixel. A model with one input channel is
        given the labels, one with K channels one channel per class.
    focal_gamma : float, optional
        Of the focal loss of label images; by default cross-entropy.
    class_weight_method : {"none", "inverse", "sqrt_inverse", "balanced"}, default "none"
        Weigh classes by the pixels they have in the training set; the weights are logged as ``class_weight/{k}``.
    class_weights : sequence of float, optional
        Weigh classes by these K numbers.
    warmup_epochs : int, default 3
        Of "WarmupCosine".

    Attributes
    ----------
    figures : dict of str to ClassMetrics
        Of the last complete epoch, by stage, for label images.
    latent_kl : dict of str to Tensor
        Mean divergence of each latent dimension in the last complete epoch, by stage.

    Raises
    ------
    ValueError
        For options out of range or that exclude each other.
    """

    schedule_option = "lr_schedule"

    def __init__(
        self,
        vae: nn.Module,
        loss_function: nn.Module | None = None,
        beta: float = 1.0,
        beta_schedule: BetaScheduleName | None = None,
        beta_min: float = 0.1,
        beta_warmup_epochs: int = 50,
        lr: float = 1e-5,
        lr_schedule: ScheduleName = "Constant",
        log_batches_per_epoch: int = 8,
        log_samples_per_batch: int = 1,
        example_input_array_shape: Sequence[int] = (1, 2, 30, 256, 256),
        log_enhanced_visualizations: bool = False,
        log_enhanced_visualizations_frequency: int = 30,
        *,
        num_classes: int | None = None,
        focal_gamma: float | None = None,
        class_weight_method: ClassWeightMethod = "none",
        class_weights: Sequence[float] | None = None,
        warmup_epochs: int = 3,
    ) -> None:
        super().__init__(lr, lr_schedule, warmup_epochs, example_input_array_shape)
        if log_enhanced_visualizations_frequency < 1:
            found = log_enhanced_visualizations_frequency
            raise ValueError(f"expected log_enhanced_visualizations_frequency of at least 1, found {found}")
        self.save_hyperparameters(ignore=["vae", "loss_function"])
        self.model = vae
        self.network_input = NetworkInput.of(vae)
        self.num_classes = num_classes
        if num_classes is not None:
            _check_for_classes(vae, self.network_input, num_classes)
        balance = ClassBalance(focal_gamma, class_weight_method, class_weights)
        self.loss_function = _choose_loss(loss_function, num_classes, balance)
        self.beta_schedule = BetaSchedule(beta, beta_schedule, beta_min, beta_warmup_epochs)
        self.vae_logger = BetaVaeLogger(_latent_dim(vae))
        self._visualize_every = log_enhanced_visualizations_frequency if log_enhanced_visualizations else None
        options = (log_batches_per_epoch, log_samples_per_batch, ("gray", "gray"))
        self._images = {stage: EpochSamples(*options) for stage in ("train", "val")}
        self._latents = nn.ModuleDict({f"{stage}_latents": LatentTally() for stage in ("train", "val")})
        tallies = {f"{stage}_tally": ClassTally(num_classes) for stage in ("train", "val")} if num_classes else {}
        self._tallies = nn.ModuleDict(tallies)
        self.figures: dict[str, ClassMetrics] = {}
        self.latent_kl: dict[str, Tensor] = {}

    @property
    def beta(self) -> float:
        """Weight of the divergence in this epoch."""
        return self.beta_schedule.at(self.current_epoch if self._trainer is not None else 0)

    def setup(self, stage: str | None = None) -> None:
        """Count the classes of the training set if the loss is to be weighted by them."""
        if isinstance(self.loss_function, BalancedCrossEntropy):
            self.loss_function.count_at_setup(self.trainer, stage or "fit", self._labels)

    def on_train_start(self) -> None:
        """Log the class weights; the module is on its device by now."""
        self.vae_logger.setup(self.device)
        if isinstance(self.loss_function, BalancedCrossEntropy):
            self.loss_function.count_at_start(self.trainer, self._labels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Reconstruct images and compute the loss.

        Parameters
        ----------
        x : Tensor, shape (B, C, Z, Y, X)
            Images; label images when the module has ``num_classes``.

        Returns
        -------
        dict of str to Tensor
            ``recon_x`` of the shape of x, or (B, K, Z, Y, X) logits of label images; ``z``, ``mu`` and ``logvar``
            (B, L); ``recon_loss``, ``kl_loss`` and ``total_loss`` = recon_loss + beta * kl_loss.
        """
        return self._reconstruct(x, self._classes(x))

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Compute and log the loss of a batch."""
        return self._step(batch, batch_idx, "train")

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Compute and log the loss of a batch."""
        return self._step(batch, batch_idx, "val")

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Encode and reconstruct the anchors of a batch.

        Returns
        -------
        dict
            ``latent`` (B, L), the mean of the posterior, the same at every call; ``reconstruction``, images, or the
            classes (B, 1, Z, Y, X) of label images; ``index`` as the batch has it.
        """
        output = self(batch["anchor"])
        return {
            "latent": output["mu"],
            "reconstruction": self._shown(output["recon_x"]),
            "index": batch["index"],
        }

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the sizes of gradients and parameters."""
        self.vae_logger.log_gradient_norms(self)

    def on_train_epoch_end(self) -> None:
        """Log images and the figures of the epoch."""
        self._end_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Log images, the figures of the epoch and, when it is their turn, the latent space."""
        self._end_epoch("val")
        self.vae_logger.log_latent_histograms(self)
        due = self._visualize_every is not None and self.current_epoch % self._visualize_every == 0
        if due and not self.trainer.sanity_checking:
            self.vae_logger.log_latent_traversal(self)
            self.vae_logger.log_latent_interpolation(self)
            self.vae_logger.log_factor_traversal_matrix(self)

    def expected_input(self) -> dict[str, int]:
        """Say what images the network takes; of label images, the module itself makes the channels."""
        found = super().expected_input()
        return found if self.num_classes is None else {name: n for name, n in found.items() if name != "channels"}

    def _reconstruct(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        output = self.model(self.network_input.encode(x, labels))
        recon_x = output.recon_x.unsqueeze(2) if output.recon_x.ndim == x.ndim - 1 else output.recon_x
        if labels is not None and recon_x.shape[1] != self.num_classes:
            found = recon_x.shape[1]
            raise ValueError(f"vae: found {found} output channels, expected {self.num_classes} (num_classes)")
        recon_loss = reconstruction_loss(self.loss_function, recon_x, x if labels is None else labels)
        kl_loss = kl_per_dimension(output.mean, output.logvar).sum(dim=1).mean()
        # Without weight an infinite divergence must not turn the loss into NaN.
        total_loss = recon_loss + self.beta * kl_loss if self.beta else recon_loss
        latent = {"z": output.z, "mu": output.mean, "logvar": output.logvar}
        return {"recon_x": recon_x, **latent, "recon_loss": recon_loss, "kl_loss": kl_loss, "total_loss": total_loss}

    def _step(self, batch: Mapping[str, Any], batch_idx: int, stage: Stage) -> Tensor:
        x = batch["anchor"]
        labels = self._classes(x)
        output = self._reconstruct(x, labels)
        step = Step(stage, self.current_epoch, batch_idx)
        self.finite_watch.add(output["total_loss"], f"the loss of {type(self.loss_function).__name__} is", step, batch)
        self.vae_logger.log_enhanced_metrics(self, output, batch, stage)
        self._latents[f"{stage}_latents"].update(output["mu"], output["logvar"])
        if labels is not None:
            self._tallies[f"{stage}_tally"].update(output["recon_x"], labels)
        if takes_pictures(self):
            shown = x if labels is None else labels[:, None]
            self._images[stage].add([shown, self._shown(output["recon_x"])], batch_idx)
        return output["total_loss"]

    def _end_epoch(self, stage: Stage) -> None:
        self.finite_watch.settle()
        self.vae_logger.log_epoch_means(self, stage)
        image = self._images[stage].take()
        if image is not None:
            log_image(self.loggers, f"{stage}_reconstructions", image, self.current_epoch)
        latents = self._latents[f"{stage}_latents"]
        self.latent_kl[stage] = latents.compute().cpu()
        latents.reset()
        figures = kl_scalars(self.latent_kl[stage], stage)
        if self.num_classes is not None:
            self.figures[stage] = self._tallies[f"{stage}_tally"].take()
            figures |= {f"metrics/{name}/{stage}": value for name, value in self.figures[stage].scalars().items()}
        self.log_dict(figures, sync_dist=True)

    def _shown(self, recon_x: Tensor) -> Tensor:
        return recon_x if self.num_classes is None else recon_x.argmax(dim=1, keepdim=True)

    def _classes(self, x: Tensor) -> Tensor | None:
        return None if self.num_classes is None else label_map(x, self.num_classes)

    def _labels(self, batch: Mapping[str, Any]) -> Tensor:
        return label_map(batch["anchor"], self.num_classes)


def _choose_loss(loss: nn.Module | None, num_classes: int | None, balance: ClassBalance) -> nn.Module:
    if getattr(loss, "reduction", None) == "none":
        raise ValueError("loss_function: found reduction 'none', expected 'sum' or 'mean'")
    if num_classes is not None:
        return choose_class_loss(loss, num_classes, balance, reduction="sum")
    if not balance.is_plain or isinstance(loss, CLASS_LOSSES):
        raise ValueError("num_classes: found None, expected the number of classes, since the loss is one of classes")
    return nn.MSELoss(reduction="sum") if loss is None else loss


def _check_for_classes(vae: nn.Module, network_input: NetworkInput, num_classes: int) -> None:
    if network_input.in_channels not in (None, 1, num_classes):
        raise ValueError(
            f"vae: found {network_input.in_channels} input channels, expected 1 (the labels) or {num_classes} (one per "
            "class of num_classes)"
        )
    if any(getattr(module, "use_sigmoid", False) for module in vae.modules()):
        raise ValueError("vae: found use_sigmoid true, expected false, since num_classes makes its output logits")


def _latent_dim(vae: nn.Module) -> int | None:
    """Ask a model for the width of its latent code; None where it does not say."""
    places = [(vae, "latent_dim"), (vae, "latent_size"), (getattr(vae, "encoder", None), "latent_dim")]
    return next((getattr(place, name) for place, name in places if isinstance(getattr(place, name, None), int)), None)
