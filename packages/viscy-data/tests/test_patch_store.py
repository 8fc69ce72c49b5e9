"""A patch store gives the batches that the images give, bit for bit, or is refused; a stopped copy goes on."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from viscy_data.batches import PatchDataset
from viscy_data.errors import InputError, MissingInputError
from viscy_data.patch_store import (
    SCHEMA_VERSION,
    CellBoxes,
    PatchStorePlan,
    is_patch_store,
    read_record,
    write_patch_store,
)
from viscy_data.patch_store import writing as patch_store_writing
from viscy_data.stores import PlateWriter, read_plate
from viscy_data.testing.datamodules import DATA_MODULES, write_data

pd = pytest.importorskip("pandas")
zarr = pytest.importorskip("zarr")
pytest.importorskip("tensorstore")

N_FRAMES, DEPTH, EXTENTS = 3, 4, [(24, 30), (20, 26)]


class Cells(PatchDataset):
    """Every cell once."""

    def __len__(self) -> int:
        return len(self.cells)

    def choose(self, positions, rng):
        return {"anchor": positions}


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    """Two plates of noise: other pixel types, sizes and orders of channels."""
    folder = tmp_path_factory.mktemp("plates")
    rng = np.random.default_rng(0)
    for number, (extent, dtype, names) in enumerate(
        zip(EXTENTS, [np.uint16, np.float32], [["Phase", "GFP"], ["RFP", "Extra", "Phase"]], strict=True)
    ):
        with PlateWriter(folder / f"{number}.zarr", names, chunks=(1, 1, 1, *extent)) as plate:
            for fov in range(2):
                pixels = rng.normal(1000, 300, (N_FRAMES, len(names), DEPTH, *extent))
                plate.write(f"A/1/{fov}", pixels.astype(dtype))
    return folder


def dataset(
    folder, cells, read=(9, 8), final=(6, 5), slices=slice(1, 3), channels=((0, 1), (2, 0)), plate=None, **more
):
    """Cells are rows of FOV, frame, y, x; the second plate has its Phase last, channel -1 is one that it lacks."""
    plates = (0, 1) if plate is None else (plate,)
    fovs = [fov for number in plates for fov in read_plate(folder / f"{number}.zarr")]
    rows = [list(channels[number]) for number in plates for _ in range(2)]
    names = [[fov.channel_names[c] if c >= 0 else None for c in row] for fov, row in zip(fovs, rows, strict=True)]
    fov, *columns = np.array(cells, float).reshape(-1, 4).T
    table = pd.DataFrame(dict(zip("tyx", columns, strict=True))).astype({"t": int})
    return Cells(table, fov.astype(np.int64), fovs, rows, names, slices, read, final, **more)


def written(folder, path, *datasets, **options):
    boxes = CellBoxes.union([data.cell_boxes() for data in datasets])
    return write_patch_store(PatchStorePlan.of(path, boxes), **options)


def same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert type(one[key]) is type(other[key])
        if isinstance(one[key], torch.Tensor | np.ndarray):
            np.testing.assert_array_equal(np.asarray(one[key]), np.asarray(other[key]), strict=True)
        else:
            assert one[key] == other[key]


CELLS = [(fov, t, y, x) for fov in range(4) for t in range(N_FRAMES) for y, x in [(0, 0), (19, 25.4), (8.5, 12)]]
place = st.tuples(st.integers(0, 3), st.integers(0, N_FRAMES - 1), st.floats(0, 19), st.floats(0, 25))
length = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(sorted)


@given(st.lists(place, min_size=1, max_size=12), length, length, st.data())
@settings(max_examples=25, deadline=None)
def test_batches_are_the_same_bit_for_bit(tmp_path_factory, plates, cells, height, width, data):
    folder = tmp_path_factory.mktemp("store")
    first = data.draw(st.integers(0, DEPTH - 1))
    slices = slice(first, data.draw(st.integers(first + 1, DEPTH)))
    channels = ((0, 1), (2, data.draw(st.sampled_from([-1, 0]))))
    (final_y, read_y), (final_x, read_x) = height, width
    whole = {"read": (read_y, read_x), "final": (final_y, final_x), "channels": channels}
    path = written(folder, folder / "patches.zarr", dataset(plates, cells, slices=slice(0, DEPTH), **whole))
    for read in ((read_y, read_x), (final_y, final_x)):  # with the margin and without
        options = whole | {"read": read, "slices": slices}
        order = data.draw(st.permutations(range(len(cells))))
        same(
            dataset(plates, cells, patch_store=path, **options)[order],
            dataset(plates, cells, **options)[order],
        )


def test_small_pixels_stay_small_and_any_reader_of_zarr_opens_the_store(plates, tmp_path):
    cells = [cell for cell in CELLS if cell[0] < 2]
    data = dataset(plates, cells, plate=0)
    path = written(plates, tmp_path / "patches.zarr", data)
    group = zarr.open_group(path, mode="r")
    assert group["patches"].dtype == np.uint16
    assert group["patches"].shape == (len(cells), 2, 2, 9, 8)
    assert group["patches"].chunks == (1, 2, 2, 9, 8)
    rows = group["cells"][...].tolist()
    assert rows == sorted([fov, t, int(y + 0.5), int(x + 0.5)] for fov, t, y, x in cells)
    # The box of the cell in the corner begins there.
    image = zarr.open_array(plates / "0.zarr/A/1/0/0", mode="r")
    np.testing.assert_array_equal(group["patches"][rows.index([0, 2, 0, 0])], image[2, :, 1:3, :9, :8])
    assert read_record(path).n_cells == len(cells)


def test_cells_at_one_place_share_a_box(plates, tmp_path):
    data = dataset(plates, [(0, 0, 5, 5), (0, 0, 5.4, 4.6), (1, 0, 5, 5)])
    path = written(plates, tmp_path / "patches.zarr", data, data)
    assert read_record(path).n_cells == 2


def test_a_reader_survives_pickling_and_threads(plates, tmp_path):
    path = written(plates, tmp_path / "patches.zarr", dataset(plates, CELLS))
    data = dataset(plates, CELLS, patch_store=path)
    copy = pickle.loads(pickle.dumps(data))
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda n: (copy if n % 2 else data)[[n % 30, 3, n % 7]], range(40)))
    plain = dataset(plates, CELLS)
    for n, batch in enumerate(batches):
        same(batch, plain[[n % 30, 3, n % 7]])


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"cells": [*CELLS, (2, 1, 3, 3)]}, "cells", "not the cell at frame 1, row 3, column 3"),
        ({"slices": slice(0, 3)}, "z_range", "slices 1 to 3"),
        ({"read": (10, 8)}, "yx_patch_size", "patches of 9 x 8 pixels"),
        ({"channels": ((1, 0), (2, 0))}, "channels", "['Phase', 'GFP']"),
        ({"channels": ((0,), (2,))}, "channels", "2 of them"),
    ],
)
def test_a_store_of_something_else_is_refused_in_words(plates, tmp_path, options, field, words):
    path = written(plates, tmp_path / "patches.zarr", dataset(plates, CELLS))
    with pytest.raises(InputError) as caught:
        dataset(plates, **{"cells": CELLS, "patch_store": path} | options)
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "cache-patches" in caught.value.fix


def test_a_store_of_another_plate_lacks_its_fovs(plates, tmp_path):
    path = written(plates, tmp_path / "patches.zarr", dataset(plates, [(0, 0, 3, 3)], plate=0))
    with pytest.raises(InputError, match=r"none of .*1\.zarr"):
        dataset(plates, [(0, 0, 3, 3)], plate=1, patch_store=path)


def test_images_that_were_written_anew_are_compared(plates, tmp_path):
    folder = tmp_path / "plates"
    shutil.copytree(plates, folder)
    # The cells of the FOV to change lie between those that are compared in any case.
    cells = sorted(CELLS, key=lambda cell: (cell != CELLS[0], cell[0] != 2))
    path = written(folder, tmp_path / "patches.zarr", dataset(folder, cells))
    array = folder / "1.zarr/A/1/0/0"
    pixels = zarr.open_array(array, mode="r")[...]
    os.utime(array / "zarr.json")  # copied, equal pixels
    dataset(folder, cells, patch_store=path)
    shutil.rmtree(folder / "1.zarr")
    others = [zarr.open_array(plates / f"1.zarr/A/1/{fov}/0", mode="r")[...] for fov in range(2)]
    with PlateWriter(folder / "1.zarr", ["RFP", "Extra", "Phase"], chunks=(1, 1, 1, *EXTENTS[1])) as plate:
        plate.write("A/1/0", pixels + 1)
        plate.write("A/1/1", others[1])
    with pytest.raises(InputError, match=r"others than frame 0 of .*1.zarr, FOV A/1/0") as caught:
        dataset(folder, cells, patch_store=path)
    assert caught.value.field == "pixels"


def test_what_is_no_store_is_refused(plates, tmp_path):
    with pytest.raises(MissingInputError, match="cache-patches"):
        dataset(plates, CELLS, patch_store=tmp_path / "none.zarr")
    with pytest.raises(InputError, match="something else"):
        dataset(plates, CELLS, patch_store=plates / "0.zarr")
    assert not is_patch_store(plates / "0.zarr")
    assert not is_patch_store(tmp_path / "none.zarr")


def test_a_newer_layout_and_a_damaged_file_are_refused(plates, tmp_path):
    path = written(plates, tmp_path / "patches.zarr", dataset(plates, CELLS))
    data = dataset(plates, CELLS, patch_store=path)
    [shard] = path.glob("patches/c.*")
    whole = shard.read_bytes()
    for content in (whole[: len(whole) // 2], b""):
        shard.write_bytes(content)
        with pytest.raises(InputError, match="a file of a patch store"):
            pickle.loads(pickle.dumps(data))[[0]]
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["viscy_patch_store"] |= {"schema_version": 2, "written_by": "viscy-data 9.1"}
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(
        InputError, match=r"found    2, written by viscy-data 9\.1\n(.|\n)*read it with viscy-data 9\.1"
    ):
        dataset(plates, CELLS, patch_store=path)


# Writing


def test_a_store_says_what_wrote_it(plates, tmp_path):
    path = written(plates, tmp_path / "patches.zarr", dataset(plates, CELLS))
    record = json.loads((path / "zarr.json").read_text())["attributes"]["viscy_patch_store"]
    assert record["written_by"] == f"viscy-data {version('viscy-data')}"


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(Path(root).rglob("*")) if path.is_file()}


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr("viscy_data.patch_store.layout._SHARD_BYTES", 5 * 2 * 2 * 9 * 8 * 4)


def test_the_number_of_threads_changes_no_byte(plates, tmp_path, small_shards):
    data, told = dataset(plates, CELLS), []
    one = written(plates, tmp_path / "one.zarr", data, workers=1, advance=told.append)
    four = written(plates, tmp_path / "four.zarr", data, workers=4)
    assert read_record(one).n_shards == 8
    assert sum(told) == len(CELLS)
    assert files(one) == files(four)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["four.zarr", "one.zarr"]


def stop_after(n):
    def advance(_):
        nonlocal n
        n -= 1
        if n == 0:
            raise KeyboardInterrupt

    return advance


def test_a_stopped_copy_goes_on_and_is_of_equal_bytes(plates, tmp_path, small_shards):
    data = dataset(plates, CELLS)
    boxes = data.cell_boxes()
    whole = written(plates, tmp_path / "whole.zarr", data)
    path = tmp_path / "patches.zarr"
    with pytest.raises(KeyboardInterrupt):
        write_patch_store(PatchStorePlan.of(path, CellBoxes.union([boxes])), workers=1, advance=stop_after(3))
    assert not path.exists()
    with pytest.raises(MissingInputError):
        dataset(plates, CELLS, patch_store=path)
    plan = PatchStorePlan.of(path, CellBoxes.union([boxes]))
    assert 0 < len(plan.missing_shards()) <= 5
    assert plan.bytes_to_write < plan.record.n_bytes
    before = {
        name: os.stat(plan.unfinished / "patches" / name).st_mtime_ns
        for name in os.listdir(plan.unfinished / "patches")
    }
    assert write_patch_store(plan) == path
    assert files(path) == files(whole)
    assert all(os.stat(path / "patches" / name).st_mtime_ns == then for name, then in before.items())  # not again


def test_a_stopped_copy_of_something_else_is_refused(plates, tmp_path, small_shards):
    path, boxes = tmp_path / "patches.zarr", dataset(plates, CELLS).cell_boxes()
    with pytest.raises(KeyboardInterrupt):
        write_patch_store(PatchStorePlan.of(path, CellBoxes.union([boxes])), advance=stop_after(1))
    with pytest.raises(InputError, match="a stopped copy of other cells"):
        PatchStorePlan.of(path, CellBoxes.union([dataset(plates, CELLS[1:]).cell_boxes()]))


KILLED = """
import os, pickle, signal, sys
from viscy_data.patch_store import layout
layout._SHARD_BYTES = 5 * 2 * 2 * 9 * 8 * 4
from viscy_data.patch_store import PatchStorePlan, write_patch_store
left = [3]
def advance(n_cells):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
write_patch_store(PatchStorePlan.of(sys.argv[1], pickle.loads(sys.stdin.buffer.read())), advance=advance)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_killed_copy_goes_on_and_is_of_equal_bytes(plates, tmp_path, small_shards):
    boxes = CellBoxes.union([dataset(plates, CELLS).cell_boxes()])
    path = tmp_path / "patches.zarr"
    ran = subprocess.run([sys.executable, "-c", KILLED, path], input=pickle.dumps(boxes), timeout=60, check=False)
    assert ran.returncode == -signal.SIGKILL
    assert not path.exists()
    write_patch_store(PatchStorePlan.of(path, boxes))
    whole = write_patch_store(PatchStorePlan.of(tmp_path / "whole.zarr", boxes))
    assert files(path) == files(whole)
    same(dataset(plates, CELLS, patch_store=path)[range(36)], dataset(plates, CELLS)[range(36)])


