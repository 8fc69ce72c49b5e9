"""Features of cells with what is known about each: the common input of every figure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from viscy_data.errors import InputError, MissingInputError

__all__ = ["Embedded", "add_labels", "read_embedded"]

CELL = ["experiment", "fov_name", "track_id", "t"]
"""Columns that identify a cell in a frame."""


@dataclass(frozen=True)
class Embedded:
    """Features and annotations of the same cells.

    Attributes
    ----------
    name : str
        What made the features, as it appears in tables and figures.
    features : ndarray of float32, shape (N, F)
        One row per cell and frame.
    obs : pandas.DataFrame
        N rows with at least ``experiment, fov_name, track_id, t``.
    """

    name: str
    features: np.ndarray
    obs: pd.DataFrame

    @property
    def fovs(self) -> np.ndarray:
        """FOV per row, unique across experiments, int64."""
        return self.obs.groupby(["experiment", "fov_name"], observed=True).ngroup().to_numpy()

    @property
    def tracks(self) -> np.ndarray:
        """Track per row, unique across FOVs, int64."""
        return self.obs.groupby(["experiment", "fov_name", "track_id"], observed=True).ngroup().to_numpy()

    @property
    def lineages(self) -> np.ndarray:
        """Lineage per row where the embeddings carry it, else the track, int64."""
        if "lineage_id" not in self.obs:
            return self.tracks
        return self.obs.groupby("lineage_id", observed=True).ngroup().to_numpy()

    def sample(self, n_cells: int, seed: int) -> Embedded:
        """Return at most ``n_cells`` rows, drawn evenly at random and kept in order."""
        if len(self.obs) <= n_cells:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self.obs), n_cells, replace=False))
        return Embedded(self.name, self.features[rows], self.obs.iloc[rows])


def read_embedded(name: str, path: str | Path) -> Embedded:
    """Read features that ``dynaclr predict`` has written.

    Parameters
    ----------
    name : str
        Name for tables and figures.
    path : str or Path
        AnnData zarr store.

    Raises
    ------
    InputError
        If the store is missing or lacks a column that identifies cells.
    """
    import anndata

    if not Path(path).exists():
        raise MissingInputError(str(path), found="no such store", fix="write it with `dynaclr predict`")
    table = anndata.read_zarr(path)
    missing = [column for column in CELL if column not in table.obs]
    if missing:
        raise InputError(
            str(path),
            field="obs",
            found=f"no column {', '.join(missing)}",
            expected=f"the columns {', '.join(CELL)}",
            fix="write the embeddings with MultiExperimentDataModule",
        )
    return Embedded(name, np.asarray(table.X, dtype=np.float32), table.obs.reset_index(drop=True))


def add_labels(embedded: Embedded, labels: pd.DataFrame, column: str, *, source: str) -> Embedded:
    """Attach a column of an annotation table to the cells; cells without an annotation are left out.

    Parameters
    ----------
    embedded : Embedded
        Cells to annotate.
    labels : pandas.DataFrame
        Columns ``experiment, fov_name, track_id, t`` and ``column``.
    column : str
        Name of the label.
    source : str
        Where the table comes from, for messages.

    Raises
    ------
    InputError
        If columns are missing, a cell is annotated twice, or no cell is annotated.
    """
    missing = [name for name in [*CELL, column] if name not in labels]
    if missing:
        raise InputError(source, field=", ".join(missing), found=f"columns {', '.join(labels)}", fix="add the columns")
    if labels.duplicated(CELL).any():
        raise InputError(source, found="cells that are annotated twice", fix=f"keep one row per {', '.join(CELL)}")
    left = embedded.obs[CELL].astype({"experiment": str, "fov_name": str})
    found = left.merge(labels[[*CELL, column]], on=CELL, how="left")[column].to_numpy()
    rows = np.flatnonzero(~pd.isna(found))
    if len(rows) == 0:
        raise InputError(source, found="no annotation of any embedded cell", fix="compare experiment and FOV names")
    obs = embedded.obs.iloc[rows].assign(**{column: found[rows]})
    return Embedded(embedded.name, embedded.features[rows], obs.reset_index(drop=True))
