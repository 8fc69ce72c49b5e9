"""Tracks as GEFF, of napari, btrack's HDF5 and Trackastra: read, and written back."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from viscy_data.errors import InputError
from viscy_data.stores import FovInfo, FovKey, PlateWriter, read_plate
from viscy_data.testing.strategies import tracking_tables
from viscy_data.testing.trackers import lineage_table, write_btrack_hdf5
from viscy_data.tracks import from_napari, import_tracks, to_napari, write_geff, write_napari, write_tracks

pytest.importorskip("pyarrow")

POPULATION = lineage_table()


def fov(scale=(60.0, 1.0, 2.0, 0.5, 0.25)):
    return FovInfo(FovKey("/p.zarr", "A/1/0"), (10, 1, 1, 64, 64), "uint8", ("a",), scale)


def same_cells(found, table):
    """Compare what a table says of its cells, in the order of tracks and frames."""
    columns = [name for name in ("track_id", "t", "y", "x", "z", "parent_track_id", "area") if name in table]
    one, two = (each[columns].sort_values(["track_id", "t"]).reset_index(drop=True) for each in (found, table))
    pd.testing.assert_frame_equal(one, two, check_dtype=False)


# writers: what is written is read


@pytest.mark.parametrize("form", ["table", "napari", "geff"])
@hypothesis_settings(deadline=None, max_examples=8)
@given(table=tracking_tables(max_tracks=8, max_track_frames=5), z=st.booleans())
def test_what_is_written_is_read(tmp_path_factory, form, table, z):
    if form == "geff":
        pytest.importorskip("geff")
    table["area"] = np.arange(len(table)) + 0.5
    if z:
        table["z"] = np.float32(2.5)
    folder = tmp_path_factory.mktemp(form)
    write, name = {
        "table": (write_tracks, "a.csv"),
        "napari": (write_napari, "a.npz"),
        "geff": (write_geff, "a.geff"),
    }[form]
    assert not write(table, folder / name)
    imported = import_tracks(folder / name)
    same_cells(imported.table, table)
    assert imported.notes == ()
    if form != "napari" or "id" in table:
        by_id = imported.table.sort_values(["track_id", "t"])["id"].tolist()
        assert by_id == table.sort_values(["track_id", "t"])["id"].tolist()
    with pytest.raises(FileExistsError, match="pass overwrite"):
        write(table, folder / name)
    write(table.iloc[:0], folder / name, overwrite=True)
    assert len(import_tracks(folder / name).table) == 0


def test_writers_say_what_they_leave_out(tmp_path):
    table = POPULATION.assign(phase=["early"] * 8)
    assert write_napari(table, tmp_path / "a.npz") == ("columns that are no numbers are left out: phase",)
    pytest.importorskip("geff")
    table.loc[table["track_id"] == 9, "parent_track_id"] = 7
    assert write_geff(table, tmp_path / "a.geff") == (
        "columns that are no numbers are left out: phase",
        "1 tracks have a parent that is not there before them, and are written without one",
    )


# GEFF


def write_graph(path, axes, columns, edges, **metadata):
    core, spec = pytest.importorskip("geff.core_io"), pytest.importorskip("geff_spec")
    axes = None if axes is None else [spec.Axis(**axis) for axis in axes]
    node = np.arange(len(next(iter(columns.values()))), dtype=np.uint64)
    core.write_arrays(
        path,
        node,
        {name: {"values": np.asarray(values), "missing": None} for name, values in columns.items()},
        np.asarray(edges, np.uint64).reshape(-1, 2),
        {},
        spec.GeffMetadata(directed=True, axes=axes, node_props_metadata={}, edge_props_metadata={}, **metadata),
    )
    return path


AXES = [
    {"name": "t", "type": "time", "unit": "frame"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]
CELLS = {"t": [0, 1, 2, 2], "y": [1.0, 2.0, 3.0, 1.0], "x": [1.0, 1.0, 0.5, 2.0]}
DIVISION = [(0, 1), (1, 2), (1, 3)]


def test_geff_positions_come_in_pixels_of_the_store(tmp_path):
    path = write_graph(tmp_path / "a.zarr", AXES, CELLS | {"area": [1, 2, 3, 4]}, DIVISION)
    table = import_tracks(path, fov()).table
    assert table["y"].tolist() == [2.0, 4.0, 6.0, 2.0]
    assert table["x"].tolist() == [4.0, 4.0, 2.0, 8.0]
    assert table["track_id"].tolist() == [0, 0, 1, 2]
    assert table["parent_track_id"].tolist() == [-1, -1, 0, 0]
    assert table["area"].tolist() == [1, 2, 3, 4]
    with pytest.raises(InputError, match="positions in micrometer, and nothing that says how large a pixel is"):
        import_tracks(path)


def test_units_of_the_file_and_of_the_store_may_differ(tmp_path):
    with PlateWriter(tmp_path / "plate.zarr", ["Phase"]) as writer:  # seconds and micrometres
        writer.write("A/1/0", np.zeros((3, 1, 1, 32, 32), np.uint8), scale=(90.0, 1.0, 1.0, 0.5, 0.5))
    [plate_fov] = read_plate(tmp_path / "plate.zarr")
    axes = [axis | {"unit": "minute" if axis["name"] == "t" else "nanometer"} for axis in AXES]
    cells = {"t": [0.0, 1.5, 3.0, 3.0], "y": [500.0, 1000.0, 1500.0, 500.0], "x": CELLS["x"]}
    table = import_tracks(write_graph(tmp_path / "a.geff", axes, cells, DIVISION), plate_fov).table
    assert table["t"].tolist() == [0, 1, 2, 2]
    assert table["y"].tolist() == [1.0, 2.0, 3.0, 1.0]
    cells["t"] = [0.0, 1.0, 3.0, 3.0]
    with pytest.raises(InputError, match=r"field t\n  found    0\.666667 of node 1"):
        import_tracks(write_graph(tmp_path / "b.geff", axes, cells, DIVISION), plate_fov)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (None, r"axis t\n  found    no axes(?s:.*)axis y(?s:.*)axis x"),
        (AXES[:2], r"a\.geff, field axis x\n  found    t, y"),
        ([AXES[0] | {"unit": None}, *AXES[1:]], r"unit of axis t\n  found    nothing"),
        ([AXES[0], AXES[1] | {"unit": None}, AXES[2]], r"unit of axis y\n  found    nothing"),
        ([AXES[0], AXES[1] | {"unit": "parsec"}, AXES[2]], r"unit of y\n  found    'parsec'"),
    ],
)
def test_geff_without_axes_or_units_is_refused_by_name(tmp_path, axes, message):
    with pytest.raises(InputError, match=message):
        import_tracks(write_graph(tmp_path / "a.geff", axes, CELLS, DIVISION), fov())


def test_geff_merges_and_broken_groups_are_refused_by_name(tmp_path):
    merge = write_graph(tmp_path / "m.geff", AXES, CELLS, [(0, 2), (1, 2)])
    with pytest.raises(InputError, match=r"m\.geff\n  found    1 observations follow several others, such as 2"):
        import_tracks(merge, fov())
    with PlateWriter(tmp_path / "plate.zarr", ["Phase"]) as writer:
        writer.write("A/1/0", np.zeros((1, 1, 1, 8, 8), np.uint8))
    with pytest.raises(InputError, match=r"No geff key found(?s:.*)a GEFF group"):
        import_tracks(tmp_path / "plate.zarr", fov())


def test_named_tracklets_are_kept_if_the_links_agree(tmp_path):
    axes = [AXES[0], *({**axis, "unit": "pixel"} for axis in AXES[1:])]
    named = {"tracklet": "own"}
    path = write_graph(tmp_path / "a.geff", axes, CELLS | {"own": [5, 5, 8, 7]}, DIVISION, track_node_props=named)
    assert import_tracks(path).table["track_id"].tolist() == [5, 5, 8, 7]
    # 2 and 3 are daughters of one cell, hence no track
    path = write_graph(tmp_path / "b.geff", axes, CELLS | {"own": [5, 5, 8, 8]}, DIVISION, track_node_props=named)
    imported = import_tracks(path)
    assert imported.table["track_id"].tolist() == [0, 0, 1, 2]
    assert imported.notes == ("tracks are numbered anew: own does not agree with the links",)


# napari, and Trackastra's output for it


def test_napari_layers_are_read_and_made():
    data, graph, properties = to_napari(POPULATION.assign(area=1.5))
    assert data.shape == (8, 4)
    assert graph == {2: [1], 3: [1]}
    assert list(properties) == ["area"]
    same_cells(from_napari(data, graph, properties).table, POPULATION.assign(area=1.5))


def test_trackastra_repeats_the_cell_that_divides():
    # Its chains begin with the mother, and a parent is a number: 1 divides after frame 1.
    data = [[1, 0, 4, 5], [1, 1, 4, 6], [2, 1, 4, 6], [2, 2, 3, 6], [3, 1, 4, 6], [3, 2, 5, 7]]
    imported = from_napari(data, {2: 1, 3: 1})
    table = imported.table
    assert table[["track_id", "t"]].to_numpy().tolist() == [[1, 0], [1, 1], [2, 2], [3, 2]]
    assert table["parent_track_id"].tolist() == [-1, -1, 1, 1]
    assert imported.notes == ("2 observations of dividing cells are repeated",)
    # A cell that divides in its first frame has no chain of its own.
    table = from_napari([[1, 0, 4, 5], [1, 1, 4, 6], [2, 0, 4, 5], [2, 1, 9, 6]], {}).table
    assert table[["track_id", "t", "parent_track_id"]].to_numpy().tolist() == [[3, 0, -1], [1, 1, 3], [2, 1, 3]]


def test_trackastra_in_the_form_of_the_cell_tracking_challenge(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for t, cells in enumerate([{1: (4, 4)}, {1: (4, 5)}, {}, {2: (4, 6)}, {3: (2, 6), 4: (8, 6)}]):
        labels = np.zeros((16, 16), np.uint16)
        for label, place in cells.items():
            labels[place] = label
        tifffile.imwrite(tmp_path / f"man_track{t:04d}.tif", labels)
    # It closes gaps by a track that follows its parent; 9 is not there.
    (tmp_path / "man_track.txt").write_text("1 0 1 9\n2 3 3 1\n3 4 4 2\n4 4 4 2\n")
    imported = import_tracks(tmp_path)
    assert imported.table[["track_id", "t", "parent_track_id"]].to_numpy().tolist() == [
        *[[1, 0, -1], [1, 1, -1], [2, 3, 1], [3, 4, 2], [4, 4, 2]]
    ]
    assert imported.notes == ("1 tracks name a parent that is not in man_track.txt, and begin without one",)


def test_an_array_with_its_graph_beside_it_is_read(tmp_path):
    data, graph, _ = to_napari(POPULATION)
    np.save(tmp_path / "a.npy", data)
    assert import_tracks(tmp_path / "a.npy").notes == ("there is no a.json beside it: divisions are not known",)
    (tmp_path / "a.json").write_text(json.dumps(graph))
    same_cells(import_tracks(tmp_path / "a.npy").table, POPULATION)


@pytest.mark.parametrize(
    ("data", "graph", "message"),
    [
        ([[1, 0, 2]], {}, r"data\n  found    an array of shape \(1, 3\)"),
        ([[1, 0.5, 2, 3]], {}, "t\n  found    0.5 in row 0"),
        ([[1, 0, np.nan, 3]], {}, r"z, y, x\n  found    .* in row 0"),
        ([[1, 0, 2, 3], [1, 0, 2, 3]], {}, "track 1 more than once in frame 0"),
        ([[1, 0, 2, 3], [2, 0, 4, 4], [3, 1, 2, 3]], {3: [1, 2]}, "1 tracks with several parents, such as 3 with 1, 2"),
        ([[1, 0, 2, 3]], {1: [7]}, "1 tracks that the data do not have, such as 7"),
    ],
)
def test_what_is_no_layer_of_tracks_is_refused(data, graph, message):
    with pytest.raises(InputError, match=message):
        from_napari(data, graph)


def test_files_of_other_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", other=np.zeros(3))
    with pytest.raises(InputError, match="arrays other"):
        import_tracks(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    with pytest.raises(InputError, match="no arrays of numbers"):
        import_tracks(tmp_path / "a.npy")


# btrack's HDF5


def test_btracks_own_file_is_read(tmp_path):
    pytest.importorskip("h5py")
    imported = import_tracks(write_btrack_hdf5(tmp_path / "a.h5", POPULATION, n_untracked=2, dummies=(6, 1)))
    same_cells(imported.table, POPULATION)
    assert imported.table["dummy"].tolist() == [False, True, False, False, False, False, True, False]
    assert np.isnan(imported.table["area"][1])
    assert imported.table["area"].dropna().tolist() == [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]
    assert imported.notes == (
        "2 objects belong to no track and are left out",
        "2 cells were interpolated by btrack (dummy), and are kept",
    )


def test_btrack_counts_objects_after_its_filter(tmp_path):
    pytest.importorskip("h5py")
    path = write_btrack_hdf5(tmp_path / "a.h5", POPULATION, n_untracked=3, expression="area>5")
    same_cells(import_tracks(path).table, POPULATION)
    write_btrack_hdf5(tmp_path / "b.h5", POPULATION, n_untracked=3, expression="roundness>5")
    with pytest.raises(InputError, match=r"filtered by 'roundness>5'(?s:.*)area"):
        import_tracks(tmp_path / "b.h5")


def test_other_hdf5_files_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.zeros(2)
    with pytest.raises(InputError, match="groups images, no tracks"):
        import_tracks(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_text("no")
    with pytest.raises(InputError, match=r"(?s)cannot be read.*an HDF5 file of btrack"):
        import_tracks(tmp_path / "b.h5")


# ultrack


@pytest.mark.parametrize("number", ["{}", "{}.0"])
def test_ultracks_tables_keep_node_ids(tmp_path, number):
    rows = [
        (1, 0, 1000001, -1, -1),
        (1, 1, 2000001, -1, 1000001),
        (2, 2, 3000001, 1, 2000001),
        (3, 2, 3000002, 1, 2000001),
    ]
    lines = ["track_id,t,z,y,x,id,parent_track_id,parent_id"]
    for track, t, *ids in rows:
        written = [number.format(value) for value in (track, t, *ids)]
        lines.append(",".join([*written[:2], "0.0", "4.5", "6.25", *written[2:]]))
    (tmp_path / "tracks.csv").write_text("\n".join(lines))
    table = import_tracks(tmp_path / "tracks.csv").table
    names = ["track_id", "t", "id", "parent_track_id", "parent_id"]
    assert table[names].to_numpy().tolist() == [list(row) for row in rows]
    assert {str(table[name].dtype) for name in names} == {"int64"}
