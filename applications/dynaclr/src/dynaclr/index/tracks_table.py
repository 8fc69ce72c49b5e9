"""Observations and tracks of many FOVs as flat arrays: what an index is made of, before anything is derived from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from dynaclr.lineage import LineageForest
from viscy_data.stores import FovInfo

__all__ = ["FovTracks", "LeftOut", "TracksTable"]

_NUMBERS_OR_NONE = ("id", "parent_track_id", "parent_id")


@dataclass(frozen=True)
class LeftOut:
    """What is in the input but not in the table.

    Parameters
    ----------
    fovs : tuple of str
        ``experiment: FOV`` of FOVs without a tracking table.
    n_outside, n_beyond : int
        Rows outside the image, and rows after the last frame.
    """

    fovs: tuple[str, ...] = ()
    n_outside: int = 0
    n_beyond: int = 0


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
    n_outside, n_beyond, n_early : int
        Rows outside the image, rows after the last frame, tracks that begin before their parent.
    """

    columns: dict[str, np.ndarray]
    track: np.ndarray
    track_id: np.ndarray
    parent: np.ndarray
    n_outside: int = 0
    n_beyond: int = 0
    n_early: int = 0


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
        missing: Iterable[str] = (),
    ) -> TracksTable:
        """Join the tables of FOVs, in their order."""
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
            columns=_join_columns(parts),
            left_out=LeftOut(
                tuple(missing), sum(part.n_outside for part in parts), sum(part.n_beyond for part in parts)
            ),
        )

    @cached_property
    def forest(self) -> LineageForest:
        """Relations of the tracks."""
        return LineageForest(self.parent)

    def __len__(self) -> int:
        return len(self.track_index)

    @cached_property
    def fov_index(self) -> np.ndarray:
        """FOV of each observation, int32 of shape (N,)."""
        return self.track_fov[self.track_index]

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
        prefixes = tuple(f"{name}: " for name in names)
        return TracksTable(
            experiments=tuple(name for name, kept in zip(self.experiments, chosen, strict=True) if kept),
            fovs=tuple(fov for fov, kept in zip(self.fovs, fov_kept, strict=True) if kept),
            fov_experiment=experiment_number[self.fov_experiment[fov_kept]],
            track_id=self.track_id[track_kept],
            track_fov=fov_number[self.track_fov[track_kept]],
            parent=np.where(parent < 0, np.int32(-1), track_number[parent]),
            track_index=track_number[self.track_index[rows]],
            columns=self.columns[rows].reset_index(drop=True),
            # Rows are counted for the whole build; only FOVs are known by experiment.
            left_out=LeftOut(tuple(fov for fov in self.left_out.fovs if fov.startswith(prefixes))),
        )


def _renumber(kept: np.ndarray) -> np.ndarray:
    return (np.cumsum(kept) - 1).astype(np.int32)


def _join_columns(parts: Sequence[FovTracks]) -> pd.DataFrame:
    """Join by column; a table that lacks a column contributes "none"."""
    names = list(dict.fromkeys(name for part in parts for name in part.columns))
    return pd.DataFrame({name: _join_column(name, parts) for name in names}, copy=False)


def _join_column(name: str, parts: Sequence[FovTracks]) -> np.ndarray | pd.Categorical:
    none = np.int32(-1) if name in _NUMBERS_OR_NONE else np.float32(np.nan)
    # Tables without a row say nothing about the type of their columns.
    filled = [part for part in parts if len(part.track)] or parts[:1]
    values = [part.columns[name] if name in part.columns else np.full(len(part.track), none) for part in filled]
    if all(value.dtype.kind in "biuf" for value in values):
        return np.concatenate(values)
    return pd.Categorical(np.concatenate([value.astype(object) for value in values]))
