from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dynaclr.commands.import_tracks import import_tracks
from dynaclr.experiment import ExperimentConfig, ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from viscy_data.stores import PlateWriter
from viscy_data.testing.trackers import (
    lineage_table,
    write_btrack_csv,
    write_btrack_hdf5,
    write_ctc,
    write_trackmate_csv,
    write_trackmate_xml,
)
from viscy_data.tracks import read_tracks, write_geff, write_napari
from viscy_data.tracks.formats import FORMATS

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


def test_the_experiments_file_beside_the_tables_is_ready(plate, tmp_path):
    source = tmp_path / "A_1_0.csv"
    source.write_text(BTRACK)
    arguments = (source, "--store", plate, "-o", tmp_path / "tracks")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "experiments.yml, as the store does not say its frame interval; add --interval-minutes" in result.output
    result = run(*arguments, "--overwrite", "--interval-minutes", 15)
    assert "tracks/experiments.yml; fill in condition_wells" in result.output.replace("\n", "")
    registry = ExperimentRegistry.from_yaml(tmp_path / "tracks/experiments.yml")
    with pytest.warns(UserWarning, match="2 of 3 FOVs have no tracking table"):
        index = MultiExperimentIndex(registry, slice(0, 1), (8, 8), (0.2, 0.6))
    assert registry.experiments[0].interval_minutes == 15
    assert len(index.tracks) == 5
    text = (tmp_path / "tracks/experiments.yml").read_text() + "# mine\n"
    (tmp_path / "tracks/experiments.yml").write_text(text)
    other = tmp_path / "A_1_1.csv"
    other.write_text(BTRACK)
    result = run(other, "--store", plate, "-o", tmp_path / "tracks", "--interval-minutes", 15)
    assert "left as it is" in result.output
    assert (tmp_path / "tracks/experiments.yml").read_text() == text


def test_nothing_is_written_where_a_table_is_in_the_way(plate, tmp_path):
    sources = [tmp_path / name for name in ("A_1_0.csv", "A_1_1.csv")]
    for source in sources:
        source.write_text(BTRACK)
    own = tmp_path / "tracks/A/1/1/mine.csv"
    own.parent.mkdir(parents=True)
    own.write_text("track_id,t,y,x\n")
    for more in ([], ["--overwrite"]):
        result = run(*sources, "--store", plate, "-o", tmp_path / "tracks", *more)
        assert result.exit_code == 2
        assert "another table of this FOV" in result.output
    assert not (tmp_path / "tracks/A/1/0").exists()


def test_problems_of_all_sources_are_told_together(plate, tmp_path):
    sources = [tmp_path / name for name in ("A_1_0.csv", "A_1_1.csv")]
    for source in sources:
        source.write_text("a,b\n1,2\n")
    result = run(*sources, "--store", plate, "-o", tmp_path / "tracks")
    assert result.exit_code == 2
    assert "2 problems" in result.output
    assert not (tmp_path / "tracks").exists()


# docs/tracks.md: one example per tracker, and each is run

ROOT = Path(__file__).parents[3]
COMMANDS = re.findall(r"```bash\n(dynaclr import-tracks (\S+) .*)\n```", (ROOT / "docs/tracks.md").read_text())
ULTRACK = ["track_id", "t", "y", "x", "id", "parent_track_id"]
WRITERS = {
    "ultrack/A_1_0.csv": lambda path, table: table.assign(id=table.index + 1000001.0)[ULTRACK].to_csv(path),
    "trackmate/A_1_0.xml": write_trackmate_xml,
    "spots/A_1_0.csv": lambda path, table: write_trackmate_csv(path, table[table["track_id"] == 9]),
    "btrack/A_1_0.h5": write_btrack_hdf5,
    "btrack/A_1_0.csv": write_btrack_csv,
    "ctc/A_1_0": lambda path, table: write_ctc(path, table, "res_track.txt", "mask{:03d}.tif"),
    "trackastra/A_1_0": lambda path, table: write_ctc(path, table, image="man_track{:04d}.tif"),
    "napari/A_1_0.npz": lambda path, table: write_napari(table, path),
    "geff/A_1_0.geff": lambda path, table: write_geff(table, path),
}


def test_every_tracker_has_an_example():
    assert [source for _, source in COMMANDS] == list(WRITERS)
    assert {name for name in FORMATS if name not in import_tracks.help} == set()


@pytest.mark.parametrize(("command", "source"), COMMANDS, ids=[source for _, source in COMMANDS])
def test_the_example_of_a_tracker_runs(command, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with PlateWriter("plate.zarr", ["Phase"]) as writer:
        writer.write("A/1/0", np.zeros((6, 1, 1, 64, 64), np.uint8), scale=(60.0, 1.0, 1.0, 0.5, 0.25))
    table = lineage_table()
    Path(source).parent.mkdir()
    WRITERS[source](Path(source), table)
    result = CliRunner().invoke(import_tracks, shlex.split(command)[2:])
    assert result.exit_code == 0, result.output
    expected = table[table["track_id"] == 9].assign(parent_track_id=-1) if source.startswith("spots") else table
    found = read_tracks("tracks/A/1/0/tracks.csv")
    columns = ["track_id", "t", "y", "x", "parent_track_id"]
    if source == "trackmate/A_1_0.xml":  # its tracks have no numbers of our kind
        columns.remove("track_id")
        columns.remove("parent_track_id")
        assert found["parent_track_id"].nunique() == 2
    one, two = (each[columns].sort_values(columns).to_numpy().tolist() for each in (found, expected))
    assert one == two
    summary, written = result.output.split("wrote ", 1)
    assert "divisions" in summary
    assert ("50%" if source.startswith("spots") else "62%") in summary  # cells with a later one
    assert written.startswith("1 tables in tracks")
