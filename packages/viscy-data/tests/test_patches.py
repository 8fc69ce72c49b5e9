from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from viscy_data.errors import InputError, MissingInputError
from viscy_data.patches import PatchReader, clamp_centers, patch_start
from viscy_data.stores import FovKey, PlateWriter, read_plate

tensorstore = pytest.importorskip("tensorstore")

SHAPE = (3, 3, 4, 32, 29)  # TCZYX
FOVS = ("A/1/0", "B/2/1")
FORMATS = {
    "v0.4-uint16": ("0.4", None, "uint16"),
    "v0.4-float32": ("0.4", None, "float32"),
    "v0.5-int16": ("0.5", None, "int16"),
    "v0.5-float64": ("0.5", None, "float64"),
    "v0.5-sharded-uint16": ("0.5", (3, 1, 4, 32, 32), "uint16"),
    "v0.5-sharded-float32": ("0.5", (3, 1, 4, 32, 32), "float32"),
    "v0.4-uint8": ("0.4", None, "uint8"),
}


def pixel(store: int, fov: int, t, c, z, y, x, dtype: str):
    """The value of a pixel tells where it is from, within the precision and range of the type."""
    place = np.ravel_multi_index(np.broadcast_arrays(store, fov, t, c, z, y, x), (2, 2, *SHAPE))
    return (place * 7919 % (251 if dtype == "uint8" else 32749)).astype(dtype)


def write_plate(path, store: int, version="0.5", shards=None, dtype="uint16", chunks=(1, 1, 2, 16, 16)):
    with PlateWriter(path, ["a", "b", "c"], version=version, chunks=chunks, shards=shards) as writer:
        for fov, name in enumerate(FOVS):
            writer.write(name, pixel(store, fov, *np.indices(SHAPE, sparse=True), dtype))
    return [fov.key for fov in read_plate(path)]


@pytest.fixture(scope="module", params=FORMATS)
def plates(request, tmp_path_factory):
    """Two plates with the same FOV names, and the dtype of their pixels."""
    version, shards, dtype = FORMATS[request.param]
    folder = tmp_path_factory.mktemp("plates")
    keys = [key for store in range(2) for key in write_plate(folder / f"{store}.zarr", store, version, shards, dtype)]
    return keys, dtype


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plates")
    return [key for store in range(2) for key in write_plate(folder / f"{store}.zarr", store)]


def random_boxes(rng, n, size, channels=2, fovs=4):
    extent = np.array(SHAPE[2:]) - size
    return {
        "fov": rng.integers(0, fovs, n),
        "t": rng.integers(0, SHAPE[0], n),
        "channels": rng.integers(-1, SHAPE[1], (n, channels)),
        **{axis: rng.integers(0, stop + 1, n) for axis, stop in zip("zyx", extent, strict=True)},
        "size": tuple(size),
    }


def slow_read(boxes, dtype="uint16"):
    """One pixel after the other, from the formula."""
    batch = np.zeros((*boxes["channels"].shape, *boxes["size"]), np.float32)
    for row, position in np.ndindex(*boxes["channels"].shape):
        store, fov = divmod(int(boxes["fov"][row]), 2)
        channel = boxes["channels"][row, position]
        if channel >= 0:
            z, y, x = np.indices(boxes["size"], sparse=True)
            z, y, x = z + boxes["z"][row], y + boxes["y"][row], x + boxes["x"][row]
            batch[row, position] = pixel(store, fov, boxes["t"][row], channel, z, y, x, dtype)
    return batch


@pytest.mark.parametrize("size", [(1, 5, 6), (4, 16, 15), (3, 32, 29)])
@pytest.mark.parametrize("pool", [0, 1 << 24])
def test_every_pixel_comes_from_its_own_store_fov_frame_channel_and_place(plates, size, pool):
    keys, dtype = plates
    boxes = random_boxes(np.random.default_rng(0), 12, size)
    batch = PatchReader(keys, cache_pool_bytes=pool).read(**boxes)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, slow_read(boxes, dtype))


def test_a_patch_larger_than_a_block_has_its_channels_in_the_order_wanted(tmp_path):
    image = np.random.default_rng(0).integers(0, 60000, (1, 2, 2, 300, 300)).astype(np.uint16)
    with PlateWriter(tmp_path / "p.zarr", ["a", "b"]) as writer:
        writer.write("A/1/0", image)
    reader = PatchReader([FovKey(str(tmp_path / "p.zarr"), "A/1/0")])
    zero = np.zeros(1, int)
    # 2 * 2 * 260 * 260 float32 is about a megabyte.
    batch = reader.read(zero, zero, [[1, 0]], zero, zero + 7, zero + 11, (2, 260, 260))
    np.testing.assert_array_equal(batch[0], image[0, ::-1, :, 7:267, 11:271])


