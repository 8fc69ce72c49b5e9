"""The cells of several embeddings in one table, and where each embedding lays them in the plane."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from viscy_data.optional import from_extra
from viscy_utils.evaluation.embedded import CELL, Embedded
from viscy_utils.evaluation.embedding_pictures import Layout, project

with from_extra("eval", package="viscy-utils"):
    import pandas as pd

__all__ = ["Atlas", "make_atlas", "principal_plane"]

_ROWS = 1024  # that are copied at once


@dataclass(frozen=True)
class Atlas:
    """Cells that several embeddings have in common, or that only some have.

    Attributes
    ----------
    cells : DataFrame
        N cells in random order, with the columns of all embeddings.
    rows : tuple of ndarray of int64, shape (N,)
        Per embedding the row of each cell; -1 where it lacks the cell.
    order : ndarray of int64, shape (N,)
        Which cells come first where only some can be shown: some whole tracks, so that there are tracks to see, then
        cells of all tracks.
    n_cells : int
        How many cells there are, of which N are in the table.
    """

    cells: pd.DataFrame
    rows: tuple[np.ndarray, ...]
    order: np.ndarray
    n_cells: int

    def layout(self, number: int, embedded: Embedded, max_cells: int, seed: int = 0) -> Layout:
        """Lay at most so many of the cells of one embedding out by its features, neighbours beside neighbours.

        Parameters
        ----------
        number : int
            Which of the embeddings that the atlas was made of.
        embedded : Embedded
            That one.
        max_cells : int
            The first of ``order``.
        seed : int, default 0
            Of the layout.
        """
        rows = self.rows[number][self.order]
        rows = np.sort(rows[rows >= 0][:max_cells])
        return Layout(rows, project(embedded.features[rows], seed))

    def points(self, number: int, layout: Layout) -> np.ndarray:
        """Return the points of a layout of one embedding by cell of the atlas, float32 (N, 2); NaN for others."""
        rows = self.rows[number]
        by_row = np.full((max(rows.max(initial=-1), layout.rows.max(initial=-1)) + 2, 2), np.nan, np.float32)
        by_row[layout.rows] = layout.points
        return by_row[rows]  # -1 is the last row, which is NaN


def make_atlas(embedded: Sequence[Embedded], max_cells: int, n_whole: int, seed: int = 0) -> Atlas:
    """Bring the cells of embeddings together.

    Parameters
    ----------
    embedded : sequence of Embedded
    max_cells : int
        Of more, the first of ``order`` are kept.
    n_whole : int
        About so many cells at the beginning of ``order`` are whole tracks.
    seed : int, default 0
        Of both orders.
    """
    keys = [_keys(each.obs) for each in embedded]
    union = pd.Index(keys[0])
    for other in keys[1:]:
        union = union.append(pd.Index(other).difference(union, sort=False))
    rows = [pd.Index(each).get_indexer(union) for each in keys]
    cells = _table(embedded, rows)
    rng = np.random.default_rng(seed)
    order = _order(cells, n_whole, rng)[:max_cells]
    drawn = rng.permutation(order)  # by chance, so that no group covers another
    place = np.empty(len(cells), np.int64)
    place[drawn] = np.arange(len(drawn))
    kept = cells.iloc[drawn].reset_index(drop=True)
    return Atlas(kept, tuple(each[drawn] for each in rows), place[order], len(cells))


def principal_plane(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Return the first two principal components of standardised features.

    Parameters
    ----------
    parts : iterable of ndarray of float, shape (M, F)
        The rows in parts, which are gone through twice: once for the correlations of the features (F, F), then to
        project. Few rows are copied at a time.

    Returns
    -------
    ndarray of float32, shape (N, 2)
        Zeros for fewer than three rows. The largest weight of each component is positive.
    """
    n, shift = 0, None
    for block in _blocks(parts):
        if shift is None:
            shift = block.mean(axis=0)
            sums, products = np.zeros_like(shift), np.zeros((len(shift), len(shift)))
        block -= shift  # else much of the precision is lost where the mean is large
        n, sums, products = n + len(block), sums + block.sum(axis=0), products + block.T @ block
    if n < 3:
        return np.zeros((n, 2), np.float32)
    mean = sums / n
    covariance = products / n - np.outer(mean, mean)
    scale = np.sqrt(np.maximum(covariance.diagonal(), 0))
    scale[scale <= 1e-12 * np.abs(shift + mean)] = np.inf  # constant but for rounding
    weights = np.linalg.eigh(covariance / np.outer(scale, scale))[1][:, :-3:-1]
    largest = np.abs(weights).argmax(axis=0)
    weights = weights * np.sign(weights[largest, np.arange(weights.shape[1])]) / scale[:, None]
    points = np.concatenate([((block - (shift + mean)) @ weights).astype(np.float32) for block in _blocks(parts)])
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def _blocks(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for part in parts:
        for start in range(0, len(part), _ROWS):
            yield part[start : start + _ROWS].astype(np.float64)


def _keys(obs: pd.DataFrame) -> pd.MultiIndex:
    """Return what identifies each row; a cell that is there twice is two."""
    repeat = obs.groupby(CELL, observed=True, dropna=False).cumcount()
    return pd.MultiIndex.from_frame(obs[CELL].assign(repeat=repeat))


def _table(embedded: Sequence[Embedded], rows: Sequence[np.ndarray]) -> pd.DataFrame:
    """Return one row per cell; each value is that of the first embedding that has the column and the cell."""
    columns: dict[str, np.ndarray] = {}
    for each, own in reversed(list(zip(embedded, rows, strict=True))):
        for name in each.obs:
            numeric = pd.api.types.is_numeric_dtype(each.obs[name]) and not pd.api.types.is_bool_dtype(each.obs[name])
            values = each.obs[name].to_numpy(dtype=np.float64 if numeric else object)
            column = columns.get(name)
            if column is None or column.dtype != values.dtype:
                column = np.full(len(own), np.nan if numeric else None, values.dtype)
            column[own >= 0] = values[own[own >= 0]]
            columns[name] = column
    names = dict.fromkeys(name for each in embedded for name in each.obs)
    return pd.DataFrame({name: columns[name] for name in names}).astype({"track_id": np.int64, "t": np.int64})


def _order(cells: pd.DataFrame, n_whole: int, rng: np.random.Generator) -> np.ndarray:
    tracks = cells.groupby(["experiment", "fov_name", "track_id"], observed=True).ngroup().to_numpy()
    rank = rng.permutation(tracks.max() + 1)[tracks]
    ends = np.cumsum(np.bincount(rank))
    whole = rank < np.searchsorted(ends, n_whole, side="right")
    first = np.flatnonzero(whole)[np.argsort(rank[whole], kind="stable")]
    return np.concatenate([first, rng.permutation(np.flatnonzero(~whole))])
