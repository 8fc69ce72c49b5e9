"""Stores of embeddings with values and bytes changed, and tables of labels as any program may write them."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal, InvalidOperation

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from viscy_data.testing.mutations import ByteEdit, TreeEdit, byte_edits, edited_bytes, edited_tree, tree_edits
from viscy_utils.embeddings.store import build_anndata, observation_table, write_anndata

pytest_plugins = ["viscy_data.testing.fixtures"]

ANNOTATE = {
    "embeddings_path": "cells.zarr",
    "annotations": [{"experiment": "first", "path": "labels.csv"}],
    "columns": ["state"],
    "output_path": "new.zarr",
}
VALUES = [
    None,
    True,
    0,
    1,
    -1,
    3,
    1e300,
    "",
    "x",
    "<f8",
    "|O",
    "<i4",
    "zstd",
    "categorical",
    "0.1.0",
    "9.9",
    "array",
    [],
    [5],
    [10**12],
    {},
]
KEPT = {
    "values": [(174, [TreeEdit(131, "rename"), TreeEdit(240, "wrap")]), (135, [TreeEdit(100, "rename")])],
    "bytes": [(99, [ByteEdit(0.0, "cut")]), (99, [ByteEdit(0.5, "insert", 68)]), (41, [ByteEdit(0.34, "drop", 72)])],
}
KEPT_LABELS = [b"fov_name,track_id,t,state\nA/1/0,10000000000000000000000000,0,label 0\n"]


@pytest.mark.parametrize("what", ["values", "bytes"])
def test_spoilt_stores(fresh, tried, what):
    edits = tree_edits(2, VALUES) if what == "values" else byte_edits()

    def check(case):
        place = fresh("cells.zarr", "labels.csv")
        at, edits = case
        files = sorted(path for path in (place.folder / "cells.zarr").rglob("*") if path.is_file())
        if what == "values":
            files = [path for path in files if path.name.startswith(".z")]
        file = files[at % len(files)]
        if what == "values":
            file.write_text(json.dumps(edited_tree(json.loads(file.read_text()), edits)))
        else:
            file.write_bytes(edited_bytes(file.read_bytes(), edits))
        place.write("annotate.yml", ANNOTATE)
        place.accepted("info cells.zarr", "cells.zarr")
        accepted = place.accepted("append-annotations --config annotate.yml")
        assert (place.folder / "new.zarr").exists() == accepted

    tried(check, st.tuples(st.integers(0, 200), edits), 4, 400, KEPT[what])


EXACT = 2**53
IDS = (0, 1, 7, -5, 2**31, EXACT - 1, EXACT, EXACT + 1, EXACT + 2, 2**63 - 1, 2**63 - 2, -(2**63))
NUMBERS = {
    "whole": str,
    "point": lambda value: f"{value}.0",
    "float": lambda value: repr(float(value)),
    "padded": lambda value: f" {value} ",
    "exponent": lambda value: f"{value}e0",
    "none": lambda value: "",
}


@st.composite
def label_tables(draw) -> bytes:
    """Draw a CSV file of labels; each row has a label of its own."""
    number = draw(st.sampled_from([*NUMBERS, "whole", "whole"]))
    separator = draw(st.sampled_from([",", ",", ",", ";", "\t"]))
    ids = st.sampled_from([*IDS, 2**63, 10**25])
    keys = draw(st.lists(st.tuples(st.sampled_from(FOVS), ids, st.integers(0, 2)), min_size=1, max_size=8))
    rows = [["fov_name", "track_id", "t", "state"]]
    for place, (fov, track, t) in enumerate(keys):
        form = NUMBERS[number if draw(st.booleans()) else "whole"]
        rows.append([fov, form(track), str(t), f"label {place}"])
    if draw(st.integers(0, 5)) == 0:
        rows.insert(draw(st.integers(1, len(rows))), rows[0])
    text = "".join(separator.join(row) + "\n" for row in rows)
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"])))


FOVS = ("A/1/0", "/B/1/0/")


def read_alone(content: bytes, encoding: str = "utf-8-sig") -> dict[tuple[str, int, int], str]:
    """Read a table of labels with nothing but the csv module."""
    found = {}
    for row in csv.DictReader(io.StringIO(content.decode(encoding))):
        try:
            track, t = Decimal(row["track_id"].strip()), Decimal(row["t"])
        except InvalidOperation:
            continue
        found[row["fov_name"].strip("/"), track, t] = row["state"]
    return found


@pytest.fixture
def few_cells(tmp_path):
    """Return a store with a cell of each id in both FOVs, in 3 frames."""
    cells = [("first", fov.strip("/"), track, t) for fov in FOVS for track in IDS for t in range(3)]
    obs = observation_table(pd.DataFrame(cells, columns=["experiment", "fov_name", "track_id", "t"]))
    write_anndata(build_anndata(np.zeros((len(obs), 2), np.float32), obs, {}), tmp_path / "few_cells.zarr")
    return tmp_path / "few_cells.zarr"


def test_labels_are_those_of_their_own_cells(fresh, tried, few_cells):
    def check(content):
        place = fresh()
        (place.folder / "few.zarr").symlink_to(few_cells)
        (place.folder / "few.csv").write_bytes(content)
        place.write(
            "annotate.yml",
            ANNOTATE | {"embeddings_path": "few.zarr", "annotations": [{"experiment": "first", "path": "few.csv"}]},
        )
        if not place.accepted("append-annotations --config annotate.yml"):
            assert not (place.folder / "new.zarr").exists()
            return
        obs = anndata.read_zarr(place.folder / "new.zarr").obs
        encoding = "utf-16" if content.startswith(b"\xff\xfe") else "utf-8-sig"
        labels = read_alone(content, encoding)
        told = obs["state"].astype(object).where(obs["state"].notna(), None)
        for fov, track, t, state in zip(obs["fov_name"], obs["track_id"], obs["t"], told, strict=True):
            assert state == labels.get((fov, Decimal(int(track)), Decimal(int(t)))), (fov, track, t)

    tried(check, label_tables(), 10, 800, KEPT_LABELS)
