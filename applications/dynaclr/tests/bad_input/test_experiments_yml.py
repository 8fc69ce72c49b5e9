"""Experiments that cannot be used: fields of ``experiments.yml``, stores and tracking tables."""

from __future__ import annotations

import pandas as pd
import pytest

pytest_plugins = ["viscy_data.testing.fixtures"]

FILES = [
    ("", "experiments.yml\n.*an empty file\n.*the key `experiments`"),
    ("experiments: [\na", "experiments.yml\n.*no YAML.*line 3"),
    ("experiment:\n - name: a\n", "experiments.yml\n.*the keys experiment\n.*the key `experiments`"),
    ("- name: a\n", "experiments.yml\n.*a list without keys"),
    ("experiments: []\n", r"experiments.yml, field experiments\n.*\[\]\n.*at least one"),
    ("experiments: {a: 1}\n", "experiments.yml, field experiments\n.*'a'.*\n"),
    ("experiments: [a]\n", "experiments.yml: experiment 1\n.*'a'\n.*fields and values"),
    ("experiments: [{name: a}]\ndefaults: {}\n", "experiments.yml, field defaults\n.*unknown key"),
]


@pytest.mark.parametrize(("text", "pattern"), FILES, ids=[text or "empty" for text, _ in FILES])
def test_the_file_lists_no_experiments(place, text, pattern):
    place.write("experiments.yml", text)
    place.refused("fit --config fit.yml", pattern)


FIELDS = [
    ({"interval_minute": 5}, "interval_minute\n.*unknown key\n.*did you mean 'interval_minutes'"),
    *(
        ({name: None}, f"experiment .*field {name}\n.*nothing")
        for name in ("name", "data_path", "tracks_path", "channel_names", "source_channel")
    ),
    ({"data_path": "first/image.zarr"}, "data_path\n.*image.zarr: nothing\n.*OME-Zarr.*\n.*did you mean 'images.zarr'"),
    ({"data_path": "first/tracks"}, "data_path\n.*a folder without Zarr metadata\n.*OME-Zarr"),
    ({"data_path": "fit.yml"}, "data_path\n.*a file\n.*which is a folder"),
    ({"data_path": "runs/trained/embeddings.zarr"}, "data_path\n.*without plate metadata.*\n.*metadata of a plate"),
    ({"tracks_path": "first/track"}, "tracks_path\n.*no folder .*first/track\n.*\n.*did you mean 'tracks'"),
    ({"tracks_path": "fit.yml"}, "tracks_path\n.*a file .*fit.yml\n.*the folder of the tracking tables"),
    ({"tracks_path": "runs"}, "tracks_path\n.*no tracking table.*2 FOVs\n.*A/1/0/tracks.csv\n.*row/column/fov"),
    ({"name": "second"}, "name\n.*2 experiments of the name 'second'\n.*of its own.*\n.*rename"),
    ({"name": 3}, "name\n.*3\n.*a text\n.*in quotes"),
    ({"source_channel": ["Phase3D", "GPF"]}, "source_channel\n.*'GPF'\n.*did you mean 'GFP'"),
    ({"source_channel": ["Phase3D", "Phase3D"]}, "source_channel\n.*\n.*each once"),
    ({"source_channel": "Phase3D"}, r"source_channel\n.*the text 'Phase3D'\n.*\n.*\[Phase3D\]"),
    ({"source_channel": []}, "source_channel\n.*\n.*at least one channel"),
    ({"source_channel": ["Phase3D"]}, "source_channel\n.*2 channels.*\n.*1 as in 'first'.*\n.*training_channels: all"),
    ({"channel_names": ["BF", "GFP"]}, "source_channel\n.*'Phase3D'\n.*'BF', 'GFP'"),
    ({"channel_names": [1, 2]}, "channel_names\n.*\n.*\n.*in quotes"),
    ({"condition_wells": {"uninfected": ["A/1"], "infected": ["B/7"]}}, "condition_wells.*\n.*'B/7'\n.*'B/1'"),
    ({"condition_wells": {"uninfected": ["A1"], "infected": ["B/1"]}}, "condition_wells.*\n.*'A1'\n.*'A/1'"),
    ({"condition_wells": ["A/1"]}, "condition_wells\n.*\n.*\n.*or leave it out"),
    ({"condition_wells": {"uninfected": "A/1"}}, r"condition_wells.*\n.*the text 'A/1'\n.*\n.*\[A/1\]"),
    (
        {"condition_wells": {"uninfected": ["A/1", "B/1"], "infected": ["B/1"]}},
        "condition_wells\n.*B/1.*\n.*one condition",
    ),
    ({"condition_wells": {"uninfected": ["A/1"]}}, r"condition_wells\n.*\(\d+%\).*B/1\n.*\n.*default_condition"),
    ({"interval_minutes": 0}, "interval_minutes\n.*0\n.*more than 0"),
    ({"interval_minutes": -5}, "interval_minutes\n.*-5\n.*more than 0"),
    ({"interval_minutes": "half"}, "interval_minutes\n.*'half'\n.*a number"),
    ({"interval_minutes": float("nan")}, "interval_minutes\n.*nan\n.*a number"),
    ({"start_hpi": "later"}, "start_hpi\n.*'later'\n.*a number"),
]


