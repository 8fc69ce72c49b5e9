"""The mode in which jsonargparse reads YAML as :mod:`viscy_data.yaml_reading` does."""

from __future__ import annotations

from typing import Any

import yaml
from jsonargparse import set_dumper, set_loader

from viscy_data.yaml_reading import dump_yaml, parse_yaml

__all__ = ["PARSER_MODE"]

PARSER_MODE = "viscy_yaml"
"""For the argument ``parser_mode`` of parsers."""


def _load(text: str) -> Any:
    """Parse a file or a single value of the command line; ``{a}`` and ``a:`` as a value are text, not keys."""
    value = parse_yaml(text)
    no_values = isinstance(value, dict) and value and all(item is None for item in value.values())
    return text if no_values and "\n" not in text.strip() else value


set_loader(PARSER_MODE, _load, (yaml.YAMLError,))
set_dumper(PARSER_MODE, dump_yaml)
