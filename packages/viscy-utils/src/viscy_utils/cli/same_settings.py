"""Whether a configuration is that of a run, which may have begun with an earlier version that had fewer options."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from viscy_data.errors import InputError
from viscy_data.yaml_reading import parse_yaml
from viscy_utils.cli.config_files import read_configs
from viscy_utils.runs.compatibility import changed_settings
from viscy_utils.runs.folder import Run

__all__ = ["refuse_other_settings"]

_BLOCKS = ("model", "data")


def refuse_other_settings(run: Run, parser: LightningArgumentParser, config: Namespace) -> list[str]:
    """Compare the blocks ``model`` and ``data`` of a run with those of a configuration.

    Options that are new since the run began have their defaults, as wherever a configuration leaves them out.

    Parameters
    ----------
    run : Run
        One without a configuration has any.
    parser : LightningArgumentParser
        Of the subcommand.
    config : Namespace
        What it has parsed.

    Returns
    -------
    list of str
        The new options with their values, such as ``data.patch_store None``.

    Raises
    ------
    InputError
        With all settings that differ.
    """
    if not run.config.exists():
        return []
    stored = read_configs([str(run.config)])[str(run.config)]
    before = {name: stored[name] for name in _BLOCKS if name in stored}
    completed, now = _completed(parser, before), _dumped(parser, config)
    changed = changed_settings(completed, now)
    if changed:
        raise InputError(
            str(run.path),
            field=", ".join(dict.fromkeys(setting.split(".")[0] for setting in changed)),
            found=f"the latest run, which has other settings: {'; '.join(changed)}",
            expected="a run of this configuration to go on with",
            fix="name the run with --run NAME; a new one of that name begins if there is none",
        )
    return list(_added(before, completed))


def _completed(parser: LightningArgumentParser, blocks: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in the defaults; blocks that the parser refuses, such as with an option that is gone, stay as they are."""
    try:
        return _dumped(parser, parser.parse_object(deepcopy(dict(blocks))))  # it would fill in these
    except (ArgumentError, TypeError, ValueError):
        return blocks


def _dumped(parser: LightningArgumentParser, config: Namespace) -> Mapping[str, Any]:
    """Return the blocks as the configuration of a run is written: with the settings that are null."""
    content = parse_yaml(parser.dump(config, skip_none=False, skip_validation=True))
    return {name: content[name] for name in _BLOCKS if name in content}


def _added(before: Any, now: Any, at: str = "") -> Iterator[str]:
    """Walk down both to what is only now; ``init_args`` is left out of the names."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key, value in now.items():
            name = at if key == "init_args" else f"{at}.{key}" if at else str(key)
            if key in before:
                yield from _added(before[key], value, name)
            else:
                yield f"{name} {value!r}"
    elif isinstance(before, list) and isinstance(now, list):
        for number, (one, other) in enumerate(zip(before, now, strict=False)):
            yield from _added(one, other, f"{at}[{number}]")
