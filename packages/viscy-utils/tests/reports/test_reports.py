"""Tables, files and numbers of reports."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from viscy_utils.reports.files import json_line, json_text, write_text
from viscy_utils.reports.numbers import duration, significant
from viscy_utils.reports.tables import Marked, ReportTable, csv_text


def test_json_has_null_for_what_is_no_number_and_leaves_texts_alone():
    content = {"NaN": ["NaN", float("nan"), np.float32("inf"), np.arange(2)], "name": "NaN or Infinity"}
    for text in (json_text(content), json_line(content)):
        assert json.loads(text) == {"NaN": ["NaN", None, None, [0, 1]], "name": "NaN or Infinity"}
    assert json_line(content).count("\n") == 1


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.text(max_size=8), min_size=2), min_size=1, max_size=3))
def test_csv_is_read_back_as_it_was_written(records):
    assume = [{key: record[key] for key in "ab"} for record in records]
    text = csv_text(assume)
    if not any("\r" in value or "\0" in value for record in assume for value in record.values()):
        assert list(csv.DictReader(io.StringIO(text))) == assume


def test_text_is_no_markup_on_any_page():
    table = ReportTable("[title]", ["a|b", ""], [["[red]x[/red]", Marked("y\nz", "bad")]])
    page = io.StringIO()
    Console(file=page, width=60).print(table.terminal())
    assert "[red]x[/red]" in page.getvalue()
    assert "[title]" in page.getvalue()
    assert table.markdown().splitlines()[2:] == [r"| a\|b |  |", "|---|---|", "| [red]x[/red] | y<br>z |"]


@given(st.floats(1e-4, 1e4))
def test_two_significant_digits_are_within_a_twentieth(value):
    assert float(significant(value)) == pytest.approx(value, rel=0.05)
    assert "e" not in significant(value)


@given(st.floats(1e-4, 1e4))
def test_a_duration_is_the_time_in_a_unit_that_suits(hours):
    amount, unit = duration(hours).split()
    seconds = {"s": 1, "min": 60, "h": 3600, "d": 86400}[unit]
    assert float(amount) * seconds / 3600 == pytest.approx(hours, rel=0.05)
    assert float(amount) < 1000 or unit == "d"


def test_hours_and_minutes_are_read_off():
    assert [duration(hours) for hours in (0, 1 / 60, 0.25, 1, 1.25, 47, 72)] == [
        "0 s", "1 min", "15 min", "1 h", "1.2 h", "47 h", "3 d",
    ]  # fmt: skip
    assert significant(math.inf) == "inf"


def test_a_file_is_replaced_whole(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "one")
    write_text(tmp_path / "new" / "a.txt", "two")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text() == "two"
