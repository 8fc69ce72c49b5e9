"""Import every public module of installed distributions; what needs an optional part has to name its extra.

import_all.py DISTRIBUTION ...
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator

# What an error says of a missing optional part: pip install 'viscy-data[triplet]'
NAMES_EXTRA = re.compile(r"[\w-]+\[[\w,-]+\]")
TEST_TOOLS = {"hypothesis", "iohub", "pytest"}  # of `viscy_data.testing`, which is for those who write tests


def modules(package: str) -> Iterator[str]:
    """List a package and its public modules."""
    yield package
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            yield module.name


def fault_of(name: str) -> str | None:
    """Import a module; say what is wrong with it, if anything."""
    try:
        importlib.import_module(name)
    except ImportError as err:
        is_test_tool = ".testing" in name and (err.name or "").split(".")[0] in TEST_TOOLS
        return None if is_test_tool or NAMES_EXTRA.search(str(err)) else f"{name}: {err}"
    return None


def main() -> None:
    """Import all and list the faults."""
    warnings.simplefilter("ignore")
    names = [name for member in sys.argv[1:] for name in modules(member.replace("-", "_"))]
    faults = list(filter(None, map(fault_of, names)))
    if faults:
        sys.exit("\n".join(["modules that neither import nor name their extra:", *faults]))
    sys.stdout.write(f"{len(names)} modules\n")


if __name__ == "__main__":
    main()
