"""What is installed, for records of what something was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["package_versions"]

_OURS = ("cytoland", "dynaclr", "viscy-data", "viscy-losses", "viscy-models", "viscy-transforms", "viscy-utils")
_OTHERS = ("anndata", "iohub", "lightning", "monai", "numpy", "pandas", "tensorstore", "timm", "torch", "zarr")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that decide results."""
    found = {"python": platform.python_version()}
    for name in (*_OURS, *_OTHERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
