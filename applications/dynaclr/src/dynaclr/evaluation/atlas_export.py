"""Embeddings as a file for explorers of embeddings: where each cell lies, what is known of it, what it looks like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dynaclr.evaluation.atlas_file import OWN_COLUMNS, explorer_command, find_images, write_atlas
from dynaclr.evaluation.stores import say
from viscy_data.checks import near_matches
from viscy_data.errors import InputError, reading_input
from viscy_data.files import refuse_existing
from viscy_utils.embeddings.reading import ArrayRows, StoredEmbeddings, open_embeddings
from viscy_utils.embeddings.reductions import reduce_features
from viscy_utils.evaluation.atlas import principal_plane
from viscy_utils.evaluation.draws import draw_rows

__all__ = ["export_atlas"]

_METHODS = ("umap", "pacmap", "phate", "tsne", "pca")  # of stored ones the first is taken


def export_atlas(
    path: Path,
    output: Path,
    *,
    layout: str | None = None,
    max_cells: int | None = None,
    thumbnail_size: int | None = 64,
    overwrite: bool = False,
    seed: int = 0,
) -> None:
    """Write coordinates, columns and thumbnails of embedded cells to a Parquet file, and say what to do with it.

    Parameters
    ----------
    path : Path
        Store of embeddings.
    output : Path
        File to write; its columns are those of :func:`dynaclr.evaluation.atlas_file.write_atlas`.
    layout : str, optional
        Entry of ``obsm``, with or without ``X_``, or a method (``umap``, ``pacmap``, ``phate``, ``tsne``, ``pca``),
        which is computed where the store does not hold it. Default: the first method that it holds, else ``pca``.
    max_cells : int, optional
        Of more, so many are drawn at random; they keep their order.
    thumbnail_size : int, optional
        Pixels of the longer side of a channel, at most. None: no thumbnails.
    overwrite : bool, default False
        Replace an existing file.
    seed : int, default 0
        Of what is drawn and of a layout that is computed.

    Raises
    ------
    InputError
        If the store is none of embeddings, lacks the layout, or has columns called like those of the file.
    FileExistsError
    """
    refuse_existing(output, overwrite, remedy="choose another file, or replace it with --overwrite")
    store = open_embeddings(path)
    taken = [name for name in OWN_COLUMNS if name in store.obs]
    if taken:
        found = f"columns called {', '.join(taken)}, as columns of the file are"
        raise InputError(str(path), field="obs", found=found, fix="rename them")
    method, stored = _find_layout(store, path, layout)
    features = ArrayRows(store.features, np.arange(len(store.obs)))
    usable = features.are_finite() if stored is None else np.isfinite(stored).all(axis=1)
    rows = np.flatnonzero(usable)
    if not len(rows):
        raise InputError(str(path), field="obsm" if stored is not None else "X", found="no cell with finite values")
    if max_cells is not None:
        rows = rows[draw_rows(len(rows), max_cells, seed)]
    points = _compute(method, replace(features, rows=rows), seed) if stored is None else stored[rows]
    images = None if thumbnail_size is None else find_images(store.obs, store.uns, rows, thumbnail_size)
    stated = {"embeddings": str(path), "layout": f"{method} ({'computed' if stored is None else 'stored'})"}
    n_images, notes = write_atlas(output, store.obs, rows, points, images, overwrite, stated)
    if not usable.all():
        say(f"{(~usable).sum():,} cells left out: values of {method} that are not finite")
    if len(rows) < usable.sum():
        say(f"{len(rows):,} of {usable.sum():,} cells, drawn at random")
    pictures = f", thumbnails of {n_images:,} ({', '.join(images.channels)})" if n_images else ""
    say(*notes, f"wrote {output}: {len(rows):,} cells, places of {stated['layout']}{pictures}.")
    say(f"next: {explorer_command(output, bool(n_images))}")


def _find_layout(store: StoredEmbeddings, path: Path, layout: str | None) -> tuple[str, np.ndarray | None]:
    """Return the name of a layout, and its points where the store holds them."""
    held = {key.removeprefix("X_"): key for key in store.obsm}
    if layout is None:
        name = next((method for method in _METHODS if method in held), "pca")
    else:
        name = layout.removeprefix("X_")
    if name not in held:
        if name in _METHODS:
            return name, None
        raise InputError(str(path), field="layout", found=layout, expected=near_matches(name, [*held, *_METHODS]))
    points = store.obsm[held[name]]
    if points.ndim != 2 or points.shape[1] < 2:
        found = f"an array of shape {points.shape}"
        raise InputError(str(path), field=f"obsm.{held[name]}", found=found, expected="at least two columns")
    return name, np.asarray(points[:, :2], np.float32)


def _compute(method: str, features: ArrayRows, seed: int) -> np.ndarray:
    if method == "pca":
        return principal_plane(features)
    with reading_input(f"computing {method}"):
        return reduce_features(method, features.read(), {"random_state": seed})
