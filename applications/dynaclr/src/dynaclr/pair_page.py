"""A page of anchors and positives as the encoder sees them, for the eye."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dynaclr.datamodule import MultiExperimentDataModule
from dynaclr.dataset import MultiExperimentTripletDataset
from viscy_data.files import replacing
from viscy_utils.evaluation.image_tiles import Block, Tile, contrast_limits, draw_blocks
from viscy_utils.reports.numbers import duration

__all__ = ["PAIRS_HEADLINE", "PairImages", "example_pairs", "pair_blocks", "write_pairs"]

PAIRS_HEADLINE = "Anchors (left) and their positives (right); + is where the cell is"


class PairImages(NamedTuple):
    """Pictures of pairs.

    Parameters
    ----------
    anchor, positive : ndarray of float32, shape (N, C, Y, X)
        The middle slices.
    titles : list of str
        Experiment, condition, FOV and track of each pair.
    captions : list of (str, str)
        Hour of the anchor, and how much later the positive is.
    channels : list of list of str
        Per pair the name of the channel at each position.
    places : ndarray of int, shape (N, 2, 2)
        Y and X of the cell in the patch of the anchor and of the positive, in pixels.
    um_per_px : list of float
        Of each pair; 0 where the store does not say.
    """

    anchor: np.ndarray
    positive: np.ndarray
    titles: list[str]
    captions: list[tuple[str, str]]
    channels: list[list[str]]
    places: np.ndarray
    um_per_px: list[float]


def example_pairs(data: MultiExperimentDataModule, n_pairs: int = 24) -> PairImages:
    """Prepare pairs from as many training batches as needed to show each experiment and condition.

    Parameters
    ----------
    data : MultiExperimentDataModule
        Set up for ``fit``. Pairs are normalised and cropped, but not augmented: cells are to be recognised.
    n_pairs : int, default 24
        Spread evenly over experiments and their conditions.
    """
    dataset = data.train_dataset
    chosen = _spread(data, n_pairs)
    pairs, batch = dataset.pairs(chosen), data.pipeline(dataset[chosen], training=False)
    middle = batch["anchor"].shape[2] // 2
    rows, registry = dataset.index.tracks.iloc[pairs.anchors], dataset.index.registry
    hours = dict(zip(registry.names, registry.interval_hours, strict=True))
    starts = {config.name: config.start_hpi for config in registry.experiments}
    unit = {name: "after infection" if start else "into the recording" for name, start in starts.items()}
    places = [dataset.places(each) for each in (pairs.anchors, pairs.positives)]
    return PairImages(
        batch["anchor"][:, :, middle].numpy(),
        batch["positive"][:, :, middle].numpy(),
        [f"{row.experiment}, {row.condition}\n{row.fov_name}, track {row.track_id}" for row in rows.itertuples()],
        [
            (
                f"{duration(row.hours_post_infection)} {unit[row.experiment]}",
                f"{duration(tau * hours[row.experiment])} later",
            )
            for row, tau in zip(rows.itertuples(), pairs.tau, strict=True)
        ],
        [[name or "absent" for name in registry.source_names[experiment]] for experiment in rows["experiment"]],
        np.stack(places, axis=1),
        _pixel_sizes(dataset, pairs.anchors),
    )


def _spread(data: MultiExperimentDataModule, n_pairs: int) -> list[int]:
    """Choose positions among the anchors: the first of every experiment and condition, then the second, ..."""
    dataset, sampler = data.train_dataset, data.train_sampler()
    positions = np.concatenate([sampler.batch(number) for number in range(min(sampler.n_batches, 64))])
    rows = dataset.index.anchor_rows[positions]
    groups = dataset.index.tracks.iloc[rows].groupby(["experiment", "condition"], observed=True)
    chosen = np.argsort(groups.cumcount().to_numpy(), kind="stable")[:n_pairs]
    return positions[chosen[np.argsort(groups.ngroup().to_numpy()[chosen], kind="stable")]].tolist()


def _pixel_sizes(dataset: MultiExperimentTripletDataset, rows: np.ndarray) -> list[float]:
    """Micrometres per pixel, 0 where the store has the scale 1 of stores that say nothing."""
    scales = [dataset.index.positions[fov].scale[-1] for fov in dataset.index.fov_index[rows]]
    return [0.0 if scale == 1 else float(scale) for scale in scales]


def pair_blocks(pairs: PairImages) -> list[Block]:
    """Lay pairs out: one block per pair, one row per channel, the anchor left and the positive right."""
    blocks = []
    for number, title in enumerate(pairs.titles):
        rows = []
        for channel in range(pairs.anchor.shape[1]):
            both = np.stack([pairs.anchor[number, channel], pairs.positive[number, channel]])
            limits = contrast_limits(both)  # one scale, so that brightness can be compared
            captions = ("", "") if channel else pairs.captions[number]
            rows.append(
                [
                    Tile(both[role], captions[role], limits=limits, place=tuple(pairs.places[number, role]))
                    for role in (0, 1)
                ]
            )
        rows[0][0] = rows[0][0]._replace(um_per_px=pairs.um_per_px[number])
        blocks.append(Block(rows, pairs.channels[number], title))
    return blocks


def write_pairs(pairs: PairImages, path: str | Path) -> None:
    """Write a page of pairs as a PNG file; an existing one is replaced."""
    figure = draw_blocks(pair_blocks(pairs), PAIRS_HEADLINE, Figure())
    with replacing(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
