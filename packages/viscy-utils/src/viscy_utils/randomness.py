"""A side task in the middle of a training run: random in its own way, without a trace in the run.

>>> with fixed_randomness(seed=0):
...     noise = torch.rand(2)  # the same in each call, whatever was drawn before
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

__all__ = ["fixed_randomness", "generators_of"]

_GENERATORS = (random.Random, np.random.RandomState, np.random.Generator, torch.Generator)
_MAX_ITEMS = 1000  # of a container; generators sit among a few attributes and transforms, not among a million records
_MAX_VISITED = 50_000


@contextmanager
def fixed_randomness(
    seed: int, device: torch.device | str | None = None, generators: Iterable[Any] = ()
) -> Iterator[None]:
    """Seed all global generators, and put them back into the state they were found in.

    Parameters
    ----------
    seed : int
        Of Python's, NumPy's and torch's global generators inside the block.
    device : torch.device or str, optional
        CUDA device whose generator takes part; others draw nothing here.
    generators : iterable, optional
        Further generators that are put back (but not seeded): of Python, NumPy or torch.
    """
    device = None if device is None else torch.device(device)
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if _is_cuda(device) else []
    restore = [_restorer(generator) for generator in generators]
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=cuda):
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.default_generator.manual_seed(seed)
            for index in cuda:
                torch.cuda.default_generators[index].manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        for put_back in restore:
            put_back()


def _is_cuda(device: torch.device | None) -> bool:
    return device is not None and device.type == "cuda"


def _restorer(generator: Any) -> Callable[[], None]:
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    if isinstance(generator, np.random.Generator):
        return partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)
    return partial(generator.set_state, generator.get_state())


def generators_of(*roots: Any, beyond: tuple[type, ...] = ()) -> list[Any]:
    """Find the random generators that objects keep for themselves, such as those of random transforms.

    Parameters
    ----------
    *roots : object
        Where to begin. Attributes, items of containers, and what functions are bound to are followed.
    beyond : tuple of type, optional
        Types whose instances are not entered.

    Returns
    -------
    list
        Each generator of Python, NumPy or torch once.
    """
    found, seen, waiting = [], set(), deque(roots)  # the nearest first
    while waiting and len(seen) < _MAX_VISITED:
        thing = waiting.popleft()
        if id(thing) in seen or isinstance(thing, beyond):
            continue
        seen.add(id(thing))
        if isinstance(thing, _GENERATORS):
            found.append(thing)
        else:
            waiting += _parts(thing)
    return found


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, str | bytes | int | float | type | ModuleType | torch.Tensor | np.ndarray | None):
        return []
    if isinstance(thing, dict):
        return list(islice(thing.values(), _MAX_ITEMS))
    if isinstance(thing, list | tuple | set | frozenset):
        return list(islice(thing, _MAX_ITEMS))
    if isinstance(thing, MethodType):
        return [thing.__self__]
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, FunctionType):
        return [cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)]
    return list(getattr(thing, "__dict__", {}).values())


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a name that is not assigned yet
        return False
