"""Tables of users that say which FOV a file is of, in the columns ``source`` and ``fov``."""

from __future__ import annotations

import csv
from pathlib import Path

from viscy_data.errors import InputError, reading_file

__all__ = ["read_source_map"]


def read_source_map(path: Path, expected: str = "columns source and fov") -> list[dict[str, str]]:
    """Read the rows of a CSV file with the columns ``source`` and ``fov``.

    Parameters
    ----------
    path : Path
        UTF-8.
    expected : str, default "columns source and fov"
        What the error about missing columns says.

    Raises
    ------
    InputError
        Without one of the columns, and for what is no text in UTF-8.
    """
    with reading_file(path, expected, "save it as CSV in UTF-8"), path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"source", "fov"} <= set(reader.fieldnames or ()):
            found = ", ".join(reader.fieldnames or ()) or "nothing"
            raise InputError(str(path), found=f"columns {found}", expected=expected)
        return list(reader)
