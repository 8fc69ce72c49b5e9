"""What tests of this and of other projects can import: fixtures, encoded pixels, hypothesis strategies.

* ``viscy_data.testing.fixtures``: pytest fixtures with small experiments of known truth in every store format. In a
  test module or in the top ``conftest.py``: ``pytest_plugins = ["viscy_data.testing.fixtures"]``.
* ``viscy_data.testing.encoding``: pixels that say where they come from, for tests of readers.
* ``viscy_data.testing.foreign``: plates as other programs write them, with any order of axes and any codec.
* ``viscy_data.testing.strategies``: random lineages, tracking tables and anchor tables for hypothesis.

pytest and hypothesis are imported by these modules only, never by the package itself. Needs the extra ``triplet``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from viscy_data.testing.encoding import Encoding, PixelOrigin, write_encoded_plate
    from viscy_data.testing.fixtures import PLATE_FORMATS, EncodedPlates, PlateFormat, SyntheticExperiments
    from viscy_data.testing.foreign import write_foreign_plate

__all__ = [
    "PLATE_FORMATS",
    "EncodedPlates",
    "Encoding",
    "PixelOrigin",
    "PlateFormat",
    "SyntheticExperiments",
    "write_encoded_plate",
    "write_foreign_plate",
]

_MODULES = {
    "PLATE_FORMATS": "fixtures",
    "EncodedPlates": "fixtures",
    "Encoding": "encoding",
    "PixelOrigin": "encoding",
    "PlateFormat": "fixtures",
    "SyntheticExperiments": "fixtures",
    "write_encoded_plate": "encoding",
    "write_foreign_plate": "foreign",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
