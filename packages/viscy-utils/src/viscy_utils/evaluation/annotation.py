"""Annotations of observations, and embeddings of the old layout."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from viscy_data.cell_matching import match_cells
from viscy_data.files import refuse_existing, replacing
from viscy_data.packed_files import unpacked
from viscy_utils.embeddings.reading import get_available_index_columns, read_embedding_dataset
from viscy_utils.embeddings.store import (
    build_anndata,
    import_anndata,
    observation_table,
    write_anndata,
)

if TYPE_CHECKING:
    import anndata as ad
    import xarray as xr

__all__ = ["convert", "load_annotation_anndata"]

_REDUCTIONS = {"X_pca": "PCA", "X_umap": "UMAP", "X_phate": "PHATE"}


def convert(
    embeddings_ds: xr.Dataset | Path, output_path: Path, overwrite: bool = False, return_anndata: bool = False
) -> ad.AnnData | None:
    """Convert embeddings of the old xarray layout to an AnnData store.

    Parameters
    ----------
    embeddings_ds : xarray.Dataset or Path
        Dataset with ``features`` (sample, features), or where it is stored.
    output_path : Path
        AnnData zarr store to write.
    overwrite : bool, default False
        Replace an existing store.
    return_anndata : bool, default False
        Also return what was written.

    Returns
    -------
    AnnData or None
        ``obs`` of the index columns, ``X`` of the features, ``obsm`` ``X_projections``, ``X_pca``, ``X_umap`` and
        ``X_phate`` of the coordinates ``projections``, ``PCA1``, ``UMAP1``, ``PHATE1`` and on.

    Raises
    ------
    FileExistsError
        If the store exists and ``overwrite`` is False.
    """
    import pandas as pd

    import_anndata()
    output_path = Path(output_path)
    refuse_existing(output_path, overwrite, remedy="choose another path or set overwrite: true")
    dataset = read_embedding_dataset(embeddings_ds) if isinstance(embeddings_ds, str | Path) else embeddings_ds
    columns = get_available_index_columns(dataset)
    index = pd.DataFrame({name: np.asarray(dataset[name].values) for name in columns})
    obsm = {"X_projections": np.asarray(dataset["projections"].values)} if "projections" in dataset.variables else {}
    for key, word in _REDUCTIONS.items():
        names = [name for name in dataset.coords if re.fullmatch(rf"{word}_?\d+(_\w+)?", str(name))]
        names.sort(key=lambda name: int(re.search(r"\d+", str(name))[0]))
        if names:
            obsm[key] = np.stack([np.asarray(dataset[name].values) for name in names], axis=1)
    adata = build_anndata(np.asarray(dataset["features"].values), observation_table(index), obsm)
    with replacing(output_path, overwrite) as temporary:
        write_anndata(adata, temporary)
    return adata if return_anndata else None


def load_annotation_anndata(
    adata: ad.AnnData, path: str | Path, name: str, categories: Mapping | None = None
) -> ad.AnnData:
    """Add a column of an annotation table to the observations, matched on FOV and id.

    Parameters
    ----------
    adata : AnnData
        With ``fov_name`` and ``id`` in ``obs``; modified.
    path : str or Path
        CSV with ``fov_name``, ``id`` and ``name``; may be packed (``.csv.gz``).
    name : str
        The column.
    categories : mapping, optional
        New names of its values.

    Returns
    -------
    AnnData
        ``adata``; observations without annotation are NaN. Rows that name no observation are counted in a warning.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If the table has an observation twice.
    """
    import pandas as pd

    table = pd.read_csv(unpacked(path), compression=None)
    missing = [column for column in ("fov_name", "id", name) if column not in table]
    if missing:
        raise KeyError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}")
    match = match_cells(adata.obs, table, source=str(path), keys=[("fov_name", "id")])
    if match.note:
        warnings.warn(match.note, stacklevel=2)
    values = table[name].reindex(match.rows)
    column = pd.Series(values.to_numpy(), index=adata.obs_names, name=name)
    if not pd.api.types.is_numeric_dtype(column) or categories:
        column = column.astype("category")
    adata.obs[name] = column.cat.rename_categories(dict(categories)) if categories else column
    return adata