def test_nothing_is_overwritten_and_no_disk_filled(plates, tmp_path, monkeypatch):
    boxes = CellBoxes.union([dataset(plates, CELLS).cell_boxes()])
    path = tmp_path / "patches.zarr"
    usage = shutil.disk_usage(tmp_path)._replace(free=20_000)
    monkeypatch.setattr(patch_store_writing.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"19\.5 KiB free on the disk"):
        PatchStorePlan.of(path, boxes)
    assert not list(tmp_path.iterdir())
    path.mkdir()
    with pytest.raises(FileExistsError, match="remove it"):
        PatchStorePlan.of(path, boxes)


def test_the_estimate_is_the_size(plates, tmp_path):
    plan = PatchStorePlan.of(tmp_path / "patches.zarr", CellBoxes.union([dataset(plates, CELLS).cell_boxes()]))
    path = write_patch_store(plan)
    assert abs(sum(map(len, files(path).values())) - plan.record.n_bytes) < 8192


def test_one_process_writes_a_store_at_a_time(plates, tmp_path, small_shards):
    plan = PatchStorePlan.of(tmp_path / "patches.zarr", CellBoxes.union([dataset(plates, CELLS).cell_boxes()]))

    def advance(_):
        with pytest.raises(InputError, match="another process"):
            write_patch_store(plan)

    write_patch_store(plan, advance=advance)


