"""The data module of a configuration, without its model and trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import LightningDataModule

from viscy_utils.cli.lightning_cli import DataModuleCLI, run

__all__ = ["load_data_module"]


def load_data_module(configs: Sequence[str | Path], prog: str = "viscy") -> LightningDataModule:
    """Build the data module that configs of ``fit`` or ``predict`` describe.

    Parameters
    ----------
    configs : sequence of str or Path
        YAML files with a block ``data``; keys of later ones replace those of earlier ones.
    prog : str, default "viscy"
        Name of the command in messages.

    Returns
    -------
    LightningDataModule
        Not set up.

    Raises
    ------
    InputError
        For whatever ``fit`` would refuse, except that there is no block ``model``.
    """
    arguments = ["fit"]
    for path in configs:
        arguments += ["--config", str(path)]
    return run(arguments, prog, DataModuleCLI).datamodule
