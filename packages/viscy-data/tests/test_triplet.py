from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from iohub.ngff import open_ome_zarr
from monai.transforms import MapTransform, Randomizable

from viscy_data.errors import InputError, InputErrors, MissingInputError
from viscy_data.stores import PlateWriter, read_plate, update_attributes
from viscy_data.testing import write_foreign_plate
from viscy_data.testing.training import Recorder, quiet_trainer
from viscy_data.tracks import read_tracks, write_tracks
from viscy_data.triplet import TripletDataModule, TripletDataset
from viscy_data.triplet.pairs import TrackPairs

pytest.importorskip("pyarrow")

T, SIZE = 4, 40
NAMES = ["A/1/0", "A/1/1", "A/2/0", "B/1/0", "B/1/1"]
CHANNELS = ["Phase", "GFP"]


def pixel(fov, t, c, y, x):
    return fov * 100_000 + t * 20_000 + c * 8_000 + y * SIZE + x


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    """Five FOVs of four frames with three cells each; a pixel tells where it is from."""
    folder = tmp_path_factory.mktemp("triplet")
    with PlateWriter(folder / "images.zarr", CHANNELS, chunks=(1, 1, 3, 20, 20)) as writer:
        for fov, name in enumerate(NAMES):
            t, c, _, y, x = np.indices((T, 2, 3, SIZE, SIZE), sparse=True)
            writer.write(name, np.broadcast_to(pixel(fov, t, c, y, x), (T, 2, 3, SIZE, SIZE)).astype(np.float32))
    for fov, name in enumerate(NAMES):
        write_tracks(table(), folder / "tracks" / name / "tracks.csv")
        statistics = {channel: {"fov_statistics": {"mean": float(fov), "std": 2.0}} for channel in CHANNELS}
        update_attributes(folder / "images.zarr", name, "normalization", statistics)
    return folder


def table() -> pd.DataFrame:
    """Tracks 0 and 1 in all frames, track 2 in the first two; track 3 is near to the border."""
    rows = [(0, t, 15.0 + t, 16.0) for t in range(T)] + [(1, t, 20.9, 17.0 + t) for t in range(T)]
    rows += [(2, t, 22.0, 22.0) for t in range(2)] + [(3, t, 2.0, 20.0) for t in range(T)]
    return pd.DataFrame(rows, columns=["track_id", "t", "y", "x"]).assign(id=range(14), parent_track_id=-1)


def dataset(plate, fovs=slice(None), **options) -> TripletDataset:
    positions = read_plate(plate / "images.zarr")[fovs]
    tables = [read_tracks(plate / "tracks" / fov.name / "tracks.csv") for fov in positions]
    settings = {"channel_names": CHANNELS, "initial_yx_patch_size": (8, 9), "z_range": slice(0, 2), **options}
    return TripletDataset(positions, tables, **settings)


def expected_patch(row: pd.Series, channels=(0, 1)) -> np.ndarray:
    y, x = (int(np.floor(row[axis] + 0.5)) for axis in "yx")
    y, x = min(max(y - 4, 0), SIZE - 8), min(max(x - 4, 0), SIZE - 9)  # moved as far as the edge demands
    y, x = np.arange(y, y + 8)[:, None], np.arange(x, x + 9)
    planes = [pixel(NAMES.index(row["fov_name"]), row["t"], c, y, x) for c in channels]
    return np.stack([[plane] * 2 for plane in planes]).astype(np.float32)


def where(patch: torch.Tensor) -> tuple[int, int]:
    """FOV and frame of a patch, from its pixels."""
    value = int(patch[0, 0, 0, 0])
    return value // 100_000, value % 100_000 // 20_000


def test_anchor_is_the_patch_about_the_nearest_pixel_in_its_own_fov_and_frame(plate):
    data = dataset(plate)
    batch = data[list(range(len(data)))]
    assert batch["anchor"].dtype == torch.float32
    assert batch["anchor"].shape == (len(data), 2, 2, 8, 9)
    for patch, (_, row) in zip(batch["anchor"], data.valid_anchors.iterrows(), strict=True):
        np.testing.assert_array_equal(patch, expected_patch(row))