def test_experiments_with_other_pixel_types_share_a_batch(tmp_path):
    keys = [*write_plate(tmp_path / "0.zarr", 0), *write_plate(tmp_path / "1.zarr", 1, "0.4", None, "float32")]
    boxes = random_boxes(np.random.default_rng(1), 8, (2, 9, 9))
    np.testing.assert_array_equal(PatchReader(keys).read(**boxes), slow_read(boxes))


def test_box_that_leaves_the_image_is_refused_with_store_fov_and_axis(keys):
    reader = PatchReader(keys)
    good = random_boxes(np.random.default_rng(0), 3, (2, 8, 8))
    bad = {
        "t": ("T", SHAPE[0], r"\[3, 4\)", r"\[0, 3\)"),
        "z": ("Z", 3, r"\[3, 5\)", r"\[0, 4\)"),
        "y": ("Y", -1, r"\[-1, 7\)", r"\[0, 32\)"),
        "x": ("X", 22, r"\[22, 30\)", r"\[0, 29\)"),
    }
    for name, (axis, value, found, limit) in bad.items():
        column = good[name].copy()
        column[1] = value
        message = rf"(?s)zarr, FOV {keys[good['fov'][1]].name}, field axis {axis}.*{found}.*{limit}"
        with pytest.raises(InputError, match=message):
            reader.read(**{**good, name: column})
    with pytest.raises(InputError, match=r"(?s)axis C.*found    3.*one of the 3 channels"):
        reader.read(**{**good, "channels": np.full((3, 1), 3)})
    with pytest.raises(ValueError, match="there are 4 FOVs"):
        reader.read(**{**good, "fov": good["fov"] + 4})
    with pytest.raises(ValueError, match=r"expected \(B, C\)"):
        reader.read(**{**good, "channels": np.zeros((2, 1), int)})


def test_patch_deeper_than_the_stack_is_refused_not_padded(keys):
    boxes = random_boxes(np.random.default_rng(0), 2, (4, 8, 8))
    with pytest.raises(InputError, match=r"(?s)axis Z.*\[0, 6\).*inside \[0, 4\)"):
        PatchReader(keys).read(**{**boxes, "size": (6, 8, 8)})


def test_empty_batch_is_empty(keys):
    none = np.zeros(0, int)
    batch = PatchReader(keys).read(none, none, np.zeros((0, 2), int), none, none, none, (1, 4, 4))
    assert batch.shape == (0, 2, 1, 4, 4)


def test_each_fov_is_opened_once_and_adjacent_channels_are_one_read(keys):
    reader = PatchReader(keys)
    boxes = random_boxes(np.random.default_rng(0), 10, (1, 4, 4), channels=3)
    channels = np.array([[0, 1, 2]] * 5 + [[1, 0, 2]] * 2 + [[0, -1, 1]] * 2 + [[-1, -1, -1]])
    for _ in range(3):
        reader.read(**{**boxes, "channels": channels})
    assert reader.opens == len(set(boxes["fov"].tolist()))
    assert reader.reads_issued == 3 * (5 * 1 + 2 * 3 + 2 * 2 + 0)


def test_the_same_fov_listed_twice_is_opened_once(keys):
    reader = PatchReader([keys[0], keys[0]])
    boxes = random_boxes(np.random.default_rng(0), 6, (1, 4, 4), fovs=2)
    np.testing.assert_array_equal(reader.read(**boxes), slow_read({**boxes, "fov": np.zeros(6, int)}))
    assert reader.opens == 1


def test_open_fovs_are_bounded(keys):
    reader = PatchReader(keys, max_open=2)
    boxes = random_boxes(np.random.default_rng(0), 4, (1, 4, 4))
    boxes["fov"] = np.arange(4)
    np.testing.assert_array_equal(reader.read(**boxes), slow_read(boxes))
    assert reader.opens == 4
    reader.read(**{**boxes, "fov": np.array([2, 3, 2, 3])})
    assert reader.opens == 4
    reader.read(**{**boxes, "fov": np.array([0, 0, 0, 0])})
    assert reader.opens == 5


def test_the_fov_that_was_used_longest_ago_is_closed_first(keys):
    reader = PatchReader(keys, max_open=2)
    boxes = random_boxes(np.random.default_rng(0), 1, (1, 4, 4))
    opens = []
    for fov in (0, 1, 0, 2, 0, 1):
        reader.read(**{**boxes, "fov": np.array([fov])})
        opens.append(reader.opens)
    assert opens == [1, 2, 2, 3, 3, 4]


