"""Files of other programs with bytes changed: tracks, images, and the tables that say which FOV a file is of."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from viscy_data.testing.mutations import ByteEdit, byte_edits, edited_bytes

pytest_plugins = ["viscy_data.testing.fixtures"]

TRACKS = ["spots.csv", "tracks.xml", "btrack.csv", "btrack.h5", "napari.npz", "tracks.geff", "TRA"]
IMAGES = ["ome.tif", "imagej.tif", "plane.tif"]
KEPT = {
    "tracks.xml": [
        (0, [ByteEdit(0.30078125, "insert", 32)]),
        (0, [ByteEdit(0.375, "repeat", 1), ByteEdit(0.125, "insert", 58)]),
    ],
    "btrack.h5": [(47, [ByteEdit(0.5577751165115218, "repeat", 66)]), (1, [ByteEdit(0.5521312868274068, "zero", 128)])],
    "TRA": [(51, [ByteEdit(0.87, "drop", 155)]), (0, [ByteEdit(0.27, "insert", 152)])],
}


def _spoil(path, case):
    """Change the bytes of a file, or of one of a folder."""
    at, edits = case
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    file = files[at % len(files)]
    file.write_bytes(edited_bytes(file.read_bytes(), edits))


CASES = st.tuples(st.integers(0, 60), byte_edits())


@pytest.mark.parametrize("name", TRACKS)
def test_tracks_of_other_programs(fresh, tried, name):
    def check(case):
        place = fresh(name)
        _spoil(place.folder / name, case)
        place.write("map.csv", f"source,fov\n{name},A/1/0\n")
        accepted = place.accepted(f"import-tracks {name} --store first/images.zarr --map map.csv -o new", name)
        assert (place.folder / "new/A/1/0/tracks.csv").exists() == accepted

    tried(check, CASES, 3, 300, KEPT.get(name, ()))


@pytest.mark.parametrize("name", IMAGES)
def test_images_of_microscopes(fresh, tried, name):
    def check(case):
        place = fresh(name)
        _spoil(place.folder / name, case)
        accepted = place.accepted(
            f"import-images {name} --well A1 --axes ZYX -o new.zarr"
            if name == "plane.tif"
            else f"import-images {name} --well A1 -o new.zarr"
        )
        assert (place.folder / "new.zarr").exists() == accepted

    tried(check, CASES, 3, 300, KEPT.get(name, ()))


@pytest.mark.parametrize(
    "command",
    [
        "import-tracks spots.csv --store first/images.zarr --map map.csv -o new",
        "import-images ome.tif --map map.csv -o new",
    ],
)
def test_tables_of_fovs(fresh, tried, command):
    source = command.split()[1]

    def check(edits):
        place = fresh(source)
        (place.folder / "map.csv").write_bytes(edited_bytes(f"source,fov\n{source},A/1/0\n".encode(), edits))
        accepted = place.accepted(command)
        assert (place.folder / "new").exists() == accepted

    tried(check, byte_edits(), 3, 300, [[ByteEdit(0.5, "insert", 152)]])
