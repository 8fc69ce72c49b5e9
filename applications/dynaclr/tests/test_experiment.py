from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dynaclr.experiment import ExperimentConfig, ExperimentRegistry
from viscy_data.errors import InputError, MissingInputError
from viscy_data.stores import FovInfo, FovKey, UsableFovs

GOLDEN_TAU = [
    case
    for case in json.loads((Path(__file__).parent / "golden" / "tau" / "tau_range_frames.json").read_text())
    # Those that the reference did not round to a frame outside the hours asked for.
    if case["frames"][0] >= 1
    and case["tau_range_hours"][0] <= case["frames"][0] * case["interval_minutes"] / 60
    and case["frames"][1] * case["interval_minutes"] / 60 <= case["tau_range_hours"][1]
]


def registry_without_store(interval_minutes):
    """A registry whose store is never looked at, for its clock."""
    registry = object.__new__(ExperimentRegistry)
    registry.experiments = [ExperimentConfig("a", "", "", [], [], {}, interval_minutes)]
    registry._source = "experiments.yml"
    return registry


def write_yaml(path, *configs, **extra):
    path.write_text(yaml.safe_dump({"experiments": [dataclasses.asdict(config) for config in configs], **extra}))
    return path


# tau in frames


@pytest.mark.parametrize("case", GOLDEN_TAU, ids=lambda case: f"{case['interval_minutes']}-{case['tau_range_hours']}")
def test_frames_are_the_golden_ones_where_these_lie_inside_the_hours(case):
    registry = registry_without_store(case["interval_minutes"])
    assert list(registry.tau_range_frames("a", tuple(case["tau_range_hours"]))) == case["frames"]


@pytest.mark.parametrize(
    ("interval_minutes", "hours", "frames"),
    [
        (60, (0.5, 2.0), (1, 2)),
        (45, (0.5, 2.0), (1, 2)),
        (30, (0.25, 1.25), (1, 2)),
        (30, (0.0, 1.0), (1, 2)),
        (30, (0.5, 0.5), (1, 1)),
        (2, (0.1, 0.1), (3, 3)),
        (30, (0.0, 0.0), (0, 0)),
    ],
)
def test_frames_are_rounded_into_the_hours(interval_minutes, hours, frames):
    assert registry_without_store(interval_minutes).tau_range_frames("a", hours) == frames


@given(interval=st.integers(1, 120), limits=st.tuples(st.integers(0, 600), st.integers(1, 600)).map(sorted))
@settings(deadline=None)
def test_every_offset_lies_inside_the_minutes_asked_for_and_none_is_missing(interval, limits):
    expected = [frame for frame in range(1, 601) if limits[0] <= frame * interval <= limits[1]]
    registry = registry_without_store(interval)
    hours = (limits[0] / 60, limits[1] / 60)
    if limits[1] == 0:
        return
    if not expected:
        with pytest.raises(InputError, match="whole number of frames"):
            registry.tau_range_frames("a", hours)
    else:
        assert registry.tau_range_frames("a", hours) == (expected[0], expected[-1])


@pytest.mark.parametrize(
    ("hours", "message"),
    [
        ((2.0, 0.5), "reversed"),
        ((-1.0, 1.0), "negative"),
        ((0.1, 0.2), "without a whole number of frames of 30 min"),
        ((0.5, math.nan), "two numbers of hours"),
        (("0.5", 2), "two numbers of hours"),
        ("02", "two numbers of hours"),
        ((1.0,), "two numbers of hours"),
    ],
)
def test_impossible_tau_ranges_are_refused(hours, message):
    with pytest.raises(InputError, match=message):
        registry_without_store(30).tau_range_frames("a", hours)


def test_a_range_without_a_frame_names_the_experiment():
    with pytest.raises(InputError, match=r"experiments.yml: experiment 'a', field tau_range"):
        registry_without_store(30).tau_range_frames("a", (0.6, 0.9))


# the registry


def test_channels_are_mapped_by_name_whatever_their_order_in_the_store(make_experiment):
    first = make_experiment("first", source_channel=["Phase", "GFP"])
    second = make_experiment("second", channel_names=("RFP", "extra", "Phase"), source_channel=["Phase", "RFP"])
    registry = ExperimentRegistry([first, second])
    assert registry.num_source_channels == 2
    assert registry.channel_maps == {"first": {0: 0, 1: 1}, "second": {0: 2, 1: 0}}
    assert registry.source_names == {"first": ["Phase", "GFP"], "second": ["Phase", "RFP"]}
    assert registry.channel_mask("second").tolist() == [True, True]
    assert [fov.name for fov in registry.fovs["first"]] == ["A/1/0"]


