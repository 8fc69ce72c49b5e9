"""A sample of the pixels of each frame of a FOV, from which statistics are computed; every chunk is read once."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from viscy_data.errors import InputError
from viscy_data.stores import FovInfo, open_array, read_block

__all__ = [
    "FovSample",
    "FrameSample",
    "FramesToSample",
    "Sampling",
    "frames_to_sample",
    "sample_frame",
    "sample_frames",
    "try_frames",
]

Sampling = Literal["grid", "stratified"]
_SLAB_BYTES = 2**26  # read at once
_PIECE_BYTES = 2**28  # of pixels, about, are one piece of work


@dataclass(frozen=True)
class FramesToSample:
    """A piece of work: consecutive frames of one FOV, whose chunks no other piece reads.

    Parameters
    ----------
    fov : FovInfo
    frames : range
    channels : tuple of str
    grid_spacing, sampling
        See :func:`sample_frame`.
    """

    fov: FovInfo
    frames: range
    channels: tuple[str, ...]
    grid_spacing: int
    sampling: Sampling = "grid"


@dataclass
class FrameSample:
    """Sampled pixels of one channel of one frame.

    Parameters
    ----------
    values : ndarray
        The finite ones, 1-D float32.
    n_nonfinite : int
        Sampled pixels that are NaN or infinite.
    mean : float
        Of all finite pixels of the frame, sampled or not; NaN where there is none.
    is_empty : bool
        Whether the frame is constant or has no finite pixel.
    """

    values: np.ndarray
    n_nonfinite: int
    mean: float
    is_empty: bool


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

    @staticmethod
    def of(frames: Sequence[FrameSample]) -> FovSample:
        """Put the frames of a FOV together."""
        kept = {t: frame for t, frame in enumerate(frames) if not frame.is_empty}
        return FovSample(
            frames={t: frame.values for t, frame in kept.items()},
            empty=tuple(t for t, frame in enumerate(frames) if frame.is_empty),
            n_nonfinite=sum(frame.n_nonfinite for frame in frames),
            mean=float(np.mean([frame.mean for frame in kept.values()])) if kept else float("nan"),
        )


def frames_to_sample(
    fovs: Iterable[FovInfo], channels: Sequence[str], grid_spacing: int, sampling: Sampling = "grid"
) -> Iterator[FramesToSample]:
    """Divide FOVs into pieces of about a quarter of a gigabyte that share no chunk, in their order and that of time."""
    for fov in fovs:
        chunk = _chunk_shape(fov, open_array(fov))
        frame_bytes = len(channels) * int(np.prod(fov.shape[2:])) * np.dtype(fov.dtype).itemsize
        step = chunk[0] * max(1, _PIECE_BYTES // (frame_bytes * chunk[0]))
        for first in range(0, fov.shape[0], step):
            frames = range(first, min(first + step, fov.shape[0]))
            yield FramesToSample(fov, frames, tuple(channels), grid_spacing, sampling)


def sample_frames(piece: FramesToSample) -> dict[str, list[FrameSample]]:
    """Read the frames of a piece, a slab of whole chunks at a time, and keep a sample of each.

    Returns
    -------
    dict
        By channel, a sample of every frame of the piece.
    """
    fov, array = piece.fov, open_array(piece.fov)
    chunk = _chunk_shape(fov, array)
    index = {fov.channel_index(name): name for name in piece.channels}
    found: dict[str, list[FrameSample]] = {name: [] for name in piece.channels}
    for first in range(piece.frames.start, piece.frames.stop, chunk[0]):
        frames = range(first, min(first + chunk[0], piece.frames.stop))
        for block in range(0, fov.shape[1], chunk[1]):
            channels = [channel for channel in range(block, block + chunk[1]) if channel in index]
            if channels:
                parts = {
                    (t, channel): _Frame(piece, zlib.crc32(f"{fov.name}:{index[channel]}:{t}".encode()))
                    for t in frames
                    for channel in channels
                }
                for slices in _slabs(fov, chunk, len(frames) * len(channels)):
                    pixels = read_block(fov, array, frames, channels, slices)
                    for part, stack in zip(parts.values(), pixels.reshape(-1, *pixels.shape[2:]), strict=True):
                        part.add(stack)
                for (_, channel), part in parts.items():
                    found[index[channel]].append(part.sample())
    return found


def try_frames(piece: FramesToSample) -> dict[str, list[FrameSample]] | InputError:
    """Do as :func:`sample_frames`, but return what the store does wrong."""
    try:
        return sample_frames(piece)
    except InputError as err:
        return err


def _chunk_shape(fov: FovInfo, array: object) -> list[int]:
    """Return the smallest unit of reading along T, C, Z, Y, X; 1 along an axis that the store does not have."""
    return [
        min(length or 1, extent) for length, extent in zip(array.chunk_layout.read_chunk.shape, fov.shape, strict=True)
    ]


def _slabs(fov: FovInfo, chunk: Sequence[int], n_stacks: int) -> Iterator[slice]:
    """Divide the slices of a stack, so that a slab of ``n_stacks`` of them is whole chunks and fits into memory."""
    slice_bytes = n_stacks * fov.shape[3] * fov.shape[4] * np.dtype(fov.dtype).itemsize
    step = chunk[2] * max(1, _SLAB_BYTES // (slice_bytes * chunk[2]))
    for first in range(0, fov.shape[2], step):
        yield slice(first, min(first + step, fov.shape[2]))


@dataclass
class _Frame:
    """What is known of a frame while its slabs come."""

    piece: FramesToSample
    seed: int
    samples: list[np.ndarray] = field(default_factory=list)
    total: float = 0.0
    n_finite: int = 0
    lowest: float = np.inf
    highest: float = -np.inf

    def add(self, stack: np.ndarray) -> None:
        """Count the pixels of a slab in; its sample may show already that they are not all the same."""
        sample = sample_frame(stack, self.piece.grid_spacing, self.piece.sampling, self.seed).astype(np.float32)
        self.samples.append(sample)
        with np.errstate(invalid="ignore", over="ignore"):  # of infinities; the pixels are then looked at one by one
            rows = stack.sum(axis=-1) if stack.dtype.kind == "f" else stack  # ten times as fast, and precise enough
            total = rows.sum(dtype=np.float64)
        values = stack if np.isfinite(total) else stack[np.isfinite(stack)]
        self.total += total if values is stack else values.sum(dtype=np.float64)
        self.n_finite += values.size
        finite = sample[np.isfinite(sample)]
        seen = values if not finite.size or finite.min() == finite.max() else finite
        if seen.size:
            self.lowest, self.highest = min(self.lowest, seen.min()), max(self.highest, seen.max())

    def sample(self) -> FrameSample:
        """Put the slabs together."""
        sample = np.concatenate(self.samples)
        finite = sample[np.isfinite(sample)]
        return FrameSample(
            values=finite,
            n_nonfinite=sample.size - finite.size,
            mean=self.total / self.n_finite if self.n_finite else float("nan"),
            is_empty=finite.size == 0 or self.lowest == self.highest,
        )


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
