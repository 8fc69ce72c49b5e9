"""Commands whose options are in a small YAML file, an example of which is in their help."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from viscy_data.yaml_reading import read_mapping
from viscy_utils.cli.application import CONTEXT_SETTINGS
from viscy_utils.cli.errors import report_errors
from viscy_utils.cli.yaml_models import read_yaml_model, refuse_missing_inputs

__all__ = ["config_command"]


def config_command(name: str, runs: str, config: str, summary: str, example: str, replaces: str = "") -> click.Command:
    """Make a command that takes its configuration; what does the work is imported when it runs.

    Parameters
    ----------
    name : str
        Of the command.
    runs : str
        ``"module:function"``: called with the path of the configuration, and ``overwrite`` if it may replace something.
    config : str
        ``"module:class"``: the model of the configuration. What it refuses, and paths that it marks as read and that
        are not there, are refused before ``runs`` is imported.
    summary : str
        What the command does.
    example : str
        A configuration, indented by two.
    replaces : str, optional
        What the flag ``--overwrite`` lets it replace, such as "an existing classifier"; without, there is no flag.
    """

    def command(path: Path, **options: bool) -> None:
        read_mapping(path, f"a YAML file as in the example of dynaclr {name} --help")
        refuse_missing_inputs(read_yaml_model(path, _imported(config)))
        _imported(runs)(path, **options)

    file = click.Path(path_type=Path)
    params = [click.Option(["--config", "-c", "path"], required=True, type=file, help="YAML file, see below.")]
    if replaces:
        params.append(click.Option(["--overwrite"], is_flag=True, help=f"Replace {replaces}."))
    return click.Command(
        name,
        callback=report_errors("dynaclr")(command),
        params=params,
        help=summary,
        epilog=f"\b\nExample:\n{example}",
        context_settings=CONTEXT_SETTINGS,
    )


def _imported(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(module), name)
