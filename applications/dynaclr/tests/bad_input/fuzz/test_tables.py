"""Tracking tables as any program may write them: the cells of the index are those of the table, or it is refused."""

from __future__ import annotations

import io
from collections import Counter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from viscy_data.testing.mutations import ByteEdit, byte_edits, edited_bytes

pytest_plugins = ["viscy_data.testing.fixtures"]

INDEX = "build-index experiments.yml index.parquet --tau-range 0 0"  # a lone observation is its own positive
FOVS = ("A/1/0", "B/1/0")
N_FRAMES = 10
EXACT = 2**53
IDS = (0, 1, 2, 7, 1000, 2**31 - 1, 2**31, EXACT - 1, EXACT, EXACT + 1, 2**63 - 1, 2**63, -1, -5, 10**25)


class Written(NamedTuple):
    """A table and how it is written.

    Parameters
    ----------
    cells : tuple of (int, int)
        Track and frame of each row.
    number : str
        How whole numbers are written: ``"whole"``, ``"point"`` (7.0), ``"float"`` (as a float prints), ``"padded"``,
        ``"last"`` (only the last row as ``"point"``).
    separator, mark, encoding, newline : str
        Of the file; ``mark`` is the decimal mark.
    extra : str
        ``"header"`` once more after the first row, ``"header twice"``, ``"blank"`` lines, ``"comment"`` above,
        ``"quotes"``, ``"short"`` last row, ``"column twice"``, ``"text"`` in the last id, or nothing.
    """

    cells: tuple[tuple[int, int], ...]
    number: str = "whole"
    separator: str = ","
    mark: str = "."
    encoding: str = "utf-8"
    newline: str = "\n"
    extra: str = ""

    def whole(self, value: int, is_last: bool) -> str:
        """Write a whole number."""
        match self.number:
            case "float":
                return repr(float(value)).replace(".", self.mark)
            case "point":
                return f"{value}{self.mark}0"
            case "last" if is_last:
                return f"{value}{self.mark}0"
            case "padded":
                return f" {value} "
        return str(value)

    def lines(self) -> list[list[str]]:
        """Return header and rows as texts."""
        rows = [["track_id", "t", "y", "x", "notes"]]
        for place, (track, t) in enumerate(self.cells):
            is_last = place == len(self.cells) - 1
            row = [
                self.whole(track, is_last),
                self.whole(t, is_last),
                f"5{self.mark}25",
                f"{place % 90}{self.mark}5",
                "a",
            ]
            if self.extra == "text" and is_last:
                row[0] += "a"
            rows.append(row[:-2] if self.extra == "short" and is_last else row)
        if self.extra == "header":
            rows.insert(2, rows[0])
        if self.extra == "header twice":
            rows.insert(1, rows[0])
        if self.extra == "column twice":
            rows = [[*row, row[0]] for row in rows]
        return rows

    def content(self) -> bytes:
        """Return the bytes of the file."""
        quote = '"' if self.extra == "quotes" else ""
        texts = [self.separator.join(f"{quote}{cell}{quote}" for cell in row) for row in self.lines()]
        if self.extra == "comment":
            texts.insert(0, "# made by hand")
        newline = self.newline * (2 if self.extra == "blank" else 1)
        return (newline.join(texts) + newline).encode(self.encoding, errors="replace")


def written_tables() -> st.SearchStrategy[Written]:
    cell = st.tuples(st.sampled_from(IDS), st.integers(0, N_FRAMES - 1))
    return st.builds(
        Written,
        st.lists(cell, min_size=1, max_size=6).map(tuple),
        st.sampled_from(["whole", "whole", "point", "float", "padded", "last"]),
        st.sampled_from([",", ",", ";", "\t", "|", " "]),
        st.sampled_from([".", ".", ","]),
        st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "utf-32"]),
        st.sampled_from(["\n", "\n", "\r\n", "\r"]),
        st.sampled_from(["", "", "", *"header,header twice,blank,comment,quotes,short,column twice,text".split(",")]),
    )


def indexed(path) -> Counter:
    """Count (FOV, track, frame) in a file of an index, read as anyone with parquet would."""
    table = pq.read_table(path)
    tracks = pa.ipc.open_stream(io.BytesIO(table.schema.metadata[b"dynaclr.tracks"])).read_all()
    where = list(zip(tracks["track_fov"].to_pylist(), tracks["track_id"].to_pylist(), strict=True))
    rows = zip(table["__track_index"].to_pylist(), table["t"].to_pylist(), strict=True)
    return Counter((*where[track], t) for track, t in rows)


def _place_with(fresh, trained, contents):
    """Make a folder of one experiment with the given tables of its two FOVs."""
    place = fresh()
    (place.folder / "first").unlink()
    (place.folder / "first").mkdir()
    (place.folder / "first/images.zarr").symlink_to(trained / "first/images.zarr")
    for fov, content in zip(FOVS, contents, strict=True):
        path = place.folder / "first/tracks" / fov / "tracks.csv"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    place.experiments["experiments"] = place.experiments["experiments"][:1]
    return place


KEPT = [
    (Written(((EXACT + 1, 0),), number="float"), Written(((1, 0),))),
    (Written(((2**63, 0),)), Written(((1, 0),))),
    (Written(((0, 0),), separator="|"), Written(((2**63, 0),))),
    (Written(((EXACT + 1, 0),), number="last"), Written(((1, 0),), number="point")),
]
KEPT_BYTES = [[ByteEdit(0.5, "zero", 30)], [ByteEdit(0.0, "zero", 1), ByteEdit(0.0, "insert", 1)]]


def test_the_cells_of_an_index_are_those_of_the_tables(fresh, tried, trained):
    def check(tables):
        place = _place_with(fresh, trained, [table.content() for table in tables])
        if not place.accepted(INDEX, "tracks.csv|tracking tables"):
            assert not (place.folder / "index.parquet").exists()
            return
        assert not any(table.number == "float" and abs(track) > EXACT for table in tables for track, _ in table.cells)
        expected = Counter((fov, track, t) for fov, table in enumerate(tables) for track, t in table.cells)
        assert indexed(place.folder / "index.parquet") == expected

    tried(check, st.tuples(written_tables(), written_tables()), 40, 3000, KEPT)


def test_bytes_of_tables(fresh, tried, trained):
    table = Written(tuple((track, t) for track in (3, 8, 2**40) for t in range(4)))

    def check(edits):
        place = _place_with(fresh, trained, [edited_bytes(table.content(), edits), table.content()])
        if place.accepted(INDEX, "tracks.csv|tracking tables"):
            cells = indexed(place.folder / "index.parquet")
            assert Counter({cell: n for cell, n in cells.items() if cell[0] == 1}) == Counter(
                (1, track, t) for track, t in table.cells
            )
            assert max(cells.values()) == 1

    tried(check, byte_edits(), 20, 1200, KEPT_BYTES)
