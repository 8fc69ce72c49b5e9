"""Reading of embeddings: what is stored at a path, and its rows as AnnData or as an xarray dataset."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from viscy_data.errors import InputError, reading_file
from viscy_data.memory import refuse_too_large
from viscy_data.typing import INDEX_COLUMNS
from viscy_utils.embeddings.kind import kind_of_store, part_folders, refuse_later, refuse_unfinished
from viscy_utils.embeddings.part_files import Part, Rows
from viscy_utils.embeddings.store import build_anndata, import_anndata, observation_table

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd
    import xarray as xr

__all__ = [
    "ArrayRows",
    "StoredEmbeddings",
    "get_available_index_columns",
    "kind_of_store",
    "open_embeddings",
    "read_embedding_dataset",
    "read_embeddings",
]

_logger = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 22


def read_embeddings(path: str | Path) -> ad.AnnData:
    """Read a finished store of embeddings.

    Parameters
    ----------
    path : str or Path
        AnnData zarr store.

    Raises
    ------
    MissingInputError, InputError
        If there is nothing or something else, also an unfinished prediction or a store of the old layout.
    """
    refuse_unfinished(path)
    return _read_anndata(path)


def _reading(path: str | Path) -> AbstractContextManager[None]:
    return reading_file(path, "a store of embeddings", "write it anew with predict")


def _read_anndata(path: str | Path) -> ad.AnnData:
    with _reading(path):
        group = zarr.open_group(path, mode="r", use_consolidated=False)
        n_bytes = sum(own.nbytes for _, own in group.members(max_depth=None) if isinstance(own, zarr.Array))
        refuse_too_large(str(path), n_bytes, field="shape", what="arrays", fix="look at its metadata")
        return import_anndata().read_zarr(path)


@dataclass(frozen=True)
class StoredEmbeddings:
    """A store that is open: its table in memory, its arrays on disk.

    Attributes
    ----------
    obs : DataFrame
        N rows.
    uns : mapping
    features : zarr.Array, shape (N, F)
    names : list of str
        Of the features; their numbers where they have none.
    obsm : mapping of str to zarr.Array, shape (N, K)
    """

    obs: pd.DataFrame
    uns: Mapping[str, Any]
    features: zarr.Array
    names: list[str]
    obsm: Mapping[str, zarr.Array]


def open_embeddings(path: str | Path) -> StoredEmbeddings:
    """Open a finished store of embeddings, without reading its features.

    Parameters
    ----------
    path : str or Path
        AnnData zarr store.

    Raises
    ------
    MissingInputError, InputError
        As :func:`read_embeddings`, and for features that are stored as a sparse array.
    """
    refuse_unfinished(path)
    read = import_anndata().io.read_elem
    with _reading(path):
        group = zarr.open_group(path, mode="r", use_consolidated=False)
        if not isinstance(group["X"], zarr.Array):
            raise InputError(str(path), field="X", found="a sparse array", expected="one of all features")
        names = read(group["var"]).index.astype(str).tolist()
        return StoredEmbeddings(read(group["obs"]), read(group["uns"]), group["X"], names, dict(group["obsm"].arrays()))


@dataclass(frozen=True)
class ArrayRows:
    """Rows of a stored array, read in blocks of about 4 MB whenever they are iterated over.

    Attributes
    ----------
    array : zarr.Array, shape (N, K)
    rows : ndarray of int64, shape (M,)
        Ascending.
    """

    array: zarr.Array
    rows: np.ndarray

    def __iter__(self) -> Iterator[np.ndarray]:
        n_rows = self.array.chunks[0]
        n_rows *= max(1, _BLOCK_BYTES // max(1, n_rows * int(np.prod(self.array.shape[1:])) * 4))
        for start in range(0, self.array.shape[0], n_rows):
            first, end = np.searchsorted(self.rows, (start, start + n_rows))
            if first < end:
                yield np.asarray(self.array[start : start + n_rows], np.float32)[self.rows[first:end] - start]

    def are_finite(self) -> np.ndarray:
        """Tell which rows are of finite values only, bool (M,)."""
        return np.concatenate([np.zeros(0, bool), *(np.isfinite(block).all(axis=1) for block in self)])

    def read(self) -> np.ndarray:
        """Return all of them, float32 (M, K)."""
        values, first = np.empty((len(self.rows), *self.array.shape[1:]), np.float32), 0
        for block in self:
            values[first : first + len(block)] = block
            first += len(block)
        return values


def get_available_index_columns(dataset: xr.Dataset, dataset_path: str | None = None) -> list[str]:
    """List the index columns that a dataset has as coordinates, in their usual order; log those it lacks.

    Parameters
    ----------
    dataset : xarray.Dataset
        Embeddings.
    dataset_path : str, optional
        For the message.

    Returns
    -------
    list of str
    """
    missing = [name for name in INDEX_COLUMNS if name not in dataset.coords]
    if missing:
        _logger.warning("%s lacks the index columns %s", dataset_path or "dataset", ", ".join(missing))
    return [name for name in INDEX_COLUMNS if name in dataset.coords]


def read_embedding_dataset(path: str | Path) -> xr.Dataset:
    """Read embeddings: an AnnData store, the parts of an unfinished prediction, or an xarray store of old.

    Parameters
    ----------
    path : str or Path
        The store, or the folder ``<store>.parts``.

    Returns
    -------
    xarray.Dataset
        ``features`` (sample, features); ``projections`` (sample, projections) and further embeddings (``pca``,
        ``umap``, ``phate``) where present; a MultiIndex ``sample`` of the index columns; other columns as coordinates.

    Raises
    ------
    MissingInputError, InputError
        If there is nothing, or something else, at ``path``.
    """
    import_anndata()  # or the extra is named
    import xarray as xr

    path = Path(path)
    kind = kind_of_store(path)
    if kind == "parts":
        dataset = _as_dataset(_read_parts(path))
    elif kind == "anndata":
        refuse_later(path)
        dataset = _as_dataset(_read_anndata(path))
    else:
        with _reading(path):
            dataset = xr.open_zarr(path, consolidated=False)
    columns = get_available_index_columns(dataset, str(path))
    return dataset.set_index(sample=columns) if columns else dataset


def _read_parts(path: Path) -> ad.AnnData:
    """Read what an unfinished prediction has so far, in the order of the dataset."""
    rows = Rows.concatenate([Part(folder).rows() for folder in part_folders(path)])
    order = np.argsort(rows.sample, kind="stable")
    obsm = {} if rows.projections is None else {"X_projections": rows.projections[order]}
    return build_anndata(rows.features[order], observation_table(rows.index.iloc[order]), obsm)


def _as_dataset(store: ad.AnnData) -> xr.Dataset:
    import pandas as pd
    import xarray as xr

    obs, arrays = store.obs, {"features": np.asarray(store.X)}
    arrays |= {key.removeprefix("X_"): np.asarray(values) for key, values in store.obsm.items()}
    variables = {name: (("sample", name if name == "features" else f"{name}_axis"), a) for name, a in arrays.items()}
    if "projections" in arrays:
        variables["projections"] = (("sample", "projection"), arrays["projections"])
    coords = {
        name: ("sample", obs[name].astype(object) if isinstance(obs[name].dtype, pd.CategoricalDtype) else obs[name])
        for name in obs
    }
    return xr.Dataset(variables, coords={name: (dims, np.asarray(values)) for name, (dims, values) in coords.items()})
