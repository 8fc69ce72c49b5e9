from __future__ import annotations

import csv
import io
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from viscy_data.errors import InputError, InputErrors, MissingInputError
from viscy_data.tracks import find_tracks, read_tracks, write_tracks

pytest.importorskip("pyarrow")

HEADER = "track_id,t,y,x,id,parent_track_id,parent_id\n"


@pytest.fixture
def table(tmp_path):
    """Write the text of a table and return its path."""

    def write(text: str):
        path = tmp_path / "tracks.csv"
        path.write_text(text)
        return path

    return write


def test_whole_numbers_and_coordinates_get_their_types(table):
    tracks = read_tracks(table(HEADER + "5,0,1.25,2,10,-1,-1\n6,3,20.9,7,11,5,10\n"))
    assert {name: str(tracks[name].dtype) for name in tracks} == {
        **dict.fromkeys(["track_id", "t", "id", "parent_track_id", "parent_id"], "int64"),
        "y": "float32",
        "x": "float32",
    }
    assert tracks.to_dict("list") == {
        "track_id": [5, 6],
        "t": [0, 3],
        "y": [1.25, np.float32(20.9)],
        "x": [2.0, 7.0],
        "id": [10, 11],
        "parent_track_id": [-1, 5],
        "parent_id": [-1, 10],
    }


def test_whole_floats_are_cast_and_empty_or_nan_parents_are_none(table):
    tracks = read_tracks(table(HEADER + "5.0,3.0,1,2,10.0,,\n6.0,4.0,1,2,11.0,nan,NaN\n7.0,4.0,1,2,12,5.0,10.0\n"))
    assert tracks["t"].tolist() == [3, 4, 4]
    assert tracks["parent_track_id"].tolist() == [-1, -1, 5]
    assert tracks["parent_id"].tolist() == [-1, -1, 10]


def test_column_of_nothing_but_empty_parents_is_none(table):
    assert read_tracks(table(HEADER + "5,3,1,2,10,,\n"))["parent_track_id"].tolist() == [-1]


def test_table_without_parent_columns_is_read(table):
    assert list(read_tracks(table("track_id,t,y,x\n0,0,1,1\n"))) == ["track_id", "t", "y", "x"]


def test_track_that_names_itself_as_parent_has_none(table):
    assert read_tracks(table(HEADER + "5,3,1,2,10,5,-1\n"))["parent_track_id"].tolist() == [-1]


def test_track_numbered_minus_one_is_nobodys_parent(table):
    tracks = read_tracks(table(HEADER + "-1,0,1,2,1,-1,-1\n3,0,1,2,2,-1,-1\n4,0,1,2,3,-7,-1\n"))
    assert tracks["track_id"].tolist() == [-1, 3, 4]
    assert tracks["parent_track_id"].tolist() == [-1, -1, -1]


def test_further_columns_and_z_are_kept(table):
    tracks = read_tracks(table("track_id,t,z,y,x,state,area\n0,0,2.5,1,1,mitosis,7\n1,0,3,1,1,,8\n"))
    assert tracks["z"].tolist() == [2.5, 3.0]
    assert str(tracks["z"].dtype) == "float32"
    assert tracks["area"].tolist() == [7, 8]
    assert tracks["state"][0] == "mitosis"
    assert pd.isna(tracks["state"][1])


def test_large_ids_are_exact(table):
    large = 2**62 + 1
    tracks = read_tracks(table(HEADER + f"5,0,1,2,{large},-1,-1\n"))
    assert tracks["id"].tolist() == [large]


def test_header_alone_is_a_fov_without_cells(table):
    tracks = read_tracks(table(HEADER))
    assert len(tracks) == 0
    assert tracks["track_id"].dtype == np.int64
    assert tracks["y"].dtype == np.float32


def test_type_that_changes_late_in_a_long_file_is_seen(table):
    rows = [f"{i},0,1,1" for i in range(200_000)] + ["200000.0,0,1.5,1"]
    tracks = read_tracks(table("track_id,t,y,x\n" + "\n".join(rows) + "\n"))
    assert tracks["track_id"].iloc[-1] == 200_000
    assert tracks["y"].iloc[-1] == 1.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("track_id,y,x\n0,1,1\n", r"field t\n  found    columns track_id, y, x"),
        ("track_id,t,y,x\n0,0,1,1\n0,abc,1,1\n", r"field t\n  found    'abc' in line 3\n  expected a number"),
        ("track_id,t,y,x\n0,0.5,1,1\n", r"field t\n  found    0.5 in line 2\n  expected a whole number"),
        ("track_id,t,y,x\n,0,1,1\n1,0,1,1\n", r"field track_id\n  found    nothing in line 2"),
        ("track_id,t,y,x\n0,-1,1,1\n", r"field t\n  found    -1 in line 2\n  expected a frame number"),
        ("track_id,t,y,x\n0,0,,1\n1,0,1,1\n", r"field y\n  found    nothing in line 2"),
        ("track_id,t,y,x\n0,0,1,inf\n1,0,1,nan\n", r"field x\n  found    inf in line 2, and 1 more"),
        ("track_id,t,y,x\n3,0,1,1\n3,1,1,1\n3,0,2,2\n", r"track 3 more than once in frame 0 \(line 4\), 1 repeated"),
        ("track_id,t,y,x,parent_track_id\n0,0,1,1,1.5\n", r"field parent_track_id\n  found    1.5"),
        ("track_id,t,y,x\n0,0,1\n", "Expected 4 columns, got 3"),
    ],
)
def test_bad_table_is_refused_with_file_and_column(table, text, message):
    with pytest.raises(InputError, match=r"tracks\.csv") as caught:
        read_tracks(table(text))
    caught.match(message)


