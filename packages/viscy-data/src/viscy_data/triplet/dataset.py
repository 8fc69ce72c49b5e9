"""Which patches make a triplet: the dataset."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from viscy_data.batches.dataset import PatchDataset
from viscy_data.cells import cells_inside, check_fovs
from viscy_data.errors import InputError, raise_all
from viscy_data.optional import require
from viscy_data.stores import FovInfo, canonical_fov_name, describe_position
from viscy_data.triplet.pairs import TrackPairs
from viscy_data.typing import INDEX_COLUMNS
from viscy_data.windows import PatchWindow

if TYPE_CHECKING:
    import pandas as pd
    from iohub.ngff import Position

__all__ = ["TripletDataset"]

_logger = logging.getLogger(__name__)

_DERIVED = ("fov_name", "fov_index", "global_track_id", "border_shift")


class TripletDataset(PatchDataset):
    """Batches of anchor, positive and negative patches.

    Parameters
    ----------
    positions : sequence of FovInfo or iohub Position
        FOVs of one or more plates.
    tracks_tables : sequence of pandas.DataFrame
        One per FOV, as :func:`viscy_data.read_tracks` gives them.
    channel_names : sequence of str
        Channels to read, by name.
    initial_yx_patch_size : tuple of int
        Height and width to read, even or odd.
    z_range : slice or tuple of int
        Slices to read, start and stop.
    fit : bool, default True
        Triplets; otherwise every observation once, with its index record.
    predict_cells : bool, default False
        Only the tracks ``zip(include_fov_names, include_track_ids)``.
    include_fov_names, include_track_ids : sequence, optional
        Of equal length, for ``predict_cells``.
    time_interval : int or "any", default "any"
        Frames from anchor to positive and negative. With "any" the positive is a copy of the anchor.
    return_negative : bool, default True
        Read negatives as well.
    cache_pool_bytes : int, default 0
        See :class:`~viscy_data.patches.PatchReader`.
    seed : int, default 0
        Negatives are a function of the seed and the indices asked for.
    final_yx_patch_size : tuple of int, optional
        Height and width that the model sees, when a margin is read around them; as read by default. At the edge of
        the image they are moved only as far as needed to lie inside.
    max_border_shift : int, optional
        Leave out, and count, cells whose patch the edge moves by more pixels than this along an axis.
    patch_store : str or Path, optional
        Copies of all patches, see :mod:`viscy_data.patch_store`.

    Attributes
    ----------
    tracks, valid_anchors : pandas.DataFrame
        Observations inside their image, with ``fov_name``, ``global_track_id`` and ``border_shift`` (pixels that the
        edge moves their patch by); and those among them that can be asked for, in this order.
    positions : tuple of FovInfo
    channel_indices : list of list of int
        Per FOV the channels in its store.

    Raises
    ------
    InputError
        A ValueError naming the FOV: unknown channel, z range beyond the stack, patch larger than the image.
    ValueError
        If no observation is left, or arguments do not fit together.
    ImportError
        Without pandas or tensorstore: ``pip install 'viscy-data[triplet]'``.
    """

    def __init__(
        self,
        positions: Sequence[FovInfo | Position],
        tracks_tables: Sequence[pd.DataFrame],
        channel_names: Sequence[str],
        initial_yx_patch_size: tuple[int, int],
        z_range: slice | tuple[int, int],
        fit: bool = True,
        predict_cells: bool = False,
        include_fov_names: Sequence[str] | None = None,
        include_track_ids: Sequence[int] | None = None,
        time_interval: Literal["any"] | int = "any",
        return_negative: bool = True,
        cache_pool_bytes: int = 0,
        *,
        seed: int = 0,
        final_yx_patch_size: tuple[int, int] | None = None,
        max_border_shift: int | None = None,
        collate_statistics: bool = False,
        patch_store: str | Path | None = None,
    ) -> None:
        if time_interval != "any" and time_interval < 0:
            raise InputError(
                "TripletDataset", field="time_interval", found=str(time_interval), expected="0 or more frames, or 'any'"
            )
        window = PatchWindow(
            z_range,
            initial_yx_patch_size,
            final_yx_patch_size,
            max_border_shift=max_border_shift,
            where="TripletDataset",
            read_name="initial_yx_patch_size",
        )
        raise_all(window.problems())
        self.positions = tuple(fov if isinstance(fov, FovInfo) else describe_position(fov) for fov in positions)
        self.time_interval, self.return_negative = time_interval, return_negative
        raise_all(check_fovs(self.positions, channel_names, window))
        self.channel_indices = [[fov.channel_names.index(name) for name in channel_names] for fov in self.positions]
        tracks = cells_inside(self.positions, _concatenate(self.positions, tracks_tables), window)
        if predict_cells:
            tracks = _select_tracks(tracks, include_fov_names, include_track_ids)
        super().__init__(
            tracks,
            tracks["fov_index"].to_numpy(np.int64),
            self.positions,
            self.channel_indices,
            [list(channel_names)] * len(self.positions),
            window.slices,
            window.read_size[1:],
            window.final_size[1:],
            keys=channel_names,
            fit=fit,
            record_columns=[*INDEX_COLUMNS, "border_shift"],
            cache_pool_bytes=cache_pool_bytes,
            seed=seed,
            collate_statistics=collate_statistics,
            patch_store=patch_store,
        )
        track = require("pandas", extra="triplet").factorize(tracks["global_track_id"])[0]
        self._pairs = TrackPairs(track, tracks["t"].to_numpy(), time_interval)
        self._anchor_rows = self._find_anchors()

    @property
    def tracks(self) -> pd.DataFrame:
        """Observations inside their image."""
        return self.cells

    @property
    def valid_anchors(self) -> pd.DataFrame:
        """Observations that can be asked for."""
        return self.cells.iloc[self._anchor_rows].reset_index(drop=True)

    def __len__(self) -> int:
        return len(self._anchor_rows)

    def choose(self, positions: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Choose anchors, positives and, if asked for, negatives; observations alone without ``fit``."""
        rows = {"anchor": self._anchor_rows[positions]}
        if self.fit:
            rows["positive"] = self._pairs.positives(rows["anchor"])
            if self.return_negative:
                rows["negative"] = self._pairs.draw_negatives(rows["anchor"], rng)
        return rows

    def _find_anchors(self) -> np.ndarray:
        """Choose the rows that can be asked for."""
        rows = np.arange(len(self.cells))
        if not self.fit:
            return rows
        rows = rows[self._pairs.positives(rows) >= 0]
        if not len(rows):
            raise InputError(
                "TripletDataset",
                field="time_interval",
                found=f"no track with two observations {self.time_interval} frames apart",
                fix="choose a shorter time_interval",
            )
        if self.return_negative:
            has_negative = self._pairs.count_negatives(rows) > 0
            if not has_negative.any():
                raise InputError(
                    "TripletDataset",
                    field="return_negative",
                    found="no negatives: there is one track only",
                    fix="use more tracks, or return_negative: false",
                )
            _logger.info("%d anchors without a negative are left out", (~has_negative).sum())
            rows = rows[has_negative]
        return rows


