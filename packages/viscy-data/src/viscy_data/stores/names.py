"""How stores and FOVs are named, and what is known of a FOV."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlparse

__all__ = ["FovInfo", "FovKey", "canonical_fov_name", "canonical_store"]


class FovKey(NamedTuple):
    """Identity of a FOV: well names repeat on every plate, so the name alone is none."""

    store: str
    """Absolute local path or URL of the plate, see :func:`canonical_store`."""
    name: str
    """``row/column/fov``, without slashes at the ends."""


@dataclass(frozen=True)
class FovInfo:
    """What is known of one FOV without reading pixels.

    Parameters
    ----------
    key : FovKey
        Store and name.
    shape : tuple of int
        (T, C, Z, Y, X).
    dtype : str
        numpy name of the pixel type.
    channel_names : tuple of str
        In the order of the channel axis.
    scale : tuple of float
        Size of one step along T, C, Z, Y, X in the units of the store; 1.0 where nothing is recorded.
    """

    key: FovKey
    shape: tuple[int, int, int, int, int]
    dtype: str
    channel_names: tuple[str, ...]
    scale: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)

    @property
    def store(self) -> str:
        """Path or URL of the plate."""
        return self.key.store

    @property
    def name(self) -> str:
        """Name of the FOV, such as ``A/1/0``."""
        return self.key.name

    @property
    def well(self) -> str:
        """Name of the well, such as ``A/1``."""
        return self.key.name.rpartition("/")[0]


def canonical_store(path: str | Path) -> str:
    """Return the one spelling of a store's path: absolute without links, or the URL without a trailing slash."""
    text = str(path)
    if text.startswith("file://"):
        text = unquote(urlparse(text).path)
    if "://" in text:
        return text.rstrip("/")
    return os.path.realpath(os.path.expanduser(text))


def canonical_fov_name(name: str) -> str:
    """Return ``A/1/0`` for ``/A/1/0``, ``A/1/0/`` and the like."""
    return "/".join(part for part in str(name).split("/") if part)
