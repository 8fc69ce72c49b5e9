"""Tracks that were cut out of their movie: one NPY file each, of shape (T, C, Y, X).

>>> import tempfile
>>> path = Path(tempfile.mkdtemp()) / "cell_7.npy"
>>> np.save(path, np.zeros((3, 2, 8, 8), np.uint16))
>>> tracks = NpyTracks([path])
>>> tracks.fovs[0].name, tracks.fovs[0].shape, channel_number("h2b")
('cell_7', (3, 2, 1, 8, 8), 1)
>>> tracks.read(0, t=2, channels=[1]).shape
torch.Size([1, 1, 8, 8])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from viscy_data.checks import near_matches
from viscy_data.errors import InputError, MissingInputError, raise_all
from viscy_data.stores import FovInfo, FovKey, canonical_store

__all__ = ["NpyTracks", "channel_number"]

_CHANNELS = {"bf": 0, "brightfield": 0, "h2b": 1, "nuclei": 1}


def channel_number(name: str) -> int:
    """Return the place of a channel: 0 for bf or brightfield, 1 for h2b or nuclei, otherwise the number it is.

    Raises
    ------
    InputError
        If the name is none of these.
    """
    if name in _CHANNELS:
        return _CHANNELS[name]
    if name.isdecimal():
        return int(name)
    raise InputError(
        "source_channel", found=repr(name), expected=f"the number of a channel, or {near_matches(name, _CHANNELS)}"
    )


class NpyTracks:
    """Frames of NPY files, mapped into memory and not read as a whole.

    Parameters
    ----------
    paths : sequence of Path
        One file per track. Tracks may be of different length and size.

    Attributes
    ----------
    fovs : tuple of FovInfo
        What is known of each: its folder for a store, its name without suffix, and shape (T, C, 1, Y, X).

    Raises
    ------
    InputError
        Naming every file that is no such array.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = [Path(path) for path in paths]
        self._open: dict[int, np.ndarray] = {}
        described, problems = [], []
        for path in self._paths:
            try:
                described.append(_describe(path))
            except InputError as err:
                problems.append(err)
        raise_all(problems)
        self.fovs = tuple(described)

    def read(self, track: int, t: int, channels: Sequence[int]) -> Tensor:
        """Return channels of a frame, float32, shape (C, 1, Y, X)."""
        if track not in self._open:
            self._open[track] = np.load(self._paths[track], mmap_mode="r")
        return torch.from_numpy(self._open[track][t, list(channels)].astype(np.float32)[:, None])

    def lacking(self, n_channels: int) -> list[InputError]:
        """Return a problem for every file with fewer channels."""
        return [
            InputError(
                f"{fov.store}/{fov.name}.npy", found=f"{fov.shape[1]} channels", expected=f"{n_channels} or more"
            )
            for fov in self.fovs
            if fov.shape[1] < n_channels
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is mapped: it would be copied."""
        return {**self.__dict__, "_open": {}}


def _describe(path: Path) -> FovInfo:
    expected = "an NPY file of numbers of shape (T, C, Y, X)"
    if not path.is_file():
        raise MissingInputError(str(path), found="no file", expected=expected)
    try:
        array = np.load(path, mmap_mode="r")
    except ValueError as err:
        raise InputError(str(path), found=str(err), expected=expected) from err
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.ndim != 4 or 0 in array.shape:
        found = f"{getattr(array, 'dtype', 'an archive')} of shape {getattr(array, 'shape', '')}"
        raise InputError(str(path), found=found, expected=expected)
    n_frames, n_channels, *size = array.shape
    names = tuple(str(number) for number in range(n_channels))
    key = FovKey(canonical_store(path.parent), path.stem)
    return FovInfo(key, (n_frames, n_channels, 1, *size), str(array.dtype), names)
