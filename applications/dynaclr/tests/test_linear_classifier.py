"""`train-linear-classifier` and `apply-linear-classifier` as a user runs them."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from dynaclr.commands.apply_linear_classifier import apply_linear_classifier
from dynaclr.commands.cross_validate import cross_validate
from dynaclr.commands.train_linear_classifier import train_linear_classifier
from viscy_utils.embeddings.store import write_anndata
from viscy_utils.evaluation.linear_classifier_file import load_classifier


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two stores of embeddings; the first is annotated, but for a tenth of the cells."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    track = np.repeat(np.arange(40), 5)
    for name in ("first", "second"):
        state = rng.integers(2, size=40)[track]
        obs = pd.DataFrame(
            {"experiment": name, "fov_name": np.array(["A/1/0", "A/1/1", "B/1/0", "B/1/1"])[track % 4],
             "track_id": track, "t": np.tile(np.arange(5), 40), "truth": np.array(["healthy", "infected"])[state]},
            index=[str(row) for row in range(200)],
        )  # fmt: skip
        features = rng.normal(size=(200, 4)).astype(np.float32)
        features[:, 0] += 6 * state
        adata = anndata.AnnData(features, obs=obs)
        adata.uns["checkpoint"] = "last.ckpt"
        write_anndata(adata, tmp_path / f"{name}.zarr")
        table = obs.rename(columns={"truth": "infection_state"})
        table.iloc[::10, -1] = ""
        table.to_csv(f"{name}.csv", index=False)
    write("lc.yml", task="infection_state", output_path="c.npz", train_datasets=[
        {"embeddings": "first.zarr", "annotations": "first.csv"}])  # fmt: skip
    write("apply.yml", classifier_path="c.npz", embeddings_path="second.zarr", output_path="predicted.zarr")
    return tmp_path


def write(path, **content):
    with open(path, "w") as file:
        yaml.safe_dump(content, file)


def run(command, *arguments):
    return CliRunner().invoke(command, ["-c", *arguments], env={"COLUMNS": "120"})


def test_a_classifier_is_trained_on_one_store_and_applied_to_another_repeatably(folder):
    done = run(train_linear_classifier, "lc.yml")
    assert done.exit_code == 0, done.output
    assert "split by FOV" in done.output
    assert "validation" in done.output
    assert "wrote c.npz" in done.output
    _, content = load_classifier("c.npz")
    (data,) = content["origin"]["data"]
    assert len(data["embeddings_sha256"]) == 64
    assert data["encoder"] == {"checkpoint": "last.ckpt"}
    assert content["origin"]["metrics"]["val_accuracy"] > 0.9
    first = (folder / "c.npz").read_bytes()
    assert run(train_linear_classifier, "lc.yml", "--overwrite").exit_code == 0
    assert (folder / "c.npz").read_bytes() == first

    done = run(apply_linear_classifier, "apply.yml")
    assert done.exit_code == 0, done.output
    assert "predicted.zarr" in done.output
    read = anndata.read_zarr("predicted.zarr")
    assert (read.obs["predicted_infection_state"] == read.obs["truth"]).mean() > 0.95
    assert read.uns["classifier_infection_state_artifact"] == "c.npz"
    assert "predicted_infection_state" not in anndata.read_zarr("second.zarr").obs


def test_a_classifier_of_another_encoder_is_warned_of(folder):
    for name, digest in (("first", "one"), ("second", "other"), ("third", "one")):
        read = anndata.read_zarr("second.zarr" if name == "third" else f"{name}.zarr")
        read.uns["origin"] = {"checkpoint": {"path": f"{digest}.ckpt", "blake2b": digest}}
        write_anndata(read, folder / f"{name}_known.zarr")
    data = [{"embeddings": "first_known.zarr", "annotations": "first.csv"}]
    write("lc.yml", task="infection_state", output_path="c.npz", train_datasets=data)
    assert run(train_linear_classifier, "lc.yml").exit_code == 0
    warned = {}
    for name in ("second", "third"):
        write(
            "apply.yml", classifier_path="c.npz", embeddings_path=f"{name}_known.zarr", output_path=f"{name}_out.zarr"
        )
        done = run(apply_linear_classifier, "apply.yml")
        assert done.exit_code == 0, done.output
        warned[name] = "another encoder than other.ckpt" in done.output
    assert warned == {"second": True, "third": False}


def test_nothing_is_overwritten_unasked(folder):
    assert run(train_linear_classifier, "lc.yml").exit_code == 0
    done = run(train_linear_classifier, "lc.yml")
    assert done.exit_code == 2
    assert "c.npz exists" in done.output
    write("apply.yml", classifier_path="c.npz", embeddings_path="second.zarr")
    assert run(apply_linear_classifier, "apply.yml").exit_code == 0
    done = run(apply_linear_classifier, "apply.yml")
    assert done.exit_code == 2
    assert "earlier predictions" in done.output
    write("apply.yml", classifier_path="c.npz", embeddings_path="second.zarr", overwrite=True)
    assert run(apply_linear_classifier, "apply.yml").exit_code == 0


def test_bad_input_is_one_paragraph_and_exit_code_2(folder):
    write("typo.yml", task="infection_state", outputpath="c.npz", train_datasets=[])
    done = run(train_linear_classifier, "typo.yml")
    assert done.exit_code == 2
    assert "did you mean 'output_path'" in done.output
    write("task.yml", task="division", output_path="c.npz", train_datasets=[
        {"embeddings": "first.zarr", "annotations": "first.csv"}])  # fmt: skip
    done = run(train_linear_classifier, "task.yml")
    assert done.exit_code == 2
    assert "division" in done.output
    assert run(apply_linear_classifier, "absent.yml").exit_code == 2


@pytest.mark.parametrize("command", [train_linear_classifier, apply_linear_classifier])
def test_help_shows_a_configuration(command):
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0
    assert "Example:" in done.output
    assert "embeddings" in done.output


def test_cross_validation_holds_out_whole_experiments_and_writes_tables(folder):
    both = [{"embeddings": f"{name}.zarr", "annotations": f"{name}.csv"} for name in ("first", "second")]
    write("cv.yml", task="infection_state", output_dir="cv", by="experiment", train_datasets=both)
    done = run(cross_validate, "cv.yml")
    assert done.exit_code == 0, done.output
    assert "2 folds by experiment, 360 cells" in done.output
    assert "wrote summary.csv, classes.csv, folds.csv to cv" in done.output
    summary = pd.read_csv("cv/summary.csv", index_col="metric")
    assert summary.loc["balanced_accuracy", "value"] > 0.9
    assert summary.loc["balanced_accuracy", "chance"] == 0.5
    classes = pd.read_csv("cv/classes.csv", index_col="class")
    assert classes.index.tolist() == ["healthy", "infected"]
    assert (classes["f1_low"] <= classes["f1"]).all()
    before = (folder / "cv" / "classes.csv").read_bytes()
    assert run(cross_validate, "cv.yml").exit_code == 2
    assert run(cross_validate, "cv.yml", "--overwrite").exit_code == 0
    assert (folder / "cv" / "classes.csv").read_bytes() == before


def test_cross_validation_of_one_experiment_by_experiment_says_what_to_do(folder):
    data = [{"embeddings": "first.zarr", "annotations": "first.csv"}]
    write("cv.yml", task="infection_state", output_dir="cv", by="experiment", train_datasets=data)
    done = run(cross_validate, "cv.yml")
    assert done.exit_code == 2
    assert "a class lives in a single experiment: divide by a smaller group" in " ".join(done.output.split())
    assert not (folder / "cv").exists()
