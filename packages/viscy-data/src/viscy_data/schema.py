"""The layout of what is written: each file says which one it has and what wrote it; a newer one is refused by name."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from viscy_data.errors import InputError

__all__ = ["refuse_newer", "written_by"]


def written_by(package: str) -> str:
    """Return what a file says of the program that wrote it, such as ``viscy-utils 1.2.0``."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def refuse_newer(
    where: str, found: object, reads: int, package: str, writer: object = None, *, field: str = "schema_version"
) -> None:
    """Refuse a file of a layout that this version does not know; older ones are read.

    Parameters
    ----------
    where, field : str
        Of the error.
    found : object
        The layout that the file says it has, a whole number from 1.
    reads : int
        The newest layout that this version reads.
    package : str
        What reads it.
    writer : object, optional
        What :func:`written_by` left in the file: the version that reads it.

    Raises
    ------
    InputError
    """
    if isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= reads:
        return
    expected = f"at most {reads}, the newest that {written_by(package)} reads"
    by = f", written by {writer}" if writer else ""
    fix = f"read it with {writer} or later" if writer else f"update {package}"
    raise InputError(where, field=field, found=f"{found}{by}", expected=expected, fix=fix)
