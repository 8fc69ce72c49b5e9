from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dynaclr.commands.import_tracks import import_tracks
from dynaclr.experiment import ExperimentConfig, ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from viscy_data.stores import PlateWriter
from viscy_data.tracks import read_tracks

BTRACK = "ID,t,x,y,z,parent\n" + "".join(f"1,{t},20,10,0,1\n" for t in range(3)) + "2,3,21,10,0,1\n2,4,21,10,0,1\n"


@pytest.fixture
def plate(tmp_path):
    with PlateWriter(tmp_path / "plate.zarr", ["Phase"]) as writer:
        for name in ("A/1/0", "A/1/1", "A/1/10"):
            writer.write(name, np.zeros((5, 1, 1, 32, 48), np.uint8))
    return tmp_path / "plate.zarr"


def run(*arguments):
    return CliRunner().invoke(import_tracks, [str(argument) for argument in arguments])


def test_tracks_are_placed_beside_their_fovs_and_can_be_indexed(plate, tmp_path):
    sources = [tmp_path / name for name in ("well_A_1_0.csv", "A-1-10.csv")]
    for source in sources:
        source.write_text(BTRACK)
    result = run(*sources, "--store", plate, "-o", tmp_path / "tracks")
    assert result.exit_code == 0, result.output
    assert "1 of 3 FOVs have no tracks: A/1/1" in result.output
    assert read_tracks(tmp_path / "tracks/A/1/10/tracks.csv")["parent_track_id"].tolist() == [-1, -1, -1, 1, 1]
    config = ExperimentConfig("first", str(plate), str(tmp_path / "tracks"), ["Phase"], ["Phase"])
    with pytest.warns(UserWarning, match="1 of 3 FOVs have no tracking table"):
        index = MultiExperimentIndex(ExperimentRegistry([config]), slice(0, 1), (8, 8), (0.5, 0.5))
    assert len(index.tracks) == 10
    again = run(*sources, "--store", plate, "-o", tmp_path / "tracks")
    assert again.exit_code != 0
    assert run(*sources, "--store", plate, "-o", tmp_path / "tracks", "--overwrite").exit_code == 0


def test_a_source_without_a_fov_is_refused_and_a_map_helps(plate, tmp_path):
    source = tmp_path / "first.csv"
    source.write_text(BTRACK)
    result = run(source, "--store", plate, "-o", tmp_path / "tracks")
    assert result.exit_code == 2
    assert "first.csv" in result.output
    assert "--map" in result.output
    assert not (tmp_path / "tracks").exists()
    (tmp_path / "map.csv").write_text(f"source,fov\n{source},/A/1/1\n")
    result = run(source, "--store", plate, "-o", tmp_path / "tracks", "--map", tmp_path / "map.csv")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "tracks/A/1/1/tracks.csv").is_file()


def test_two_sources_for_one_fov_are_refused(plate, tmp_path):
    sources = [tmp_path / name for name in ("a/A_1_0.csv", "b/A_1_0.csv")]
    for source in sources:
        source.parent.mkdir()
        source.write_text(BTRACK)
    result = run(*sources, "--store", plate, "-o", tmp_path / "tracks")
    assert result.exit_code == 2
    assert "FOV A/1/0, which" in result.output
    assert not Path(tmp_path / "tracks").exists()
