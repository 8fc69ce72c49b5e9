"""`dynaclr info`: whatever it is given, it recognises, and says what to do with it next."""

from __future__ import annotations

import json
import pickle
import shlex
from pathlib import Path

import anndata
import dask.array
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
import zarr
from click.testing import CliRunner
from lightning.pytorch.demos.boring_classes import BoringModel

from dynaclr.commands.info import info
from dynaclr.evaluation.atlas_export import export_atlas
from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from viscy_data.cache import readable_size
from viscy_data.stores import PlateWriter, update_attributes
from viscy_data.synthetic import ExperimentSpec, write_experiments
from viscy_data.testing.foreign import write_foreign_image
from viscy_data.testing.trackers import (
    lineage_table,
    write_btrack_csv,
    write_btrack_hdf5,
    write_ctc,
    write_trackmate_csv,
    write_trackmate_xml,
)
from viscy_data.tracks import write_geff, write_napari, write_tracks
from viscy_utils.cli import main as viscy
from viscy_utils.embeddings.store import write_anndata
from viscy_utils.evaluation.correction import fit_correction, save_correction
from viscy_utils.evaluation.linear_classifier import train_linear_classifier
from viscy_utils.evaluation.linear_classifier_file import save_classifier
from viscy_utils.statistics.metadata import generate_normalization_metadata

BORING = "lightning.pytorch.demos.boring_classes"


def run(path, *options):
    return CliRunner().invoke(info, [str(path), *options], env={"COLUMNS": "200"})


def told(path):
    """Return what is said for programs; what is said for people has the same."""
    result = run(path, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.output)
    shown = run(path).output
    assert shown.startswith(f"{path}: {content['kind']}\n")
    assert all(f"next: {step}" in shown for step in content["next"])
    return content


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    specs = [ExperimentSpec(name, n_frames=4, n_cells=4, shape=(1, 64, 64)) for name in ("monday", "tuesday")]
    return write_experiments(specs, tmp_path_factory.mktemp("experiments"))


@pytest.fixture(scope="module")
def registry(experiments):
    return ExperimentRegistry.from_yaml(experiments)


# stores and experiments


def test_a_store_is_told_with_its_layout(registry):
    [own, _] = registry.experiments
    fovs = registry.fovs["monday"]
    content = told(own.data_path)
    assert content["kind"] == "an image store (HCS OME-Zarr)"
    assert content["facts"]["channels"] == list(fovs[0].channel_names)
    assert content["facts"]["FOVs"].startswith(f"{len(fovs)}: {fovs[0].name}")
    [[row]] = content["tables"]
    assert row["T, C, Z, Y, X"] == " ".join(map(str, fovs[0].shape))
    assert row["dtype"] == fovs[0].dtype
    assert row["chunks"].endswith("64 64")
    assert content["next"][-1] == f"dynaclr init {fovs[0].store} --tracks TRACKS"
    one = told(f"{own.data_path}/{fovs[0].name}")
    assert one["kind"] == "a FOV of a plate (OME-Zarr)"


def test_an_image_that_is_in_no_plate_is_told(tmp_path):
    write_foreign_image(tmp_path / "movie.zarr", np.zeros((3, 8, 9), np.uint8), "tyx", ["Phase"])
    content = told(tmp_path / "movie.zarr")
    assert content["kind"] == "an image in no plate (OME-Zarr)"
    assert content["facts"]["FOVs"] == "1: movie.zarr"
    assert content["next"][-1] == f"dynaclr init {tmp_path / 'movie.zarr'} --tracks TRACKS"


def test_statistics_are_there_or_not(registry, tmp_path):
    with PlateWriter(tmp_path / "plate.zarr", ["Phase"]) as writer:
        for name in ("A/1/0", "A/1/1"):
            writer.write(name, np.zeros((1, 1, 1, 16, 16), np.uint8))
    content = told(tmp_path / "plate.zarr")
    assert content["facts"]["normalisation statistics"] == "none"
    assert content["next"][0] == f"dynaclr preprocess --data_path {tmp_path / 'plate.zarr'}"
    statistics = {"Phase": {"fov_statistics": {"mean": 0.0, "std": 1.0}}}
    update_attributes(tmp_path / "plate.zarr", "A/1/0", "normalization", statistics)
    said = told(tmp_path / "plate.zarr")["facts"]["normalisation statistics"]
    assert said == "fov_statistics; all channels in 1 of 2 FOVs"
    update_attributes(tmp_path / "plate.zarr", "A/1/1", "normalization", statistics)
    assert [step.split()[1] for step in told(tmp_path / "plate.zarr")["next"]] == ["init"]
    # Stores of label images often hold the tables of their FOVs.
    write_tracks(lineage_table(), tmp_path / "plate.zarr/A/1/0/tracks.csv")
    content = told(tmp_path / "plate.zarr")
    assert content["kind"] == "an image store (HCS OME-Zarr) with tracking tables"
    assert content["next"] == [f"dynaclr init PLATE --tracks {tmp_path / 'plate.zarr'}"]


