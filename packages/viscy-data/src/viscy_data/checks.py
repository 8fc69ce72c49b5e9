"""Checks of single values, and what to say of a name that is not known.

A rule stands where its value is used. It is written as an :class:`Option`, so that all problems of one object are told
together and in the same words:

>>> from viscy_data.checks import Option, check_options, is_count
>>> for problem in check_options("Reader", [Option("n_slices", 0, is_count(0, 1), "a whole number of at least 1")]):
...     print(problem)
Reader, field n_slices
  found    0
  expected a whole number of at least 1
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from viscy_data.errors import InputError

__all__ = [
    "Option",
    "check_options",
    "is_count",
    "is_names",
    "is_number",
    "is_pair",
    "is_range",
    "is_texts",
    "near_matches",
]

_MOST_LISTED = 20


@dataclass(frozen=True)
class Option:
    """One value: its name, what was given, whether that is usable, what would be, and what to do about it."""

    name: str
    found: Any
    holds: bool
    expected: str
    fix: str = ""


def check_options(where: str, options: Iterable[Option]) -> list[InputError]:
    """Return a problem for every option that does not hold.

    Parameters
    ----------
    where : str
        The class, file or argument that the options belong to.
    options : iterable of Option

    Returns
    -------
    list of InputError
        For :func:`viscy_data.errors.raise_all`.
    """
    return [
        InputError(where, field=option.name, found=repr(option.found), expected=option.expected, fix=option.fix)
        for option in options
        if not option.holds
    ]


def is_count(value: Any, least: int = 0) -> bool:
    """Tell whether a value is a whole number of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    """Tell whether a value is a finite number in a closed range."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and least <= value <= most
    )


def is_pair(value: Any) -> bool:
    """Tell whether a value is a list of two."""
    return _is_list(value) and len(value) == 2


def is_range(value: Any, least: float = -math.inf) -> bool:
    """Tell whether a value is [first, last]: two finite numbers of at least ``least``, the first not above the last."""
    return is_pair(value) and all(is_number(end, least) for end in value) and value[0] <= value[1]


def is_texts(value: Any) -> bool:
    """Tell whether a value is a list of texts."""
    return _is_list(value) and all(isinstance(text, str) for text in value)


def is_names(value: Any) -> bool:
    """Tell whether a value is a list of different texts."""
    return is_texts(value) and len(set(value)) == len(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def near_matches(name: object, known: Iterable[object], *, otherwise: str | None = None, cutoff: float = 0.6) -> str:
    """Say which known names come near a misspelt one.

    Parameters
    ----------
    name : object
        What was given; compared as text, whatever its case.
    known : iterable of object
        What there is.
    otherwise : str, optional
        What to say when none is near; by default all known names, or the first twenty.
    cutoff : float, default 0.6
        How near, from 0 to 1 (:func:`difflib.get_close_matches`). Long names with a common part need more.

    Returns
    -------
    str
        For the end of a sentence or for ``InputError(expected=...)``.

    Examples
    --------
    >>> near_matches("phase", ["Phase3D", "GFP"])
    "did you mean 'Phase3D'?"
    >>> near_matches("DAPI", ["Phase3D", "GFP"])
    "one of 'Phase3D', 'GFP'"
    """
    names = list(dict.fromkeys(map(str, known)))
    by_folded = {text.casefold(): text for text in names}
    near = difflib.get_close_matches(str(name).casefold(), by_folded, n=3, cutoff=cutoff)
    if near:
        return f"did you mean {' or '.join(repr(by_folded[folded]) for folded in near)}?"
    if otherwise is not None:
        return otherwise
    if not names:
        return "nothing, as there is none"
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"one of {', '.join(map(repr, names[:_MOST_LISTED]))}{more}"
