"""Work in independent pieces: in threads of this process, in processes of this machine, or on a Dask cluster.

Whoever does it, results come one by one in the order of the pieces, and are the same.

>>> list(map_pieces(abs, [-1, 2, -3], workers=2))
[1, 2, 3]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from viscy_data.errors import InputError
from viscy_data.optional import require
from viscy_data.worker_processes import end_with_parent, worker_context

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["LOCAL", "map_pieces"]

P = TypeVar("P")
R = TypeVar("R")

LOCAL = "local"
"""The address that stands for processes on this machine, which end with the work; Dask is not needed for them."""

_MOST_LOSSES = 3  # of workers in a row, with no result between


def map_pieces(
    function: Callable[[P], R], pieces: Sequence[P], *, workers: int | None = None, dask: str | None = None
) -> Iterator[R]:
    """Call a function with each piece.

    Parameters
    ----------
    function : callable
        With an argument, a result and exceptions that can be pickled, where processes do the work. A piece that a lost
        worker had, done or not, is done again by another one: it has to be as good twice.
    pieces : sequence
    workers : int, optional
        Threads, or processes of ``dask="local"``; one per CPU by default. A running cluster has its own.
    dask : str, optional
        Scheduler of a running Dask cluster, such as ``tcp://host:8786``, which sees the same files under the same paths
        and has the same packages; or ``local`` for processes of this machine. Threads by default. A scheduler runs what
        anybody sends who reaches it; to processes of this machine only this one speaks, through pipes.

    Yields
    ------
    result
        In the order of the pieces, as soon as it and those before it are there.

    Raises
    ------
    InputError
        If there is no scheduler at this address.
    ImportError
        If a cluster is asked for and Dask not installed.
    BrokenProcessPool
        If processes of this machine are lost again and again.
    Exception
        What the function raises.
    """
    workers = workers or os.cpu_count()
    if dask is None:
        with ThreadPoolExecutor(workers, thread_name_prefix="pieces") as pool:
            yield from pool.map(function, pieces)
        return
    if dask == LOCAL:
        yield from _in_processes(function, pieces, workers)
        return
    with _client(dask) as client:
        futures = client.map(function, pieces, pure=False)
        for number in range(len(futures)):
            yield futures[number].result()
            futures[number] = None  # the cluster forgets what has been taken


def _in_processes(function: Callable[[P], R], pieces: Sequence[P], workers: int) -> Iterator[R]:
    """Have processes do the work; where one is lost, and with it its pool, another pool does what is left."""
    done = losses = 0
    while done < len(pieces):
        pool = ProcessPoolExecutor(min(workers, len(pieces)), worker_context(), initializer=end_with_parent)
        try:
            for result in pool.map(function, pieces[done:]):
                yield result
                done, losses = done + 1, 0
        except BrokenProcessPool:
            losses += 1
            if losses > _MOST_LOSSES:
                raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _client(address: str) -> Iterator[Client]:
    distributed = require("dask.distributed", extra="dask")
    try:
        client = distributed.Client(address)
    except (OSError, ValueError) as err:
        raise InputError(
            "dask",
            found=f"{address}: {err}",
            expected="the address of a running scheduler, such as tcp://host:8786, or local",
            fix="start one, or leave it out: threads of this process do the work then",
        ) from err
    with client:
        yield client
