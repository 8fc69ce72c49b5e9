"""Ways to spoil what is valid: the values of a tree (JSON, YAML), the bytes of a file.

An edit is plain data, so a case that failed is kept by writing it down.

>>> edited_tree({"a": [1, 2]}, [TreeEdit(2, "remove")])
{'a': [1]}
>>> edited_bytes(b"abcd", [ByteEdit(0.5, "cut")])
b'ab'
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

__all__ = ["ByteEdit", "TreeEdit", "byte_edits", "edited_bytes", "edited_tree", "tree_edits"]

VALUES = (None, True, False, 0, 1, -1, 3, 0.5, 1e300, float("nan"), float("inf"), "", " ", "x", "1", "ä\u2028", "../x")
"""What takes the place of a value; nothing that a program would be right to spend hours or gigabytes on."""
_CONTAINERS = ([], {}, [None], {"x": 1}, [[1, 2], [3]], ["x", "x"])
_TREE_WAYS = ("replace", "remove", "repeat", "rename", "wrap", "as text", "swap")
_BYTE_WAYS = ("cut", "flip", "drop", "repeat", "zero", "insert")


class TreeEdit(NamedTuple):
    """One change of a tree.

    Parameters
    ----------
    at : int
        Number of the place, counted from the root down and modulo the number of places.
    how : str
        ``"replace"`` by the value, ``"remove"``, ``"repeat"`` (under a second key), ``"rename"``, ``"wrap"`` in a list,
        ``"as text"``, ``"swap"`` with what is at the place before.
    value : Any
        For ``"replace"``.
    """

    at: int
    how: str
    value: Any = None


class ByteEdit(NamedTuple):
    """One change of a file.

    Parameters
    ----------
    at : float
        Where, as a share of its length.
    how : str
        ``"cut"`` the rest off, ``"flip"`` bits of one byte, ``"drop"``, ``"repeat"`` or ``"zero"`` a run of bytes,
        ``"insert"`` one.
    value : int
        Bits to flip, length of the run, or byte to insert: 1 to 255.
    """

    at: float
    how: str
    value: int = 1


def tree_edits(max_edits: int = 2, values: Sequence[Any] = VALUES) -> st.SearchStrategy[list[TreeEdit]]:
    """Draw edits for :func:`edited_tree`."""
    value = st.sampled_from([*values, *_CONTAINERS])
    edit = st.builds(TreeEdit, st.integers(0, 400), st.sampled_from(_TREE_WAYS), value)
    return st.lists(edit, min_size=1, max_size=max_edits)


def byte_edits(max_edits: int = 3) -> st.SearchStrategy[list[ByteEdit]]:
    """Draw edits for :func:`edited_bytes`."""
    edit = st.builds(ByteEdit, st.floats(0, 1), st.sampled_from(_BYTE_WAYS), st.integers(1, 255))
    return st.lists(edit, min_size=1, max_size=max_edits)


def edited_tree(tree: Any, edits: Sequence[TreeEdit]) -> Any:
    """Return a copy of a tree of dicts and lists with changes."""
    tree = copy.deepcopy(tree)
    for edit in edits:
        places = list(_places(tree))
        if not places:
            break
        parent, key = places[edit.at % len(places)]
        value = parent[key]
        match edit.how:
            case "replace":
                parent[key] = copy.deepcopy(edit.value)
            case "remove":
                del parent[key]
            case "repeat" if isinstance(parent, list):
                parent.insert(key, copy.deepcopy(value))
            case "repeat":
                parent[f"{key}_"] = copy.deepcopy(value)
            case "rename" if isinstance(parent, dict):
                parent[f"{key}"[::-1]] = parent.pop(key)
            case "wrap" | "rename":
                parent[key] = [value]
            case "as text":
                parent[key] = str(value)
            case "swap":
                other, other_key = places[edit.at % len(places) - 1]
                if not _within(other[other_key], parent) and not _within(value, other):
                    parent[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(value)
    return tree


def edited_bytes(content: bytes, edits: Sequence[ByteEdit]) -> bytes:
    """Return the bytes of a file with changes."""
    data = bytearray(content)
    for edit in edits:
        at = min(int(edit.at * len(data)), max(len(data) - 1, 0))
        run = slice(at, at + edit.value)
        match edit.how:
            case "cut":
                del data[at:]
            case "flip" if data:
                data[at] ^= edit.value
            case "drop":
                del data[run]
            case "repeat":
                data[at:at] = data[run]
            case "zero":
                data[run] = bytes(len(data[run]))
            case "insert":
                data.insert(at, edit.value)
    return bytes(data)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def _within(tree: Any, container: Any) -> bool:
    """Tell whether a container is a tree, or a part of it."""
    return tree is container or any(_within(parent[key], container) for parent, key in _places(tree))
