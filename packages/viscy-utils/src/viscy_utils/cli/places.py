"""Where a value is written that an error is about: which file, and which key in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from viscy_data.errors import InputError
from viscy_utils.cli.config_files import class_of

__all__ = ["COMMAND_LINE", "add_places", "dotted_options"]

COMMAND_LINE = "the command line"
"""In place of a file."""

_MOST_PLACES = 3  # more of them point nowhere


def dotted_options(args: Sequence[str]) -> dict[str, str]:
    """Return the options of a command line that are keys of a configuration, such as ``--trainer.max_epochs``."""
    return {argument.partition("=")[0]: argument for argument in args if re.match(r"--\w+\.", argument)}


def add_places(error: InputError, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Note which file holds a field that an error names without naming the file.

    Parameters
    ----------
    error : InputError
        ``field`` is a key, or words such as ``keys of NormalizeSampled``: then the key inside that class is meant.
    configs : mapping
        As from :func:`read_configs`.
    """
    for problem in getattr(error, "errors", (error,)):
        words = set(re.findall(r"\w+", problem.field))
        options = [option for option in configs.get(COMMAND_LINE, ()) if option.rpartition(".")[2] in words]
        for option in options:  # they have the last word
            error.add_note(f"in       {COMMAND_LINE}, {option}")
        if options:
            continue
        places = [
            f"{path}, {place}"
            for path, written in configs.items()
            if path not in problem.where
            for place, classes in _places(written, words)
            if not words.intersection(_class_names(written)) - classes
        ]
        innermost = [
            place for place in places if not any(other.startswith((f"{place}.", f"{place}[")) for other in places)
        ]
        for place in innermost if len(innermost) <= _MOST_PLACES else ():
            error.add_note(f"in       {place}")


def _places(block: Any, keys: set[str], at: str = "", classes: frozenset[str] = frozenset()) -> Iterator[tuple]:
    """Walk to keys of certain names: where they are, and inside which classes."""
    if isinstance(block, Mapping):
        classes |= {class_of(block)} - {""}
        for key, value in block.items():
            place = f"{at}.{key}" if at else str(key)
            if key in keys:
                yield place, classes
            yield from _places(value, keys, place, classes)
    elif isinstance(block, list):
        for number, value in enumerate(block):
            yield from _places(value, keys, f"{at}[{number}]", classes)


def _class_names(block: Any) -> set[str]:
    return {name for _, classes in _places(block, {"class_path"}) for name in classes}
