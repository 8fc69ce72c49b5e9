from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import MapTransform, Randomizable

from viscy_data import CellDivisionTripletDataModule, CellDivisionTripletDataset, InputError
from viscy_data.distributed import EpochPositions

LENGTHS = {"a": 6, "b": 3, "c": 4, "d": 2, "e": 4}
SIZE = (10, 12)


def pixel(track, t, c, y, x):
    return track * 20_000 + t * 2_000 + c * 500 + y * SIZE[1] + x


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five tracks of different length in two channels; a pixel tells where it is from."""
    folder = tmp_path_factory.mktemp("tracks")
    for track, (name, length) in enumerate(LENGTHS.items()):
        np.save(folder / f"{name}.npy", pixel(track, *np.indices((length, 2, *SIZE), sparse=True)).astype(np.uint32))
    return folder


def dataset(folder, names="abcde", channels=("bf",), **options) -> CellDivisionTripletDataset:
    return CellDivisionTripletDataset([folder / f"{name}.npy" for name in names], channels, **options)


def where(patch: torch.Tensor) -> tuple[int, int]:
    """Track and frame of a patch."""
    value = int(patch.flatten()[0])
    return value // 20_000, value % 20_000 // 2_000


class Shift(MapTransform, Randomizable):
    def __call__(self, data):
        return {**data, **{key: data[key] + 1e6 * self.R.randint(1, 1000) for key in self.keys}}


def test_a_sample_is_an_anchor_the_same_frame_and_another_track(folder):
    data = dataset(folder)
    assert len(data) == sum(LENGTHS.values())
    anchors = [(track, t) for track, length in enumerate(LENGTHS.values()) for t in range(length)]
    for position, (track, t) in enumerate(anchors):
        sample = data[position]
        y, x = np.ogrid[: SIZE[0], : SIZE[1]]
        np.testing.assert_array_equal(sample["anchor"][0, 0], pixel(track, t, 0, y, x).astype(np.float32))
        assert torch.equal(sample["anchor"], sample["positive"])
        assert where(sample["negative"])[0] != track


@settings(deadline=None, max_examples=20)
@given(interval=st.integers(0, 4), epoch=st.integers(0, 3))
def test_pairs_are_an_interval_apart(folder, interval, epoch):
    data = dataset(folder, time_interval=interval)
    assert len(data) == sum(max(0, length - interval) for length in LENGTHS.values())
    batch = data[EpochPositions(range(len(data)), epoch)]
    lengths = list(LENGTHS.values())
    for anchor, positive, negative in zip(*(batch[role] for role in ("anchor", "positive", "negative")), strict=True):
        track, t = where(anchor)
        assert where(positive) == (track, t + interval)
        other, frame = where(negative)
        assert other != track
        others_have_it = any(length > t + interval for n, length in enumerate(lengths) if n != track)
        assert frame == t + interval or not others_have_it


def test_negatives_reach_every_other_track_and_differ_between_epochs(folder):
    data = dataset(folder)
    drawn = [where(data[EpochPositions([0], epoch)]["negative"][0]) for epoch in range(200)]
    others = [(track, t) for track, length in enumerate(LENGTHS.values()) if track for t in range(length)]
    assert set(drawn) == set(others)


def test_samples_do_not_depend_on_their_batch_or_process(folder):
    options = {"positive_transform": Shift(["bf"]), "negative_transform": Shift(["bf"])}
    data = dataset(folder, **options)
    batch = data[[4, 7, 2]]
    for place, position in enumerate([4, 7, 2]):
        for role, patch in data[position].items():
            assert torch.equal(batch[role][place], patch)
    copied = pickle.loads(pickle.dumps(data))
    assert torch.equal(copied[[4, 7, 2]]["negative"], batch["negative"])
    assert len(pickle.dumps(data)) < 20_000  # and not the pixels
    assert not torch.equal(dataset(folder, **options, seed=1)[[4, 7, 2]]["negative"], batch["negative"])
    assert not torch.equal(batch["positive"], batch["anchor"])


@pytest.mark.parametrize("output_2d", [False, True])
def test_several_channels_are_transformed_by_name(folder, output_2d):
    data = dataset(folder, channels=["h2b", "0"], anchor_transform=Shift(["0"]), output_2d=output_2d)
    plain = dataset(folder, channels=["nuclei", "brightfield"], output_2d=output_2d)
    found, expected = data[3]["anchor"], plain[3]["anchor"]
    assert found.shape == ((2, *SIZE) if output_2d else (2, 1, *SIZE))
    assert torch.equal(found[0], expected[0])
    assert (found[1] - expected[1]).unique().numel() == 1
    assert (expected[0] - expected[1] == 500).all()


def test_prediction_takes_every_frame_once(folder):
    batch = dataset(folder, fit=False, channels=["h2b"])[list(range(19))]
    assert batch.keys() == {"anchor", "index"}
    names = [name for name, length in LENGTHS.items() for _ in range(length)]
    assert batch["index"]["fov_name"] == names
    assert [where(patch - 500) for patch in batch["anchor"]] == [
        ("abcde".index(name), int(t)) for name, t in zip(names, batch["index"]["id"], strict=True)
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ["h2bb"]}, "'h2bb'\n.*did you mean 'h2b'"),
        ({"channels": ["2"]}, "5 problems"),
        ({"time_interval": 6}, "a track with two frames 6 apart"),
        ({"names": "a"}, "a single track to"),
        ({"names": "ax"}, "no file"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(folder, options, message):
    with pytest.raises(InputError, match=message):
        dataset(folder, **options)


@pytest.mark.parametrize("array", [np.zeros((3, 8, 8)), np.zeros((0, 1, 8, 8)), np.array([{}], dtype=object), None])
def test_files_that_are_no_tracks_are_refused_together(tmp_path, array):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", array)
        if array is None:
            (tmp_path / f"{name}.npy").write_text("no numbers")
    with pytest.raises(InputError, match=r"(?s)2 problems.*a\.npy.*b\.npy"):
        dataset(tmp_path, "ab")


# The data module


def module(folder, **options) -> CellDivisionTripletDataModule:
    settings = {
        "source_channel": "bf",
        "final_yx_patch_size": (4, 6),
        "batch_size": 4,
        "num_workers": 0,
        "split_ratio": 0.6,
    }
    return CellDivisionTripletDataModule(folder, **settings | options)


def files(data) -> set[str]:
    return {fov.name for fov in data.tracks.fovs}


def test_the_split_is_a_function_of_seed_and_names(folder):
    sides = set()
    for seed in range(8):
        first, second = module(folder, seed=seed), module(folder, seed=seed)
        first.setup("fit")
        second.setup("validate")
        assert len(files(first.train_dataset)) == 3
        assert files(first.train_dataset) | files(first.val_dataset) == set(LENGTHS)
        assert files(second.val_dataset) == files(first.val_dataset)
        sides |= files(first.val_dataset)
    assert len(sides) > 1


def test_batches_hold_the_central_part(folder):
    data = module(folder)
    data.setup("predict")
    whole = dataset(folder, fit=False)[list(range(4))]["anchor"]
    assert torch.equal(next(iter(data.predict_dataloader()))["anchor"], whole[..., 3:7, 3:9])


@pytest.mark.parametrize(("interval", "augments_anchor"), [("any", False), (0, False), (1, True)])
@pytest.mark.parametrize("augment_validation", [False, True])
def test_an_anchor_with_a_positive_of_its_own_frame_is_not_augmented(
    folder, interval, augments_anchor, augment_validation
):
    options = {"augmentations": [Shift(["bf"])], "augment_validation": augment_validation}
    data = module(folder, time_interval=interval, **options)
    data.setup("fit")
    augmented = {
        side: {role: bool((patch > 1e5).all()) for role, patch in found[[0, 1]].items()}
        for side, found in (("train", data.train_dataset), ("val", data.val_dataset))
    }
    assert augmented["train"] == {"anchor": augments_anchor, "positive": True, "negative": True}
    assert all(value is (augment_validation and wanted) for value, wanted in zip(
        augmented["val"].values(), augmented["train"].values(), strict=True
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_interval": -1}, "field time_interval"),
        ({"split_ratio": 1.0, "final_yx_patch_size": 4}, "2 problems"),
        ({"normalizations": [Shift(["BF"])]}, "keys of Shift"),
        ({"source_channel": []}, "field source_channel"),
    ],
)
def test_options_out_of_range_are_refused(folder, options, message):
    with pytest.raises(InputError, match=message):
        module(folder, **options)


def test_a_folder_without_tracks_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no \.npy file"):
        module(tmp_path).setup("fit")
    with pytest.raises(FileNotFoundError, match="no folder"):
        module(tmp_path / "absent").setup("fit")
    with pytest.raises(NotImplementedError, match="no stage 'test'"):
        module(tmp_path).setup("test")


def test_a_patch_larger_than_its_track_is_refused(folder):
    data = module(folder, final_yx_patch_size=(11, 6))
    data.setup("fit")
    with pytest.raises(ValueError, match="does not fit"):
        data.train_dataset[0]
