"""Pixels that say where they come from, so that a reader is checked value by value.

>>> code = Encoding(n_plates=2, n_fovs=3, shape=(4, 2, 1, 32, 48))
>>> pixels = code.pixels(plate=1, fov=2)
>>> origin = code.decode(pixels[3, 1, 0, 30, 7])
>>> [int(number) for number in origin]
[1, 2, 3, 1, 0, 30, 7]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from viscy_data.stores import PlateWriter

__all__ = ["Encoding", "PixelOrigin", "write_encoded_plate"]

_EXACT_FLOAT32 = 1 << 24


class PixelOrigin(NamedTuple):
    """Where pixels come from, each an int64 array of the shape of the pixels."""

    plate: np.ndarray
    fov: np.ndarray
    t: np.ndarray
    c: np.ndarray
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray


@dataclass(frozen=True)
class Encoding:
    """One whole number for every pixel of some plates of equal shape, exact in float32; 0 is never used.

    Parameters
    ----------
    n_plates, n_fovs : int
        Number of plates, and of FOVs in each.
    shape : tuple of int
        (T, C, Z, Y, X) of every FOV.

    Raises
    ------
    ValueError
        If there are more pixels than whole numbers that float32 holds exactly (2**24).
    """

    n_plates: int
    n_fovs: int
    shape: tuple[int, int, int, int, int]

    def __post_init__(self) -> None:
        if prod(self._sizes) >= _EXACT_FLOAT32:
            raise ValueError(f"{prod(self._sizes)} pixels cannot be told apart in float32; use less than 2**24")

    @property
    def _sizes(self) -> tuple[int, ...]:
        return self.n_plates, self.n_fovs, *self.shape

    def encode(self, plate: Any, fov: Any, t: Any, c: Any, z: Any, y: Any, x: Any) -> np.ndarray:
        """Return the float32 values of pixels; the coordinates are broadcast against each other."""
        number = np.ravel_multi_index(np.broadcast_arrays(plate, fov, t, c, z, y, x), self._sizes)
        return (number + 1).astype(np.float32)

    def pixels(self, plate: int, fov: int) -> np.ndarray:
        """Return all pixels of one FOV, (T, C, Z, Y, X) float32."""
        return self.encode(plate, fov, *np.ogrid[tuple(slice(size) for size in self.shape)])

    def decode(self, values: np.ndarray) -> PixelOrigin:
        """Return the origin of pixels.

        Raises
        ------
        ValueError
            If a value is not one of the encoding: interpolated, scaled, or padded.
        """
        values = np.asarray(values)
        number = values.astype(np.int64)
        bad = (number != values) | (number < 1) | (number > prod(self._sizes))
        if bad.any():
            raise ValueError(f"{int(bad.sum())} values were never written, such as {values[bad].flat[0]}")
        # Flat, since numpy 2.4 mixes up the places of arrays of many axes with more than 8192 elements.
        places = np.unravel_index(number.ravel() - 1, self._sizes)
        return PixelOrigin(*(place.reshape(number.shape) for place in places))


def write_encoded_plate(
    path: str | Path, encoding: Encoding, plate: int, fov_names: Sequence[str], channel_names: Sequence[str], **options
) -> Path:
    """Write one plate of an encoding.

    Parameters
    ----------
    path : str or Path
        Where the store will be.
    encoding : Encoding
        Of all plates of the test.
    plate : int
        Which of its plates this is.
    fov_names : sequence of str
        Names of its FOVs, in the order of their numbers.
    channel_names : sequence of str
        Names of its channels.
    **options
        ``version``, ``chunks``, ``shards`` as for :class:`viscy_data.stores.PlateWriter`.

    Returns
    -------
    Path
        The store.
    """
    if len(fov_names) != encoding.n_fovs:
        raise ValueError(f"{len(fov_names)} FOV names for an encoding of {encoding.n_fovs} FOVs")
    with PlateWriter(path, channel_names, **options) as writer:
        for number, name in enumerate(fov_names):
            writer.write(name, encoding.pixels(plate, number))
    return Path(path)
