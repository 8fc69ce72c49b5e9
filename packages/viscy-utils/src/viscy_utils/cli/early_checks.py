"""What can be seen to be wrong with the arguments of a subcommand before torch and Lightning are imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from viscy_data.errors import InputError
from viscy_utils.cli.config_errors import unknown_key
from viscy_utils.cli.config_files import class_of, config_paths, read_configs, refuse_misshapen, refuse_no_config
from viscy_utils.cli.places import COMMAND_LINE, add_places, dotted_options
from viscy_utils.cli.subcommands import SUBCOMMANDS

__all__ = ["refuse_early", "refuse_missing_store"]

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
    if not SUBCOMMANDS[name].needs_data or any(argument.startswith(_OF_OTHERS) for argument in args):
        return
    blocks = [written["data"] for written in configs.values() if "data" in written]
    if len(blocks) == 1 and isinstance(blocks[0], Mapping):
        try:
            _refuse_missing_data(blocks[0], data_checks)
        except InputError as err:
            add_places(err, {**configs, COMMAND_LINE: dotted_options(args)})
            raise


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


def _refuse_missing_data(block: Mapping[str, Any], data_checks: Mapping[str, str]) -> None:
    package = str(block.get("class_path")).partition(".")[0]
    check = (_SHARED_CHECKS | dict(data_checks)).get(f"{package}.{class_of(block)}")
    arguments = block.get("init_args")
    if check is not None and isinstance(arguments, Mapping):
        module, function = check.split(":")
        getattr(import_module(module), function)(arguments)
