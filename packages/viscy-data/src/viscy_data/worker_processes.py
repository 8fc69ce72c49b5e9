"""How worker processes begin, and what a loader hands to them beside the dataset: it imports nothing heavy."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from multiprocessing.context import BaseContext
from typing import Any

__all__ = [
    "PRELOADED",
    "begin_worker",
    "end_with_parent",
    "identity",
    "prepare_workers",
    "seed_transforms",
    "worker_context",
]

PRELOADED = ("torch.utils.data", "pandas", "tensorstore", "viscy_data.batches.dataset")
"""What the server of worker processes imports, once for all of them.

The threads that NumPy's BLAS, numexpr and Arrow start when they are imported are started anew in a fork.
"""


def worker_context() -> BaseContext:
    """Return how worker processes begin: never as forks of this one, whose stores and threads do not survive that.

    On Linux they are forks of a server process that holds nothing but :data:`PRELOADED`, so that the second one begins
    in a fraction of a second. Elsewhere each is spawned: on macOS, forks of a process that has imported may crash.
    """
    if sys.platform == "darwin" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def prepare_workers() -> None:
    """Have the server of worker processes import beside what this process still does before it needs one."""
    if worker_context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()


def begin_worker(worker_id: int) -> None:
    """Seed the worker, and have it end with the process that reads from it."""
    seed_transforms(worker_id)
    end_with_parent()


def end_with_parent() -> None:
    """Have this process end with the one that has begun it, however that one ends.

    torch looks whether the parent is alive, which for forks of a server is the server; and the server waits for them.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def identity(batch: Any) -> Any:
    """Return the batch as it is: the collation of datasets that build whole batches. Pickles."""
    return batch


def seed_transforms(worker_id: int) -> None:
    """Seed MONAI's random transforms that a dataset has brought into this worker, each worker differently."""
    if "monai" in sys.modules:
        from monai.data.utils import worker_init_fn

        worker_init_fn(worker_id)
