"""From the bytes of a tracking table to columns, however the program that wrote it separates, encodes and heads them.

What can be read in one way only is read: tabs or semicolons, decimal commas, UTF-16, a byte order mark, lines of names
and units below the header. What can be read in two ways is refused.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from viscy_data.errors import InputError, MissingInputError
from viscy_data.memory import refuse_too_large
from viscy_data.optional import require

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["REQUIRED", "TRACKMATE", "TextTable", "read_text_table"]

REQUIRED = ("track_id", "t", "y", "x")
_SEPARATORS = (",", ";", "\t")
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_NAMELESS = "unnamed "
_MOST_EXTRA_LINES = 3  # TrackMate: long names, short names, units
_MOST_HEADER_BYTES = 1 << 20
TRACKMATE = ("TRACK_ID", "FRAME", "POSITION_X", "POSITION_Y")
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d*,\d+(e[-+]?\d+)?\s*", re.IGNORECASE)
_NUMBER = re.compile(r"\s*[-+]?\d*[.,]?\d*(e[-+]?\d+)?\s*", re.IGNORECASE)
_MAYBE_THOUSANDS = re.compile(r"\s*[-+]?[1-9]\d{0,2},\d{3}\s*")


@dataclass(frozen=True)
class TextTable:
    """Columns as they were read, and what is needed to speak of their place in the file.

    Parameters
    ----------
    columns : pyarrow.Table
        With the types that their text suggests; dates stay text.
    n_above : int
        Lines of the file above those of the rows.
    notes : tuple of str
        What had to be assumed to read the file.
    extra_lines : tuple of dict of str to str
        Cells of the lines below the header that name columns and units, by column.
    source : tuple
        Header with the rows as text, and the separator.
    written_names : dict of str to str
        What the file calls columns that :meth:`renamed` has given other names.
    """

    columns: pa.Table
    n_above: int
    notes: tuple[str, ...] = ()
    extra_lines: tuple[dict[str, str], ...] = ()
    source: tuple[str, str] = field(default=("", ","), repr=False)
    written_names: dict[str, str] = field(default_factory=dict)

    def renamed(self, names: Mapping[str, str]) -> TextTable:
        """Return the table with other names for some columns."""
        new = [names.get(name, name) for name in self.columns.column_names]
        written = dict(zip(new, self.columns.column_names, strict=True))
        return replace(self, columns=self.columns.rename_columns(new), written_names=written)

    def line(self, row: int) -> int:
        """Return the line of the file that a row begins in; rows may take several, and blank lines are none."""
        return self.n_above + self._record(row)[0]

    def text(self, name: str, row: int) -> str:
        """Return a cell as it is in the file."""
        return self._record(row)[1][self.written_names.get(name, name)]

    def _record(self, row: int) -> tuple[int, dict[str, str]]:
        """Return where a row begins, counted in lines below the header, and its cells by column."""
        text, separator = self.source
        lines = csv.reader(io.StringIO(text), delimiter=separator)
        header, begin, seen = next(lines), lines.line_num, 0
        for cells in lines:
            if cells and seen == row:
                return begin, dict(zip(header, cells, strict=False))
            seen, begin = seen + bool(cells), lines.line_num
        raise IndexError(row)


def read_text_table(path: Path, required: Sequence[str] = REQUIRED) -> TextTable:
    """Read a table of text with a header.

    Parameters
    ----------
    path : Path
    required : sequence of str
        Columns by which separator and lines below the header are recognised; they may be missing all the same.

    Raises
    ------
    MissingInputError
        If there is no file.
    InputError
        If it is empty or no table, has columns of one name, or can be read in more than one way.
    """
    text, notes = _text(path)
    lines = text.lstrip("\n")
    directive = re.match(r"sep=(.)\n", lines)  # written by Excel
    lines = lines[directive.end() :].lstrip("\n") if directive else lines
    separator = directive.group(1) if directive else _separator(lines, required)
    rows, ends = _first_rows(path, lines, separator)
    names = [" ".join(name.splitlines()).strip() for name in rows[0]]
    if names.count("") > 1:
        names = [name or f"{_NAMELESS}{place + 1}" for place, name in enumerate(names)]
    _check_names(path, names)
    extra = _extra_lines(names, rows[1:], required)
    n_head = ends[len(extra)]
    header = io.StringIO()
    csv.writer(header, delimiter=separator, lineterminator="\n").writerow(names)
    body = header.getvalue() + "".join(lines.split("\n", n_head)[n_head:])
    table = _parse(path, body.encode(), separator)
    n_above = text.count("\n") - lines.count("\n") + n_head
    return TextTable(_without_empty(table), n_above, notes, extra, (body, separator))


def _first_rows(path: Path, text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """Return the header with the rows that may name columns and units, and the line that each of them ends in."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        pairs = [(row, reader.line_num) for row in islice(reader, 1 + _MOST_EXTRA_LINES)]
    except csv.Error as err:
        raise InputError(str(path), found=str(err), expected="a CSV table with a header") from err
    if not pairs:
        raise InputError(str(path), found="an empty file", expected="a CSV table with a header")
    rows, ends = zip(*pairs, strict=True)
    return list(rows), list(ends)


