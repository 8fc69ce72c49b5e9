"""Features of cells with what is known about each: the common input of every measure and picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.checks import near_matches
from viscy_data.errors import InputError
from viscy_data.stores import canonical_fov_name
from viscy_utils.embeddings.reading import read_embeddings
from viscy_utils.evaluation.draws import draw_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CELL", "Embedded", "LeftOut", "Refit", "canonical_cells", "canonical_fovs", "read_embedded"]

CELL = ["experiment", "fov_name", "track_id", "t"]
"""Columns that identify a cell in a frame."""

_LAYOUTS = ("umap", "phate", "pacmap", "tsne")


@dataclass(frozen=True)
class LeftOut:
    """Cells that a report does not judge.

    Attributes
    ----------
    reason : str
        In words.
    n_cells : int
        How many.
    examples : tuple of str
        The first of them, as experiment/FOV/track/t.
    """

    reason: str
    n_cells: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        such = f", such as {', '.join(self.examples)}" if self.examples else ""
        return f"{self.n_cells} cells left out: {self.reason}{such}"


@dataclass(frozen=True)
class Refit:
    """What corrected features come from: a measure that divides cells corrects them anew on its training cells.

    Attributes
    ----------
    method : str
        Of `viscy_utils.evaluation.correction.fit_correction`, by experiment.
    features : ndarray of float32, shape (N, F)
        As they were.
    controls : ndarray of bool, shape (N,)
        Cells that are alike in all experiments.
    """

    method: str
    features: np.ndarray
    controls: np.ndarray


@dataclass(frozen=True)
class Embedded:
    """Features and annotations of the same cells.

    Attributes
    ----------
    name : str
        What made the features, as it appears in tables and pictures.
    features : ndarray of float32, shape (N, F)
        One row per cell and frame.
    obs : pandas.DataFrame
        N rows with at least ``experiment, fov_name, track_id, t``.
    left_out : tuple of LeftOut
        Cells that are not among the rows any more, by reason.
    notes : tuple of str
        What else a reader must know.
    origin : mapping
        What the store says of where its rows come from; empty when it says nothing.
    layouts : mapping of str to ndarray, shape (N, 2)
        Maps of the rows that the store holds, by method (``umap``, ``phate``, ...).
    refit : Refit, optional
        For features that are corrected by control cells.
    """

    name: str
    features: np.ndarray
    obs: pd.DataFrame
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    layouts: Mapping[str, np.ndarray] = field(default_factory=dict)
    refit: Refit | None = None

    @property
    def fovs(self) -> np.ndarray:
        """FOV per row, unique across experiments, int64."""
        return _numbers(self.obs, ["experiment", "fov_name"])

    @property
    def tracks(self) -> np.ndarray:
        """Track per row, unique across FOVs, int64."""
        return _numbers(self.obs, ["experiment", "fov_name", "track_id"])

    @property
    def lineages(self) -> np.ndarray:
        """Lineage per row where the embeddings carry it, else the track; unique across FOVs, int64."""
        if "lineage_id" not in self.obs:
            return self.tracks
        lineage = self.obs["lineage_id"].astype(object)
        own = "track " + self.obs["track_id"].astype(str)
        named = self.obs.assign(lineage_id=lineage.where(lineage.notna(), own).astype(str))
        return _numbers(named, ["experiment", "fov_name", "lineage_id"])

    @property
    def parents(self) -> np.ndarray:
        """Number in :attr:`tracks` of the parent of each row's track, -1 for none, int64.

        Raises
        ------
        KeyError
            If the embeddings do not carry ``parent_track_id``.
        """
        place, track = ["experiment", "fov_name"], "track_id"
        known = self.obs[place].assign(track_id=self.obs[track].astype(float), number=self.tracks)
        wanted = self.obs[place].assign(track_id=self.obs["parent_track_id"].astype(float))
        known = known.drop_duplicates([*place, track])
        found = wanted.merge(known, on=[*place, track], how="left")["number"]
        return found.fillna(-1).to_numpy(dtype=np.int64)

    def sample(self, n_cells: int, seed: int) -> Embedded:
        """Return at most ``n_cells`` rows, drawn evenly at random and kept in order."""
        if len(self.obs) <= n_cells:
            return self
        rows = draw_rows(len(self.obs), n_cells, seed)
        return self._with(rows, self.obs.iloc[rows])

    def whole_tracks(self, n_cells: int) -> Embedded:
        """Return about ``n_cells`` rows at most, all of every few tracks."""
        tracks = self.tracks
        every = -(-len(tracks) // n_cells)
        if every <= 1:
            return self
        kept = tracks % every == 0
        return self._with(kept, self.obs[kept].reset_index(drop=True))

    def without(self, rows: np.ndarray, reason: str) -> Embedded:
        """Leave rows out, and remember how many and why.

        Parameters
        ----------
        rows : ndarray of bool, shape (N,)
            Those to leave out.
        reason : str
            In words.
        """
        if not rows.any():
            return self
        names = self.obs[rows].head(3)[CELL].astype(str).agg("/".join, axis=1)
        record = LeftOut(reason, int(rows.sum()), tuple(names))
        kept = self._with(~rows, self.obs[~rows].reset_index(drop=True))
        return replace(kept, left_out=(*self.left_out, record))

    def _with(self, rows: np.ndarray, obs: pd.DataFrame) -> Embedded:
        layouts = {method: points[rows] for method, points in self.layouts.items()}
        refit = self.refit
        if refit is not None:
            refit = replace(refit, features=refit.features[rows], controls=refit.controls[rows])
        return replace(self, features=self.features[rows], obs=obs, layouts=layouts, refit=refit)


def _numbers(obs: pd.DataFrame, columns: list[str]) -> np.ndarray:
    return obs.groupby(columns, observed=True, dropna=False).ngroup().to_numpy()


def read_embedded(name: str, path: str | Path, *, obsm: str | None = None) -> Embedded:
    """Read features that ``predict`` has written; rows with features that are not finite are left out.

    Parameters
    ----------
    name : str
        Name for tables and pictures.
    path : str or Path
        AnnData zarr store.
    obsm : str, optional
        Key of an array that is read in place of the features, such as ``X_projections``.

    Raises
    ------
    InputError
        If the store is missing, something else, without finite rows, or lacks that array or a column that identifies
        cells.
    """
    table = read_embeddings(path)
    missing = [column for column in CELL if column not in table.obs]
    if missing:
        raise InputError(
            str(path),
            field="obs",
            found=f"no column {', '.join(missing)}",
            expected=f"the columns {', '.join(CELL)}",
            fix="predict with a data module that records them, such as MultiExperimentDataModule",
        )
    obs = canonical_cells(table.obs.reset_index(drop=True))
    if obsm is not None and obsm not in table.obsm:
        raise InputError(str(path), field="obsm", found=f"no {obsm!r}", expected=near_matches(obsm, table.obsm))
    features = np.asarray(table.X if obsm is None else table.obsm[obsm], dtype=np.float32)
    methods = [key.removeprefix("X_") for key in table.obsm if key.removeprefix("X_").partition("_")[0] in _LAYOUTS]
    layouts = {method: np.asarray(table.obsm[f"X_{method}"], np.float32)[:, :2] for method in methods}
    read = Embedded(name, features, obs, origin=dict(table.uns), layouts=layouts).without(
        ~np.isfinite(features).all(axis=1), "features that are not finite"
    )
    if not len(read.obs):
        raise InputError(str(path), field="X", found=f"{len(obs)} rows, none of finite features", fix="predict again")
    return read


def canonical_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Write experiments and FOVs as text, without blanks around them, and FOVs as `canonical_fovs` does."""
    return table.assign(
        experiment=table["experiment"].astype(str).str.strip(), fov_name=canonical_fovs(table["fov_name"])
    )


def canonical_fovs(names: pd.Series) -> pd.Series:
    """Write names of FOVs in the one spelling of :func:`viscy_data.stores.canonical_fov_name`."""
    text = names.astype(str)
    return text.map({name: canonical_fov_name(name) for name in text.unique()})
