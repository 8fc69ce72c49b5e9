"""`dynaclr compute-features`, against definitions of other libraries on pixels that are cut out one by one."""

from __future__ import annotations

import math
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from scipy import stats
from skimage.feature import graycomatrix, graycoprops
from skimage.measure import regionprops_table

from dynaclr.commands.compute_features import compute_features
from dynaclr.commands.info import info
from dynaclr.config import load_data_module
from viscy_data.stores import PlateWriter
from viscy_data.testing.foreign import write_foreign_image
from viscy_utils.embeddings.prediction_parts import PredictionParts
from viscy_utils.evaluation import feature_store

pytest.importorskip("mahotas")

SIZE, Z = (8, 10), 2  # of the slices 1 and 2 the middle one
CHANNELS = ("Phase", "ch_1")  # the second is GFP here and RFP there
SHAPE_NAMES = ("area", "perimeter", "perimeter_area_ratio", "eccentricity")
MASKED_NAMES = ("intensity_localization", "masked_intensity", "masked_area")


@pytest.fixture
def experiments(encoded_experiments):
    return encoded_experiments()


@pytest.fixture
def config(experiments, tmp_path):
    settings = {
        "experiments_yaml": str(experiments.yaml),
        "z_range": [1, 3],
        "yx_patch_size": list(SIZE),
        "final_yx_patch_size": list(SIZE),
        "num_workers": 0,
        "patch_store": str(tmp_path / "not_there.zarr"),  # features are of the images
    }
    path = tmp_path / "fit.yml"
    data = {"class_path": "dynaclr.datamodule.MultiExperimentDataModule", "init_args": settings}
    path.write_text(yaml.safe_dump({"data": data}))
    return path


@pytest.fixture
def cells(config):
    data = load_data_module([config])
    data.patch_store = None
    data.setup("predict")
    return data.predict_dataset.cells


def label_planes(cells, experiment, fov, shape):
    """Return the label images of a FOV: rectangles on its cells, numbered as no track is; none in frame 2 of B/1/0."""
    planes = np.zeros((shape[0], 1, 1, *shape[3:]), np.uint32)
    own = cells[(cells["experiment"] == experiment) & (cells["fov_name"] == fov)]
    own = own[(own["t"] != 2) | (fov == "A/1/0")]
    for row in own.itertuples():
        y, x = math.floor(row.y + 0.5), math.floor(row.x + 0.5)
        planes[row.t, 0, 0, max(y - 2, 0) : y + 1 + row.track_id, max(x - 1, 0) : x + 2] = 2**24 + row.track_id
    return planes


@pytest.fixture
def masks(experiments, cells, tmp_path):
    """Write a store of label images for each experiment, and return the options that name them."""
    options = []
    for config in experiments.configs:
        store = tmp_path / f"{config.name}_segmented.zarr"
        with PlateWriter(store, ["cells"]) as plate:
            for fov in ("A/1/0", "B/1/0"):
                plate.write(fov, label_planes(cells, config.name, fov, experiments.encoding.shape))
        options += ["--masks", f"{config.name}={store}"]
    return options


