"""Write files and folders beside their place and rename them: what has its name is whole.

>>> import tempfile
>>> from pathlib import Path
>>> target = Path(tempfile.mkdtemp()) / "report.txt"
>>> with replacing(target) as temporary:
...     n_characters = temporary.write_text("done")
>>> target.read_text()
'done'
"""

from __future__ import annotations

import difflib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from viscy_data.errors import MissingInputError

__all__ = [
    "has_no_room",
    "may_not_write",
    "missing_path",
    "near_files",
    "place",
    "refuse_absent",
    "refuse_existing",
    "replacing",
]

_REMEDY = "remove it or choose another path"
_NO_ROOM = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))


@contextmanager
def replacing(path: str | Path, overwrite: bool = False, *, remedy: str = _REMEDY) -> Iterator[Path]:
    """Yield a place for a file or folder that gets its name when the block ends; if the block fails, nothing changes.

    Several processes may write one target: exactly one whole result stands, and without ``overwrite`` the others raise.

    Parameters
    ----------
    path : str or Path
        The target; folders above it are made.
    overwrite : bool, default False
        Replace what is there, once the block has ended. A replaced file passes its permissions on.
    remedy : str, optional
        What the error about an existing target advises.

    Yields
    ------
    Path
        A hidden name beside the target, with its suffix, at which nothing is yet. The block makes a file or folder of
        it; permissions are those that the block gives, hence those of the umask.

    Raises
    ------
    FileExistsError
        If something is at ``path`` and ``overwrite`` is False, at the start of the block or at its end.
    FileNotFoundError
        If the block has written nothing.
    """
    path = Path(path)
    refuse_existing(path, overwrite, remedy=remedy)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        yield temporary
        if not os.path.lexists(temporary):
            raise FileNotFoundError(f"nothing was written to {temporary}, which was to become {path}")
        if temporary.is_file():
            _to_disk(temporary)
        place(temporary, path, overwrite, remedy=remedy)
    except BaseException as err:
        _remove(temporary)
        if isinstance(err, OSError):
            _name_target(err, temporary, path)
        raise


def place(whole: Path, path: Path, overwrite: bool = False, *, remedy: str = _REMEDY) -> None:
    """Give a file or folder that is whole its name, on the same file system; a folder that it replaces is moved aside.

    Parameters
    ----------
    whole, path : Path
    overwrite : bool, default False
        Replace what is there.
    remedy : str, optional
        What the error about an existing target advises.

    Raises
    ------
    FileExistsError
        If something is at ``path`` and ``overwrite`` is False.
    """
    if overwrite:
        _replace(whole, path)
    else:
        _place(whole, path, remedy)


def refuse_existing(path: str | Path, overwrite: bool = False, *, remedy: str = _REMEDY) -> None:
    """Refuse a target that exists, before anything is computed for it.

    Raises
    ------
    FileExistsError
        With the path and the remedy, unless ``overwrite`` is set.
    NotADirectoryError
        If there is a file where a folder above the target is to be.
    OSError
        If that folder cannot be written to, as :func:`may_not_write` tells.
    """
    above = next((folder for folder in Path(path).parents if os.path.lexists(folder)), Path())
    if not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(above))
    if not os.access(above, os.W_OK):
        number = errno.EROFS if _is_read_only(above) else errno.EACCES
        raise OSError(number, os.strerror(number), str(above))
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{path} exists; {remedy}")


def _is_read_only(folder: Path) -> bool:
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def missing_path(path: str | Path, *, field: str = "", expected: str = "", fix: str = "") -> MissingInputError:
    """Make the error for a file or folder that is not there, with the names near it.

    Parameters
    ----------
    path : str or Path
    field, expected, fix : str, optional
        Of the error. Where a name near the missing one is found, it takes the place of ``fix``.

    Returns
    -------
    MissingInputError
        To be raised.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        return MissingInputError(str(path), field=field, found=f"no folder {folder}", expected=expected, fix=fix)
    near = near_files(path, otherwise=fix)
    return MissingInputError(str(path), field=field, found="no such file", expected=expected, fix=near)


def has_no_room(error: OSError) -> bool:
    """Tell whether a disk, or the user's share of it, is full."""
    return error.errno in _NO_ROOM


def may_not_write(error: OSError) -> bool:
    """Tell whether the system has refused to write: no permission, or a file system that is read-only."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def refuse_absent(path: str | Path, *, expected: str) -> None:
    """Refuse a path at which there is nothing; URLs are left to what reads them.

    Raises
    ------
    MissingInputError
        As from :func:`missing_path`.
    """
    if "://" not in str(path) and not Path(path).exists():
        raise missing_path(path, expected=expected)


def near_files(path: str | Path, *, otherwise: str = "") -> str:
    """Say which files or folders have a name near that of a missing one; endings do not count.

    Parameters
    ----------
    path : str or Path
    otherwise : str, optional
        What to say when there is none.

    Returns
    -------
    str
        For ``InputError(fix=...)``.
    """
    try:
        others = (entry.name for entry in Path(path).parent.iterdir() if entry.name != Path(path).name)
        names = [name for name in others if not name.startswith(".")]
    except OSError:  # no folder, or one that must not be listed
        return otherwise
    by_stem = {name.partition(".")[0]: name for name in sorted(names)}
    near = difflib.get_close_matches(Path(path).name.partition(".")[0], by_stem, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(repr(by_stem[stem]) for stem in near)}?" if near else otherwise


def _name_target(error: OSError, temporary: Path, path: Path) -> None:
    """Name the target, which the user knows, in place of what is beside it; pyarrow names a file in its text alone."""
    if error.filename is None and may_not_write(error):
        error.filename = str(path)
    elif str(error.filename).startswith(str(temporary)):
        error.filename = str(error.filename).replace(str(temporary), str(path), 1)
    elif error.filename is None and has_no_room(error):
        error.add_note(f"{path} could not be written, and is as it was; is the disk, or your share of it, full?")


def _beside(path: Path) -> Path:
    """Name that no other process or call has, on the file system of the target."""
    return path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def _to_disk(file: Path) -> None:
    """Have the content on disk before the name: otherwise a power cut may leave an empty file of that name."""
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())


def _place(temporary: Path, path: Path, remedy: str) -> None:
    """Rename to a free name, in one step that fails where another process has taken it."""
    try:
        if temporary.is_dir():
            os.rename(temporary, path)  # fails on everything but an empty folder
            return
        try:
            os.link(temporary, path)  # unlike a rename, fails on an existing file
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            os.replace(temporary, path)
        else:
            os.unlink(temporary)
    except OSError:
        refuse_existing(path, remedy=remedy)
        raise


def _replace(temporary: Path, path: Path) -> None:
    """Rename over whatever is there; a folder is moved aside first, as none can be renamed over."""
    if temporary.is_file() and not path.is_dir():
        with suppress(FileNotFoundError):
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
        return
    while True:
        old = _beside(path)
        with suppress(FileNotFoundError):  # nothing there, or another process has just moved it aside
            os.rename(path, old)
        try:
            os.rename(temporary, path)
            return
        except OSError:
            if not os.path.lexists(path):
                with suppress(FileNotFoundError):
                    os.rename(old, path)
                raise
        finally:
            _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # not there, or on a file system that is read-only
            path.unlink()
