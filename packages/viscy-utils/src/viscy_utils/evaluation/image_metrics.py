"""How well predicted images agree with true ones, per sample and channel."""

from __future__ import annotations

import torch
from torch import Tensor

from viscy_utils.evaluation.ssim import ssim_25d

__all__ = ["image_metrics", "pearson", "psnr", "ssim_per_channel"]


def image_metrics(preds: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Compute all metrics of images.

    Parameters
    ----------
    preds, target : Tensor, shape (B, C, Z, Y, X)

    Returns
    -------
    dict of str to Tensor, shape (B, C)
        ``mae`` and ``mse``, in the unit of the images and its square; ``pearson``, ``ssim``; ``psnr`` in dB.

    Raises
    ------
    ValueError
        If the shapes differ, or the images are smaller than the window of the structural similarity.
    """
    _check(preds, target)
    difference = (preds.double() - target.double()).flatten(2)
    return {
        "mae": difference.abs().mean(-1),
        "mse": difference.square().mean(-1),
        "pearson": pearson(preds, target),
        "psnr": psnr(preds, target),
        "ssim": ssim_per_channel(preds, target),
    }


def pearson(preds: Tensor, target: Tensor) -> Tensor:
    """Compute the correlation of the pixels of each sample and channel.

    Parameters
    ----------
    preds, target : Tensor, shape (B, C, ...)

    Returns
    -------
    Tensor, shape (B, C), float64
        -1 to 1; NaN where one of the images is constant.
    """
    _check(preds, target)
    first, second = (image.double().flatten(2) for image in (preds, target))
    first, second = (image - image.mean(-1, keepdim=True) for image in (first, second))
    return (first * second).sum(-1) / (first.square().sum(-1) * second.square().sum(-1)).sqrt()


def psnr(preds: Tensor, target: Tensor, data_range: float | None = None) -> Tensor:
    """Compute the peak signal-to-noise ratio of each sample and channel.

    Parameters
    ----------
    preds, target : Tensor, shape (B, C, ...)
    data_range : float, optional
        Values from darkest to brightest; by default the largest minus the smallest value of each target.

    Returns
    -------
    Tensor, shape (B, C), float64
        In dB; infinite for images that are equal.
    """
    _check(preds, target)
    true = target.double().flatten(2)
    spread = true.amax(-1) - true.amin(-1) if data_range is None else torch.as_tensor(float(data_range))
    return 10 * torch.log10(spread**2 / (preds.double().flatten(2) - true).square().mean(-1))


def ssim_per_channel(preds: Tensor, target: Tensor) -> Tensor:
    """Compute the structural similarity of each sample and channel, see :func:`~viscy_utils.evaluation.ssim.ssim_25d`.

    Parameters
    ----------
    preds, target : Tensor, shape (B, C, Z, Y, X)

    Returns
    -------
    Tensor, shape (B, C), float32
    """
    _check(preds, target)
    return ssim_25d(preds.flatten(0, 1)[:, None], target.flatten(0, 1)[:, None]).unflatten(0, preds.shape[:2])


def _check(preds: Tensor, target: Tensor) -> None:
    if preds.shape != target.shape:
        raise ValueError(f"found images of shape {tuple(preds.shape)} and {tuple(target.shape)}, expected one shape")
