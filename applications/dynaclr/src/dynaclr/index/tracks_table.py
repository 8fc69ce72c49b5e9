"""Observations and tracks of many FOVs as flat arrays: what an index is made of, before anything is derived from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dynaclr.index.left_out import LeftOut
from dynaclr.lineage import LineageForest
from viscy_data.stores import FovInfo
from viscy_data.tracks import OutsideCount

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ID_COLUMNS", "FovTracks", "TracksTable"]

ID_COLUMNS = ("track_id", "id", "parent_track_id", "parent_id")


@dataclass(frozen=True)
class FovTracks:
    """Observations and tracks of one FOV.

    Parameters
    ----------
    columns : dict of str to ndarray of shape (N,)
        Rows that are kept, columns as in the tracking table.
    track : ndarray of int32, shape (N,)
        Position of each row's track in ``track_id``.
    track_id : ndarray of int64, shape (M,)
        Ascending.
    parent : ndarray of int32, shape (M,)
        Position of the parent track, -1 for none.
    outside : OutsideCount
        Rows outside the image or after the last frame, which are dropped.
    n_early, n_orphans : int
        Tracks that begin before their parent, and tracks whose parent is not in the table.
    notes : tuple of str
        What had to be assumed to read the table.
    """

    columns: dict[str, np.ndarray]
    track: np.ndarray
    track_id: np.ndarray
    parent: np.ndarray
    outside: OutsideCount
    n_early: int = 0
    n_orphans: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TracksTable:
    """Observations and tracks of many FOVs.

    Parameters
    ----------
    experiments : tuple of str
        Names of the experiments, in their order.
    fovs : tuple of FovInfo
        FOVs that have a tracking table, ordered by experiment.
    fov_experiment : ndarray of int32, shape (F,)
        Experiment of each FOV.
    track_id : ndarray of int64, shape (M,)
        Id of each track within its FOV; tracks are ordered by FOV.
    track_fov, parent : ndarray of int32, shape (M,)
        FOV of each track; number of its parent track, -1 for none.
    track_index : ndarray of int32, shape (N,)
        Track of each observation.
    columns : pandas.DataFrame
        N observations with the columns of the tracking tables, ordered by FOV.
    left_out : LeftOut
        What was not taken up.
    """

    experiments: tuple[str, ...]
    fovs: tuple[FovInfo, ...]
    fov_experiment: np.ndarray
    track_id: np.ndarray
    track_fov: np.ndarray
    parent: np.ndarray
    track_index: np.ndarray
    columns: pd.DataFrame
    left_out: LeftOut = field(default_factory=LeftOut)

    @classmethod
    def join(
        cls,
        experiments: Sequence[str],
        fovs: Sequence[FovInfo],
        fov_experiment: Sequence[int],
        parts: Sequence[FovTracks],
        columns: pd.DataFrame,
        left_out: LeftOut,
    ) -> TracksTable:
        """Join the tables of FOVs, in their order, whose columns are joined already."""
        n_tracks = np.array([len(part.track_id) for part in parts], dtype=np.int64)
        offsets = np.cumsum(n_tracks) - n_tracks
        parents = [
            np.where(part.parent < 0, np.int32(-1), part.parent + np.int32(offset))
            for part, offset in zip(parts, offsets, strict=True)
        ]
        return cls(
            experiments=tuple(experiments),
            fovs=tuple(fovs),
            fov_experiment=np.asarray(fov_experiment, dtype=np.int32),
            track_id=np.concatenate([part.track_id for part in parts]),
            track_fov=np.repeat(np.arange(len(parts), dtype=np.int32), n_tracks),
            parent=np.concatenate(parents),
            track_index=np.concatenate(
                [part.track + np.int32(offset) for part, offset in zip(parts, offsets, strict=True)]
            ),
            columns=columns,
            left_out=left_out,
        )

    @cached_property
    def forest(self) -> LineageForest:
        """Relations of the tracks."""
        return LineageForest(self.parent)

    def __len__(self) -> int:
        return len(self.track_index)

    @cached_property
    def fov_index(self) -> np.ndarray:
        """FOV of each observation, int16 (or int32, for more FOVs than it holds) of shape (N,)."""
        return self.track_fov.astype(np.min_scalar_type(-max(len(self.fovs), 256)))[self.track_index]

    @cached_property
    def fov_starts(self) -> np.ndarray:
        """First observation of each FOV, and the number of all, int64 of shape (F + 1,): found without reading all."""
        numbers = np.arange(len(self.fovs)).astype(self.fov_index.dtype)
        return np.append(np.searchsorted(self.fov_index, numbers), len(self))

    def rows_of(self, experiments: Iterable[str]) -> np.ndarray:
        """Return which observations belong to the experiments, bool of shape (N,)."""
        chosen = np.isin(self.experiments, list(experiments))
        return chosen[self.fov_experiment][self.fov_index]

    def rows(self, kept: np.ndarray) -> TracksTable:
        """Return the table with some of its observations (bool of shape (N,)), and all FOVs and tracks."""
        columns = self.columns[kept].reset_index(drop=True)
        return dataclasses.replace(self, track_index=self.track_index[kept], columns=columns)

    def subset(self, experiments: Iterable[str]) -> TracksTable:
        """Return the FOVs, tracks and observations of some experiments, in the order of this table."""
        names = list(experiments)
        chosen = np.isin(self.experiments, names)
        fov_kept = chosen[self.fov_experiment]
        track_kept = fov_kept[self.track_fov]
        rows = self.rows_of(names)
        experiment_number, fov_number, track_number = map(_renumber, (chosen, fov_kept, track_kept))
        parent = self.parent[track_kept]
        return TracksTable(
            experiments=tuple(name for name, kept in zip(self.experiments, chosen, strict=True) if kept),
            fovs=tuple(fov for fov, kept in zip(self.fovs, fov_kept, strict=True) if kept),
            fov_experiment=experiment_number[self.fov_experiment[fov_kept]],
            track_id=self.track_id[track_kept],
            track_fov=fov_number[self.track_fov[track_kept]],
            parent=np.where(parent < 0, np.int32(-1), track_number[parent]),
            track_index=track_number[self.track_index[rows]],
            columns=self.columns[rows].reset_index(drop=True),
            left_out=self.left_out.subset(names),
        )


def _renumber(kept: np.ndarray) -> np.ndarray:
    return (np.cumsum(kept) - 1).astype(np.int32)
