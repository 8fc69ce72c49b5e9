from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from dynaclr.index.file import read_index_record
from dynaclr.index.mapped import map_arrays, write_arrays
from dynaclr.index.record import SCHEMA_VERSION
from viscy_data.errors import InputError, MissingInputError
from viscy_data.tracks import write_tracks

PATCH = slice(0, 1), (32, 32)


@pytest.fixture
def registry(make_experiment, track_rows):
    tables = [
        track_rows({0: range(5), 3: range(5, 9)}, {3: 0}).assign(id=range(9), note=list("aabbccdda")),
        track_rows({2: range(4), 1: range(20, 24)}),
    ]
    first = make_experiment("first: 1", {"A/1/0": tables[0], "B/1/0": tables[1].head(4)})
    second = make_experiment("second", {"A/1/0": tables[1].head(4), "A/1/1": None}, interval_minutes=15.0)
    return ExperimentRegistry([first, second])


@pytest.fixture
def saved(registry, tmp_path):
    path = tmp_path / "index.parquet"
    with pytest.warns(UserWarning, match="1 of 4 FOVs have no tracking table"):
        index = MultiExperimentIndex(registry, *PATCH)
    index.save(path)
    return path, index


def assert_equal(left, right):
    pd.testing.assert_frame_equal(left.tracks, right.tracks)
    for name in ("anchor_rows", "fov_index", "track_index", "lineage"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    np.testing.assert_array_equal(left.forest.parent, right.forest.parent)
    assert left.positions == right.positions
    assert left.summary() == right.summary()


def tracks_csv(config, fov="A/1/0"):
    return Path(config.tracks_path) / fov / "tracks.csv"


def test_what_is_saved_is_loaded(saved, registry):
    path, index = saved
    loaded = MultiExperimentIndex.load(path, registry, *PATCH)
    assert_equal(loaded, index)
    rng = [np.random.default_rng(0) for _ in range(2)]
    drawn = [each.positives.draw(each.anchor_rows, 1, 4, own) for each, own in zip((loaded, index), rng, strict=True)]
    np.testing.assert_array_equal(*drawn)


def test_loading_reads_no_tracking_table(saved, registry, monkeypatch):
    def refuse(path):
        raise AssertionError(path)

    monkeypatch.setattr("dynaclr.index.tracks_reading.read_tracks", refuse)
    MultiExperimentIndex.load(saved[0], registry, *PATCH)


def test_patches_tau_and_scope_may_differ_from_those_at_saving(saved, registry):
    options = {"tau_range_hours": (0.5, 0.5), "positive_scope": "track"}
    with pytest.warns(UserWarning, match="no tracking table"):
        built = MultiExperimentIndex(registry, slice(0, 1), (15, 20), **options)
    loaded = MultiExperimentIndex.load(saved[0], registry, slice(0, 1), (15, 20), **options)
    assert_equal(loaded, built)
    assert len(loaded.anchor_rows) < len(saved[1].anchor_rows)
    with pytest.raises(InputError, match="yx_patch_size"):
        MultiExperimentIndex.load(saved[0], registry, slice(0, 1), (65, 20))


def test_conditions_and_hours_follow_the_registry(saved, registry):
    changed = [
        dataclasses.replace(config, condition_wells={"mock": ["A/1"]}, start_hpi=7.0) for config in registry.experiments
    ]
    with pytest.warns(UserWarning, match="in no condition"):
        loaded = MultiExperimentIndex.load(saved[0], ExperimentRegistry(changed), *PATCH)
    assert set(loaded.condition_groups) == {"mock", "unknown"}
    assert loaded.tracks["hours_post_infection"].min() == 7


def test_a_subset_is_saved_and_loaded_with_its_own_experiments(saved, registry, tmp_path):
    part = saved[1].subset(["second"])
    part.save(tmp_path / "part.parquet")
    assert_equal(MultiExperimentIndex.load(tmp_path / "part.parquet", registry.subset(["second"]), *PATCH), part)


def test_existing_files_are_replaced_only_when_asked(saved):
    path, index = saved
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"index\.parquet exists"):
        index.save(path)
    assert path.read_bytes() == before
    index.subset(["second"]).save(path, overwrite=True)
    assert path.read_bytes() != before


def test_a_failed_write_leaves_nothing(saved, monkeypatch):
    path, index = saved
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        index.save(path, overwrite=True)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir() if entry.is_file()] == ["index.parquet"]


# stale files


def change_a_table(registry):
    path = tracks_csv(registry.experiments[1])
    path.write_text(path.read_text() + "9,0,1,1,-1\n")


def touch_a_table(registry):
    path = tracks_csv(registry.experiments[1])
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def add_a_table(registry):
    write_tracks(
        pd.DataFrame({"track_id": [0], "t": [0], "y": [1.0], "x": [1.0]}), tracks_csv(registry.experiments[1], "A/1/1")
    )


def remove_a_table(registry):
    tracks_csv(registry.experiments[0], "B/1/0").unlink()


def crop_the_images(registry):
    registry.fovs["second"] = tuple(
        dataclasses.replace(fov, shape=(*fov.shape[:3], 60, 60)) for fov in registry.fovs["second"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_a_table, r"second: A/1/0 has changed \(size of the tracking table\)"),
        (touch_a_table, r"second: A/1/0 has changed \(time of the tracking table\)"),
        (add_a_table, r"second: A/1/1 is new"),
        (remove_a_table, r"first: 1: B/1/0 is gone"),
        (crop_the_images, r"second: A/1/0 has changed \(shape\)"),
    ],
)
def test_a_stale_index_is_refused_and_says_what_has_changed(saved, registry, change, message):
    change(registry)
    with pytest.raises(InputError, match=rf"index.parquet\n.*{message}\n(?s:.*)dynaclr build-index"):
        MultiExperimentIndex.load(saved[0], registry, *PATCH)


