"""The pixels of a FOV as a TCZYX array of tensorstore, whatever the order of axes in the store; nothing is copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from viscy_data._documents import is_server_problem, kvstore_of, open_documents, server_problem
from viscy_data.errors import InputError, MissingInputError
from viscy_data.optional import require
from viscy_data.stores.multiscales import AXES
from viscy_data.stores.names import FovInfo

if TYPE_CHECKING:
    import tensorstore as ts

__all__ = ["LEAVE_OUT", "begin_open", "end_open", "open_array", "reason", "undecodable"]

LEAVE_OUT = (
    "leave it out: exclude it by name, or by storage.bad_fovs: leave_out, which leaves out what is found at set-up"
)
"""What a user can do about a FOV that cannot be read."""


def open_array(fov: FovInfo, context: ts.Context | None = None, *, fill_missing: bool = True) -> ts.TensorStore:
    """Open the pixels of a FOV.

    Parameters
    ----------
    fov : FovInfo
        As :func:`viscy_data.read_plate` gives it.
    context : tensorstore.Context, optional
        Cache pool and concurrency.
    fill_missing : bool, default True
        Read chunks that are not stored as the fill value, as Zarr has it. Otherwise, and where ``fov.missing_chunks``
        refuses them, reading one raises a ValueError; :func:`viscy_data.stores.read_stack` reads such an array and
        tells what was missing.

    Returns
    -------
    tensorstore.TensorStore, shape (T, C, Z, Y, X)
        A view in the stored dtype.

    Raises
    ------
    MissingInputError
        If there is no such array.
    InputError
        If tensorstore cannot read it: an unknown codec, broken metadata.
    """
    return end_open(fov, begin_open(fov, context, fill_missing=fill_missing))


def begin_open(fov: FovInfo, context: ts.Context | None = None, *, fill_missing: bool = True) -> Any:
    """Start to open a FOV and return the future for :func:`end_open`, so that many can be opened together."""
    tensorstore = require("tensorstore", extra="triplet")
    zarr_format = fov.zarr_format
    if zarr_format is None:
        zarr_format = 2 if open_documents(fov.store).read("zarr.json") is None else 3
    spec = {
        "driver": "zarr3" if zarr_format == 3 else "zarr",
        "kvstore": kvstore_of(f"{fov.path}/{fov.array_key}/"),
        "recheck_cached_data": "open",  # else every cached chunk costs a look at its file
        "fill_missing_data_reads": fill_missing and fov.missing_chunks == "fill",
    }
    return tensorstore.open(spec, open=True, read=True, context=context)


def end_open(fov: FovInfo, future: Any) -> ts.TensorStore:
    """Wait for :func:`begin_open` and return the TCZYX view, see :func:`open_array`."""
    try:
        store = future.result()
    except ValueError as err:
        if "NOT_FOUND" in str(err):
            expected = "an OME-Zarr array"
            raise MissingInputError(fov.where, found=f"no array {fov.array_key!r}", expected=expected) from err
        if is_server_problem(err):
            raise server_problem(fov.path, err) from err
        expected = "an array that tensorstore reads (codecs blosc, zstd, gzip, bz2, sharding; no filters)"
        fix = "write the store anew with one of these"
        raise InputError(fov.where, field=fov.array_key, found=reason(err), expected=expected, fix=fix) from err
    if len(store.shape) != len(fov.axes):
        found = f"an array of shape {tuple(store.shape)}"
        raise InputError(fov.where, found=found, expected=f"axes {fov.axes.upper()}")
    store = store if fov.axes == AXES else _as_tczyx(store, fov.axes)
    if tuple(store.shape) != fov.shape:
        found, expected = f"an array of shape {tuple(store.shape)}", f"{fov.shape}, which it had before"
        raise InputError(fov.where, found=found, expected=expected, fix="let nothing change a store that is in use")
    return store


def undecodable(where: str, err: ValueError, field: str = "") -> InputError:
    """Return the error about pixels that are there and cannot be decoded."""
    fix = f"copy or write this FOV anew, or {LEAVE_OUT}"
    return InputError(where, field=field, found=reason(err), expected="chunks that can be decoded", fix=fix)


def reason(err: ValueError) -> str:
    """Shorten an error of tensorstore: without its prefix, its specification and its place in the source."""
    text = str(err).split(" [tensorstore_spec=")[0].split(" [source locations=")[0]
    return text.partition(": ")[2] if text.split(":")[0].isupper() else text


def _as_tczyx(store: ts.TensorStore, axes: str) -> ts.TensorStore:
    tensorstore = require("tensorstore", extra="triplet")
    store = store.transpose([axes.index(axis) for axis in AXES if axis in axes])
    return store[tuple(slice(None) if axis in axes else tensorstore.newaxis for axis in AXES)]
