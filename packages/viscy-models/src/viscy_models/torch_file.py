"""What a file of torch declares is compared to what it holds, before anything is made of it.

`torch.load` with ``weights_only=True`` runs no code of a file. But it unpacks what is compressed, and calls what makes
tensors and containers with whatever arguments the file gives: some kilobytes can ask for all of the memory. So the
pickle is gone through first without being run.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from pickletools import genops
from typing import Any, BinaryIO

__all__ = ["check_torch_file"]

_ZIP = b"PK\x03\x04"
_MOST_AXES = 64  # that torch has
_MOST_PICKLE = 2**24  # bytes; an empty mapping takes one of them, and 64 in memory
_N_LEGACY = 4  # pickles before the numbers: of torch before 1.6
_REBUILD = "torch._utils _rebuild_"
_TENSORS = frozenset(_REBUILD + kind for kind in ("tensor", "tensor_v2", "tensor_v3", "qtensor"))
_ORDERED = "collections OrderedDict"
_CONTAINERS = frozenset([_ORDERED, "collections Counter", "__builtin__ set", "torch Size", "argparse Namespace"])
_CALLED = _TENSORS | _CONTAINERS | {_REBUILD + "parameter", _REBUILD + "parameter_with_state"}
_CALLED |= {"torch device", "torch.serialization _get_layout", "_codecs encode"}
_ENCODING = "latin1"  # what bytes are written in; others make a text longer, again and again
_ITEM_SIZES = {
    **dict.fromkeys(("Untyped", "Byte", "Char", "Bool", "QUInt8", "QInt8", "QUInt4x2", "QUInt2x4"), 1),
    **dict.fromkeys(("Short", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "Float", "QInt32"), 4),
    **dict.fromkeys(("Long", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
_VALUES = frozenset("NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 BINFLOAT BINUNICODE SHORT_BINSTRING LONG1".split())
_ADDED = {"APPEND": 1, "SETITEM": 2, "APPENDS": 0, "SETITEMS": 0}  # 0: what lies above the mark
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_RESULT = object()


def check_torch_file(path: str | Path) -> None:
    """Refuse a file whose sizes are not those that it declares, or that asks for more than weights need.

    Parameters
    ----------
    path : str or Path
        As `torch.save` writes it, also before torch 1.6.

    Raises
    ------
    pickle.UnpicklingError
        If entries are compressed, doubled or overlap; a tensor declares more numbers than its entry or the file has; or
        anything but tensors and plain containers is to be made, or these again and again.
    """
    try:
        with open(path, "rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size
            zipped = file.read(len(_ZIP)) == _ZIP
            file.seek(0)
            if zipped:
                _check_zip(file, n_bytes)
                return
            for _ in range(_N_LEGACY):
                _Claims(n_bytes).check(file)
    except (ValueError, TypeError, LookupError, AttributeError, zipfile.BadZipFile, NotImplementedError) as err:
        raise UnpicklingError(f"what torch does not write ({err})") from err


def _check_zip(file: BinaryIO, n_bytes: int) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise UnpicklingError("entries that are compressed")
        if sum(entry.file_size for entry in entries) > n_bytes:
            raise UnpicklingError("entries that declare more than the file holds")
        sizes = {entry.filename.partition("/")[2].lower(): entry.file_size for entry in entries}
        if len(sizes) < len(entries):
            raise UnpicklingError("entries of one name")
        if sizes.get("data.pkl", 0) > _MOST_PICKLE:
            raise UnpicklingError(f"{sizes['data.pkl'] / 1e6:.0f} MB of values beside the tensors")
        pickle = next(entry for entry in entries if entry.filename.lower().endswith("/data.pkl"))
        _Claims(n_bytes, sizes).check(BytesIO(archive.read(pickle)))


class _Name(str):
    """Of a function or a class, that the pickle asks for."""


@dataclass(frozen=True)
class _Storage:
    """The numbers of a tensor: how many bytes each has."""

    item_size: int


class _Claims:
    """Goes through a pickle as `torch.load` will, but writes down names where that makes something."""

    def __init__(self, n_bytes: int, sizes: Mapping[str, int] | None = None) -> None:
        self._n_bytes, self._sizes = n_bytes, sizes
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._copied = 0

    def check(self, pickle: BinaryIO) -> None:
        """Raise if anything is claimed that weights do not need, or that the file does not hold."""
        begin = pickle.tell()
        for opcode, value, place in genops(pickle):
            self._step(opcode.name, value)
            # All that is handed to calls was written for them alone, unless it is handed on again and again.
            if self._copied > place - begin + 1:
                raise UnpicklingError("values that are copied again and again")
            if place - begin > _MOST_PICKLE:
                raise UnpicklingError("too many values beside the tensors")

    def _step(self, name: str, value: Any) -> None:
        stack = self._stack
        if name in _VALUES:
            stack.append(value)
        elif name == "GLOBAL":
            stack.append(_Name(value))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[value] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[value])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([])
        elif name in _TUPLES:
            stack.append(self._popped(_TUPLES[name]))
        elif name == "TUPLE":
            stack.append(self._since_mark())
        elif name in _ADDED:
            items = self._popped(_ADDED[name]) if _ADDED[name] else self._since_mark()
            if name.startswith("SET"):
                _refuse_tuples(items[::2])
            stack[-1].extend(items)
        elif name == "BINPERSID":
            stack.append(self._storage(*stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = self._popped(2)
            stack.append(self._called(function, arguments))
        elif name == "BUILD":
            self._copied += len(stack.pop())
        elif name not in ("PROTO", "STOP"):
            raise UnpicklingError(f"an instruction {name}, which torch does not write")

    def _popped(self, n: int) -> tuple[Any, ...]:
        kept = len(self._stack) - n
        if kept < 0:
            raise IndexError("an empty stack")
        items = tuple(self._stack[kept:])
        del self._stack[kept:]
        return items

    def _since_mark(self) -> tuple[Any, ...]:
        return self._popped(len(self._stack) - self._marks.pop())

    def _storage(self, _: str, kind: str, key: str, where: str, count: int, *view: Any) -> _Storage:
        """Compare the numbers that a tensor declares to its entry, or where there are no entries to the file."""
        if not isinstance(kind, _Name) or not isinstance(key, str) or not isinstance(count, int):
            raise TypeError("a storage of another form")
        item_size = _ITEM_SIZES[kind.rpartition(" ")[2].removesuffix("Storage")]
        held = self._n_bytes if self._sizes is None else self._sizes[f"data/{key}".lower()]
        if count < 0 or count * item_size > held or (self._sizes is not None and count * item_size < held):
            raise UnpicklingError(f"a tensor of {count * item_size:,} bytes, of which the file holds {held:,}")
        return _Storage(item_size)

    def _called(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """Look at a call, and return what stands for its result: the items of containers, which may be copied again."""
        if not isinstance(function, _Name) or function not in _CALLED:
            name = function[:80] if isinstance(function, _Name) else "no function"
            raise UnpicklingError(f"a call of {name}, which weights do not need")
        self._copied += sum(len(own) for own in arguments if isinstance(own, str | list | tuple))
        if function == "_codecs encode":
            text, encoding = arguments
            if encoding != _ENCODING:
                raise UnpicklingError(f"bytes in another encoding than {_ENCODING}")
            return text
        if function in _TENSORS:
            storage, _, shape, *_ = arguments
            if len(shape) > _MOST_AXES:
                raise UnpicklingError(f"a tensor of {len(shape)} axes")
            if (count := math.prod(map(int, shape))) * storage.item_size > self._n_bytes:
                raise UnpicklingError(f"a tensor of {count:.3g} numbers, more than the file holds")
        if function not in _CONTAINERS:
            return _RESULT
        items = list(*arguments)
        if function == "torch Size":
            return tuple(items)
        _refuse_tuples(items if function != _ORDERED else [key for pair in items for key in pair[:1]])
        return items


def _refuse_tuples(keys: Iterable[Any]) -> None:
    """Refuse tuples as keys: to hash one that is nested in itself takes for ever."""
    if any(isinstance(key, tuple) for key in keys):
        raise UnpicklingError("tuples as keys")
