"""Optional dependencies, imported when a feature that needs them is first used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["require"]


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
        top = module.partition(".")[0]
        raise ImportError(
            f"{top} is needed for this and cannot be imported: pip install '{package}[{extra}]'", name=top
        ) from err
