"""Where the parts of a mapped index are kept, ``INDEX.arrow.subsets/``, so that ranks and workers share their pages."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pyarrow as pa

from dynaclr.index.file import MAPPED_SUFFIX, mapped_identity

__all__ = ["part_identity", "path_of_part", "remove_parts"]


def path_of_part(path: Path, identity: str, said: bytes) -> Path:
    """Return where a part of a mapped index is kept, by the identity of the whole and what the part is."""
    name = hashlib.blake2b(identity.encode() + said, digest_size=16).hexdigest()
    return _folder(path) / f"{name}{MAPPED_SUFFIX}"


def part_identity(place: Path, derivation: str) -> str | None:
    """Return the identity of a part, see :func:`~dynaclr.index.file.mapped_identity`; None where none can be used."""
    try:
        return mapped_identity(place, derivation)
    except (pa.ArrowException, OSError, ValueError):
        return None


def remove_parts(path: str | Path) -> None:
    """Remove the parts of an index that is no more."""
    shutil.rmtree(_folder(Path(path)), ignore_errors=True)


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.subsets")
