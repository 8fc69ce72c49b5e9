"""Images for loggers: samples of a batch, rendered side by side, and handed to loggers of any kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from viscy_data.optional import require

__all__ = ["detach_sample", "image_sinks", "log_image", "render_images"]

ImageSink = Callable[[str, NDArray[np.uint8], int], object]


def detach_sample(imgs: Sequence[Tensor], log_samples_per_batch: int) -> list[list[NDArray]]:
    """Take the middle Z slice of the first samples of each tensor.

    Parameters
    ----------
    imgs : sequence of Tensor, shape (B, C, Z, Y, X)
        Tensors of one batch; depths may differ.
    log_samples_per_batch : int
        Number of samples, at most B.

    Returns
    -------
    list of list of ndarray
        Per sample and tensor, (C, Y, X), or (Y, X) for one channel.
    """
    n_samples = min(log_samples_per_batch, imgs[0].shape[0])
    return [[_to_array(tensor[i, :, tensor.shape[2] // 2]) for tensor in imgs] for i in range(n_samples)]


def render_images(imgs: Sequence[Sequence[NDArray]], cmaps: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Lay images out as a grid: one row per sample, their channels side by side.

    Parameters
    ----------
    imgs : sequence of sequence of ndarray
        Images (C, Y, X) or (Y, X) per sample, of one size; each channel is rescaled to its own range.
    cmaps : sequence of str, optional
        Matplotlib colour map per image of a row; gray for the first and inferno for the others by default.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
    """
    colormaps = require("matplotlib", extra="plot", package="viscy-utils").colormaps
    rows = []
    for images in imgs:
        tiles = []
        for i, image in enumerate(images):
            cmap = cmaps[i] if cmaps else ("gray" if i == 0 else "inferno")
            tiles += [colormaps[cmap](_rescale(channel), bytes=True)[..., :3] for channel in _channels(image)]
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows, axis=0)


def image_sinks(loggers: Iterable[Any]) -> list[ImageSink]:
    """Find out how to hand an image to each of the loggers that take one.

    Parameters
    ----------
    loggers : iterable of Logger
        Of Lightning. TensorBoard, Weights & Biases, MLflow and Comet take images; others are left out.

    Returns
    -------
    list of callables
        ``sink(name, image, step)`` with an image of shape (H, W, 3), uint8. Empty when nobody takes images.
    """
    return [sink for sink in map(_sink, loggers) if sink is not None]


def log_image(loggers: Iterable[Any], name: str, image: NDArray[np.uint8], step: int) -> int:
    """Hand an image to all loggers that take one.

    Parameters
    ----------
    loggers : iterable of Logger
        As for :func:`image_sinks`.
    name : str
    image : ndarray of uint8, shape (H, W, 3)
    step : int
        Weights & Biases counts steps itself.

    Returns
    -------
    int
        How many loggers took it.
    """
    sinks = image_sinks(loggers)
    for sink in sinks:
        sink(name, image, step)
    return len(sinks)


def _sink(logger: Any) -> ImageSink | None:
    if hasattr(logger, "log_image"):  # Weights & Biases
        return lambda name, image, step: logger.log_image(key=name, images=[image])
    experiment = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_image"):  # TensorBoard and what looks like it
        return lambda name, image, step: experiment.add_image(name, image, step, dataformats="HWC")
    if not hasattr(experiment, "log_image"):
        return None
    if hasattr(logger, "run_id"):  # MLflow
        return lambda name, image, step: experiment.log_image(logger.run_id, image, artifact_file=f"{name}_{step}.png")
    return lambda name, image, step: experiment.log_image(image, name=name, step=step)  # Comet


def _channels(image: NDArray) -> NDArray:
    return image[None] if image.ndim == 2 else image


def _to_array(tensor: Tensor) -> NDArray:
    return np.squeeze(tensor.detach().cpu().float().numpy())


def _rescale(image: NDArray) -> NDArray:
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else np.zeros_like(image)
