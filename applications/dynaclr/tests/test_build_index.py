from __future__ import annotations

import dataclasses

import pytest
import yaml
from click.testing import CliRunner

from dynaclr.commands.build_index import build_index
from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex


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


def test_bad_input_is_one_paragraph_and_exit_code_2(tmp_path):
    result = run(tmp_path / "nowhere.yml", tmp_path / "index.parquet")
    assert result.exit_code == 2
    assert "nowhere.yml" in result.stderr
    assert "Traceback" not in result.stderr
