"""Files of a report: complete or not there, and JSON that says what was computed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from viscy_data.files import replacing

__all__ = ["json_line", "json_text", "write_text"]


def write_text(path: str | Path, text: str) -> None:
    """Write a file in one step; an existing one is replaced."""
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf8")


def json_text(content: Any) -> str:
    """Write content as JSON; numbers that JSON does not have become null, and texts stay as they are.

    Parameters
    ----------
    content : object
        Mappings, sequences, data classes, numpy numbers and arrays, paths.

    Examples
    --------
    >>> print(json_text({"name": "NaN", "value": float("nan")}), end="")
    {
      "name": "NaN",
      "value": null
    }
    """
    return json.dumps(_plain(content), indent=2, allow_nan=False) + "\n"


def json_line(content: Any) -> str:
    """Write content as a line of JSON, for files that grow line by line; values as in :func:`json_text`."""
    return json.dumps(_plain(content), allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Turn a value into what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):  # numpy
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
