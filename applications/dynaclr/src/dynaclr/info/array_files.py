"""Files of arrays and JSON: which kind one is, without reading its arrays."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

__all__ = ["has_schema"]

_MOST_BYTES = 1 << 24
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)  # what zipfile raises


def has_schema(path: Path, name: str) -> bool:
    """Tell whether an ``.npz`` file says that it is of a schema of this name, of any version."""
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            if "json.npy" not in archive.namelist():
                return False
            with archive.open("json.npy") as content:
                return f'"schema": "{name} '.encode() in content.read(_MOST_BYTES)
    except _DAMAGED:
        return False
