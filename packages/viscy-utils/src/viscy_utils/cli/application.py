"""The command of an application: shared subcommands beside its own, none imported before it is used.

>>> from viscy_utils.cli.application import application
>>> cells = application("cells", "Count cells.", {})
>>> "fit" in cells.commands
True

Subcommands of Lightning (``fit``, ``predict`` ...) hand their arguments to :func:`viscy_utils.cli.main` untouched. An
application's own are click commands.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

import click

from viscy_utils.cli.command import main, share_cores
from viscy_utils.cli.subcommands import SUBCOMMANDS, Subcommand

__all__ = ["CONTEXT_SETTINGS", "LazyCommand", "LightningCommand", "application", "run_application"]

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


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
    prog : str
        Name of the application in messages.
    data_checks : mapping of str to str
        As for :func:`viscy_utils.cli.main`.
    """

    def __init__(self, name: str, short_help: str, prog: str, data_checks: Mapping[str, str]) -> None:
        super().__init__(name, short_help=short_help, add_help_option=False)
        self.prog, self.data_checks = prog, data_checks

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments as they are."""
        ctx.args = list(args)
        return ctx.args

    def invoke(self, ctx: click.Context) -> None:
        """Run the Lightning command line."""
        main([self.name, *ctx.args], self.prog, self.data_checks)


def application(
    prog: str,
    summary: str,
    own_commands: Mapping[str, Subcommand],
    data_checks: Mapping[str, str] = MappingProxyType({}),
) -> click.Group:
    """Put the command of an application together.

    Parameters
    ----------
    prog : str
        Its name.
    summary : str
        What it is for, above the subcommands in ``--help``.
    own_commands : mapping of str to Subcommand
        Its own subcommands: ``runs`` names their click commands.
    data_checks : mapping of str to str, optional
        Of its data modules, see :func:`viscy_utils.cli.main`.
    """
    commands: list[click.Command] = [
        LightningCommand(name, shared.help, prog, data_checks) for name, shared in SUBCOMMANDS.items()
    ]
    for name, own in own_commands.items():
        commands.append(LazyCommand(name, own.runs, help=own.help, short_help=own.help))
    return click.Group(prog, commands=commands, context_settings=CONTEXT_SETTINGS, help=summary)


def run_application(group: click.Group) -> None:
    """Run the command of an application with the arguments of the process: what its console script calls.

    Warnings are shown as sentences; with ``VISCY_DEBUG`` also where they come from.
    """
    share_cores()
    if not os.environ.get("VISCY_DEBUG"):
        warnings.formatwarning = _as_sentence
    group(prog_name=group.name)


def _as_sentence(message: Warning | str, *_: object, **__: object) -> str:
    """Word a warning without the line of code that it comes from, which tells a user nothing."""
    return f"warning: {message}\n"
