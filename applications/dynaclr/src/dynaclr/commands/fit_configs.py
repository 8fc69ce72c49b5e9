"""Commands that look at the data of a configuration of `dynaclr fit`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from viscy_utils.cli.config_files import read_configs
from viscy_utils.cli.early_checks import refuse_missing_data
from viscy_utils.cli.places import noting_places

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    Data = TypeVar("Data", bound=LightningDataModule)

__all__ = ["config_arguments", "configs_option", "load_data", "refuse_missing_configs"]

configs_option = click.option(
    "--config",
    "-c",
    "configs",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Config of `dynaclr fit`; keys of later ones replace those of earlier ones.",
)
"""Gives a command ``configs``, a tuple of paths."""


def refuse_missing_configs(configs: Sequence[Path], unread: Collection[str] = ()) -> None:
    """Refuse configurations that cannot be read, and data that are not there, before anything heavy is imported.

    Parameters
    ----------
    configs : sequence of Path
    unread : collection of str, default ()
        Arguments of the data module that the command does not use.

    Raises
    ------
    InputError
    """
    from dynaclr.cli import DATA_CHECKS

    with noting_places(configs):
        refuse_missing_data(read_configs([str(path) for path in configs]), DATA_CHECKS, unread)


def load_data(configs: Sequence[Path], kind: type[Data], expected: str) -> Data:
    """Build the data module of configurations, not set up.

    Parameters
    ----------
    configs : sequence of Path
    kind : type
        Of data modules that the command can work with.
    expected : str
        What that is called.

    Raises
    ------
    InputError
        For whatever ``fit`` would refuse, and for a data module of another kind.
    """
    from dynaclr.config import load_data_module
    from viscy_data.errors import InputError

    data = load_data_module(configs)
    if isinstance(data, kind):
        return data
    raise InputError(
        ", ".join(map(str, configs)),
        field="data.class_path",
        found=f"{type(data).__module__}.{type(data).__qualname__}",
        expected=expected,
    )


def config_arguments(configs: Sequence[Path]) -> str:
    """Return the configurations as they are given to a command."""
    return " ".join(f"--config {path}" for path in configs)