def _text(path: Path) -> tuple[str, tuple[str, ...]]:
    """Decode a file, with a note where the encoding is a guess."""
    try:
        _refuse_too_much(path)
        raw = path.read_bytes()
    except FileNotFoundError as err:
        raise MissingInputError(str(path), found="nothing", expected="a tracking table (CSV)") from err
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if raw.startswith(mark)), None)
    if encoding is None and b"\0" in raw[:1000]:
        encoding = "utf-16-le" if raw[1:2] == b"\0" else "utf-16-be"
    expected = "a CSV table, encoded as UTF-8"
    for candidate in [encoding] if encoding else ["utf-8", "cp1252"]:
        try:
            text = raw.decode(candidate)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        guessed = ("it is not UTF-8 and was read as Windows-1252; names with accents may be wrong",)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return text, guessed if candidate == "cp1252" else ()
    raise InputError(str(path), found="bytes that are no text", expected=expected, fix="save it as CSV UTF-8")


def _refuse_too_much(path: Path) -> None:
    """Look at the size and the beginning of a file, so that one that is no table is not read whole to find that out."""
    with path.open("rb") as file:
        begin, size = file.read(_MOST_HEADER_BYTES), file.seek(0, io.SEEK_END)
    if size > len(begin) and not (b"\n" in begin or b"\r" in begin):
        found = f"a first line of more than {_MOST_HEADER_BYTES / 1e6:.0f} MB"
        raise InputError(str(path), found=found, expected="a CSV table with a header")
    what, fix = f"a file of {size / 1e9:.1f} GB, held as bytes and as text", "write a table per FOV"
    refuse_too_large(str(path), 2 * size, field="size", what=what, fix=fix)


def _separator(text: str, required: Sequence[str]) -> str:
    """Choose the separator that finds most of the required columns in the header, else the most columns."""
    header = text.partition("\n")[0][: csv.field_size_limit()]

    def found(separator: str) -> tuple[int, int]:
        names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
        return len({*required, *TRACKMATE}.intersection(names)), len(names)

    return max(_SEPARATORS, key=found)


