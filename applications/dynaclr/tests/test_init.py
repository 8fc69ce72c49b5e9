"""`dynaclr init` on plates of known make: what it proposes follows from them, and can be trained with unedited."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from dynaclr.commands.init import init
from dynaclr.proposal.facts import PlateFacts, look_at
from dynaclr.proposal.settings import propose
from viscy_data.errors import InputError
from viscy_data.stores import PlateWriter
from viscy_data.tracks import read_tracks, write_tracks

SPACING, LENGTH = 20, 8


def make_plate(folder: Path, channels=("GFP", "Phase3D"), depth=1, size=128, n_fovs=2) -> Path:
    """Write a plate whose cells sit on a grid and live as long as the recording."""
    rng = np.random.default_rng(0)
    grid = np.arange(SPACING, size, SPACING)
    rows = [
        (number, t, float(y), float(x))
        for number, (y, x) in enumerate((y, x) for y in grid for x in grid)
        for t in range(LENGTH)
    ]
    table = pd.DataFrame(rows, columns=["track_id", "t", "y", "x"]).assign(parent_track_id=-1)
    table["id"] = np.arange(len(table))
    with PlateWriter(folder / "images.zarr", list(channels)) as writer:
        for number in range(n_fovs):
            name = f"{'AB'[number % 2]}/1/{number // 2}"
            writer.write(name, rng.integers(0, 255, (LENGTH, len(channels), depth, size, size)).astype(np.uint8))
            write_tracks(table, folder / "tracks" / name / "tracks.csv")
    return folder / "images.zarr"


def run(*arguments):
    return CliRunner().invoke(init, [str(argument) for argument in arguments])


def test_both_files_are_written_with_what_the_plates_say(tmp_path):
    stores = [make_plate(tmp_path / "day1"), make_plate(tmp_path / "day2", channels=("Phase3D", "RFP", "DAPI"))]
    done = run(*stores, "--interval-minutes", 30, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    listed = yaml.safe_load((tmp_path / "run" / "experiments.yml").read_text())["experiments"]
    assert [entry["name"] for entry in listed] == ["day1", "day2"]
    assert listed[0]["data_path"] == "../day1/images.zarr"
    assert listed[0]["source_channel"] == ["Phase3D", "GFP"]
    assert listed[1]["source_channel"][0] == "Phase3D"
    assert len(listed[1]["source_channel"]) == 2
    data = yaml.safe_load((tmp_path / "run" / "fit.yml").read_text())["data"]["init_args"]
    assert data["z_range"] == [0, 1]
    assert data["final_yx_patch_size"] == [32, 32]  # cells 20 px apart
    assert data["yx_patch_size"] == [48, 48]
    assert data["tau_range"] == [0.5, 2.0]  # tracks of 4 h
    assert data["val_split"] == {"by": "lineage", "fraction": 0.2}
    assert data["channel_dropout_channels"] == [1]
    assert "cells are 20 px apart" in done.output
    assert "next, in" in done.output


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 7])
def test_what_is_written_trains_unedited(tmp_path, depth):
    store = make_plate(tmp_path / "movie", depth=depth, size=96)
    assert run(store, "--interval-minutes", 10, "-o", tmp_path / "run").exit_code == 0
    command = [
        Path(sys.executable).with_name("dynaclr"),
        "fit",
        "--config",
        "fit.yml",
        "--trainer.fast_dev_run",
        "true",
    ]
    done = subprocess.run(command, cwd=tmp_path / "run", capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr


FACTS = PlateFacts(
    name="a",
    store="a.zarr",
    tracks=Path("tracks"),
    channel_names=("Phase3D", "GFP"),
    n_frames=20,
    depth=1,
    height=512,
    width=600,
    interval_minutes=30.0,
    wells=("A/1",),
    n_fovs=8,
    spacing_px=60.0,
    track_frames=20.0,
    cells_per_table=500.0,
)


@pytest.mark.parametrize(
    ("depth", "z_range", "stem"),
    [
        (1, (0, 1), (1, 4, 4)),
        (3, (0, 3), (3, 4, 4)),
        (5, (0, 5), (5, 4, 4)),
        (17, (1, 16), (5, 4, 4)),
        (45, (7, 37), (5, 4, 4)),
    ],
)
def test_slices_can_be_divided_by_the_stem(depth, z_range, stem):
    from viscy_models import ContrastiveEncoder

    proposal = propose([replace(FACTS, depth=depth)])
    assert (proposal.z_range.value, proposal.stem.value) == (z_range, stem)
    n_slices = z_range[1] - z_range[0]
    ContrastiveEncoder("convnext_tiny", 2, n_slices, stem_kernel_size=stem, stem_stride=stem)


@pytest.mark.parametrize(
    ("spacing", "height", "final", "read"),
    [(60, 512, 96, 136), (300, 512, 480, 512), (float("nan"), 512, 128, 184), (5, 512, 32, 48), (60, 40, 40, 40)],
)
def test_patches_hold_a_cell_and_fit_the_image(spacing, height, final, read):
    proposal = propose([replace(FACTS, spacing_px=spacing, height=height)])
    assert proposal.final_size.value == (final, final)
    assert proposal.read_size.value[0] == read
    assert proposal.read_size.value[1] >= final
    # A patch of 32 pixels, the smallest, has the centres of cells 5 pixels away in it.
    assert ("the next ones are in it too" in proposal.final_size.reason) == (spacing == 5)


def test_fovs_without_a_table_and_tables_without_a_cell_are_said(tmp_path):
    store = make_plate(tmp_path, n_fovs=4)  # A/1/0, B/1/0, A/1/1, B/1/1
    (tmp_path / "tracks" / "B/1/0" / "tracks.csv").unlink()
    write_tracks(read_tracks(tmp_path / "tracks" / "A/1/1" / "tracks.csv").iloc[:0], tmp_path / "empty.csv")
    (tmp_path / "empty.csv").replace(tmp_path / "tracks" / "A/1/1" / "tracks.csv")
    done = run(store, "--interval-minutes", 30, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "1 of 4 FOVs have none and are left out, such as B/1/0" in done.output
    assert "no cell is in A/1/1" in done.output


@pytest.mark.parametrize(
    ("intervals", "frames", "tau"),
    [([30.0], 20, (0.5, 2.0)), ([5.0], 6, (0.083, 0.25)), ([30.0, 180.0], 20, (0.5, 3.0)), ([7.0], 3, (0.116, 0.175))],
)
def test_tau_holds_a_frame_of_every_experiment(intervals, frames, tau):
    plates = [replace(FACTS, name=str(n), interval_minutes=i, track_frames=frames) for n, i in enumerate(intervals)]
    proposal = propose(plates)
    assert proposal.tau_range.value == pytest.approx(tau, abs=1e-3)
    for interval in intervals:
        hours = interval / 60
        assert any(proposal.tau_range.value[0] <= n * hours <= proposal.tau_range.value[1] for n in range(1, 60))


def test_three_experiments_leave_one_to_validate_on():
    plates = [replace(FACTS, name=name) for name in "abc"]
    assert propose(plates).validation.value == {"val_experiments": ["c"]}
    assert propose(plates[:1]).validation.value == {"val_split": {"by": "fov", "fraction": 0.2}}


def test_channels_of_one_colour_meet_and_others_are_said():
    plates = [
        replace(FACTS, name="a", channel_names=("Phase", "GFP", "TagBFP")),
        replace(FACTS, name="b", channel_names=("mCherry-H2B", "Hoechst 33342", "BF LED", "EGFP")),
    ]
    proposal = propose(plates)
    assert proposal.source_channels == {
        "a": ["Phase", "TagBFP", "GFP"],
        "b": ["BF LED", "Hoechst 33342", "EGFP"],
    }
    assert proposal.channels.reason.endswith("; left out: mCherry-H2B of b")
    other = propose([plates[0], replace(FACTS, name="c", channel_names=("Phase", "mCherry", "Cy5"))])
    assert other.source_channels["c"] == ["Phase", "mCherry", "Cy5"]
    assert "check GFP with mCherry, TagBFP with Cy5: together by their order alone" in other.channels.reason


@pytest.mark.parametrize(
    ("column", "change", "told"), [("t", lambda t: t * 600, "divide by 600"), ("t", lambda t: t + 1, "subtract 1")]
)
def test_tables_that_do_not_fit_their_images_are_said(tmp_path, column, change, told):
    store = make_plate(tmp_path / "day1", n_fovs=1)
    (path,) = (tmp_path / "day1" / "tracks").rglob("*.csv")
    table = pd.read_csv(path)
    table.assign(**{column: change(table[column])}).to_csv(path, index=False)
    done = run(store, "--interval-minutes", 30, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "look at the tables of day1: " in done.output
    assert told in done.output


def test_pixels_of_other_sizes_are_said():
    plates = [replace(FACTS, name="a", pixel_size=0.65), replace(FACTS, name="b", pixel_size=1.3)]
    assert "pixels differ (a 0.65, b 1.3)" in propose(plates).final_size.reason
    assert "pixels" not in propose([plates[0], replace(plates[1], pixel_size=None)]).final_size.reason


def test_channels_of_one_name_meet_at_one_position():
    plates = [
        replace(FACTS, name="a", channel_names=("DAPI", "BF", "GFP")),
        replace(FACTS, name="b", channel_names=("GFP", "Cy5", "Brightfield")),
    ]
    chosen = propose(plates).source_channels
    assert chosen == {"a": ["BF", "GFP", "DAPI"], "b": ["Brightfield", "GFP", "Cy5"]}
    one_lacks = [plates[0], replace(FACTS, name="b", channel_names=("GFP",))]
    assert propose(one_lacks).source_channels == {"a": ["GFP"], "b": ["GFP"]}
    assert propose(one_lacks).dropped_channels == []


def test_the_interval_of_the_metadata_is_used(tmp_path):
    store = make_plate(tmp_path / "movie")
    path = store / "A" / "1" / "0" / "zarr.json"
    assert look_at(store, None).interval_minutes is None
    document = json.loads(path.read_text())
    image = document["attributes"]["ome"]["multiscales"][0]
    image["axes"][0] |= {"type": "time", "unit": "second"}
    image["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [90.0, 1, 1, 1, 1]}]
    path.write_text(json.dumps(document))
    assert look_at(store, None).interval_minutes == 1.5


def test_bad_input_is_told(tmp_path):
    store = make_plate(tmp_path / "movie")
    for arguments, message in (
        ((store, "-o", tmp_path / "run"), "--interval-minutes 30"),
        ((store, "--interval-minutes", 30, "--tracks", tmp_path), "no tracking table of any of the 2 FOVs"),
        ((store, store, "--tracks", tmp_path, "--interval-minutes", 30), "1 for 2 stores"),
        ((tmp_path / "nothing.zarr", "--interval-minutes", 30), "nothing.zarr"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2, done.output
        assert message in done.output
    assert run(store, "--interval-minutes", 30, "-o", tmp_path / "run").exit_code == 0
    again = run(store, "--interval-minutes", 30, "-o", tmp_path / "run")
    assert again.exit_code == 2
    assert "--overwrite" in again.output
    with pytest.raises(InputError, match="tracks of a single frame"):
        propose([replace(FACTS, track_frames=1.0)])