def test_all_bad_columns_are_reported_together(table):
    with pytest.raises(InputErrors, match=r"(?s)field t\n.*field x\n"):
        read_tracks(table("track_id,t,y,x\n0,-1,1,inf\n"))
    with pytest.raises(
        InputError,
        match=r"field track_id, t\n  found    columns y, x\n  expected these columns\n  fix      rename .* to track_id",
    ):
        read_tracks(table("y,x\n0,1\n"))


def test_missing_table_is_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"none\.csv"):
        read_tracks(tmp_path / "none.csv")


def test_only_csv_in_the_folder_of_the_fov_is_found(tmp_path):
    folder = tmp_path / "A" / "1" / "0"
    folder.mkdir(parents=True)
    assert find_tracks(tmp_path, "A/1/0") is None
    (folder / "._any.csv").touch()
    (folder / "labels.zarr").mkdir()
    (folder / "any.csv").touch()
    assert find_tracks(tmp_path, "/A/1/0") == folder / "any.csv"
    assert find_tracks(tmp_path, "A/1/1") is None


@pytest.mark.parametrize("name", ["tracks.CSV", "tracks.tsv"])
def test_tables_of_any_spelling_are_found(tmp_path, name):
    (tmp_path / "A/1/0").mkdir(parents=True)
    (tmp_path / "A/1/0" / name).touch()
    assert find_tracks(tmp_path, "A/1/0") == tmp_path / "A/1/0" / name


def test_two_tables_for_one_fov_are_refused(tmp_path):
    for name in ("b.csv", "a.csv"):
        (tmp_path / "A/1/0").mkdir(parents=True, exist_ok=True)
        (tmp_path / "A/1/0" / name).touch()
    with pytest.raises(InputError, match=r"2 CSV files: a\.csv, b\.csv"):
        find_tracks(tmp_path, "A/1/0")


def test_written_table_is_read_back(tmp_path):
    table = pd.DataFrame({"x": [1.5], "y": [2.0], "state": ["S"], "t": [3], "track_id": [4], "parent_track_id": [-1]})
    path = tmp_path / "deep" / "tracks.csv"
    write_tracks(table, path)
    tracks = read_tracks(path)
    assert list(tracks) == ["track_id", "t", "parent_track_id", "y", "x", "state"]
    assert tracks.iloc[0].to_dict() == {**table.iloc[0].to_dict()}
    with pytest.raises(FileExistsError, match="pass overwrite"):
        write_tracks(table, path)
    write_tracks(table.assign(t=5), path, overwrite=True)
    assert read_tracks(path)["t"].tolist() == [5]
    assert [entry.name for entry in path.parent.iterdir()] == ["tracks.csv"]


def test_table_that_could_not_be_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="lacks t, y"):
        write_tracks(pd.DataFrame({"x": [1.0], "track_id": [0]}), tmp_path / "tracks.csv")


PARENTS = st.sampled_from(["", "nan", "-1", "-1.0", "3", "3.0"])


@hypothesis_settings(deadline=None, max_examples=30)
@given(rows=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), PARENTS, st.floats(0, 1e4)), max_size=20))
def test_reading_agrees_with_the_csv_module(tmp_path_factory, rows):
    rows = list({row[:2]: row for row in rows}.values())
    text = "track_id,t,parent_track_id,y,x\n" + "".join(f"{a},{b},{p},{y!r},0\n" for a, b, p, y in rows)
    path = tmp_path_factory.mktemp("tracks") / "tracks.csv"
    path.write_text(text)
    tracks = read_tracks(path)
    for row, (_, found) in zip(csv.DictReader(io.StringIO(text)), tracks.iterrows(), strict=True):
        parent = float(row["parent_track_id"] or "nan")
        none = math.isnan(parent) or int(parent) == int(row["track_id"])
        assert found["track_id"] == int(row["track_id"])
        assert found["t"] == int(row["t"])
        assert found["parent_track_id"] == (-1 if none else int(parent))
        assert found["y"] == np.float32(row["y"])
