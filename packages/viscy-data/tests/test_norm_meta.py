from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from viscy_data.errors import InputError, MissingInputError
from viscy_data.norm_meta import NormStatistics, collate_norm_meta, read_norm_meta, sidecar_path
from viscy_data.stores import PlateWriter, read_plate, update_attributes

STATS = ("mean", "std", "median", "iqr", "p5", "p95", "p95_p5", "p1", "p99", "p99_p1")


def level(value: float) -> dict[str, float]:
    return {name: value + number / 16 for number, name in enumerate(STATS)}


def meta(value: float, channels=("Phase", "GFP")):
    return {
        name: {
            "dataset_statistics": level(value + number),
            "fov_statistics": level(value + number + 0.5),
            "timepoint_statistics": {"0": level(value + number + 100), "2": level(value + number + 200)},
        }
        for number, name in enumerate(channels)
    }


@pytest.fixture(params=["0.4", "0.5"])
def fovs(request, tmp_path):
    """Two FOVs, statistics in the attributes of the first."""
    with PlateWriter(tmp_path / "p.zarr", ["Phase", "GFP"], version=request.param) as writer:
        for name in ("A/1/0", "A/1/1"):
            writer.write(name, np.zeros((3, 2, 1, 8, 8), np.uint8))
    keys = [fov.key for fov in read_plate(tmp_path / "p.zarr")]
    update_attributes(*keys[0], "normalization", meta(1.0))
    return keys


def write_sidecar(path, fovs: dict) -> None:
    path.write_text(json.dumps({"plate": {}, "fovs": fovs}))


def test_statistics_are_read_from_the_attributes(fovs):
    assert read_norm_meta(fovs[0]) == meta(1.0)
    assert read_norm_meta(fovs[1]) is None


def test_sidecar_beside_the_store_wins_where_it_lists_a_fov(fovs, tmp_path):
    write_sidecar(tmp_path / "p.zarr.normalization.json", {"A/1/1": meta(7.0)})
    assert sidecar_path(tmp_path / "p.zarr") == str((tmp_path / "p.zarr.normalization.json").resolve())
    assert read_norm_meta(fovs[0]) == meta(1.0)
    assert read_norm_meta(fovs[1]) == meta(7.0)
    write_sidecar(tmp_path / "other.json", {"A/1/0": meta(9.0)})
    assert read_norm_meta(fovs[0], sidecar=tmp_path / "other.json") == meta(9.0)
    assert read_norm_meta(fovs[1], sidecar=tmp_path / "other.json") is None


def test_named_sidecar_must_exist(fovs, tmp_path):
    with pytest.raises(MissingInputError, match=r"none\.json, field normalization_path"):
        read_norm_meta(fovs[0], sidecar=tmp_path / "none.json")


@pytest.mark.parametrize("bad", [[1], {"Phase": 3}, {"Phase": {"fov_statistics": {"mean": "x"}}}])
def test_other_content_is_refused_with_the_fov(fovs, bad):
    update_attributes(*fovs[1], "normalization", bad)
    with pytest.raises(InputError, match=r"p\.zarr, FOV A/1/1, field normalization"):
        read_norm_meta(fovs[1])


def test_broken_sidecar_is_refused(fovs, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match=r"broken\.json"):
        read_norm_meta(fovs[0], sidecar=tmp_path / "broken.json")


def test_samples_carry_statistics_by_channel_position(fovs):
    update_attributes(*fovs[1], "normalization", meta(20.0, ["GFP", "Phase"]))
    statistics = NormStatistics(fovs, [["GFP", "Phase"], ["Phase", "GFP"]])
    first, second = statistics.samples(np.array([0, 1]), np.array([2, 0]))
    assert list(first) == list(second) == ["ch_0", "ch_1"]
    assert first["ch_0"]["fov_statistics"]["mean"] == pytest.approx(1 + 1 + 0.5)
    assert first["ch_1"]["dataset_statistics"]["std"] == pytest.approx(1 + 1 / 16)
    assert first["ch_0"]["timepoint_statistics"]["mean"] == pytest.approx(1 + 1 + 200)
    assert second["ch_0"]["timepoint_statistics"]["mean"] == pytest.approx(20 + 1 + 100)
    value = first["ch_0"]["fov_statistics"]["p99_p1"]
    assert (value.dtype, value.shape) == (torch.float32, ())
    assert set(first["ch_0"]["fov_statistics"]) == set(STATS)


def test_frame_without_statistics_takes_those_of_its_fov(fovs):
    [sample] = NormStatistics(fovs[:1], [["Phase"]]).samples([0], [1])
    assert sample["ch_0"]["timepoint_statistics"] is sample["ch_0"]["fov_statistics"]


