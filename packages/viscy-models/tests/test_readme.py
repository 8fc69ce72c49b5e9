"""The table of the README says what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import viscy_models

PACKAGE = Path(__file__).parents[1]
TABLE = runpy.run_path(str(PACKAGE / "examples" / "table.py"))


def test_every_architecture_has_a_row():
    architectures = {name for name in viscy_models.__all__ if name not in ("__version__", "load_weights")}
    assert {row.name for row in TABLE["ROWS"]} == architectures


@pytest.mark.parametrize("row", TABLE["ROWS"], ids=lambda row: row.name)
def test_counted_columns_are_those_of_the_code(row):
    counted = TABLE["counted"](row)
    assert f"\n{counted} " in (PACKAGE / "README.md").read_text(encoding="utf8")


def test_only_what_is_between_the_markers_is_replaced():
    text = f"before {TABLE['BEGIN']} old {TABLE['END']} after"
    once = TABLE["replace"](text, "| new |")
    assert once == f"before {TABLE['BEGIN']}\n\n| new |\n\n{TABLE['END']} after"
    assert TABLE["replace"](once, "| new |") == once
