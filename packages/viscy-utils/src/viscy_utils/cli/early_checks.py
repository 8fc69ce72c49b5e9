"""What can be seen to be wrong with the arguments of a subcommand before torch and Lightning are imported."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any

import yaml

from viscy_data.errors import InputError
from viscy_data.files import missing_path
from viscy_utils.cli.config_errors import unknown_key
from viscy_utils.cli.config_files import class_of, config_paths, read_configs, refuse_misshapen, refuse_no_config
from viscy_utils.cli.places import COMMAND_LINE, add_places, dotted_options
from viscy_utils.cli.subcommands import CORRECT_CHECKPOINT, LIGHTNING_WORDS, SUBCOMMANDS

__all__ = ["refuse_early", "refuse_missing_checkpoint", "refuse_missing_data", "refuse_missing_store"]

_SHARED_CHECKS = dict.fromkeys(
    ["viscy_data.HCSDataModule", "viscy_data.TripletDataModule", "viscy_data.CachedOmeZarrDataModule"],
    "viscy_utils.cli.early_checks:refuse_missing_store",
)
_OF_OTHERS = ("-h", "--help", "--data")  # what an option says of the data is left to the parser


def refuse_early(args: Sequence[str], prog: str, data_checks: Mapping[str, str]) -> None:
    """Refuse configurations that are missing, no YAML or have unknown sections, and data that are not there.

    Whatever is not certain is left to the parser of Lightning's command line.

    Parameters
    ----------
    args : sequence of str
        Arguments after the name of the command.
    prog : str
        Name of the command.
    data_checks : mapping of str to str
        By package and class of a data module, such as ``viscy_data.HCSDataModule``, the ``"module:function"`` that
        refuses its ``init_args`` where something is missing.

    Raises
    ------
    InputError
    """
    name, paths = args[0], config_paths(args)
    if name not in SUBCOMMANDS:
        return
    if not paths:
        refuse_no_config(args, prog)
    configs = read_configs(paths)
    refuse_misshapen(configs)
    for path, written in configs.items():
        _refuse_unknown_sections(path, written, name)
    try:
        _refuse_missing_inputs(name, args, configs)
        if SUBCOMMANDS[name].needs_data and not any(argument.startswith(_OF_OTHERS) for argument in args):
            refuse_missing_data(configs, data_checks)
    except InputError as err:
        add_places(err, {**configs, COMMAND_LINE: dotted_options(args)})
        raise


def refuse_missing_data(
    configs: Mapping[str, Mapping[str, Any]], data_checks: Mapping[str, str], unread: Collection[str] = ()
) -> None:
    """Refuse what the one block ``data`` of configurations names and is not there.

    Parameters
    ----------
    configs : mapping
        As from :func:`~viscy_utils.cli.config_files.read_configs`.
    data_checks : mapping of str to str
        As for :func:`refuse_early`.
    unread : collection of str, default ()
        Arguments of the data module that the command does not use.

    Raises
    ------
    InputError
    """
    blocks = [written["data"] for written in configs.values() if "data" in written]
    if len(blocks) == 1 and isinstance(blocks[0], Mapping):
        _refuse_missing_data(blocks[0], data_checks, unread)


def refuse_missing_checkpoint(path: str) -> None:
    """Refuse a ``ckpt_path`` that does not exist, in the words of what would read it.

    Raises
    ------
    MissingInputError
    """
    if path not in LIGHTNING_WORDS and "://" not in path and not os.path.exists(path):
        raise missing_path(path, field="ckpt_path", fix=CORRECT_CHECKPOINT)


def refuse_missing_store(arguments: Mapping[str, Any]) -> None:
    """Refuse a ``data_path`` that does not exist, in the words of what would read it.

    Raises
    ------
    InputError
    """
    from viscy_data.stores import refuse_missing

    source = arguments.get("data_path")
    if isinstance(source, str) and not arguments.get("caching"):  # a cached copy may be all that there is
        refuse_missing(source)


def _refuse_unknown_sections(path: str, written: Mapping[str, Any], name: str) -> None:
    from viscy_utils.cli.subcommand_help import known_keys

    keys = known_keys(name)
    known = {key.partition(".")[0] for key in keys}
    for key in map(str, written):
        if key.partition(".")[0].removesuffix("+") not in known:
            raise unknown_key(key, path, keys)


def _refuse_missing_inputs(name: str, args: Sequence[str], configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse paths that a subcommand reads itself; what is given on the command line counts."""
    if any(argument in ("-h", "--help") for argument in args):
        return
    checks = dict(SUBCOMMANDS[name].reads)
    if SUBCOMMANDS[name].checkpoint:
        checks["ckpt_path"] = "viscy_utils.cli.early_checks:refuse_missing_checkpoint"
    for option, check in checks.items():
        written = [content[option] for content in configs.values() if option in content]
        given = [value for flag, value in pairwise(args) if flag == f"--{option}"]
        given += [argument.partition("=")[2] for argument in args if argument.startswith(f"--{option}=")]
        value = ([_from_yaml(value) for value in given] or written or [None])[-1]
        if isinstance(value, str):  # lists are left to the parser
            _imported(check)(value)


def _from_yaml(value: str) -> Any:
    """Return the value of an option as the parser reads it; None also for what is no YAML."""
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return None


def _imported(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(module), name)


def _refuse_missing_data(block: Mapping[str, Any], data_checks: Mapping[str, str], unread: Collection[str]) -> None:
    package = str(block.get("class_path")).partition(".")[0]
    check = (_SHARED_CHECKS | dict(data_checks)).get(f"{package}.{class_of(block)}")
    arguments = block.get("init_args")
    if check is not None and isinstance(arguments, Mapping):
        _imported(check)({name: value for name, value in arguments.items() if name not in unread})