def _check_names(path: Path, names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    if repeated:
        places = ", ".join(str(place + 1) for place, name in enumerate(names) if name == repeated[0])
        raise InputError(
            str(path),
            field=", ".join(repeated),
            found=f"several columns of this name ({repeated[0]!r}: columns {places})",
            expected="each name once",
            fix="rename or remove all but one",
        )


def _extra_lines(
    names: Sequence[str], rows: Sequence[Sequence[str]], required: Sequence[str]
) -> tuple[dict[str, str], ...]:
    """Return the lines below the header that name columns and units instead of holding numbers."""
    extra: list[dict[str, str]] = []
    for row in rows:
        line = {name: cell.strip() for name, cell in zip(names, row, strict=False)}
        cells = [line.get(name, "") for name in required]
        if not any(cells) or any(cell and _NUMBER.fullmatch(cell) for cell in cells):
            break
        if not set(required) <= set(line) or any(cell.casefold() in ("nan", "null") for cell in cells):
            break
        extra.append(line)
    return tuple(extra) if len(extra) < len(rows) or len(extra) == _MOST_EXTRA_LINES else ()


def _parse(path: Path, data: bytes, separator: str) -> pa.Table:
    table = _read_csv(path, data, separator)
    marks = {name: _decimal_mark(table[name]) for name in table.column_names}
    doubtful = [name for name, mark in marks.items() if mark == "doubtful"]
    with_comma = [name for name, mark in marks.items() if mark == "comma"]
    if with_comma:
        again = _read_csv(path, data, separator, decimal_point=",")
        types = require("pyarrow", extra="triplet").types
        both = [n for n in table.column_names if types.is_floating(table[n].type) and types.is_string(again[n].type)]
        if both:
            raise InputError(
                str(path),
                field=f"{with_comma[0]}, {both[0]}",
                found="decimal commas in one column and decimal points in the other",
                expected="one of the two",
                fix="write all numbers with a point",
            )
        return _dates_as_text(path, data, separator, again, ",")
    if doubtful and set(doubtful) & {*REQUIRED, "z"}:
        raise InputError(
            str(path),
            field=doubtful[0],
            found=f"numbers such as {table[doubtful[0]][0].as_py()!r}, whose comma may mark thousands or decimals",
            expected="numbers with a decimal point",
            fix="write them with a point, and without marks for thousands",
        )
    return _dates_as_text(path, data, separator, table, ".")


def _decimal_mark(column: pa.ChunkedArray) -> str:
    """Tell whether a text column is one of numbers with decimal commas: "comma", "doubtful" or ""."""
    if not require("pyarrow", extra="triplet").types.is_string(column.type):
        return ""
    values = [value for value in column.to_pylist() if value is not None]
    with_comma = [value for value in values if "," in value]
    if not with_comma or not all(_DECIMAL_COMMA.fullmatch(value) for value in with_comma):
        return ""
    if not all(_NUMBER.fullmatch(value) and "." not in value for value in values):
        return ""
    return "doubtful" if all(_MAYBE_THOUSANDS.fullmatch(value) for value in with_comma) else "comma"


def _dates_as_text(path: Path, data: bytes, separator: str, table: pa.Table, decimal_point: str) -> pa.Table:
    """Read dates and times again as the text that they are in the file."""
    pa = require("pyarrow", extra="triplet")
    dates = [name for name in table.column_names if pa.types.is_temporal(table[name].type)]
    if not dates:
        return table
    types = dict.fromkeys(dates, pa.string())
    return _read_csv(path, data, separator, decimal_point=decimal_point, column_types=types)


def _read_csv(path: Path, data: bytes, separator: str, **options: object) -> pa.Table:
    pa, csv_reader = require("pyarrow", extra="triplet"), require("pyarrow.csv", extra="triplet")
    try:
        return csv_reader.read_csv(
            pa.BufferReader(data),
            # One block, since types are inferred from the first; callers read many files at once, one thread each.
            read_options=csv_reader.ReadOptions(use_threads=False, block_size=min(len(data) + 1, 2**31 - 1)),
            parse_options=csv_reader.ParseOptions(delimiter=separator),
            convert_options=csv_reader.ConvertOptions(strings_can_be_null=True, **options),
        )
    except pa.ArrowInvalid as err:
        fix = "separate columns by semicolons, or write numbers with a point" if "Expected" in str(err) else ""
        raise InputError(str(path), found=str(err), expected="a CSV table with a header", fix=fix) from err


def _without_empty(table: pa.Table) -> pa.Table:
    """Drop nameless columns of nothing, which separators at the ends of lines make."""
    types = require("pyarrow", extra="triplet").types
    nameless = [name for name in table.column_names if not name or name.startswith(_NAMELESS)]
    return table.drop_columns([name for name in nameless if types.is_null(table[name].type)])
