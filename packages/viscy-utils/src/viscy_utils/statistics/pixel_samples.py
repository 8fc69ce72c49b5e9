"""A sample of the pixels of each frame of a FOV, from which statistics are computed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from viscy_data.stores import FovInfo, open_array, read_stack

__all__ = ["FovSample", "Sampling", "sample_fov", "sample_frame"]

Sampling = Literal["grid", "stratified"]


@dataclass(frozen=True)
class FovSample:
    """Sampled pixels of one channel of one FOV.

    Parameters
    ----------
    frames : dict of int to ndarray
        Finite values of each frame (1-D float32), without the empty frames.
    empty : tuple of int
        Frames that are constant or have no finite pixel.
    n_nonfinite : int
        Sampled pixels that are NaN or infinite, all of them left out.
    mean : float
        Mean of all finite pixels, sampled or not, of the frames that are not empty; NaN when there is none.
    """

    frames: dict[int, np.ndarray]
    empty: tuple[int, ...]
    n_nonfinite: int
    mean: float


def sample_fov(fov: FovInfo, channel: str, grid_spacing: int, sampling: Sampling = "grid") -> FovSample:
    """Read all frames of one channel, one after the other, and keep a sample of each.

    Parameters
    ----------
    fov : FovInfo
        Which FOV.
    channel : str
        Name of the channel in the store.
    grid_spacing, sampling
        See :func:`sample_frame`.

    Returns
    -------
    FovSample
    """
    index = fov.channel_index(channel)
    array = open_array(fov)
    frames, empty, n_nonfinite, means = {}, [], 0, []
    for t in range(fov.shape[0]):
        stack = read_stack(fov, t, index, array)
        seed = zlib.crc32(f"{fov.name}:{channel}:{t}".encode())
        sample = sample_frame(stack, grid_spacing, sampling, seed).astype(np.float32)
        finite = sample[np.isfinite(sample)]
        n_nonfinite += sample.size - finite.size
        if finite.size == 0 or _is_constant(stack):
            empty.append(t)
            continue
        frames[t] = finite
        means.append(np.mean(stack, dtype=np.float64, where=np.isfinite(stack)))
    return FovSample(frames, tuple(empty), n_nonfinite, float(np.mean(means)) if means else float("nan"))


def sample_frame(stack: np.ndarray, grid_spacing: int, sampling: Sampling = "grid", seed: int = 0) -> np.ndarray:
    """Pick about one pixel in ``grid_spacing ** 2`` of every plane.

    Parameters
    ----------
    stack : ndarray, shape (Z, Y, X)
        One frame.
    grid_spacing : int
        Distance of the picked pixels in Y and X.
    sampling : {"grid", "stratified"}, default "grid"
        ``grid`` takes every ``grid_spacing``-th row and column, beginning with the first. ``stratified`` takes one
        random pixel of every block, the same ones for all planes, which a periodic image cannot fool.
    seed : int, default 0
        Seed of ``stratified``.

    Returns
    -------
    ndarray
        1-D, dtype of ``stack``.
    """
    if sampling == "grid":
        return stack[:, ::grid_spacing, ::grid_spacing].ravel()
    rng = np.random.default_rng(seed)
    rows, columns = (np.arange(0, extent, grid_spacing) for extent in stack.shape[1:])
    shape = (rows.size, columns.size)
    y = rows[:, None] + rng.integers(np.minimum(grid_spacing, stack.shape[1] - rows)[:, None], size=shape)
    x = columns + rng.integers(np.minimum(grid_spacing, stack.shape[2] - columns), size=shape)
    return stack[:, y, x].ravel()


def _is_constant(stack: np.ndarray) -> bool:
    finite = np.isfinite(stack)
    values = stack if finite.all() else stack[finite]
    return bool(values.min() == values.max())
