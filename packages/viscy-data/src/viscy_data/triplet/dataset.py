"""Which patches make a triplet: the dataset."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from viscy_data._optional import require
from viscy_data.errors import InputError, raise_all
from viscy_data.norm_meta import NormStatistics
from viscy_data.patches import PatchReader, patch_start
from viscy_data.stores import FovInfo, describe_position
from viscy_data.triplet.pairs import TrackPairs
from viscy_data.typing import INDEX_COLUMNS, TripletSample

if TYPE_CHECKING:
    import pandas as pd
    from iohub.ngff import Position

__all__ = ["TripletDataset"]

_logger = logging.getLogger(__name__)


class TripletDataset(Dataset):
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
        Height and width, even or odd. Cells whose patch would leave the image are left out.
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

    Attributes
    ----------
    tracks, valid_anchors : pandas.DataFrame
        Observations whose patch lies inside their image, with ``fov_name`` and ``global_track_id``; and those among
        them that can be asked for, in this order.
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
    ) -> None:
        if time_interval != "any" and time_interval < 0:
            raise ValueError(f"time_interval={time_interval} must be a number of frames, 0 or more, or 'any'")
        self.positions = tuple(fov if isinstance(fov, FovInfo) else describe_position(fov) for fov in positions)
        start, stop = (z_range.start or 0, z_range.stop) if isinstance(z_range, slice) else z_range
        self.channel_names, self.fit, self.seed = list(channel_names), fit, seed
        self.time_interval, self.return_negative = time_interval, return_negative
        self._z_start, self._size = start, (stop - start, *initial_yx_patch_size)
        raise_all(_misfits(self.positions, self.channel_names, (start, stop), initial_yx_patch_size))
        self.channel_indices = [[fov.channel_names.index(name) for name in channel_names] for fov in self.positions]
        self.tracks = self._inside(_concatenate(self.positions, tracks_tables))
        if predict_cells:
            self.tracks = _select_tracks(self.tracks, include_fov_names, include_track_ids)
        track = require("pandas", extra="triplet").factorize(self.tracks["global_track_id"])[0]
        self._pairs = TrackPairs(track, self.tracks["t"].to_numpy(), time_interval)
        self._anchor_rows = self._find_anchors()
        self.valid_anchors = self.tracks.iloc[self._anchor_rows].reset_index(drop=True)
        keys = [fov.key for fov in self.positions]
        self._reader = PatchReader(keys, cache_pool_bytes=cache_pool_bytes)
        self.statistics = NormStatistics(keys, [self.channel_names] * len(keys), names=self.channel_names)

    def __len__(self) -> int:
        return len(self._anchor_rows)

    def __getitem__(self, indices: int | Sequence[int]) -> TripletSample:
        """Return the batch of these anchors; a single index is a batch of one."""
        return self.__getitems__([indices] if isinstance(indices, int | np.integer) else indices)

    def __getitems__(self, indices: Sequence[int]) -> TripletSample:
        """Return a batch.

        Parameters
        ----------
        indices : sequence of int
            Rows of ``valid_anchors``.

        Returns
        -------
        dict
            ``anchor`` (B, C, Z, Y, X) float32 and ``anchor_norm_meta``, a mapping per sample. When fitting also
            ``positive`` and, if asked for, ``negative``, in the same order, and ``rng_seed`` for the transforms;
            otherwise ``index``, a list of records with ``INDEX_COLUMNS``.
        """
        rows = self._anchor_rows[np.asarray(indices, np.int64)]
        groups = {"anchor": rows}
        batch: dict[str, Any] = {}
        if self.fit:
            rng = np.random.default_rng([self.seed, *map(int, indices)])
            batch["rng_seed"] = int(rng.integers(2**31))
            if self.time_interval != "any":
                groups["positive"] = self._pairs.positives(rows)
            if self.return_negative:
                groups["negative"] = self._pairs.draw_negatives(rows, rng)
        patches = self._read(np.concatenate(list(groups.values())))
        for (role, group), patch in zip(groups.items(), patches.split(len(rows)), strict=True):
            batch[role] = patch
            batch[f"{role}_norm_meta"] = self.statistics.samples(self._fov[group], self._t[group])
        if not self.fit:
            columns = [name for name in INDEX_COLUMNS if name in self.tracks]
            batch["index"] = self.tracks.iloc[rows][columns].to_dict(orient="records")
        elif self.time_interval == "any":
            batch["positive"] = batch["anchor"].clone()
            batch["positive_norm_meta"] = batch["anchor_norm_meta"]
        return batch

    def _read(self, rows: np.ndarray) -> torch.Tensor:
        fov = self._fov[rows]
        patches = self._reader.read(
            fov=fov,
            t=self._t[rows],
            channels=np.asarray(self.channel_indices, np.int64)[fov],
            z=np.full(len(rows), self._z_start),
            y=self._start_y[rows],
            x=self._start_x[rows],
            size=self._size,
        )
        return torch.from_numpy(patches)

    def _inside(self, tracks: pd.DataFrame) -> pd.DataFrame:
        """Leave out observations beyond the last frame (with a warning) or too near to the border."""
        extent = np.array([fov.shape for fov in self.positions])[tracks["fov_index"]]
        late = tracks["t"].to_numpy() >= extent[:, 0]
        if late.any():
            names = sorted(set(tracks["fov_name"][late]))
            warnings.warn(
                f"{int(late.sum())} tracked cells are beyond the last frame of their image and left out, "
                f"in FOVs {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}",
                stacklevel=4,
            )
        keep = ~late
        for name, size, axis in zip("yx", self._size[1:], (3, 4), strict=True):
            center, half = tracks[name].to_numpy(), size // 2
            keep &= (center > half) & (center < extent[:, axis] - half)
            keep &= patch_start(center, size) + size <= extent[:, axis]
        _logger.info("%d of %d tracked cells have their patch inside the image", keep.sum(), len(keep))
        if not keep.any():
            raise ValueError(f"none of {len(tracks)} tracked cells has a patch of {self._size[1:]} inside the image")
        return tracks[keep].reset_index(drop=True)

    def _find_anchors(self) -> np.ndarray:
        """Choose the rows that can be asked for; columns that reading needs become arrays."""
        self._fov, self._t = (self.tracks[name].to_numpy(np.int64) for name in ("fov_index", "t"))
        self._start_y, self._start_x = (
            patch_start(self.tracks[name].to_numpy(), size) for name, size in zip("yx", self._size[1:], strict=True)
        )
        rows = np.arange(len(self.tracks))
        if not self.fit:
            return rows
        rows = rows[self._pairs.positives(rows) >= 0]
        if not len(rows):
            raise ValueError(f"no track has two observations {self.time_interval} frames apart (time_interval)")
        if self.return_negative:
            has_negative = self._pairs.count_negatives(rows) > 0
            if not has_negative.any():
                raise ValueError("no negatives: there is one track only; use more tracks or return_negative=False")
            _logger.info("%d anchors without a negative are left out", (~has_negative).sum())
            rows = rows[has_negative]
        return rows


def _misfits(
    positions: Sequence[FovInfo], channels: Sequence[str], z_range: tuple[int, int], yx_size: Sequence[int]
) -> list[InputError]:
    """Say what of the request no FOV can give, per FOV."""
    errors, (start, stop) = [], z_range
    for fov in positions:
        where, depth = f"{fov.store}, FOV {fov.name}", fov.shape[2]
        if absent := [name for name in channels if name not in fov.channel_names]:
            expected = f"one of {', '.join(fov.channel_names)}"
            errors.append(InputError(where, field="source_channel", found=", ".join(absent), expected=expected))
        if not 0 <= start < stop <= depth:
            errors.append(InputError(where, field="z_range", found=f"{z_range}", expected=f"within {depth} slices"))
        if any(size > extent for size, extent in zip(yx_size, fov.shape[3:], strict=True)):
            found, expected = f"a patch of {tuple(yx_size)}", f"at most the image, {fov.shape[3:]}"
            errors.append(InputError(where, field="initial_yx_patch_size", found=found, expected=expected))
    return errors


def _concatenate(positions: Sequence[FovInfo], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    frames = []
    for number, (fov, table) in enumerate(zip(positions, tables, strict=True)):
        if missing := [name for name in ("track_id", "t", "y", "x") if name not in table]:
            raise KeyError(f"tracks of FOV {fov.name} lack the columns {missing}")
        global_id = f"{fov.name}_" + table["track_id"].astype(str)
        # Plates may share FOV names; the number keeps their tracks apart.
        same_name = sum(other.name == fov.name for other in positions[:number])
        global_id = global_id + f"@{same_name}" if same_name else global_id
        frames.append(table.assign(fov_name=fov.name, fov_index=number, global_track_id=global_id))
    return require("pandas", extra="triplet").concat(frames, ignore_index=True)


def _select_tracks(
    tracks: pd.DataFrame, fov_names: Sequence[str] | None, track_ids: Sequence[int] | None
) -> pd.DataFrame:
    if not fov_names or not track_ids or len(fov_names) != len(track_ids):
        raise ValueError("predict_cells needs include_fov_names and include_track_ids of equal length")
    wanted = {f"{name.strip('/')}_{track}" for name, track in zip(fov_names, track_ids, strict=True)}
    own = tracks["fov_name"] + "_" + tracks["track_id"].astype(str)
    if unknown := sorted(wanted - set(own)):
        raise ValueError(f"predict_cells: no such tracks (FOV_track): {', '.join(unknown)}")
    return tracks[own.isin(wanted)].reset_index(drop=True)
