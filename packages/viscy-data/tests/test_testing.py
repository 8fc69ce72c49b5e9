"""What downstream tests import: fixtures in every format, encoded pixels, strategies."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import yaml
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from viscy_data.stores import read_plate
from viscy_data.testing import Encoding, write_encoded_plate
from viscy_data.testing.fixtures import small_experiments
from viscy_data.testing.strategies import anchor_tables, parent_arrays, tracking_tables

pytest_plugins = ["viscy_data.testing.fixtures"]


def test_experiments_come_with_paths_file_and_truth(synthetic_experiments, plate_format):
    experiments = synthetic_experiments(n_experiments=2, plate_format=plate_format, n_frames=4, n_cells=3)
    names = [entry["name"] for entry in yaml.safe_load(experiments.yaml.read_text())["experiments"]]
    assert names == list(experiments.paths) == list(experiments.truth["experiment"].unique())
    for paths in experiments.paths.values():
        fovs = read_plate(paths.store)
        assert [fov.name for fov in fovs] == ["A/1/0", "B/1/0"]
        assert zarr.open_group(paths.store, mode="r").metadata.zarr_format == int(plate_format.version[-1]) - 2


def test_experiments_are_written_once(synthetic_experiments):
    first = synthetic_experiments(1, n_frames=2, n_cells=2)
    assert synthetic_experiments(1, n_frames=2, n_cells=2) is first
    assert synthetic_experiments(1, n_frames=2, n_cells=2, seed=1) is not first


def test_small_experiments_share_fov_names_and_differ_in_channel_order():
    specs = small_experiments(3)
    assert len({tuple(spec.fov_conditions) for spec in specs}) == 1
    assert len({spec.channel_names for spec in specs}) == 3
    with pytest.raises(ValueError, match="must be 1 to 3"):
        small_experiments(4)


def test_encoded_pixels_are_read_back_and_say_where_they_are(encoded_plates, plate_format):
    plates = encoded_plates(plate_format)
    for number, store in enumerate(plates.stores):
        group = zarr.open_group(store, mode="r")
        for fov, name in enumerate(plates.fov_names):
            origin = plates.encoding.decode(group[f"{name}/0"][1:, :, :, 5:9, 7:9])
            assert (origin.plate == number).all()
            assert (origin.fov == fov).all()
            np.testing.assert_array_equal(origin.t[:, 0, 0, 0, 0], [1, 2])
            np.testing.assert_array_equal(origin.c[0, :, 0, 0, 0], [0, 1])
            np.testing.assert_array_equal(origin.y[0, 0, 0, :, 0], [5, 6, 7, 8])
            np.testing.assert_array_equal(origin.x[0, 0, 0, 0, :], [7, 8])


@settings(deadline=None, max_examples=30)
@given(sizes=st.tuples(*[st.integers(1, 5)] * 7))
@example(sizes=(3, 5, 5, 5, 5, 5, 1))
def test_every_pixel_has_its_own_number(sizes):
    code = Encoding(sizes[0], sizes[1], sizes[2:])
    values = np.stack([[code.pixels(plate, fov) for fov in range(sizes[1])] for plate in range(sizes[0])])
    assert len(np.unique(values)) == values.size
    np.testing.assert_array_equal(np.stack(code.decode(values)), np.indices(sizes))
    np.testing.assert_array_equal(code.encode(*np.indices(sizes)), values)


def test_values_that_were_never_written_are_refused(tmp_path):
    code = Encoding(1, 1, (1, 1, 1, 4, 4))
    for bad in (0.0, 1.5, 17.0):
        with pytest.raises(ValueError, match="1 values were never written"):
            code.decode(np.array([1.0, bad]))
    with pytest.raises(ValueError, match="2\\*\\*24"):
        Encoding(1, 1, (10, 2, 1, 1024, 1024))
    with pytest.raises(ValueError, match="2 FOV names for an encoding of 1"):
        write_encoded_plate(tmp_path / "plate.zarr", code, 0, ["A/1/0", "A/1/1"], ["GFP"])


def walk(parent: np.ndarray, track: int) -> int:
    """Count the steps to the root, one by one."""
    steps = 0
    while parent[track] >= 0:
        track, steps = parent[track], steps + 1
        assert steps <= len(parent)
    return steps


@settings(deadline=None, max_examples=50)
@given(parent=parent_arrays())
def test_parent_arrays_are_forests(parent):
    assert parent.dtype == np.int64
    assert parent.min() == -1
    assert parent.max() < len(parent)
    for track in range(len(parent)):
        walk(parent, track)


@settings(deadline=None, max_examples=50)
@given(table=tracking_tables())
def test_tracking_tables_are_what_a_tracker_may_write(table):
    assert not table.duplicated(["track_id", "t"]).any()
    assert table["id"].is_unique
    last = table.groupby("track_id")["t"].max()
    first = table.sort_values("t").groupby("track_id").first()
    daughters = first[first["parent_track_id"] >= 0]
    np.testing.assert_array_equal(daughters["t"], last.loc[daughters["parent_track_id"]] + 1)
    linked = table[table["parent_id"] >= 0]
    assert (table.set_index("id")["t"].loc[linked["parent_id"]].to_numpy() < linked["t"].to_numpy()).all()


@settings(deadline=None, max_examples=50)
@given(table=anchor_tables(max_rows=60))
def test_anchor_tables_have_the_columns_of_a_sampler(table):
    assert list(table) == ["experiment", "condition", "hours_post_infection", "lineage"]
    assert not table.isna().any(axis=None)
    assert (table.groupby("lineage")["experiment"].nunique() == 1).all()


def test_the_package_itself_needs_neither_pytest_nor_hypothesis():
    code = (
        "import sys, viscy_data.synthetic.writer, viscy_data.testing; print({'pytest', 'hypothesis'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
