"""Normalised channels of a plate as a stack of numpy arrays, one file per FOV."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from viscy_data.errors import InputError
from viscy_data.files import refuse_existing, replacing
from viscy_data.select import select_fovs
from viscy_data.stores import FovInfo, open_array, read_fovs, read_stack

__all__ = ["normalize_image", "precompute_array"]

Subtrahend = Literal["mean"] | float
Divisor = Literal["std"] | tuple[float, float]


def normalize_image(image: NDArray, subtrahend: Subtrahend, divisor: Divisor, eps: float = 1e-6) -> NDArray:
    """Return ``(image - subtrahend) / max(divisor, eps)``.

    Parameters
    ----------
    image : ndarray
        Any shape; statistics are those of the whole array.
    subtrahend : "mean" or float
        Mean, or a percentile within 0 to 100.
    divisor : "std" or pair of float
        Standard deviation, or upper minus lower of two percentiles.
    eps : float, default 1e-6
        Smallest divisor.

    Returns
    -------
    ndarray of float32

    Raises
    ------
    InputError
        If a statistic is unknown or its percentiles are out of range or order.
    """
    _check(subtrahend, divisor)
    image = np.asarray(image, np.float32)
    offset = image.mean(dtype=np.float64) if subtrahend == "mean" else np.percentile(image, subtrahend)
    if divisor == "std":
        scale = image.std(dtype=np.float64)
    else:
        low, high = np.percentile(image, divisor)
        scale = high - low
    return (image - np.float32(offset)) / np.float32(max(scale, eps))


def precompute_array(
    data_path: Path,
    output_path: Path,
    channel_names: list[str],
    subtrahends: list[Subtrahend],
    divisors: list[Divisor],
    image_array_key: str | None = None,
    include_wells: list[str] | None = None,
    exclude_fovs: list[str] | None = None,
) -> None:
    """Normalise channels per well and write them for ``dask.array.from_npy_stack``.

    The array has axes (FOV, T, C, Z, Y, X) and type float16; file ``i.npy`` holds FOV ``i`` of the plate's order.

    Parameters
    ----------
    data_path, output_path : Path
        HCS OME-Zarr store; folder to write, complete before it gets its name.
    channel_names : list of str
        Channels to write, in this order.
    subtrahends, divisors : list
        One per channel, see :func:`normalize_image`; statistics are those of all FOVs of a well.
    image_array_key : str, optional
        Array of each FOV; by default the one that its metadata name first.
    include_wells, exclude_fovs : list of str, optional
        Wells to take (all by default), FOVs to leave out.

    Raises
    ------
    FileExistsError
        If ``output_path`` exists.
    InputError
        If a channel is missing, nothing is left to write, FOVs differ in shape, a statistic is not one of those above,
        or pixels are not finite or not within float16 once normalised.
    """
    output_path = Path(output_path)
    refuse_existing(output_path, remedy="choose another output_path")
    if not len(channel_names) == len(subtrahends) == len(divisors):
        found = f"{len(channel_names)}, {len(subtrahends)} and {len(divisors)} entries"
        field = "channel_names, subtrahends, divisors"
        raise InputError("precompute", field=field, found=found, expected="lists of the same length")
    statistics = list(zip(subtrahends, divisors, strict=True))
    for pair in statistics:
        _check(*pair)
    fovs = _select(data_path, channel_names, image_array_key, include_wells, exclude_fovs)
    with replacing(output_path) as temporary:
        temporary.mkdir()
        for well in dict.fromkeys(fov.well for fov in fovs):
            members = {i: fov for i, fov in enumerate(fovs) if fov.well == well}
            channels = [
                _normalized(list(members.values()), name, pair)
                for name, pair in zip(channel_names, statistics, strict=True)
            ]
            for position, i in enumerate(members):
                stack = np.stack([channel[position] for channel in channels], axis=1)  # (T, C, Z, Y, X)
                np.save(temporary / f"{i}.npy", stack[None])
        time, _, *zyx = fovs[0].shape
        chunks = ((1,) * len(fovs), *((n,) for n in (time, len(channel_names), *zyx)))
        with open(temporary / "info", "wb") as file:  # the layout of dask.array.to_npy_stack
            pickle.dump({"chunks": chunks, "dtype": np.dtype(np.float16), "axis": 0}, file)


def _check(subtrahend: Subtrahend, divisor: Divisor) -> None:
    if subtrahend != "mean" and (isinstance(subtrahend, str) or not 0 <= subtrahend <= 100):
        expected = "mean or a percentile within 0 to 100"
        raise InputError("precompute", field="subtrahends", found=repr(subtrahend), expected=expected)
    if divisor == "std":
        return
    if isinstance(divisor, str) or len(divisor) != 2 or not 0 <= divisor[0] < divisor[1] <= 100:
        expected = "std or two percentiles within 0 to 100, the lower first"
        raise InputError("precompute", field="divisors", found=repr(divisor), expected=expected)


def _normalized(fovs: Sequence[FovInfo], channel: str, statistics: tuple[Subtrahend, Divisor]) -> NDArray:
    """Normalise one channel of all FOVs of a well, (FOV, T, Z, Y, X) float16."""
    images = np.stack([_read(fov, channel) for fov in fovs])
    for fov, image in zip(fovs, images, strict=True):
        if not np.isfinite(image).all():
            where = f"{fov.store}, FOV {fov.name}, channel {channel}"
            raise InputError(where, found="non-finite pixels", fix="leave the FOV out with exclude_fovs")
    with np.errstate(over="ignore"):
        normalized = normalize_image(images, *statistics).astype(np.float16)
    if not np.isfinite(normalized).all():
        raise InputError(
            f"{fovs[0].store}, well {fovs[0].well}, channel {channel}",
            found="values beyond float16 once normalised",
            fix="choose std or percentiles further apart in divisors",
        )
    return normalized


def _select(
    data_path: Path,
    channel_names: Sequence[str],
    array_key: str | None,
    include_wells: Sequence[str] | None,
    exclude_fovs: Sequence[str] | None,
) -> list[FovInfo]:
    fovs = select_fovs(read_fovs(data_path, array_key=array_key), include_wells, exclude_fovs, where=str(data_path))
    if not fovs:
        raise InputError(str(data_path), field="include_wells, exclude_fovs", found="no FOV left")
    for fov in fovs:
        for name in channel_names:
            fov.channel_index(name, "channel_names")
        if fov.shape != fovs[0].shape:
            raise InputError(f"{data_path}, FOV {fov.name}", found=str(fov.shape), expected=f"shape {fovs[0].shape}")
    return fovs


def _read(fov: FovInfo, channel: str) -> NDArray:
    array, index = open_array(fov), fov.channel_index(channel, "channel_names")
    return np.stack([read_stack(fov, t, index, array) for t in range(fov.shape[0])])
