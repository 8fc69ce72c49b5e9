"""Batches of anchors and positives: which pixels belong to which observations.

Positives, negatives and the seed of everything that happens to a batch later are a pure function of the seed and the
positions asked for, so a batch is the same in every process and thread.

>>> dataset = MultiExperimentTripletDataset(index, seed=0)  # doctest: +SKIP
>>> dataset[[3, 1, 2]]["anchor"].shape  # doctest: +SKIP
torch.Size([3, 2, 5, 160, 160])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dynaclr.index import MultiExperimentIndex
from dynaclr.negatives import NegativeLookup
from dynaclr.tau_sampling import checked_decay_rate
from viscy_data.batches.dataset import PatchDataset
from viscy_data.errors import InputError, raise_all
from viscy_data.patches import DEFAULT_CACHE_POOL_BYTES
from viscy_data.typing import INDEX_COLUMNS

__all__ = ["CELL_COLUMNS", "MultiExperimentTripletDataset", "Pairs"]

CELL_COLUMNS = [
    *INDEX_COLUMNS,
    *("experiment", "condition", "well_name", "hours_post_infection", "global_track_id", "lineage_id", "border_shift"),
]
"""Columns of the index records of a prediction, as far as the tracking tables have them."""


class Pairs(NamedTuple):
    """Rows of the index table that make up a batch.

    Parameters
    ----------
    anchors, positives : ndarray of int64, shape (B,)
        Rows of ``index.tracks``.
    tau : ndarray of int64, shape (B,)
        Frames from anchor to positive.
    negatives : ndarray of int64, shape (B,), optional
        Rows of cells of other lineages.
    """

    anchors: np.ndarray
    positives: np.ndarray
    tau: np.ndarray
    negatives: np.ndarray | None


class MultiExperimentTripletDataset(PatchDataset):
    """Patches around cells and around the same cells, or their descendants, some time later.

    ``dataset[positions]`` is a whole batch; a single position gives a batch of one. Beside what
    :class:`~viscy_data.batches.PatchDataset` says a batch has ``lineage``: int64, (B,), equal numbers are one
    lineage; and ``observation``, ``positive_observation``, perhaps ``negative_observation``: int64, (B,), rows of
    ``index.tracks``.

    Parameters
    ----------
    index : MultiExperimentIndex
        Observations, anchors and experiments; its patch size is what the model sees.
    fit : bool, default True
        True: the items are the anchors of the index, and come with positives. False: the items are all observations in
        the order of ``index.tracks``, and come with their index records.
    tau_range_hours : tuple of float, optional
        Time from anchor to positive: that of the index, which is asked for it. Another one is refused.
    tau_decay_rate : float, default 2.0
        Dimensionless decay of the law that tau is drawn from; 0 is uniform, larger favours short times.
    return_negative : bool, default False
        Add a random cell of another lineage of the same experiment, for triplet losses.
    cache_pool_bytes : int, default ``DEFAULT_CACHE_POOL_BYTES``
        Decoded chunks kept in memory; 0 keeps none.
    seed : int, default 0
        With the positions asked for, determines everything random.
    collate_statistics : bool, default False
        Return normalisation statistics as one mapping per batch instead of one per sample.
    read_yx_patch_size : tuple of int, optional
        Height and width to read, when augmentation needs a margin; those of the index by default.
    patch_store : str or Path, optional
        Copies of all patches, see :mod:`viscy_data.patch_store`.

    Raises
    ------
    InputError
        If the tau range or the decay rate is refused, or patches do not fit their images.
    ValueError
        If numbers are out of range, or negatives are asked for and an experiment has a single lineage.
    """

    def __init__(
        self,
        index: MultiExperimentIndex,
        fit: bool = True,
        tau_range_hours: tuple[float, float] | None = None,
        tau_decay_rate: float = 2.0,
        return_negative: bool = False,
        cache_pool_bytes: int = DEFAULT_CACHE_POOL_BYTES,
        seed: int = 0,
        *,
        collate_statistics: bool = False,
        read_yx_patch_size: tuple[int, int] | None = None,
        patch_store: str | Path | None = None,
    ) -> None:
        if fit and tau_range_hours is not None and tuple(tau_range_hours) != tuple(index.tau_range_hours):
            raise InputError(
                "MultiExperimentTripletDataset",
                field="tau_range_hours",
                found=f"{tuple(tau_range_hours)}",
                expected=f"the tau range that the index was built with, {tuple(index.tau_range_hours)}",
                fix="leave tau_range_hours out: the index is asked for it",
            )
        self.tau_decay_rate = checked_decay_rate(tau_decay_rate)
        if read_yx_patch_size is not None:
            raise_all(index.misfits(read_yx_patch_size))
        registry, names = index.registry, list(index.fov_experiments)
        positions = range(registry.num_source_channels)
        sidecars = {config.name: config.normalization_path or None for config in registry.experiments}
        super().__init__(
            index.tracks,
            index.fov_index,
            index.positions,
            [[registry.channel_maps[name][position] for position in positions] for name in names],
            [registry.source_names[name] for name in names],
            index.z_range,
            index.yx_patch_size if read_yx_patch_size is None else tuple(read_yx_patch_size),
            index.yx_patch_size,
            sidecars=[sidecars[name] for name in names],
            fov_labels=[f"experiment {name!r}" for name in names],
            fit=fit,
            record_columns=CELL_COLUMNS,
            cache_pool_bytes=cache_pool_bytes,
            seed=seed,
            collate_statistics=collate_statistics,
            patch_store=patch_store,
        )
        self.index = index
        self._negatives = None
        if fit and return_negative:
            self._negatives = NegativeLookup(index.lineage, index.tracks["experiment"].cat.codes)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what the index has: an index of a mapped file is pickled as its path."""
        return {name: value for name, value in self.__dict__.items() if name not in ("cells", "fov_index")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.cells, self.fov_index = self.index.tracks, self.index.fov_index

    def __len__(self) -> int:
        """Count the anchors (``fit``) or the observations."""
        return len(self.index.anchor_rows) if self.fit else len(self.index.tracks)

    def choose(self, positions: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Choose anchors, positives and, if asked for, negatives; observations alone without ``fit``."""
        if not self.fit:
            return {"anchor": positions}
        pairs = self._draw(positions, rng)
        rows = {"anchor": pairs.anchors, "positive": pairs.positives}
        return rows if pairs.negatives is None else rows | {"negative": pairs.negatives}

    def describe(self, rows: dict[str, np.ndarray]) -> dict[str, Any]:
        """Add the lineages of the anchors, and the rows of all, by which :meth:`records` knows them."""
        numbers = {f"{role}_observation": chosen for role, chosen in rows.items() if role != "anchor"}
        numbers |= {
            "observation": rows["anchor"],
            "lineage": self.index.forest.root[self.index.track_index[rows["anchor"]]],
        }
        return super().describe(rows) | {
            name: torch.from_numpy(np.array(number, np.int64)) for name, number in numbers.items()
        }

    def pairs(self, indices: Sequence[int] | np.ndarray) -> Pairs:
        """Say which observations make up a training batch, without reading pixels.

        Positions of another epoch than the first are :class:`~viscy_data.distributed.EpochPositions`.

        Raises
        ------
        IndexError
            If there is no such anchor.
        """
        positions = self.check_positions(indices)
        return self._draw(positions, self.generator(positions, getattr(indices, "epoch", 0))[0])

    def _draw(self, positions: np.ndarray, rng: np.random.Generator) -> Pairs:
        anchors = self.index.anchor_rows[positions]
        positives, tau = self.index.positives.draw(anchors, *self.index.tau_frames(anchors), rng, self.tau_decay_rate)
        negatives = None if self._negatives is None else self._negatives.draw(anchors, rng)
        return Pairs(anchors, positives, tau, negatives)
