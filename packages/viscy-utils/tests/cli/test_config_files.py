"""Configuration files: one dialect, and nothing in them without an effect."""

from __future__ import annotations

import pytest
from jsonargparse import ArgumentParser

from viscy_data.errors import InputError
from viscy_utils.cli.config_files import config_paths, dropped_keys, read_configs
from viscy_utils.cli.parser_mode import PARSER_MODE


def test_config_files_are_found_in_any_spelling():
    assert config_paths(["fit", "-c", "a.yml", "--config=b.yml", "--trainer.x", "1", "--config", "c.yml"]) == [
        "a.yml",
        "c.yml",
        "b.yml",
    ]


@pytest.mark.parametrize(
    ("text", "expected"), [("3e1", 30.0), ("12", 12), ("null", None), ("[1e-3, 2]", [1e-3, 2]), ("{a: 1}", {"a": 1})]
)
def test_values_of_the_command_line_are_read_as_those_of_files(text, expected):
    parser = ArgumentParser(parser_mode=PARSER_MODE, exit_on_error=False)
    parser.add_argument("--value", type=float | list | dict | None)
    assert parser.parse_args([f"--value={text}"]).value == expected


@pytest.mark.parametrize("text", ["0:30", "{a}", "a:"])
def test_text_stays_text(text):
    parser = ArgumentParser(parser_mode=PARSER_MODE, exit_on_error=False)
    parser.add_argument("--value", type=int | dict | str)
    assert parser.parse_args([f"--value={text}"]).value == text


@pytest.mark.parametrize(
    ("written", "parsed", "dropped"),
    [
        ({"foo": {}}, {}, ["foo"]),
        ({"trainer": {"foo": {}, "kwargs": {}}}, {"trainer": {"kwargs": {}}}, ["trainer.foo"]),
        ({"data": {"class_path": "a.B", "init_args": {}}}, {"data": {"class_path": "a.B"}}, []),
        ({"list": [{"class_path": "B", "init_args": {"foo": {}}}]}, {"list": [{"class_path": "a.B", "init_args": {}}]},
         ["list.init_args.foo"]),
        ({"model": {"class_path": "a.B", "init_args": {"foo": {}}}}, {"model": {"class_path": "a.C"}}, []),
        ({"data": {"class_path": "a.B", "init_args": {"foo": {"x": 1}}}}, {"data": {"class_path": "a.B"}}, []),
    ],
)  # fmt: skip
def test_keys_without_a_value_that_came_to_nothing_are_found(written, parsed, dropped):
    assert list(dropped_keys(written, parsed)) == dropped


def test_empty_and_double_files_are_named(tmp_path):
    path = tmp_path / "fit.yml"
    path.write_text("")
    with pytest.raises(InputError, match="an empty file"):
        read_configs([str(path)])
    path.write_text("trainer: {}\nmodel: {}\ntrainer: {}")
    with pytest.raises(InputError, match="given twice, in lines 1 and 3"):
        read_configs([str(path)])