def chunk_reads(reader, boxes) -> int:
    """Files read by tensorstore for one batch."""

    def total() -> int:
        metrics = tensorstore.experimental_collect_matching_metrics("/tensorstore/kvstore/file/read")
        return sum(entry["values"][0].get("value", 0) for entry in metrics if entry["name"].endswith("/read"))

    before = total()
    reader.read(**boxes)
    return total() - before


def test_chunk_shared_by_patches_and_batches_is_read_once(tmp_path):
    keys = write_plate(tmp_path / "p.zarr", 0, "0.4", chunks=(1, 1, 4, 32, 32))
    boxes = random_boxes(np.random.default_rng(0), 40, (4, 16, 15), fovs=2)
    chunks = {
        (fov, t, channel)
        for fov, t, row in zip(boxes["fov"], boxes["t"], boxes["channels"], strict=True)
        for channel in row
        if channel >= 0
    }
    reader = PatchReader(keys)
    opening = chunk_reads(reader, {**boxes, "channels": np.full_like(boxes["channels"], -1)})
    assert opening <= 2
    assert chunk_reads(reader, boxes) == len(chunks)
    assert chunk_reads(reader, boxes) == 0
    assert chunk_reads(PatchReader(keys, cache_pool_bytes=0), boxes) >= len(chunks)


def test_pickled_reader_reads_the_same(keys):
    reader = PatchReader(keys, cache_pool_bytes=12345, max_open=3)
    boxes = random_boxes(np.random.default_rng(0), 5, (2, 7, 7))
    before = reader.read(**boxes)
    copy = pickle.loads(pickle.dumps(reader))
    assert (copy.cache_pool_bytes, copy.max_open, copy.opens) == (12345, 3, 0)
    np.testing.assert_array_equal(copy.read(**boxes), before)


def test_threads_can_share_a_reader(keys):
    reader = PatchReader(keys, max_open=2)
    batches = [random_boxes(np.random.default_rng(seed), 6, (2, 9, 8)) for seed in range(24)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda boxes: reader.read(**boxes), batches))
    for boxes, batch in zip(batches, found, strict=True):
        np.testing.assert_array_equal(batch, slow_read(boxes))
    assert reader.reads_issued == sum(len(runs(row)) for boxes in batches for row in boxes["channels"])


def runs(row):
    """Runs of adjacent channels, by hand for two positions."""
    first, second = row
    present = [channel for channel in row if channel >= 0]
    return [present] if len(present) == 2 and second == first + 1 else [[channel] for channel in present]


@pytest.mark.skipif(sys.platform != "linux", reason="fork is the way of Linux")
def test_use_after_a_fork_is_refused_instead_of_hanging(keys):
    reader = PatchReader(keys)

    def child(pipe):
        try:
            reader.read(**random_boxes(np.random.default_rng(0), 1, (1, 4, 4)))
        except RuntimeError as err:
            pipe.send(str(err))
        pipe.close()
        os._exit(0)

    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a threaded process forks: that is the point
        process = context.Process(target=child, args=(send,))
        process.start()
    assert receive.poll(20)
    assert "after a fork" in receive.recv()
    process.join(20)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_pixels_are_kept_counted_and_warned_of_once_per_fov(tmp_path, bad):
    images = np.ones((2, 2, 2, 1, 16, 16), np.float32)
    images[0, 1, 1, 0, 3, 4:6] = bad
    with PlateWriter(tmp_path / "p.zarr", ["a", "b"]) as writer:
        writer.write("A/1/0", images[0])
        writer.write("A/1/1", images[1])
    keys = [fov.key for fov in read_plate(tmp_path / "p.zarr")]
    reader = PatchReader(keys)
    zero = np.zeros(2, int)
    boxes = ([0, 1], zero + 1, [[0, 1]] * 2, zero, zero, zero, (1, 16, 16))
    with pytest.warns(UserWarning, match=r"p\.zarr, FOV A/1/0, frame 1: 2 pixels") as caught:
        batch = reader.read(*boxes)
    reader.read(*boxes)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert reader.nonfinite == {keys[0]: 4}
    np.testing.assert_array_equal(batch, images[:, 1])


