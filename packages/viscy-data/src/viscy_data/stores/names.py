"""How stores and FOVs are named, and what is known of a FOV."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlparse

from viscy_data.checks import near_matches
from viscy_data.errors import InputError

__all__ = ["FovInfo", "FovKey", "MissingChunks", "canonical_fov_name", "canonical_store", "well_of"]

MissingChunks = Literal["fill", "refuse"]
"""What chunks that are not stored are taken for: the fill value, or a fault."""


class FovKey(NamedTuple):
    """Identity of a FOV: well names repeat on every plate, so the name alone is none."""

    store: str
    """Absolute local path or URL of the plate, or of the folder of images; see :func:`canonical_store`."""
    name: str
    """``row/column/fov``, without slashes at the ends; of an image that is in no plate its path below ``store``."""


@dataclass(frozen=True)
class FovInfo:
    """What is known of one FOV without reading pixels.

    Parameters
    ----------
    key : FovKey
        Store and name.
    shape : tuple of int
        (T, C, Z, Y, X), whatever the order in the store; 1 along an axis that the store does not have.
    dtype : str
        numpy name of the pixel type.
    channel_names : tuple of str
        In the order of the channel axis; a channel that the store does not name is called by its number.
    scale : tuple of float
        Size of one step along T, C, Z, Y, X in the units of the store; 1.0 where nothing is recorded.
    axes : str, default "tczyx"
        Axes of the stored array, in its order.
    array_key : str, default "0"
        Path of the array inside the FOV.
    zarr_format : {2, 3}, optional
        Of the store; looked up where it is needed by default.
    missing_chunks : {"fill", "refuse"}, default "fill"
        How chunks that are not stored are read, see :class:`viscy_data.stores.StoragePolicy`.
    """

    key: FovKey
    shape: tuple[int, int, int, int, int]
    dtype: str
    channel_names: tuple[str, ...]
    scale: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    axes: str = "tczyx"
    array_key: str = "0"
    zarr_format: int | None = None
    missing_chunks: MissingChunks = "fill"

    @property
    def store(self) -> str:
        """Path or URL of the plate, or of the folder of images."""
        return self.key.store

    @property
    def name(self) -> str:
        """Name of the FOV, such as ``A/1/0``."""
        return self.key.name

    @property
    def well(self) -> str:
        """Name of the well, such as ``A/1``; see :func:`well_of`."""
        return well_of(self.key.name)

    @property
    def path(self) -> str:
        """Path or URL of the image itself."""
        return f"{self.key.store}/{self.key.name}"

    @property
    def where(self) -> str:
        """Store and FOV, for messages."""
        return f"{self.key.store}, FOV {self.key.name}"

    def channel_index(self, name: str, field: str = "channel") -> int:
        """Return the position of a channel in the store.

        Raises
        ------
        InputError
            If no channel, or more than one, has this name.
        """
        places = [number for number, own in enumerate(self.channel_names) if own == name]
        if len(places) == 1:
            return places[0]
        if not places:
            expected = f"some of {', '.join(map(repr, self.channel_names))}"
            fix = near_matches(name, self.channel_names, otherwise="")
            raise InputError(self.where, field=field, found=repr(name), expected=expected, fix=fix)
        raise self.ambiguous_channel(name, field)

    def ambiguous_channel(self, name: str, field: str = "channel") -> InputError:
        """Return the error about a name that several channels have."""
        places = [number for number, own in enumerate(self.channel_names) if own == name]
        return InputError(
            self.where,
            field=field,
            found=f"{len(places)} channels of the name {name!r}, at positions {', '.join(map(str, places))}",
            expected="a name that one channel has",
            fix="give the channels different labels in the omero metadata of the store",
        )


def canonical_store(path: str | Path) -> str:
    """Return the one spelling of a store's path: absolute without links, or the URL without a trailing slash."""
    text = str(path)
    if text.startswith("file://"):
        text = unquote(urlparse(text).path)
    if "://" in text:
        return text.rstrip("/")
    return os.path.realpath(os.path.expanduser(text))


def well_of(fov_name: str) -> str:
    """Return the well of a FOV, ``A/1`` of ``A/1/0``; an image that is in no plate is one of its own or its folder.

    >>> well_of("A/1/0"), well_of("movie.zarr"), well_of("infected/movie.zarr")
    ('A/1', 'movie.zarr', 'infected')
    """
    return fov_name.rpartition("/")[0] or fov_name


def canonical_fov_name(name: str) -> str:
    r"""Return ``A/1/0`` for ``/A/1/0``, ``A/1/0/``, ``./A/1/0``, ``A\1\0`` and the like.

    Raises
    ------
    InputError
        For a name with ``..``, which would lead out of the store, or out of a folder that is named by FOVs.
    """
    parts = [part.strip() for part in str(name).replace("\\", "/").split("/")]
    if ".." in parts:
        raise InputError(str(name), found="a name with ..", expected="a name of something inside of its store")
    return "/".join(part for part in parts if part not in ("", "."))
