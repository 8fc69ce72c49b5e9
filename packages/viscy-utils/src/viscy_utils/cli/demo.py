"""What the demos of applications share: a new folder, configurations that the user may edit, and quiet."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from string import Template

from rich.console import Console
from rich.progress import Progress

__all__ = ["demo_configs", "fov_bar", "quiet_demo", "refuse_filled"]

# What Lightning and friends say to somebody who chose the settings; here the settings are the demo's.
_EXPECTED_WARNINGS = (
    r".*callbacks used to create the checkpoint need to be provided.*",
    r".*does not have many workers.*",
    r".*number of training batches \(\d+\) is smaller than the logging interval.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*Could not find any nodes of type.*",
    r".*different cells balanced over conditions.*",
)
_CHATTY_LOGGERS = ("lightning.pytorch.utilities.rank_zero",)


def refuse_filled(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises
    ------
    FileExistsError
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder: choose another --output-dir")


def demo_configs(package: str, names: Iterable[str], folder: Path, **values: object) -> None:
    """Fill values into the configurations of a package and put them where the user can edit them.

    Parameters
    ----------
    package : str
        Whose folder ``configs`` has them: texts with places such as ``$seed``.
    names : iterable of str
        Of the files.
    folder : Path
        Where to.
    **values
        By the name of their place.
    """
    for name in names:
        text = files(package).joinpath("configs", name).read_text(encoding="utf8")
        (folder / name).write_text(Template(text).substitute(values), encoding="utf8")


@contextmanager
def fov_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar of simulated fields of view; yields the ``progress`` that `viscy_data.synthetic` reports to."""
    with Progress(console=console) as bar:
        task = bar.add_task("Fields of view")
        yield lambda fov, done, total: bar.update(task, completed=done, total=total)


@contextmanager
def quiet_demo() -> Iterator[None]:
    """Keep notices away that the user of a demo can do nothing about."""
    levels = {name: logging.getLogger(name).level for name in _CHATTY_LOGGERS}
    level = os.environ.get("VISCY_LOG_LEVEL")
    os.environ["VISCY_LOG_LEVEL"] = level or "WARNING"
    try:
        for name in _CHATTY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            for message in _EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for name, number in levels.items():
            logging.getLogger(name).setLevel(number)
        if level is None:
            del os.environ["VISCY_LOG_LEVEL"]
