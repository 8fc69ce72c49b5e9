"""Pictures of what the dimensions of a latent code mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from viscy_utils.pictures.log_images import render_images

__all__ = ["decoder_of", "interpolation_codes", "mosaic", "traversal_codes"]


def decoder_of(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Find the function from codes (B, L) to images: ``decoder``, or that of a MONAI autoencoder; None without one."""
    if callable(getattr(model, "decoder", None)):
        return model.decoder
    for place in (model, getattr(model, "model", None)):
        decode = getattr(place, "decode_forward", None)
        if decode is not None:
            return lambda codes: decode(codes, getattr(place, "use_sigmoid", True))
    return None


def traversal_codes(latent_dim: int, dims: Sequence[int], n_steps: int, range_vals: tuple[float, float]) -> Tensor:
    """Return codes that are 0 but for one dimension per row, which walks over a range.

    Returns
    -------
    Tensor, shape (len(dims), n_steps, latent_dim)
    """
    codes = torch.zeros(len(dims), n_steps, latent_dim)
    for row, dim in enumerate(dims):
        codes[row, :, dim] = torch.linspace(*range_vals, n_steps)
    return codes


def interpolation_codes(start: Tensor, end: Tensor, n_steps: int) -> Tensor:
    """Return the codes on the line between two, (n_steps, L), both ends included."""
    return torch.lerp(start, end, torch.linspace(0, 1, n_steps, device=start.device)[:, None].to(start.dtype))


def mosaic(images: Tensor, categorical: bool = False) -> NDArray[np.uint8]:
    """Lay a grid of images out, on one scale of brightness.

    Parameters
    ----------
    images : Tensor, shape (R, S, C, Y, X) or (R, S, C, Z, Y, X)
        The first channel of the middle slice is shown; of logits (`categorical`), the class.
    categorical : bool, default False

    Returns
    -------
    ndarray, shape (R * Y, S * X, 3), uint8
    """
    shown = images.argmax(dim=2) if categorical else images[:, :, 0]
    shown = shown if shown.ndim == 4 else shown[:, :, shown.shape[2] // 2]
    grid = torch.cat([torch.cat(list(row), dim=1) for row in shown], dim=0)
    return render_images([[grid.numpy().astype(np.float32)]])
