"""Every pixel of a batch is traced back to its experiment, FOV, frame, channel, slice, row and column."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynaclr.dataset import MultiExperimentTripletDataset
from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from dynaclr.negatives import NegativeLookup
from viscy_data.distributed import EpochPositions
from viscy_data.stores import PlateWriter

SIZE = (8, 12)
Z = slice(1, 3)
STORE_CHANNELS = {"first": [0, 1], "second": [2, 0]}  # Phase and the reporter, by their place in the store
HOURS = (0.5, 2.0)


def build(experiments, *, tau=HOURS, size=SIZE, z_range=Z, training_channels=None, scope="descendants", **options):
    registry = ExperimentRegistry.from_yaml(experiments.yaml, training_channels)
    index = MultiExperimentIndex(registry, z_range, size, tau, positive_scope=scope)
    return MultiExperimentTripletDataset(index, **{"tau_range_hours": tau, **options})


def centre_start(centre, size, extent):
    """First pixel of a patch about the nearest pixel, pushed into the image."""
    return int(np.clip(np.floor(centre + 0.5) - size // 2, 0, extent - size))


def assert_pixels_belong_to(experiments, patches, rows, size=SIZE):
    """Compare patches (B, C, Z, Y, X) with the observations, one by one."""
    origin = experiments.encoding.decode(patches.numpy())
    names = [config.name for config in experiments.configs]
    for number, row in enumerate(rows.itertuples()):
        expected = {
            "plate": names.index(row.experiment),
            "fov": ["A/1/0", "B/1/0"].index(row.fov_name),
            "t": row.t,
            "c": np.array(STORE_CHANNELS[row.experiment])[:, None, None, None],
            "z": np.arange(Z.start, Z.stop)[:, None, None],
            "y": (centre_start(row.y, size[0], 40) + np.arange(size[0]))[:, None],
            "x": centre_start(row.x, size[1], 48) + np.arange(size[1]),
        }
        for axis, values in expected.items():
            found = getattr(origin, axis)[number]
            assert np.array_equal(found, np.broadcast_to(values, found.shape)), (row, axis)


def rows_of(dataset, rows):
    return dataset.index.tracks.iloc[rows]


def test_patches_are_those_of_their_own_experiment_frame_channel_and_place(encoded_experiments):
    experiments = encoded_experiments()
    dataset = build(experiments)
    positions = np.random.default_rng(0).permutation(len(dataset))
    batch = dataset[positions.tolist()]
    pairs = dataset.pairs(positions)
    assert {"first", "second"} == set(rows_of(dataset, pairs.anchors)["experiment"])
    assert batch["anchor"].shape == batch["positive"].shape == (len(dataset), 2, 2, *SIZE)
    assert_pixels_belong_to(experiments, batch["anchor"], rows_of(dataset, pairs.anchors))
    assert_pixels_belong_to(experiments, batch["positive"], rows_of(dataset, pairs.positives))


@pytest.mark.parametrize("size", [(7, 13), (9, 12), (40, 48), (1, 1)])
def test_patches_have_exactly_the_size_asked_for(encoded_experiments, size):
    experiments = encoded_experiments()
    dataset = build(experiments, size=size)
    batch = dataset[list(range(len(dataset)))]
    assert batch["anchor"].shape[2:] == (2, *size)
    assert_pixels_belong_to(experiments, batch["anchor"], dataset.index.valid_anchors, size)


def test_positives_are_later_observations_of_the_track_or_its_descendants(encoded_experiments):
    dataset = build(encoded_experiments())
    seen_daughters = set()
    for seed in range(20):
        dataset.seed = seed
        pairs = dataset.pairs(range(len(dataset)))
        anchors, positives = rows_of(dataset, pairs.anchors), rows_of(dataset, pairs.positives)
        for anchor, positive, tau in zip(anchors.itertuples(), positives.itertuples(), pairs.tau, strict=True):
            hours = positive.hours_post_infection - anchor.hours_post_infection
            assert (anchor.experiment, anchor.fov_name) == (positive.experiment, positive.fov_name)
            assert positive.t - anchor.t == tau >= 1
            assert HOURS[0] <= hours <= HOURS[1]
            daughters = {2, 3} if (anchor.fov_name, anchor.track_id) == ("A/1/0", 1) else set()
            assert positive.track_id in {anchor.track_id} | daughters
            seen_daughters |= {positive.track_id} & daughters
    assert seen_daughters == {2, 3}


def test_sisters_are_positives_only_in_the_lineage_scope(encoded_experiments):
    experiments = encoded_experiments()
    pairs_of_tracks = {}
    for scope in ("descendants", "lineage", "track"):
        found = set()
        for seed in range(20):
            dataset = build(experiments, scope=scope, seed=seed)
            pairs = dataset.pairs(range(len(dataset)))
            anchors, positives = rows_of(dataset, pairs.anchors), rows_of(dataset, pairs.positives)
            in_division = (anchors["fov_name"] == "A/1/0").to_numpy()
            found |= set(zip(anchors["track_id"][in_division], positives["track_id"][in_division], strict=True))
        pairs_of_tracks[scope] = found
    assert (2, 3) in pairs_of_tracks["lineage"]
    assert (2, 3) not in pairs_of_tracks["descendants"]
    assert (1, 2) in pairs_of_tracks["descendants"]
    assert all(anchor == positive for anchor, positive in pairs_of_tracks["track"])


def test_an_anchor_is_its_own_positive_only_when_tau_is_zero_throughout(encoded_experiments):
    experiments = encoded_experiments()
    same = build(experiments, tau=(0.0, 0.0))
    batch = same[list(range(len(same)))]
    assert len(same) == len(same.index.tracks)
    assert torch.equal(batch["anchor"], batch["positive"])
    from_zero = build(experiments, tau=(0.0, 1.0))
    assert all((from_zero.pairs(range(len(from_zero))).tau >= 1).tolist() for _ in range(5))


def test_the_decay_rate_moves_positives_towards_the_anchor(encoded_experiments):
    experiments = encoded_experiments()
    mean = {}
    for rate in (0.0, 20.0):
        dataset = build(experiments, tau_decay_rate=rate)
        mean[rate] = np.mean([dataset.pairs([0] * n).tau.mean() for n in range(1, 60)])
    assert mean[20.0] < 1.01 < 1.4 < mean[0.0]


def test_a_tau_range_that_the_index_was_not_built_for_is_named(encoded_experiments):
    experiments = encoded_experiments()
    index = build(experiments, tau=(0.5, 1.0)).index
    with pytest.raises(
        ValueError, match=r"found    \(4\.0, 8\.0\)\n  expected the tau range .* built with, \(0\.5, 1\.0\)"
    ):
        MultiExperimentTripletDataset(index, tau_range_hours=(4.0, 8.0))


def test_the_index_is_asked_for_the_tau_range(encoded_experiments):
    index = build(encoded_experiments(), tau=(1.0, 1.0)).index
    pairs = MultiExperimentTripletDataset(index).pairs(range(len(index.anchor_rows)))
    hours = index.tracks["hours_post_infection"].to_numpy()
    assert np.allclose(hours[pairs.positives] - hours[pairs.anchors], 1.0)


def test_a_batch_is_a_function_of_the_seed_and_the_positions(encoded_experiments):
    experiments = encoded_experiments()
    dataset, again, other = (build(experiments, seed=seed) for seed in (3, 3, 4))
    positions = [5, 1, 9, 9]
    dataset[[0, 1]]  # what was asked for before does not matter
    first, second = dataset[positions], again[positions]
    assert torch.equal(first["positive"], second["positive"])
    assert first["rng_seed"] == second["rng_seed"] != dataset[positions[::-1]]["rng_seed"]
    assert first["rng_seed"] != other[positions]["rng_seed"]
    draws = {tuple(build(experiments, seed=seed).pairs(range(20)).positives) for seed in range(8)}
    assert len(draws) > 1


def test_a_batch_of_one_cell_is_another_one_in_each_epoch(encoded_experiments):
    """Larger batches would differ by the cells in them."""
    dataset = build(encoded_experiments())
    batches = [EpochPositions([5], epoch) for epoch in range(20)]
    assert len({dataset[batch]["rng_seed"] for batch in batches}) == 20
    assert len({int(dataset.pairs(batch).positives[0]) for batch in batches}) > 1
    assert dataset[batches[7]]["rng_seed"] == dataset[EpochPositions([5], 7)]["rng_seed"]


def test_anchors_and_positives_are_one_read(encoded_experiments, monkeypatch):
    dataset = build(encoded_experiments(), return_negative=True)
    calls = []
    read = dataset.reader.read
    monkeypatch.setattr(dataset.reader, "read", lambda *args: calls.append(1) or read(*args))
    batch = dataset[[0, 1, 2]]
    assert len(calls) == 1
    assert {"anchor", "positive", "negative"} <= set(batch)


def test_negatives_are_other_lineages_of_the_same_experiment(encoded_experiments):
    experiments = encoded_experiments()
    dataset = build(experiments, return_negative=True)
    positions = np.arange(len(dataset)).repeat(10)
    pairs = dataset.pairs(positions)
    anchors, negatives = rows_of(dataset, pairs.anchors), rows_of(dataset, pairs.negatives)
    assert (anchors["experiment"].to_numpy() == negatives["experiment"].to_numpy()).all()
    assert (anchors["lineage_id"].astype(str).to_numpy() != negatives["lineage_id"].astype(str).to_numpy()).all()
    assert_pixels_belong_to(experiments, dataset[positions.tolist()]["negative"], negatives)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=2, max_size=30), st.integers(0, 2**31))
def test_every_negative_of_an_anchor_can_be_drawn_and_no_other(cells, seed):
    experiment, own = np.array(cells).T
    lineage = experiment * 4 + own
    lookup = NegativeLookup(lineage, experiment)
    for row in range(len(cells)):
        others = np.flatnonzero((experiment == experiment[row]) & (lineage != lineage[row]))
        allowed = set(others.tolist())
        if not allowed:
            with pytest.raises(ValueError, match="single lineage"):
                lookup.draw([row], np.random.default_rng(seed))
        else:
            drawn = lookup.draw(np.full(60 * len(allowed), row), np.random.default_rng(seed))
            assert set(drawn.tolist()) == allowed


def test_prediction_has_every_observation_once_with_its_experiment(encoded_experiments):
    experiments = encoded_experiments()
    dataset = build(experiments, fit=False)
    batch = dataset[list(range(len(dataset)))]
    assert len(dataset) == len(dataset.index.tracks) == 2 * (15 + 7)  # also last frames and cells seen once
    cells = {(row["experiment"], row["fov_name"], row["track_id"], row["t"]) for row in batch["index"]}
    assert len(cells) == len(dataset)
    columns = {"t", "y", "x", "condition", "hours_post_infection", "lineage_id"}
    assert columns <= set(batch["index"][0])
    assert "positive" not in batch
    assert_pixels_belong_to(experiments, batch["anchor"], dataset.index.tracks)


def test_statistics_are_those_of_each_samples_fov_and_channel(encoded_experiments, encoded_mean):
    experiments = encoded_experiments(statistics=("first", "second"))
    dataset = build(experiments)
    positions = list(range(len(dataset)))
    batch, pairs = dataset[positions], dataset.pairs(positions)
    for role, rows in (("anchor", pairs.anchors), ("positive", pairs.positives)):
        for row, meta in zip(rows_of(dataset, rows).itertuples(), batch[f"{role}_norm_meta"], strict=True):
            plate = ["first", "second"].index(row.experiment)
            for position, channel in enumerate(STORE_CHANNELS[row.experiment]):
                assert meta[f"ch_{position}"]["fov_statistics"]["mean"] == encoded_mean(plate, row.fov_name, channel)


def test_collated_statistics_are_those_of_the_samples(encoded_experiments):
    experiments = encoded_experiments(statistics=("first", "second"))
    single, collated = build(experiments), build(experiments, collate_statistics=True)
    samples = single[[0, 5, 30]]["positive_norm_meta"]
    means = collated[[0, 5, 30]]["positive_norm_meta"]["ch_1"]["fov_statistics"]["mean"]
    assert means.tolist() == [sample["ch_1"]["fov_statistics"]["mean"].item() for sample in samples]


def test_lineages_are_numbers_across_experiments(encoded_experiments):
    dataset = build(encoded_experiments())
    lineage = dataset[list(range(len(dataset)))]["lineage"]
    names = dataset.index.valid_anchors["lineage_id"].astype(str).tolist()
    assert lineage.dtype == torch.int64
    assert len(set(zip(lineage.tolist(), names, strict=True))) == len(set(names)) == len(set(lineage.tolist()))


def test_channels_that_an_experiment_lacks_are_planes_of_zeros(encoded_experiments):
    experiments = encoded_experiments()
    dataset = build(experiments, training_channels="all")  # Phase, GFP, RFP
    batch = dataset[list(range(len(dataset)))]
    is_first = (dataset.index.valid_anchors["experiment"] == "first").to_numpy()
    assert batch["anchor"].shape[1] == 3
    assert batch["channel_mask"].tolist() == [[True, True, False] if own else [True, False, True] for own in is_first]
    present = (batch["anchor"] != 0).flatten(2).any(2)
    assert torch.equal(present, batch["channel_mask"])


def test_batches_without_absent_channels_carry_no_mask(encoded_experiments):
    assert "channel_mask" not in build(encoded_experiments())[[0]]


def test_a_pickled_dataset_gives_the_same_batches(encoded_experiments):
    dataset = build(encoded_experiments(statistics=("first", "second")), return_negative=True)
    dataset[[0]]  # with open stores
    copy = pickle.loads(pickle.dumps(dataset))
    ours, theirs = dataset[[4, 2]], copy[[4, 2]]
    for key in ("anchor", "positive", "negative", "lineage"):
        assert torch.equal(ours[key], theirs[key])
    assert ours["rng_seed"] == theirs["rng_seed"]


def test_a_single_position_is_a_batch_of_one(encoded_experiments):
    dataset = build(encoded_experiments())
    assert dataset[3]["anchor"].shape[0] == 1
    assert torch.equal(dataset[3]["anchor"], dataset[[3]]["anchor"])


@pytest.mark.parametrize("position", [-1, 10**6])
def test_positions_that_do_not_exist_are_refused(encoded_experiments, position):
    with pytest.raises(IndexError, match=f"{position}.* but there are .* items"):
        build(encoded_experiments())[[position]]


def test_whole_numbers_become_float32(make_experiment, track_rows):
    config = make_experiment(shape=(5, 2, 64, 96))  # uint8
    index = MultiExperimentIndex(ExperimentRegistry([config]), slice(0, 1), (8, 8), HOURS)
    assert MultiExperimentTripletDataset(index)[[0, 1]]["anchor"].dtype == torch.float32


def test_nan_pixels_are_reported_with_fov_and_frame(tmp_path, track_rows, make_experiment):
    config = make_experiment(fovs={"A/1/0": track_rows({0: range(5)}, y=16.0, x=16.0)}, shape=(5, 1, 32, 32))
    store = tmp_path / "nan.zarr"
    pixels = np.ones((5, 2, 1, 32, 32), np.float32)
    pixels[2] = np.nan
    with PlateWriter(store, ["Phase", "GFP"]) as plate:
        plate.write("A/1/0", pixels)
    config.data_path = str(store)
    index = MultiExperimentIndex(ExperimentRegistry([config]), slice(0, 1), (8, 8), (0.5, 0.5))
    dataset = MultiExperimentTripletDataset(index, tau_range_hours=(0.5, 0.5))
    with pytest.warns(UserWarning, match=r"FOV A/1/0, frame 2: 128 pixels"):
        dataset[[2]]
    assert sum(dataset.reader.nonfinite.values()) == 128


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tau_decay_rate": float("nan")}, "tau_decay_rate"), ({"seed": -1}, "seed must be at least 0")],
)
def test_options_out_of_range_are_refused(encoded_experiments, options, message):
    with pytest.raises(ValueError, match=message):
        build(encoded_experiments(), **options)