def test_absent_channel_gets_statistics_that_leave_zeros_alone(fovs):
    [sample] = NormStatistics(fovs[:1], [["Phase", None]]).samples([0], [0])
    for name in ("dataset_statistics", "fov_statistics", "timepoint_statistics"):
        entry = sample["ch_1"][name]
        assert set(entry) == set(STATS)
        assert (0 - entry["mean"]) / entry["std"] == 0
        assert (0 - entry["median"]) / entry["iqr"] == 0
    assert list(collate_norm_meta([sample, sample])) == ["ch_0", "ch_1"]


def test_names_of_positions_can_be_given(fovs):
    [sample] = NormStatistics(fovs[:1], [["GFP"]], names=["GFP"]).samples([0], [0])
    assert list(sample) == ["GFP"]


def test_missing_statistics_are_listed_before_training(fovs):
    partial = meta(3.0)
    del partial["GFP"]["fov_statistics"]
    update_attributes(*fovs[1], "normalization", partial)
    statistics = NormStatistics(fovs, [["Phase", "GFP"], ["Phase", "GFP"]])
    assert statistics.missing("fov_statistics") == [(fovs[1], "GFP")]
    assert statistics.missing("timepoint_statistics") == []
    assert NormStatistics(fovs, [["Phase"], ["RFP", None]][::1]).missing("dataset_statistics") == [(fovs[1], "RFP")]


def test_attributes_are_read_once_however_many_samples_are_asked_for(fovs, tmp_path):
    statistics = NormStatistics(fovs, [["Phase"], ["Phase"]])
    (tmp_path / "p.zarr").rename(tmp_path / "moved.zarr")
    again = [statistics.samples([0] * 50, [0] * 50)[-1] for _ in range(3)]
    assert again[0] is again[1] is again[2]


def test_sidecars_are_given_per_fov(fovs, tmp_path):
    write_sidecar(tmp_path / "a.json", {"A/1/1": meta(5.0)})
    statistics = NormStatistics(fovs, [["Phase"], ["Phase"]], [None, tmp_path / "a.json"])
    means = [entry["ch_0"]["dataset_statistics"]["mean"].item() for entry in statistics.samples([0, 1], [0, 0])]
    assert means == [1.0, 5.0]


def test_pickled_statistics_give_the_same_samples(fovs):
    statistics = NormStatistics(fovs, [["Phase", None], ["GFP", "Phase"]])
    before = statistics.samples([0, 1], [0, 2])
    torch.testing.assert_close(pickle.loads(pickle.dumps(statistics)).samples([0, 1], [0, 2]), before)


def test_channel_lists_must_be_one_per_fov(fovs):
    with pytest.raises(ValueError, match="2 FOVs, but channel lists of 1"):
        NormStatistics(fovs, [["Phase"]])


def test_collated_statistics_are_those_of_each_sample(fovs):
    update_attributes(*fovs[1], "normalization", meta(20.0))
    statistics = NormStatistics(fovs, [["Phase", "GFP"]] * 2)
    fov, t = np.array([0, 1, 1, 0, 0]), np.array([0, 0, 2, 2, 1])
    samples = statistics.samples(fov, t)
    collated = collate_norm_meta(samples)
    for channel in ("ch_0", "ch_1"):
        assert set(collated[channel]) == {"dataset_statistics", "fov_statistics", "timepoint_statistics"}
        for name, entry in collated[channel].items():
            assert set(entry) == set(STATS)
            for stat, values in entry.items():
                expected = [float(sample[channel][name][stat]) for sample in samples]
                assert values.dtype == torch.float32
                assert values.tolist() == expected


def test_batch_of_mixed_experiments_keeps_what_all_samples_have(fovs):
    partial = meta(20.0)
    del partial["Phase"]["timepoint_statistics"], partial["Phase"]["fov_statistics"]["iqr"], partial["GFP"]
    update_attributes(*fovs[1], "normalization", partial)
    samples = NormStatistics(fovs, [["Phase", "GFP"]] * 2).samples([0, 1, 0], [0, 0, 0])
    collated = collate_norm_meta(samples)
    assert list(collated) == ["ch_0"]
    assert set(collated["ch_0"]) == {"dataset_statistics", "fov_statistics"}
    assert set(collated["ch_0"]["fov_statistics"]) == set(STATS) - {"iqr"}


def test_batch_with_an_unprocessed_experiment_has_no_statistics(fovs):
    samples = NormStatistics(fovs, [["Phase"]] * 2).samples([0, 1], [0, 0])
    assert samples[1] == {}
    assert collate_norm_meta(samples) == {}
    assert collate_norm_meta([samples[0], None]) == {}
    assert collate_norm_meta([]) == {}