def test_cells_at_the_border_are_kept_with_their_shift_or_left_out_if_so_wanted(plate):
    tracks = dataset(plate).tracks
    assert set(tracks.loc[tracks["track_id"] == 3, "border_shift"]) == {2}
    assert set(tracks.loc[tracks["track_id"] != 3, "border_shift"]) == {0}
    assert sorted(set(dataset(plate, max_border_shift=1).tracks["track_id"])) == [0, 1, 2]
    assert sorted(set(dataset(plate, max_border_shift=2).tracks["track_id"])) == [0, 1, 2, 3]


def test_channels_are_found_by_name(plate):
    data = dataset(plate, channel_names=["GFP"])
    assert data.channel_indices == [[1]] * 5
    np.testing.assert_array_equal(data[0]["anchor"][0], expected_patch(data.valid_anchors.iloc[0], channels=[1]))


def test_positive_is_the_same_cell_one_interval_later_and_negative_another_cell_of_that_frame(plate):
    data = dataset(plate, time_interval=2)
    assert set(data.valid_anchors["track_id"]) == {0, 1, 3}
    assert data.valid_anchors["t"].max() == 1
    indices = np.random.default_rng(0).permutation(len(data)).tolist()
    batch = data[indices]
    later = data.tracks.set_index(["global_track_id", "t"])
    for number, index in enumerate(indices):
        anchor = data.valid_anchors.iloc[index]
        key = (anchor["global_track_id"], anchor["t"] + 2)
        np.testing.assert_array_equal(batch["anchor"][number], expected_patch(anchor))
        positive = pd.Series({**later.loc[key].to_dict(), "t": key[1]})
        np.testing.assert_array_equal(batch["positive"][number], expected_patch(positive))
        assert where(batch["negative"][number])[1] == anchor["t"] + 2
        assert not torch.equal(batch["negative"][number], batch["positive"][number])


def test_any_interval_makes_the_positive_a_copy_of_the_anchor(plate):
    data = dataset(plate)
    batch = data[[0, 5, 7]]
    assert torch.equal(batch["anchor"], batch["positive"])
    assert batch["anchor"].data_ptr() != batch["positive"].data_ptr()
    assert batch["negative"].shape == batch["anchor"].shape
    assert "negative" not in dataset(plate, return_negative=False)[[0]]


def test_negatives_are_a_function_of_seed_and_indices(plate):
    indices = list(range(20))
    np.random.seed(0)  # noqa: NPY002 the global generator must not matter
    first, again = (dataset(plate, seed=3)[indices]["negative"] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, dataset(plate, seed=4)[indices]["negative"])
    assert not torch.equal(first[:10], dataset(plate, seed=3)[indices[:10]]["negative"])


def test_prediction_gives_every_observation_once_with_its_record(plate):
    data = dataset(plate, fit=False, time_interval=2)
    assert len(data) == len(data.tracks) == 5 * 14
    batch = data[list(range(len(data)))]
    assert set(batch) == {"anchor", "anchor_norm_meta", "index"}
    assert list(batch["index"][0]) == ["fov_name", "track_id", "t", "id", "parent_track_id", "y", "x", "border_shift"]
    found = [(record["fov_name"], record["track_id"], record["t"]) for record in batch["index"]]
    assert found == list(data.tracks[["fov_name", "track_id", "t"]].itertuples(index=False, name=None))


def test_prediction_of_chosen_cells_pairs_fovs_with_tracks(plate):
    options = {"fit": False, "predict_cells": True, "include_fov_names": ["/A/1/0", "B/1/1"]}
    data = dataset(plate, include_track_ids=[2, 0], **options)
    assert set(zip(data.tracks["fov_name"], data.tracks["track_id"], strict=True)) == {("A/1/0", 2), ("B/1/1", 0)}
    with pytest.raises(ValueError, match="equal length"):
        dataset(plate, include_track_ids=[2], **options)
    with pytest.raises(ValueError, match=r"no such tracks.*A/1/0_77"):
        dataset(plate, include_track_ids=[77, 0], **options)


def test_statistics_are_those_of_the_fov_of_each_patch(plate):
    data = dataset(plate, time_interval=1)
    batch = data[list(range(0, len(data), 3))]
    for role in ("anchor", "positive", "negative"):
        means = [sample["GFP"]["fov_statistics"]["mean"].item() for sample in batch[f"{role}_norm_meta"]]
        assert means == [where(patch)[0] for patch in batch[role]]


