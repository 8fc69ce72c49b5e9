"""Experiments written down in a YAML file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from dynaclr.experiment.config import ExperimentConfig
from viscy_data.checks import near_matches
from viscy_data.errors import InputError
from viscy_data.yaml_reading import read_mapping

__all__ = ["read_experiments"]

_FIELDS = [field.name for field in dataclasses.fields(ExperimentConfig)]
_REQUIRED = [field.name for field in dataclasses.fields(ExperimentConfig) if field.default is dataclasses.MISSING]
_PATHS = ("data_path", "tracks_path", "normalization_path")


def read_experiments(path: str | Path) -> tuple[list[ExperimentConfig], list[InputError]]:
    """Read the experiments of a file, and what is wrong with its form.

    Parameters
    ----------
    path : str or Path
        YAML file with the key ``experiments``. Relative paths in it are resolved against its folder.

    Returns
    -------
    experiments : list of ExperimentConfig
        Those that can be built; their values are not checked yet.
    errors : list of InputError
        Unknown and missing fields, with the experiment they are in.

    Raises
    ------
    InputError
        If the file is missing, empty, not YAML, or not a list of experiments.
    """
    path = Path(path)
    entries = _entries(path)
    experiments, errors = [], []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            errors.append(
                InputError(f"{path}: experiment {number + 1}", found=repr(entry), expected="fields and values")
            )
            continue
        problems = _check_fields(entry, f"{path}: experiment {entry.get('name', number + 1)!r}")
        errors += problems
        if not problems:
            experiments.append(ExperimentConfig(**_prepared(entry, path.resolve().parent)))
    return experiments, errors


def _entries(path: Path) -> list[Any]:
    expected = "the key `experiments` with a list of experiments"
    content = read_mapping(path, expected)
    if "experiments" not in content:
        raise InputError(str(path), found=f"the keys {', '.join(map(str, content))}", expected=expected)
    if unknown := [key for key in content if key != "experiments"]:
        raise InputError(str(path), field=str(unknown[0]), found="an unknown key", expected=expected)
    if not isinstance(content["experiments"], list) or not content["experiments"]:
        raise InputError(
            str(path), field="experiments", found=repr(content["experiments"]), expected="at least one entry"
        )
    return content["experiments"]


def _check_fields(entry: dict[str, Any], where: str) -> list[InputError]:
    unknown = [
        InputError(where, field=str(key), found="an unknown key", expected=near_matches(key, _FIELDS), fix="correct it")
        for key in entry
        if key not in _FIELDS
    ]
    missing = [
        InputError(where, field=key, found="nothing", expected="a value") for key in _REQUIRED if key not in entry
    ]
    return unknown + missing


def _prepared(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    values = dict(entry)
    if isinstance(values.get("date"), int):
        values["date"] = str(values["date"])  # 20241105 without quotes
    for key in _PATHS:
        value = values.get(key)
        listed = key == "data_path" and isinstance(value, list)
        values[key] = [_resolved(entry, folder) for entry in value] if listed else _resolved(value, folder)
    return {key: value for key, value in values.items() if key in entry}


def _resolved(value: Any, folder: Path) -> Any:
    """Return a path as seen from a folder; URLs, and what is no path, as they are."""
    if not isinstance(value, str) or not value or "://" in value:
        return value
    return os.path.normpath(folder / Path(value).expanduser())
