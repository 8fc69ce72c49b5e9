"""Batches of anchors and positives: which pixels belong to which observations.

Positives, negatives and the seed of everything that happens to a batch later are a pure function of the seed and the
positions asked for, so a batch is the same in every process and thread.

>>> dataset = MultiExperimentTripletDataset(index, tau_range_hours=(0.5, 2.0), seed=0)  # doctest: +SKIP
>>> dataset[[3, 1, 2]]["anchor"].shape  # doctest: +SKIP
torch.Size([3, 2, 5, 160, 160])
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from dynaclr.index import MultiExperimentIndex
from dynaclr.negatives import NegativeLookup
from viscy_data.norm_meta import NormStatistics, collate_norm_meta
from viscy_data.patches import DEFAULT_CACHE_POOL_BYTES, PatchReader, patch_start
from viscy_data.typing import INDEX_COLUMNS

__all__ = ["CELL_COLUMNS", "MultiExperimentTripletDataset", "Pairs"]

CELL_COLUMNS = [
    *INDEX_COLUMNS,
    *("experiment", "condition", "well_name", "hours_post_infection", "global_track_id", "lineage_id"),
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
    rng_seed : int
        Seed for what happens to the batch later.
    """

    anchors: np.ndarray
    positives: np.ndarray
    tau: np.ndarray
    negatives: np.ndarray | None
    rng_seed: int