def test_plates_with_the_same_fov_names_keep_their_pixels_and_tracks(plate, tmp_path):
    with PlateWriter(tmp_path / "other.zarr", CHANNELS) as writer:
        writer.write("A/1/0", np.full((T, 2, 3, SIZE, SIZE), -1, np.float32))
    positions = [read_plate(plate / "images.zarr")[0], *read_plate(tmp_path / "other.zarr")]
    data = TripletDataset(positions, [table(), table()], CHANNELS, (8, 8), (0, 1), time_interval=1)
    assert data.tracks["global_track_id"].nunique() == 8
    batch = data[list(range(len(data)))]
    from_other = (data.valid_anchors["fov_index"] == 1).to_numpy()
    assert ((batch["anchor"] == -1).flatten(1).all(1).numpy() == from_other).all()
    assert ((batch["positive"] == -1).flatten(1).all(1).numpy() == from_other).all()


def test_dataset_takes_positions_of_iohub(plate):
    with open_ome_zarr(plate / "images.zarr", mode="r") as opened:
        positions = [position for _, position in opened.positions()]
        data = TripletDataset(positions, [table()] * 5, CHANNELS, (8, 9), slice(0, 2))
    assert data.positions == read_plate(plate / "images.zarr")
    assert torch.equal(data[[3, 9]]["anchor"], dataset(plate)[[3, 9]]["anchor"])


def test_pickled_dataset_gives_the_same_batch(plate):
    data = dataset(plate, time_interval=1)
    before, after = data[[4, 1]], pickle.loads(pickle.dumps(data))[[4, 1]]
    assert all(torch.equal(before[role], after[role]) for role in ("anchor", "positive", "negative"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"z_range": slice(0, 5)}, r"images\.zarr, field z_range\n  found    \(0, 5\), but FOV A/1/0 has 3 slices"),
        ({"z_range": (2, 2)}, "field z_range"),
        ({"initial_yx_patch_size": (8, 41)}, "field initial_yx_patch_size"),
        ({"channel_names": ["GFP", "DAPI"]}, "field source_channel\n  found    DAPI\n  expected one of Phase, GFP"),
        ({"time_interval": -1}, r"time_interval\n  found    -1"),
        ({"time_interval": 7}, "7 frames apart"),
    ],
)
def test_impossible_requests_are_refused(plate, options, message):
    with pytest.raises(ValueError, match=message):
        dataset(plate, slice(0, 1), **options)


def test_frames_beyond_the_image_are_left_out_with_a_warning(plate):
    late = pd.concat([table(), table().tail(2).assign(t=[T, T + 1], y=20.0)], ignore_index=True)
    with pytest.warns(UserWarning, match="2 of 16 tracked cells are beyond the last frame.*A/1/0"):
        data = TripletDataset(read_plate(plate / "images.zarr")[:1], [late], CHANNELS, (8, 8), (0, 1))
    assert data.tracks["t"].max() == T - 1


def test_single_track_has_no_negatives(plate):
    one = [table().query("track_id == 0")]
    fovs = read_plate(plate / "images.zarr")[:1]
    with pytest.raises(ValueError, match="there is one track only"):
        TripletDataset(fovs, one, CHANNELS, (8, 8), (0, 1))
    assert len(TripletDataset(fovs, one, CHANNELS, (8, 8), (0, 1), return_negative=False)) == T


def test_missing_column_is_named(plate):
    with pytest.raises(KeyError, match=r"A/1/0 lack the columns \['x'\]"):
        TripletDataset(read_plate(plate / "images.zarr")[:1], [table().drop(columns="x")], CHANNELS, (8, 8), (0, 1))


OBSERVATIONS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=25)


