"""Reading of embeddings: what is stored at a path, and its rows as AnnData or as an xarray dataset."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import zarr

from viscy_data.checks import near_matches
from viscy_data.errors import InputError, MissingInputError
from viscy_data.typing import INDEX_COLUMNS
from viscy_utils.embeddings.store import SAMPLE_COLUMN, import_anndata, parts_path_of

if TYPE_CHECKING:
    import anndata as ad
    import xarray as xr

__all__ = ["get_available_index_columns", "kind_of_store", "read_embedding_dataset", "read_embeddings"]

_logger = logging.getLogger(__name__)

_IMAGE_KEYS = {"multiscales", "plate", "well", "omero", "ome"}
_EXPECTED = "a store of embeddings"


def kind_of_store(path: str | Path) -> Literal["anndata", "parts", "xarray"]:
    """Tell in which layout embeddings are stored.

    Parameters
    ----------
    path : str or Path
        A store, or the folder ``<store>.parts`` of an unfinished prediction.

    Returns
    -------
    {"anndata", "parts", "xarray"}
        The xarray layout is that of old.

    Raises
    ------
    MissingInputError
        If there is nothing.
    InputError
        If there is something else, such as a table, a config or an image store.
    """
    path = Path(path)
    if not path.exists():
        raise _missing(path)
    if not path.is_dir():
        kind = "a YAML file" if path.suffix in (".yml", ".yaml") else f"a file ({path.suffix or 'without a suffix'})"
        raise _other(path, kind)
    if path.name.endswith(".parts") and _parts_in(path):
        return "parts"
    try:
        group = zarr.open_group(path, mode="r")
    except (FileNotFoundError, ValueError) as err:
        raise _other(path, "a folder that is no zarr group") from err
    if group.attrs.get("encoding-type") == "anndata":
        return "anndata"
    if _IMAGE_KEYS & set(group.attrs):
        raise _other(path, "an image store (OME-Zarr)")
    if "features" not in group:
        raise _other(path, f"a zarr group of {', '.join(sorted(group)) or 'nothing'}")
    return "xarray"


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
    kind = kind_of_store(path)
    if kind == "parts":
        raise InputError(str(path), found="an unfinished prediction", expected=_EXPECTED, fix="let predict finish it")
    if kind == "xarray":
        raise InputError(
            str(path), found="embeddings of the old layout", fix="convert them with `viscy convert_to_anndata`"
        )
    return import_anndata().read_zarr(path)


def _parts_in(path: Path) -> list[Path]:
    return sorted(path.glob("rank*/[0-9]*.zarr"))


def _missing(path: Path) -> MissingInputError:
    parts = parts_path_of(path)
    if parts.exists():
        hint = f"an unfinished prediction can be read at {parts}"
    else:
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = near_matches(path.name, beside, otherwise="write it with predict")
    return MissingInputError(str(path), found="nothing", expected=_EXPECTED, fix=hint)


def _other(path: Path, found: str) -> InputError:
    return InputError(str(path), found=found, expected=_EXPECTED, fix="name the store that predict has written")


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
    kind = kind_of_store(path)
    if kind == "parts":
        dataset = _as_dataset([ad.read_zarr(store) for store in _parts_in(path)])
    elif kind == "anndata":
        dataset = _as_dataset([ad.read_zarr(path)])
    else:
        dataset = xr.open_zarr(path, consolidated=False)
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
