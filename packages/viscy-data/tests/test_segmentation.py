from __future__ import annotations

import numpy as np
import pytest
import torch
from iohub.ngff import open_ome_zarr

from viscy_data import InputError, SegmentationDataModule, SegmentationDataset
from viscy_data.stores import PlateWriter, read_plate
from viscy_data.testing.training import Recorder, quiet_trainer

pytest.importorskip("tensorstore")

FOVS = {"A/1/0": (2, 8, 10), "A/1/1": (3, 8, 10)}
"""Frames, height and width."""


def write(path, fovs=FOVS, depth=3, offset=0, dtype=np.uint16, reverse=False):
    with PlateWriter(path, ["raw", "labels"]) as writer:
        for number, name in list(enumerate(fovs))[:: -1 if reverse else 1]:
            t, *size = fovs[name]
            t, c, z, y, x = np.indices((t, 2, depth, *size), sparse=True)
            writer.write(name, (offset + number * 10_000 + t * 3_000 + c * 1_000 + z * 100 + y * 10 + x).astype(dtype))
    return path


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    """Predictions in two slices whose FOVs are in another order, and targets in three."""
    folder = tmp_path_factory.mktemp("segmentation")
    return write(folder / "pred.zarr", depth=2, offset=1), write(folder / "target.zarr")


def dataset(plates, **options) -> SegmentationDataset:
    settings = {"pred_channel": "labels", "target_channel": "labels", "pred_z_slice": 0, "target_z_slice": 2}
    return SegmentationDataset(*(read_plate(path) for path in plates), **settings | options)


def test_frames_are_paired_by_the_name_of_their_fov(plates, tmp_path):
    reverse = write(tmp_path / "reverse.zarr", depth=2, offset=1, reverse=True)
    for pred in (plates[0], reverse):
        data = dataset((pred, plates[1]))
        frames = [data[i] for i in range(len(data))]
        assert [(f["position_idx"], f["time_idx"]) for f in frames] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
        y, x = np.ogrid[:8, :10]
        for frame in frames:
            assert frame["pred"].dtype == frame["target"].dtype == torch.int16
            own = frame["position_idx"] * 10_000 + frame["time_idx"] * 3_000 + 1_000 + y * 10 + x
            np.testing.assert_array_equal(frame["target"], own + 200)
            np.testing.assert_array_equal(frame["pred"], own + 1)


def test_a_plate_of_iohub_and_ranges_of_slices(plates):
    with open_ome_zarr(plates[0]) as pred, open_ome_zarr(plates[1]) as target:
        data = SegmentationDataset(pred, target, "labels", "labels", slice(0, 2), slice(-2, None))
    frame = data[0]
    assert frame["pred"].shape == frame["target"].shape == (2, 8, 10)
    assert (frame["target"] - frame["pred"]).unique().tolist() == [99]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pred_channel": "label"}, "did you mean 'labels'|one of"),
        ({"pred_z_slice": 2}, r"pred\.zarr.*\n.*2 slices, not slice 2"),
        ({"pred_z_slice": slice(0, 2)}, "2 frames of 2 x 8 x 10 pixels\n.*as the target, 2 frames of 1 x 8 x 10"),
        ({"target_z_slice": slice(2, 2)}, "expected a range of slices"),
    ],
)
def test_what_the_plates_do_not_have_is_refused(plates, options, message):
    with pytest.raises(InputError, match=message):
        dataset(plates, **options)


@pytest.mark.parametrize(
    ("fovs", "message"),
    [
        ({"A/1/0": (2, 8, 10)}, "A/1/1\n.*no prediction of this FOV"),
        ({"A/1/0": (2, 8, 10), "A/1/1": (2, 8, 10)}, "2 frames of 1 x 8 x 10 pixels\n.*3 frames"),
        ({"A/1/0": (2, 8, 11), "A/1/1": (3, 9, 10)}, "2 problems"),
    ],
)
def test_plates_that_do_not_correspond_are_refused(plates, tmp_path, fovs, message):
    with pytest.raises(ValueError, match=message):
        dataset((write(tmp_path / "pred.zarr", fovs), plates[1]))


def test_predictions_without_a_target_are_named(plates, tmp_path):
    more = write(tmp_path / "pred.zarr", FOVS | {"B/1/0": (1, 8, 10)})
    with pytest.warns(UserWarning, match=r"1 predicted FOVs have no target and are left out: \['B/1/0'\]"):
        assert len(dataset((more, plates[1]))) == 5


@pytest.mark.filterwarnings("ignore:.*pixels of a patch are NaN or infinite")
@pytest.mark.parametrize(
    ("offset", "dtype", "value"),
    [(40_000, np.uint32, "41000"), (0.5, np.float32, "1000.5"), (np.nan, np.float32, "nan")],
)
def test_what_is_no_label_is_not_wrapped_or_cut_off(plates, tmp_path, offset, dtype, value):
    data = dataset((write(tmp_path / "pred.zarr", offset=offset, dtype=dtype), plates[1]))
    with pytest.raises(InputError, match=f"A/1/0, frame 0, field pred_channel\n.*the value {value}"):
        data[0]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_frames_reach_the_test_step_in_order(plates, num_workers):
    data = SegmentationDataModule(*plates, "labels", "labels", 0, 2, batch_size=2, num_workers=num_workers)
    model = Recorder(keep=dict)
    quiet_trainer().test(model, data, verbose=False)
    assert [batch["pred"].shape for batch in model.seen["test"]] == [(2, 8, 10), (2, 8, 10), (1, 8, 10)]
    assert [t for batch in model.seen["test"] for t in batch["time_idx"].tolist()] == [0, 1, 0, 1, 2]
    assert torch.equal(model.seen["test"][1]["target"][1], dataset(plates)[3]["target"])
    with pytest.raises(NotImplementedError, match="no stage 'fit', only test"):
        data.setup("fit")


def test_fovs_of_different_size_need_batches_of_one(tmp_path):
    paths = [
        write(tmp_path / f"{name}.zarr", {"A/1/0": (1, 8, 10), "A/1/1": (1, 6, 10)}) for name in ("pred", "target")
    ]
    data = dataset(paths)
    assert data[[1]]["pred"].shape == (1, 6, 10)
    with pytest.raises(ValueError, match="batch_size 1"):
        data[[0, 1]]
    with pytest.raises(InputError, match="field pred_z_slice"):
        SegmentationDataModule(*paths, "labels", "labels", "0", 0, batch_size=1, num_workers=0)