@hypothesis_settings(deadline=None, max_examples=60)
@given(OBSERVATIONS, st.sampled_from(["any", 0, 1, 2]), st.integers(0, 99))
def test_pairs_agree_with_a_search_through_all_observations(observations, interval, seed):
    track, t = np.array(observations).T
    pairs = TrackPairs(track, t, interval)
    rows = np.arange(len(track))
    later = [None if interval == "any" else t[row] + interval for row in rows]
    positives = pairs.positives(rows)
    candidates = []
    for row, frame in zip(rows, later, strict=True):
        same = [other for other in rows if track[other] == track[row] and t[other] == frame]
        candidates.append([o for o in rows if track[o] != track[row] and frame in (None, t[o])])
        if frame is None:
            assert positives[row] == row
        else:
            assert (positives[row] in same) if same else positives[row] == -1
    assert pairs.count_negatives(rows).tolist() == [len(found) for found in candidates]
    drawable = np.array([row for row in rows if candidates[row]], int)
    drawn = pairs.draw_negatives(drawable, np.random.default_rng(seed))
    assert len(drawn) == len(drawable)
    assert all(negative in candidates[row] for row, negative in zip(drawable, drawn, strict=True))


def test_negatives_are_drawn_uniformly():
    pairs = TrackPairs(np.array([0, 1, 2, 2, 1, 0]), np.zeros(6, int), "any")
    drawn = pairs.draw_negatives(np.full(8000, 1), np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=6)
    assert counts[[1, 4]].tolist() == [0, 0]
    assert abs(counts[[0, 2, 3, 5]] / 2000 - 1).max() < 0.1


def test_row_without_a_negative_is_refused():
    with pytest.raises(ValueError, match="row 1 has no observation of another track"):
        TrackPairs(np.array([0, 0]), np.array([0, 1]), "any").draw_negatives(np.array([1]), np.random.default_rng(0))


class Normalize(MapTransform):
    """Subtract the mean of the FOV."""

    level = "fov_statistics"

    def __call__(self, data):
        means = {key: data["norm_meta"][key][self.level]["mean"] for key in self.keys}
        return {**data, **{key: data[key] - mean.view(-1, 1, 1, 1, 1) for key, mean in means.items()}}


class Shift(Randomizable, MapTransform):
    """Add one random number to the whole batch."""

    def __call__(self, data):
        offset = self.R.uniform(1e6, 2e6)
        return {**data, **{key: data[key] + offset for key in self.keys}}


def module(plate, **options) -> TripletDataModule:
    settings = {
        "source_channel": CHANNELS,
        "z_range": (0, 2),
        "initial_yx_patch_size": (8, 9),
        "final_yx_patch_size": (6, 5),
        "batch_size": 4,
        "num_workers": 0,
        **options,
    }
    return TripletDataModule(plate / "images.zarr", plate / "tracks", **settings)


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")  # tiny data, read in this process
@pytest.mark.filterwarnings("ignore:.*log_every_n_steps:UserWarning")  # an epoch of few steps
def test_trainer_fits_validates_and_predicts(plate):
    data = module(plate, time_interval=1, normalizations=[Normalize(CHANNELS)], augmentations=[Shift(CHANNELS)])
    model = Recorder(keep=dict)
    quiet_trainer(max_epochs=1).fit(model, datamodule=data)
    assert len(model.seen["train"]) == len(data.train_dataset) // 4
    batch = model.seen["train"][0]
    assert set(batch) == {"anchor", "positive", "negative"}
    assert all(batch[role].shape == (4, 2, 2, 6, 5) for role in batch)
    assert all((batch[role] > 5e5).all() for role in batch)
    assert sum(len(batch["anchor"]) for batch in model.seen["val"]) == len(data.val_dataset)
    quiet_trainer().predict(model, datamodule=data, return_predictions=False)
    index = [record for batch in model.seen["predict"] for record in batch["index"]]
    assert len(index) == len({(r["fov_name"], r["track_id"], r["t"]) for r in index}) == 70
    first = model.seen["predict"][0]["anchor"][0]
    fov = NAMES.index(index[0]["fov_name"])
    expected = expected_patch(pd.Series(index[0]))[:, :, 1:7, 2:7] - fov
    np.testing.assert_allclose(first, expected)


