from __future__ import annotations

import dataclasses

import pytest
import yaml
from click.testing import CliRunner

from dynaclr.commands.build_index import build_index
from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from viscy_data.errors import InputError
from viscy_data.stores import FovKey, StoragePolicy


@pytest.fixture
def experiments(make_experiment, track_rows, tmp_path):
    first = make_experiment("first", {"A/1/0": track_rows({0: range(5)}), "B/1/0": track_rows({0: range(4)})})
    second = make_experiment("second", channel_names=("RFP",))  # another number of channels: no matter for the table
    path = tmp_path / "experiments.yml"
    path.write_text(yaml.safe_dump({"experiments": [dataclasses.asdict(config) for config in (first, second)]}))
    return path


def run(*arguments):
    return CliRunner().invoke(build_index, [str(argument) for argument in arguments])


def test_a_file_alone_makes_an_index_that_loads(experiments, tmp_path):
    path = tmp_path / "out" / "index.parquet"
    result = run(experiments, path)
    assert result.exit_code == 0, result.output
    assert "2 experiments, 14 total observations" in result.output
    registry = ExperimentRegistry.from_yaml(experiments, "all")
    loaded = MultiExperimentIndex.load(path, registry, slice(0, 1), (32, 32))
    built = MultiExperimentIndex(registry, slice(0, 1), (32, 32))
    assert loaded.tracks.equals(built.tracks)


@pytest.mark.filterwarnings("ignore:.*leave no FOV")
def test_options_reach_the_index(experiments, tmp_path):
    path = tmp_path / "index.parquet"
    options = ["--include-wells", "A/1", "--include-wells", "B/1", "--exclude-fovs", "B/1/0", "--workers", 1]
    result = run(experiments, path, *options, "--tau-range", 1, 1, "--positive-scope", "track")
    assert result.exit_code == 0, result.output
    registry = ExperimentRegistry.from_yaml(experiments, "all")
    loaded = MultiExperimentIndex.load(
        path, registry, slice(0, 1), (8, 8), (1, 1), ["B/1", "A/1"], ["B/1/0"], positive_scope="track"
    )
    assert loaded.tracks["fov_name"].unique().tolist() == ["A/1/0"]
    assert len(loaded.anchor_rows) == 6


def test_an_existing_file_is_replaced_only_when_asked(experiments, tmp_path):
    path = tmp_path / "index.parquet"
    path.write_text("mine")
    refused = run(experiments, path)
    assert refused.exit_code == 2
    assert "add --overwrite" in refused.stderr
    assert path.read_text() == "mine"
    assert run(experiments, path, "--overwrite").exit_code == 0


def test_fovs_that_cannot_be_read_stop_or_are_left_out_counted_and_named(experiments, tmp_path):
    path, metadata = tmp_path / "index.parquet", tmp_path / "first/plate.zarr/B/1/0/zarr.json"
    metadata.write_text("{")
    refused = run(experiments, path)
    assert refused.exit_code == 2
    assert "B/1/0" in refused.stderr
    result = run(experiments, path, "--bad-fovs", "leave_out")
    assert result.exit_code == 0, result.output
    assert "10 total observations" in result.output
    assert f"1 FOV that cannot be read is left out: {tmp_path / 'first/plate.zarr'}, FOV B/1/0" in result.output
    assert "--data.init_args.storage.bad_fovs leave_out" in result.output
    registry = ExperimentRegistry.from_yaml(experiments, "all", storage=StoragePolicy(bad_fovs="leave_out"))
    loaded = MultiExperimentIndex.load(path, registry, slice(0, 1), (32, 32))
    assert loaded.registry.left_out.keys() == {FovKey(str(tmp_path / "first/plate.zarr"), "B/1/0")}
    assert set(loaded.tracks["fov_name"]) == {"A/1/0"}
    named = MultiExperimentIndex(registry, slice(0, 1), (32, 32), exclude_fovs=["B/1/0"])
    assert len(named.tracks) == len(loaded.tracks)


def test_an_experiment_that_no_fov_is_left_of_is_refused(experiments):
    registry = ExperimentRegistry.from_yaml(experiments, "all")
    second = {fov.key: "no permission" for fov in registry.fovs["second"]}
    with pytest.raises(InputError, match="experiment 'second'"):
        registry.without(second)
    some = registry.without({registry.fovs["first"][0].key: "no permission"})
    assert [fov.name for fov in some.fovs["first"]] == ["B/1/0"]
    assert len(registry.fovs["first"]) == 2


def test_bad_input_is_one_paragraph_and_exit_code_2(tmp_path):
    result = run(tmp_path / "nowhere.yml", tmp_path / "index.parquet")
    assert result.exit_code == 2
    assert "nowhere.yml" in result.stderr
    assert "Traceback" not in result.stderr
