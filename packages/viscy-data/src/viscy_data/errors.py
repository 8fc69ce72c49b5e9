"""Errors about what the user gave: what, where, found, expected, fix.

An :class:`InputError` is raised when a config, a store or a table cannot be used. The command line prints it as one
short paragraph and exits with code 2; library users read its attributes instead of parsing the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "InputError",
    "InputErrors",
    "MissingInputError",
    "is_input_error",
    "raise_all",
    "reading_file",
    "reading_input",
]

# What classes refuse arguments with, and what a missing extra raises.
_REFUSALS = (ValueError, TypeError, ImportError)
_OF_PROGRAMS = re.compile(r"NoneType|<class|object at 0x")  # words that tell a user nothing
_MOST_FOUND, _MOST_SHOWN = 400, 8  # characters of what was found, problems of an input


class InputError(ValueError):
    """One problem with one input.

    Parameters
    ----------
    where : str
        The file, store or argument at fault, with the experiment or FOV inside it.
    field : str, optional
        Name of the field, column or option.
    found, expected, fix : str, optional
        What was there (cut in the text where it is long), what would have been right, and what to do about it.
    """

    def __init__(self, where: str, *, field: str = "", found: str = "", expected: str = "", fix: str = "") -> None:
        self.where, self.field, self.found, self.expected, self.fix = where, field, found, expected, fix
        head = f"{where}, field {field}" if field else where
        if expected.startswith("did you mean"):
            expected, fix = "", f"{expected} {fix}".strip()
        rows = [
            ("found", found if len(found) <= _MOST_FOUND else f"{found[:_MOST_FOUND]} ..."),
            ("expected", expected),
            ("fix", fix),
        ]
        super().__init__("\n".join([head, *(f"  {name:<9}{text}" for name, text in rows if text)]))


class MissingInputError(InputError, FileNotFoundError):
    """A file, folder or store that does not exist."""

    def __str__(self) -> str:
        # OSError would print its own form of the arguments.
        return str(self.args[0])


class InputErrors(InputError):
    """Several problems of one input, reported together.

    Parameters
    ----------
    errors : iterable of InputError
        Kept in order in the attribute ``errors``; the text has the first eight.
    """

    def __init__(self, errors: Iterable[InputError]) -> None:
        self.errors = tuple(errors)
        super().__init__(f"{len(self.errors)} problems")
        more = len(self.errors) - _MOST_SHOWN
        last = [f"and {more} more"] if more > 0 else []
        self.args = ("\n".join([f"{len(self.errors)} problems:", *map(str, self.errors[:_MOST_SHOWN]), *last]),)


def raise_all(errors: Iterable[InputError]) -> None:
    """Raise the collected problems: nothing when there are none, a lone one as it is.

    Raises
    ------
    InputError
        The only problem, or :class:`InputErrors` with all of them.
    """
    found = list(errors)
    if len(found) == 1:
        raise found[0]
    if found:
        raise InputErrors(found)


@contextmanager
def reading_input(stage: str) -> Iterator[None]:
    """Mark what is refused inside as the fault of the input.

    For the few places where values of the user are handed to classes that know nothing of :class:`InputError`, such as
    torch's or the user's own. Elsewhere a bare ValueError is a bug, and is reported as one.

    Parameters
    ----------
    stage : str
        What is being done, such as "building the loss"; kept in the attribute ``input_stage`` of the error.

    Examples
    --------
    >>> try:
    ...     with reading_input("building the loss"):
    ...         raise TypeError("margin must be a number")
    ... except TypeError as err:
    ...     print(is_input_error(err))
    True
    """
    try:
        yield
    except _REFUSALS as err:
        if not isinstance(err, InputError):
            err.input_stage = stage
        raise


@contextmanager
def reading_file(path: str | Path, expected: str, fix: str = "copy it or write it anew") -> Iterator[None]:
    """Tell what a library raises over the bytes of a file as the fault of the file.

    Readers of damaged files raise whatever comes: ``struct.error``, RuntimeError, KeyError, MemoryError. Only calls of
    the library belong inside: an error of our own would be taken for one of the file.

    Parameters
    ----------
    path : str or Path
        The file or store.
    expected, fix : str
        As for :class:`InputError`.

    Raises
    ------
    InputError
        Instead of anything else, but for a missing library and for what the file system refuses.

    Examples
    --------
    >>> import struct
    >>> with reading_file("a.bin", "a file of numbers"):
    ...     struct.unpack("<I", b"ab")
    Traceback (most recent call last):
    viscy_data.errors.InputError: a.bin
      found    what cannot be read (error: unpack requires a buffer of 4 bytes)
      expected a file of numbers
      fix      copy it or write it anew
    """
    try:
        yield
    except (InputError, ImportError, FileNotFoundError, PermissionError):
        raise
    except Exception as err:
        said = next(iter(str(err).strip().splitlines()), "")
        said = "" if _OF_PROGRAMS.search(said) else said
        found = f"what cannot be read ({type(err).__name__}{': ' if said else ''}{said[:200]})"
        raise InputError(str(path), found=found, expected=expected, fix=fix) from err


def is_input_error(error: BaseException) -> bool:
    """Tell whether what the user gave is at fault: an :class:`InputError`, or one from :func:`reading_input`."""
    return isinstance(error, InputError) or hasattr(error, "input_stage")
