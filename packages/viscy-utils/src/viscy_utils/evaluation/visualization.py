"""Pictures of what a model has learnt: reconstructions beside their inputs, cells beside their nearest neighbours.

>>> figure = plot_reconstructions(model, loader, "cpu", save_path="reconstructions.png", show=False)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from viscy_data.optional import require
from viscy_utils.evaluation.image_tiles import draw_blocks
from viscy_utils.evaluation.model_outputs import ModelOutputs, run_model
from viscy_utils.evaluation.neighbor_tiles import neighbor_blocks
from viscy_utils.evaluation.reconstruction_tiles import reconstruction_block

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_outputs", "plot_reconstructions"]

_DPI = 120


def plot_reconstructions(
    model: nn.Module,
    dataloader: Iterable[Any],
    device: torch.device | str,
    num_samples: int = 6,
    save_path: str | Path | None = None,
    show: bool = True,
) -> Figure:
    """Draw inputs, reconstructions and differences side by side.

    A row per channel shows the slice with the most contrast. The titles hold the mean squared error and the structural
    similarity of the whole stack, or the accuracy for class maps. Input and reconstruction share one gray scale; the
    difference is red where the reconstruction is too bright, on a scale of half the range of the input.

    Parameters
    ----------
    model : nn.Module
        From images to reconstructions: a tensor, a tuple with one, or a mapping or object with ``recon_x`` or
        ``reconstruction``. It runs in evaluation mode without gradients, and its modes are put back.
    dataloader : iterable
        Batches: images (B, C, Y, X) or (B, C, Z, Y, X), tuples that begin with them, or mappings with ``anchor``,
        ``source``, ``image`` or ``input``, and ``target`` if the model reconstructs something else. Class maps are
        whole numbers of one channel, or one-hot, and the model then returns a channel of logits per class.
    device : torch.device or str
        Where the model runs; it is moved there and back.
    num_samples : int, default 6
        The first of the loader; fewer if it has fewer.
    save_path : str or Path, optional
        Image file; an existing one is replaced, its folder is made.
    show : bool, default True
        Whether to show the figure with pyplot; otherwise pyplot is not touched.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If there are no samples, or the output of the model has no images of the size of its input.
    """
    outputs = run_model(model, dataloader, device, num_samples)
    if outputs.reconstructions is None:
        found, size = type(model).__name__, tuple(outputs.inputs.shape[1:])
        raise ValueError(f"{found} returned no images of the size of its input {size}; expected reconstructions")
    figure = draw_outputs(outputs, figure=_pyplot_figure() if show else None)
    if save_path is not None:
        Path(save_path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(save_path)
    if show:
        _show(figure)
    return figure


def draw_outputs(outputs: ModelOutputs, headline: str = "", figure: Figure | None = None) -> Figure:
    """Draw reconstructions, or for models that embed the anchors, positives and nearest neighbours.

    Parameters
    ----------
    outputs : ModelOutputs
        As from :func:`~viscy_utils.evaluation.model_outputs.run_model`.
    headline : str, optional
    figure : Figure, optional
        Empty one to draw into, by default a new one that pyplot does not know.
    """
    outputs = _as_stacks(outputs)
    if outputs.reconstructions is None:
        blocks, found = neighbor_blocks(outputs)
        headline = f"{headline}   {found}" if headline else found
    else:
        targets = [None] * len(outputs.inputs) if outputs.targets is None else outputs.targets
        samples = zip(outputs.inputs, outputs.reconstructions, targets, strict=True)
        blocks = [reconstruction_block(number, *sample) for number, sample in enumerate(samples, start=1)]
    return draw_blocks(blocks, headline, _new_figure() if figure is None else figure)


def _as_stacks(outputs: ModelOutputs) -> ModelOutputs:
    """Give images that are no stacks one slice, and those without a channel axis one channel."""
    made = outputs.reconstructions
    stacks = {}
    for name in ("inputs", "targets", "reconstructions", "positives"):
        images = getattr(outputs, name)
        if images is not None:
            lacks_channels = images.ndim == 3 or (made is not None and images.ndim == made.ndim - 1)
            images = images[:, None] if lacks_channels else images
            stacks[name] = images[:, :, None] if images.ndim == 4 else images
    return replace(outputs, **stacks)


def _new_figure() -> Figure:
    figure = require("matplotlib.figure", extra="plot", package="viscy-utils").Figure(dpi=_DPI)
    require("matplotlib.backends.backend_agg", extra="plot", package="viscy-utils").FigureCanvasAgg(figure)
    return figure


def _pyplot_figure() -> Figure:
    return require("matplotlib.pyplot", extra="plot", package="viscy-utils").figure(dpi=_DPI)


def _show(figure: Figure) -> None:
    from matplotlib import pyplot

    pyplot.show()
    if not pyplot.isinteractive():  # it has been looked at, or there is no screen
        pyplot.close(figure)
