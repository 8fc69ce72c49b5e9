"""Small text formats of the command line: configurations in, Markdown tables out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from viscy_data.yaml_reading import read_yaml

__all__ = ["format_markdown_table", "load_config"]


def format_markdown_table(
    data: dict[str, Any] | list[dict[str, Any]], title: str | None = None, headers: list[str] | None = None
) -> str:
    """Render a dict (two columns) or a list of dicts (one row each) as a Markdown table.

    Parameters
    ----------
    data : dict or list of dict
        Keys are shown in title case with spaces for underscores, floats with three decimals.
    title : str, optional
        Heading above the table.
    headers : list of str, optional
        Column names; "Metric" and "Value", or the keys of the first row, by default.

    Returns
    -------
    str
        Ending in a newline; empty for an empty list.

    Examples
    --------
    >>> print(format_markdown_table({"train_accuracy": 0.5}))  # doctest: +NORMALIZE_WHITESPACE
    | Metric | Value |
    |---------|--------|
    | Train Accuracy | 0.500 |
    """
    if isinstance(data, dict):
        headers = headers or ["Metric", "Value"]
        rows = [[_title(key), _cell(value)] for key, value in data.items()]
    else:
        if not data:
            return ""
        keys = headers or list(data[0])
        headers = [_title(key) for key in keys]
        rows = [[_cell(row.get(key, "")) for key in keys] for row in data]
    lines = [f"## {title}", ""] if title else []
    lines.append(_row(headers))
    lines.append("|" + "|".join("-" * (len(name) + 3) for name in headers) + "|")
    return "\n".join([*lines, *map(_row, rows)]) + "\n"


def load_config(config_path: str | Path) -> dict[str, Any]:
    """Read a YAML file; plain values only (:func:`viscy_data.yaml_reading.read_yaml`).

    Raises
    ------
    InputError
        If it is missing, no YAML, or has a key twice.
    """
    return read_yaml(config_path)


def _title(key: str) -> str:
    return str(key).replace("_", " ").title()


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
