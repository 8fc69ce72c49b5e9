"""What every reader of a microscope's file gives: positions with their facts, and planes one by one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from viscy_data.errors import InputError

__all__ = ["ImageFile", "ImagePosition", "measured", "shape_of_axes"]

_AXES = "TCZYX"


@dataclass(frozen=True)
class ImagePosition:
    """One field of view of a file.

    Parameters
    ----------
    name : str
        What the file calls it, "" when it has no name.
    shape : tuple of int
        (T, C, Z, Y, X).
    dtype : numpy.dtype
    channel_names : tuple of str, default ()
        Empty where the file does not name its channels.
    pixel_size_um : tuple of float, optional
        Height and width of a pixel, in micrometres.
    z_step_um : float, optional
        From one slice to the next, in micrometres.
    interval_seconds : float, optional
        From one frame to the next.
    missing : frozenset of (t, c, z)
        Planes that the file has a place for, and no pixels.
    """

    name: str
    shape: tuple[int, int, int, int, int]
    dtype: np.dtype
    channel_names: tuple[str, ...] = ()
    pixel_size_um: tuple[float, float] | None = None
    z_step_um: float | None = None
    interval_seconds: float | None = None
    missing: frozenset[tuple[int, int, int]] = frozenset()


class ImageFile(ABC):
    """An open file: what a reader of a format is.

    Attributes
    ----------
    positions : tuple of ImagePosition
    companions : frozenset of Path
        Other files of the same recording, whose pixels are read through this one.
    """

    positions: tuple[ImagePosition, ...]
    companions: frozenset[Path] = frozenset()

    @abstractmethod
    def read(self, position: int, t: int, c: int, z: int) -> np.ndarray:
        """Read one plane, (Y, X), and nothing else."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def shape_of_axes(sizes: Mapping[str, int], where: str) -> tuple[int, int, int, int, int]:
    """Return (T, C, Z, Y, X), 1 along an axis that is not there.

    Raises
    ------
    InputError
        If there is any other axis longer than 1, such as the samples of a colour image.
    """
    if strange := {axis: size for axis, size in sizes.items() if axis not in _AXES and size > 1}:
        found = ", ".join(f"{axis} of {size}" for axis, size in strange.items())
        colours = "S" in strange
        raise InputError(
            where,
            field="axes",
            found=f"axis {found}" + (", a colour image" if colours else ""),
            expected="grey planes along any of T, C, Z",
            fix="export the channels as grey images" if colours else "export or split the file along that axis",
        )
    return tuple(sizes.get(axis, 1) for axis in _AXES)


def measured(value: object, factor: float = 1.0) -> float | None:
    """Return a positive finite number times a factor, None for anything else: files write 0 where nobody measured."""
    try:
        number = abs(float(value)) * factor
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None