def test_training_channels_shared_all_and_named(make_experiment):
    first = make_experiment("first", source_channel=["Phase", "GFP"])
    second = make_experiment("second", channel_names=("RFP", "GFP", "Phase"), source_channel=["RFP", "Phase"])
    third = make_experiment("third", channel_names=("GFP", "Phase"), source_channel=["Phase"])
    shared = ExperimentRegistry([first, second, third], "shared")
    assert shared.channel_maps == {"first": {0: 0}, "second": {0: 2}, "third": {0: 1}}
    union = ExperimentRegistry([first, second, third], "all")
    assert union.source_names["first"] == ["Phase", "GFP", None]
    assert union.channel_maps["second"] == {0: 2, 1: -1, 2: 0}
    assert union.channel_mask("third").tolist() == [True, False, False]
    named = ExperimentRegistry([first, second, third], ["GFP"])
    assert named.channel_maps == {"first": {0: 1}, "second": {0: 1}, "third": {0: 0}}


def test_channels_that_do_not_correspond_are_refused(make_experiment):
    first = make_experiment("first", channel_names=("GFP",))
    second = make_experiment("second", channel_names=("RFP", "Phase"))
    with pytest.raises(InputError, match=r"(?s)'second', field source_channel.*expected 1 as in 'first'.*all"):
        ExperimentRegistry([first, second])
    with pytest.raises(InputError, match="no source_channel is common to all"):
        ExperimentRegistry([first, second], "shared")
    with pytest.raises(InputError, match="'first', field channel_names\n  found    no channel 'RFP'"):
        ExperimentRegistry([first, second], ["RFP"])
    for wrong in ("every", [], ["GFP", "GFP"]):
        with pytest.raises(InputError, match="shared, all, or a list"):
            ExperimentRegistry([first], wrong)


def test_unknown_names_have_near_matches(make_experiment):
    registry = ExperimentRegistry([make_experiment("dengue")])
    assert registry.get_experiment("dengue").name == "dengue"
    with pytest.raises(KeyError, match="did you mean 'dengue'"):
        registry.get_experiment("dengu")
    with pytest.raises(KeyError, match="no experiment 'zika'"):
        registry.subset(["zika"])


def test_a_subset_opens_no_store_again_and_keeps_channel_positions(make_experiment):
    first = make_experiment("first")
    second = make_experiment("second", channel_names=("RFP",))
    registry = ExperimentRegistry([first, second], "all")
    shutil.rmtree(Path(second.data_path))
    part = registry.subset(["second"])
    assert [config.name for config in part.experiments] == list(part.fovs) == list(part.channel_maps) == ["second"]
    assert part.num_source_channels == 3
    assert part.channel_maps["second"] == {0: -1, 1: -1, 2: 0}
    assert len(registry.experiments) == 2


def test_a_registry_can_be_pickled(make_experiment):
    registry = ExperimentRegistry([make_experiment()])
    again = pickle.loads(pickle.dumps(registry))
    assert again.fovs == registry.fovs
    assert isinstance(again.fovs["first"][0], FovInfo)
    assert isinstance(again.fovs["first"][0].key, FovKey)


def test_one_store_under_two_names_is_noticed(make_experiment):
    first = make_experiment("first")
    with pytest.warns(UserWarning, match="first, again read the same store"):
        registry = ExperimentRegistry([first, dataclasses.replace(first, name="again")])
    assert list(registry.shared_stores.values()) == [("first", "again")]


# bad values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 20241105}, "field name\n  found    20241105\n  expected a text"),
        ({"interval_minutes": "30"}, r"field interval_minutes\n  found    the text '30'\n  expected a number"),
        ({"interval_minutes": 0}, "expected more than 0 minutes"),
        ({"interval_minutes": math.nan}, "expected a number"),
        ({"start_hpi": None}, "field start_hpi\n  found    nothing"),
        ({"moi": True}, "field moi"),
        ({"date": 2024}, "field date"),
        ({"source_channel": "Phase"}, r"write it as a list: \[Phase\]"),
        ({"source_channel": []}, "at least one channel, each once"),
        ({"source_channel": ["GFP", "GFP"]}, "at least one channel, each once"),
        ({"source_channel": ["Phse"]}, r"found    'Phse'\n  fix      did you mean 'Phase'"),
        ({"condition_wells": {}}, "conditions with their wells"),
        ({"condition_wells": {"control": "A/1"}}, r"condition 'control'.*\n.*the text 'A/1'(?s:.*)\[A/1\]"),
        ({"condition_wells": {"control": ["A/1"], "mock": ["/A/1"]}}, "well A/1 in 'control' and in 'mock'"),
        (
            {"condition_wells": {"control": ["A/2"]}},
            "expected for 'A/2': did you mean 'A/1'",
        ),
        ({"channel_names": ["GFP", "Phase"]}, r"found    'GFP', 'Phase'\n  expected 'Phase', 'GFP' \(in "),
        ({"channel_names": ["Phase", "GPF"], "source_channel": ["Phase"]}, "for 'GPF': did you mean 'GFP'"),
        ({"data_path": ""}, "field data_path"),
    ],
)
def test_a_wrong_value_names_experiment_field_and_fix(make_experiment, changes, message):
    config = dataclasses.replace(make_experiment(), **changes)
    with pytest.raises(InputError, match=message) as caught:
        ExperimentRegistry([config])
    assert f"experiment {config.name!r}" in str(caught.value)