# Data modules


def test_a_data_module_fits_and_predicts_the_same_batches(tmp_path):
    folder = write_data(tmp_path / "data")
    boxes = DATA_MODULES["triplets"](folder).cell_boxes()
    path = write_patch_store(PatchStorePlan.of(tmp_path / "patches.zarr", boxes))
    plain, stored = (DATA_MODULES["triplets"](folder) for _ in range(2))
    stored.patch_store = path
    for data in (plain, stored):
        data.setup("fit")
        data.setup("predict")
    for name in ("train_dataloader", "val_dataloader", "predict_dataloader"):
        for one, other in zip(getattr(plain, name)(), getattr(stored, name)(), strict=True):
            for key in ("anchor", "positive", "negative"):
                assert (key in one) == (key in other)
                if key in one:
                    assert torch.equal(one[key], other[key])
    assert plain.data_record() == stored.data_record()


def test_every_layout_up_to_the_newest_has_its_file():
    there = {path.name for path in (Path(__file__).parent / "schemas").glob("*.zip")}
    assert there == {f"patches-{number}.zip" for number in range(1, SCHEMA_VERSION + 1)}


def test_the_first_layout_is_read_and_a_later_one_refused(tmp_path):
    with ZipFile(Path(__file__).parent / "schemas/patches-1.zip") as archive:
        archive.extractall(tmp_path)
    path = tmp_path / "patches-1.zarr"
    assert (read_record(path).n_cells, read_record(path).size) == (1, [1, 1, 4, 4])
    patch = zarr.open_array(path / "patches", mode="r")[0, 0, 0]
    np.testing.assert_array_equal(patch, np.arange(64).reshape(8, 8)[:4, 1:5])  # around (2, 3)
    document = path / "zarr.json"
    document.write_text(re.sub(r'("schema_version": ?)1', r"\g<1>2", document.read_text()))
    with pytest.raises(InputError, match=r"(?s)schema_version\n  found    2.*update viscy-data"):
        read_record(path)
