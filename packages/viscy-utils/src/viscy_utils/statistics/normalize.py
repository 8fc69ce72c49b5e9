"""Normalisation of single images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from viscy_data.optional import require

__all__ = ["hist_adapteq_2D", "hist_clipping", "unzscore", "zscore"]

_EPS = np.finfo(float).eps


def zscore(input_image: ArrayLike, im_mean: float | None = None, im_std: float | None = None) -> NDArray:
    """Return ``(x - mean) / (std + eps)``.

    Parameters
    ----------
    input_image : array_like
        Any shape; integers are converted first, so that nothing wraps around.
    im_mean, im_std : float, optional
        Those of the image where not given; 0 is a value like any other.

    Returns
    -------
    ndarray
        Floating point, same shape.

    Examples
    --------
    >>> zscore(np.array([10, 12], np.uint8), im_mean=0, im_std=1).round(6).tolist()
    [10.0, 12.0]
    """
    image = _as_float(input_image)
    mean = np.nanmean(image) if im_mean is None else im_mean
    std = np.nanstd(image) if im_std is None else im_std
    return (image - mean) / (std + _EPS)


def unzscore(im_norm: ArrayLike, zscore_median: float, zscore_iqr: float) -> NDArray:
    """Undo a normalisation by median and interquartile range: ``x * (iqr + eps) + median``."""
    return _as_float(im_norm) * (zscore_iqr + _EPS) + zscore_median


def hist_clipping(input_image: ArrayLike, min_percentile: float = 2, max_percentile: float = 98) -> NDArray:
    """Clip an image to two of its percentiles; values between them stay as they are.

    Parameters
    ----------
    input_image : array_like
        Any shape.
    min_percentile, max_percentile : float, default 2 and 98
        Within 0 to 100, the first below the second.

    Returns
    -------
    ndarray
        Same shape.

    Raises
    ------
    ValueError
        If the percentiles are not in order or out of range.
    """
    if not 0 <= min_percentile < max_percentile <= 100:
        raise ValueError(f"percentiles must satisfy 0 <= min < max <= 100, got {min_percentile} and {max_percentile}")
    image = np.asarray(input_image)
    low, high = np.percentile(image, [min_percentile, max_percentile])
    return np.clip(image, low, high)


def hist_adapteq_2D(
    input_image: ArrayLike, kernel_size: int | tuple[int, int] | None = None, clip_limit: float | None = None
) -> NDArray:
    """Equalise the histogram of a 2D image locally (CLAHE, Zuiderveld 1994).

    Parameters
    ----------
    input_image : array_like, shape (Y, X)
        Image within -1 to 1 if it is floating point.
    kernel_size : int or pair of int, optional
        Size of the region in pixels; an eighth of the image by default.
    clip_limit : float, optional
        Within 0 to 1, more contrast for larger; 0.01 by default.

    Returns
    -------
    ndarray, shape (Y, X), float

    Raises
    ------
    ImportError
        Without scikit-image, of the extra ``plot``.
    ValueError
        If the image is not 2D, or the kernel size or clip limit is out of range.
    """
    image = np.asarray(input_image)
    if image.ndim != 2:
        raise ValueError(f"image must be 2D, got {image.ndim}D")
    if kernel_size is not None and np.any(np.asarray(kernel_size) < 1):
        raise ValueError(f"kernel_size must be positive, got {kernel_size}")
    if clip_limit is not None and not 0 <= clip_limit <= 1:
        raise ValueError(f"clip_limit must be within 0 to 1, got {clip_limit}")
    limit = 0.01 if clip_limit is None else clip_limit
    exposure = require("skimage.exposure", extra="plot", package="viscy-utils")
    return exposure.equalize_adapthist(image, kernel_size=kernel_size, clip_limit=limit)


def _as_float(image: ArrayLike) -> NDArray:
    array = np.asarray(image)
    return array if np.issubdtype(array.dtype, np.inexact) else array.astype(np.float64)
