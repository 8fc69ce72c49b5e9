"""Sampling of a latent space.

Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw_latent"]


def draw_latent(mean: Tensor, logvar: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw from a normal distribution such that gradients reach its parameters.

    Parameters
    ----------
    mean, logvar : Tensor, shape (B, L)
        Mean and logarithm of the variance.
    generator : torch.Generator, optional
        Source of randomness, on the device of ``mean``; the global one by default.

    Returns
    -------
    Tensor, shape (B, L)
        ``mean + exp(logvar / 2) * noise``.
    """
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + torch.exp(0.5 * logvar) * noise
