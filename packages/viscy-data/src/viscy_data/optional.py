"""Optional dependencies: imported when a feature that needs them is first used, or else the error names their extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

__all__ = ["from_extra", "require"]


def require(module: str, *, extra: str, package: str = "viscy-data") -> ModuleType:
    """Import an optional module, or say which extra installs it.

    Parameters
    ----------
    module : str
        Name to import, such as ``"pyarrow.csv"``.
    extra, package : str
        The extra that installs it, and whose.

    Raises
    ------
    ImportError
        Naming the extra; the original error is its cause.
    """
    try:
        return import_module(module)
    except ImportError as err:
        raise _missing(module, extra, package) from err


@contextmanager
def from_extra(extra: str, *, package: str = "viscy-data") -> Iterator[None]:
    """Say which extra installs what is imported in the body, where that fails.

    For a module that is nothing without the libraries of an extra, base classes for instance, at its top; what one
    function needs is imported in it by `require`.

    Parameters
    ----------
    extra, package : str
        The extra that installs it, and whose.

    Raises
    ------
    ImportError
        Naming the extra; the original error is its cause.

    Examples
    --------
    >>> with from_extra("triplet"):
    ...     import pandas as pd
    """
    try:
        yield
    except ImportError as err:
        raise _missing(err.name or str(err), extra, package) from err


def _missing(module: str, extra: str, package: str) -> ImportError:
    top = module.partition(".")[0]
    return ImportError(f"{top} is needed for this and cannot be imported: pip install '{package}[{extra}]'", name=top)
