r"""Read YAML as people mean it, and refuse what they cannot have meant.

A key that is given twice is refused, with both lines: YAML would take the last one and say nothing. Numbers are those
of YAML 1.2: ``3e1`` is thirty, while ``0:30``, ``010`` and ``2024-05-02`` stay the text that they look like, since they
name times, FOVs and days.

>>> parse_yaml("lr: 3e-4\nfov: 010")
{'lr': 0.0003, 'fov': '010'}
>>> parse_yaml("wells: 1\nwells: 2")
Traceback (most recent call last):
    ...
viscy_data.yaml_reading.DuplicateKeyError: the key 'wells' is given twice, in lines 1 and 2
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from viscy_data.errors import InputError
from viscy_data.files import missing_path

__all__ = ["DuplicateKeyError", "dump_yaml", "parse_yaml", "read_mapping", "read_yaml"]

_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F][0-9a-fA-F_]*|0b[01][01_]*)$")
_FLOAT = re.compile(
    r"^[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9_]+)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+)$"
    r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)
_MOST_VALUES = 1_000_000  # that aliases may stand for
_MERGE = "tag:yaml.org,2002:merge"
_REPLACED = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))


class DuplicateKeyError(yaml.YAMLError):
    """A mapping has a key twice.

    Parameters
    ----------
    key : object
    first, second : int
        Lines, from 1.
    """

    def __init__(self, key: object, first: int, second: int) -> None:
        self.key, self.first, self.second = key, first, second
        super().__init__(f"the key {key!r} is given twice, in lines {first} and {second}")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Look at the keys as they are written, before merged mappings (``<<``) add theirs."""
        lines: dict[Any, int] = {}
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                merges = key_node.tag == _MERGE
                key, line = key_node.value if merges else self.construct_object(key_node), key_node.start_mark.line + 1
                if key in lines:
                    raise DuplicateKeyError(key, lines[key], line)
                lines[key] = line
                if merges:
                    self._look_at_merged(value_node)
        return super().construct_mapping(node, deep)

    def _look_at_merged(self, node: yaml.Node) -> None:
        """Construct what is merged in for its own sake: merging takes its keys without a look at them."""
        for merged in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(merged, yaml.MappingNode) and merged not in self.constructed_objects:
                self.construct_object(merged, deep=True)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


class _Dumper(yaml.SafeDumper):
    """Puts in quotes whatever either dialect would take for something else than text."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Write the line ends of Unicode as escapes, which PyYAML folds away in any other style."""
        style = '"' if any(sign in data for sign in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)

_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def dump_yaml(value: Any) -> str:
    """Write plain values as YAML that :func:`parse_yaml` and others read alike."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse_yaml(text: str) -> Any:
    """Parse YAML; plain values only.

    Raises
    ------
    yaml.YAMLError
        If it is no YAML, or has a key twice (:class:`DuplicateKeyError`).
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_bomb(node)
        return loader.construct_document(node)
    except ValueError as err:  # of a value that is not what its tag says, such as !!int x
        raise yaml.YAMLError(str(err)) from err
    except RecursionError as err:
        raise yaml.YAMLError("lists or mappings in each other, hundreds deep") from err
    finally:
        loader.dispose()


def _refuse_bomb(root: yaml.Node) -> None:
    """Refuse aliases that stand for millions of values, or for a value that contains itself."""
    sizes: dict[yaml.Node, int] = {}  # with everything inside; 0 while that is being counted

    def size(node: yaml.Node) -> int:
        if node in sizes:
            if not sizes[node]:
                raise yaml.YAMLError("an alias of a value that contains itself")
            return sizes[node]
        sizes[node] = 0
        inside = node.value if isinstance(node, yaml.CollectionNode) else []
        sizes[node] = 1 + sum(sum(map(size, entry)) if isinstance(entry, tuple) else size(entry) for entry in inside)
        return sizes[node]

    n_values = size(root)
    if n_values > _MOST_VALUES and n_values > 10 * len(sizes):
        raise yaml.YAMLError(f"aliases that stand for {n_values} values, of which the file has {len(sizes)}")


def read_yaml(path: str | Path, expected: str = "a YAML file") -> Any:
    """Read a YAML file; plain values only.

    Parameters
    ----------
    path : str or Path
    expected : str, default "a YAML file"
        What the file is for, said when there is none.

    Raises
    ------
    InputError
        If it is missing, cannot be read, is no YAML or has a key twice.
    """
    path = Path(path)
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise missing_path(path, expected=expected) from err
    except DuplicateKeyError as err:
        found = f"given twice, in lines {err.first} and {err.second}"
        raise InputError(str(path), field=str(err.key), found=found, fix="keep one of the two") from err
    except yaml.YAMLError as err:
        found = f"no YAML: {_without_name(err)}"
        raise InputError(str(path), found=found, expected=f"valid YAML, {expected}") from err
    except UnicodeDecodeError as err:
        raise InputError(str(path), found="a file that is no text", expected=expected) from err
    except OSError as err:
        found = "a folder" if path.is_dir() else err.strerror or str(err)
        raise InputError(str(path), found=found, expected=expected) from err


def read_mapping(path: str | Path, expected: str = "keys and values") -> dict[str, Any]:
    """Read a YAML file that holds keys and values.

    Raises
    ------
    InputError
        As :func:`read_yaml`, and if the file is empty or something else than a mapping.
    """
    content = read_yaml(path, expected)
    if isinstance(content, dict):
        return content
    kinds = {list: "a list", str: "text"}
    found = "an empty file" if content is None else f"{kinds.get(type(content), 'a value')} without keys"
    raise InputError(str(path), found=found, expected=expected)


def _without_name(error: yaml.YAMLError) -> str:
    """Word a syntax error in one line; the text has no name, the file is named beside it."""
    return " ".join(str(error).replace('in "<unicode string>", ', "in ").split())
