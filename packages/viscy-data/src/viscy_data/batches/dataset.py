"""Rows of a table of cells to boxes, boxes to a batch: what every dataset of patches shares.

A subclass says which rows make up a batch (:meth:`PatchDataset.choose`). Nothing here imports Lightning or MONAI: it
is all that a worker process needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from viscy_data.batches.sources import count_missing_statistics, digest_sources, image_records
from viscy_data.channels import channel_keys
from viscy_data.norm_meta import NormStatistics, collate_norm_meta
from viscy_data.patch_store import CellBoxes, StoredPatches
from viscy_data.patches import DEFAULT_CACHE_POOL_BYTES, PatchReader
from viscy_data.placement import Placement
from viscy_data.stores import FovInfo

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PatchDataset"]

Rows = NDArray[np.int64]


class PatchDataset(Dataset):
    """Batches of patches around the cells of a table.

    ``dataset[positions]`` is a whole batch; a single position gives a batch of one.

    Parameters
    ----------
    cells : pandas.DataFrame
        One row per observation: ``t``, ``y``, ``x`` (pixels) and whatever records show. Every cell lies in its image.
    fov_index : ndarray of int, shape (N,)
        FOV of each observation.
    fovs : sequence of FovInfo
        The FOVs.
    channels : array_like of int, shape (F, C)
        Per FOV the channels of its store in the order wanted; -1 where it has none: a plane of zeros.
    channel_names : sequence of sequence of (str or None)
        Per FOV the names of these channels in its store, by which statistics are found.
    slices : slice
        Slices to read.
    read_size : tuple of int
        Height and width to read.
    final_size : tuple of int, optional
        Height and width that the model sees; as read by default. With a margin around it the cell is in the middle of
        what is read and the batch says where the final patch is (see :class:`~viscy_data.placement.Placement`).
    keys : sequence of str, optional
        Names of the channels for transforms; ``ch_0``, ``ch_1``, ... by default.
    sidecars : sequence of (str or None), optional
        Per FOV the file of its normalisation statistics, if they are not in the store.
    fov_labels : sequence of str, optional
        What messages call the origin of each FOV; its store by default.
    fit : bool, default True
        Whether the items are anchors of training batches; otherwise observations, which come with their records.
    record_columns : sequence of str, default ()
        Columns of the records.
    cache_pool_bytes : int, default ``DEFAULT_CACHE_POOL_BYTES``
        Decoded chunks kept in memory; 0 keeps none.
    seed : int, default 0
        With the positions asked for, determines everything random.
    collate_statistics : bool, default False
        Return normalisation statistics as one mapping per batch instead of one per sample: the same numbers in far
        fewer tensors, which matters when they come from another process.
    patch_store : str or Path, optional
        Copies of all patches, see :mod:`viscy_data.patch_store`: batches are the same, and come faster.

    Attributes
    ----------
    cells, fov_index, fovs, keys, fit, seed
        As given.
    size : tuple of int
        (Z, Y, X) as read.
    final_size : tuple of int
        Height and width of what the model sees.
    reader : PatchReader
    statistics : NormStatistics
    """

    def __init__(
        self,
        cells: pd.DataFrame,
        fov_index: np.ndarray,
        fovs: Sequence[FovInfo],
        channels: Sequence[Sequence[int]] | np.ndarray,
        channel_names: Sequence[Sequence[str | None]],
        slices: slice,
        read_size: tuple[int, int],
        final_size: tuple[int, int] | None = None,
        *,
        keys: Sequence[str] | None = None,
        sidecars: Sequence[str | None] | None = None,
        fov_labels: Sequence[str] | None = None,
        fit: bool = True,
        record_columns: Sequence[str] = (),
        cache_pool_bytes: int = DEFAULT_CACHE_POOL_BYTES,
        seed: int = 0,
        collate_statistics: bool = False,
        patch_store: str | Path | None = None,
    ) -> None:
        if seed < 0:
            raise ValueError(f"seed must be at least 0, found {seed}")
        self.cells, self.fov_index, self.fovs = cells, fov_index, tuple(fovs)
        self.fit, self.seed, self.collate_statistics = fit, int(seed), collate_statistics
        self._z_start = slices.start
        self.size = (slices.stop - slices.start, *read_size)
        self.final_size = tuple(read_size) if final_size is None else tuple(final_size)
        self._channels = np.asarray(channels, np.int64).reshape(len(self.fovs), -1)  # (F, C)
        self._channel_names = [list(names) for names in channel_names]
        self.keys = channel_keys(self._channels.shape[1]) if keys is None else list(keys)
        self.fov_labels = [fov.store for fov in fovs] if fov_labels is None else list(fov_labels)
        self._record_columns = [name for name in record_columns if name in cells.columns]
        self._extents = np.array([fov.shape[3:] for fov in self.fovs], np.int64).reshape(-1, 2)  # (F, 2)
        store_keys = [fov.key for fov in self.fovs]
        self.reader = PatchReader(self.fovs, cache_pool_bytes=cache_pool_bytes)
        self.statistics = NormStatistics(store_keys, self._channel_names, sidecars, names=self.keys)
        self._stored = None if patch_store is None else StoredPatches(patch_store, self.cell_boxes(), self.reader)

    def choose(self, positions: Rows, rng: np.random.Generator) -> dict[str, Rows]:
        """Choose the rows of ``cells`` that make up a batch: a subclass says which.

        Parameters
        ----------
        positions : ndarray of int64, shape (B,)
            Which items were asked for.
        rng : numpy.random.Generator
            The only source of randomness, a function of the seed and the positions.

        Returns
        -------
        dict of str to ndarray of int64, shape (B,)
            Rows by role; ``anchor`` first.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say which rows make up a batch")

    def describe(self, rows: dict[str, Rows]) -> dict[str, Any]:
        """Return further entries of a batch, by its rows; the mask of the channels that anchors lack by default."""
        present = self._channels[self.fov_index[rows["anchor"]]] >= 0
        return {"channel_mask": torch.from_numpy(present)} if (self._channels < 0).any() else {}

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
            Per role float32 images (B, C, Z, Y, X), channels by position; ``<role>_norm_meta``: statistics of each;
            with a margin ``<role>_cut``: int64 array (B, 2), first row and column of the final patch. ``channel_mask``:
            bool, (B, C), which channels exist; only when some FOV lacks one. ``rng_seed``: int, for what happens to the
            batch later. Without ``fit`` ``index`` instead: one record per sample. And what :meth:`describe` adds.
        """
        positions = self.check_positions(indices)
        rng, rng_seed = self.generator(positions, getattr(indices, "epoch", 0))
        rows = self.choose(positions, rng)
        batch = self._read(rows) | self.describe(rows)
        return batch | ({"rng_seed": rng_seed} if self.fit else {"index": self.records(rows["anchor"])})

    def check_positions(self, indices: Sequence[int] | np.ndarray) -> Rows:
        """Return positions as an array.

        Raises
        ------
        IndexError
            If one is not below the number of items.
        """
        positions = np.asarray(indices, dtype=np.int64)
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"positions {positions.min()} to {positions.max()}, but there are {len(self)} items")
        return positions

    def generator(self, positions: Rows, epoch: int = 0) -> tuple[np.random.Generator, int]:
        """Return the generator of a batch in an epoch, and a seed for what happens to the batch later."""
        digest = hashlib.blake2b(positions.astype("<i8").tobytes(), digest_size=16).digest()
        entropy = np.random.SeedSequence([self.seed, epoch, *np.frombuffer(digest, dtype="<u4").tolist()])
        return np.random.default_rng(entropy), int(entropy.spawn(1)[0].generate_state(1)[0])

    def records(self, rows: Rows) -> list[dict[str, Any]]:
        """Return the records of observations: ``record_columns``, as far as the table has them."""
        records: list[dict[str, Any]] = [{} for _ in range(len(rows))]
        for name in self._record_columns:  # one by one: a selection of columns would copy the whole table
            for record, value in zip(records, self.cells[name].iloc[rows].tolist(), strict=True):
                record[name] = value
        return records

    def cells_of(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Say which cells make up a batch, without reading pixels.

        Parameters
        ----------
        indices : sequence of int
            Positions among the items, as for the batch.

        Returns
        -------
        list of dict
            Per image ``role``, ``row`` in the batch, ``store``, ``channels`` (their names in the store, by position),
            and the record of the observation.
        """
        positions = self.check_positions(indices)
        chosen = self.choose(positions, self.generator(positions, getattr(indices, "epoch", 0))[0])
        cells = []
        for role, rows in chosen.items():
            for row, (fov, record) in enumerate(zip(self.fov_index[rows], self.records(rows), strict=True)):
                place = {"role": role, "row": row, "store": self.fovs[fov].store, "channels": self._channel_names[fov]}
                cells.append(place | record)
        return cells

    def places(self, rows: Rows) -> Rows:
        """Return where cells are in what the model sees of them, (B, 2): row and column."""
        return np.stack([along.place for along in self._placements(rows)], axis=1)

    def cell_boxes(self) -> CellBoxes:
        """Return which boxes of which images are read, one per row of ``cells``."""
        along = self._placements(slice(None))
        columns = (self.fov_index, self.cells["t"].to_numpy(), *(axis.pixel for axis in along))
        places = np.stack([np.asarray(column, np.int32) for column in columns], axis=1)
        slices = slice(self._z_start, self._z_start + self.size[0])
        return CellBoxes(self.fovs, self._channels, places, slices, self.size[1:])

    def source_digests(self) -> list[dict[str, Any]]:
        """Say which cells of which stores there are.

        Returns
        -------
        list of dict
            Per store ``store``, ``fovs`` (count), ``observations`` (count) and ``digest`` of names, shapes, channels
            and of every cell's FOV, frame and place: other cells, or the same cells elsewhere, have another one.
            ``images`` says how to find the cells' images again, see :func:`viscy_data.batches.sources.image_records`.
        """
        columns = [self.cells[name].to_numpy() for name in ("t", "y", "x", "track_id") if name in self.cells]
        sources = digest_sources(self.fovs, self._channel_names, self.fov_index, columns)
        experiments = self.cells["experiment"].to_numpy() if "experiment" in self.cells else None
        slices = slice(self._z_start, self._z_start + self.size[0])
        images = image_records(self.fovs, self._channel_names, self.fov_index, slices, self.final_size, experiments)
        return [source | {"images": images.get(source["store"], [])} for source in sources]

    def missing_statistics(self, level: str, keys: Sequence[str]) -> dict[tuple[str, str, str], int]:
        """Count the FOVs without statistics of a level, by label of the FOV, channel in the store, and store."""
        inside = (self.fovs, self._channel_names, self.keys, level, keys, self.fov_labels)
        return count_missing_statistics(self.statistics, *inside)

    def _placements(self, rows: Rows | slice) -> tuple[Placement, Placement]:
        """Say where patches lie along y and x."""
        extents = self._extents[self.fov_index[rows]]
        along_y, along_x = (
            Placement(self.cells[name].to_numpy()[rows], extents[:, axis], self.size[axis + 1], self.final_size[axis])
            for axis, name in enumerate("yx")
        )
        return along_y, along_x

    def _read(self, rows: Mapping[str, Rows]) -> dict[str, Any]:
        """Read the patches of all roles at once and describe them."""
        # Where a role shows the anchors themselves, one copy in memory is cheaper than reading twice.
        anchors = rows["anchor"]
        distinct = {role: own for role, own in rows.items() if role == "anchor" or not np.array_equal(own, anchors)}
        joined = np.concatenate(list(distinct.values()))
        fov, t = self.fov_index[joined], self.cells["t"].to_numpy()[joined]
        along = self._placements(joined)
        if self._stored is None:
            z = np.full(len(joined), self._z_start)
            boxes = (fov, t, self._channels[fov], z, *(axis.read_start for axis in along), self.size)
            patches = self.reader.read(*boxes)
        else:
            patches = self._stored.read(joined)
        pixels = torch.from_numpy(_reflect(patches, *along))
        cuts = np.stack([axis.cut for axis in along], axis=1)
        statistics = self.statistics.samples(fov, t)
        batch: dict[str, Any] = {}
        for role in rows:
            first = list(distinct).index(role) * len(anchors) if role in distinct else 0
            part = slice(first, first + len(anchors))
            batch[role] = pixels[part] if role in distinct else pixels[part].clone()
            own = statistics[part]
            batch[f"{role}_norm_meta"] = collate_norm_meta(own) if self.collate_statistics else own
            if self.size[1:] != self.final_size:
                batch[f"{role}_cut"] = cuts[part]
        return batch


def _reflect(patches: np.ndarray, along_y: Placement, along_x: Placement) -> np.ndarray:
    """Rearrange the patches that reach beyond the edge of their image, in place."""
    for axis, along in ((3, along_y), (4, along_x)):
        beyond = np.flatnonzero(along.reflected)
        if len(beyond):
            source = np.expand_dims(along.source()[beyond], [n for n in range(1, 5) if n != axis])
            patches[beyond] = np.take_along_axis(patches[beyond], source, axis)
    return patches
