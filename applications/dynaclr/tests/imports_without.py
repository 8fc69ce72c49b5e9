"""Import public modules while some libraries cannot be imported: ``imports_without.py JSON``, answered with JSON.

JSON is a list of cases ``[libraries, packages]``, libraries by the names that one imports. The answer is the number of
modules, and a list for each case of what did not import: ``[module, missing library, message]``; None stands for a case
whose libraries nobody imports. One process forks for each case, so that what others bring is imported once.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import sys
import warnings

OWN = ("cytoland", "dynaclr", "viscy_")


def names_of(package: str) -> list[str]:
    """List a package and its public modules."""
    walked = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    return [package, *(name for _, name, _ in walked if not any(part[0] == "_" for part in name.split(".")))]


def block(libraries: list[str]) -> None:
    """Make libraries impossible to import, and forget the project's own modules."""
    for name in list(sys.modules):
        if name.startswith(OWN):
            del sys.modules[name]
        elif any(name.startswith(f"{library}.") for library in libraries):
            sys.modules[name] = None
    sys.modules.update(dict.fromkeys(libraries))


def refusals(names: list[str]) -> list[tuple[str, str, str]]:
    """Import modules; list those that cannot be."""
    refused = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as err:
            refused.append((name, err.name or "", str(err)))
    return refused


def in_fork(libraries: list[str], names: list[str]) -> list[tuple[str, str, str]]:
    """Import modules without libraries, in a process of their own."""
    reading, writing = os.pipe()
    if not os.fork():
        block(libraries)
        os.write(writing, json.dumps(refusals(names)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        told = json.loads(answer.read())
    os.wait()
    return told


def main() -> None:
    """Try all cases."""
    warnings.simplefilter("ignore")
    cases = json.loads(sys.argv[1])
    names = {package: names_of(package) for _, packages in cases for package in packages}
    if refused := refusals([name for own in names.values() for name in own]):
        sys.exit(f"not even with all libraries: {refused}")
    gc.freeze()
    told = []
    for libraries, packages in cases:
        is_imported = any(library in sys.modules for library in libraries)
        told.append(in_fork(libraries, [n for p in packages for n in names[p]]) if is_imported else None)
    sys.stdout.write(json.dumps([sum(map(len, names.values())), told]))


if __name__ == "__main__":
    main()
