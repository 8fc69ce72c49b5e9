"""Describe FOVs, and list those of a plate."""

from __future__ import annotations

import json
import math
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from viscy_data._documents import Documents, open_documents
from viscy_data.errors import InputError, MissingInputError, raise_all
from viscy_data.files import near_files
from viscy_data.memory import refuse_too_large
from viscy_data.stores.arrays import LEAVE_OUT
from viscy_data.stores.attributes import Group, read_group
from viscy_data.stores.decoding import check_decodable
from viscy_data.stores.multiscales import AXES, array_path, axes_of, channel_names_of, scale_of
from viscy_data.stores.names import FovInfo, FovKey, canonical_fov_name, canonical_store

if TYPE_CHECKING:
    from iohub.ngff import Plate, Position

__all__ = [
    "READ_THREADS",
    "Described",
    "DescribedFovs",
    "check_described",
    "describe_fovs",
    "describe_plate",
    "describe_position",
    "no_store",
    "plate_keys",
    "read_fov",
    "read_plate",
    "try_fovs",
]

T = TypeVar("T")
R = TypeVar("R")
READ_THREADS = 16  # hides the latency of network file systems; the work itself is tiny
_SHOWN = 10
_MEND = f"mend them, or {LEAVE_OUT}"


def read_plate(path: str | Path, *, array_key: str | None = None, workers: int | None = None) -> tuple[FovInfo, ...]:
    """List the FOVs of a plate; of anything else :func:`viscy_data.read_fovs` lists them.

    Wells and FOVs that the metadata list and that are not on disk (a sparse plate) are left out, with a warning that
    names and counts them; so are channels without a name said once. Where tensorstore is installed, one chunk of every
    kind of array is decoded, so that a codec it lacks is found here and not in a worker hours later.

    Parameters
    ----------
    path : str or Path
        An HCS OME-Zarr store, version 0.4 or 0.5; a URL needs the extra ``triplet``.
    array_key : str, optional
        The array of each FOV to describe; by default the first that its metadata list, which is the full resolution.
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
    group = read_group(open_documents(store), "")
    if group is None:
        raise no_store(store)
    if "plate" not in group.ome:
        what = "a single FOV" if "multiscales" in group.ome else "a Zarr group"
        fix = "give the path of the plate around it, or list it with viscy_data.read_fovs"
        expected = "an HCS OME-Zarr store (row/column/fov)"
        raise InputError(store, found=f"{what}, without plate metadata", expected=expected, fix=fix)
    return describe_fovs(plate_keys(store, group, workers), array_key=array_key, workers=workers)


def plate_keys(store: str, group: Group, workers: int | None = None) -> list[FovKey]:
    """List the FOVs that the wells of a plate list; wells that are not there are left out, with a warning."""
    documents = open_documents(store)
    with _understanding(store, "plate"):
        wells = [canonical_fov_name(well["path"]) for well in group.ome["plate"].get("wells") or []]
    with ThreadPoolExecutor(workers or READ_THREADS, thread_name_prefix="plate_keys") as pool:
        names = list(pool.map(lambda well: _fov_names(store, documents, well), wells))
    _report_absent(store, "wells", [well for well, own in zip(wells, names, strict=True) if own is None], len(wells))
    listed = [FovKey(store, name) for well in names if well is not None for name in well]
    return sorted(set(listed), key=lambda key: key.name.split("/"))


def describe_fovs(
    keys: Sequence[FovKey], *, array_key: str | None = None, workers: int | None = None
) -> tuple[FovInfo, ...]:
    """Describe FOVs of one store, in their order, see :func:`read_plate`."""
    if not keys:
        return ()
    found = try_fovs(keys, array_key=array_key, workers=workers)
    check_described(found)
    return tuple(entry.fov for entry in found.described)


def try_fovs(keys: Sequence[FovKey], *, array_key: str | None = None, workers: int | None = None) -> DescribedFovs:
    """Describe those FOVs of one store that can be described, in their order, and say what is wrong with others.

    Those that are not on disk are in neither, with a warning that names and counts them.
    """
    if not keys:
        return DescribedFovs([], {})
    store = keys[0].store
    documents = open_documents(store)
    with ThreadPoolExecutor(workers or READ_THREADS, thread_name_prefix="describe_fovs") as pool:
        found = list(pool.map(_or_error(lambda key: _describe(documents, key, array_key)), keys))
    bad = {key: entry for key, entry in zip(keys, found, strict=True) if isinstance(entry, InputError)}
    described = [entry for entry in found if isinstance(entry, Described)]
    absent = [key.name for key, entry in zip(keys, found, strict=True) if entry is None]
    _report_absent(store, "FOVs", absent, len(keys))
    _report_nameless(store, [entry.fov.name for entry in described if not entry.channels_named])
    return DescribedFovs(described, bad)


def check_described(found: DescribedFovs) -> None:
    """Refuse FOVs that cannot be described, all together, and encodings of which no chunk can be decoded."""
    raise_all(found.bad.values())
    check_decodable([entry.fov for entry in found.described], [entry.encoding for entry in found.described])


def read_fov(key: FovKey, *, array_key: str | None = None) -> FovInfo:
    """Describe one FOV, see :func:`read_plate`.

    Raises
    ------
    MissingInputError
        If there is no such FOV.
    InputError
        If it cannot be used.
    """
    described = _describe(open_documents(key.store), key, array_key)
    if described is None:
        raise MissingInputError(f"{key.store}, FOV {key.name}", found="no array, nor a Zarr group")
    return described.fov


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
    return read_fov(FovKey(canonical_store(str(group.store.root)), name))


def describe_plate(plate: Plate | Iterable[FovInfo | Position]) -> list[FovInfo]:
    """Describe the FOVs of an open plate of iohub, or those given; see :func:`describe_position`."""
    positions = [position for _, position in plate.positions()] if hasattr(plate, "positions") else plate
    return [fov if isinstance(fov, FovInfo) else describe_position(fov) for fov in positions]


class _Array(NamedTuple):
    """Metadata of an array; ``encoding`` is the text of what decides how its chunks are decoded."""

    shape: tuple[int, ...]
    dtype: str
    encoding: str


class Described(NamedTuple):
    """A FOV, whether its metadata name its channels, and the text of what decides how its chunks are decoded."""

    fov: FovInfo
    channels_named: bool
    encoding: str


class DescribedFovs(NamedTuple):
    """The FOVs of a store that could be described, and what is wrong with others."""

    described: list[Described]
    bad: dict[FovKey, InputError]


def no_store(store: str) -> InputError:
    """Return the error about a path at which there is no OME-Zarr store."""
    expected = "an OME-Zarr store"
    if "://" in store:
        fix = "check the address, and that it may be read: servers call forbidden what is not there as well"
        return MissingInputError(store, found="nothing", expected=expected, fix=fix)
    if os.path.isdir(store):
        inside = sorted(name for name in os.listdir(store) if name.endswith(".zarr"))
        fix = f"for all of its {len(inside)} stores give the pattern {store}/*.zarr" if inside else ""
        return InputError(store, found="a folder without Zarr metadata", expected=expected, fix=fix)
    if os.path.isfile(store):
        zipped = zipfile.is_zipfile(store)
        found, fix = ("a zipped store", "unpack it first") if zipped else ("a file", "give the folder of the store")
        return InputError(store, found=found, expected=f"{expected}, which is a folder", fix=fix)
    return MissingInputError(
        store, found="nothing", expected=expected, fix=near_files(store, otherwise="check the path")
    )


def _fov_names(store: str, documents: Documents, well: str) -> list[str] | None:
    """Return the FOVs that a well lists, None when it is not on disk."""
    group = read_group(documents, well)
    if group is None:
        return None
    if "well" not in group.ome:
        raise InputError(f"{store}, well {well}", found="no well metadata", expected="the wells that the plate lists")
    with _understanding(f"{store}, well {well}", "well"):
        return [f"{well}/{canonical_fov_name(image['path'])}" for image in group.ome["well"].get("images") or []]


def _describe(documents: Documents, key: FovKey, array_key: str | None) -> Described | None:
    """Describe a FOV, None when it is not on disk."""
    where = f"{key.store}, FOV {key.name}"
    group = read_group(documents, key.name)
    if group is None:
        return None
    with _understanding(where, "multiscales", _MEND):
        path = array_key if array_key is not None else array_path(group.ome)
    array = _read_array(documents, f"{key.name}/{path}", where)
    if array is None:
        raise MissingInputError(where, found=f"no array {path!r}", expected="the pixels of the FOV")
    with _understanding(where, "multiscales, omero", _MEND):
        axes = axes_of(group.ome, len(array.shape), where)
        scale = scale_of(group.ome, path, axes)
        size = dict(zip(axes, array.shape, strict=True))
        shape = tuple(size.get(axis, 1) for axis in AXES)
        names, channels_named = channel_names_of(group.ome, shape[1], where)
    fov = FovInfo(key, shape, array.dtype, names, scale, axes, path, group.zarr_format)
    return Described(fov, channels_named, array.encoding)


@contextmanager
def _understanding(where: str, field: str, fix: str = "") -> Iterator[None]:
    """Say which metadata are at fault where they are built otherwise than OME-NGFF has it: a text for an object, ..."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        what = f"there is no {err}" if isinstance(err, KeyError) else "values of another kind"
        found = f"what cannot be understood: {what}"
        raise InputError(where, field=field, found=found, expected="metadata as OME-NGFF has them", fix=fix) from err


