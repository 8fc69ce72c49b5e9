"""Structural similarity of stacks: a window in the plane, all slices at once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ms_ssim_25d", "ssim_25d"]

_K1, _K2 = 0.01, 0.03
_DEEP = 15
_SMALLEST = 1e-4
_BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim_25d(
    preds: Tensor,
    target: Tensor,
    in_plane_window_size: tuple[int, int] = (11, 11),
    return_contrast_sensitivity: bool = False,
    data_range: float | Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute the structural similarity of stacks with a uniform window of their full depth.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004.

    Parameters
    ----------
    preds, target : Tensor, shape (B, C, Z, Y, X)
    in_plane_window_size : tuple of int, default (11, 11)
        Y and X of the window.
    return_contrast_sensitivity : bool, default False
        Also return the contrast sensitivity.
    data_range : float or Tensor, shape (B,), optional
        Values from darkest to brightest. By default the largest minus the smallest value of each target, so that the
        similarity depends neither on an offset nor on the other images of the batch.

    Returns
    -------
    Tensor, shape (B,), float32
        At most 1, for equal images; of constant targets 1 if equal and otherwise near 0. With
        ``return_contrast_sensitivity`` a second one.

    Raises
    ------
    ValueError
        For images that are not 5D, of different shapes, or smaller than the window.
    """
    _check(preds, target, in_plane_window_size)
    preds, target = preds.float(), target.float()
    if preds.shape[2] > _DEEP:
        warnings.warn(f"the window spans all {preds.shape[2]} slices: meant for thin stacks", stacklevel=2)
    c1, c2 = _constants(target, data_range)
    window = (preds.shape[2], *in_plane_window_size)
    mean_p, mean_t, square_p, square_t, product = (
        F.avg_pool3d(image, window, stride=1) for image in (preds, target, preds**2, target**2, preds * target)
    )
    variances = (square_p - mean_p**2) + (square_t - mean_t**2)
    contrast = (2 * (product - mean_p * mean_t) + c2) / (variances + c2)
    similarity = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1) * contrast
    similarity, contrast = similarity.mean(dim=(1, 2, 3, 4)), contrast.mean(dim=(1, 2, 3, 4))
    return (similarity, contrast) if return_contrast_sensitivity else similarity


def ms_ssim_25d(
    preds: Tensor,
    target: Tensor,
    in_plane_window_size: tuple[int, int] = (11, 11),
    clamp: bool = False,
    betas: Sequence[float] = _BETAS,
    data_range: float | Tensor | None = None,
) -> Tensor:
    """Compute the structural similarity over several scales, each half as large in Y and X as the one before.

    Wang et al., "Multi-scale structural similarity for image quality assessment", Asilomar 2003.

    Parameters
    ----------
    preds, target, in_plane_window_size, data_range
        As in :func:`ssim_25d`.
    clamp : bool, default False
        Keep the similarity of each scale at 1e-4 or more, which a loss needs; otherwise at 0 or more.
    betas : sequence of float
        Weights of the scales.

    Returns
    -------
    Tensor, scalar, float32
        Mean over the batch, 0 to 1.

    Raises
    ------
    ValueError
        As in :func:`ssim_25d`, also when an image becomes smaller than the window.
    """
    _check(preds, target, in_plane_window_size)
    preds, target = preds.float(), target.float()
    if data_range is None:
        data_range = _spread(target)
    scales = []
    for number in range(len(betas)):
        if number:
            preds, target = (F.avg_pool3d(image, (1, 2, 2)) for image in (preds, target))
        both = ssim_25d(preds, target, in_plane_window_size, True, data_range)
        scales.append(both[0 if number == len(betas) - 1 else 1])
    # A negative similarity has no fractional power.
    levels = torch.stack(scales).clamp(min=_SMALLEST if clamp else 0.0)
    weights = torch.tensor(betas, device=levels.device)[:, None]
    return (levels**weights).prod(dim=0).mean()


def _spread(target: Tensor) -> Tensor:
    return target.flatten(1).amax(dim=1) - target.flatten(1).amin(dim=1)


def _constants(target: Tensor, data_range: float | Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what keeps the quotients finite, (B, 1, 1, 1, 1)."""
    spread = _spread(target) if data_range is None else data_range
    spread = torch.as_tensor(spread, dtype=torch.float32, device=target.device).expand(len(target))
    spread = torch.where(spread > 0, spread, 1.0).reshape(-1, 1, 1, 1, 1)
    return (_K1 * spread) ** 2, (_K2 * spread) ** 2


def _check(preds: Tensor, target: Tensor, window: tuple[int, int]) -> None:
    if preds.ndim != 5 or preds.shape != target.shape:
        found = f"{tuple(preds.shape)} and {tuple(target.shape)}"
        raise ValueError(f"found images of shape {found}, expected two of one shape (B, C, Z, Y, X)")
    if any(size < extent for size, extent in zip(preds.shape[3:], window, strict=True)):
        raise ValueError(f"found an image of {tuple(preds.shape[3:])} pixels, expected at least the window {window}")