def _concatenate(positions: Sequence[FovInfo], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    frames = []
    for number, (fov, table) in enumerate(zip(positions, tables, strict=True)):
        if missing := [name for name in ("track_id", "t", "y", "x") if name not in table]:
            raise KeyError(f"tracks of FOV {fov.name} lack the columns {missing}")
        global_id = f"{fov.name}_" + table["track_id"].astype(str)
        # Plates may share FOV names; the number keeps their tracks apart.
        same_name = sum(other.name == fov.name for other in positions[:number])
        global_id = global_id + f"@{same_name}" if same_name else global_id
        own = _beside(table, fov)
        frames.append(own.assign(fov_name=fov.name, fov_index=number, global_track_id=global_id))
    return require("pandas", extra="triplet").concat(frames, ignore_index=True)


def _beside(table: pd.DataFrame, fov: FovInfo) -> pd.DataFrame:
    """Give columns that are called like those of the dataset, and say something else, a name of their own."""
    clashing = [name for name in _DERIVED if name in table]
    if "fov_name" in clashing and set(map(canonical_fov_name, table["fov_name"])) <= {fov.name}:
        clashing.remove("fov_name")
    if clashing:
        renamed = {name: f"tracks_{name}" for name in clashing}
        pairs = ", ".join(f"{old!r} (now {new!r})" for old, new in renamed.items())
        warnings.warn(
            f"FOV {fov.name}: columns of its tracks are called like those of the dataset: {pairs}", stacklevel=5
        )
        return table.rename(columns=renamed)
    return table


def _select_tracks(
    tracks: pd.DataFrame, fov_names: Sequence[str] | None, track_ids: Sequence[int] | None
) -> pd.DataFrame:
    if not fov_names or not track_ids or len(fov_names) != len(track_ids):
        raise InputError(
            "TripletDataset", field="predict_cells", expected="include_fov_names and include_track_ids of equal length"
        )
    wanted = {f"{name.strip('/')}_{track}" for name, track in zip(fov_names, track_ids, strict=True)}
    own = tracks["fov_name"] + "_" + tracks["track_id"].astype(str)
    if unknown := sorted(wanted - set(own)):
        raise InputError(
            "TripletDataset", field="predict_cells", found=f"no such tracks (FOV_track): {', '.join(unknown)}"
        )
    return tracks[own.isin(wanted)].reset_index(drop=True)
