"""What is logged about variational autoencoders while they train, with any logger or none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from dynaclr.engine.vae.latent import latent_statistics
from dynaclr.engine.vae.pictures import decoder_of, interpolation_codes, mosaic, traversal_codes
from viscy_utils.pictures.log_images import image_sinks

__all__ = ["BetaVaeLogger", "RunningMeans"]

_HISTOGRAM_EPOCHS = 10
_HISTOGRAM_DIMENSIONS = 16


class BetaVaeLogger:
    """Log losses, diagnostics and pictures of the latent space of a `dynaclr.engine.BetaVaeModule`.

    Parameters
    ----------
    latent_dim : int or None, default 128
        Width of the latent code; None takes it from the first batch.
    """

    def __init__(self, latent_dim: int | None = 128) -> None:
        self.latent_dim = latent_dim
        self._device: torch.device | None = None
        self._codes: Tensor | None = None
        self._means: defaultdict[str, RunningMeans] = defaultdict(RunningMeans)

    def setup(self, device: str | torch.device) -> None:
        """Choose where latent codes are made that are then decoded; by default where the module is."""
        self._device = torch.device(device)

    def log_enhanced_metrics(
        self, lightning_module: LightningModule, model_output: dict, batch: dict, stage: str = "train"
    ) -> None:
        """Log the losses of a batch, and collect its other figures for `log_epoch_means`.

        ``loss/{stage}/total``, ``loss/{stage}/reconstruction`` and ``loss/{stage}/kl``; at the end of the epoch also
        ``beta/{stage}``, ``diagnostics/{recon,latent,input}_has_nan``, ``diagnostics/recon_has_inf``,
        ``diagnostics/recon_{min,max}_val`` and ``latent_statistics/*/{stage}`` (see
        `dynaclr.engine.vae.latent.latent_statistics`), averaged over its batches.

        Parameters
        ----------
        lightning_module : LightningModule
            With the attribute ``beta``.
        model_output : dict
            Of its ``forward``.
        batch : dict
            With the images under ``anchor``.
        stage : str, default "train"
        """
        z, size = model_output["z"].detach(), len(model_output["z"])
        self.latent_dim = z.shape[1]
        named = {"total": "total_loss", "reconstruction": "recon_loss", "kl": "kl_loss"}
        losses = {f"loss/{stage}/{name}": model_output[key].detach() for name, key in named.items()}
        options = {"on_epoch": True, "sync_dist": True, "batch_size": size}
        lightning_module.log_dict(losses, on_step=stage == "train", prog_bar=True, **options)
        statistics = latent_statistics(model_output["mu"].detach(), model_output["logvar"].detach(), z)
        figures = {f"latent_statistics/{name}/{stage}": value for name, value in statistics.items()}
        figures |= {f"diagnostics/{name}": value for name, value in _diagnose(model_output, batch).items()}
        figures[f"beta/{stage}"] = torch.full_like(figures["diagnostics/recon_max_val"], lightning_module.beta)
        self._means[stage].add(figures, size)
        if stage == "val":
            self._codes = z

    def log_gradient_norms(self, lightning_module: LightningModule) -> None:
        """Collect the norms ``diagnostics/{encoder,decoder}_{grad,param}_norm`` before a step, for `log_epoch_means`.

        A model without these two parts is logged as ``model``.
        """
        model = lightning_module.model
        parts = {name: getattr(model, name) for name in ("encoder", "decoder") if hasattr(model, name)}
        figures = {}
        for name, part in (parts or {"model": model}).items():
            parameters = [parameter.detach() for parameter in part.parameters()]
            gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
            for kind, tensors in (("grad", gradients), ("param", parameters)):
                if tensors:
                    figures[f"diagnostics/{name}_{kind}_norm"] = torch.nn.utils.get_total_norm(tensors)
        if figures:
            self._means["gradients"].add(figures)

    def log_epoch_means(self, lightning_module: LightningModule, stage: str) -> None:
        """Log what `log_enhanced_metrics` and `log_gradient_norms` have collected, at the end of an epoch."""
        for name in (stage, "gradients") if stage == "train" else (stage,):
            lightning_module.log_dict(self._means[name].take(), sync_dist=True)

    def log_latent_histograms(self, lightning_module: LightningModule, stage: str = "val") -> None:
        """Log histograms ``latent_distributions/dim_{i}_{stage}`` of the last validation batch, every 10 epochs.

        Of the first 16 dimensions, to loggers that take histograms.
        """
        epoch = lightning_module.current_epoch
        due = epoch % _HISTOGRAM_EPOCHS == 0 and not lightning_module.trainer.sanity_checking
        if not due or self._codes is None or not lightning_module.trainer.is_global_zero:
            return
        codes = self._codes[:, :_HISTOGRAM_DIMENSIONS].float().cpu().numpy()
        for logger in lightning_module.loggers:
            add = getattr(getattr(logger, "experiment", None), "add_histogram", None)
            for i, values in enumerate(codes.T) if add is not None else ():
                add(f"latent_distributions/dim_{i}_{stage}", values, epoch)

    def log_latent_traversal(
        self,
        lightning_module: LightningModule,
        n_dims: int = 8,
        n_steps: int = 11,
        range_vals: tuple[float, float] = (-3, 3),
    ) -> None:
        """Log one picture ``latent_traversal/dim_{i}`` per dimension: the code is 0 but for that dimension.

        Parameters
        ----------
        lightning_module : LightningModule
        n_dims : int, default 8
            Dimensions, those that diverge most from the prior first.
        n_steps : int, default 11
        range_vals : tuple of float, default (-3, 3)
            First and last value.
        """
        for i in self._dimensions(lightning_module, n_dims):
            codes = traversal_codes(self.latent_dim, [i], n_steps, range_vals)
            self._log_decoded(lightning_module, f"latent_traversal/dim_{i}", codes)

    def log_latent_interpolation(self, lightning_module: LightningModule, n_pairs: int = 3, n_steps: int = 11) -> None:
        """Log one picture ``latent_interpolation/pair_{i}`` per pair of validation images, on the line between them.

        Parameters
        ----------
        lightning_module : LightningModule
        n_pairs : int, default 3
            At most; two images of the last validation batch make a pair.
        n_steps : int, default 11
        """
        codes = self._codes
        for i in range(min(n_pairs, 0 if codes is None else len(codes) // 2)):
            line = interpolation_codes(codes[2 * i], codes[2 * i + 1], n_steps)
            self._log_decoded(lightning_module, f"latent_interpolation/pair_{i}", line[None])

    def log_factor_traversal_matrix(self, lightning_module: LightningModule, n_dims: int = 8, n_steps: int = 7) -> None:
        """Log the picture ``factor_traversal_matrix``: a row per dimension, from -3 to 3.

        Parameters
        ----------
        lightning_module : LightningModule
        n_dims : int, default 8
            Dimensions, those that diverge most from the prior first.
        n_steps : int, default 7
        """
        dims = self._dimensions(lightning_module, n_dims)
        if dims:
            codes = traversal_codes(self.latent_dim, dims, n_steps, (-3, 3))
            self._log_decoded(lightning_module, "factor_traversal_matrix", codes)

    def log_beta_schedule(
        self, lightning_module: LightningModule, beta_schedule: Callable[[int], float] | None = None
    ) -> None:
        """Log ``beta_schedule``, the weight in this epoch: of a function of the epoch, or of the module."""
        epoch = lightning_module.current_epoch
        value = lightning_module.beta if beta_schedule is None else beta_schedule(epoch)
        for logger in lightning_module.loggers:
            logger.log_metrics({"beta_schedule": value}, step=epoch)

    def _dimensions(self, lightning_module: LightningModule, n_dims: int) -> list[int]:
        if self.latent_dim is None:
            return []
        divergence = getattr(lightning_module, "latent_kl", {}).get("val")
        order = range(self.latent_dim) if divergence is None else divergence.argsort(descending=True).tolist()
        return list(order)[:n_dims]

    def _log_decoded(self, lightning_module: LightningModule, tag: str, codes: Tensor) -> None:
        """Decode a grid of codes (R, S, L) and log it as a picture of R rows, where there is a logger for it."""
        sinks = image_sinks(lightning_module.loggers) if lightning_module.trainer.is_global_zero else []
        decode = decoder_of(lightning_module.model)
        if not sinks or decode is None:
            return
        device = lightning_module.device if self._device is None else self._device
        model, was_training = lightning_module.model, lightning_module.model.training
        model.eval()
        with torch.no_grad():
            images = decode(codes.flatten(0, 1).to(device)).float().cpu()
        model.train(was_training)
        image = mosaic(
            images.unflatten(0, codes.shape[:2]), categorical=bool(getattr(lightning_module, "num_classes", 0))
        )
        for sink in sinks:
            sink(tag, image, lightning_module.current_epoch)


class RunningMeans:
    """Average figures by name, where they were computed: one operation per batch, and no wait for the device.

    Lightning keeps a metric of its own for each name that is logged in a step, which costs a small model more than its
    training does.
    """

    def __init__(self) -> None:
        self._clear()

    def add(self, figures: dict[str, Tensor], weight: float = 1.0) -> None:
        """Add the figures of a batch, scalars that have the same names every time."""
        values = weight * torch.stack([value.detach().float() for value in figures.values()])
        if self._total is not None and self._names != tuple(figures):
            raise ValueError(f"found the figures {list(figures)}, expected {list(self._names)} as before")
        self._names, self._weight = tuple(figures), self._weight + weight
        self._total = values if self._total is None else self._total + values

    def take(self) -> dict[str, Tensor]:
        """Return the means since the last call, and begin anew."""
        found = {} if self._total is None else dict(zip(self._names, self._total / self._weight, strict=True))
        self._clear()
        return found

    def _clear(self) -> None:
        self._names: tuple[str, ...] = ()
        self._total: Tensor | None = None
        self._weight = 0.0


def _diagnose(model_output: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Tensor]:
    recon, z, x = model_output["recon_x"].detach(), model_output["z"].detach(), batch["anchor"]
    return {
        "recon_has_nan": recon.isnan().any().float(),
        "recon_has_inf": recon.isinf().any().float(),
        "input_has_nan": x.isnan().any().float() if x.is_floating_point() else torch.zeros((), device=x.device),
        "latent_has_nan": z.isnan().any().float(),
        "recon_max_val": recon.max().float(),
        "recon_min_val": recon.min().float(),
    }