class MultiExperimentTripletDataset(Dataset):
    """Patches around cells and around the same cells, or their descendants, some time later.

    ``dataset[positions]`` is a whole batch; a single position gives a batch of one.

    Parameters
    ----------
    index : MultiExperimentIndex
        Observations, anchors and experiments.
    fit : bool, default True
        True: the items are the anchors of the index, and come with positives. False: the items are all observations in
        the order of ``index.tracks``, and come with their index records.
    tau_range_hours : tuple of float, default (0.5, 2.0)
        Time from anchor to positive. (0, 0): the positive is the anchor's own patch.
    tau_decay_rate : float, default 2.0
        Dimensionless decay of the law that tau is drawn from; 0 is uniform, larger favours short times.
    return_negative : bool, default False
        Add a random cell of another lineage of the same experiment, for triplet losses.
    cache_pool_bytes : int, default ``DEFAULT_CACHE_POOL_BYTES``
        Decoded chunks kept in memory; 0 keeps none.
    seed : int, default 0
        With the positions asked for, determines everything random.
    collate_statistics : bool, default False
        Return normalisation statistics as one mapping per batch instead of one per sample: the same numbers in far
        fewer tensors, which matters when they come from another process.

    Attributes
    ----------
    size : tuple of int
        (Z, Y, X) of the patches.
    fov_experiments : list of str
        Experiment of each FOV of ``index.positions``.
    reader : PatchReader
    statistics : NormStatistics

    Raises
    ------
    InputError
        If a tau range holds no frame of an experiment.
    ValueError
        If numbers are out of range, or negatives are asked for and an experiment has a single lineage.
    """

    def __init__(
        self,
        index: MultiExperimentIndex,
        fit: bool = True,
        tau_range_hours: tuple[float, float] = (0.5, 2.0),
        tau_decay_rate: float = 2.0,
        return_negative: bool = False,
        cache_pool_bytes: int = DEFAULT_CACHE_POOL_BYTES,
        seed: int = 0,
        *,
        collate_statistics: bool = False,
    ) -> None:
        if not math.isfinite(tau_decay_rate):
            raise ValueError(f"tau_decay_rate must be a finite number, found {tau_decay_rate}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, found {seed}")
        self.index, self.fit, self.seed = index, fit, int(seed)
        self.tau_decay_rate, self.collate_statistics = float(tau_decay_rate), collate_statistics
        self.size = (index.z_range.stop - index.z_range.start, *index.yx_patch_size)
        self._describe_fovs(index)
        keys = [fov.key for fov in index.positions]
        self.reader = PatchReader(keys, cache_pool_bytes=cache_pool_bytes)
        self.statistics = NormStatistics(keys, self._fov_channel_names, self._fov_sidecars)
        self._tau_frames = self._negatives = None
        if fit:
            frames = {
                config.name: index.registry.tau_range_frames(config.name, tau_range_hours)
                for config in index.registry.experiments
            }
            self._tau_frames = np.array([frames[name] for name in self.fov_experiments]).reshape(-1, 2)  # (F, 2)
        if fit and return_negative:
            self._negatives = NegativeLookup(index.lineage, index.tracks["experiment"].cat.codes)

    def _describe_fovs(self, index: MultiExperimentIndex) -> None:
        """Look up what holds for all cells of a FOV, once per FOV."""
        registry = index.registry
        self.fov_experiments = list(index.fov_experiments)
        maps = {
            name: [channels[position] for position in range(registry.num_source_channels)]
            for name, channels in registry.channel_maps.items()
        }
        self._fov_channels = np.array([maps[name] for name in self.fov_experiments], dtype=np.int64)  # (F, C)
        self._fov_channel_names = [registry.source_names[name] for name in self.fov_experiments]
        sidecars = {config.name: config.normalization_path or None for config in registry.experiments}
        self._fov_sidecars = [sidecars[name] for name in self.fov_experiments]
        self._has_absent = bool((self._fov_channels < 0).any())

    def __len__(self) -> int:
        """Count the anchors (``fit``) or the observations."""
        return len(self.index.anchor_rows) if self.fit else len(self.index.tracks)

    def __getitem__(self, position: int | Sequence[int]) -> dict[str, Any]:
        """Return the batch of these positions, see :meth:`__getitems__`."""
        return self.__getitems__([position] if isinstance(position, int | np.integer) else position)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return a batch.

        Parameters
        ----------
        indices : sequence of int
            Positions among the items.

        Returns
        -------
        dict
            ``anchor``, and with ``fit`` ``positive`` and perhaps ``negative``: float32, (B, C, Z, Y, X), channels by
            position. ``<role>_norm_meta``: statistics of each. ``lineage``: int64, (B,), equal numbers are one lineage.
            ``channel_mask``: bool, (B, C), which channels exist; only when some experiment lacks one.
            ``rng_seed``: int. Without ``fit`` also ``index``: one record per sample.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if not self.fit:
            self._check_positions(indices)
            batch = self._read({"anchor": indices}) | {"rng_seed": self._generator(indices)[1]}
            return batch | {"index": self._records(indices)}
        pairs = self.pairs(indices)
        rows = {"anchor": pairs.anchors, "positive": pairs.positives, "negative": pairs.negatives}
        batch = self._read({role: row for role, row in rows.items() if row is not None})
        return batch | {"rng_seed": pairs.rng_seed}

    def pairs(self, indices: Sequence[int] | np.ndarray) -> Pairs:
        """Say which observations make up a training batch, without reading pixels.

        Raises
        ------
        ValueError
            If an anchor has no positive at the tau range of this dataset.
        """
        indices = np.asarray(indices, dtype=np.int64)
        self._check_positions(indices)
        rng, rng_seed = self._generator(indices)
        anchors = self.index.anchor_rows[indices]
        low, high = self._tau_frames[self.index.fov_index[anchors]].T
        positives, tau = self.index.positives.draw(anchors, low, high, rng, self.tau_decay_rate)
        negatives = None if self._negatives is None else self._negatives.draw(anchors, rng)
        return Pairs(anchors, positives, tau, negatives, rng_seed)

    def _check_positions(self, indices: np.ndarray) -> None:
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"positions {indices.min()} to {indices.max()}, but there are {len(self)} items")

    def _generator(self, indices: np.ndarray) -> tuple[np.random.Generator, int]:
        """Return the generator of a batch, and a seed for what happens to the batch later."""
        digest = hashlib.blake2b(indices.astype("<i8").tobytes(), digest_size=16).digest()
        entropy = np.random.SeedSequence([self.seed, *np.frombuffer(digest, dtype="<u4").tolist()])
        return np.random.default_rng(entropy), int(entropy.spawn(1)[0].generate_state(1)[0])

    def _read(self, rows: dict[str, np.ndarray]) -> dict[str, Any]:
        """Read the patches of all roles at once and describe them."""
        tracks, n_samples = self.index.tracks, len(rows["anchor"])
        joined = np.concatenate(list(rows.values()))
        fov, t = self.index.fov_index[joined], tracks["t"].to_numpy()[joined]
        y, x = (
            patch_start(tracks[column].to_numpy()[joined], size)
            for column, size in zip(("y_clamp", "x_clamp"), self.size[1:], strict=True)
        )
        z = np.full(len(joined), self.index.z_range.start)
        pixels = torch.from_numpy(self.reader.read(fov, t, self._fov_channels[fov], z, y, x, self.size))
        statistics = self.statistics.samples(fov, t)
        batch: dict[str, Any] = {}
        for number, role in enumerate(rows):
            part = slice(number * n_samples, (number + 1) * n_samples)
            batch[role] = pixels[part]
            own = statistics[part]
            batch[f"{role}_norm_meta"] = collate_norm_meta(own) if self.collate_statistics else own
        roots = self.index.forest.root[self.index.track_index[rows["anchor"]]]
        batch["lineage"] = torch.from_numpy(roots.astype(np.int64))
        if self._has_absent:
            batch["channel_mask"] = torch.from_numpy(self._fov_channels[fov[:n_samples]] >= 0)
        return batch

    def _records(self, rows: np.ndarray) -> list[dict[str, Any]]:
        columns = [name for name in CELL_COLUMNS if name in self.index.tracks.columns]
        return self.index.tracks[columns].iloc[rows].to_dict("records")
