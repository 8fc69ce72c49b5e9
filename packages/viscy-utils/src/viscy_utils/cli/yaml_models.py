"""Small YAML files of one command each: a pydantic model says what may be in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from viscy_data.checks import near_matches
from viscy_data.errors import InputError, raise_all
from viscy_data.yaml_reading import read_mapping

__all__ = ["YamlModel", "read_yaml_model"]


class YamlModel(BaseModel):
    """Refuse keys that are not known, and texts of nothing but blanks.

    A check of several fields raises ``ValueError("field: what is wrong")``.
    """

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, str_min_length=1)


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