def test_augmentation_is_a_function_of_the_batch(plate, monkeypatch):
    data = module(plate, time_interval=1, augmentations=[Shift(CHANNELS)])
    data.setup("fit")
    monkeypatch.setattr(
        TripletDataModule, "trainer", property(lambda self: type("Training", (), STAGES)), raising=False
    )
    first, again = (data.on_after_batch_transfer(data.train_dataset[[0, 1]], 0) for _ in range(2))
    other = data.on_after_batch_transfer(data.train_dataset[[1, 2]], 0)
    assert torch.equal(first["anchor"], again["anchor"])
    assert not torch.equal(first["anchor"][1], other["anchor"][0])


STAGES = {"training": True, "validating": False, "sanity_checking": False, "predicting": False}


def test_without_a_trainer_nothing_is_augmented(plate):
    data = module(plate, augmentations=[Shift(CHANNELS)])
    data.setup("fit")
    batch = data.on_after_batch_transfer(data.train_dataset[[0]], 0)
    assert (batch["positive"] < 5e5).all()


def test_split_is_a_function_of_seed_and_fov_names(plate):
    def split(data):
        val = {fov.name for fov in data.val_dataset.positions}
        train = {fov.name for fov in data.train_dataset.positions} if data.train_dataset else set(NAMES) - val
        return train, val

    found = []
    for stage, seed in [("fit", 0), ("validate", 0), ("fit", 0), ("fit", 1), ("fit", 2)]:
        data = module(plate, split_ratio=0.6, seed=seed)
        torch.manual_seed(len(found))
        data.setup(stage)
        found.append(split(data))
    assert found[0] == found[1] == found[2]
    assert len({tuple(sorted(train)) for train, _ in found}) > 1
    for train, val in found:
        assert train | val == set(NAMES)
        assert not train & val
        assert len(train) == 3


def test_a_resumed_run_keeps_the_split_of_its_checkpoint(plate):
    def sides(data):
        return [{fov.name for fov in side.positions} for side in (data.train_dataset, data.val_dataset)]

    first, same, resumed = (module(plate, split_ratio=0.6, seed=seed) for seed in (0, 0, 1))
    for data in (first, same, resumed):
        data.setup("fit")
    assert sides(resumed) != sides(first)
    state = json.loads(json.dumps(first.state_dict()))
    same.load_state_dict(state)
    with pytest.warns(UserWarning, match="whose split is kept"):
        resumed.load_state_dict(state)
    assert sides(resumed) == sides(same) == sides(first)
    assert resumed.data_record()["split"] == first.data_record()["split"] == state["split"]


def test_the_split_of_a_checkpoint_holds_for_a_later_set_up_and_not_for_another_plate(plate):
    first, later, other = (module(plate, split_ratio=0.6, seed=seed) for seed in (0, 1, 1))
    first.setup("fit")
    state = first.state_dict()
    later.load_state_dict(state)
    later.setup("validate")
    assert later.split == first.split
    other.setup("fit")
    own = other.split
    other.load_state_dict(state | {"split": state["split"] | {"store": "/elsewhere.zarr"}})
    assert other.split == own


def test_excluded_fovs_and_other_wells_do_not_take_part(plate):
    data = module(plate, fit_include_wells=["A/1", "/B/1"], fit_exclude_fovs=["A/1/1"])
    data.setup("fit")
    used = {fov.name for side in (data.train_dataset, data.val_dataset) for fov in side.positions}
    assert used == {"A/1/0", "B/1/0", "B/1/1"}


def test_misspelt_wells_and_fovs_are_refused(plate):
    with pytest.raises(
        InputErrors, match=r"(?s)fit_include_wells\n  found    'Z/9'.*fit_exclude_fovs\n  found    'A/1/7'"
    ):
        module(plate, fit_include_wells=["A/1", "Z/9"], fit_exclude_fovs=["A/1/7"]).setup("fit")
    with pytest.raises(InputError, match="fit_include_wells"):
        module(plate, fit_include_wells="A/10").setup("fit")


def test_single_fov_cannot_be_split(plate):
    with pytest.raises(InputError, match=r"(?s)found    1 FOVs to fit.*at least 2"):
        module(plate, fit_include_wells=["A/2"]).setup("fit")


def test_resumed_prediction_begins_after_what_was_written(plate):
    data = module(plate)
    data.setup("predict")
    data.skip_predicted(65)
    batches = list(data.predict_dataloader())
    assert [len(batch["anchor"]) for batch in batches] == [4, 1]


