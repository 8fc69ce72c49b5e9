"""The `dynaclr` command: names of subcommands and where they live; nothing is imported before it is used.

Two kinds of subcommand share one command line. Those of Lightning (``fit``, ``predict`` ...) hand their arguments to
:func:`viscy_utils.cli.main` untouched. The application's own are click commands in :mod:`dynaclr.commands`.
"""

from __future__ import annotations

from importlib import import_module

import click

from viscy_utils.cli import SUBCOMMANDS, Subcommand, share_cores
from viscy_utils.cli import main as lightning_main

__all__ = ["CONTEXT_SETTINGS", "LazyCommand", "LightningCommand", "main"]

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}

OWN_COMMANDS = {
    "init": Subcommand("write the two YAML files for your own stores and tracks", runs="dynaclr.commands.init:init"),
    "demo": Subcommand(
        "simulate experiments, train, predict and report, in a few minutes", runs="dynaclr.commands.demo:demo"
    ),
    "build-index": Subcommand(
        "save the table of cells of an experiments YAML", runs="dynaclr.commands.build_index:build_index"
    ),
    "import-tracks": Subcommand(
        "bring the tracks of other programs beside a store", runs="dynaclr.commands.import_tracks:import_tracks"
    ),
    "inspect-batches": Subcommand(
        "show what a config puts into its batches, before training",
        runs="dynaclr.commands.inspect_batches:inspect_batches",
    ),
    "compare-losses": Subcommand(
        "train variants of a config alike and judge them", runs="dynaclr.commands.compare_losses:compare_losses"
    ),
    "evaluate": Subcommand(
        "probe, mixing and smoothness of written embeddings", runs="dynaclr.commands.evaluate:evaluate"
    ),
    "correct": Subcommand(
        "take an experiment's share out of embeddings, by control cells", runs="dynaclr.commands.correct:correct"
    ),
    "train-linear-classifier": Subcommand(
        "train a classifier of an annotation on embeddings",
        runs="dynaclr.commands.train_linear_classifier:train_linear_classifier",
    ),
    "apply-linear-classifier": Subcommand(
        "add the predictions of a classifier to embeddings",
        runs="dynaclr.commands.apply_linear_classifier:apply_linear_classifier",
    ),
}


class LazyCommand(click.Command):
    """A click command that imports its implementation when it is used.

    Parameters
    ----------
    name : str
        Name of the subcommand.
    import_path : str
        ``"module:attribute"`` of the click command that does the work.
    help, short_help : str, optional
        Shown by ``--help`` of the group, without an import.
    """

    def __init__(self, name: str, import_path: str, help: str | None = None, short_help: str | None = None) -> None:
        super().__init__(name, help=help, short_help=short_help, context_settings=CONTEXT_SETTINGS)
        self.import_path = import_path

    def load(self) -> click.Command:
        """Import and return the command behind the name."""
        module, attribute = self.import_path.split(":")
        return getattr(import_module(module), attribute)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters of the command behind the name."""
        return self.load().get_params(ctx)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of the command behind the name."""
        self.load().format_help(ctx, formatter)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command behind the name with the parsed parameters."""
        return self.load().invoke(ctx)


class LightningCommand(click.Command):
    """A subcommand whose arguments belong to the Lightning command line, ``--help`` included.

    Parameters
    ----------
    name : str
        Name of the Lightning subcommand.
    short_help : str
        Shown by ``--help`` of the group.
    """

    def __init__(self, name: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help, add_help_option=False)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments as they are."""
        ctx.args = list(args)
        return ctx.args

    def invoke(self, ctx: click.Context) -> None:
        """Run the Lightning command line."""
        lightning_main([self.name, *ctx.args], prog="dynaclr")


def _command(name: str, subcommand: Subcommand) -> click.Command:
    if subcommand.is_lightning:
        return LightningCommand(name, subcommand.help)
    return LazyCommand(name, subcommand.runs, help=subcommand.help, short_help=subcommand.help)


@click.group(
    context_settings=CONTEXT_SETTINGS,
    commands=[_command(name, subcommand) for name, subcommand in {**SUBCOMMANDS, **OWN_COMMANDS}.items()],
)
def cli() -> None:
    """Contrastive learning of cell dynamics across time-lapse experiments."""


def main() -> None:
    """Run the console script ``dynaclr``."""
    share_cores()
    cli(prog_name="dynaclr")