def test_files_of_microscopes_lead_to_their_import(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    (tmp_path / "day" / "raw").mkdir(parents=True)
    for number in range(70):
        tifffile.imwrite(tmp_path / f"day/raw/A01_s0_t{number}.tif", np.zeros((24, 32), np.uint16))
    tifffile.imwrite(
        tmp_path / "day/raw/B01.tif", np.zeros((2, 16, 16), np.uint8), imagej=True, metadata={"axes": "CYX"}
    )
    (tmp_path / "day/notes.txt").write_text("hello")
    content = told(tmp_path / "day")
    assert content["kind"] == "images of a microscope"
    assert content["facts"]["files"] == ["71 .tif"]
    assert content["facts"]["looked at"] == "the first 64 files"
    assert content["tables"] == [[{"positions": "64", "T, C, Z, Y, X": "1 1 1 24 32", "dtype": "uint16"}]]
    assert content["next"] == [f"dynaclr import-images {tmp_path / 'day'} --output plate.zarr --dry-run"]
    [[row]] = told(tmp_path / "day/raw/B01.tif")["tables"]
    assert row == {"positions": "1", "T, C, Z, Y, X": "1 2 1 16 16", "dtype": "uint8"}
    write_ctc(tmp_path / "ctc", lineage_table())  # masks are TIFFs, too
    assert told(tmp_path / "ctc")["kind"] == "tracks"


def test_experiments_and_configurations_are_told(experiments, tmp_path):
    content = told(experiments)
    assert content["kind"] == "experiments"
    assert [row["experiment"] for row in content["tables"][0]] == ["monday", "tuesday"]
    (tmp_path / "fit.yml").write_text("model:\n  class_path: a.Model\ndata:\n  class_path: a.Data\n")
    content = told(tmp_path / "fit.yml")
    assert content["facts"] == {"model": "a.Model", "data": "a.Data"}
    assert content["next"][-1] == f"dynaclr fit --config {tmp_path / 'fit.yml'}"


# tracks


@pytest.mark.parametrize(
    ("name", "write", "form"),
    [
        ("a.csv", lambda path, table: write_tracks(table, path), "table"),
        ("b.csv", lambda path, table: write_btrack_csv(path, table), "btrack"),
        ("a.h5", lambda path, table: write_btrack_hdf5(path, table), "btrack-hdf5"),
        ("a.xml", lambda path, table: write_trackmate_xml(path, table), "trackmate-xml"),
        ("spots.csv", lambda path, table: write_trackmate_csv(path, table), "trackmate-csv"),
        ("ctc", lambda path, table: write_ctc(path, table), "ctc"),
        ("a.npz", lambda path, table: write_napari(table, path), "napari"),
        ("a.geff", lambda path, table: write_geff(table, path), "geff"),
    ],
)
def test_tracks_of_every_program_are_summarised(tmp_path, name, write, form):
    write(tmp_path / name, lineage_table())
    content = told(tmp_path / name)
    assert content["kind"] == "tracks"
    assert content["facts"]["format"].startswith(f"{form}: ")
    [[row]] = content["tables"]
    divisions, later = ("0", "50%") if form == "trackmate-csv" else ("1", "62%")  # its table has no links
    assert row == {
        "FOV": name,
        "cells": "8",
        "tracks": "4",
        "median length": "2",
        "gaps": "1",
        "divisions": divisions,
        "with a later one": later,
    }
    assert content["next"] == [f"dynaclr import-tracks {tmp_path / name} --store PLATE -o tracks"]


def test_commands_to_go_on_with_can_be_pasted_whatever_the_path_is_called(tmp_path):
    path = tmp_path / "Zellen größe 1" / "it's.csv"
    write_tracks(lineage_table(), path)
    [step] = told(path)["next"]
    assert shlex.split(step) == ["dynaclr", "import-tracks", str(path), "--store", "PLATE", "-o", "tracks"]


def test_a_folder_of_tables_is_summarised_by_fov(tmp_path):
    for name in ("A/1/0", "B/1/0"):
        write_tracks(lineage_table(), tmp_path / "tracks" / name / "tracks.csv")
    content = told(tmp_path / "tracks")
    assert content["facts"]["cells"] == 16
    assert [row["FOV"] for row in content["tables"][0]] == ["A/1/0", "B/1/0"]
    assert content["next"] == [f"dynaclr init PLATE --tracks {tmp_path / 'tracks'}"]


# what the commands write


def test_an_index_is_told_and_whether_it_is_stale(registry, tmp_path):
    index = MultiExperimentIndex(registry, slice(0, 1), (8, 8), (0.5, 1.0))
    index.save(tmp_path / "index.parquet")
    content = told(tmp_path / "index.parquet")
    assert content["kind"] == "an index of cells"
    assert (content["facts"]["cells"], content["facts"]["anchors"]) == (len(index.tracks), len(index.anchor_rows))
    assert "descendants" in content["facts"]["positives"]
    assert content["facts"]["state"] == "up to date"
    table = min(Path(registry.experiments[0].tracks_path).glob("**/*.csv"))
    before = table.read_bytes()
    table.write_bytes(before + b"\n")
    assert told(tmp_path / "index.parquet")["facts"]["state"].startswith("1 tables have changed since")
    table.write_bytes(before)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    assert run(tmp_path / "other.parquet").exit_code == 2


def embeddings(path):
    obs = pd.DataFrame({"experiment": "first", "fov_name": "A/1/0", "track_id": np.arange(40), "t": 0})
    obs["state"] = np.where(np.arange(40) % 2, "infected", "healthy")
    obs.index = obs.index.astype(str)
    features = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    features[:, 0] += 5 * (np.arange(40) % 2)
    adata = anndata.AnnData(features, obs=obs, obsm={"X_projections": features[:, :2]})
    adata.uns["origin"] = {
        "checkpoint": {"path": "/runs/a/best.ckpt", "epoch": 3, "step": 70},
        "model": "dynaclr.engine.ContrastiveModule",
        "date": "2026-01-02T03:04:05+00:00",
        "versions": {"torch": "2.7"},
        "data": "null",
        "options": "{}",
    }
    write_anndata(adata, path)
    return adata


def test_embeddings_are_told_with_their_origin(tmp_path):
    embeddings(tmp_path / "e.zarr")
    content = told(tmp_path / "e.zarr")
    facts = content["facts"]
    assert (facts["cells"], facts["features"], facts["further embeddings"]) == (40, 3, ["X_projections (2)"])
    assert facts["checkpoint"] == "/runs/a/best.ckpt (epoch 3, step 70)"
    assert {"column": "state", "classes": "2", "cells": "healthy (20), infected (20)"} in content["tables"][0]
    assert content["next"] == [
        f"dynaclr evaluate --embeddings {tmp_path / 'e.zarr'} --output-dir report",
        f"dynaclr export-atlas {tmp_path / 'e.zarr'} --output atlas.parquet",
    ]


def test_a_classifier_is_told(tmp_path):
    pipeline, metrics = train_linear_classifier(embeddings(tmp_path / "e.zarr"), task="state")
    data = [{"embeddings": "e.zarr", "embeddings_sha256": "c0ffee", "encoder": {"origin": "long " * 1000}}]
    save_classifier(pipeline, tmp_path / "c.npz", {"metrics": metrics, "data": data})
    content = told(tmp_path / "c.npz")
    facts = content["facts"]
    assert content["kind"] == "a linear classifier"
    assert (facts["task"], facts["classes"], facts["features"]) == ("state", ["healthy", "infected"], 3)
    assert facts["trained on"] == ["e.zarr: SHA-256 c0ffee"]
    assert f"val_auroc: {metrics['val_auroc']:.3f}" in facts["metrics"]
    assert max(map(len, run(tmp_path / "c.npz").output.splitlines())) < 400


def test_a_correction_is_told_and_is_no_classifier(tmp_path):
    days, controls = np.repeat(["monday", "tuesday"], 10), np.tile([True, False], 10)
    correction = fit_correction(np.random.default_rng(0).normal(size=(20, 3)), days, controls, "center")
    save_correction(correction, tmp_path / "c.npz", {"controls": "condition == 'mock'"})
    content = told(tmp_path / "c.npz")
    assert content["kind"] == "a correction of embeddings"
    assert (content["facts"]["method"], content["facts"]["features"]) == ("center", 3)
    assert content["tables"][0][0] == {"fitted on": "monday", "control cells": "5"}
    (step,) = content["next"]
    assert step.startswith(f"dynaclr correct EMBEDDINGS.zarr --transform {tmp_path / 'c.npz'} ")


@pytest.mark.filterwarnings("ignore:GPU available", "ignore:.*litlogger", "ignore:.*num_workers")
def test_a_run_and_its_checkpoints_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}
    trainer |= {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "log_every_n_steps": 1}
    config = {"trainer": trainer, "model": {"class_path": f"{BORING}.BoringModel"}}
    config["data"] = {"class_path": f"{BORING}.BoringDataModule"}
    (tmp_path / "fit.yml").write_text(yaml.safe_dump(config))
    viscy(["fit", "--config", "fit.yml", "--run", "first"])
    folder = tmp_path / "runs/first"
    content = told(folder)
    assert content["kind"] == "a run folder"
    assert (content["facts"]["status"], content["facts"]["steps"]) == ("finished", 2)
    assert f"last: {folder / 'checkpoints/last.ckpt'}" in content["facts"]["checkpoints"]
    assert content["next"] == [f"dynaclr predict --config {folder / 'config.yaml'} --run {folder}"]

    checkpoint = folder / "checkpoints/last.ckpt"
    facts = told(checkpoint)["facts"]
    n_parameters = sum(own.numel() for own in BoringModel().parameters())
    assert facts["parameters"] == f"{n_parameters:,} in 2 tensors"
    assert (facts["epoch (from 0)"], facts["step"], facts["run"]) == (0, 2, str(folder))
    assert any(version.startswith("torch ") for version in facts["versions"])
    # The backbone is in the configuration of the run, not in the weights.
    text = yaml.safe_load((folder / "config.yaml").read_text())
    text["model"]["init_args"] = {"encoder": {"class_path": "a.E", "init_args": {"backbone": "convnext_tiny"}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(text))
    assert told(checkpoint)["facts"]["backbone"] == ["convnext_tiny"]
    alone = tmp_path / "alone.ckpt"
    (tmp_path / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())  # of something else
    alone.write_bytes(checkpoint.read_bytes())
    facts = told(alone)["facts"]
    assert facts["backbone"] == "not in the file, nor in a run folder around it"
    assert facts["versions"][0].startswith("lightning 2")


def test_files_for_explorers_are_told_with_what_they_are_from(tmp_path):
    embeddings(tmp_path / "e.zarr")
    export_atlas(tmp_path / "e.zarr", tmp_path / "atlas.parquet", thumbnail_size=None)
    content = told(tmp_path / "atlas.parquet")
    assert content["kind"] == "cells for explorers of embeddings"
    facts = content["facts"]
    assert (facts["cells"], facts["embeddings"]) == (40, str(tmp_path / "e.zarr"))
    assert (facts["places"], facts["thumbnails"]) == ("pca (computed)", "none")
    assert facts["columns"] == ["experiment", "fov_name", "track_id", "t", "state"]
    assert content["next"] == [f"uvx embedding-atlas {tmp_path / 'atlas.parquet'} --x projection_x --y projection_y"]


def test_reports_and_their_files_are_told(tmp_path):
    score = {"value": 0.875, "low": 0.8, "high": 0.9, "chance": 0.5, "note": "", "n_cells": 40}
    row = {"name": "mine", "n_cells": 40, "probe": score, "separability": score | {"value": None}}
    row["origin"] = {"checkpoint": {"path": "/runs/a/best.ckpt"}}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text(json.dumps([row]))
    (tmp_path / "report" / "curves.csv").write_text("name,x\n")
    (tmp_path / "curves.csv").write_text("name,x\n")  # of something else
    content = told(tmp_path / "report")
    assert content["kind"] == "a report on embeddings"
    assert content["facts"]["embeddings"] == ["mine: /runs/a/best.ckpt"]
    [[scores]] = content["tables"]
    assert list(scores.values()) == ["mine", "40", "0.875", "not computed"]
    for name in ("report.json", "curves.csv"):
        assert told(tmp_path / "report" / name)["next"] == [f"dynaclr info {tmp_path / 'report'}"]
    assert run(tmp_path / "curves.csv").exit_code == 2
    (tmp_path / "report" / "report.json").write_text(json.dumps({"variants": [{"variant": "plain"}]}))
    content = told(tmp_path / "report")
    assert (content["kind"], content["facts"]) == ("a comparison of losses", {"variants": ["plain"]})


def test_what_other_programs_go_on_with_is_told(tmp_path):
    with PlateWriter(tmp_path / "plate.zarr", ["Phase"]) as writer:
        writer.write("A/1/0", np.arange(512, dtype=np.uint8).reshape(2, 1, 1, 16, 16))
    path = tmp_path / "statistics.json"
    generate_normalization_metadata(tmp_path / "plate.zarr", sidecar_path=path, grid_spacing=8)
    content = told(path)
    assert content["kind"] == "normalisation statistics"
    assert content["facts"]["channels"] == ["Phase"]
    assert content["facts"]["FOVs"] == "1: A/1/0"
    assert "fov_statistics" in content["facts"]["levels"]
    assert content["next"][0].endswith(f"normalization_path: {path}")

    dask.array.to_npy_stack(tmp_path / "stack", dask.array.ones((2, 3, 4), chunks=(1, 3, 4)))
    facts = told(tmp_path / "stack")["facts"]
    assert facts == {"arrays": 2, "shape of each": "1 3 4", "dtype": "float64"}

    (tmp_path / "model.onnx").write_bytes(bytes(2048))
    content = told(tmp_path / "model.onnx")
    assert (content["kind"], content["facts"]) == ("an exported model (ONNX)", {"size": readable_size(2048)})


def test_a_table_of_labels_is_told_and_is_no_tracking_table(tmp_path):
    table = pd.DataFrame(
        {"experiment": "first", "fov_name": ["A/1/0", "A/1/0", "B/1/0"], "track_id": 1, "t": [0, 1, 0]}
    )
    path = tmp_path / "infection.csv"
    table.assign(infection=["infected", None, "healthy"]).to_csv(path, index=False)
    content = told(path)
    assert content["kind"] == "a table of labels of cells"
    assert content["facts"] == {"cells": 3, "FOVs": 2}
    [[row]] = content["tables"]
    assert (row["column"], row["classes"]) == ("infection", "2")
    step = f"dynaclr evaluate EMBEDDINGS.zarr --labels {path} --label infection --output-dir report"
    assert content["next"] == [step]
    write_tracks(lineage_table(), tmp_path / "tracks.csv")
    assert told(tmp_path / "tracks.csv")["kind"] == "tracks"


# what it cannot tell


class Malicious:
    def __reduce__(self):
        return (open, ("executed", "w"))


@pytest.mark.parametrize("name", ["a.ckpt", "a.npy", "a.npz", "a.pkl"])
def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if name == "a.ckpt":
        torch.save({"state_dict": {}, "more": Malicious()}, name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(Malicious()))
    result = run(tmp_path / name)
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "executed").exists()


