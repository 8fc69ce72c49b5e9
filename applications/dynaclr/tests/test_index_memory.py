"""What an index costs per observation: bytes held, bytes at the peak; and nothing where it is mapped from a file."""

from __future__ import annotations

import mmap
import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynaclr.dataset import MultiExperimentTripletDataset
from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from viscy_data.errors import InputError
from viscy_data.synthetic.benchmark_tables import write_track_tables

PATCH = slice(0, 1), (32, 32)
LIMIT = 64  # bytes of an observation, what the dataset draws from included


@pytest.fixture(scope="module")
def registries(tmp_path_factory):
    """Experiments of 10 000 and of 60 000 observations."""
    sizes = 10_000, 60_000
    roots = [tmp_path_factory.mktemp(f"rows{size}") for size in sizes]
    files = [
        write_track_tables(size, root, observations_per_fov=size // 32) for size, root in zip(sizes, roots, strict=True)
    ]
    return dict(zip(sizes, map(ExperimentRegistry.from_yaml, files), strict=True))


def test_an_observation_costs_no_more_than_its_bytes_and_building_no_more_than_twice_that(registries):
    held, peak = {}, {}
    for size, registry in registries.items():
        tracemalloc.start()
        dataset = MultiExperimentTripletDataset(MultiExperimentIndex(registry, *PATCH, workers=1), cache_pool_bytes=0)
        held[size], peak[size] = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(dataset.index.tracks) == size
    few, many = registries
    assert (held[many] - held[few]) / (many - few) <= LIMIT
    assert (peak[many] - peak[few]) / (many - few) <= 2 * LIMIT


@pytest.fixture(scope="module")
def mapped(registries, tmp_path_factory):
    """Path of a mapped index of 60 000 observations, and the index that it was made of."""
    built = MultiExperimentIndex(registries[60_000], *PATCH)
    path = tmp_path_factory.mktemp("mapped") / "index.arrow"
    built.save(path)
    return path, built


def arrays_of(index):
    """All arrays that are as long as the table, or as the forest."""
    columns = {name: index.tracks[name].array for name in index.tracks}
    arrays = {name: np.asarray(getattr(column, "codes", column)) for name, column in columns.items()}
    arrays |= {name: getattr(index, name) for name in ("fov_index", "track_index", "lineage", "anchor_rows")}
    return arrays | index.forest.arrays() | index.positives.order.arrays()


def lies_in_a_file(array):
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        if begin <= address < end:
            return line.endswith(".arrow")
    raise AssertionError("an array outside of the memory of this process")


def test_a_mapped_index_is_the_index(mapped, registries):
    path, built = mapped
    loaded = MultiExperimentIndex.load(path, registries[60_000], *PATCH)
    pd.testing.assert_frame_equal(loaded.tracks, built.tracks)
    for (name, array), (_, expected) in zip(arrays_of(loaded).items(), arrays_of(built).items(), strict=True):
        np.testing.assert_array_equal(array, expected, err_msg=name)
    assert loaded.summary() == built.summary()
    drawn = [each.positives.draw(each.anchor_rows, 1, 4, np.random.default_rng(0)) for each in (loaded, built)]
    np.testing.assert_array_equal(*drawn)
    part = loaded.subset(["tracks_1"])
    pd.testing.assert_frame_equal(part.tracks, built.subset(["tracks_1"]).tracks)
    assert len(loaded.tracks) == 60_000


@pytest.mark.skipif(not hasattr(mmap, "MADV_RANDOM"), reason="the system cannot be told")
def test_opening_reads_neither_the_names_of_tracks_nor_ahead_of_check_sums(mapped, registries, monkeypatch):
    path, built = mapped
    n_tracks, read, told = len(built.forest.parent), [], []

    original = pd.arrays.ArrowStringArray.to_numpy

    def to_numpy(texts, *args, **kwargs):
        read.append(len(texts))
        return original(texts, *args, **kwargs)

    class Pages(mmap.mmap):
        def madvise(self, option):
            told.append(option)
            return super().madvise(option)

    monkeypatch.setattr(pd.arrays.ArrowStringArray, "to_numpy", to_numpy)
    monkeypatch.setattr(mmap, "mmap", Pages)
    MultiExperimentIndex.load(path, registries[60_000], *PATCH)
    assert n_tracks not in read
    assert told == [mmap.MADV_RANDOM, mmap.MADV_NORMAL]


def test_parts_of_a_mapped_index_are_mapped_and_cost_a_worker_nothing(mapped, registries, tmp_path, monkeypatch):
    """By the bytes that a worker is sent, and those that it holds beside the pages of the file."""
    path, built = Path(shutil.copy(mapped[0], tmp_path)), mapped[1]
    whole = MultiExperimentIndex.load(path, registries[60_000], *PATCH)
    roots = np.random.default_rng(0).random(len(whole.forest.parent)) < 0.4
    rows = roots[whole.lineage]
    parts = [(each.subset(["tracks_1", "tracks_3"]), each.part(rows), each.part(~rows)) for each in (whole, built)]
    for part, expected in zip(*parts, strict=True):
        pd.testing.assert_frame_equal(part.tracks, expected.tracks)
        assert part.summary() == expected.summary()
        drawn = [each.positives.draw(each.anchor_rows, 1, 4, np.random.default_rng(0)) for each in (part, expected)]
        np.testing.assert_array_equal(*drawn)
        data = pickle.dumps(MultiExperimentTripletDataset(part, cache_pool_bytes=0))
        assert len(data) < 20_000
        tracemalloc.start()
        received = pickle.loads(data)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 200_000 < 10 * len(part.tracks)  # what FOVs and experiments take, whatever the number of rows
        for name, array in arrays_of(received.index).items():
            assert lies_in_a_file(array), name
    assert whole.subset(registries[60_000].names) is whole

    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert len(files) == 4
    again = MultiExperimentIndex.load(path, registries[60_000], *PATCH)
    again.part(rows)
    assert files == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    for file in files.keys() - {path}:
        file.write_bytes(b"cut off")
    pd.testing.assert_frame_equal(again.part(rows).tracks, parts[1][1].tracks)

    built.save(path, overwrite=True)
    assert [file.name for file in tmp_path.rglob("*")] == [path.name]
    again = MultiExperimentIndex.load(path, registries[60_000], *PATCH)
    path.with_name(f"{path.name}.subsets").write_text("nothing can be written here")
    in_memory = again.part(rows)
    pd.testing.assert_frame_equal(in_memory.tracks, parts[1][1].tracks)
    assert not lies_in_a_file(in_memory.fov_index)


def test_other_patches_and_offsets_are_derived_again(mapped, registries):
    options = {"tau_range_hours": (1.0, 1.0), "positive_scope": "track", "max_border_shift": 3}
    loaded = MultiExperimentIndex.load(mapped[0], registries[60_000], slice(0, 1), (16, 16), **options)
    built = MultiExperimentIndex(registries[60_000], slice(0, 1), (16, 16), **options)
    pd.testing.assert_frame_equal(loaded.tracks, built.tracks)
    np.testing.assert_array_equal(loaded.anchor_rows, built.anchor_rows)
    with pytest.raises(InputError, match="max_border_shift"):
        built.save(mapped[0].with_name("border.arrow"))


def test_a_worker_is_sent_the_path_and_maps_the_pages(mapped, registries):
    """Bytes pickled do not grow with the table, and what is unpickled is the file."""
    path, built = mapped
    dataset = MultiExperimentTripletDataset(
        MultiExperimentIndex.load(path, registries[60_000], *PATCH), cache_pool_bytes=0
    )
    data = pickle.dumps(dataset)
    without_rows = len(pickle.dumps((dataset.index.registry, dataset.fovs, dataset.statistics)))
    assert len(data) < without_rows + 20_000 < len(built.tracks)
    received = pickle.loads(data)
    assert received.cells is received.index.tracks
    for name, array in arrays_of(received.index).items():
        assert lies_in_a_file(array), name
    np.testing.assert_array_equal(received.pairs(range(50)).positives, dataset.pairs(range(50)).positives)


def test_a_damaged_or_replaced_file_is_refused(mapped, registries, tmp_path):
    path, built = mapped
    registry, copy = registries[60_000], tmp_path / "copy.arrow"
    data = pickle.dumps(MultiExperimentIndex.load(shutil.copy(path, copy), registry, *PATCH))
    built.subset(["tracks_0"]).save(copy, overwrite=True)
    with pytest.raises(InputError, match="another index than before"):
        pickle.loads(data)
    copy.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="no Arrow file"):
        MultiExperimentIndex.load(copy, registry, *PATCH)
    with pytest.raises(FileExistsError):
        built.save(path)