def run(*arguments):
    return CliRunner().invoke(compute_features, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def cut(plane, y, x):
    """Cut out a patch about the nearest pixel, moved as far as needed to lie in the plane."""
    first = [
        min(max(math.floor(at + 0.5) - size // 2, 0), extent - size)
        for at, size, extent in zip((y, x), SIZE, plane.shape, strict=True)
    ]
    return plane[first[0] : first[0] + SIZE[0], first[1] : first[1] + SIZE[1]]


def expected_of(experiments, cells):
    """Compute what some features of each cell are, cell by cell."""
    rows = []
    for row in cells.itertuples():
        number = [config.name for config in experiments.configs].index(row.experiment)
        config = experiments.configs[number]
        fov = ("A/1/0", "B/1/0").index(row.fov_name)
        pixels, labels = (
            experiments.encoding.pixels(number, fov),
            label_planes(cells, row.experiment, row.fov_name, experiments.encoding.shape),
        )
        found = {}
        for name, channel in zip(CHANNELS, config.source_channel, strict=True):
            patch = cut(pixels[row.t, config.channel_names.index(channel), Z], row.y, row.x).astype(np.float64)
            levels = (255 * (patch - patch.min()) / np.ptp(patch)).astype(np.uint8)
            pairs = graycomatrix(levels, [1], [np.pi / 4], symmetric=True, normed=True)
            found[f"{name}_mean_intensity"] = patch.mean()
            found[f"{name}_iqr"] = stats.iqr(patch)
            found[f"{name}_contrast"] = graycoprops(pairs, "contrast")[0, 0]
        plane = labels[row.t, 0, 0]
        label = plane[math.floor(row.y + 0.5), math.floor(row.x + 0.5)]
        mask = cut(plane == label, row.y, row.x) if label else np.zeros(SIZE, bool)
        names = ("area", "perimeter", "eccentricity")
        shape = regionprops_table(mask.astype(int), properties=names)
        found |= {name: shape[name][0] if label else np.nan for name in names}
        before = cells[
            (cells[["experiment", "fov_name", "track_id"]] == [row.experiment, row.fov_name, row.track_id]).all(axis=1)
            & (cells["t"] == row.t - 1)
        ]
        found["instantaneous_velocity"] = 0.0
        if len(before):
            step = math.hypot(row.y - before["y"].iloc[0], row.x - before["x"].iloc[0])
            found["instantaneous_velocity"] = step / (config.interval_minutes / 60)
        rows.append(found)
    return pd.DataFrame(rows)


def test_every_cell_has_the_features_of_its_own_pixels_mask_and_track(config, masks, experiments, cells, tmp_path):
    output = tmp_path / "features.zarr"
    result = run("-c", config, "-o", output, *masks)
    assert result.exit_code == 0, result.output
    store = ad.read_zarr(output)
    found = store.to_df()
    assert found.shape == (len(cells), 2 * (9 + 5 + 3 + 3) + 4 + 11)
    expected = expected_of(experiments, cells)
    np.testing.assert_allclose(found[expected.columns], expected, rtol=2e-5, atol=1e-6)
    assert found["area"].isna().sum() == 4
    other = [name for name in found if not any(name.endswith(own) for own in (*SHAPE_NAMES, *MASKED_NAMES))]
    assert np.isfinite(found[other]).all(axis=None)
    for name in ("experiment", "fov_name", "track_id", "t", "condition"):
        assert store.obs[name].tolist() == cells[name].tolist()
    assert f"4 of {len(cells)} cells lack Phase_intensity_localization and 9 more features" in result.output
    assert "no object of the label image under the cell" in result.output

    shown = CliRunner().invoke(info, [str(output)], env={"COLUMNS": "200"})
    assert "CellFeatures" in shown.output, shown.output


def test_label_images_inside_of_the_fovs_are_as_good(config, masks, experiments, cells, tmp_path):
    for number, own in enumerate(experiments.configs):
        for fov in ("A/1/0", "B/1/0"):
            planes = label_planes(cells, own.name, fov, experiments.encoding.shape)
            deep = np.zeros((planes.shape[0], experiments.encoding.shape[2], *planes.shape[3:]), planes.dtype)
            deep[:, Z] = planes[:, 0, 0]
            shape = deep if number else planes[:, 0]  # of one slice, and of as many as the images
            write_foreign_image(f"{own.data_path}/{fov}/labels/cells", shape, "tzyx", None)
    outputs = [tmp_path / "beside.zarr", tmp_path / "inside.zarr"]
    for output, options in zip(outputs, (masks, ("--masks", "labels/cells")), strict=True):
        result = run("-c", config, "-o", output, *options)
        assert result.exit_code == 0, result.output
    one, other = (ad.read_zarr(output) for output in outputs)
    np.testing.assert_array_equal(one.X, other.X)


def test_what_was_stopped_goes_on_and_is_the_same(config, masks, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setattr(feature_store, "_PIECE_ROWS", 7)
    monkeypatch.setattr(feature_store, "_PART_ROWS", 10)
    monkeypatch.setattr("sys.argv", ["dynaclr"])
    whole, stopped = tmp_path / "whole.zarr", tmp_path / "stopped.zarr"
    assert run("-c", config, "-o", whole, "--workers", "2").exit_code == 0

    write, n_parts = PredictionParts.write, []

    def write_two(parts, rows, first):
        if len(n_parts) == 2:
            raise KeyboardInterrupt
        n_parts.append(len(rows))
        write(parts, rows, first)

    with monkeypatch.context() as patched:
        patched.setattr(PredictionParts, "write", write_two)
        assert run("-c", config, "-o", stopped).exit_code != 0
    assert not stopped.exists()
    computed, compute = [], feature_store.compute_piece
    monkeypatch.setattr(
        feature_store, "compute_piece", lambda piece: computed.append(len(piece.rows)) or compute(piece)
    )
    other = run("-c", config, "-o", stopped, *masks)
    assert other.exit_code == 2
    assert "repeat the interrupted prediction as it was" in other.output
    monkeypatch.setattr(feature_store, "_PIECE_ROWS", 5)  # of another version
    result = run("-c", config, "-o", stopped)
    assert result.exit_code == 0, result.output
    assert sum(computed) == len(ad.read_zarr(whole)) - sum(n_parts)
    files = [
        {path.relative_to(s): path.read_bytes() for path in s.rglob("*") if path.is_file()} for s in (whole, stopped)
    ]
    assert files[0] == files[1]
    assert not list(tmp_path.glob("*.parts"))

    again = run("-c", config, "-o", whole)
    assert again.exit_code == 2
    assert "add --overwrite" in again.output
    assert run("-c", config, "-o", whole, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda masks: masks[:2], "add --masks second=STORE"),
        (lambda masks: ["--masks", masks[1].partition("=")[2]], "give --masks EXPERIMENT=STORE once"),
        (lambda masks: [*masks, "--masks", masks[1]], "two places for 'first'"),
        (lambda masks: [*masks, "--mask-channel", "cell"], "did you mean 'cells'"),
        (lambda masks: ["--mask-channel", "cells"], "--masks beside it"),
        (lambda masks: ["--masks", "labels/none"], "labels/none"),
    ],
)
def test_label_images_that_do_not_fit_are_refused(config, masks, tmp_path, change, words):
    result = run("-c", config, "-o", tmp_path / "features.zarr", *change(masks))
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert not list(tmp_path.glob("features*"))


def test_every_fov_needs_a_label_image_of_its_size(config, masks, tmp_path):
    store = masks[1].partition("=")[2]
    shutil.rmtree(store)
    with PlateWriter(store, ["cells"]) as plate:
        plate.write("B/1/0", np.zeros((6, 1, 1, 20, 48), np.float32))
        plate.write("B/1/1", np.zeros((6, 1, 1, 40, 48), np.uint8))
    result = run("-c", config, "-o", tmp_path / "features.zarr", *masks)
    assert result.exit_code == 2
    assert "no FOV A/1/0" in result.output
    assert "a label image, of whole numbers" in result.output
