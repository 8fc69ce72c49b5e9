"""Tracking tables as other programs write them."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from viscy_data.errors import InputError
from viscy_data.stores import FovInfo, FovKey
from viscy_data.tracks import count_outside, describe_outside, read_tracks

pytest.importorskip("pyarrow")

EXPECTED = {"track_id": [3, 3, 7], "t": [0, 1, 1], "y": [1.25, 2.5, 100.0], "x": [0.5, 12.0, 7.75]}
PLAIN = "track_id,t,y,x\n3,0,1.25,0.5\n3,1,2.5,12\n7,1,100,7.75\n"


@pytest.fixture
def table(tmp_path):
    """Write a table, given as text or bytes, and return its path."""

    def write(content: str | bytes):
        path = tmp_path / "tracks.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def decimal_commas(text: str) -> str:
    return text.replace(",", ";").replace(".", ",")


UNAMBIGUOUS = {
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "decimal commas": decimal_commas(PLAIN),
    "decimal commas and tabs": decimal_commas(PLAIN).replace(";", "\t"),
    "quoted decimal commas": 'track_id,t,y,x\n3,0,"1,25","0,5"\n3,1,"2,5",12\n7,1,100,"7,75"\n',
    "byte order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "utf-16": PLAIN.encode("utf-16"),
    "utf-16 without a mark": PLAIN.encode("utf-16-le"),
    "utf-16 big": PLAIN.encode("utf-16-be"),
    "excel": "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"),
    "windows line ends": PLAIN.replace("\n", "\r\n"),
    "old line ends": PLAIN.replace("\n", "\r"),
    "excel, old line ends": "sep=;\r" + PLAIN.replace(",", ";").replace("\n", "\r"),
    "blank lines between": PLAIN.replace("\n", "\n\n"),
    "blank lines first": "\n\n" + PLAIN,
    "blanks in the header": PLAIN.replace("track_id,t,y,x", " track_id, t, y ,x "),
    "trailing separators": PLAIN.replace("\n", ",,\n"),
    "quoted header": PLAIN.replace("track_id,t,y,x", '"track_id","t","y","x"'),
    "names below the header": PLAIN.replace("x\n", "x\nTrack ID,Frame,Y,X\n", 1),
    "names and units below the header": PLAIN.replace(
        "x\n", "x\nTrack ID,Frame,Y,X\nTrack,Frame,Y,X\n,,(pixel),(pixel)\n", 1
    ),
}


@pytest.mark.parametrize("content", UNAMBIGUOUS.values(), ids=UNAMBIGUOUS)
def test_what_can_be_read_in_one_way_is_read(table, content):
    tracks = read_tracks(table(content))
    assert tracks.to_dict("list") == EXPECTED
    assert [str(dtype) for dtype in tracks.dtypes] == ["int64", "int64", "float32", "float32"]


AMBIGUOUS = {
    "thousands or decimals": ("track_id;t;y;x\n0;0;1,250;1\n0;1;2,500;1\n", "y", "1,250", "with a point"),
    "two decimal marks": ("track_id;t;y;x\n0;0;1,5;1.5\n", "y, x", "decimal commas in one", "with a point"),
    "decimal commas between commas": ("track_id,t,y,x\n0,0,1,5,2,5\n", "", "Expected 4 columns, got 6", "semicolons"),
    "repeated column": ("track_id,t,y,x,t\n0,0,1,1,5\n", "t", "columns 2, 5", "rename"),
    "repeated further column": ("track_id,t,y,x,a,a\n0,0,1,1,5,6\n", "a", "columns 5, 6", "rename"),
    "repeated after blanks": ("track_id,t,y,x, a,a\n0,0,1,1,5,6\n", "a", "columns 5, 6", "rename"),
    "units": (PLAIN.replace("x\n", "x\n,,(micron),(micron)\n", 1), "y", "'(micron)' in line 2", "size of a pixel"),
    "trackmate": (
        "LABEL,ID,TRACK_ID,FRAME,POSITION_X,POSITION_Y\nLabel,Spot ID,Track ID,Frame,X,Y\n",
        "",
        "an export of TrackMate",
        "import-tracks",
    ),
    "thousands and decimals": (PLAIN.replace("1.25", '"1,250.5"'), "y", "'1,250.5' in line 2", ""),
    "blanks between thousands": (PLAIN.replace("1.25", "1 250.5"), "y", "'1 250.5' in line 2", ""),
    "rows of another separator": (PLAIN.replace("x\n", "x\n").replace("3,0,1.25,0.5", "3;0;1.25;0.5"), "", "got 1", ""),
    "further than a number reaches": (PLAIN.replace("1.25", "1e300"), "y", "1e300 in line 2", ""),
    "a parent below 0": (
        "track_id,t,y,x,parent_track_id\n-3,0,1,1,-1\n5,1,1,1,-3\n",
        "parent_track_id",
        "-3 in line 3",
        "number the tracks anew",
    ),
    "a cell without an end": (f'{PLAIN}"{"a" * 200_000}', "", "Expected 4 columns", ""),
    "a name without an end": (f'"{"a" * 200_000}\n{PLAIN}', "", "field larger than field limit", ""),
    "an image": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0", "", "bytes that are no text", "CSV UTF-8"),
}


@pytest.mark.parametrize(("content", "field", "found", "fix"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_with_file_and_remedy(table, content, field, found, fix):
    with pytest.raises(InputError, match=r"tracks\.csv") as caught:
        read_tracks(table(content))
    assert caught.value.field == field
    assert found in caught.value.found
    assert fix in caught.value.fix


def test_a_windows_encoding_is_read_and_said(table):
    path = table("track_id,t,y,x,größe\n1,0,2,3,klein\n".encode("cp1252"))
    with pytest.warns(UserWarning, match=r"tracks\.csv: it is not UTF-8 and was read as Windows-1252"):
        tracks = read_tracks(path)
    assert tracks["größe"].tolist() == ["klein"]


def test_lines_are_counted_as_in_the_file(table):
    path = table("sep=;\ntrack_id;t;y;x\nTrack;Frame;Y;X\n0;0;1;1\n0;x;1;1\n")
    with pytest.raises(InputError, match="field t\n  found    'x' in line 5"):
        read_tracks(path)


@pytest.mark.parametrize(
    ("above", "n_above"),
    [("", 0), ("\n\n", 2), ("sep=,\r\n", 1), ("sep=,\r\n\r\n", 2)],
    ids=["nothing", "blank", "sep", "both"],
)
def test_rows_of_several_lines_and_blank_ones_are_counted(table, above, n_above):
    text = f'{above}track_id,t,y,x,"a\nnote"\n\n1,0,1,1,"two\nlines"\n\n1,0,2,2,\n'
    with pytest.raises(InputError, match=rf"more than once in frame 0 \(line {n_above + 7}\)"):
        read_tracks(table(text))
    with pytest.raises(InputError, match=f"'first' in line {n_above + 4}"):
        read_tracks(table(text.replace("1,0,1,1", "1,first,1,1")))


def test_dates_and_times_are_kept_as_text(table):
    text = "track_id,t,y,x,day,at,when\n0,0,1,1,2024-11-05,10:30:00,2024-11-05 10:30:00\n"
    tracks = read_tracks(table(text))
    assert tracks[["day", "at", "when"]].iloc[0].tolist() == ["2024-11-05", "10:30:00", "2024-11-05 10:30:00"]


INEXACT = ["9223372036854775808", "18446744073709551617", "9007199254740993.0", "9.1e15", "-9007199254740994.0"]


@pytest.mark.parametrize("value", INEXACT)
@pytest.mark.parametrize("column", ["track_id", "id", "parent_track_id", "parent_id"])
def test_ids_that_cannot_be_held_exactly_are_refused_with_line_and_value(table, column, value):
    row = {"track_id": "1", "t": "0", "y": "1", "x": "1", "id": "1", "parent_track_id": "-1", "parent_id": "-1"}
    rows = [row, {**row, "t": "1"}, {**row, "t": "2", column: value}]
    path = table(pd.DataFrame(rows).to_csv(index=False))
    with pytest.raises(InputError, match=r"tracks\.csv") as caught:
        read_tracks(path)
    assert caught.value.field == column
    assert caught.value.found == f"{value} in line 4"


@pytest.mark.parametrize("value", [2**63 - 1, 2**53 + 1, 2**53])
def test_large_whole_numbers_are_exact_beside_empty_cells(table, value):
    tracks = read_tracks(table(f"track_id,t,y,x,id,parent_id\n{value},0,1,1,{value},\n1,0,1,1,,{value}\n"))
    assert tracks["track_id"].tolist() == [value, 1]
    assert tracks["id"].tolist() == [value, -1]
    assert tracks["parent_id"].tolist() == [-1, value]


PARENT = "track_id,t,y,x,{}\n1,0,1,1,{}\n2,1,1,1,{}\n2,2,1,1,{}\n"


@pytest.mark.parametrize("name", ["parent", "Parent", "PARENT"])
@pytest.mark.parametrize("none", ["", "-1", "0", "1"])  # btrack: a root is its own parent
def test_a_column_parent_of_track_ids_is_the_parent_track(table, name, none):
    with pytest.warns(UserWarning, match=f"the column '{name}' is read as parent_track_id"):
        tracks = read_tracks(table(PARENT.format(name, none, "1", "1")))
    assert tracks["parent_track_id"].tolist() == [-1, 1, 1]
    assert name not in tracks


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("parent", ("", "1", "2")),  # changes along the track: ids of nodes, perhaps
        ("parent", ("", "9", "9")),  # no such track
        ("parent", ("", "cell1", "cell1")),
        ("parent_track", ("", "1", "1")),
        ("mother_id", ("", "1", "1")),
    ],
)
def test_another_column_of_parents_is_pointed_out_and_kept(table, name, values):
    with pytest.warns(UserWarning, match=f"no lineage is read: .* is it '{name}'"):
        tracks = read_tracks(table(PARENT.format(name, *values)))
    assert name in tracks
    assert "parent_track_id" not in tracks


def test_a_parent_below_0_that_is_a_track_is_not_taken_for_none(table):
    with pytest.warns(UserWarning, match="no lineage is read: .* is it 'parent'"):
        tracks = read_tracks(table("track_id,t,y,x,parent\n-2,0,1,1,\n1,1,1,1,-2\n"))
    assert "parent_track_id" not in tracks


def test_a_table_with_parent_track_id_keeps_a_column_parent(table):
    text = "track_id,t,y,x,parent,parent_track_id,parent_id\n1,0,1,1,5,-1,3\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracks = read_tracks(table(text))
    assert tracks["parent"].tolist() == [5]


@hypothesis_settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(st.tuples(st.integers(0, 99), st.floats(0, 1e4, width=32), st.text("äb,; \t'", max_size=3))),
    separator=st.sampled_from([",", ";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_a_table_is_the_same_however_it_is_written(tmp_path_factory, rows, separator, encoding, end):
    frame = pd.DataFrame(rows, columns=["t", "y", "note"]).assign(x=1.5)
    frame.insert(0, "track_id", np.arange(len(rows)))
    path = tmp_path_factory.mktemp("tracks") / "tracks.csv"
    frame.to_csv(path, sep=separator, encoding=encoding, index=False, lineterminator=end)
    tracks = read_tracks(path)
    assert tracks["t"].tolist() == frame["t"].tolist()
    assert tracks["y"].tolist() == frame["y"].tolist()
    assert ["" if pd.isna(note) else note for note in tracks["note"]] == frame["note"].tolist()


# cells outside their image


def fov(shape=(10, 1, 1, 40, 100), scale=1.0, name="A/1/0"):
    return FovInfo(FovKey("/p.zarr", name), shape, "uint8", ("a",), (1.0, 1.0, 1.0, scale, scale))


def cells(t=(), y=(), x=(), track=None):
    n = len(y)
    track = np.arange(n) if track is None else np.asarray(track)
    return {"track_id": track, "t": np.resize(t or [0], n), "y": np.array(y, float), "x": np.array(x, float)}


def said(*pairs):
    return describe_outside([count_outside(table, image) for table, image in pairs])


def test_nothing_is_said_of_cells_in_their_image():
    assert said((cells(y=[0, 39.9], x=[99.9, 0]), fov()), (cells(), fov())) == []


def test_share_and_example_of_cells_outside():
    [sentence] = said((cells(t=[3], y=[5, 5, 5, 41], x=[5, 6, 7, 130]), fov()), (cells(y=[1] * 4, x=[1] * 4), fov()))
    assert sentence.startswith("1 of 8 cells (12 %) lie outside their image")
    assert "track 3 in frame 3 of A/1/0 at y = 41, x = 130, where the image is 40 x 100 pixels" in sentence


def test_swapped_x_and_y_are_recognised_by_fov():
    rng = np.random.default_rng(0)
    y, x = rng.uniform(0, 40, 50), rng.uniform(0, 100, 50)
    right, swapped = cells(y=y, x=x), cells(y=x, x=y)
    sentences = said((right, fov()), (swapped, fov(name="B/1/0")))
    assert sentences[1:] == ["x and y seem swapped (B/1/0): exchanged, the cells lie inside"]
    assert not any("swapped" in sentence for sentence in said((cells(y=[1, 2, 500], x=[90, 95, 500]), fov())))


@pytest.mark.parametrize("scale", [2.0, 3.5])
def test_micrometres_are_recognised_when_dividing_puts_cells_inside(scale):
    rng = np.random.default_rng(1)
    table = cells(y=rng.uniform(0, 40, 50) * scale, x=rng.uniform(0, 100, 50) * scale)
    assert "micrometres? (A/1/0): divided by the size of a pixel, the cells lie inside" in said(
        (table, fov(scale=scale))
    )
    assert not any("micrometres" in sentence for sentence in said((table, fov())))


def test_micrometres_of_small_pixels_are_recognised_by_the_corner_that_all_cells_are_in():
    rng = np.random.default_rng(2)
    y, x = rng.uniform(0, 40, 50), rng.uniform(0, 100, 50)
    in_micrometres = cells(y=y * 0.3, x=x * 0.3)
    assert said((in_micrometres, fov(scale=0.3))) == [
        "micrometres? (A/1/0): all cells lie in the corner where they would lie then"
    ]
    assert said((cells(y=y, x=x), fov(scale=0.3))) == []
    assert said((cells(y=y[:5] * 0.3, x=x[:5] * 0.3), fov(scale=0.3))) == []  # five tracks may be there by chance


def test_negative_coordinates_are_counted():
    assert "2 of them have negative coordinates" in said((cells(y=[-5, 3, 4], x=[3, -1, 4]), fov()))


def test_times_in_the_place_of_frames_are_named_as_that():
    times = cells(t=list(range(0, 18000, 1800)), y=[1] * 10, x=[1] * 10)
    assert "t seems to be a time and no frame (A/1/0): divide by 1800 to count frames" in said((times, fov()))
    every_other = cells(t=[0, 2, 4, 6], y=[1] * 4, x=[1] * 4)  # inside of the movie
    assert not any("time" in sentence for sentence in said((every_other, fov())))
    longer = cells(t=list(range(0, 60, 2)), y=[1] * 30, x=[1] * 30)
    assert not any("time" in sentence for sentence in said((longer, fov())))


@pytest.mark.parametrize(("start", "words"), [(1, "count from 1"), (100, "begin at 100")])
def test_frames_that_do_not_begin_at_0_are_named_as_that(start, words):
    table = cells(t=list(range(start, start + 10)), y=[1] * 10, x=[1] * 10)
    assert f"frames seem to {words} (A/1/0): subtract {start} to count from 0" in said((table, fov()))
    longer = cells(t=list(range(start, start + 12)), y=[1] * 12, x=[1] * 12)
    assert not any("frames" in sentence for sentence in said((longer, fov())))
