"""Commands of applications, and what their demos share."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from functools import partial
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from viscy_utils.cli import Subcommand
from viscy_utils.cli.application import application, run_application
from viscy_utils.cli.demo import demo_configs, quiet_demo, refuse_filled


@click.command()
@click.option("--name", required=True, help="Who is met.")
def greet(name):
    """Say hello."""
    click.echo(f"hello {name}")


@pytest.fixture
def cells(monkeypatch):
    monkeypatch.setitem(sys.modules, "cells_commands", SimpleNamespace(greet=greet))
    return application("cells", "Count cells.", {"greet": Subcommand("say hello", runs="cells_commands:greet")})


def test_own_commands_run_with_their_options_and_help(cells):
    run = CliRunner().invoke
    assert run(cells, ["greet", "--name", "Ada"]).output == "hello Ada\n"
    assert "Who is met." in run(cells, ["greet", "--help"]).output
    assert run(cells, ["greet"]).exit_code == 2
    page = run(cells, ["--help"]).output
    assert "Count cells." in page
    for name in ("greet", "fit", "predict", "preprocess", "export"):
        assert name in page


def test_lightning_commands_get_their_arguments_untouched_and_the_name_of_the_application(cells):
    stop = CliRunner().invoke(cells, ["fit", "--config"])
    assert stop.exit_code == 2
    assert stop.stderr.startswith("cells: error")


@pytest.mark.parametrize("debug", ["", "1"])
def test_warnings_are_sentences_but_when_debugging(monkeypatch, debug):
    @click.command()
    def count():
        click.echo(warnings.formatwarning("12 cells are left out", UserWarning, "counting.py", 3, "warn(text)"))

    monkeypatch.setenv("VISCY_DEBUG", debug)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back afterwards
    monkeypatch.setattr("viscy_utils.cli.application.share_cores", lambda: None)
    group = click.Group("cells", commands=[count])
    monkeypatch.setattr(group, "main", partial(group.main, ["count"], standalone_mode=False))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        run_application(group)
    assert ("counting.py" in said.getvalue()) == bool(debug)
    assert "12 cells are left out" in said.getvalue()
    assert said.getvalue().startswith("warning: ") != bool(debug)


def test_a_folder_that_holds_something_is_refused(tmp_path):
    refuse_filled(tmp_path / "new")
    refuse_filled(tmp_path)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(FileExistsError, match="choose another --output-dir"):
            refuse_filled(path)


def test_configs_of_a_package_are_filled(tmp_path, monkeypatch):
    (tmp_path / "shipped" / "configs").mkdir(parents=True)
    (tmp_path / "shipped" / "__init__.py").touch()
    (tmp_path / "shipped" / "configs" / "fit.yml").write_text("seed: $seed\n")
    monkeypatch.syspath_prepend(tmp_path)
    demo_configs("shipped", ["fit.yml"], tmp_path, seed=3)
    assert (tmp_path / "fit.yml").read_text() == "seed: 3\n"
    with pytest.raises(KeyError, match="seed"):
        demo_configs("shipped", ["fit.yml"], tmp_path)


def test_a_demo_is_quiet_and_leaves_no_trace(monkeypatch):
    monkeypatch.delenv("VISCY_LOG_LEVEL", raising=False)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    with quiet_demo():
        warnings.warn("the loader does not have many workers", stacklevel=1)
        assert logger.level == logging.ERROR
        assert os.environ["VISCY_LOG_LEVEL"] == "WARNING"
    assert logger.level == level
    assert "VISCY_LOG_LEVEL" not in os.environ
    with pytest.warns(UserWarning, match="unexpected"), quiet_demo():
        warnings.warn("unexpected", stacklevel=1)
