"""Errors of the configuration parser, cut down to what was found, what was expected and what comes near.

jsonargparse reports each alternative that a value fails to match. Here the alternatives that nobody meant (None, other
types of a union) go, the key and the value stay, and a misspelt name gets its nearest match.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from argparse import ArgumentError
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile

from viscy_data.checks import near_matches
from viscy_data.errors import InputError

__all__ = ["condensed", "first_cause", "parser_error", "unknown_key"]

_NOISE = re.compile(
    r"Does not validate against|Subtypes:|Errors:$|Given value|Expected an? <class 'NoneType'>|Expected a path but"
    r"|argument of type 'NoneType'"
)
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
    unknown = re.search(r"(?:does not accept option|[Uu]nrecognized arguments?:) '?([^\s']+)", message)
    if unknown and "nrecognized" in unknown[0] and not unknown[1].startswith("-"):
        fix = f"write --NAME {unknown[1]}; --help lists the names there are"
        return InputError(where, found=f"{unknown[1]} without the name of an option", fix=fix)
    if unknown:
        return unknown_key(unknown[1].removeprefix("--").split("=")[0], where, keys)
    missing = re.search(r"arguments are required: (.+)", message)
    if missing:
        outer = ".init_args.".join([*_KEY.findall(message), ""])
        names = [key.rpartition(".")[2] if key.count(".") == 1 else key for key in missing[1].split(", ")]
        expected = "a value" if len(names) == 1 else "a value for each"
        return InputError(where, field=", ".join(outer + name for name in names), found="nothing", expected=expected)
    absent = re.search(r"File does not exist: '?(.+?)'?$", message, re.MULTILINE)
    if absent and 'key "config"' in message:
        return InputError(absent[1], found="no such file", expected="a YAML configuration")
    return _value_error(message, where)


def _value_error(message: str, where: str) -> InputError:
    """Describe a value that no alternative of its key accepts: innermost complaints, value, nearest names."""
    lines = list(takewhile(lambda line: not line.startswith("Not a valid subclass"), _useful_lines(message)))
    keys = [match[1] for line in lines if (match := _KEY.match(line))]
    innermost = message.rpartition("Parser key")[2]
    classes = re.findall(r"Problem with given class_path '([\w.]+)'", innermost)
    accepted = [match.groups() for line in lines if (match := _EXPECTED.match(line))]
    found = "; ".join(line for line in lines if not any(part.match(line) for part in (_KEY, _CLASS, _EXPECTED)))
    if classes and found:
        found = f"{classes[-1]}: {found}"
    # The innermost value: the last one may be a whole section, of which the wrong value is a part.
    values = [value for _, value in accepted if value] + re.findall(r"(?:Given|Got) value: (.*)", message)
    found = found or next(iter(values), "")
    if len(found) > _MAX_FOUND:
        found = found[:_MAX_FOUND] + " ..."
    expected = list(dict.fromkeys(_readable(kind) for kind, _ in accepted))
    base = re.search(r"(?:Not a valid|to a) subclass of (\w+)", innermost)
    # Without a class_path the parser takes Lightning's own base class; one of a config before is named.
    is_base = all(name.startswith("lightning.") for name in classes)
    if is_base and re.search(r"is not accepted(.|\n)*Given value: {'init_args'", innermost):
        found, expected = "init_args without class_path", ["both"]
    elif base and not expected:
        expected = [f"class_path and init_args of a {base[1]}"]
    return InputError(
        where,
        field=".init_args.".join(keys),
        found=found,
        expected=" or ".join(expected),
        fix=_nearest_name(message) or _nearest_choice(found, [kind for kind, _ in accepted]),
    )


def _useful_lines(message: str) -> Iterator[str]:
    lines = _KEY.sub(r"\g<0>\n", message).splitlines()  # what is said of a key may follow it in its line
    for line in dict.fromkeys(line.strip().removeprefix("- ") for line in lines):
        if line and not _NOISE.match(line):
            yield line


def _readable(kind: str) -> str:
    """Name a type as its users do."""
    if kind.startswith("dot import path string"):
        return "the place of a class, such as package.module.Class"
    choices = re.fullmatch(r"typing\.Literal\[(.*)\]", kind)
    return f"one of {choices[1]}" if choices else re.sub(r"<class '([\w.]+)'>", r"\1", kind)


def _nearest_choice(found: str, kinds: Iterable[str]) -> str:
    return _suggest(found, re.findall(r"'([^']+)'", " ".join(kind for kind in kinds if "Literal" in kind)))


def unknown_key(key: str, where: str, keys: Iterable[str]) -> InputError:
    """Build the error for a key that is not known, with the nearest of those that are.

    Parameters
    ----------
    key, where : str
        Dotted; the file that holds it.
    keys : iterable of str
        Dotted keys that the parser knows.
    """
    known = sorted(keys)
    tops = sorted({name.partition(".")[0] for name in known} - {"config"})
    near = _nearest_key(key, known)
    top = key.partition(".")[0]
    if near or not tops or top in tops:
        fix = near or "remove it, or see --help for the keys there are"
        return InputError(where, field=key, found="an unknown key", fix=fix)
    expected = f"keys such as {', '.join(tops)}"
    return InputError(
        where, field=top, found="an unknown key", expected=expected, fix="remove it, or name another file"
    )


def _nearest_key(key: str, known: Sequence[str]) -> str:
    near = near_matches(key, known, otherwise="", cutoff=0.7)
    section = key.rpartition(".")[0]
    if not near and section:  # a misspelt section: compare its name only
        sections = {name.rpartition(".")[0] for name in known} - {""}
        near = near_matches(section, sections, otherwise="")
        near = near or near_matches(section, known, otherwise="")
    return near


def _nearest_name(message: str) -> str:
    """Nearest class of a module, or nearest argument of a class, where the message is about one."""
    attribute = _UNKNOWN_NAME.search(message)
    if attribute:
        module, name = filter(None, attribute.groups())
        package = importlib.import_module(module)
        modules = [found.name for found in pkgutil.iter_modules(getattr(package, "__path__", ()))]
        return _suggest(name, [*dir(package), *modules])
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
