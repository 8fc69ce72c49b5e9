"""Packed files, unpacked no further than memory holds.

>>> unpacked("labels.csv")
'labels.csv'
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import Path

from viscy_data.errors import InputError
from viscy_data.memory import memory_bytes

__all__ = ["unpacked"]

_OPEN = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

_SHARE = 16  # of the memory; a table is several times its text


def unpacked(path: str | Path) -> str | Path | io.BytesIO:
    """Return what a reader of tables takes: the path, or the content of a packed file (``.gz``, ``.bz2``, ``.xz``).

    A few kilobytes may unpack to more than memory holds, and readers that unpack by themselves look at no limit.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    InputError
        If the file is not packed as its name says, or unpacks to more than a sixteenth of the memory.
    OSError
        If it cannot be read.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _OPEN:
        return path
    most = (memory_bytes() or 2**34) // _SHARE
    try:
        with _OPEN[suffix](path, "rb") as file:
            content = file.read(most + 1)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as err:
        if getattr(err, "errno", None) is not None:  # of the file system; what unpacks has no number for its errors
            raise
        raise InputError(str(path), found=f"nothing to unpack ({err})", expected=f"a file packed as {suffix}") from err
    if len(content) > most:
        raise InputError(
            str(path),
            found=f"a packed file of more than {most / 1e9:.1f} GB of text",
            expected="less, since a table takes several times the memory of its text",
            fix="unpack and divide it",
        )
    return io.BytesIO(content)
