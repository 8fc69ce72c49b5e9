"""Options of commands whose work is in independent pieces: how many do it, and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

__all__ = ["work_options"]


def work_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command ``workers`` and ``dask``, as :func:`viscy_data.pieces.map_pieces` takes them."""
    dask = click.option(
        "--dask",
        "--dask-address",
        metavar="ADDRESS",
        help="Scheduler of a running Dask cluster that does the work, tcp://host:8786; or local, for processes of this "
        "machine instead of threads.",
    )
    workers = click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Threads, or processes of --dask local, that do the work; by default one per CPU.",
    )
    return workers(dask(command))
