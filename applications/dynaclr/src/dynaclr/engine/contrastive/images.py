"""Pictures of an epoch, for the loggers that take pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynaclr.engine.contrastive.objective import Views
from viscy_data.typing import ROLES
from viscy_utils.pictures.epoch_samples import EpochSamples

__all__ = ["EpochImages", "embedding_scatter"]

_MAX_SCATTERED = 5000


class EpochImages:
    """What the images at the end of an epoch show, collected batch by batch.

    Parameters
    ----------
    n_batches, n_samples : int
        Batches of an epoch, and samples of each, to show.
    scatter : bool, default False
        Whether to draw the embedding as well.
    """

    def __init__(self, n_batches: int, n_samples: int, scatter: bool = False) -> None:
        self.scatter = scatter
        self._samples = EpochSamples(n_batches, n_samples)
        self._projections: list[Tensor] = []
        self._lineages: list[Tensor] = []

    def add(self, batch: Mapping[str, Any], views: Views, number: int) -> None:
        """Keep the first samples of the first batches, and the projections of up to 5000 cells."""
        self._samples.add([batch[key] for key in ROLES if key in batch], number)
        if self.scatter and sum(map(len, self._projections)) < _MAX_SCATTERED:
            self._projections.append(views.anchor.detach().float().cpu())
            self._lineages += [] if views.lineage is None else [views.lineage.cpu()]

    def render(self) -> dict[str, NDArray[np.uint8]]:
        """Draw what was collected, by name, and forget it."""
        images = {}
        samples = self._samples.take()
        if samples is not None:
            images["samples"] = samples
        if self._projections:
            groups = torch.cat(self._lineages).numpy() if self._lineages else None
            images["embeddings"] = embedding_scatter(torch.cat(self._projections).numpy(), groups)
        self._projections, self._lineages = [], []
        return images


def embedding_scatter(embeddings: NDArray, groups: NDArray | None = None) -> NDArray[np.uint8]:
    """Draw the first two principal components of embeddings.

    Parameters
    ----------
    embeddings : ndarray, shape (N, P), floating point
    groups : ndarray, shape (N,), optional
        Cells of the same group, such as a lineage, get the same colour.

    Returns
    -------
    ndarray, shape (H, W, 3), uint8
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    centered = embeddings - embeddings.mean(axis=0)
    _, spread, axes = np.linalg.svd(centered, full_matrices=False)
    points = centered @ axes[:2].T
    shares = spread**2 / max(float((spread**2).sum()), np.finfo(np.float32).tiny)
    figure = Figure(figsize=(5, 5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    plot = figure.add_subplot()
    colors = None if groups is None else np.unique(groups, return_inverse=True)[1] % 20
    plot.scatter(points[:, 0], points[:, -1], c=colors, cmap=None if groups is None else "tab20", s=8)
    plot.set_xlabel(f"PC 1 ({shares[0]:.0%})")
    plot.set_ylabel(f"PC {points.shape[1]} ({shares[points.shape[1] - 1]:.0%})")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