def test_missing_tables_are_named_together(plate, tmp_path):
    data = TripletDataModule(plate / "images.zarr", tmp_path, CHANNELS, (0, 1), (8, 8), (4, 4))
    with pytest.raises(InputErrors, match=r"(?s)FOV A/1/0.*FOV B/1/1") as caught:
        data.setup("predict")
    assert all(isinstance(err, MissingInputError) for err in caught.value.errors)


def test_missing_statistics_are_found_at_set_up(plate):
    transform = Normalize(["GFP"])
    transform.level = "timepoint_statistics"
    with pytest.raises(InputError, match=r"(?s)no timepoint_statistics of channel 'GFP' in 5 FOVs.*viscy preprocess"):
        module(plate, normalizations=[transform]).setup("predict")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"caching": True}, "cache_pool_bytes"),
        ({"final_yx_patch_size": (9, 9)}, "larger than what is read"),
        ({"z_window_size": 3}, "larger than what is read"),
        ({"split_ratio": 1.5}, r"split_ratio\n  found    1\.5"),
        ({"batch_size": 0}, r"batch_size\n  found    0"),
    ],
)
def test_impossible_settings_are_refused(plate, options, message):
    with pytest.raises(ValueError, match=message):
        module(plate, **options)


def test_other_stages_are_refused(plate):
    with pytest.raises(NotImplementedError, match="'test'"):
        module(plate).setup("test")


def test_an_example_input_passes_the_batch_hooks_untouched(plate):
    example = torch.rand(1, 2, 1, 16, 16)
    data = module(plate)
    assert data.on_after_batch_transfer(data.on_before_batch_transfer(example, 0), 0) is example


def test_cells_outside_their_image_are_said_with_share_example_and_a_guess(tmp_path):
    with PlateWriter(tmp_path / "p.zarr", ["a"]) as writer:
        writer.write("A/1/0", np.zeros((3, 1, 1, 40, 90), np.uint8))
    [fov] = read_plate(tmp_path / "p.zarr")
    rows = [(track, t, y, x) for track, (y, x) in enumerate([(80, 10), (70, 20), (60, 30), (30, 30)]) for t in range(3)]
    table = pd.DataFrame(rows, columns=["track_id", "t", "y", "x"])
    with pytest.warns(UserWarning, match="outside|swapped") as caught:
        TripletDataset([fov], [table], ["a"], (8, 8), (0, 1), fit=False)
    said = [str(warning.message) for warning in caught]
    assert said[0].startswith("9 of 12 cells (75 %) lie outside their image and are left out, for example track 0 in ")
    assert said[1] == "x and y seem swapped (A/1/0): exchanged, the cells lie inside"


def test_a_channel_name_that_two_channels_have_is_refused(tmp_path):
    path = write_foreign_plate(
        tmp_path / "p.zarr", {"A/1/0": np.zeros((3, 2, 1, 40, 90), np.uint8)}, channel_names=["a", "a"]
    )
    table = pd.DataFrame({"track_id": [0, 0], "t": [0, 1], "y": [20, 20], "x": [20, 20]})
    with pytest.raises(InputError, match="field source_channel\n  found    2 channels of the name 'a'"):
        TripletDataset(read_plate(path), [table], ["a"], (8, 8), (0, 1))


def test_columns_called_like_those_of_the_dataset_are_kept_beside_them(tmp_path):
    path = write_foreign_plate(
        tmp_path / "p.zarr", {"A/1/0": np.zeros((3, 1, 1, 40, 90), np.uint8)}, channel_names=["a"]
    )
    columns = {"track_id": [0, 0], "t": [0, 1], "y": [20, 20], "x": [20, 20], "fov_name": "/A/1/0"}
    table = pd.DataFrame(columns | {"border_shift": [7, 8]})
    with pytest.warns(UserWarning, match="'border_shift' .now 'tracks_border_shift'.$"):
        dataset = TripletDataset(read_plate(path), [table], ["a"], (8, 8), (0, 1), fit=False)
    assert dataset.tracks["tracks_border_shift"].tolist() == [7, 8]
    assert dataset.tracks["border_shift"].tolist() == [0, 0]
    assert dataset.tracks["fov_name"].tolist() == ["A/1/0", "A/1/0"]