@pytest.mark.parametrize(("change", "pattern"), FIELDS, ids=[str(change) for change, _ in FIELDS])
def test_a_field_of_an_experiment_is_wrong(place, change, pattern):
    place.entry.update(change)
    for name in [name for name, value in change.items() if value is None]:
        del place.entry[name]
    place.refused("fit --config fit.yml", "experiment", pattern)


def _cycle(table):
    one, two = table["track_id"].unique()[:2]
    return table.assign(parent_track_id=table["track_id"].map({one: two, two: one}).fillna(-1).astype(int))


TABLES = {
    "no column y": (lambda t: t.drop(columns="y"), ", field y\n.*columns track_id, t"),
    "no column track_id": (lambda t: t.drop(columns="track_id"), ", field track_id\n"),
    "frame for t": (lambda t: t.rename(columns={"t": "frame"}), ", field t\n.*frame"),
    "a text": (lambda t: t.assign(y="here"), ", field y\n.*'here' in line 2, and .* more\n.*a number"),
    "no value": (lambda t: t.assign(y=t["y"].where(t.index > 0)), ", field y\n.*nothing in line 2\n.*finite number"),
    "infinity": (lambda t: t.assign(x=t["x"].where(t.index > 0, float("inf"))), ", field x\n.*inf in line 2"),
    "a row twice": (lambda t: pd.concat([t, t.iloc[:1]]), "track_id, t\n.*track 0 more than once in frame 0"),
    "half a frame": (lambda t: t.assign(t=t["t"] + 0.5), ", field t\n.*0.5 in line 2.*\n.*whole number"),
    "negative frames": (lambda t: t.assign(t=t["t"] - 5), ", field t\n.*-5 in line 2.*\n.*0 or more"),
    "a parent by name": (lambda t: t.assign(parent_track_id="mother"), ", field parent_track_id\n.*'mother' in line 2"),
    "its own ancestor": (_cycle, "parent_track_id\n.*their own ancestors\n"),
}


@pytest.mark.parametrize(("change", "pattern"), TABLES.values(), ids=TABLES)
def test_a_tracking_table_is_wrong(place, change, pattern):
    place.change_table(change)
    place.refused("fit --config fit.yml", r"tracks/A/1/0/tracks_A_1_0\.csv", pattern)


def _first_table(place):
    return min((place.own() / "tracks").rglob("*.csv"))


DAMAGE = {
    "table of nothing": (lambda place: _first_table(place).write_text(""), "tracks_A_1_0.csv\n.*an empty file"),
    "table without a header": (
        lambda place: (lambda path: path.write_text(path.read_text().partition("\n")[2]))(_first_table(place)),
        "tracks_A_1_0.csv",
    ),
    "two tables": (
        lambda place: _first_table(place).with_name("old.csv").touch(),
        "tracks/A/1/0\n.*2 CSV files: old.csv, tracks_A_1_0.csv\n.*one tracking table per FOV",
    ),
    "tables of a spreadsheet": (
        lambda place: [path.rename(path.with_suffix(".xlsx")) for path in (place.own() / "tracks").rglob("*.csv")],
        "'first', field tracks_path\n.*no tracking table",
    ),
    "no metadata of the plate": (
        lambda place: (place.own() / "images.zarr" / "zarr.json").unlink(),
        "data_path\n.*images.zarr: a folder without Zarr metadata",
    ),
    "broken metadata of the plate": (
        lambda place: (place.own() / "images.zarr" / "zarr.json").write_text("{"),
        "images.zarr/zarr.json.*no JSON",
    ),
    "broken pixels": (
        lambda place: [path.write_bytes(b"xx") for path in place.own().rglob("c/**/*") if path.is_file()],
        "field data_path(.|\n)*FOV A/1/0, frame 0, channel 'Phase3D'(.|\n)*copy or write this FOV anew",
    ),
}


@pytest.mark.parametrize(("damage", "pattern"), DAMAGE.values(), ids=DAMAGE)
def test_a_file_of_an_experiment_is_damaged(place, damage, pattern):
    damage(place)
    place.refused("fit --config fit.yml", pattern)


def test_statistics_that_are_missing_come_with_the_command_that_makes_them(place):
    (place.own() / "images.zarr").resolve()
    for path in (place.folder / "first" / "images.zarr").rglob("zarr.json"):
        text = path.read_text().replace('"normalization"', '"another"')
        path.write_text(text)
    place.refused("fit --config fit.yml", "fov_statistics", "'first'|first/images.zarr", "preprocess")
