"""Tracks of other programs: from their files to the one table."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from viscy_data.errors import InputError, MissingInputError
from viscy_data.stores import FovInfo, FovKey
from viscy_data.testing.strategies import tracking_tables
from viscy_data.testing.trackers import (
    lineage_table,
    write_btrack_csv,
    write_btrack_hdf5,
    write_ctc,
    write_trackmate_xml,
)
from viscy_data.tracks import import_tracks, summarize_tracks
from viscy_data.tracks.graph import GraphError, tracks_of_graph

pytest.importorskip("pyarrow")

SCALE = (60.0, 1.0, 2.0, 0.5, 0.25)


def fov(scale=SCALE):
    return FovInfo(FovKey("/p.zarr", "A/1/0"), (10, 1, 1, 64, 64), "uint8", ("a",), scale)


def lineages(table):
    """Return, for every observation by its place, the place of the one before it: what no renumbering changes."""
    first, last = {}, {}
    for row in table.sort_values("t").itertuples():
        first.setdefault(row.track_id, (row.t, round(row.y, 2), round(row.x, 2)))
        last[row.track_id] = (row.t, round(row.y, 2), round(row.x, 2))
    before = {}
    for track, own in table.sort_values("t").groupby("track_id"):
        places = [(row.t, round(row.y, 2), round(row.x, 2)) for row in own.itertuples()]
        before.update(zip(places[1:], places[:-1], strict=True))
        parent = own["parent_track_id"].iloc[0]
        before[first[track]] = last.get(parent)
    return before


# graphs


@hypothesis_settings(deadline=None, max_examples=60)
@given(data=st.data(), n=st.integers(1, 25))
def test_tracks_of_a_graph_agree_with_a_walk(data, n):
    t = sorted(data.draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)))
    node = data.draw(st.permutations(range(10, 10 + n)))
    before = {}
    for row in range(n):
        earlier = [other for other in range(row) if t[other] < t[row]]
        if earlier and data.draw(st.booleans()):
            before[row] = data.draw(st.sampled_from(earlier))
    links = [(node[a], node[b]) if data.draw(st.booleans()) else (node[b], node[a]) for b, a in before.items()]
    track, parent = tracks_of_graph(np.array(node), np.array(t), np.array(links, np.int64).reshape(-1, 2))

    n_after = {row: sum(source == row for source in before.values()) for row in range(n)}
    for row in range(n):  # rows are in the order of time
        source = before.get(row)
        if source is not None and n_after[source] == 1:
            assert (track[row], parent[row]) == (track[source], parent[source])
        else:
            assert parent[row] == (-1 if source is None else track[source])
            assert not (track[:row] == track[row]).any()
    assert sorted(set(track)) == list(range(len(set(track))))


@pytest.mark.parametrize(
    ("node", "t", "links", "message"),
    [
        ([1, 2, 3], [0, 0, 1], [(1, 3), (2, 3)], "1 observations follow several others, such as 3 in frame 1.*merge"),
        ([1, 2], [0, 0], [(1, 2)], "1 and 2 are linked and in one frame, 0"),
        ([1, 2], [0, 1], [(1, 9)], "1 links name observations that are not listed"),
        ([1, 1], [0, 1], [], "observation 1 is listed more than once"),
    ],
)
def test_links_that_make_no_tracks_are_refused_by_name(node, t, links, message):
    with pytest.raises(GraphError, match=message):
        tracks_of_graph(np.array(node), np.array(t), np.array(links))


# formats: one population written in each of them comes back the same


POPULATION = lineage_table()


def test_every_format_gives_the_same_lineages(tmp_path):
    pytest.importorskip("tifffile")
    table = POPULATION
    table.to_csv(tmp_path / "table.csv", index=False)
    sources = {
        "table": tmp_path / "table.csv",
        "btrack": write_btrack_csv(tmp_path / "btrack.csv", table),
        "trackmate-xml": write_trackmate_xml(tmp_path / "tracks.xml", table),
        "ctc": write_ctc(tmp_path / "TRA", table),
    }
    expected = lineages(table)
    for name, source in sources.items():
        for form in ("auto", name):
            imported = import_tracks(source, fov(), format=form)
            assert lineages(imported.table) == expected, name
            assert str(imported.table["y"].dtype) == "float32"
    result = write_ctc(tmp_path / "RES", table, "res_track.txt", "mask{:03d}.tif")
    assert lineages(import_tracks(result).table) == expected


@hypothesis_settings(deadline=None, max_examples=20)
@given(table=tracking_tables(gaps=False))
def test_trackmate_xml_agrees_with_the_table_it_was_written_from(tmp_path_factory, table):
    times = table.groupby("track_id")["t"]
    parents = table.groupby("track_id")["parent_track_id"].first()
    daughters = parents[parents >= 0].value_counts()
    # A lone daughter goes on as its mother, and a lone spot belongs to no track.
    single = set(daughters[daughters == 1].index) | set(times.size()[times.size() == 1].index)
    if single:
        return
    source = write_trackmate_xml(tmp_path_factory.mktemp("xml") / "tracks.xml", table, unit="pixel")
    found, expected = lineages(import_tracks(source).table), lineages(table)
    assert {key: value for key, value in found.items()} == expected


TRACKMATE_CSV = """LABEL,ID,TRACK_ID,QUALITY,POSITION_X,POSITION_Y,POSITION_Z,FRAME
Label,Spot ID,Track ID,Quality,X,Y,Z,Frame
Label,Spot ID,Track ID,Quality,X,Y,Z,Frame
,,,(quality),(micron),(micron),(micron),
ID1,1,0,1.5,2.5,5,0,0
ID2,2,0,1.5,3,6,0,1
ID3,3,,1.5,3,6,0,1
ID4,4,7,1.5,25,5,0,0
"""


def test_the_table_of_spots_of_trackmate_is_read_in_pixels(tmp_path):
    path = tmp_path / "spots.csv"
    path.write_text(TRACKMATE_CSV)
    imported = import_tracks(path, fov())
    assert imported.table[["track_id", "t", "y", "x", "id"]].to_numpy().tolist() == [
        [0, 0, 10.0, 10.0, 1],
        [0, 1, 12.0, 12.0, 2],
        [7, 0, 10.0, 100.0, 4],
    ]
    assert imported.notes == ("1 spots belong to no track and are left out",)
    with pytest.raises(InputError, match="positions in micron, and nothing that says how large a pixel is"):
        import_tracks(path)
    path.write_text(TRACKMATE_CSV.replace("(micron)", "(pixel)"))
    assert import_tracks(path).table["x"].tolist() == [2.5, 3.0, 25.0]
    path.write_text(TRACKMATE_CSV + "ID5,5,0,1,1,1,0,1\n")
    with pytest.raises(InputError, match=r"track 0 more than once in frame 1(?s:.*)XML file of TrackMate"):
        import_tracks(path, fov())


def test_what_a_format_cannot_say_is_counted(tmp_path):
    pytest.importorskip("tifffile")
    xml = write_trackmate_xml(tmp_path / "t.xml", POPULATION, n_single=2)
    assert import_tracks(xml, fov()).notes == ("2 spots belong to no track and are left out",)
    folder = write_ctc(tmp_path / "TRA", POPULATION)
    lines = (folder / "man_track.txt").read_text().splitlines()
    (folder / "man_track.txt").write_text("\n".join(line for line in lines if not line.startswith("9")))
    assert import_tracks(folder).notes == (
        "2 labels have no line in man_track.txt and are left out",
        "1 frames of tracks have no label (gaps)",
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (' FRAME="1"', ' FRAME="0. 1"', r"field Spot \d+, FRAME\n  found    '0. 1'"),
        (' FRAME="1"', "", r"field Spot \d+, FRAME\n  found    None"),  # and not frame 0
        (' FRAME="1"', ' FRAME="1.5"', "field FRAME\n  found    1.5, "),
        (' FRAME="1"', ' FRAME="nan"', "field FRAME\n  found    nan, "),
        (' ID="', ' ID="9007199254740992', "a whole number below 2\\^53"),
        (' SPOT_TARGET_ID="', ' SPOT_TARGET_ID="x', "field Edge, SPOT_TARGET_ID\n  found    'x"),
        (' POSITION_X="', ' POSITION_X="inf', "POSITION_X\n  found    "),
    ],
)
def test_numbers_of_trackmate_that_are_none_are_refused_by_name(tmp_path, old, new, said):
    path = write_trackmate_xml(tmp_path / "t.xml", POPULATION)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=rf"t\.xml, {said}" if said.startswith("field") else said):
        import_tracks(path, fov())


def test_tracks_and_frames_of_the_table_of_trackmate_are_whole(tmp_path):
    lines = "TRACK_ID,ID,FRAME,POSITION_X,POSITION_Y\n1,7,0,1,1\n{track},8,{frame},1,1\n"
    for track, frame, field in (("1.5", "1", "TRACK_ID"), ("1", "1.5", "FRAME"), ("9007199254740993", "1", "TRACK_ID")):
        (tmp_path / "t.csv").write_text(lines.format(track=track, frame=frame))
        with pytest.raises(InputError, match=rf"t\.csv, field {field}\n  found    \d.*, of spot or link 2"):
            import_tracks(tmp_path / "t.csv", fov(), format="trackmate-csv")


def test_merges_and_broken_files_are_refused_by_name(tmp_path):
    pytest.importorskip("tifffile")
    merge = write_trackmate_xml(tmp_path / "m.xml", POPULATION, links=[(100, 103), (106, 103)])
    with pytest.raises(InputError, match=r"m\.xml\n  found    1 observations follow several others, such as 103"):
        import_tracks(merge, fov())
    (tmp_path / "broken.xml").write_text("<TrackMate>")
    with pytest.raises(InputError, match="no XML"):
        import_tracks(tmp_path / "broken.xml")
    folder = write_ctc(tmp_path / "TRA", POPULATION)
    (folder / "man_track.txt").write_text("1 0 x 0\n")
    with pytest.raises(InputError, match="'1 0 x 0' in line 1"):
        import_tracks(folder)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"columns a, b\n(?s:.*)trackmate-xml"):
        import_tracks(tmp_path / "other.csv")
    with pytest.raises(InputError, match="did you mean 'btrack'"):
        import_tracks(tmp_path / "other.csv", format="btracks")
    with pytest.raises(MissingInputError, match="nowhere"):
        import_tracks(tmp_path / "nowhere.csv")


def test_a_summary_counts_by_hand(tmp_path):
    summary = summarize_tracks(POPULATION)
    assert (summary.n_cells, summary.n_tracks, summary.n_divisions, summary.n_gaps) == (8, 4, 1, 1)
    assert summary.median_length == 2.0  # lengths 4, 2, 1, 2
    assert summary.later_share == 5 / 8  # not the last of 2, 3 and 9; the last of 1 has daughters
    assert summarize_tracks(POPULATION.iloc[:0]).n_tracks == 0


def test_ids_that_a_program_calls_otherwise_are_shown_as_they_are_written(tmp_path):
    path = tmp_path / "btrack.csv"
    path.write_text("ID,t,x,y,parent\n\n1e20,0,1,1,1e20\n")
    with pytest.raises(InputError, match="1e20 in line 3"):
        import_tracks(path, format="btrack")


def test_a_damaged_btrack_file_keeps_no_other_thread_from_reading_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    whole, spoilt = (write_btrack_hdf5(tmp_path / f"{name}.h5", lineage_table()) for name in ("whole", "spoilt"))
    with h5py.File(spoilt, "r+") as file:
        gone = [(str(tmp_path / "gone.bin"), 0, 80)]
        file["objects/obj_type_1/properties"].create_dataset("gone", (10,), "f8", external=gone)
    with pytest.raises(InputError, match="what cannot be read") as caught:
        import_tracks(spoilt)
    other = threading.Thread(target=import_tracks, args=(whole,), daemon=True)
    other.start()
    other.join(20)
    is_waiting = other.is_alive()
    del caught  # and with it what the error holds
    assert not is_waiting
