"""Rows of two tables that speak of the same cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from viscy_data.cell_matching import CELL_KEYS, match_cells
from viscy_data.errors import InputError


@st.composite
def tables(draw, unique):
    """Draw few keys, so that many are in both tables."""
    columns = {
        "experiment": st.sampled_from(["monday", "tuesday"]),
        "store": st.sampled_from(["/a/p.zarr", "/b/p.zarr"]),
        "fov_name": st.sampled_from(["A/1/0", "A/1/1"]),
        "track_id": st.integers(0, 3),
        "t": st.integers(0, 2),
    }
    rows = draw(st.lists(st.tuples(*columns.values()), max_size=12, unique=unique))
    return pd.DataFrame(rows, columns=list(columns)).assign(id=np.arange(len(rows)))


@hypothesis_settings(deadline=None, max_examples=60)
@given(cells=tables(unique=False), table=tables(unique=True), which=st.integers(0, 1))
def test_rows_are_found_as_by_a_slow_search(cells, table, which):
    keys = CELL_KEYS[which]
    table = table.drop_duplicates(list(keys)).reset_index(drop=True)
    # Written as people and programs write them.
    written = table.assign(fov_name="/" + table["fov_name"] + "/", track_id=table["track_id"].astype(float))
    match = match_cells(cells, written, source="labels.csv", keys=[keys])
    theirs = [tuple(row) for row in table[list(keys)].to_numpy().tolist()]
    expected = [theirs.index(row) if row in theirs else -1 for row in map(tuple, cells[list(keys)].to_numpy().tolist())]
    assert match.rows.tolist() == expected
    assert match.unmatched.tolist() == [row not in expected for row in range(len(table))]
    n_unmatched = int(match.unmatched.sum())
    assert match.note.startswith(f"{n_unmatched} of {len(table)} rows of labels.csv") if n_unmatched else not match.note


CELLS = pd.DataFrame(
    {"experiment": "monday", "store": "/a/p.zarr", "fov_name": "A/1/0", "track_id": [1, 1, 2], "t": [0, 1, 0]}
).assign(id=[7, 8, 9])


@pytest.mark.parametrize(
    ("columns", "keys"),
    [
        (["experiment", "store", "fov_name", "track_id", "t", "id"], CELL_KEYS[0]),
        (["store", "fov_name", "track_id", "t", "id"], CELL_KEYS[1]),
        (["fov_name", "track_id", "t", "id"], CELL_KEYS[2]),
        (["fov_name", "id"], CELL_KEYS[3]),
    ],
)
def test_the_most_telling_columns_of_both_are_compared(columns, keys):
    match = match_cells(CELLS, CELLS[columns].iloc[::-1], source="labels.csv")
    assert match.keys == keys
    assert match.rows.tolist() == [2, 1, 0]


def test_ids_of_any_size_are_told_apart():
    cells = CELLS.assign(track_id=[2**62, 2**62 + 1, 2**62 + 2])
    assert match_cells(cells, cells.iloc[1:], source="labels.csv").rows.tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    "numbers", [[1.0, np.nan, np.nan], ["1", "", None], pd.array([1, None, None], "Int64"), [1, None, 1.5]]
)
def test_missing_numbers_name_no_cell(numbers):
    table = CELLS.assign(track_id=numbers)
    match = match_cells(CELLS, table, source="labels.csv")
    assert match.rows.tolist() == [0, -1, -1]
    assert match.note == "2 of 3 rows of labels.csv name no cell, such as monday/A/1/0/?/1"
    assert match_cells(table, CELLS, source="labels.csv").rows.tolist() == [0, -1, -1]


@pytest.mark.parametrize(
    ("cells", "table", "message"),
    [
        (CELLS, CELLS[["track_id", "t"]], r"labels\.csv\n  found    columns track_id, t\n(?s:.*)fov_name, id"),
        (CELLS, pd.concat([CELLS, CELLS[:1]]), "annotated twice, such as monday/A/1/0/1/0"),
        (CELLS, CELLS.assign(track_id=["1", "one", "2"]), "field track_id\n  found    'one'"),
        (
            pd.concat([CELLS, CELLS.assign(experiment="tuesday")]),
            CELLS[["fov_name", "track_id", "t"]],
            "field experiment\n  found    no column experiment, and cells of 2 of them",
        ),
    ],
)
def test_what_does_not_say_which_cell_is_refused(cells, table, message):
    with pytest.raises(InputError, match=message):
        match_cells(cells, table, source="labels.csv")
