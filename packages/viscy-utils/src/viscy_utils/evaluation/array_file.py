"""Files of numpy arrays and JSON: what was fitted, kept so that opening the file runs nothing."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from viscy_data.errors import InputError, MissingInputError
from viscy_data.files import replacing
from viscy_data.schema import refuse_newer, written_by
from viscy_utils.reports.files import json_text

__all__ = ["load_arrays", "save_arrays"]

_JSON = "json"
# What numpy and zipfile raise at bytes that are no archive of arrays: places beyond the file, other compressions ...
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, MemoryError)
_UNREADABLE += (RuntimeError, BadZipFile, zlib.error)


def save_arrays(
    path: str | Path,
    schema: str,
    content: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    overwrite: bool = False,
) -> None:
    """Save arrays and what is said of them; the same ones give the same bytes.

    Parameters
    ----------
    path : str or Path
        An ``.npz`` file: the arrays as float64, and ``json``, UTF-8 text of ``content`` with ``schema``.
    schema : str
        Name and version of the layout: ``viscy correction 1``.
    content : mapping
        Plain values.
    arrays : mapping of str to ndarray
    overwrite : bool, default False
        Replace an existing file.

    Raises
    ------
    FileExistsError
        If there is one and it may not be replaced.
    """
    about = {"schema": schema, "written_by": written_by("viscy-utils"), **content}
    text = np.frombuffer(json_text(about).encode(), dtype=np.uint8)
    numbers = {name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()}
    with replacing(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        np.savez(file, **{_JSON: text}, **numbers)


def load_arrays(path: str | Path, schema: str, what: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Load the content and the arrays of a file; nothing in it is executed.

    Parameters
    ----------
    path : str or Path
    schema : str
        That it has to have, or an older one of the same name.
    what : str
        What it is, for messages: "a classifier".

    Raises
    ------
    MissingInputError, InputError
        If there is no file, or another one.
    """
    if not Path(path).is_file():
        raise MissingInputError(str(path), found="no such file", expected=what)
    try:
        # Opened here, since numpy leaves open what is no archive.
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            _refuse_bomb(file.zip, Path(path).stat().st_size)
            arrays = {name: file[name] for name in file.files}
        content = json.loads(arrays.pop(_JSON).tobytes())
        found = content["schema"]
    except _UNREADABLE as err:
        raise InputError(str(path), found="another file", expected=f"{what} ({schema})") from err
    kind, _, newest = schema.rpartition(" ")
    own_kind, _, layout = str(found).rpartition(" ")
    if own_kind != kind or not layout.isdecimal():
        raise InputError(str(path), field="schema", found=repr(found), expected=schema)
    refuse_newer(str(path), int(layout), int(newest), "viscy-utils", content.get("written_by"), field=f"schema, {kind}")
    return content, arrays


def _refuse_bomb(archive: ZipFile, n_bytes: int) -> None:
    """Refuse arrays that declare more than their entry, and entries that declare more than the file: no compression."""
    if sum(entry.file_size for entry in archive.infolist()) > n_bytes:
        raise ValueError("an archive that unpacks to more than the file holds")
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    for entry in archive.infolist():
        with archive.open(entry) as file:
            shape, _, dtype = headers[np.lib.format.read_magic(file)](file)
        if math.prod(shape) * dtype.itemsize > entry.file_size:
            raise ValueError(f"an array of shape {shape} in {entry.file_size} bytes")
