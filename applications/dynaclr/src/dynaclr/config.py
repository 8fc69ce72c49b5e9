"""The data module of a config, without its model and trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from viscy_data.errors import InputError, MissingInputError
from viscy_utils.cli.config_errors import condensed

__all__ = ["load_data_module"]


def load_data_module(configs: Sequence[str | Path]) -> LightningDataModule:
    """Build the data module that configs of ``fit`` or ``predict`` describe.

    Parameters
    ----------
    configs : sequence of str or Path
        YAML files with a block ``data``; keys of later ones replace those of earlier ones.

    Returns
    -------
    LightningDataModule
        Not set up.

    Raises
    ------
    InputError
        If a file is missing or no mapping, none has a block ``data``, or its keys are wrong.
    """
    data: dict[str, Any] = {}
    for path in configs:
        data = _merged(data, _read(Path(path)).get("data") or {})
    where = ", ".join(map(str, configs))
    if not data:
        raise InputError(where, field="data", found="nothing", expected="the block data of a config for fit")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    with condensed(where, parser.get_defaults(skip_validation=True).keys(branches=True)):
        parsed = parser.parse_object({"data": data})
    return parser.instantiate(parsed).data


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf8"))
    except FileNotFoundError as err:
        raise MissingInputError(str(path), found="nothing", expected="a config in YAML") from err
    except yaml.YAMLError as err:
        raise InputError(str(path), found=f"no YAML ({err})", expected="a config in YAML") from err
    if not isinstance(content, dict):
        raise InputError(str(path), found=type(content).__name__, expected="a mapping with the block data")
    return content


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Merge mappings, also inside each other; a new class starts with its own arguments."""
    if change.get("class_path", base.get("class_path")) != base.get("class_path"):
        return change
    nested = {
        key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in change.items()
    }
    return base | nested