def test_two_channels_of_one_name_are_refused_only_where_the_name_is_asked_for(make_experiment):
    config = make_experiment(channel_names=("GFP", "Phase", "GFP"), source_channel=["Phase"])
    assert ExperimentRegistry([config]).channel_maps == {"first": {0: 1}}
    message = r"'first', field {}\n  found    'GFP', the name of 2 channels"
    with pytest.raises(InputError, match=message.format("source_channel")):
        ExperimentRegistry([dataclasses.replace(config, source_channel=["Phase", "GFP"])])
    with pytest.raises(InputError, match=message.format("training_channels")):
        ExperimentRegistry([config], ["GFP"])


def test_channel_names_that_yaml_reads_as_numbers_get_quotes(make_experiment):
    with pytest.raises(InputError, match="put each in quotes"):
        ExperimentRegistry([dataclasses.replace(make_experiment(), channel_names=[0, 1], source_channel=["0"])])


def test_a_missing_store_names_the_experiment(make_experiment):
    config = dataclasses.replace(make_experiment(), data_path="/nowhere/plate.zarr")
    with pytest.raises(MissingInputError, match=r"experiment 'first', field data_path\n  found    /nowhere/plate.zarr"):
        ExperimentRegistry([config])


def test_a_position_with_other_channels_is_named(make_experiment, monkeypatch):
    config = make_experiment(fovs={"A/1/0": None, "A/1/1": None})
    registry = ExperimentRegistry([config])
    first, second = registry.fovs["first"]
    swapped = dataclasses.replace(second, channel_names=("GFP", "Phase"))
    monkeypatch.setattr("dynaclr.experiment.registry.usable_fovs", lambda *_: UsableFovs((first, swapped), {}))
    with pytest.raises(InputError, match=r"'GFP', 'Phase' \(in 1 of 2 FOVs of .*, first A/1/1\)"):
        ExperimentRegistry([config])


def test_repeated_names_and_no_experiments_are_refused(make_experiment):
    config = make_experiment()
    with pytest.raises(InputError, match="2 experiments of the name 'first'"):
        ExperimentRegistry([config, copy.copy(config)])
    with pytest.raises(InputError, match="no experiment"):
        ExperimentRegistry([])


# the file


def test_relative_paths_are_resolved_against_the_file(make_experiment, tmp_path, monkeypatch):
    config = dataclasses.replace(make_experiment(), data_path="first/plate.zarr", tracks_path="./first/tracks")
    path = write_yaml(tmp_path / "experiments.yml", config)
    monkeypatch.chdir("/")
    [read] = ExperimentRegistry.from_yaml(path).experiments
    assert read.data_path == str(tmp_path / "first" / "plate.zarr")
    assert read.tracks_path == str(tmp_path / "first" / "tracks")
    assert read.normalization_path == ""


def test_an_unquoted_date_is_a_text(make_experiment, tmp_path):
    path = write_yaml(tmp_path / "experiments.yml", make_experiment())
    path.write_text(path.read_text().replace("date: ''", "date: 2024-11-05"))
    assert ExperimentRegistry.from_yaml(path).experiments[0].date == "2024-11-05"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file"),
        ("experiment: []", "found    the keys experiment\n"),
        ("- a", "found    a list without keys"),
        ("experiments: []", "at least one entry"),
        ("experiments: [", "valid YAML"),
        ("experiments: [3]", "experiment 1\n  found    3"),
        ("experiments: [{name: a}]\nbase: 3", "field base\n  found    an unknown key"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, text, message):
    path = tmp_path / "experiments.yml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        ExperimentRegistry.from_yaml(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"nowhere\.yml"):
        ExperimentRegistry.from_yaml(tmp_path / "nowhere.yml")


def test_all_problems_of_a_file_are_reported_together(make_experiment, tmp_path):
    good = dataclasses.asdict(make_experiment())
    entries = [
        good | {"name": "one", "interval": 15},
        {key: value for key, value in good.items() if key != "tracks_path"} | {"name": "two"},
        good | {"name": "three", "data_path": "/nowhere.zarr"},
        good | {"name": "four", "condition_wells": {"control": ["Z/9"]}, "start_hpi": 0.0},
        good | {"name": "five", "interval_minutes": "30"},
    ]
    path = tmp_path / "experiments.yml"
    path.write_text(yaml.safe_dump({"experiments": entries}))
    with pytest.raises(InputError) as caught:
        ExperimentRegistry.from_yaml(path)
    fields = [(error.where.rpartition(" ")[2], error.field) for error in caught.value.errors]
    assert fields == [
        ("'one'", "interval"),
        ("'two'", "tracks_path"),
        ("'five'", "interval_minutes"),
        ("'three'", "data_path"),
        ("'four'", "condition_wells, condition 'control'"),
    ]
    assert "did you mean 'interval_minutes'" in str(caught.value)
    assert all(str(path) in error.where for error in caught.value.errors)
