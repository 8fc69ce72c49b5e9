"""Normalised channels on disk, in the layout that ``dask.array.from_npy_stack`` reads."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from viscy_data.errors import InputError, MissingInputError
from viscy_data.stores import PlateWriter
from viscy_utils.runs.trainer import VisCyTrainer
from viscy_utils.statistics.precompute import normalize_image, precompute_array

CHANNELS = ("Phase", "GFP")
SHAPE = (2, 2, 3, 8, 6)  # T, C, Z, Y, X
FOVS = ("A/1/0", "A/1/1", "B/2/0")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    scale = np.asarray([3, 400], np.float32).reshape(1, 2, 1, 1, 1)
    return {name: (10 * i + scale * rng.normal(5, 1, SHAPE)).astype(np.float32) for i, name in enumerate(FOVS)}


@pytest.fixture
def write(tmp_path):
    def make(images, version="0.5"):
        path = tmp_path / "plate.zarr"
        with PlateWriter(path, list(CHANNELS), version=version) as plate:
            for name, image in images.items():
                plate.write(name, image)
        return path

    return make


def read_stack(path):
    """Read as ``dask.array.from_npy_stack`` does: chunks of the info file, one array file for each along the axis."""
    with open(path / "info", "rb") as file:
        info = pickle.load(file)
    assert sorted(info) == ["axis", "chunks", "dtype"]
    arrays = [np.load(path / f"{i}.npy") for i in range(len(info["chunks"][info["axis"]]))]
    assert len(list(path.iterdir())) == len(arrays) + 1
    assert [a.shape[info["axis"]] for a in arrays] == list(info["chunks"][info["axis"]])
    array = np.concatenate(arrays, axis=info["axis"])
    assert array.shape == tuple(map(sum, info["chunks"]))
    assert array.dtype == info["dtype"]
    return array


def expected_stack(images, names, channels, formulas):
    """Values of each FOV by its well, in double precision."""
    rows = []
    for name in names:
        well = [images[other].astype(np.float64) for other in names if other[:3] == name[:3]]
        columns = []
        for channel, formula in zip(channels, formulas, strict=True):
            c = CHANNELS.index(channel)
            offset, divisor = formula(np.concatenate([image[:, c].ravel() for image in well]))
            columns.append((images[name][:, c] - offset) / divisor)
        rows.append(np.stack(columns, axis=1))
    return np.stack(rows)


def by_moments(pixels):
    return pixels.mean(), pixels.std()


def by_percentiles(pixels):
    low, high = np.percentile(pixels, [1, 99])
    return np.percentile(pixels, 50), high - low


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_are_normalised_by_the_statistics_of_their_well(write, images, tmp_path, version):
    path = write(images, version)
    precompute_array(path, tmp_path / "out", ["GFP", "Phase"], ["mean", 50], ["std", (1, 99)])
    found = read_stack(tmp_path / "out")
    assert found.dtype == np.float16
    expected = expected_stack(images, FOVS, ["GFP", "Phase"], [by_moments, by_percentiles])
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=2e-3, atol=2e-3)


def test_a_mean_goes_with_percentiles(write, images, tmp_path):
    precompute_array(write(images), tmp_path / "out", ["Phase"], ["mean"], [(1, 99)])
    expected = expected_stack(images, FOVS, ["Phase"], [lambda p: (p.mean(), np.ptp(np.percentile(p, [1, 99])))])
    np.testing.assert_allclose(read_stack(tmp_path / "out").astype(np.float64), expected, rtol=2e-3, atol=2e-3)


def test_wells_and_fovs_are_chosen_before_statistics_are_taken(write, images, tmp_path):
    VisCyTrainer(accelerator="cpu", logger=False, enable_checkpointing=False).precompute(
        write(images), tmp_path / "out", ["Phase"], ["mean"], ["std"], include_wells=["A/1"], exclude_fovs=["/A/1/0"]
    )
    expected = expected_stack(images, ["A/1/1"], ["Phase"], [by_moments])
    np.testing.assert_allclose(read_stack(tmp_path / "out").astype(np.float64), expected, rtol=2e-3, atol=2e-3)


def test_a_constant_image_becomes_zero(write, images, tmp_path):
    images["A/1/0"][:, 0] = images["A/1/1"][:, 0] = 7
    precompute_array(write(images), tmp_path / "out", ["Phase", "Phase"], ["mean", 50], ["std", (1, 99)])
    found = read_stack(tmp_path / "out")
    np.testing.assert_array_equal(found[:2], 0)
    assert np.isfinite(found).all()
    assert found[2].std() > 0.1


def test_a_small_divisor_is_raised_and_a_usual_one_is_not():
    image = np.asarray([1.0, 3.0], np.float32)
    np.testing.assert_array_equal(normalize_image(image, "mean", "std"), [-1, 1])
    np.testing.assert_allclose(normalize_image(image, "mean", "std", eps=10), [-0.1, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(normalize_image(np.asarray([1, 3], np.uint16), 100, (0, 100)), [-1, 0])


def test_dask_reads_the_folder(write, images, tmp_path):
    dask_array = pytest.importorskip("dask.array")
    precompute_array(write(images), tmp_path / "out", ["Phase"], ["mean"], ["std"])
    lazy = dask_array.from_npy_stack(tmp_path / "out", mmap_mode=None)
    assert lazy.chunks[0] == (1, 1, 1)
    np.testing.assert_array_equal(lazy[2].compute(), read_stack(tmp_path / "out")[2])


def test_existing_output_is_kept(write, images, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="choose another output_path"):
        precompute_array(write(images), tmp_path / "out", ["Phase"], ["mean"], ["std"])
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"channel_names": ["DAPI"]}, InputError, r"'DAPI'\s+expected some of 'Phase', 'GFP'"),
        ({"channel_names": ["Phase", "GFP"]}, ValueError, "same length"),
        ({"include_wells": ["C/1"]}, InputError, "include_wells\n  found    .C/1"),
        ({"divisors": [(1, 5, 9)]}, InputError, "1, 5, 9"),
        ({"subtrahends": ["median"]}, InputError, "median"),
        ({"subtrahends": [101]}, InputError, "subtrahends\\s+found\\s+101"),
        ({"divisors": ["iqr"]}, InputError, "iqr"),
        ({"divisors": [(99, 1)]}, InputError, "99, 1"),
        ({"image_array_key": "5"}, InputError, "5"),
    ],
)
def test_bad_arguments_are_named_and_leave_nothing_behind(write, images, tmp_path, kwargs, error, match):
    path = write(images)
    arguments = {"channel_names": ["Phase"], "subtrahends": ["mean"], "divisors": ["std"]} | kwargs
    with pytest.raises(error, match=match):
        precompute_array(path, tmp_path / "out", **arguments)
    assert [entry.name for entry in tmp_path.iterdir()] == ["plate.zarr"]


def test_a_missing_store_and_unequal_fovs_are_named(write, images, tmp_path):
    with pytest.raises(MissingInputError, match=r"none\.zarr"):
        precompute_array(tmp_path / "none.zarr", tmp_path / "out", ["Phase"], ["mean"], ["std"])
    images["B/2/0"] = images["B/2/0"][:1]
    with pytest.raises(InputError, match="FOV B/2/0"):
        precompute_array(write(images), tmp_path / "out", ["Phase"], ["mean"], ["std"])


def test_pixels_that_cannot_be_stored_are_refused(write, images, tmp_path):
    images["A/1/1"][0, 0, 0, 0, 0] = np.nan
    # Nearly all of this channel is 0, so that its percentiles coincide.
    images["B/2/0"][:, 1] = 0
    images["B/2/0"][0, 1, 0, 0, 0] = 1
    path = write(images)
    with pytest.raises(InputError, match=r"FOV A/1/1, channel Phase\s+found\s+non-finite pixels"):
        precompute_array(path, tmp_path / "out", ["Phase"], ["mean"], ["std"])
    with pytest.raises(InputError, match=r"well B/2, channel GFP\s+found\s+values beyond float16"):
        precompute_array(path, tmp_path / "out", ["GFP"], [50], [(1, 99)])
    assert [entry.name for entry in tmp_path.iterdir()] == ["plate.zarr"]
