"""What the latent code of a variational autoencoder carries, dimension by dimension."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["COLLAPSED_NATS", "LatentTally", "clamp_logvar", "kl_per_dimension", "kl_scalars", "latent_statistics"]

COLLAPSED_NATS = 0.05
"""A dimension whose mean divergence is below this says next to nothing about the image: it has collapsed."""

_MAX_LOGVAR = 20.0
_MAX_SCALARS = 64


def clamp_logvar(logvar: Tensor) -> Tensor:
    """Limit log-variances to [-20, 20], in float32, for every term that uses them."""
    return logvar.float().clamp(-_MAX_LOGVAR, _MAX_LOGVAR)


def kl_per_dimension(mean: Tensor, logvar: Tensor) -> Tensor:
    r"""Compute the divergence of each latent dimension from the standard normal prior.

    :math:`\frac12(\mu^2 + e^{l} - 1 - l)` with the log-variance :math:`l` clamped once for both terms. Kingma and
    Welling, "Auto-encoding variational Bayes", ICLR 2014, arXiv:1312.6114, appendix B.

    Parameters
    ----------
    mean, logvar : Tensor, shape (B, L)

    Returns
    -------
    Tensor, shape (B, L), float32
        In nats, 0 or larger.
    """
    logvar = clamp_logvar(logvar)
    return 0.5 * (mean.float() ** 2 + logvar.exp() - 1 - logvar)


def kl_scalars(divergence: Tensor, stage: str) -> dict[str, float]:
    """Name the mean divergences of an epoch.

    Parameters
    ----------
    divergence : Tensor, shape (L,)
        In nats.
    stage : str

    Returns
    -------
    dict of str to float
        ``kl/active_dims/{stage}``, ``kl/collapsed_share/{stage}`` (dimensions below 0.05),
        ``kl/max/{stage}`` and, for up to 64 dimensions, ``kl/dim_{i}/{stage}``.
    """
    collapsed = divergence < COLLAPSED_NATS
    found = {
        f"kl/active_dims/{stage}": float((~collapsed).sum()),
        f"kl/collapsed_share/{stage}": float(collapsed.float().mean()),
        f"kl/max/{stage}": float(divergence.max()),
    }
    if len(divergence) <= _MAX_SCALARS:
        found |= {f"kl/dim_{i}/{stage}": float(value) for i, value in enumerate(divergence)}
    return found


@torch.no_grad()
def latent_statistics(mean: Tensor, logvar: Tensor, z: Tensor) -> dict[str, Tensor]:
    """Summarise the latent codes of a batch.

    Parameters
    ----------
    mean, logvar, z : Tensor, shape (B, L)

    Returns
    -------
    dict of str to Tensor
        Mean over the dimensions and largest one of the absolute mean (``mean_avg``, ``mean_max``) and of the standard
        deviation (``std_avg``, ``std_max``) of z over the batch; ``active_dims``, the dimensions that have not
        collapsed, and their share ``utilization``; ``effective_dim``, the participation ratio of the variances of the
        posterior means: L when all vary alike, 1 when one does.
    """
    center, spread = z.float().mean(dim=0).abs(), z.float().std(dim=0, correction=0)
    active = (kl_per_dimension(mean, logvar).mean(dim=0) >= COLLAPSED_NATS).sum().float()
    variance = mean.float().var(dim=0, correction=0)
    floor = torch.finfo(torch.float32).tiny
    return {
        "mean_avg": center.mean(),
        "std_avg": spread.mean(),
        "mean_max": center.max(),
        "std_max": spread.max(),
        "active_dims": active,
        "effective_dim": variance.sum() ** 2 / (variance**2).sum().clamp(min=floor),
        "utilization": active / z.shape[1],
    }


class LatentTally(Metric):
    """Average the divergence of each dimension over an epoch and over processes."""

    full_state_update = False
    total: Tensor
    n_samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(1), dist_reduce_fx="sum")
        self.add_state("n_samples", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, mean: Tensor, logvar: Tensor) -> None:
        """Add a batch of posteriors, (B, L) each."""
        self.total = self.total + kl_per_dimension(mean.detach(), logvar.detach()).sum(dim=0)
        self.n_samples += len(mean)

    def compute(self) -> Tensor:
        """Return the mean divergence of each dimension, shape (L,), in nats."""
        return self.total / self.n_samples
