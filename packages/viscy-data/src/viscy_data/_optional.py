"""Optional dependencies, imported when a feature that needs them is first used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["require"]


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module.

    Parameters
    ----------
    module : str
        Name to import, such as ``"pyarrow.csv"``.
    extra : str
        The extra of viscy-data that installs it.

    Raises
    ------
    ImportError
        Naming the extra; the original error is its cause.
    """
    try:
        return import_module(module)
    except ImportError as err:
        package = module.partition(".")[0]
        raise ImportError(
            f"{package} is needed for this and cannot be imported: pip install 'viscy-data[{extra}]'", name=package
        ) from err