def test_of_a_folder_of_things_those_that_are_known_are_named(tmp_path, experiments):
    config = tmp_path / "fit.yml"
    config.write_text("model: {class_path: a.B}")
    (tmp_path / "notes.txt").write_text("hello")
    result = run(tmp_path)
    assert result.exit_code == 2
    assert f"name what is in it: {config}\n" in result.output
    (well,) = {path.parent for path in (experiments.parent / "monday" / "images.zarr").glob("A/1/*") if path.is_dir()}
    assert f"name what is in it: {well / '0'}" in run(well).output


def test_axes_that_an_image_lacks_have_chunks_of_one(tmp_path):
    image = zarr.create_group(tmp_path / "flat.zarr", zarr_format=3)
    axes = [{"name": name, "type": "space"} for name in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    multiscales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    image.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    image.create_array("0", shape=(32, 48), chunks=(16, 48), dtype="uint8")
    with pytest.warns(UserWarning, match="channels without a label"):
        result = run(tmp_path / "flat.zarr")
    assert result.exit_code == 0, result.output
    assert "1 1 1 16 48" in " ".join(result.output.split())
    assert "None" not in result.output


def test_what_is_nothing_known_is_refused_by_name(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    for name, said in [
        ("notes.txt", "a file (.txt) of something else"),
        ("empty", "an empty folder"),
        ("a.csv", "a file (.csv) of something else"),
        (".", "a folder of a.csv, empty, notes.txt"),
        ("nowhere", "no such file"),
    ]:
        result = run(tmp_path / name)
        assert result.exit_code == 2
        assert said in result.output
        assert "an image store, " in result.output