def test_nonfinite_pixels_are_counted_exactly_wherever_they_are_in_a_large_batch(tmp_path):
    rng = np.random.default_rng(0)
    floats = rng.random((2, 3, 1, 128, 128)).astype(np.float32)
    floats[rng.random(floats.shape) < 1e-4] = np.nan
    images = {"A/1/0": floats, "A/1/1": np.ones(floats.shape, np.uint16)}
    for name, image in images.items():
        with PlateWriter(tmp_path / f"{name[-1]}.zarr", ["a", "b", "c"]) as writer:
            writer.write(name, image)
    keys = [fov.key for name in "01" for fov in read_plate(tmp_path / f"{name}.zarr")]
    size = (1, 96, 96)  # many times what is looked through at once
    boxes = {
        "fov": rng.integers(0, 2, 40),
        "t": rng.integers(0, 2, 40),
        "channels": rng.choice([[0, 1, 2], [2, 0, -1], [-1, 1, 1], [1, 2, 0]], 40),
        "z": np.zeros(40, int),
        **{axis: rng.integers(0, 33, 40) for axis in "yx"},
    }
    reader = PatchReader(keys)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        batch = reader.read(**boxes, size=size)
    assert reader.nonfinite == {keys[0]: np.isnan(batch).sum()}
    for row, (fov, t, channels, _, y, x) in enumerate(zip(*boxes.values(), strict=True)):
        for position, channel in enumerate(channels):
            whole = list(images.values())[fov][t, channel] if channel >= 0 else np.zeros(floats.shape[2:])
            np.testing.assert_array_equal(batch[row, position], whole[:, y : y + 96, x : x + 96])


def test_large_finite_pixels_are_no_cause_for_a_warning(tmp_path):
    image = np.full((1, 1, 1, 8, 8), 3e38, np.float32)
    with PlateWriter(tmp_path / "p.zarr", ["a"]) as writer:
        writer.write("A/1/0", image)
    reader = PatchReader([FovKey(str(tmp_path / "p.zarr"), "A/1/0")])
    zero = np.zeros(1, int)
    np.testing.assert_array_equal(reader.read(zero, zero, [[0]], zero, zero, zero, (1, 8, 8)), image)
    assert reader.nonfinite == {}


def test_missing_array_is_named(keys, tmp_path):
    zero = np.zeros(1, int)
    for reader in (PatchReader([keys[0]], array_key="7"), PatchReader([FovKey(str(tmp_path / "gone.zarr"), "A/1/0")])):
        with pytest.raises(MissingInputError, match=r"\.zarr, FOV A/1/0\n  found    no array"):
            reader.read(zero, zero, [[0]], zero, zero, zero, (1, 4, 4))


def test_impossible_limits_are_refused(keys):
    with pytest.raises(ValueError, match="cache_pool_bytes=-1"):
        PatchReader(keys, cache_pool_bytes=-1)
    with pytest.raises(ValueError, match="max_open=0"):
        PatchReader(keys, max_open=0)


def test_missing_tensorstore_is_an_error_at_first_use_that_names_the_extra(keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(ImportError, match=r"pip install 'viscy-data\[triplet\]'") as caught:
        PatchReader(keys)
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.mark.parametrize(
    ("center", "size", "start"),
    [(20.9, 1, 21), (20.4, 1, 20), (20.5, 1, 21), (20.0, 16, 12), (20.0, 15, 13), (20.9, 15, 14), (0.49999997, 1, 0)],
)
def test_patch_is_centred_on_the_nearest_pixel(center, size, start):
    assert patch_start(np.array([center], np.float32), size).tolist() == [start]
    assert patch_start(center, size).dtype == np.int64


@hypothesis_settings(deadline=None)
@given(st.floats(-1e4, 1e4, width=32), st.integers(1, 64), st.integers(0, 400))
def test_clamped_patch_lies_inside_and_moves_no_more_than_needed(center, size, margin):
    extent = size + margin
    clamped = clamp_centers(np.array([center], np.float32), size, extent)
    assert clamped.dtype == np.float32
    start, free = int(patch_start(clamped, size)[0]), int(patch_start(center, size))
    assert start == min(max(free, 0), extent - size)
    if size % 2 == 0:
        assert clamped[0] == np.float32(np.clip(center, size // 2, extent - size // 2))


def test_patch_larger_than_the_image_cannot_be_clamped():
    with pytest.raises(ValueError, match="patch of 80 pixels does not fit an image of 64"):
        clamp_centers(np.array([3.0]), 80, 64)


def test_neighbouring_patches_of_any_size_tile_the_image():
    for size, center in itertools.product((4, 5), (10, 11)):
        assert patch_start(center + size, size) == patch_start(center, size) + size
