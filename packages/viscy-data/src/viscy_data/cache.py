"""Local copies that outlive a run: made once per machine, keyed by what they are made of, whole or not there.

Several processes and ranks may ask for one copy: the first makes it, the others wait. It is made beside its place and
renamed, so a process that dies leaves nothing that is trusted later; what it leaves is removed by the next one.

>>> import tempfile
>>> place = Path(tempfile.mkdtemp()) / "copy.txt"
>>> fill_once(place, lambda temporary: temporary.write_text("made")).read_text()
'made'
>>> fill_once(place, lambda temporary: temporary.write_text("made again")).read_text()
'made'
"""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from viscy_data.errors import InputError
from viscy_data.files import replacing

__all__ = [
    "cache_root",
    "check_space",
    "digest_of",
    "fill_once",
    "fingerprint",
    "folder_size",
    "readable_size",
]

_logger = logging.getLogger(__name__)


def cache_root(scratch_dir: str | Path | None = None) -> Path:
    """Return the folder for copies, which only this user can read; it is made where there is none.

    Parameters
    ----------
    scratch_dir : str or Path, optional
        Where it is to be; the system's folder for temporary files by default (``TMPDIR`` sets it).
    """
    root = Path(scratch_dir or tempfile.gettempdir()) / f"viscy_cache_{getpass.getuser()}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return root


def fill_once(place: Path, fill: Callable[[Path], Any], lock: Path | None = None) -> Path:
    """Return a file or folder, made by the first process that asks for it.

    Parameters
    ----------
    place : Path
        Where it is, or will be.
    fill : callable
        Makes it at the path that it is given. If it raises, nothing stays, and the next process tries.
    lock : Path, optional
        File by which processes wait for each other; one beside ``place`` by default.
    """
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    waiting = FileLock(lock or place.with_name(f".{place.name}.lock"))
    try:
        waiting.acquire(timeout=0)
    except Timeout:
        _logger.info("waiting for another process that makes %s", place)
        waiting.acquire()
    try:
        if not place.exists():
            _remove_left_over(place)
            with replacing(place) as temporary:
                fill(temporary)
    finally:
        waiting.release()
    return place


def digest_of(*parts: Any) -> str:
    """Return a digest of plain values."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def fingerprint(folder: str | Path) -> str:
    """Return a digest of the names, sizes and times of all files of a folder: other content has another one.

    Of a URL it is the URL itself: what is copied from there is taken not to change.
    """
    if "://" in str(folder):
        return digest_of(str(folder))
    digest = hashlib.blake2b(digest_size=10)
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(root, name)
            found = os.stat(path)
            entry = (os.path.relpath(path, folder), found.st_size, found.st_mtime_ns)
            digest.update(repr(entry).encode())
    return digest.hexdigest()


def check_space(folder: Path, n_bytes: int, fix: str) -> None:
    """Refuse a copy that the disk cannot hold.

    Raises
    ------
    InputError
        With the sizes, and ``fix``.
    """
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        found, expected = f"{readable_size(free)} free", f"{readable_size(n_bytes)} for the copy"
        raise InputError(str(folder), found=found, expected=expected, fix=fix)


def folder_size(folder: str | Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(os.stat(os.path.join(root, name)).st_size for root, _, names in os.walk(folder) for name in names)


def readable_size(n_bytes: int) -> str:
    """Return a number of bytes in the unit that suits it.

    >>> readable_size(1536), readable_size(3 << 30)
    ('1.5 KiB', '3.0 GiB')
    """
    size, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.1f} {units[0]}"


def _remove_left_over(place: Path) -> None:
    """Remove what processes that died have left: the caller holds the lock, so no one is at work there."""
    for path in place.parent.glob(f".*-{place.name}"):
        _logger.info("removing %s, which a process has left unfinished", path)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
