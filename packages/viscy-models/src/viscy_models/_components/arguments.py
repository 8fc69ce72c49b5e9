"""Checks of arguments, with messages that say what fits."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["did_you_mean", "odd_kernel", "one_of", "positive", "rate"]


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return the known names near a misspelt one, in brackets for the middle of a message; empty if none is near."""
    near = difflib.get_close_matches(str(name), list(known), n=3)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def odd_kernel(name: str, value: int | Sequence[int], length: int) -> tuple[int, ...]:
    """Return a kernel size per axis.

    Raises
    ------
    ValueError
        If there are not as many numbers as axes, or one is even: an even kernel has no middle.
    """
    sizes = (value,) * length if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(sizes) != length or not all(isinstance(size, int) and size > 0 and size % 2 for size in sizes):
        raise ValueError(f"{name} is {value!r}, expected an odd number or {length} of them")
    return sizes


def one_of(name: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a value that is none of the choices, with a guess at what was meant.

    Raises
    ------
    ValueError
        With the choices.
    """
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}{did_you_mean(value, choices)}, expected one of {', '.join(choices)}")


def positive(name: str, value: int) -> None:
    """Refuse a count below one.

    Raises
    ------
    ValueError
        With the name and what was found.
    """
    if value < 1:
        raise ValueError(f"{name} is {value}, expected at least 1")


def rate(name: str, value: float, most: float = 1.0) -> float:
    """Return a dropout rate, 0 for False.

    Raises
    ------
    ValueError
        If it is no number from 0 to ``most``; a rate of 1 would leave nothing.
    """
    if value is True or not 0 <= value <= most or value == 1:
        raise ValueError(f"{name} is {value}, expected a rate from 0 {f'to {most}' if most < 1 else 'to below 1'}")
    return float(value)
