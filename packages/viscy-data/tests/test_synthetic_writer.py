"""Experiments on disk: every format holds the same data, and nothing existing is touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
import zarr

from viscy_data.stores import read_plate
from viscy_data.synthetic import (
    ExperimentSpec,
    render_fov,
    simulate_tracks,
    write_experiment,
    write_experiments,
    write_track_tables,
)
from viscy_data.tracks import find_tracks, read_tracks

SPEC = ExperimentSpec("small", n_frames=3, n_cells=5, shape=(1, 64, 80), fovs_per_well=2)


def pixels(store, fov_name: str) -> np.ndarray:
    return zarr.open_group(store, mode="r")[f"{fov_name}/0"][...]


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, shape=(3, 64, 80))], ids=["2D", "3D"])
@pytest.mark.parametrize(("version", "sharded"), [("0.4", False), ("0.5", False), ("0.5", True)])
def test_every_format_holds_what_was_simulated(tmp_path, spec, version, sharded):
    pytest.importorskip("pyarrow")  # reads tables
    paths = write_experiment(spec, tmp_path, seed=4, version=version, sharded=sharded, chunks=(1, 1, 1, 32, 32))
    fovs = read_plate(paths.store)
    assert [fov.name for fov in fovs] == sorted(spec.fov_conditions)
    for fov in fovs:
        assert fov.channel_names == spec.channel_names
        truth = simulate_tracks(spec, fov.name, seed=4)
        np.testing.assert_array_equal(pixels(paths.store, fov.name), render_fov(spec, truth, fov.name, seed=4))
        csv = find_tracks(paths.tracks, fov.name)
        assert csv.name == f"tracks_{fov.name.replace('/', '_')}.csv"
        tracks = read_tracks(csv)
        assert ("z" in tracks) == (spec.shape[0] > 1)
        pd.testing.assert_frame_equal(tracks, truth[list(tracks.columns)], check_exact=True)
    array = zarr.open_group(paths.store, mode="r")["A/1/0/0"]
    assert array.chunks == (1, 1, 1, 32, 32)
    assert array.shards == ((3, 1, spec.shape[0], 64, 96) if sharded else None)


def test_truth_lists_every_observation(tmp_path):
    truth = pd.read_csv(write_experiment(SPEC, tmp_path, seed=4).truth)
    expected = pd.concat([simulate_tracks(SPEC, fov, seed=4) for fov in SPEC.fov_conditions], ignore_index=True)
    assert list(truth) == list(expected)
    for name in ("experiment", "fov_name", "track_id", "t", "id", "lineage_id", "infected", "condition"):
        np.testing.assert_array_equal(truth[name], expected[name])


def test_uint16_holds_the_same_counts(tmp_path):
    wide = write_experiment(SPEC, tmp_path / "a", seed=1)
    narrow = write_experiment(SPEC, tmp_path / "b", seed=1, dtype="uint16")
    assert read_plate(narrow.store)[0].dtype == "uint16"
    np.testing.assert_array_equal(pixels(narrow.store, "B/1/1"), pixels(wide.store, "B/1/1").clip(0))


def test_progress_is_told_after_each_fov(tmp_path):
    calls = []
    write_experiment(SPEC, tmp_path, progress=lambda *call: calls.append(call))
    assert calls == [("A/1/0", 1, 4), ("A/1/1", 2, 4), ("B/1/0", 3, 4), ("B/1/1", 4, 4)]


def test_experiments_file_has_the_fields_of_a_config_with_relative_paths(tmp_path):
    specs = [SPEC, replace(SPEC, name="other", reporter="mito", channel_names=("GFP", "DAPI", "Phase3D"))]
    path = write_experiments(specs, tmp_path / "set")
    assert path == tmp_path / "set" / "experiments.yml"
    path.parent.rename(tmp_path / "moved")
    entries = yaml.safe_load((tmp_path / "moved" / "experiments.yml").read_text())["experiments"]
    assert entries[1] == {
        "name": "other",
        "data_path": "other/images.zarr",
        "tracks_path": "other/tracks",
        "channel_names": ["GFP", "DAPI", "Phase3D"],
        "source_channel": ["Phase3D", "GFP"],
        "condition_wells": {"uninfected": ["A/1"], "infected": ["B/1"]},
        "interval_minutes": 30.0,
        "start_hpi": 4.0,
        "organelle": "mito",
    }
    for entry in entries:
        assert len(read_plate(tmp_path / "moved" / entry["data_path"])) == 4
        assert find_tracks(tmp_path / "moved" / entry["tracks_path"], "A/1/0")


def test_nothing_existing_is_overwritten_and_a_failure_leaves_nothing(tmp_path):
    (tmp_path / "small").mkdir()
    with pytest.raises(FileExistsError, match="small exists"):
        write_experiment(SPEC, tmp_path)
    (tmp_path / "small").rmdir()

    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_experiment(SPEC, tmp_path, progress=fail)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "experiments.yml").touch()
    with pytest.raises(FileExistsError, match=r"experiments\.yml exists"):
        write_experiments([SPEC], tmp_path)
    with pytest.raises(FileExistsError, match=r"experiments\.yml exists"):
        write_track_tables(100, tmp_path)


def test_experiments_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="different names"):
        write_experiments([SPEC, SPEC], tmp_path)


def test_sharding_needs_zarr_v3(tmp_path):
    with pytest.raises(ValueError, match=r"need version 0\.5"):
        write_experiment(SPEC, tmp_path, version="0.4", sharded=True)


@pytest.fixture(scope="module")
def large_tables(tmp_path_factory):
    pytest.importorskip("pyarrow")  # reads tables
    root = tmp_path_factory.mktemp("tables")
    yml = write_track_tables(20_001, root, n_experiments=2, observations_per_fov=2500)
    entries = yaml.safe_load(yml.read_text())["experiments"]
    tables = {
        (entry["name"], fov.name): read_tracks(find_tracks(root / entry["tracks_path"], fov.name))
        for entry in entries
        for fov in read_plate(root / entry["data_path"])
    }
    return root, tables


def test_track_tables_have_the_rows_asked_for_and_empty_images(large_tables):
    root, tables = large_tables
    assert sum(map(len, tables.values())) == 20_001
    assert max(map(len, tables.values())) <= 2500
    assert len({name for name, _ in tables}) == 2
    fov = read_plate(root / "tracks_0" / "images.zarr")[0]
    table = tables["tracks_0", fov.name]
    assert table["t"].max() < fov.shape[0]
    assert table["y"].between(0, fov.shape[3] - 1).all()
    assert table["x"].between(0, fov.shape[4] - 1).all()
    assert sum(path.stat().st_size for path in (root / "tracks_0" / "images.zarr").rglob("*")) < 1_000_000


def test_track_tables_have_the_shares_asked_for(large_tables):
    tracks = pd.concat([table.assign(fov="/".join(key)) for key, table in large_tables[1].items()])
    groups = tracks.groupby(["fov", "track_id"])
    assert groups.size().mean() == pytest.approx(20, rel=0.1)
    mothers = tracks[tracks["parent_track_id"] >= 0].groupby(["fov", "parent_track_id"]).ngroups
    assert mothers / groups.ngroups == pytest.approx(0.25, abs=0.02)


def test_track_tables_are_consistent_lineages(large_tables):
    for table in large_tables[1].values():
        assert not table.duplicated(["track_id", "t"]).any()
        by_id = table.set_index("id")
        linked = table[table["parent_id"] >= 0]
        before = by_id.loc[linked["parent_id"]]
        np.testing.assert_array_equal(before["t"] + 1, linked["t"])
        own = linked["track_id"].to_numpy() == before["track_id"].to_numpy()
        np.testing.assert_array_equal(before["track_id"][~own], linked["parent_track_id"][~own])
        last = table.groupby("track_id")["t"].max()
        first = table.drop_duplicates("track_id").query("parent_track_id >= 0")
        np.testing.assert_array_equal(last.loc[first["parent_track_id"]] + 1, first["t"])


def test_track_tables_are_deterministic(tmp_path, large_tables):
    root, _ = large_tables
    write_track_tables(20_001, tmp_path, n_experiments=2, observations_per_fov=2500)
    for csv in root.rglob("*.csv"):
        assert (tmp_path / csv.relative_to(root)).read_bytes() == csv.read_bytes()


def test_too_few_observations_for_the_experiments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="3 observations are too few for 4 experiments"):
        write_track_tables(3, tmp_path)
