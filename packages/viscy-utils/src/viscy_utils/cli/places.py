"""Where a value is written that an error is about: which file, and which key in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from viscy_data.errors import InputError
from viscy_utils.cli.config_files import class_of, read_configs

__all__ = ["COMMAND_LINE", "add_places", "dotted_options", "noting_places"]

COMMAND_LINE = "the command line"
"""In place of a file."""

_MOST_PLACES = 3  # more of them point nowhere


def dotted_options(args: Sequence[str]) -> dict[str, str]:
    """Return the options of a command line that are keys of a configuration, such as ``--trainer.max_epochs``."""
    return {argument.partition("=")[0]: argument for argument in args if re.match(r"--\w+\.", argument)}


def add_places(error: Exception, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Note which file holds a field that an error names without naming the file; each place once.

    Parameters
    ----------
    error : Exception
        ``field`` of an `InputError` is a key, or words such as ``keys of NormalizeSampled``: then the key inside that
        class is meant. Without a field, and in an error of another library, the words of the text are compared with the
        keys that hold a value.
    configs : mapping
        As from :func:`read_configs`.
    """
    found = [place for problem in getattr(error, "errors", (error,)) for place in _places_of(problem, configs)]
    for place in dict.fromkeys(found):
        error.add_note(f"in       {place}")


@contextmanager
def noting_places(paths: Iterable[str | Path]) -> Iterator[None]:
    """Note which of some configuration files holds what an error inside is about."""
    try:
        yield
    except InputError as err:
        add_places(err, read_configs([str(path) for path in paths]))
        raise


def _places_of(problem: Exception, configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    field, where = getattr(problem, "field", ""), getattr(problem, "where", "")
    words = set(re.findall(r"\w+", field or where or str(problem)))
    options = [option for option in configs.get(COMMAND_LINE, ()) if option.rpartition(".")[2] in words]
    if options:  # they have the last word
        return [f"{COMMAND_LINE}, {option}" for option in options]
    places = [
        f"{path}, {place}"
        for path, written in configs.items()
        if path not in where
        for place, value, classes in _walk(written, words)
        if field or not isinstance(value, Mapping)
        if not words.intersection(_class_names(written)) - classes
    ]
    innermost = [place for place in places if not any(other.startswith((f"{place}.", f"{place}[")) for other in places)]
    return innermost if len(innermost) <= _MOST_PLACES else []


def _walk(block: Any, keys: set[str], at: str = "", classes: frozenset[str] = frozenset()) -> Iterator[tuple]:
    """Walk to keys of certain names: where they are, what they hold, and inside which classes."""
    if isinstance(block, Mapping):
        classes |= {class_of(block)} - {""}
        for key, value in block.items():
            place = f"{at}.{key}" if at else str(key)
            if key in keys:
                yield place, value, classes
            yield from _walk(value, keys, place, classes)
    elif isinstance(block, list):
        for number, value in enumerate(block):
            yield from _walk(value, keys, f"{at}[{number}]", classes)


def _class_names(block: Any) -> set[str]:
    return {name for _, _, classes in _walk(block, {"class_path"}) for name in classes}
