"""Which FOV, frame, channel and slice each position of each file is: by name, by table, or by order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from viscy_data.errors import InputError
from viscy_data.images.files import ImagePosition
from viscy_data.images.patterns import CLOCK, NamePattern, propose_pattern, sketch_pattern
from viscy_data.source_map import read_source_map
from viscy_data.stores import canonical_fov_name

__all__ = ["Placed", "by_order", "by_pattern", "by_table", "proposed_pattern", "well_of"]

_WELL = re.compile(r"(?<![A-Za-z0-9])([A-P])[-_ ]?0*([1-9]\d?)(?![0-9])")


@dataclass(frozen=True)
class Placed:
    """A position of a file, and where its planes go.

    Parameters
    ----------
    path : Path
    position : int
        In the file.
    facts : ImagePosition
    fov : str
        ``row/column/fov``.
    t, channel, z : optional
        As the name of the file says; None where the file itself has the axis.
    """

    path: Path
    position: int
    facts: ImagePosition
    fov: str
    t: int | None = None
    channel: str | None = None
    z: int | None = None


Described = Mapping[Path, tuple[ImagePosition, ...]]


def by_pattern(described: Described, text: str, well: str | None = None) -> tuple[list[Placed], list[str]]:
    """Place files by the fields of their names.

    Parameters
    ----------
    described : mapping of Path to positions
    text : str
        The pattern.
    well : str, optional
        The well of all of them, where names have none.

    Returns
    -------
    list of Placed, list of str
        And what is said: files that do not match, wells that nobody names.

    Raises
    ------
    InputError
        If no file matches, or a file has several positions or frames that its name has one of.
    """
    pattern = NamePattern(text)
    fields = {path: pattern.read(path) for path in described}
    others = [path for path, found in fields.items() if found is None]
    if len(others) == len(fields):
        raise InputError(
            "--pattern",
            found=f"{text}, which none of {len(others)} files matches; one is called {others[0].name}",
            expected="the name with its parts in braces: {row} {col} or {well}, {fov}, {t}, {z}, {channel}, "
            "{days} {hours} {minutes} {seconds}; * for anything",
        )
    notes = []
    if others:
        notes.append(f"{len(others)} files do not match the pattern and are left out, such as {others[0].name}")
    if not (named := {"row", "col", "well"} & set(pattern.fields)):
        notes.append(f"the pattern names no well: all FOVs are in {_well(well or 'A1')}")
    elif well is not None:
        found = f"{well}, and {{{min(named)}}} in the pattern {text}"
        raise InputError("--well", found=found, expected="one of them")
    placed = []
    for path, found in fields.items():
        if found is not None:
            found |= {"well": well} if well else {}
            placed += [_placed(path, number, facts, found) for number, facts in enumerate(described[path])]
    return placed, notes


def proposed_pattern(described: Described) -> str | None:
    """Return the pattern of the names of several files, if what it says agrees with what is in the files."""
    if len(described) < 2:
        return None
    text = propose_pattern([path.name for path in described])
    if text is None:
        return None
    own = {"t": 0, "channel": 1, "z": 2, **dict.fromkeys(CLOCK, 0)}
    named = {own[name] for name in NamePattern(text).fields if name in own}
    shapes = {position.shape for positions in described.values() for position in positions}
    return None if any(shape[axis] > 1 for shape in shapes for axis in named) else text


def by_order(described: Described, well: str | None = None) -> tuple[list[Placed], list[str]]:
    """Place files that are whole: wells by the names of positions or files, else a well for each file.

    Parameters
    ----------
    described : mapping of Path to positions
    well : str, optional
        The well of all of them.

    Raises
    ------
    InputError
        If files of a single plane are to be whole FOVs.
    """
    flat = [path for path, positions in described.items() if all(facts.shape[:3] == (1, 1, 1) for facts in positions)]
    if len(flat) > 1:
        sketch = sketch_pattern([path.name for path in flat]) or "{well}_{fov}_t{t}_{channel}.tif"
        raise InputError(
            str(flat[0].parent),
            found=f"{len(flat)} files of one plane each, such as {flat[0].name}, with names that could be many things",
            expected="their parts named: {row} and {col} or {well}, {fov}, {t}, {z}, {channel}; * for anything",
            fix=f"--pattern '{sketch}'" + ", with a field in place of {?}" * ("{?}" in sketch),
        )
    listed = [(path, number, facts) for path, positions in described.items() for number, facts in enumerate(positions)]
    of_position, of_file = _wells([facts.name for _, _, facts in listed]), _wells([path.stem for path, _, _ in listed])
    if well is not None:
        wells, how = [_well(well)] * len(listed), f"--well: all FOVs are in {_well(well)}"
    elif of_position:
        wells, how = of_position, "wells are those in the names of the positions"
    elif of_file:
        wells, how = of_file, "wells are those in the names of the files"
    else:
        numbers = {path: number for number, path in enumerate(described, 1)}
        wells = [f"A/{numbers[path]}" for path, _, _ in listed]
        how = "neither positions nor files are named after wells: each file is a well of its own (--well, --map)"
    n_in: Counter[str] = Counter()
    placed = []
    for (path, number, facts), own in zip(listed, wells, strict=True):
        placed.append(Placed(path, number, facts, f"{own}/{n_in[own]}"))
        n_in[own] += 1
    return placed, [how]


def by_table(described: Described, table: Path) -> tuple[list[Placed], list[str]]:
    """Place files as a CSV with the columns source, fov and, optionally, position (number or name) says.

    Raises
    ------
    InputError
        If columns are missing, or a position is in no row.
    """
    rows = read_source_map(table, "columns source, fov and maybe position")
    fov_of = {(row["source"], row.get("position") or ""): canonical_fov_name(row["fov"]) for row in rows}
    placed = []
    for path, positions in described.items():
        for number, facts in enumerate(positions):
            keys = [(source, at) for source in (str(path), path.name) for at in (str(number), facts.name, "")]
            keys = [key for key in keys if key[1] or len(positions) == 1]
            fov = next((fov_of[key] for key in keys if key in fov_of), None)
            if fov is None or not re.fullmatch(r"[A-Za-z0-9]+(/[A-Za-z0-9]+){2}", fov):
                shown = f"position {number} ({facts.name})" if len(positions) > 1 else "the file"
                raise InputError(
                    f"{table}, {path.name}",
                    field="fov",
                    found=f"no row for {shown}" if fov is None else fov,
                    expected="row/column/fov, such as B/3/0",
                )
            placed.append(Placed(path, number, facts, fov))
    return placed, []


def well_of(name: str) -> str | None:
    """Return the well in a name such as ``B-03`` or ``Well A1_0``, None where there is none, or two."""
    found = {f"{row}/{int(column)}" for row, column in _WELL.findall(name)}
    return found.pop() if len(found) == 1 else None


def _wells(names: Sequence[str]) -> list[str]:
    """Return the wells of all names, nothing unless each has one; P1, P2 ... are positions, no row P."""
    wells = [well for name in names if (well := well_of(name)) is not None]
    return wells if len(wells) == len(names) and any(not well.startswith("P/") for well in wells) else []


def _placed(path: Path, number: int, facts: ImagePosition, fields: Mapping[str, str]) -> Placed:
    t = fields.get("t")
    if any(name in fields for name in CLOCK):
        t = sum(int(fields[name]) * seconds for name, seconds in CLOCK.items() if name in fields)
    if "fov" in fields and number > 0:
        raise InputError(str(path), found="several positions", expected="one, as its name has a {fov}")
    row, column = fields.get("row", "A"), fields.get("col", "1")
    well = _well(fields["well"] if "well" in fields else f"{row}/{column}")
    fov = re.sub("[^A-Za-z0-9]", "", _plain(fields.get("fov", str(number))))
    z = None if "z" not in fields else int(fields["z"])
    return Placed(path, number, facts, f"{well}/{fov}", None if t is None else int(t), fields.get("channel"), z)


def _well(text: str) -> str:
    """Return ``B/3`` for B03, B-3, B/3 and 02/03: rows that are numbers get their letter."""
    match = re.fullmatch(r"([A-Za-z]+|\d+)[-_/ ]?(\d+)", text.strip())
    if match is None:
        raise InputError("--well", found=repr(text), expected="row and column, such as B3 or B/3")
    row, column = match.groups()
    return f"{chr(64 + int(row)) if row.isdigit() and 1 <= int(row) <= 26 else row.upper()}/{int(column)}"


def _plain(text: str) -> str:
    """Drop zeros before a number."""
    return str(int(text)) if text.isdigit() else text