def test_other_filters_and_experiments_are_refused(saved, registry):
    with pytest.raises(InputError, match=r"include_wells None, now \['A/1'\]"):
        MultiExperimentIndex.load(saved[0], registry, *PATCH, include_wells=["A/1"])
    with pytest.raises(InputError, match=r"exclude_fovs None, now \['B/1/0'\]"):
        MultiExperimentIndex.load(saved[0], registry, *PATCH, exclude_fovs=["B/1/0"])
    with pytest.raises(InputError, match="experiments first: 1, second, now second"):
        MultiExperimentIndex.load(saved[0], registry.subset(["second"]), *PATCH)


def test_other_files_are_refused(saved, registry, tmp_path):
    with pytest.raises(MissingInputError, match=r"nowhere\.parquet"):
        MultiExperimentIndex.load(tmp_path / "nowhere.parquet", registry, *PATCH)
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="no parquet file"):
        MultiExperimentIndex.load(tmp_path / "text.parquet", registry, *PATCH)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="a parquet file of something else"):
        MultiExperimentIndex.load(tmp_path / "other.parquet", registry, *PATCH)


def test_rows_that_no_memory_holds_are_refused_unread(saved, registry, monkeypatch):
    path, index = saved
    monkeypatch.setattr("viscy_data.memory.memory_bytes", lambda: 20 * len(index.tracks))
    told = rf"(?s)index\.parquet, field num_rows\n.*{len(index.tracks)} rows.*INDEX\.arrow"
    with pytest.raises(InputError, match=told):
        MultiExperimentIndex.load(path, registry, *PATCH)
    with pytest.raises(InputError, match=told):
        read_index_record(path)


def test_another_layout_is_refused(saved, registry, tmp_path, monkeypatch):
    path = tmp_path / "later.parquet"
    content = pq.read_table(saved[0])
    metadata = {
        key: value.replace(b'"schema_version": 1', b'"schema_version": 9')
        for key, value in content.schema.metadata.items()
    }
    pq.write_table(content.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match=r"(?s)schema_version\n  found    9, written by dynaclr.*read it with dynaclr"):
        MultiExperimentIndex.load(path, registry, *PATCH)


def test_another_layout_of_a_mapped_index_is_refused(saved, registry, tmp_path):
    saved[1].save(tmp_path / "index.arrow")
    arrays, metadata = map_arrays(tmp_path / "index.arrow")
    later = {key: value.replace(b'"schema_version": 1', b'"schema_version": 9') for key, value in metadata.items()}
    write_arrays(tmp_path / "later.arrow", arrays, later, remedy="")
    with pytest.raises(InputError, match=r"(?s)schema_version\n  found    9, written by dynaclr.*read it with dynaclr"):
        MultiExperimentIndex.load(tmp_path / "later.arrow", registry, *PATCH)


def test_every_layout_up_to_the_newest_has_its_files():
    there = {path.name for path in (Path(__file__).parent / "schemas").glob("index-*")}
    assert there == {
        f"index-{number}.{kind}" for number in range(1, SCHEMA_VERSION + 1) for kind in ("arrow", "parquet")
    }


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_the_first_layout_is_read(suffix):
    stored = read_index_record(Path(__file__).parent / f"schemas/index-1.{suffix}")
    assert (stored.n_cells, stored.record.experiments) == (5, ["first"])
    assert stored.record.schema_version == 1
    assert {"track_id", "t", "y", "x"} <= set(stored.columns)


def test_a_mapped_index_that_was_cut_or_changed_anywhere_is_refused(registry, saved, tmp_path):
    whole = tmp_path / "whole.arrow"
    saved[1].save(whole)
    content = whole.read_bytes()
    path = tmp_path / "spoilt.arrow"

    def is_refused(spoilt):
        path.write_bytes(spoilt)
        try:
            loaded = MultiExperimentIndex.load(path, registry, *PATCH)
        except InputError as err:
            return str(path) in str(err)
        assert_equal(loaded, saved[1])  # padding, which is nobody's
        return False

    assert not is_refused(content)
    for end in (0, 1, len(content) // 2, len(content) - 9, len(content) - 1):
        assert is_refused(content[:end])
    rng = np.random.default_rng(0)
    n_refused = 0
    for place in rng.integers(0, len(content), 150):
        n_refused += is_refused(
            content[:place] + bytes([content[place] ^ (1 << rng.integers(8))]) + content[place + 1 :]
        )
    assert n_refused > 50


def test_large_mapped_arrays_are_compared_in_blocks_from_end_to_end(tmp_path):
    path, values = tmp_path / "large.arrow", np.arange(10**6)
    write_arrays(path, {"a": values}, {}, remedy="")
    np.testing.assert_array_equal(map_arrays(path)[0]["a"], values)
    content = path.read_bytes()
    first, last = content.index(values[:8].tobytes()), content.index(values[-8:].tobytes())
    for place in (first, last + 63):
        path.write_bytes(content[:place] + b"x" + content[place + 1 :])
        with pytest.raises(ValueError, match="check sum"):
            map_arrays(path)
    lost = len(content) // 2  # a run of bytes longer than the way from block to block
    path.write_bytes(content[:lost] + bytes(140_000) + content[lost + 140_000 :])
    with pytest.raises(ValueError, match="check sum"):
        map_arrays(path)
