"""The configuration files of a command: read in one dialect of YAML, and nothing in them without an effect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from viscy_data.checks import near_matches
from viscy_data.errors import InputError
from viscy_data.yaml_reading import read_mapping
from viscy_utils.cli.config_errors import unknown_key
from viscy_utils.cli.subcommands import SUBCOMMANDS, name_in

__all__ = [
    "class_of",
    "config_paths",
    "dropped_keys",
    "read_configs",
    "refuse_dropped_keys",
    "refuse_misshapen",
    "refuse_no_config",
]

_EXPECTED = "a configuration, such as data, model and trainer"
_ARGUMENTS = ("init_args", "dict_kwargs")


def config_paths(args: Sequence[str]) -> list[str]:
    """List the configuration files among arguments."""
    paths = [after for flag, after in pairwise(args) if flag in ("-c", "--config")]
    return paths + [argument.partition("=")[2] for argument in args if argument.startswith("--config=")]


def refuse_no_config(args: Sequence[str], prog: str) -> None:
    """Refuse a subcommand that needs a model, with nothing that says which.

    Raises
    ------
    InputError
    """
    name = name_in(args) or ""
    needs_model = name in SUBCOMMANDS and SUBCOMMANDS[name].needs_model
    if needs_model and not any(argument.startswith(("-h", "--help", "--model", "--print")) for argument in args):
        more = f"; {prog} init writes one for your data" if prog == "dynaclr" else ""
        given = next((argument for argument in args if argument.endswith((".yml", ".yaml"))), "")
        found = f"{given} without --config" if given else "no configuration"
        fix = f"{prog} {name} --config {given or 'FILE.yml'}{'' if given else more}"
        raise InputError(f"{prog} {name}", found=found, expected=_EXPECTED, fix=fix)


def read_configs(paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read configuration files as they are written.

    Raises
    ------
    InputError
        For the first that is missing, no YAML, empty, no mapping, or has a key twice.
    """
    return {path: read_mapping(path, _EXPECTED) for path in paths if "://" not in path}


def refuse_misshapen(configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a block of a class with other keys than ``class_path`` and its arguments, or arguments that are nothing.

    Raises
    ------
    InputError
        For the first.
    """
    for path, written in configs.items():
        for place, block in _class_blocks(written):
            for key, value in block.items():
                if key not in ("class_path", *_ARGUMENTS):
                    near = near_matches(key, _ARGUMENTS, otherwise="move it into init_args")
                    found = "a key beside class_path"
                    raise InputError(path, field=place + key, found=found, expected="init_args", fix=near)
                if value is None and key in _ARGUMENTS:
                    fix = "add some, or leave it out"
                    raise InputError(path, field=place + key, found="nothing", expected="arguments", fix=fix)


def _class_blocks(block: Any, at: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every block with ``class_path``, with what its keys are preceded by."""
    if isinstance(block, Mapping):
        before = f"{at}." if at else ""
        if "class_path" in block:
            yield before, block
        for key, value in block.items():
            yield from _class_blocks(value, f"{before}{key}")
    elif isinstance(block, list):
        for number, value in enumerate(block):
            yield from _class_blocks(value, f"{at}[{number}]")


def dropped_keys(written: Mapping[str, Any], parsed: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Find keys without a value, such as ``foo: {}``, that the parser does not know and leaves out without a word.

    Parameters
    ----------
    written : mapping
        As in the file.
    parsed : mapping
        What became of it.
    at : str, optional
        Where both are, with dots.

    Yields
    ------
    str
        Dotted keys.
    """
    if class_of(written) != class_of(parsed):
        return  # another file has replaced the class, and with it the arguments
    for key, value in written.items():
        place = f"{at}.{key}" if at else str(key)
        if value == {} and key not in parsed and key not in _ARGUMENTS:
            yield place
        inner = parsed[key] if key in parsed else None
        pairs = zip(value, inner) if isinstance(value, list) and isinstance(inner, list) else [(value, inner)]  # noqa: B905
        for one, other in pairs:
            if isinstance(one, Mapping) and isinstance(other, Mapping):
                yield from dropped_keys(one, other, place)


def refuse_dropped_keys(
    configs: Mapping[str, Mapping[str, Any]], parsed: Mapping[str, Any], known: Iterable[str] = ()
) -> None:
    """Refuse the first key of the files that has no effect; `known` keys are read for the message.

    Raises
    ------
    InputError
    """
    for path, written in configs.items():
        for key in dropped_keys(written, parsed):
            raise unknown_key(key, path, known)


def class_of(block: Mapping[str, Any]) -> str:
    """Return the name of the class of a block, without its module; empty where there is none."""
    return str(block.get("class_path") or "").rpartition(".")[2]
