"""The `cytoland` command: the shared subcommands and its demo; nothing is imported before it is used."""

from __future__ import annotations

from viscy_utils.cli import Subcommand
from viscy_utils.cli.application import application, run_application

__all__ = ["cli", "main"]

OWN_COMMANDS = {
    "demo": Subcommand(
        "simulate a plate, train, predict and compare with a linear filter", runs="cytoland.commands.demo:demo"
    ),
}

cli = application("cytoland", "Virtual staining: from label-free stacks to fluorescence.", OWN_COMMANDS)


def main() -> None:
    """Run the console script ``cytoland``."""
    run_application(cli)
