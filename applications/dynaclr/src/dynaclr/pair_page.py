"""A page of anchors and positives as the encoder sees them, for the eye."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure, SubFigure

from dynaclr.datamodule import MultiExperimentDataModule

__all__ = ["PairImages", "draw_pairs", "example_pairs", "pair_grid_size", "write_pairs"]


class PairImages(NamedTuple):
    """Pictures of pairs.

    Parameters
    ----------
    anchor, positive : ndarray of float32, shape (N, C, Y, X)
        The middle slices.
    titles : list of str
        Experiment, condition and tau in hours of each pair.
    channels : list of list of str
        Per pair the name of the channel at each position.
    """

    anchor: np.ndarray
    positive: np.ndarray
    titles: list[str]
    channels: list[list[str]]


def example_pairs(data: MultiExperimentDataModule, n_pairs: int = 24) -> PairImages:
    """Prepare pairs from as many training batches as needed to show each experiment and condition.

    Parameters
    ----------
    data : MultiExperimentDataModule
        Set up for ``fit``. Pairs are normalised and cropped, but not augmented: cells are to be recognised.
    n_pairs : int, default 24
        Spread evenly over experiments and their conditions.
    """
    dataset, sampler = data.train_dataset, data.train_sampler()
    positions = np.concatenate([sampler.batch(number) for number in range(min(sampler.n_batches, 64))])
    rows = dataset.index.anchor_rows[positions]
    # The first of every experiment and condition, then the second, ...
    groups = dataset.index.tracks.iloc[rows].groupby(["experiment", "condition"], observed=True)
    chosen = np.argsort(groups.cumcount().to_numpy(), kind="stable")[:n_pairs]
    chosen = positions[chosen[np.argsort(groups.ngroup().to_numpy()[chosen], kind="stable")]].tolist()
    pairs, batch = dataset.pairs(chosen), data.pipeline(dataset[chosen], training=False)
    middle = batch["anchor"].shape[2] // 2
    rows, registry = dataset.index.tracks.iloc[pairs.anchors], dataset.index.registry
    hours = {config.name: config.interval_minutes / 60 for config in registry.experiments}
    return PairImages(
        batch["anchor"][:, :, middle].numpy(),
        batch["positive"][:, :, middle].numpy(),
        [
            f"{row.experiment}\n{row.condition}, {tau * hours[row.experiment]:.3g} h"
            for row, tau in zip(rows.itertuples(), pairs.tau, strict=True)
        ],
        [[name or "absent" for name in registry.source_names[experiment]] for experiment in rows["experiment"]],
    )


def pair_grid_size(pairs: PairImages, n_columns: int = 6) -> tuple[float, float]:
    """Width and height in inches that suit a grid of pairs."""
    n_pairs, n_channels = pairs.anchor.shape[:2]
    n_columns = min(n_columns, n_pairs)
    return 2.4 * n_columns, (1.2 * n_channels + 0.55) * -(-n_pairs // n_columns)


def draw_pairs(figure: Figure | SubFigure, pairs: PairImages, n_columns: int = 6) -> None:
    """Draw a grid of pairs: per pair one row per channel, the anchor left and the positive right.

    Parameters
    ----------
    figure : matplotlib Figure or SubFigure
        Drawn into.
    pairs : PairImages
    n_columns : int, default 6
        Pairs beside each other.
    """
    n_pairs, n_channels = pairs.anchor.shape[:2]
    n_columns = min(n_columns, n_pairs)
    frames = figure.subfigures(-(-n_pairs // n_columns), n_columns, squeeze=False)
    for number, frame in enumerate(frames.flat[:n_pairs]):
        frame.suptitle(pairs.titles[number], fontsize=7)
        axes = frame.subplots(n_channels, 2, squeeze=False)
        for channel in range(n_channels):
            both = np.stack([pairs.anchor[number, channel], pairs.positive[number, channel]])
            low, high = np.percentile(both, (0.5, 99.5))  # one scale, so that brightness can be compared
            for axis, image in zip(axes[channel], both, strict=True):
                axis.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
                axis.set(xticks=[], yticks=[])
            axes[channel, 0].set_ylabel(pairs.channels[number][channel], fontsize=6)


def write_pairs(pairs: PairImages, path: str | Path) -> None:
    """Write a page of pairs as a PNG file; an existing one is replaced."""
    figure = Figure(figsize=pair_grid_size(pairs), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    draw_pairs(figure, pairs)
    figure.savefig(path, dpi=120)
