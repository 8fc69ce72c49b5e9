"""Print the newest Python at hand that is newer than a given one, for a second run of the tests.

Looks on the path, among the versions of pyenv, and among those that uv keeps; downloads nothing, and prints nothing
where there is none. Without arguments any Python from 3.12 on will do; `newest_python.py 3.12 3.13` finds 3.13:

    newest_python.py [MAJOR.MINOR that is too old [MAJOR.MINOR that will do]]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NEWEST = (3, 14)  # there are no wheels of torch for later ones
ASK = "import sys; print(sys.implementation.name, sys.version_info.releaselevel, *sys.version_info[:2])"


def candidates() -> list[Path]:
    """List what may be an interpreter."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python"))
    found = [*pyenv.glob("*/bin/python3"), *uv.glob("*/bin/python3")]
    for folder in os.environ["PATH"].split(os.pathsep):
        found += Path(folder or ".").glob("python3.[0-9][0-9]")
    return found


def version_of(python: Path) -> tuple[int, int] | None:
    """Ask an interpreter for its version; None for what does not answer, is no CPython or no release."""
    try:
        done = subprocess.run([python, "-c", ASK], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode or not done.stdout.startswith("cpython final "):
        return None
    return tuple(map(int, done.stdout.split()[2:]))


def main() -> None:
    """Print the path of the newest."""
    given = [tuple(map(int, version.split("."))) for version in sys.argv[1:]]
    old, last = [*given, *((3, 11), NEWEST)[len(given) :]]
    known = [(version, str(python)) for python in candidates() if (version := version_of(python)) is not None]
    usable = [entry for entry in known if old < entry[0] <= last]
    if usable:
        sys.stdout.write(max(usable)[1])


if __name__ == "__main__":
    main()
