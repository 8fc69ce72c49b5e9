"""Pixels that do not come: chunks that are broken or not there, stores that are gone, servers that fail.

A chunk that is not stored reads as the fill value, by the definition of Zarr: writers of sparse stores leave out chunks
of nothing else. A copy that broke off looks the same. So such pixels are given, and told: counted, and warned of once
per FOV. Everything else is an error that names store, FOV, frame, channel and chunk.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from viscy_data._documents import is_server_problem, server_problem
from viscy_data.errors import InputError
from viscy_data.optional import require
from viscy_data.stores.arrays import LEAVE_OUT, open_array, reason, undecodable
from viscy_data.stores.names import FovInfo

if TYPE_CHECKING:
    import tensorstore as ts

__all__ = [
    "PIXEL_RETRIES",
    "SERVER_PATIENCE_SECONDS",
    "Faulty",
    "read_block",
    "read_channel",
    "read_stack",
    "reading_context",
    "wait_for",
]

T = TypeVar("T")

PIXEL_RETRIES = {"max_retries": 6, "initial_delay": "200ms", "max_delay": "5s"}
"""How often a server is asked again for a chunk after it was busy, failed or hung up: about ten seconds in all."""
SERVER_PATIENCE_SECONDS = 120.0
"""How long a server may send nothing of what was asked for."""

Faulty = (ValueError, TimeoutError)
"""What a read that fails raises."""


def reading_context(cache_pool_bytes: int) -> ts.Context:
    """Return a context with a cache of decoded chunks, in which servers are asked again as ``PIXEL_RETRIES`` says."""
    retries = {f"{driver}_request_retries": PIXEL_RETRIES for driver in ("http", "gcs", "s3")}
    pool = {"cache_pool": {"total_bytes_limit": cache_pool_bytes}}
    return require("tensorstore", extra="triplet").Context(pool | retries)


def wait_for(future: Any, fov: FovInfo, patience: float = SERVER_PATIENCE_SECONDS) -> Any:
    """Return the result of a read; of a server it is not waited for without end.

    Raises
    ------
    ValueError, TimeoutError
        ``Faulty``: if there is none.
    """
    return future.result(timeout=patience) if "://" in fov.store else future.result()


def read_channel(
    fov: FovInfo,
    array: ts.TensorStore,
    t: int,
    channel: int,
    box: tuple[slice, slice, slice],
    *,
    told: Callable[[str], None],
    patience: float = SERVER_PATIENCE_SECONDS,
) -> np.ndarray:
    """Read a box of one channel of one frame.

    Parameters
    ----------
    fov : FovInfo
    array : tensorstore.TensorStore
        As from :func:`open_array`; chunks that are not stored are found if it was opened with ``fill_missing=False``.
    t, channel : int
    box : tuple of slice
        Along Z, Y, X.
    told : callable
        Called with a sentence if a chunk is not stored; the pixels are the fill value then.
    patience : float, default ``SERVER_PATIENCE_SECONDS``
        Seconds that a server is waited for.

    Returns
    -------
    ndarray, shape (Z, Y, X)

    Raises
    ------
    InputError
        If the pixels cannot be had; names store, FOV, frame, channel and, as far as known, chunk. So is a chunk that
        is not stored, where ``fov.missing_chunks`` refuses it.
    MissingInputError
        If the whole array is gone.
    """
    where = f"{fov.where}, frame {t}, channel {fov.channel_names[channel]!r}"
    try:
        return np.asarray(wait_for(array[(t, channel, *box)].read(), fov, patience))
    except Faulty as err:
        if not _is_missing_chunk(err) or fov.missing_chunks == "refuse":
            raise _fault(where, fov, err, patience) from err
        missing = reason(err)
    filled = open_array(fov)  # opened anew: of a store that is gone this tells so
    try:
        pixels = np.asarray(wait_for(filled[(t, channel, *box)].read(), fov, patience))
    except Faulty as err:
        raise _fault(where, fov, err, patience) from err
    told(f"{where}: {missing}, so it reads as the fill value")
    return pixels


def read_stack(fov: FovInfo, t: int, channel: int, array: ts.TensorStore | None = None) -> np.ndarray:
    """Read one channel of one frame.

    Parameters
    ----------
    fov : FovInfo
    t, channel : int
        Frame, and position of the channel.
    array : tensorstore.TensorStore, optional
        What :func:`open_array` gives, to read several stacks of one FOV; with ``fill_missing=False`` chunks that are
        not stored are warned of, as they are without ``array``.

    Returns
    -------
    ndarray, shape (Z, Y, X)
        In the stored dtype.

    Raises
    ------
    InputError
        Naming store, FOV, frame and channel if the pixels cannot be decoded, a truncated chunk for instance.
    """
    array = open_array(fov, fill_missing=False) if array is None else array

    def warn(told: str) -> None:
        warnings.warn(f"{told}. {SPARSE}", stacklevel=4)

    return read_channel(fov, array, t, channel, (slice(None), slice(None), slice(None)), told=warn)


def read_block(
    fov: FovInfo, array: ts.TensorStore, frames: range, channels: Sequence[int], slices: slice = slice(None)
) -> np.ndarray:
    """Read whole planes of several channels of consecutive frames, each chunk once.

    Parameters
    ----------
    fov : FovInfo
    array : tensorstore.TensorStore
        What :func:`open_array` gives; chunks that are not stored are filled, or refused.
    frames : range
        In steps of 1.
    channels : sequence of int
    slices : slice, default all
        Along Z.

    Returns
    -------
    ndarray, shape (len(frames), len(channels), Z, Y, X)
        In the stored dtype.

    Raises
    ------
    InputError
        Naming store, FOV, frames and channels if the pixels cannot be had.
    """
    try:
        return np.asarray(wait_for(array[frames.start : frames.stop, list(channels), slices].read(), fov))
    except Faulty as err:
        times = f"frame {frames[0]}" if len(frames) == 1 else f"frames {frames[0]} to {frames[-1]}"
        names = ", ".join(repr(fov.channel_names[channel]) for channel in channels)
        where = f"{fov.where}, {times}, channel{'s' * (len(channels) > 1)} {names}"
        raise _fault(where, fov, err, SERVER_PATIENCE_SECONDS) from err


SPARSE = "Right in a sparse store, whose writer leaves empty chunks out; otherwise copy the FOV anew or leave it out"
"""What to do about a chunk that is not stored."""


def _is_missing_chunk(err: Exception) -> bool:
    return str(err).startswith("NOT_FOUND")


def _fault(where: str, fov: FovInfo, err: Exception, patience: float) -> InputError:
    if isinstance(err, TimeoutError):
        found = f"no answer of the server within {patience:g} s"
        return InputError(where, found=found, expected="pixels", fix="try again, or copy the store to a local disk")
    if _is_missing_chunk(err):
        open_array(fov)  # of a store that is gone this tells so
        fix = f"copy this FOV anew, {LEAVE_OUT}; in a sparse store storage.missing_chunks: fill takes them for empty"
        raise InputError(where, found=reason(err), expected="chunks that are all stored", fix=fix) from err
    if is_server_problem(err):
        told = server_problem(fov.path, err)
        return InputError(where, found=told.found, expected=told.expected, fix=told.fix)
    return undecodable(where, err)
