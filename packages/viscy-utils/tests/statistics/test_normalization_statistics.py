"""Normalisation statistics: against reference numbers, and for plates as they come."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from viscy_data.errors import InputError
from viscy_data.stores import PlateWriter, StoragePolicy, open_array, read_attributes, read_plate
from viscy_data.testing import write_foreign_plate
from viscy_utils.runs.trainer import VisCyTrainer
from viscy_utils.statistics import metadata
from viscy_utils.statistics.metadata import generate_normalization_metadata, sidecar_path_of
from viscy_utils.statistics.pixel_samples import sample_frame
from viscy_utils.statistics.summaries import get_val_stats, mp_get_val_stats, mp_wrapper


def write_plate(path, images, channels=("Phase", "GFP"), version="0.5"):
    with PlateWriter(path, list(channels), version=version) as plate:
        for name, image in images.items():
            plate.write(name, image)
    return path


def normalization(path, fov=None):
    return read_attributes(path, fov)["normalization"]


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(10, 3, shape).astype(np.float32)


@pytest.fixture
def trainer():
    return VisCyTrainer(accelerator="cpu", logger=False, enable_checkpointing=False)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_preprocess_reproduces_the_reference_numbers(tmp_path, golden, signed, version):
    expected = json.loads((golden / "preprocess.json").read_text())
    shape = tuple(expected["shape_TCZYX"])
    offset = 50 * np.arange(2).reshape(1, 2, 1, 1, 1) + 10 * np.arange(3).reshape(3, 1, 1, 1, 1)
    images = {fov: (100 * signed(shape, f"norm_{fov}") + offset).astype(np.float32) for fov in expected["positions"]}
    path = write_plate(tmp_path / "plate.zarr", images, version=version)
    generate_normalization_metadata(path, 2, expected["channel_ids"], expected["grid_spacing"])
    assert_close(normalization(path), expected["plate_zattrs_normalization"])
    for fov, levels in expected["positions"].items():
        assert_close(normalization(path, fov), levels)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_close(found[key], value)
        else:
            assert found[key] == pytest.approx(value, rel=1e-5, abs=1e-4), key


def test_fovs_of_different_size_and_length_are_pooled(tmp_path):
    images = {"A/1/0": noise((3, 2, 1, 16, 20)), "A/1/1": noise((1, 2, 2, 24, 8), 1) + 5}
    path = write_plate(tmp_path / "plate.zarr", images)
    generate_normalization_metadata(path, grid_spacing=1)
    pooled = np.concatenate([image[:, 0].ravel() for image in images.values()])
    found = normalization(path, "A/1/1")["Phase"]
    assert found["dataset_statistics"]["mean"] == pytest.approx(pooled.mean(dtype=float))
    assert found["dataset_statistics"]["p95"] == pytest.approx(np.percentile(pooled, 95), rel=1e-6)
    assert found["fov_statistics"]["std"] == pytest.approx(images["A/1/1"][:, 0].std(dtype=float))
    assert sorted(found["timepoint_statistics"]) == ["0", "1", "2"]
    assert found["timepoint_statistics"]["2"]["median"] == pytest.approx(np.median(images["A/1/0"][2, 0]))


@pytest.mark.parametrize("empty", [0.0, 7.0, np.nan])
def test_empty_frames_are_left_out_and_reported(tmp_path, caplog, empty):
    image = noise((4, 2, 1, 16, 16))
    image[2, 0] = empty
    path = write_plate(tmp_path / "plate.zarr", {"A/1/0": image, "A/1/1": np.full_like(image, empty)}, ("a", "b"))
    with pytest.raises(InputError, match="no frame with content"):
        generate_normalization_metadata(path, channel_ids=1, grid_spacing=1, dataset_fovs=["A/1/1"])
    done = generate_normalization_metadata(path, channel_ids=[0], grid_spacing=1)
    said = f"wrote {path}: statistics of a in 2 FOVs of {path}; left out channel b, 5 frames without content"
    assert str(done).startswith(said)
    expected = image[[0, 1, 3], 0].mean(dtype=float)
    found = normalization(path, "A/1/0")["a"]
    assert found["dataset_statistics"]["mean"] == pytest.approx(expected)
    assert found["fov_statistics"]["mean"] == pytest.approx(expected)
    assert sorted(found["timepoint_statistics"]) == ["0", "1", "3"]
    assert "fov_statistics" not in normalization(path, "A/1/1")["a"]
    assert "FOV A/1/0, channel a: left out 1 of 4 frames without content: t = 2" in caplog.text
    assert "FOV A/1/1, channel a: left out 4 of 4 frames" in caplog.text


def test_an_image_in_no_plate_is_named_and_not_its_folder(tmp_path):
    write_plate(tmp_path / "plate.zarr", {"A/1/0": noise((1, 2, 1, 16, 16))})
    (tmp_path / "movies").mkdir()
    movie = (tmp_path / "plate.zarr" / "A" / "1" / "0").rename(tmp_path / "movies" / "movie.zarr")
    done = generate_normalization_metadata(movie, grid_spacing=4)
    assert (done.store, done.target) == (str(movie), str(movie))
    assert str(done).startswith(f"wrote {movie}: statistics of ")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_where_nothing_may_be_written_another_place_is_advised(tmp_path, monkeypatch, number):
    path = write_plate(tmp_path / "plate.zarr", {"A/1/0": noise((1, 2, 1, 16, 16))})

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(metadata, "update_attributes_of", refuse)
    with pytest.raises(
        InputError, match=rf"plate\.zarr\n *found +no permission .*{os.strerror(number)}[\s\S]*--sidecar_path"
    ):
        generate_normalization_metadata(path, grid_spacing=4)
    done = generate_normalization_metadata(path, grid_spacing=4, sidecar_path=tmp_path / "statistics.json")
    assert done.target == str(tmp_path / "statistics.json")


def test_nonfinite_pixels_are_left_out_and_counted(tmp_path, caplog):
    image = noise((2, 1, 1, 16, 16))
    image[0, 0, 0, 0, :3] = np.inf, -np.inf, np.nan
    path = write_plate(tmp_path / "plate.zarr", {"A/1/0": image}, ["a"])
    generate_normalization_metadata(path, grid_spacing=1)
    mean = normalization(path)["a"]["dataset_statistics"]["mean"]
    assert mean == pytest.approx(image[np.isfinite(image)].mean(dtype=float))
    assert "3 sampled pixels that are NaN or infinite" in caplog.text


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32"])
def test_a_saturated_camera_overflows_no_statistic(tmp_path, dtype):
    lowest, highest = (0, 1e18) if dtype == "float32" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    image = np.full((2, 1, 1, 64, 64), highest, dtype)
    image[0, 0, 0, :16] = lowest  # the second frame is saturated throughout, and has no content
    path = write_plate(tmp_path / "plate.zarr", {"A/1/0": image}, ["a"])
    generate_normalization_metadata(path, grid_spacing=1)
    found = normalization(path, "A/1/0")["a"]
    low, high = (float(image.min()), float(image.max()))
    expected = {
        "mean": low / 4 + 3 * high / 4,
        "std": (high - low) * 3**0.5 / 4,
        "median": high,
        "iqr": (high - low) / 4,
    }
    for name, value in expected.items():
        assert found["fov_statistics"][name] == pytest.approx(value, rel=1e-6), name
    assert list(found["timepoint_statistics"]) == ["0"]


def test_a_periodic_image_is_noticed_and_stratified_sampling_measures_it(tmp_path, caplog):
    image = np.ones((1, 1, 1, 256, 256), np.float32)
    image[..., 4::8] = 100
    image[..., 0] += np.arange(256)[:, None].reshape(256) % 2 * 0.5
    path = write_plate(tmp_path / "plate.zarr", {"A/1/0": image}, ["a"])
    generate_normalization_metadata(path, grid_spacing=8)
    assert "sampling: stratified" in caplog.text
    generate_normalization_metadata(path, grid_spacing=8, sampling="stratified")
    assert normalization(path)["a"]["dataset_statistics"]["mean"] == pytest.approx(image.mean(), rel=0.2)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_stratified_sampling_takes_one_pixel_of_every_block(height, width, grid, seed):
    stack = np.arange(height * width).reshape(1, height, width)
    y, x = np.divmod(sample_frame(stack, grid, "stratified", seed), width)
    blocks = {(a // grid, b // grid) for a, b in zip(y, x, strict=True)}
    assert len(blocks) == len(y) == -(-height // grid) * -(-width // grid)
    again = sample_frame(stack, grid, "stratified", seed)
    np.testing.assert_array_equal(again, y * width + x)


def test_another_run_replaces_the_named_channels_only(tmp_path, trainer):
    path = write_plate(tmp_path / "plate.zarr", {"A/1/0": noise((1, 2, 1, 16, 16))})
    trainer.preprocess(path, ["Phase"], block_size=1)
    assert set(normalization(path)) == {"Phase"}
    before = normalization(path, "A/1/0")["Phase"]
    trainer.preprocess(path, ["GFP"], block_size=2)
    assert set(normalization(path, "A/1/0")) == {"Phase", "GFP"}
    assert normalization(path, "A/1/0")["Phase"] == before


def test_dataset_statistics_can_come_from_the_training_fovs_alone(tmp_path, trainer):
    images = {"A/1/0": noise((1, 1, 1, 16, 16)), "B/1/0": noise((1, 1, 1, 16, 16)) + 100}
    path = write_plate(tmp_path / "plate.zarr", images, ["a"])
    trainer.preprocess(path, block_size=1, dataset_fovs=["A/1"])
    found = normalization(path, "B/1/0")["a"]
    assert found["dataset_statistics"]["mean"] == pytest.approx(images["A/1/0"].mean(dtype=float))
    assert found["fov_statistics"]["mean"] == pytest.approx(images["B/1/0"].mean(dtype=float))
    with pytest.raises(InputError, match="C/3"):
        trainer.preprocess(path, dataset_fovs=["C/3"])


def test_a_store_that_cannot_be_written_gets_a_sidecar(tmp_path, monkeypatch, caplog):
    path = write_plate(tmp_path / "plate.zarr", {"A/1/0": noise((1, 2, 1, 16, 16))})
    monkeypatch.setattr(os, "access", lambda place, *_args: not Path(place).is_relative_to(path))
    generate_normalization_metadata(path, channel_ids=0)
    generate_normalization_metadata(path, channel_ids=1)
    content = json.loads((tmp_path / "plate.zarr.normalization.json").read_text())
    assert set(content["plate"]) == set(content["fovs"]["A/1/0"]) == {"Phase", "GFP"}
    assert "fov_statistics" in content["fovs"]["A/1/0"]["Phase"]
    assert "normalization" not in read_attributes(path, "A/1/0")
    assert str(sidecar_path_of(path)) in caplog.text


def test_an_unknown_channel_is_named_with_its_nearest_match(tmp_path, trainer):
    path = write_plate(tmp_path / "plate.zarr", {"A/1/0": noise((1, 2, 1, 16, 16))})
    with pytest.raises(InputError, match=r"'Phse'[\s\S]*'Phase', 'GFP'[\s\S]*did you mean 'Phase'"):
        trainer.preprocess(path, ["Phse"])
    with pytest.raises(InputError, match="0 to 1"):
        generate_normalization_metadata(path, channel_ids=[2])


def test_summary_statistics_of_a_known_sample():
    values = np.arange(101, dtype=np.uint8)
    stats = get_val_stats(np.append(values.astype(float), [np.nan, np.inf]))
    assert stats["mean"] == stats["median"] == 50
    assert stats["std"] == pytest.approx(np.sqrt((101**2 - 1) / 12))
    assert (stats["p1"], stats["p5"], stats["p95"], stats["p99"]) == (1, 5, 95, 99)
    assert (stats["iqr"], stats["p95_p5"], stats["p99_p1"]) == (50, 90, 98)
    with pytest.raises(ValueError, match="no finite value"):
        get_val_stats([np.nan])


def test_processes_return_results_in_order():
    assert mp_wrapper(pow, [(2, 3), (3, 2)], 1) == [8, 9]
    assert [stats["mean"] for stats in mp_get_val_stats([[1.0, 3.0], [5.0]], 1)] == [2.0, 5.0]


def test_two_channels_of_one_name_get_no_statistics_and_are_refused_where_asked_for(tmp_path, caplog):
    movie = np.random.default_rng(0).random((1, 3, 1, 8, 8))
    path = write_foreign_plate(tmp_path / "p.zarr", {"A/1/0": movie}, channel_names=["a", "b", "a"])
    with caplog.at_level(logging.WARNING):
        generate_normalization_metadata(path, grid_spacing=1)
    assert "several channels are called 'a'" in caplog.text
    stored = read_attributes(path, "A/1/0")["normalization"]
    assert list(stored) == ["b"]
    assert stored["b"]["fov_statistics"]["mean"] == pytest.approx(movie[:, 1].mean())
    with pytest.raises(InputError, match="field channel_ids\n  found    2 channels of the name 'a'"):
        generate_normalization_metadata(path, channel_ids=[2], grid_spacing=1)


def test_statistics_are_in_consolidated_metadata_too(tmp_path):
    movie = np.random.default_rng(0).random((1, 1, 1, 8, 8))
    path = write_foreign_plate(tmp_path / "p.zarr", {"A/1/0": movie}, channel_names=["a"], version="0.4")
    zarr.consolidate_metadata(path)
    generate_normalization_metadata(path, grid_spacing=1)
    for name in (None, "A/1/0"):
        seen = zarr.open_group(path, mode="r", path=name, use_consolidated=name is None).attrs["normalization"]
        assert seen == read_attributes(path, name)["normalization"]
    by_plate = zarr.open_group(path, mode="r", use_consolidated=True)["A/1/0"].attrs["normalization"]
    assert by_plate == read_attributes(path, "A/1/0")["normalization"]


def test_a_truncated_chunk_is_named_by_store_fov_frame_and_channel(tmp_path):
    movie = np.random.default_rng(0).random((3, 2, 1, 8, 8))
    path = write_foreign_plate(
        tmp_path / "p.zarr", {"A/1/0": movie}, channel_names=["a", "b"], chunks=(1, 1, 1, 8, 8), version="0.4"
    )
    [chunk] = (path / "A/1/0/0").rglob("2.1.0.0.0")
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(InputError, match=r"p\.zarr, FOV A/1/0, frame 2, channel 'b'"):
        generate_normalization_metadata(path, grid_spacing=1)
    assert "normalization" not in read_attributes(path, "A/1/0")


FAULTS = {
    "metadata": lambda fov: (fov / "zarr.json").write_text("{"),
    "first chunk": lambda fov: (fov / "0/c/0/0/0/0/0").write_bytes(b"x"),
    "a chunk in the middle": lambda fov: (fov / "0/c/1/1/0/0/0").write_bytes(b"x"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fovs_that_cannot_be_read_are_left_out_named_and_keep_what_they_had(tmp_path, trainer, fault):
    images = {f"A/1/{i}": noise((3, 2, 1, 16, 16), i) + i for i in range(3)}
    expected = write_plate(tmp_path / "without.zarr", {name: images[name] for name in ("A/1/0", "A/1/2")})
    generate_normalization_metadata(expected, grid_spacing=4)
    path = write_plate(tmp_path / "p.zarr", images)
    FAULTS[fault](path / "A/1/1")
    with pytest.raises(InputError, match=r"p\.zarr(, FOV |/)A/1/1"):
        trainer.preprocess(str(path), block_size=4)
    assert "normalization" not in read_attributes(path)
    leave_out = StoragePolicy(bad_fovs="leave_out")
    done = trainer.preprocess(
        str(path), ["Phase", "GFP"], block_size=4, storage=leave_out, dataset_fovs=["A/1/0", "A/1/1", "A/1/2"]
    )
    assert (done.n_fovs, [key.name for key in done.left_out]) == (2, ["A/1/1"])
    assert "in 2 FOVs of" in str(done)
    assert re.search(r"; 1 FOV that cannot be read is left out: .*p\.zarr, FOV A/1/1 \(.", str(done))
    assert normalization(path) == normalization(expected)
    assert normalization(path, "A/1/2") == normalization(expected, "A/1/2")
    if fault != "metadata":
        assert "normalization" not in read_attributes(path, "A/1/1")


def test_without_a_fov_that_can_be_read_nothing_is_written(tmp_path):
    path = write_plate(tmp_path / "p.zarr", {"A/1/0": noise((3, 2, 1, 16, 16))})
    FAULTS["a chunk in the middle"](path / "A/1/0")
    with pytest.raises(InputError, match=r"p\.zarr, FOV A/1/0, frame 1, channel 'GFP'"):
        generate_normalization_metadata(path, storage=StoragePolicy(bad_fovs="leave_out"))
    assert "normalization" not in read_attributes(path)


@pytest.mark.parametrize("workers", [1, 2])
def test_chunks_that_are_not_stored_are_faults_where_that_is_asked_for(tmp_path, workers):
    path = write_plate(tmp_path / "p.zarr", {f"A/1/{i}": noise((3, 2, 1, 16, 16)) for i in range(2)})
    (path / "A/1/0/0/c/1/1/0/0/0").unlink()
    assert generate_normalization_metadata(path, workers).n_empty_frames == 1
    refuse = StoragePolicy(missing_chunks="refuse")
    with pytest.raises(InputError, match=r"FOV A/1/0, frame 1, channel 'GFP'"):
        generate_normalization_metadata(path, workers, storage=refuse)
    done = generate_normalization_metadata(
        path, workers, storage=StoragePolicy(bad_fovs="leave_out", missing_chunks="refuse")
    )
    assert [key.name for key in done.left_out] == ["A/1/0"]


def file_reads():
    metrics = tensorstore.experimental_collect_matching_metrics("/tensorstore/kvstore/file/read")
    return sum(entry["values"][0].get("value", 0) for entry in metrics if entry["name"].endswith("/read"))


@pytest.mark.parametrize("channel_ids", [-1, [0, 3]])
@pytest.mark.parametrize("chunks", [(1, 1, 1, 8, 8), (2, 4, 2, 16, 6), (5, 3, 4, 7, 12)])
def test_every_chunk_is_read_once(tmp_path, chunks, channel_ids):
    shape, names = (5, 4, 4, 16, 12), ["a", "b", "c", "d"]
    images = {f"A/1/{fov}": noise(shape, fov) for fov in range(2)}
    with PlateWriter(tmp_path / "p.zarr", names, version="0.4", chunks=chunks) as plate:
        for name, image in images.items():
            plate.write(name, image)
    before = file_reads()
    for fov in (fovs := read_plate(tmp_path / "p.zarr")):
        open_array(fov)
    listing = file_reads() - before
    before = file_reads()
    generate_normalization_metadata(tmp_path / "p.zarr", 2, channel_ids, grid_spacing=1)
    found = file_reads() - before

    per_axis = [range(0, extent, chunk) for extent, chunk in zip(shape, chunks, strict=True)]
    wanted = range(4) if channel_ids == -1 else channel_ids
    of_channels = [first for first in per_axis[1] if any(first <= c < first + chunks[1] for c in wanted)]
    n_chunks = len(fovs) * len(of_channels) * int(np.prod([len(per_axis[axis]) for axis in (0, 2, 3, 4)]))
    # Beside them, the plate is listed, and each FOV opened twice: to divide the work and to do it.
    assert n_chunks <= found - listing <= n_chunks + 2 * len(fovs)
    for channel, name in enumerate(names):
        if channel in wanted:
            pixels = np.concatenate([image[:, channel].ravel() for image in images.values()])
            stored = normalization(tmp_path / "p.zarr")[name]["dataset_statistics"]
            assert stored["mean"] == pytest.approx(pixels.mean(dtype=float))
            assert stored["p99"] == pytest.approx(np.percentile(pixels, 99))
