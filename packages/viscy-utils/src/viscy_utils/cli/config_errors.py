"""Errors of the configuration parser, cut down to what was found, what was expected and what comes near.

jsonargparse reports each alternative that a value fails to match. Here the alternatives that nobody meant (None, other
types of a union) go, the key and the value stay, and a misspelt name gets its nearest match.
"""

from __future__ import annotations

import importlib
import inspect
import re
from argparse import ArgumentError
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile

from viscy_data.checks import near_matches
from viscy_data.errors import InputError

__all__ = ["condensed", "first_cause", "parser_error"]

_NOISE = re.compile(r"Does not validate against|Subtypes:|Errors:$|Given value|Expected an? <class 'NoneType'>")
_EXPECTED = re.compile(r"Expected an? (.+?)\.?(?: Got value: (.*))?$")
_KEY = re.compile(r'Parser key "([^"]+)":\s*')
_CLASS = re.compile(r"Problem with given class_path '[\w.]+':$")
_UNION = re.compile(r"Does not validate against any of the Union subtypes")
# As Python words it, and as lazy_loader does for packages that load their names on first use.
_UNKNOWN_NAME = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'|No ([\w.]+) attribute (\w+)")
_MAX_FOUND = 400


@contextmanager
def condensed(where: str, keys: Iterable[str]) -> Iterator[None]:
    """Re-raise an error of the parser as an :class:`~viscy_data.errors.InputError`.

    Parameters
    ----------
    where : str
        The files or arguments that are parsed.
    keys : iterable of str
        Dotted keys that the parser knows, for near matches; read only when there is an error.

    Raises
    ------
    InputError
    """
    try:
        yield
    except ArgumentError as err:
        raise parser_error(str(err), where, keys) from err


@contextmanager
def first_cause() -> Iterator[None]:
    """Raise what a class raised while it was built, instead of the alternatives that the parser tried beside it.

    Where a type is a union, with None for instance, jsonargparse builds the class while it looks for the alternative
    that fits, and words whatever happens, bugs included, as a value that fits none.
    """
    try:
        yield
    except ValueError as err:
        cause: BaseException = err
        while _UNION.match(str(cause)) and cause.__cause__ is not None:
            cause = cause.__cause__
        if cause is err:
            raise
        raise cause from None


def parser_error(message: str, where: str, keys: Iterable[str] = ()) -> InputError:
    """Build the error for one message of the parser.

    Parameters
    ----------
    message : str
        As jsonargparse words it.
    where : str
        The files or arguments that were parsed.
    keys : iterable of str
        Dotted keys that the parser knows.

    Returns
    -------
    InputError
    """
    unknown = re.search(r"(?:does not accept option|[Uu]nrecognized arguments?:) '?([\w.\-]+)", message)
    if unknown:
        key = unknown[1].removeprefix("--").split("=")[0]
        return InputError(where, field=key, found="an unknown key", fix=_nearest_key(key, keys))
    missing = re.search(r"arguments are required: (.+)", message)
    if missing:
        keys = [key.rpartition(".")[2] if key.count(".") == 1 else key for key in missing[1].split(", ")]
        expected = f"a section or option {' and another '.join(map(repr, keys))}"
        return InputError(where, field=", ".join(keys), found="nothing", expected=expected)
    absent = re.search(r"File does not exist: '?(.+?)'?$", message, re.MULTILINE)
    if absent and 'key "config"' in message:
        return InputError(absent[1], found="no such file", expected="a YAML configuration")
    return _value_error(message, where)


def _value_error(message: str, where: str) -> InputError:
    """Describe a value that no alternative of its key accepts: innermost complaints, value, nearest names."""
    lines = list(takewhile(lambda line: not line.startswith("Not a valid subclass"), _useful_lines(message)))
    keys = [match[1] for line in lines if (match := _KEY.match(line))]
    classes = re.findall(r"Problem with given class_path '([\w.]+)'", message)
    accepted = [match.groups() for line in lines if (match := _EXPECTED.match(line))]
    found = "; ".join(line for line in lines if not any(part.match(line) for part in (_KEY, _CLASS, _EXPECTED)))
    if classes and found:
        found = f"{classes[-1]}: {found}"
    # The innermost value: the last one may be a whole section, of which the wrong value is a part.
    values = [value for _, value in accepted if value] + re.findall(r"(?:Given|Got) value: (.*)", message)
    found = found or next(iter(values), "")
    if len(found) > _MAX_FOUND:
        found = found[:_MAX_FOUND] + " ..."
    return InputError(
        where,
        field=".init_args.".join(keys),
        found=found,
        expected=" or ".join(dict.fromkeys(_readable(kind) for kind, _ in accepted)),
        fix=_nearest_name(message) or _nearest_choice(found, [kind for kind, _ in accepted]),
    )


def _useful_lines(message: str) -> Iterator[str]:
    lines = _KEY.sub(r"\g<0>\n", message).splitlines()  # what is said of a key may follow it in its line
    for line in dict.fromkeys(line.strip().removeprefix("- ") for line in lines):
        if line and not _NOISE.match(line):
            yield line


def _readable(kind: str) -> str:
    """Name a type as its users do."""
    choices = re.fullmatch(r"typing\.Literal\[(.*)\]", kind)
    return f"one of {choices[1]}" if choices else re.sub(r"<class '([\w.]+)'>", r"\1", kind)


def _nearest_choice(found: str, kinds: Iterable[str]) -> str:
    return _suggest(found, re.findall(r"'([^']+)'", " ".join(kind for kind in kinds if "Literal" in kind)))


def _nearest_key(key: str, keys: Iterable[str]) -> str:
    known = sorted(keys)
    near = near_matches(key, known, otherwise="", cutoff=0.7)
    section = key.rpartition(".")[0]
    if not near and section:  # a misspelt section: compare its name only
        sections = {name.rpartition(".")[0] for name in known} - {""}
        near = near_matches(section, sections, otherwise="")
        near = near or near_matches(section, known, otherwise="")
    return near or "remove it, or see --help for the keys there are"


def _nearest_name(message: str) -> str:
    """Nearest class of a module, or nearest argument of a class, where the message is about one."""
    attribute = _UNKNOWN_NAME.search(message)
    if attribute:
        module, name = filter(None, attribute.groups())
        return _suggest(name, dir(importlib.import_module(module)))
    option = re.search(r"class_path '([\w.]+)':\s*Option '([\w.]+)' is not accepted", message)
    if option:
        module, _, name = option[1].rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        mro = getattr(cls, "__mro__", (cls,))
        return _suggest(option[2], {p for base in mro if base is not object for p in _parameters(base)} - {"self"})
    return ""


def _parameters(cls: type) -> Iterable[str]:
    return inspect.signature(cls.__init__).parameters


def _suggest(name: str, candidates: Iterable[str]) -> str:
    return near_matches(name, candidates, otherwise="")
