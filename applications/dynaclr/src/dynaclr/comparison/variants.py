"""The file of variants: what each of them changes in the base configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viscy_data.errors import InputError, raise_all
from viscy_data.yaml_reading import read_mapping

__all__ = ["Variant", "read_variants"]

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Parameters
    ----------
    name : str
        Also the name of its folder.
    overrides : dict
        Keys of a configuration, nested.
    """

    name: str
    overrides: dict[str, Any]


def read_variants(path: str | Path) -> list[Variant]:
    """Read the variants of a YAML file.

    The file has a mapping ``variants`` from names to keys that replace those of the base, nested or with dots, such as
    ``model.init_args.focal_gamma: 2.0``. A variant without keys is the base itself.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    list of Variant
        In the order of the file.

    Raises
    ------
    InputError
        If the file is missing, no YAML or of another form; all problems together.
    """
    path = Path(path)
    named = read_mapping(path, "a YAML file of variants").get("variants")
    if not isinstance(named, Mapping) or not named:
        raise InputError(
            str(path),
            field="variants",
            found="nothing" if named is None else repr(named),
            expected="a mapping from names to keys, such as {weighted: {model.init_args.focal_gamma: 2.0}}",
        )
    raise_all(_problems(str(path), named))
    return [Variant(str(name), _nested(keys or {})) for name, keys in named.items()]


def _problems(where: str, named: Mapping[Any, Any]) -> Iterator[InputError]:
    for name, keys in named.items():
        if not _NAME.fullmatch(str(name)):
            expected = "letters, digits, _ . + -, as it names a folder"
            yield InputError(where, field=f"variants.{name}", found=repr(name), expected=expected)
        if keys is not None and not isinstance(keys, Mapping):
            expected = "a mapping of keys of the base configuration"
            yield InputError(where, field=f"variants.{name}", found=repr(keys), expected=expected)
            continue
        try:
            _nested(keys or {})
        except ValueError as err:
            yield InputError(where, field=f"variants.{name}", found=str(err), expected="each key once")


def _nested(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into mappings inside each other."""
    nested: dict[str, Any] = {}
    for dotted, value in keys.items():
        *parents, last = str(dotted).split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ValueError(f"{dotted}: {parent} has a value of its own")
        value = _nested(value) if isinstance(value, Mapping) else value
        if isinstance(value, dict) and isinstance(place.get(last), dict):
            place[last] = _joined(place[last], value, dotted)
        elif last in place:
            raise ValueError(f"{dotted} is given twice")
        else:
            place[last] = value
    return nested


def _joined(one: dict[str, Any], other: dict[str, Any], where: str) -> dict[str, Any]:
    joined = dict(one)
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(joined.get(key), dict):
            joined[key] = _joined(joined[key], value, f"{where}.{key}")
        elif key in joined:
            raise ValueError(f"{where}.{key} is given twice")
        else:
            joined[key] = value
    return joined
