"""What decides the data, as plain values: settings with the arguments of every transform, for records and digests."""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import random
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch

__all__ = ["SPEED_SETTINGS", "constructor_of", "described", "plain_record", "settings_of"]

SPEED_SETTINGS = frozenset(
    {"num_workers", "buffer_size", "pin_memory", "prefetch_factor", "cache_pool_bytes", "persistent_workers"}
    | {"dask_address", "scratch_dir", "max_cache_gb", "mmap_preload", "patch_store"}
    | {"storage"}  # which FOVs there are is recorded, and which are left out
)
"""Settings of data modules that change how they work and not what they yield."""

_RANDOM_STATES = (np.random.RandomState, np.random.Generator, torch.Generator, random.Random)
_SETS = (set, frozenset)


def plain_record(value: Any) -> Any:
    """Reduce settings to what a checkpoint holds safely: numbers, texts, lists and mappings; objects by their class."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain_record(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_record(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    return _path_of(type(value))


def constructor_of(instance: object, frame: FrameType) -> FrameType:
    """Return the frame of the outermost constructor of an object above a frame: there is what its user gave."""
    while frame.f_back.f_code.co_name == "__init__" and frame.f_back.f_locals.get("self") is instance:
        frame = frame.f_back
    return frame


def settings_of(cls: type, frame: FrameType) -> dict[str, Any]:
    """Describe the arguments of a constructor, as they are in its frame, but for those of speed."""
    parameters = inspect.signature(cls.__init__).parameters
    values = {name: frame.f_locals[name] for name in parameters if name != "self" and name in frame.f_locals}
    return described({name: value for name, value in values.items() if name not in SPEED_SETTINGS})


def described(value: Any) -> Any:
    """Reduce a value to plain ones that tell it from every other that behaves differently.

    Objects are described by their class and their attributes, recursively, functions by their name and code, arrays by
    a digest. Random states are left out. Describe an object when it is made: some keep results of their use.

    Examples
    --------
    >>> described({"size": (1, 2), "path": Path("a")})
    {'size': [1, 2], 'path': 'a'}
    """
    return _described(value, ())


def _described(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, enum.Enum):
        return _described(value.value, above)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if id(value) in above:
        return "..."
    inner = functools.partial(_described, above=(*above, id(value)))
    if isinstance(value, Mapping):
        return {str(key): inner(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [inner(entry) for entry in value]
    if isinstance(value, _SETS):
        return sorted((inner(entry) for entry in value), key=repr)
    if isinstance(value, Path | slice | np.dtype | torch.dtype | torch.device):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | torch.Tensor):
        return _digest_of(value)
    if isinstance(value, type):
        return _path_of(value)
    return _described_object(value, inner)


def _described_object(value: Any, inner: Any) -> Any:
    if isinstance(value, functools.partial):
        return {"partial": inner(value.func), "args": inner(value.args), "keywords": inner(value.keywords)}
    if isinstance(value, MethodType):
        return {"method": _path_of(value.__func__), "of": inner(value.__self__)}
    if isinstance(value, FunctionType):
        code = value.__code__
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        constants = [repr(constant) for constant in code.co_consts if not hasattr(constant, "co_code")]
        text = repr((code.co_code, constants, code.co_names)).encode()
        digest = hashlib.blake2b(text, digest_size=8).hexdigest()
        return {"function": _path_of(value), "code": digest, "of": inner(held)}
    attributes = {
        name: inner(entry)
        for name, entry in sorted(getattr(value, "__dict__", {}).items())
        if not isinstance(entry, _RANDOM_STATES)
    }
    return {"class": _path_of(type(value)), **attributes}


def _digest_of(array: np.ndarray | torch.Tensor) -> dict[str, Any]:
    values = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
    digest = hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16)
    return {"array": str(values.dtype), "shape": list(values.shape), "digest": digest.hexdigest()}


def _path_of(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
