"""How much disk the local copies may take: those that no process uses make room, the one used longest ago first.

An entry is a folder of :func:`viscy_data.cache.cache_root`. A process that uses one holds a shared lock on a file
beside it until it ends, however it ends; the file says how large the entry will be, and its time when it was last used.

>>> import tempfile
>>> entry = Path(tempfile.mkdtemp()) / "frames"
>>> reserve(entry, n_bytes=1024)
>>> reserve(entry.with_name("others"), n_bytes=1024, max_gb=2048 / (1 << 30))
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from pathlib import Path

from filelock import FileLock

from viscy_data.cache import folder_size, readable_size
from viscy_data.checks import Option, is_number
from viscy_data.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, whose locks do not tell who only reads
    fcntl = None

__all__ = ["max_cache_option", "reserve"]

_logger = logging.getLogger(__name__)
_GB = 1 << 30
_ENDING = ".use"
_held: dict[Path, int] = {}  # descriptors, open for as long as the process lives


def max_cache_option(max_cache_gb: float | None) -> Option:
    """Return the check of ``max_cache_gb`` of a data module."""
    holds = max_cache_gb is None or (is_number(max_cache_gb) and max_cache_gb > 0)
    return Option("max_cache_gb", max_cache_gb, holds, "a number of GiB above 0, or nothing")


def reserve(entry: Path, n_bytes: int, max_gb: float | None = None) -> None:
    """Announce that this process uses an entry: none removes it while the process lives.

    Parameters
    ----------
    entry : Path
        A folder, which need not exist yet. All of the folder around it counts.
    n_bytes : int
        How large it will be.
    max_gb : float, optional
        GiB that all entries together may take. Where they would be more, those that no process uses are removed, the
        one used longest ago first, and no more of them than is needed. Without a limit nothing is ever removed.

    Raises
    ------
    InputError
        If there is not enough to remove. Nothing is removed then, and the entry is not held. On Windows for any limit.
    """
    if fcntl is None:
        if max_gb is not None:
            raise InputError("max_cache_gb", found=f"{max_gb} on Windows", expected="nothing", fix="leave it out")
        return
    with FileLock(entry.parent / ".room.lock"):
        held = entry in _held
        _hold(entry, n_bytes)
        try:
            if max_gb is not None:
                _make_room(entry.parent, int(max_gb * _GB))
        except InputError:
            if not held:
                os.close(_held.pop(entry))
            raise


def _hold(entry: Path, n_bytes: int) -> None:
    use = _use_file(entry)
    if entry in _held and not (use.exists() and os.path.samestat(os.fstat(_held[entry]), use.stat())):
        os.close(_held.pop(entry))  # somebody has removed the folder: what is held says nothing to others any more
    if entry not in _held:
        _held[entry] = os.open(use, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(_held[entry], fcntl.LOCK_SH)
    os.ftruncate(_held[entry], 0)
    os.pwrite(_held[entry], str(n_bytes).encode(), 0)


def _make_room(root: Path, limit: int) -> None:
    """Remove the entries that must go. The caller holds the lock of the root, so none is taken into use meanwhile."""
    entries = [path for path in root.glob("[!.]*") if path.is_dir()]
    used = {path.with_name(path.name[1 : -len(_ENDING)]) for path in root.glob(f".*{_ENDING}") if _is_locked(path)}
    sizes = {entry: folder_size(entry) for entry in entries}
    sizes |= {entry: max(sizes.get(entry, 0), int(_use_file(entry).read_text() or 0)) for entry in used}
    needed, excess = sum(sizes[entry] for entry in used), sum(sizes.values()) - limit
    if needed > limit:
        raise InputError(
            str(root),
            field="max_cache_gb",
            found=f"{readable_size(needed)} that this run and others on this machine need",
            expected=f"{readable_size(limit)} at most",
            fix="raise max_cache_gb, or set scratch_dir to another disk",
        )
    for entry in sorted(set(entries) - used, key=_last_use):
        if excess > 0:
            _logger.info("removing %s, %s that no process uses", entry, readable_size(sizes[entry]))
            _remove(entry)
            excess -= sizes.pop(entry)
    total = readable_size(sum(sizes.values()))
    _logger.info("%d copies in %s take %s, of %s at most", len(sizes), root, total, readable_size(limit))


def _use_file(entry: Path) -> Path:
    return entry.with_name(f".{entry.name}{_ENDING}")


def _is_locked(use: Path) -> bool:
    with open(use) as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _last_use(entry: Path) -> float:
    use = _use_file(entry)
    return (use if use.exists() else entry).stat().st_mtime


def _remove(entry: Path) -> None:
    # Under another name first: what is half removed must not be trusted if this process dies.
    leaving = entry.with_name(f".{secrets.token_hex(4)}-{entry.name}")
    os.rename(entry, leaving)
    shutil.rmtree(leaving)
    _use_file(entry).unlink(missing_ok=True)
