"""The command itself; torch and Lightning are imported only when it has found a subcommand."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import MappingProxyType

from viscy_data.checks import near_matches
from viscy_data.errors import InputError
from viscy_utils.cli.errors import report_errors
from viscy_utils.cli.subcommands import SUBCOMMANDS, format_help, name_in

__all__ = ["main", "share_cores"]


def share_cores() -> None:
    """Let idle compute threads sleep instead of spin; has an effect before torch is imported.

    Reading, augmenting and training share the cores. A pool of OpenMP threads that spins while it waits takes the core
    that another thread or process needs: training steps on two busy cores have been seen to take 20 times as long.
    An ``OMP_WAIT_POLICY`` that the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(
    args: list[str] | None = None, prog: str = "viscy", data_checks: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Run the command line.

    Parameters
    ----------
    args : list of str, optional
        Arguments after the name of the command; those of the process by default. A strategy that starts further
        processes (``ddp``) starts them with the arguments of this process, so other ones only suit single processes.
    prog : str, default "viscy"
        Name of the command in help and messages.
    data_checks : mapping of str to str, optional
        By package and class of a data module, such as ``viscy_data.HCSDataModule``, the ``"module:function"`` that
        refuses its ``init_args`` before torch is imported.

    Raises
    ------
    SystemExit
        With 2 for bad input and 1 for any other error, after one paragraph on standard error.
    """
    args = sys.argv[1:] if args is None else list(args)
    if not args:
        sys.stderr.write(format_help(prog))
        raise SystemExit(2)
    if args[0] in ("-h", "--help"):
        sys.stdout.write(format_help(prog))
        return
    if args[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"{prog} {version('viscy-utils')}\n")
        return
    if args[0] in SUBCOMMANDS and args[1:] in (["-h"], ["--help"]):
        from viscy_utils.cli.subcommand_help import format_subcommand_help

        sys.stdout.write(format_subcommand_help(args[0], prog))
        return
    share_cores()
    with report_errors(prog):
        _check_subcommand(args, prog)
        from viscy_utils.cli.early_checks import refuse_early

        refuse_early(args, prog, data_checks)
        from viscy_utils.cli.lightning_cli import run

        run(args, prog)


def _check_subcommand(args: list[str], prog: str) -> None:
    """Reject a misspelt subcommand before anything heavy is imported."""
    if name_in(args) or args[0].startswith("-"):
        return
    near = near_matches(args[0], SUBCOMMANDS, otherwise=f"see {prog} --help")
    raise InputError(f"{prog} {args[0]}", found=f"no subcommand {args[0]!r}", fix=near)
