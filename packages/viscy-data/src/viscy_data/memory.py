"""Memory of the machine: what a file declares must fit into it, and what is not needed any more goes back to it."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from viscy_data.errors import InputError

__all__ = ["give_back", "memory_bytes", "refuse_too_large"]

_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def give_back() -> None:
    """Return to the system what many small arrays have left free: the C library of Linux keeps it, for more of them."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def memory_bytes() -> int | None:
    """Return the memory that this process may have: of the machine, or of its container; None if that is not known."""
    limits = []
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _CGROUP:
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # there is none, or "max"
            continue
    return min(limits, default=None)


def refuse_too_large(where: str, n_bytes: int, *, field: str, what: str, fix: str) -> None:
    """Refuse what would take more than half of the memory at once.

    Parameters
    ----------
    where, field, fix : str
        Of the error.
    n_bytes : int
        How much has to be in memory at the same time.
    what : str
        What it is: "a chunk of shape (1, 1, 1, 1000000, 1000000)".

    Raises
    ------
    InputError
    """
    available = memory_bytes()
    if available is not None and n_bytes > available // 2:
        found = f"{what}, {n_bytes / 1e9:.1f} GB at once"
        raise InputError(where, field=field, found=found, expected=f"at most {available / 2e9:.1f} GB", fix=fix)
