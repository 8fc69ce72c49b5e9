"""A reconstruction beside its input, with the figures that say how good it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from viscy_data.optional import require
from viscy_utils.evaluation.image_tiles import Block, Tile, contrast_limits

__all__ = ["as_categories", "mean_ssim", "reconstruction_block", "sharpest_slice"]


def sharpest_slice(volume: NDArray) -> int:
    """Return the slice with the most contrast, the middle one when none stands out.

    Parameters
    ----------
    volume : ndarray, shape (C, Z, Y, X)
        Contrast is the standard deviation within a slice, in units of the sharpest slice of the channel; averaged over
        the channels, so that none outweighs the others.
    """
    with np.errstate(invalid="ignore"):  # pixels that are not finite: such a slice has no contrast
        contrast = volume.astype(np.float64).std(axis=(2, 3))  # (C, Z)
    contrast = np.nan_to_num(contrast, posinf=0.0)
    peak = contrast.max(axis=1, keepdims=True)
    score = np.divide(contrast, peak, out=np.zeros_like(contrast), where=peak > 0).mean(axis=0)
    candidates = np.flatnonzero(score >= score.max() - 1e-9)
    return int(candidates[np.abs(candidates - (volume.shape[1] - 1) / 2).argmin()])


def mean_ssim(target: NDArray, image: NDArray) -> float:
    """Return the structural similarity of stacks, slice by slice.

    Parameters
    ----------
    target, image : ndarray, shape (Z, Y, X)

    Returns
    -------
    float
        Mean over the slices, with the range of `target` as the range of the data (1 for a constant target) and windows
        of 7 pixels, or fewer for small images; NaN below 3 pixels and for values that are not finite.
    """
    side = min(7, *target.shape[1:])
    window = side if side % 2 else side - 1
    if window < 3 or not (np.isfinite(target).all() and np.isfinite(image).all()):
        return float("nan")
    span = float(target.max()) - float(target.min())
    # Slices are channels here: each is compared by itself.
    structural_similarity = require("skimage.metrics", extra="plot", package="viscy-utils").structural_similarity
    return float(structural_similarity(target, image, win_size=window, channel_axis=0, data_range=span or 1.0))


def as_categories(target: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor] | None:
    """Tell class maps from intensities.

    Parameters
    ----------
    target : Tensor, shape (C, Z, Y, X)
        Class maps are whole numbers of a single channel, or one-hot over the K channels.
    reconstruction : Tensor, shape (K, Z, Y, X)
        Logits of K classes.

    Returns
    -------
    tuple of Tensor, or None
        True and most likely classes, (1, Z, Y, X), int64; None for intensities.

    Raises
    ------
    ValueError
        If the numbers of channels differ and the target is not a class map.
    """
    n_classes = len(reconstruction)
    likely = reconstruction.float().argmax(dim=0, keepdim=True)
    if len(target) == n_classes:
        one_hot = n_classes > 1 and bool(((target == 0) | (target == 1)).all() and (target.sum(dim=0) == 1).all())
        return (target.float().argmax(dim=0, keepdim=True), likely) if one_hot else None
    labels = target.long()
    if len(target) == 1 and bool((labels == target).all()) and 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        return labels, likely
    raise ValueError(
        f"the reconstruction has {n_classes} channels and its target {len(target)}; that is only possible for class "
        f"maps, whole numbers from 0 to {n_classes - 1}"
    )


def reconstruction_block(number: int, inputs: Tensor, reconstruction: Tensor, target: Tensor | None = None) -> Block:
    """Lay out one sample: a row for each channel, with input, target if that is another, reconstruction, difference.

    Parameters
    ----------
    number : int
        Of the sample, counted from 1.
    inputs, reconstruction : Tensor, shape (C, Z, Y, X)
    target : Tensor, shape (C, Z, Y, X), optional
        What is compared with the reconstruction, instead of the input.
    """
    extra, target = (None, inputs) if target is None else (inputs, target)
    categories = as_categories(target, reconstruction)
    if categories is not None:
        return _category_block(number, extra, *(part.numpy() for part in categories), len(reconstruction))
    with np.errstate(invalid="ignore"):  # what is not finite shows in the figures, as NaN
        return _intensity_block(number, extra, target.double().numpy(), reconstruction.double().numpy())


def _intensity_block(number: int, inputs: Tensor | None, target: NDArray, image: NDArray) -> Block:
    n_channels, depth = target.shape[:2]
    z = sharpest_slice(target)
    errors = ((target - image) ** 2).mean(axis=(1, 2, 3))
    similarities = np.array([mean_ssim(*pair) for pair in zip(target, image, strict=True)])
    rows = []
    for channel in range(n_channels):
        true, made = target[channel, z], image[channel, z]
        limits = contrast_limits(true)  # of the target for both, and thus the same in every epoch
        half = (limits[1] - limits[0]) / 2
        titles = ["", _figures(errors[channel], similarities[channel]), f"±{half:.3g}"]
        if channel == 0:
            overall = f"all: {_figures(errors.mean(), similarities.mean())}" if n_channels > 1 else ""
            heads = [_head(number, inputs, z, depth), "reconstruction", "difference"]
            titles = [f"{head}\n{line}" for head, line in zip(heads, [overall, *titles[1:]], strict=True)]
        row = [
            Tile(true, titles[0], "gray", limits),
            Tile(made, titles[1], "gray", limits),
            Tile(made - true, titles[2], "RdBu_r", (-half, half)),
        ]
        rows.append([*_input_tiles(inputs, channel, z), *row])
    return Block(rows, [f"channel {channel}" if n_channels > 1 else "" for channel in range(n_channels)])


def _figures(error: float, similarity: float) -> str:
    return f"MSE {error:.3g}  SSIM {similarity:.3f}"


def _category_block(number: int, inputs: Tensor | None, true: NDArray, made: NDArray, n_classes: int) -> Block:
    wrong = true != made
    z = sharpest_slice(np.concatenate([true == label for label in np.unique(true)]))
    cmap, limits = ("tab10", (-0.5, 9.5)) if n_classes <= 10 else ("tab20", (-0.5, 19.5))
    row = [
        Tile(true[0, z] % 20, f"{_head(number, inputs, z, true.shape[1])}\n{n_classes} classes", cmap, limits),
        Tile(made[0, z] % 20, f"reconstruction\naccuracy {1 - wrong.mean():.1%}", cmap, limits),
        Tile(wrong[0, z].astype(float), f"difference\n{wrong[0, z].mean():.1%} wrong here", "Reds", (0, 1)),
    ]
    return Block([[*_input_tiles(inputs, 0, z), *row]], [""])


def _head(number: int, inputs: Tensor | None, z: int, depth: int) -> str:
    return f"{'input' if inputs is None else 'target'} {number}" + (f", z {z} of 0-{depth - 1}" if depth > 1 else "")


def _input_tiles(inputs: Tensor | None, channel: int, z: int) -> list[Tile]:
    """Return the tile of an input that is not the target: it may have other channels and slices."""
    if inputs is None:
        return []
    volume = inputs[min(channel, len(inputs) - 1)].float().numpy()
    image = volume[z if z < len(volume) else len(volume) // 2]
    return [Tile(image, "input" if channel == 0 else "", "gray", contrast_limits(image))]
