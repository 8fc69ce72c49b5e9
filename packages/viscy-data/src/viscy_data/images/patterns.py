r"""Patterns of file names with named fields, and patterns found in the names themselves.

>>> pattern = NamePattern("{well}_s{fov}_t{t}_{channel}.tif")
>>> pattern.read("B03_s2_t015_GFP.tif")
{'well': 'B03', 'fov': '2', 't': '015', 'channel': 'GFP'}
>>> propose_pattern(["B03_s2_t015_GFP.tif", "B03_s2_t016_Phase.tif"])
'{well}_s{fov}_t{t}_{channel}.tif'
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from viscy_data.checks import near_matches
from viscy_data.errors import InputError

__all__ = ["CLOCK", "FIELDS", "NamePattern", "natural_key", "propose_pattern", "sketch_pattern"]

CLOCK = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
"""Fields that together are the time of a frame, and their seconds."""

FIELDS = {
    "row": r"[A-Za-z]{1,2}|\d{1,2}",
    "col": r"\d{1,2}",
    "well": r"[A-Za-z]{1,2}[-_]?\d{1,2}",
    "fov": r"[^/]+?",
    "t": r"\d+",
    "z": r"\d+",
    "channel": r"[^/]+?",
    **dict.fromkeys(CLOCK, r"\d+"),
}
"""Fields of a pattern, and what they match."""

# Names of instruments, of which parts are not set apart; {_} is whatever.
_INSTRUMENTS = (
    "r{row}c{col}f{fov}p{z}-ch{channel}sk{t}fk{*}.tif{*}",  # Opera Phenix, Operetta
    "{*}_{well}_T{t}F{fov}L{*}A{*}Z{z}C{channel}.tif",  # CellVoyager
    "img_channel{channel}_position{fov}_time{t}_z{z}.tif",  # Micro-Manager, one file per plane
)
_TIME = re.compile(r"(\d+)d(\d+)h(\d+)m(?:(\d+)s)?")
_TOKENS = {
    "t": ("t", "time", "timepoint", "tp", "frame"),
    "z": ("z", "slice"),
    "fov": ("s", "f", "p", "xy", "pos", "fov", "site", "field", "position", "series"),
    "channel": ("c", "ch", "w", "channel"),
}
_UNKNOWN = "{?}"
_FIELD_OF = {token: field for field, tokens in _TOKENS.items() for token in tokens}


class NamePattern:
    """A file name with fields in braces; ``*`` or ``{*}`` stands for anything.

    Parameters
    ----------
    text : str
        Such as ``{row}{col}_s{fov}_t{t}_z{z}_{channel}.tif``. With a ``/`` it describes the end of the path.

    Raises
    ------
    InputError
        If a field is not known, or the time is given in two ways.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.fields: list[str] = []
        parts = re.split(r"\{([^{}]*)\}|(\*)", text)
        expression = re.escape(parts[0])
        for name, star, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            expression += (".*?" if star or name == "*" else self._field(name)) + re.escape(literal)
        self._expression = re.compile(expression)
        clocks = [name for name in self.fields if name in CLOCK]
        for one, other in (("t", clocks), ("well", [name for name in self.fields if name in ("row", "col")])):
            if one in self.fields and other:
                raise InputError("--pattern", found=f"both {{{one}}} and {{{other[0]}}}", expected="one of them")

    def read(self, path: str | PurePath) -> dict[str, str] | None:
        """Return the fields of a path, None if it does not match."""
        path = PurePath(path)
        name = "/".join(path.parts[-1 - self.text.count("/") :])
        match = self._expression.fullmatch(name)
        return match.groupdict() if match else None

    def _field(self, name: str) -> str:
        if name not in FIELDS:
            expected = near_matches(name, [*FIELDS, "*"], otherwise=f"one of {', '.join(FIELDS)}, or * for anything")
            raise InputError("--pattern", field=f"{{{name}}}", found=self.text, expected=expected)
        if name in self.fields:
            return f"(?P={name})"
        self.fields.append(name)
        return f"(?P<{name}>{FIELDS[name]})"


def propose_pattern(names: Sequence[str]) -> str | None:
    """Find a pattern in file names: instruments' own, or parts such as ``B03``, ``s2``, ``t015``, ``00d01h30m``.

    Words that differ between the files are the channel; where any other part differs nothing is guessed.

    Parameters
    ----------
    names : sequence of str
        Without folders.

    Returns
    -------
    str or None
        A pattern that all names match, None when there is none.
    """
    for text in _INSTRUMENTS:
        pattern = NamePattern(text)
        if all(pattern.read(name) for name in names):
            return text
    text = sketch_pattern(names)
    if text is None or _UNKNOWN in text:
        return None
    fields = re.findall(r"\{(\w+)\}", text)
    has_fields = bool(fields) and len(set(fields)) == len(fields) and set(fields) != {"channel"}
    return text if has_fields and all(NamePattern(text).read(name) for name in names) else None


def sketch_pattern(names: Sequence[str]) -> str | None:
    """Return what is known of the parts of names, with ``{?}`` for one that differs and says nothing.

    None where names are not made alike.
    """
    split = [re.split(r"([_\-. ]+)", name) for name in names]
    if len({len(parts) for parts in split}) > 1 or len({tuple(parts[1::2]) for parts in split}) > 1:
        return None
    return "".join(_described(sorted(set(values))) for values in zip(*split, strict=True))


def natural_key(value: object) -> tuple[str | int, ...]:
    """Return a key that sorts names with numbers as people do: s2 before s10."""
    parts = re.split(r"(\d+)", str(value))
    return tuple(int(part) if number % 2 else part for number, part in enumerate(parts))


def _described(values: Sequence[str]) -> str:
    """Return a part of the names as it stands in the pattern."""
    if all(_TIME.fullmatch(value) for value in values):
        return "{days}d{hours}h{minutes}m" + ("{seconds}s" if values[0].endswith("s") else "")
    if all(re.fullmatch(r"[A-P]\d{1,2}", value) for value in values):
        return "{well}"
    heads = {value.rstrip("0123456789") for value in values}
    is_numbered = len(heads) == 1 and all(value[-1:].isdigit() for value in values)
    if is_numbered and (field := _FIELD_OF.get(min(heads).lower())):
        return f"{min(heads)}{{{field}}}"
    if len(values) == 1:
        return values[0]
    # numbers, day1 and day2, or 1 and 2 may be anything; words that differ are channels
    is_words = not is_numbered and all(re.search("[A-Za-z]", value) for value in values)
    return "{channel}" if is_words else _UNKNOWN