def _read_array(documents: Documents, name: str, where: str) -> _Array | None:
    if (document := documents.read(f"{name}/zarr.json")) is not None:
        kind, encoding = document.get("data_type"), document.get("codecs")
    elif (document := documents.read(f"{name}/.zarray")) is not None:
        kind, encoding = document.get("dtype"), [document.get("compressor"), document.get("filters")]
    else:
        return None
    try:
        dtype = np.dtype(kind)
    except (TypeError, ValueError):
        dtype = None
    if dtype is None or dtype.kind not in "biuf":
        raise InputError(where, field="data type", found=str(kind), expected="whole or real numbers")
    with _understanding(where, "shape, chunks", _MEND):
        shape = tuple(document.get("shape") or ())
        if not shape or not all(shape):
            raise InputError(where, found=f"an array of shape {shape}", expected="the pixels of the FOV")
        chunk = _chunk_shape(document)
        n_bytes = math.prod(map(int, chunk)) * dtype.itemsize
    what, fix = f"a chunk of shape {chunk}", "write the store anew with smaller chunks"
    refuse_too_large(where, n_bytes, field="chunks", what=what, fix=fix)
    return _Array(shape, dtype.name, json.dumps([kind, encoding], sort_keys=True))


def _chunk_shape(document: dict[str, Any]) -> tuple[int, ...]:
    """Return the shape of what is decoded at once: the innermost chunk, of a sharded array as well."""
    if "zarr_format" in document and document["zarr_format"] == 2:
        return tuple(document["chunks"])
    shape, codecs = document["chunk_grid"]["configuration"]["chunk_shape"], document.get("codecs") or []
    while sharding := [codec for codec in codecs if codec.get("name") == "sharding_indexed"]:
        shape, codecs = sharding[0]["configuration"]["chunk_shape"], sharding[0]["configuration"].get("codecs") or []
    return tuple(shape)


def _report_absent(store: str, kind: str, absent: Sequence[str], n_listed: int) -> None:
    if not absent:
        return
    counted = f"{len(absent)} of {n_listed} {kind} that the metadata list are not on disk"
    if len(absent) == n_listed:
        raise MissingInputError(store, found=counted, expected="at least one", fix="copy the store anew")
    _warn(f"{store}: {counted} and are left out: {_listed(absent)}")


def _report_nameless(store: str, fovs: Sequence[str]) -> None:
    if fovs:
        _warn(
            f"{store}: {len(fovs)} FOVs have channels without a label, which are called by their number, "
            f"'0', '1', ...: {_listed(fovs)}"
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _or_error(function: Callable[[T], R]) -> Callable[[T], R | InputError]:
    """Return input errors instead of raising them, so that all of them can be reported together."""

    def call(value: T) -> R | InputError:
        try:
            return function(value)
        except InputError as err:
            return err

    return call
