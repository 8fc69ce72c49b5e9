"""List the FOVs of a plate, and read and change attributes."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from viscy_data._documents import Documents, open_documents
from viscy_data.errors import InputError, MissingInputError, raise_all
from viscy_data.stores.names import FovInfo, FovKey, canonical_fov_name, canonical_store

if TYPE_CHECKING:
    from iohub.ngff import Position

__all__ = ["describe_position", "read_attributes", "read_plate", "update_attributes"]

T = TypeVar("T")
R = TypeVar("R")
_READ_THREADS = 16  # hides the latency of network file systems; the work itself is tiny


def read_plate(path: str | Path, *, array_key: str = "0", workers: int | None = None) -> tuple[FovInfo, ...]:
    """List the FOVs of a plate.

    Parameters
    ----------
    path : str or Path
        An HCS OME-Zarr store, version 0.4 or 0.5; a URL needs the extra ``triplet``.
    array_key : str, default "0"
        The array of each FOV to describe.
    workers : int, optional
        Threads that read metadata, 16 by default.

    Returns
    -------
    tuple of FovInfo
        Sorted by the names of row, column and FOV, which is the order of iohub's ``positions()``.

    Raises
    ------
    MissingInputError
        If there is nothing at ``path``.
    InputError
        If it is no HCS plate, or if FOVs cannot be used; all of them are named.
    """
    store = canonical_store(path)
    documents = open_documents(store)
    attributes = _plate_attributes(store, documents)
    wells = [canonical_fov_name(well["path"]) for well in attributes["plate"].get("wells", [])]
    with ThreadPoolExecutor(workers or _READ_THREADS, thread_name_prefix="read_plate") as pool:
        listed = [name for names in pool.map(lambda well: _fov_names(store, documents, well), wells) for name in names]
        keys = sorted((FovKey(store, name) for name in listed), key=lambda key: key.name.split("/"))
        found = list(pool.map(_or_error(lambda key: _describe(documents, key, array_key)), keys))
    raise_all(entry for entry in found if isinstance(entry, InputError))
    return tuple(found)


def read_attributes(store: str | Path, fov: str | None = None) -> dict[str, Any]:
    """Read the attributes of a plate, or of one of its FOVs.

    Returns
    -------
    dict
        Plain JSON values. OME metadata of version 0.5 stay under ``"ome"``.

    Raises
    ------
    MissingInputError
        If there is no such store or FOV.
    """
    root = canonical_store(store)
    name = canonical_fov_name(fov or "")
    group = _read_group(open_documents(root), name)
    if group is None:
        raise MissingInputError(f"{root}, FOV {name}" if name else root, found="no Zarr group")
    return group.attributes


def update_attributes(store: str | Path, fov: str | None, key: str, value: Any) -> None:
    """Set one attribute of a plate (``fov=None``) or FOV and leave the others alone.

    The document is replaced in one step. ``value`` is stored as JSON: plain finite numbers, strings, lists, dicts.

    Raises
    ------
    MissingInputError
        If there is no such store or FOV.
    """
    root = canonical_store(store)
    name = canonical_fov_name(fov or "")
    documents = open_documents(root)
    group = _read_group(documents, name)
    if group is None:
        raise MissingInputError(f"{root}, FOV {name}" if name else root, found="no Zarr group")
    attributes = {**group.attributes, key: value}
    documents.write(group.document_key, {**group.document, "attributes": attributes} if group.document else attributes)


def describe_position(position: Position) -> FovInfo:
    """Describe an open position of iohub, which must belong to a plate opened from a local path.

    Raises
    ------
    ValueError
        If the position was opened by itself, so that its plate and name are not known.
    """
    group = position.zgroup
    name = canonical_fov_name(group.path)
    if name.count("/") != 2:
        raise ValueError(f"position {group.name!r} is not part of an open plate; open the plate instead")
    array = position["0"]
    return FovInfo(
        FovKey(canonical_store(str(group.store.root)), name),
        tuple(array.shape),
        np.dtype(array.dtype).name,
        tuple(position.channel_names),
        tuple(float(step) for step in position.scale),
    )


class _Group(NamedTuple):
    """Attributes of a group, and the document that holds them (the whole of it for Zarr v3)."""

    attributes: dict[str, Any]
    document_key: str
    document: dict[str, Any] | None

    @property
    def ome(self) -> dict[str, Any]:
        return self.attributes.get("ome", self.attributes)


def _read_group(documents: Documents, name: str) -> _Group | None:
    prefix = f"{name}/" if name else ""
    document = documents.read(prefix + "zarr.json")
    if document is not None:
        return _Group(document.get("attributes", {}), prefix + "zarr.json", document)
    attributes = documents.read(prefix + ".zattrs")
    if attributes is None and documents.read(prefix + ".zgroup") is None:
        return None
    return _Group(attributes or {}, prefix + ".zattrs", None)


def _plate_attributes(store: str, documents: Documents) -> dict[str, Any]:
    group = _read_group(documents, "")
    if group is None:
        if "://" not in store and os.path.isdir(store):
            raise InputError(store, found="a folder without Zarr metadata", expected="an HCS OME-Zarr store")
        raise MissingInputError(store, found="nothing", expected="an HCS OME-Zarr store", fix="check the path")
    if "plate" in group.ome:
        return group.ome
    if "multiscales" in group.ome:
        raise InputError(
            store,
            found="a single FOV, without plate metadata",
            expected="an HCS OME-Zarr store (row/column/fov)",
            fix="give the path of the plate that contains it, or write the image into a plate (PlateWriter)",
        )
    raise InputError(store, found="a Zarr group without plate metadata", expected="an HCS OME-Zarr store")


def _fov_names(store: str, documents: Documents, well: str) -> list[str]:
    group = _read_group(documents, well)
    if group is None or "well" not in group.ome:
        raise InputError(f"{store}, well {well}", found="no well metadata", expected="the wells that the plate lists")
    return [f"{well}/{canonical_fov_name(image['path'])}" for image in group.ome["well"].get("images", [])]


def _describe(documents: Documents, key: FovKey, array_key: str) -> FovInfo:
    where = f"{key.store}, FOV {key.name}"
    group = _read_group(documents, key.name)
    array = _read_array(documents, f"{key.name}/{array_key}")
    if group is None or array is None:
        raise InputError(where, found=f"no array {array_key!r}", expected="every FOV that the plate lists")
    shape, dtype = array
    if len(shape) != 5:
        raise InputError(where, found=f"an array of shape {shape}", expected="five axes, TCZYX")
    channels = tuple(str(channel.get("label", "")) for channel in group.ome.get("omero", {}).get("channels", ()))
    if len(channels) != shape[1]:
        raise InputError(
            where,
            found=f"{len(channels)} channel names for {shape[1]} channels",
            expected="one label per channel in the omero metadata",
        )
    return FovInfo(key, shape, dtype, channels, _scale(group.ome, array_key))


def _read_array(documents: Documents, name: str) -> tuple[tuple[int, ...], str] | None:
    """Return shape and numpy dtype name of an array."""
    if (document := documents.read(f"{name}/zarr.json")) is not None:
        return tuple(document["shape"]), np.dtype(document["data_type"]).name
    if (document := documents.read(f"{name}/.zarray")) is not None:
        return tuple(document["shape"]), np.dtype(document["dtype"]).name
    return None


def _scale(ome: dict[str, Any], array_key: str) -> tuple[float, ...]:
    scale = np.ones(5)
    for image in ome.get("multiscales", [])[:1]:
        datasets = [entry for entry in image.get("datasets", []) if entry.get("path") == array_key]
        for node in [image, *datasets]:
            for transform in node.get("coordinateTransformations") or []:
                if transform.get("type") == "scale" and len(transform["scale"]) == 5:
                    scale = scale * transform["scale"]
    return tuple(float(step) for step in scale)


def _or_error(function: Callable[[T], R]) -> Callable[[T], R | InputError]:
    """Return input errors instead of raising them, so that all of them can be reported together."""

    def call(value: T) -> R | InputError:
        try:
            return function(value)
        except InputError as err:
            return err

    return call
