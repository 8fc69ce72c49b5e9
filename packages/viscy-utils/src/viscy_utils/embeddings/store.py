"""Embeddings on disk: AnnData zarr stores, their reading, and the layout of their rows.

``X`` holds the features (float32), ``obsm["X_projections"]`` the projections, ``obs`` one row per observation with
unique names such as ``plate1/A/1/0/12/3`` (experiment, FOV, track, time).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from viscy_data.errors import InputError, MissingInputError
from viscy_data.files import replacing
from viscy_data.typing import INDEX_COLUMNS

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd
    import xarray as xr

__all__ = [
    "add_array",
    "build_anndata",
    "edit_store",
    "get_available_index_columns",
    "import_anndata",
    "observation_table",
    "parts_path_of",
    "read_embedding_dataset",
    "write_anndata",
]

_logger = logging.getLogger(__name__)

SAMPLE_COLUMN = "predict_sample"
"""Column of a part: the position of the row in the predicted dataset; it is not in the merged store."""
_NAME_COLUMNS = ("experiment", "fov_name", "track_id", "t")


def import_anndata() -> Any:
    """Import anndata, or say which extra has it.

    Raises
    ------
    ImportError
    """
    try:
        import anndata
        import xarray  # noqa: F401
    except ImportError as err:
        raise ImportError("embeddings are stored as AnnData: pip install 'viscy-utils[anndata]'") from err
    return anndata


def parts_path_of(output_path: str | Path) -> Path:
    """Return the folder beside an output that holds what is written before it is complete."""
    output_path = Path(output_path)
    return output_path.with_name(f"{output_path.name}.parts")


def observation_table(index: pd.DataFrame) -> pd.DataFrame:
    """Make the ``obs`` table of index columns: categoricals for text, unique row names.

    Parameters
    ----------
    index : DataFrame
        One row per observation; :data:`viscy_data.typing.INDEX_COLUMNS`, ``experiment`` and any others.

    Returns
    -------
    DataFrame
        A copy with the same columns in the same order; names are unique even where case is ignored.
    """
    import pandas as pd

    table = index.reset_index(drop=True)
    for name in table.columns:
        column = table[name]
        if isinstance(column.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(column):
            text = column.astype(object).where(column.notna(), None)
            text = text.map(str, na_action="ignore")
            table[name] = pd.Categorical(text.str.strip("/") if name == "fov_name" else text)
    table.index = pd.Index(_row_names(table).to_numpy(), dtype=object)
    return table


def _row_names(table: pd.DataFrame) -> pd.Series:
    import pandas as pd

    parts = [table[name].astype(str).astype(object) for name in _NAME_COLUMNS if name in table]
    if len(parts) == 0:
        return pd.Series([str(i) for i in range(len(table))], dtype=object)
    names = parts[0]
    for part in parts[1:]:
        names = names + "/" + part
    repeat = names.str.lower().groupby(names.str.lower()).cumcount()
    return names.where(repeat == 0, names + "-" + repeat.astype(str).astype(object))


def build_anndata(features: np.ndarray, obs: pd.DataFrame, obsm: Mapping[str, np.ndarray]) -> ad.AnnData:
    """Put rows together: ``X`` float32, ``obs`` as from :func:`observation_table`, ``obsm`` float32."""
    import pandas as pd

    var = pd.DataFrame(index=pd.Index([str(i) for i in range(features.shape[1])], dtype=object))
    arrays = {key: np.asarray(value, np.float32) for key, value in obsm.items()}
    return import_anndata().AnnData(X=np.asarray(features, np.float32), obs=obs, var=var, obsm=arrays)


def write_anndata(adata: ad.AnnData, path: str | Path) -> None:
    """Write a store of zarr format 2, complete before it gets its name.

    Raises
    ------
    FileExistsError
        If ``path`` exists.
    """
    with replacing(path) as temporary:
        # Format 2 is what readers of these stores expect; AnnData has only a setting for it, which is going away.
        group = zarr.open_group(temporary, mode="w", zarr_format=2)
        import_anndata().io.write_elem(group, "/", adata)
        zarr.consolidate_metadata(group.store, zarr_format=2)


@contextmanager
def edit_store(path: str | Path) -> Iterator[zarr.Group]:
    """Open a store to add arrays, which its consolidated metadata list afterwards."""
    yield zarr.open_group(path, mode="r+", use_consolidated=False)
    zarr.consolidate_metadata(str(path), zarr_format=2)


def add_array(group: zarr.Group, name: str, shape: tuple[int, ...]) -> zarr.Array:
    """Create a float32 array as AnnData stores it, in chunks of about a megabyte of whole rows."""
    rows = max(1, min(shape[0], 2**18 // max(shape[1], 1)))
    array = group.create_array(name, shape=shape, dtype="float32", chunks=(rows, max(shape[1], 1)), overwrite=True)
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return array


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
    ad = import_anndata()
    import xarray as xr

    path = Path(path)
    if not path.exists():
        parts = parts_path_of(path)
        hint = f"an unfinished prediction can be read at {parts}" if parts.exists() else ""
        raise MissingInputError(str(path), found="nothing", expected="a store of embeddings", fix=hint)
    stores = sorted(path.glob("rank*/*.zarr"))
    if path.name.endswith(".parts") and stores:
        dataset = _as_dataset([ad.read_zarr(store) for store in stores])
    else:
        try:
            kind = zarr.open_group(path, mode="r").attrs.get("encoding-type")
        except (FileNotFoundError, ValueError) as err:
            raise InputError(str(path), found="no zarr group", expected="a store of embeddings") from err
        dataset = _as_dataset([ad.read_zarr(path)]) if kind == "anndata" else xr.open_zarr(path, consolidated=False)
    if "features" not in dataset:
        raise InputError(str(path), found=f"variables {sorted(dataset)}", expected="a variable 'features'")
    columns = get_available_index_columns(dataset, str(path))
    return dataset.set_index(sample=columns) if columns else dataset


def _as_dataset(stores: Sequence[ad.AnnData]) -> xr.Dataset:
    import pandas as pd
    import xarray as xr

    obs = pd.concat([store.obs for store in stores], ignore_index=True)
    keys = [key for key in stores[0].obsm if all(key in store.obsm for store in stores)]
    arrays = {"features": np.concatenate([np.asarray(store.X) for store in stores])}
    arrays |= {key.removeprefix("X_"): np.concatenate([np.asarray(s.obsm[key]) for s in stores]) for key in keys}
    if SAMPLE_COLUMN in obs:
        order = np.argsort(obs[SAMPLE_COLUMN].to_numpy(), kind="stable")
        obs = obs.iloc[order].drop(columns=SAMPLE_COLUMN)
        arrays = {name: values[order] for name, values in arrays.items()}
    variables = {name: (("sample", name if name == "features" else f"{name}_axis"), a) for name, a in arrays.items()}
    if "projections" in arrays:
        variables["projections"] = (("sample", "projection"), arrays["projections"])
    coords = {
        name: ("sample", obs[name].astype(object) if isinstance(obs[name].dtype, pd.CategoricalDtype) else obs[name])
        for name in obs
    }
    return xr.Dataset(variables, coords={name: (dims, np.asarray(values)) for name, (dims, values) in coords.items()})
