"""Embeddings on disk: AnnData zarr stores and the layout of their rows.

``X`` holds the features (float32), ``obsm["X_projections"]`` the projections, ``obs`` one row per observation with
unique names such as ``plate1/A/1/0/12/3`` (experiment, FOV, track, time).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from viscy_data.files import replacing
from viscy_data.optional import require
from viscy_utils.embeddings.kind import parts_path_of

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd

__all__ = [
    "add_array",
    "build_anndata",
    "edit_store",
    "import_anndata",
    "observation_columns",
    "observation_table",
    "parts_path_of",
    "row_names",
    "write_anndata",
]

_LONGEST = 200  # bytes; file systems have names of up to 255
NAME_COLUMNS = ("experiment", "fov_name", "track_id", "t")
"""Columns that the name of a row is made of, as far as there are any."""


def import_anndata() -> Any:
    """Import anndata, or say which extra has it.

    Raises
    ------
    ImportError
    """
    require("xarray", extra="anndata", package="viscy-utils")
    return require("anndata", extra="anndata", package="viscy-utils")


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

    table = observation_columns(index)
    names = row_names(table)
    repeat = names.str.lower().groupby(names.str.lower()).cumcount()
    names = names.where(repeat == 0, names + "-" + repeat.astype(str).astype(object))
    table.index = pd.Index(names.to_numpy(), dtype=object)
    return table


def observation_columns(index: pd.DataFrame) -> pd.DataFrame:
    """Make the columns of the ``obs`` table, with rows counted from 0: categoricals for all that is not a number."""
    import pandas as pd

    table = index.reset_index(drop=True)
    for name in table.columns:
        column = table[name]
        if isinstance(column.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(column):
            text = column.astype(object).where(column.notna(), None)
            text = text.map(str, na_action="ignore")
            table[name] = pd.Categorical(text.str.strip("/") if name == "fov_name" else text)
    return table


def row_names(table: pd.DataFrame) -> pd.Series:
    """Name rows by what they have of :data:`NAME_COLUMNS`, or by their number; a name may come twice."""
    import pandas as pd

    parts = [table[name].astype(str).astype(object) for name in NAME_COLUMNS if name in table]
    if len(parts) == 0:
        return pd.Series([str(i) for i in table.index], dtype=object)
    names = parts[0]
    for part in parts[1:]:
        names = names + "/" + part
    return names


def build_anndata(features: np.ndarray, obs: pd.DataFrame, obsm: Mapping[str, np.ndarray]) -> ad.AnnData:
    """Put rows together: ``X`` float32, ``obs`` as from :func:`observation_table`, ``obsm`` float32."""
    import pandas as pd

    var = pd.DataFrame(index=pd.Index([str(i) for i in range(features.shape[1])], dtype=object))
    arrays = {key: np.asarray(value, np.float32) for key, value in obsm.items()}
    return import_anndata().AnnData(X=np.asarray(features, np.float32), obs=obs, var=var, obsm=arrays)


def write_anndata(adata: ad.AnnData, path: str | Path) -> None:
    """Write a store of zarr format 2, complete before it gets its name.

    Columns and keys whose name no store can hold, such as ``area/um`` or an empty one, get another, with a warning.

    Raises
    ------
    FileExistsError
        If ``path`` exists.
    """
    adata = _with_names_of_paths(adata)
    with replacing(path) as temporary:
        # Format 2 is what readers of these stores expect; AnnData has only a setting for it, which is going away.
        group = zarr.open_group(temporary, mode="w", zarr_format=2)
        import_anndata().io.write_elem(group, "/", adata)
        zarr.consolidate_metadata(group.store, zarr_format=2)


def _with_names_of_paths(adata: ad.AnnData) -> ad.AnnData:
    """Rename what is stored under a name that is no part of a path."""
    parts = {"obs": list(adata.obs), **{name: list(getattr(adata, name)) for name in ("obsm", "uns")}}
    new = {name: _names_of_paths(keys) for name, keys in parts.items()}
    changed = {name: {old: key for old, key in new[name].items() if key != old} for name in parts}
    if not any(changed.values()):
        return adata
    told = ", ".join(f"{old!r} ({key!r})" for renamed in changed.values() for old, key in renamed.items())
    warnings.warn(f"names that a store cannot hold are written otherwise: {told}", stacklevel=4)
    adata = adata.copy()
    adata.obs.columns = [new["obs"][name] for name in adata.obs]
    for name in ("obsm", "uns"):
        for old, key in changed[name].items():
            getattr(adata, name)[key] = getattr(adata, name).pop(old)
    return adata


def _names_of_paths(names: Iterable[object]) -> dict[Any, str]:
    r"""Find a name for each that can be a folder, and that no other has.

    >>> list(_names_of_paths(["t", "area/um", "area_um", "", ".zattrs", "_index"]).values())
    ['t', 'area_um_1', 'area_um', 'column', 'column.zattrs', 'column_index']
    """
    names = list(names)
    found = {name: name for name in names if _is_part_of_path(name)}
    for name in names:
        if name not in found:
            text = re.sub(r"[/\0]", "_", str(name))[:_LONGEST]
            text = text if _is_part_of_path(text) else f"column{text}"
            taken, number, new = set(found.values()), 0, text
            while new in taken:
                number += 1
                new = f"{text}_{number}"
            found[name] = new
    return {name: found[name] for name in names}


def _is_part_of_path(name: object) -> bool:
    usable = isinstance(name, str) and not re.search(r"^$|[/\0]|^\.|^_index$", name)
    return usable and len(name.encode()) <= _LONGEST


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
