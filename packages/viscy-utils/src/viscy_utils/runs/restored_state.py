"""Whether a training can go on from what a checkpoint says of it, told before the first step.

Lightning and torch take what is in the file, and fail at some later step where it has another kind or size. What a
trainer has before it is restored says of which kinds the values have to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from viscy_data.checks import is_count
from viscy_data.errors import InputError, raise_all
from viscy_utils.lightning_workarounds import around_restoring

__all__ = ["check_restored_state"]

_UNFIT = (AssertionError, AttributeError, LookupError, TypeError, ValueError)
_FIX = "go on from another checkpoint of the run, with the settings that it was trained with"
_LISTS = ("optimizer_states", "lr_schedulers")


class _Problem(NamedTuple):
    entry: str
    found: Any
    expected: str


def check_restored_state(trainer: Trainer) -> None:
    """Let a trainer refuse checkpoints whose loops, optimizers, schedules, callbacks or data cannot be gone on with.

    It raises an :class:`~viscy_data.errors.InputError` with file, entry, what was found and what is expected.
    """
    around_restoring(trainer, partial(_restoring, trainer))


@contextmanager
def _restoring(trainer: Trainer, entry: str, saved: Any) -> Iterator[None]:
    if entry == "loops" and saved is None:  # it would train from the start, with weights that are not
        raise _refusal(trainer, _Problem(entry, saved, "entries by name"))
    before = None if saved is None else _state_of(trainer, entry)
    if before is not None and entry in _LISTS:
        if not (isinstance(saved, list) and len(saved) == len(before)):
            raise _refusal(trainer, _Problem(entry, saved, f"a list of {len(before)}, as the configuration has"))
        if entry == "optimizer_states":
            pairs = enumerate(zip(trainer.optimizers, saved, strict=True))
            raise_all(_refusal(trainer, problem) for n, pair in pairs for problem in _moments(*pair, f"{entry}, {n}"))
    try:
        yield
    except InputError as err:
        if str(trainer.ckpt_path) not in str(err):
            err.add_note(f"in the checkpoint {trainer.ckpt_path}")
        raise
    except _UNFIT as err:
        _refuse_other_kinds(trainer, entry, before)  # which may be why
        told = f": {err}" if isinstance(err, LookupError | ValueError) else ""  # others speak of Python's types
        found = f"what cannot be restored ({type(err).__name__}{told})"
        where, expected = str(trainer.ckpt_path), "what a training of this configuration has saved"
        raise InputError(where, field=entry, found=found, expected=expected, fix=_FIX) from err
    _refuse_other_kinds(trainer, entry, before)


def _refuse_other_kinds(trainer: Trainer, entry: str, before: Any) -> None:
    if before is not None:
        problems = _differing(_state_of(trainer, entry), before, entry, loosely=entry == "callbacks")
        raise_all(_refusal(trainer, problem) for problem in problems)


def _state_of(trainer: Trainer, entry: str) -> Any:
    """Return what is restored of an entry of a checkpoint, as it is now."""
    if entry == "loops":
        return trainer.fit_loop.state_dict()
    if entry == "optimizer_states":
        return [optimizer.state_dict()["param_groups"] for optimizer in trainer.optimizers]
    if entry == "lr_schedulers":
        return [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    if entry == "callbacks":
        return {callback.state_key: callback.state_dict() for callback in trainer.callbacks}
    return {}


def _differing(found: Any, expected: Any, entry: str, loosely: bool) -> Iterator[_Problem]:
    """Find values of another kind than they had.

    What was None may be anything. Loops count; elsewhere any number may take the place of a whole one, such as of a
    weight decay of 0. Callbacks are looked at loosely, as only they know what may become of theirs: None may take the
    place of anything, and lists may grow; but what they compute with on the device stays a tensor.
    """
    if expected is None or (loosely and found is None):
        return
    kind = _kind_of(expected)
    if kind is _COUNT and not entry.startswith("loops"):
        kind = _NUMBER
    if isinstance(expected, Tensor) and loosely:
        kind = _TENSOR
    if not kind.holds(found):
        yield _Problem(entry, found, kind.expected)
    elif isinstance(expected, Mapping):
        for name in expected:
            if name in found or not loosely:
                yield from _differing(found.get(name), expected[name], f"{entry}, {name}", loosely)
    elif isinstance(expected, list | tuple) and not loosely:
        if len(found) != len(expected):
            yield _Problem(entry, found, f"{len(expected)} values")
            return
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from _differing(one, other, f"{entry}, {number}", loosely)


class _Kind(NamedTuple):
    expected: str
    holds: Callable[[Any], bool]


def _is_a(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types) and not isinstance(value, bool)


_COUNT = _Kind("a whole number of at least 0", is_count)
_NUMBER = _Kind("a number", _is_a(int, float, Tensor))
_TENSOR = _Kind("a tensor", _is_a(Tensor))
_KINDS = (
    _Kind("true or false", lambda value: value is None or isinstance(value, bool)),
    _COUNT,
    _NUMBER,
    _Kind("a text", _is_a(str)),
    _Kind("entries by name", _is_a(Mapping)),
    _Kind("a list", _is_a(list, tuple)),
    _Kind("anything", lambda value: True),
)


def _kind_of(value: Any) -> _Kind:
    return next(kind for kind in _KINDS if kind.holds(value))


def _moments(optimizer: Optimizer, saved: Any, entry: str) -> Iterator[_Problem]:
    """Look at what is saved of each parameter: for those optimizers of torch that we know, values of its shape."""
    if not isinstance(saved, Mapping) or not isinstance(saved.get("state"), Mapping):
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    groups = [group["params"] for group in optimizer.state_dict()["param_groups"]]
    listed = saved.get("param_groups")
    listed = listed if isinstance(listed, list) else []
    found = [group.get("params") for group in listed if isinstance(group, Mapping)]
    if found != groups:  # torch goes by their order
        yield _Problem(f"{entry}, params", found, f"{groups}, as the configuration has")
    needed = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, Adam | AdamW) else set()
    for place, state in saved["state"].items():
        at = f"{entry}, state, {place}"
        if not is_count(place) or place >= len(parameters):
            yield _Problem(at, state, f"the number of one of {len(parameters)} parameters")
        elif not isinstance(state, Mapping):
            yield _Problem(at, state, "entries by name")
        elif isinstance(optimizer, Adam | AdamW | SGD):
            for name in sorted(needed | state.keys(), key=str):
                value, shape = state.get(name), () if name == "step" else tuple(parameters[place].shape)
                is_none = value is None and name not in needed
                if not is_none and not (_NUMBER.holds(value) and tuple(torch.as_tensor(value).shape) == shape):
                    yield _Problem(f"{at}, {name}", value, f"numbers of shape {shape}" if shape else "a number")


def _refusal(trainer: Trainer, problem: _Problem) -> InputError:
    found = problem.found
    text = f"numbers of shape {tuple(found.shape)}" if isinstance(found, Tensor) and found.ndim else repr(found)
    return InputError(str(trainer.ckpt_path), field=problem.entry, found=text, expected=problem.expected, fix=_FIX)
