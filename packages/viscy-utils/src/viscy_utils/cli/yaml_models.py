"""Small YAML files of one command each: a pydantic model says what may be in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from viscy_data.checks import near_matches
from viscy_data.errors import InputError, raise_all
from viscy_data.optional import from_extra
from viscy_data.yaml_reading import read_mapping

with from_extra("eval", package="viscy-utils"):
    from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["Reads", "YamlModel", "read_yaml_model", "refuse_missing_inputs"]


class YamlModel(BaseModel):
    """Refuse keys that are not known, and texts of nothing but blanks.

    A check of several fields raises ``ValueError("field: what is wrong")``.
    """

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, str_min_length=1)


@dataclass(frozen=True)
class Reads:
    """Mark a field as a path, or paths, to read: ``Annotated[str, Reads(refuse)]``.

    Parameters
    ----------
    refuse : callable
        Called with a path; raises an InputError if there is nothing to read. It should import nothing heavy.
    """

    refuse: Callable[[str], object]


_Model = TypeVar("_Model", bound=YamlModel)


def read_yaml_model(path: str | Path, kind: type[_Model]) -> _Model:
    """Read a YAML file of a kind.

    Parameters
    ----------
    path : str or Path
    kind : type of YamlModel

    Raises
    ------
    InputError
        Naming the file and each field that cannot be used.
    """
    content = read_mapping(path, f"a YAML file with keys such as {', '.join(kind.model_fields)}")
    try:
        return kind(**content)
    except ValidationError as err:
        raise_all(_problem(str(path), kind, each) for each in err.errors(include_url=False))
        raise


def refuse_missing_inputs(config: YamlModel) -> None:
    """Refuse the first path that is to be read and is not there, in nested models too.

    Raises
    ------
    InputError
        As the :class:`Reads` of its field says.
    """
    for name, field in type(config).model_fields.items():
        value, marks = getattr(config, name), [mark for mark in field.metadata if isinstance(mark, Reads)]
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, YamlModel):
                refuse_missing_inputs(entry)
            elif entry is not None:
                for mark in marks:
                    mark.refuse(entry)


def _problem(where: str, kind: type[YamlModel], error: Any) -> InputError:
    field = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return InputError(where, field=field, found="an unknown key", expected=near_matches(field, kind.model_fields))
    if error["type"] == "missing":
        return InputError(where, field=field, found="nothing", expected="a value")
    message = error["msg"].removeprefix("Value error, ")
    if field:
        message = message.removeprefix("Input should be ")
        return InputError(where, field=field, found=repr(error["input"]), expected=message)
    field, _, found = message.partition(": ")  # as a check of several fields writes it
    return InputError(where, field=field, found=found)
