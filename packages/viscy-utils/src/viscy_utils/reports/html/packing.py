"""Values on their way into a page: arrays as base64, and JSON that cannot end the script it stands in."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

__all__ = ["pack", "script_json"]

# What the script of the page makes typed arrays of.
_KINDS = {"u1": np.uint8, "u2": np.uint16, "u4": np.uint32, "i4": np.int32, "f4": np.float32}


def pack(values: np.ndarray) -> dict[str, str]:
    """Pack numbers as base64 of little-endian bytes: booleans and non-negative integers in as few bytes as they need.

    >>> pack(np.array([0, 1, 2]))
    {'kind': 'u1', 'base64': 'AAEC'}
    """
    values = np.asarray(values)
    kind = "f4"
    if values.dtype.kind in "iub":
        low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
        kind = "i4" if low < 0 else next(k for k in ("u1", "u2", "u4") if high <= np.iinfo(_KINDS[k]).max)
    content = np.ascontiguousarray(values, np.dtype(_KINDS[kind]).newbyteorder("<"))
    return {"kind": kind, "base64": base64.b64encode(content.tobytes()).decode("ascii")}


def script_json(content: Any) -> str:
    r"""Write JSON for a ``<script>``: no text in it can end the element or begin another.

    >>> print(script_json({"name": "</script>"}))
    {"name":"\u003c/script\u003e"}
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
