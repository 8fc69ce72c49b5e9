"""Files of arrays and JSON: which kind one is, without reading its arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path

__all__ = ["has_schema"]

_MOST_BYTES = 1 << 24


def has_schema(path: Path, name: str) -> bool:
    """Tell whether an ``.npz`` file says that it is of a schema of this name, of any version."""
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        if "json.npy" not in archive.namelist():
            return False
        with archive.open("json.npy") as content:
            return f'"schema": "{name} '.encode() in content.read(_MOST_BYTES)
