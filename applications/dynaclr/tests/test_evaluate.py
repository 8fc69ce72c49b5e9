"""What `dynaclr evaluate` reports, leaves out and refuses."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from click.testing import CliRunner
from matplotlib import image

from dynaclr.commands.evaluate import evaluate
from viscy_utils.embeddings.store import write_anndata
from viscy_utils.runs.folder import claim_folder, update_record

N_TRACKS, N_FRAMES = 24, 4
CURVES = ("curves.csv", "curves.png")


def cells() -> tuple[np.ndarray, pd.DataFrame]:
    """Two experiments of two wells of two FOVs; the first feature tells the state of a track."""
    rng = np.random.default_rng(0)
    track = np.repeat(np.arange(N_TRACKS), N_FRAMES)
    infected = track % 2 == 0
    obs = pd.DataFrame(
        {
            "experiment": np.where(track < N_TRACKS // 2, "first", "second"),
            "fov_name": np.array(["A/1/0", "A/1/1", "B/1/0", "B/1/1"])[track // 3 % 4],
            "track_id": track,
            "t": np.tile(np.arange(N_FRAMES), N_TRACKS),
            "hours_post_infection": 3 + 0.5 * np.tile(np.arange(N_FRAMES), N_TRACKS),
            "condition": np.where(track // 6 % 2, "virus", "mock"),
            "infection": np.where(infected, "infected", "healthy"),
        },
        index=[str(row) for row in range(len(track))],
    )
    features = rng.normal(size=(len(track), 6)).astype(np.float32)
    features[:, 0] += 6 * infected
    return features, obs


@pytest.fixture
def stored(tmp_path):
    """Return a factory of stores: of the cells, after a change."""

    def make(change=lambda features, obs: None, name="embeddings.zarr", uns=None) -> Path:
        features, obs = cells()
        changed = change(features, obs)
        obs = obs if changed is None else changed
        write_anndata(anndata.AnnData(features, obs=obs, uns=uns or {}), tmp_path / name)
        return tmp_path / name

    return make


def run(tmp_path, *arguments, label="infection"):
    options = ["--label", label, "--output-dir", str(tmp_path / "report")]
    return CliRunner().invoke(evaluate, [*map(str, arguments), *options], env={"COLUMNS": "160"})


def report(tmp_path, *arguments, label="infection") -> tuple[dict, str]:
    """Return the first row of report.json, and what the command printed."""
    done = run(tmp_path, *arguments, label=label)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report" / "report.md").read_text()
    (row, *_) = json.loads((tmp_path / "report" / "report.json").read_text())
    for entry in row["left_out"]:  # the report on paper and the terminal say what the JSON counts
        for text in (done.output, page):
            assert f"{entry['n_cells']} cells left out: {entry['reason']}" in " ".join(text.split())
    return row, done.output


def test_the_embeddings_of_a_run_are_found_by_its_name(tmp_path, stored, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("early", "late"):
        folder = claim_folder(name)
        update_record(folder, predictions=["embeddings.zarr"], started=f"2026-01-0{1 + (name == 'late')}T00:00:00")
    stored().rename(tmp_path / "runs" / "late" / "embeddings.zarr")
    assert "no embeddings" in refused(tmp_path, "--run", "early")
    assert "no such folder" in refused(tmp_path, "--run", "lat")
    assert "--embeddings PATH or --run RUN" in refused(tmp_path)
    assert report(tmp_path, "--run", "latest")[0]["name"] == "late"


def refused(tmp_path: Path, *arguments: str, label="infection") -> str:
    result = run(tmp_path, *arguments, label=label)
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "report").exists()
    assert len(result.stderr) < 1000
    return result.stderr


@pytest.mark.parametrize("missing", ["", "nan", None, np.nan], ids=repr)
def test_a_third_of_the_cells_without_a_label_are_left_out_and_counted(stored, tmp_path, missing):
    def unlabel(features, obs):
        obs["infection"] = obs["infection"].astype(object)
        obs.loc[obs["track_id"] % 3 == 0, "infection"] = missing
        obs["infection"] = pd.Categorical(obs["infection"])

    row, _ = report(tmp_path, "-e", stored(unlabel))
    assert row["left_out"][0]["reason"] == "no infection"
    assert row["left_out"][0]["n_cells"] == N_TRACKS * N_FRAMES / 3
    assert row["left_out"][0]["examples"][0] == "first/A/1/0/0/0"
    assert row["probe"]["chance"] == 0.5
    assert row["probe"]["value"] > 0.95
    assert row["n_cells"] == row["probe"]["n_cells"] == N_TRACKS * N_FRAMES * 2 / 3


def test_cells_of_wells_that_name_no_condition_are_left_out_and_counted(stored, tmp_path):
    def unname(features, obs):
        obs.loc[obs["fov_name"] == "B/1/1", "condition"] = "unknown"

    row, _ = report(tmp_path, "-e", stored(unname), label="condition")
    assert [entry["reason"] for entry in row["left_out"]] == ["condition is 'unknown'"]
    assert row["left_out"][0]["n_cells"] == N_TRACKS * N_FRAMES / 4
    assert row["probe"]["chance"] == 0.5


def test_cells_with_features_that_are_not_finite_are_left_out_and_named(stored, tmp_path):
    def spoil(features, obs):
        features[[5, 17], [0, 3]] = np.nan, np.inf

    row, _ = report(tmp_path, "-e", stored(spoil))
    assert row["left_out"] == [
        {"reason": "features that are not finite", "n_cells": 2, "examples": ["first/A/1/0/1/1", "first/A/1/1/4/1"]}
    ]


def test_embeddings_without_hours_are_reported_without_that_panel(stored, tmp_path):
    report(tmp_path, "-e", stored())
    with_hours = image.imread(tmp_path / "report" / "report.png")
    without = stored(lambda features, obs: obs.drop(columns="hours_post_infection"), "without.zarr")
    row, _ = report(tmp_path, "-e", without, "--overwrite")
    assert row["probe"]["value"] > 0.95
    assert image.imread(tmp_path / "report" / "report.png").shape == with_hours.shape


def test_names_of_fovs_match_whatever_their_slashes_and_rows_without_a_match_are_counted(stored, tmp_path):
    _, obs = cells()
    table = obs[["experiment", "fov_name", "track_id", "t", "infection"]].iloc[:-8].copy()
    table["fov_name"] = "/" + table["fov_name"] + "/"
    table.loc[table.index[:4], "fov_name"] = "Z/9/9"
    table.to_csv(tmp_path / "labels.csv", index=False)
    bare = stored(lambda features, obs: obs.drop(columns="infection"))
    row, output = report(tmp_path, "-e", bare, "--labels", tmp_path / "labels.csv")
    assert row["left_out"][0]["n_cells"] == 8 + 4
    assert "labels.csv" in row["left_out"][0]["reason"]
    assert f"4 of {len(table)} rows of" in " ".join(output.split())
    assert row["probe"]["value"] > 0.95


def test_a_table_of_other_cells_is_refused_with_a_name_of_each_side(stored, tmp_path):
    _, obs = cells()
    obs.assign(experiment="third").to_csv(tmp_path / "labels.csv", index=False)
    bare = stored(lambda features, obs: obs.drop(columns="infection"))
    message = refused(tmp_path, "-e", bare, "--labels", tmp_path / "labels.csv")
    assert "third/A/1/0/0/0" in message
    assert "first/A/1/0/0/0" in message


@pytest.mark.parametrize("label", ["hours_post_infection", "area"])
def test_a_continuous_column_is_no_label(stored, tmp_path, label):
    def measure(features, obs):
        obs["area"] = np.arange(len(obs)) + 100

    message = refused(tmp_path, "-e", stored(measure), label=label)
    assert "different numbers" in message
    assert "a column of classes" in message
    assert label in message


def test_a_smooth_embedding_is_not_the_best_one_if_its_probe_is_at_chance(stored, tmp_path):
    def forget(features, obs):
        features[:] = np.random.default_rng(1).normal(size=(N_TRACKS, 6))[obs["track_id"]]
        features += 0.01 * np.random.default_rng(2).normal(size=features.shape)

    told, smooth = stored(name="told.zarr"), stored(forget, "smooth.zarr")
    report(tmp_path, "-e", told, "-e", smooth)
    rows = json.loads((tmp_path / "report" / "report.json").read_text())
    assert rows[1]["smoothness"] < rows[0]["smoothness"]
    lines = (tmp_path / "report" / "report.md").read_text().splitlines()
    told_row, smooth_row = (
        next(line for line in lines if line.startswith(f"| {name} ")) for name in ("told", "smooth")
    )
    assert told_row.split("|")[4].strip().endswith("(best)")
    assert smooth_row.split("|")[4].strip().endswith("the probe is at chance")


def test_a_report_says_how_many_cells_and_repeats_bit_for_bit(stored, tmp_path):
    report(tmp_path, "-e", stored(), "--test-experiment", "second")
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    assert set(before) == {"report.html", "report.json", "report.csv", "report.md", "report.png", "mixing.png", *CURVES}
    report(tmp_path, "-e", tmp_path / "embeddings.zarr", "--test-experiment", "second", "--overwrite")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    table = pd.read_csv(tmp_path / "report" / "report.csv")
    assert table["n_cells"].tolist() == [N_TRACKS * N_FRAMES]
    assert table["probe_chance"].tolist() == [0.5]


def test_without_plotly_the_rest_is_written_and_the_extra_named(stored, tmp_path, monkeypatch):
    report(tmp_path, "-e", stored())
    monkeypatch.setitem(sys.modules, "plotly", None)
    _, output = report(tmp_path, "-e", tmp_path / "embeddings.zarr", "--overwrite")
    assert "pip install 'dynaclr[eval]'" in output
    # No page of an earlier report is left beside new numbers.
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        *("report.json", "report.csv", "report.md", "report.png", "mixing.png", *CURVES)
    }


def test_the_page_says_what_was_found_what_was_left_out_and_where_it_is_from(stored, tmp_path):
    def spoil(features, obs):
        features[5] = np.nan
        obs["experiment"] = obs["experiment"].replace("second", "<b>second</b>")

    checkpoint = {"path": "best.ckpt", "blake2b": "c0ffee", "epoch": 4}
    uns = {"origin": {"checkpoint": checkpoint, "date": "2026-03-01T10:00:00+00:00", "versions": {"torch": "2.9"}}}
    report(tmp_path, "-e", stored(spoil, uns=uns), "--test-experiment", "<b>second</b>")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf8")
    for words in (
        "embeddings: infection is read off at",
        "c0ffee",
        "epoch 4",
        "2026-03-01",
        "2.9",
        "first/A/1/0/1/1",
    ):
        assert words in page
    for words in (
        "features that are not finite",
        "no images of cells",
        "&lt;b&gt;second&lt;/b&gt; (held out)",
        ", chance 0.5.",
    ):
        assert words in page
    assert "<b>" not in page[page.index("<body>") :]


def test_maps_that_the_store_holds_are_shown_without_the_rows_that_are_left_out(stored, tmp_path):
    path = stored(lambda features, obs: features.__setitem__(5, np.nan))
    table = anndata.read_zarr(path)
    table.obsm["X_umap_combined"] = np.arange(3 * len(table)).reshape(-1, 3).astype(np.float32)
    write_anndata(table, tmp_path / "mapped.zarr")
    report(tmp_path, "-e", tmp_path / "mapped.zarr")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf8")
    data = json.loads(page.partition('id="map-data">')[2].partition("</script>")[0])
    view = data["views"][0]
    assert view["name"] == "mapped: UMAP combined"
    assert view["words"] == f"Map of mapped by UMAP combined: {len(table) - 1} of {len(table) - 1} cells."
    x = np.frombuffer(base64.b64decode(view["x"]["base64"]), "<f4")
    assert sorted(x) == [3 * row for row in range(len(table)) if row != 5]


def test_a_report_that_is_there_is_kept_unless_told(stored, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.md").write_text("mine")
    done = run(tmp_path, "-e", stored())
    assert done.exit_code == 2
    assert "report.md exists" in done.stderr
    assert "--overwrite" in done.stderr
    assert (tmp_path / "report" / "report.md").read_text() == "mine"


def test_two_stores_of_one_name_are_refused_until_they_have_names(stored, tmp_path):
    (tmp_path / "other").mkdir()
    first, second = stored(), stored(name="other/embeddings.zarr")
    message = refused(tmp_path, "-e", first, "-e", second)
    assert "a second store called 'embeddings'" in message
    report(tmp_path, f"one={first}", "-e", f"two={second}")  # with and without the option
    names = [row["name"] for row in json.loads((tmp_path / "report" / "report.json").read_text())]
    assert names == ["one", "two"]


def test_tables_that_were_tracked_again_and_encoders_that_are_the_same_are_noticed(stored, tmp_path):
    """As `predict` writes it: the data of an origin are JSON, as their keys may be paths."""

    def origin(weights, digest):
        source = {"store": "plate.zarr", "fovs": 4, "observations": 96, "digest": digest}
        return {
            "checkpoint": {"path": "best.ckpt", "blake2b": weights},
            "data": json.dumps({"sources": {"predict": [source]}}),
        }

    def moved(features, obs):
        obs["y"], obs["x"] = np.arange(len(obs)) + 5.0, 1.0

    def first(features, obs):
        obs["y"], obs["x"] = np.arange(len(obs)) + 0.0, 1.0

    stores = [
        stored(first, "a.zarr", {"origin": origin("abc", "1")}),
        stored(moved, "b.zarr", {"origin": origin("abc", "2")}),
    ]
    row, output = report(tmp_path, "-e", stores[0], "-e", stores[1])
    page = " ".join(output.split())
    assert "a and b are of one encoder: best.ckpt" in page
    assert "a and b are of different cells of plate.zarr (96 and 96 observations)" in page
    assert "96 cells of equal names are at different places" in page
    assert row["origin"]["checkpoint"]["blake2b"] == "abc"
    assert any("one encoder" in note for note in row["notes"])


def test_evaluate_names_a_store_that_is_missing(stored, tmp_path):
    message = refused(tmp_path, "-e", str(tmp_path / "absent.zarr"))
    assert "absent.zarr" in message
    assert "predict" in message
    stored()
    assert "did you mean 'embeddings.zarr'" in refused(tmp_path, "-e", str(tmp_path / "embedings.zarr"))


def test_evaluate_says_what_it_was_given_instead_of_embeddings(tmp_path):
    (tmp_path / "predict.yml").write_text("data: {}")
    (tmp_path / "folder").mkdir()
    zarr.open_group(tmp_path / "plate.zarr", mode="w").attrs["plate"] = {}
    for name, found in (("predict.yml", "a YAML file"), ("folder", "no zarr group"), ("plate.zarr", "an image store")):
        message = refused(tmp_path, "-e", str(tmp_path / name))
        assert found in message
        assert "a store of embeddings" in message


def test_evaluate_names_the_columns_when_a_label_is_unknown(tmp_path, stored):
    assert "did you mean 'infection'" in refused(tmp_path, "-e", stored(), label="infektion")


def test_evaluate_names_the_experiments_when_one_is_unknown(tmp_path, stored):
    message = refused(tmp_path, "-e", stored(), "--test-experiment", "third")
    assert "third" in message
    assert "first, second" in message


def test_evaluate_names_columns_that_a_table_of_labels_lacks(tmp_path, stored):
    table = tmp_path / "labels.csv"
    pd.DataFrame({"experiment": ["first"], "t": [0], "infection": ["healthy"]}).to_csv(table, index=False)
    message = refused(tmp_path, "-e", stored(), "--labels", str(table))
    assert "fov_name, track_id" in message
    assert "labels.csv" in message
