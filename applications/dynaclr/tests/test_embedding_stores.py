"""Commands that work on stores of embeddings, as a user runs them."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from dynaclr.cli import cli
from viscy_utils.embeddings.store import write_anndata
from viscy_utils.evaluation.smoothness import compute_embeddings_smoothness


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two stores: cells of two experiments, and of one, with tracks that wander."""
    monkeypatch.chdir(tmp_path)
    write_store("both.zarr", ["plate/1", "plate2"])
    write_store("third.zarr", ["third"])
    return tmp_path


def write_store(path, experiments, n_tracks=20, n_frames=5):
    rng = np.random.default_rng(len(experiments))
    parts, rows = [], []
    for name in experiments:
        track = np.repeat(np.arange(n_tracks), n_frames)
        steps = rng.normal(size=(n_tracks, n_frames, 5)).cumsum(axis=1) + 5 * rng.normal(size=(n_tracks, 1, 5))
        parts.append(steps.reshape(-1, 5).astype(np.float32))
        rows.append(
            pd.DataFrame({"experiment": name, "fov_name": [f"A/{t % 2 + 1}/0" for t in track], "track_id": track})
            .assign(t=np.tile(np.arange(n_frames), n_tracks), condition=np.where(track % 2, "infected", "mock"))
            .assign(hours_post_infection=np.tile(np.arange(n_frames) * 0.5, n_tracks))
        )
    obs = pd.concat(rows, ignore_index=True)
    obs.index = [str(row) for row in range(len(obs))]
    write_anndata(anndata.AnnData(np.concatenate(parts), obs=obs), path)


def run(command, *arguments, **config):
    if config:
        with open("config.yml", "w") as file:
            yaml.safe_dump(config, file)
        arguments = ("-c", "config.yml", *arguments)
    return CliRunner().invoke(cli, [command, *map(str, arguments)], env={"COLUMNS": "160"})


def succeed(*arguments, **config):
    done = run(*arguments, **config)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments, **config):
    done = run(*arguments, **config)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return done.output


class TestAppendAnnotations:
    def table(self, experiment="plate/1"):
        obs = anndata.read_zarr("both.zarr").obs
        own = obs[obs["experiment"] == experiment][["fov_name", "track_id", "t"]].astype({"fov_name": str})
        return own.assign(
            fov_name="/" + own["fov_name"], state=np.where(own["t"] > 2, "NA", "round"), size=own["t"] / 2
        )

    def test_columns_join_on_the_cell_and_others_have_none(self, folder):
        self.table().iloc[::2].to_csv("a.csv", index=False)
        said = succeed(
            "append-annotations", embeddings_path="both.zarr", columns=["state", "size"],
            annotations=[{"path": "a.csv", "experiment": "plate/1"}],
        )  # fmt: skip
        assert "50 of 200 cells annotated; 0 rows name no cell" in said
        obs = anndata.read_zarr("both.zarr").obs
        annotated = np.flatnonzero(obs["state"].notna())
        assert annotated.tolist() == list(range(0, 100, 2))
        assert (obs["state"].iloc[annotated] == np.where(obs["t"].iloc[annotated] > 2, "NA", "round")).all()
        np.testing.assert_array_equal(obs["size"].iloc[annotated], obs["t"].iloc[annotated] / 2)
        assert obs["size"].isna().sum() == 150

    def test_rows_that_name_no_cell_are_counted_and_the_input_stays(self, folder):
        table = self.table()
        pd.concat([table, table.head(3).assign(track_id=99)]).to_csv("a.csv", index=False)
        said = succeed(
            "append-annotations", embeddings_path="both.zarr", columns=["state"], output_path="out.zarr",
            annotations=[{"path": "a.csv", "experiment": "plate/1"}],
        )  # fmt: skip
        assert "3 rows name no cell" in said
        assert "state" not in anndata.read_zarr("both.zarr").obs
        assert "state" in anndata.read_zarr("out.zarr").obs

    def test_what_cannot_be_joined_or_would_be_replaced_is_refused(self, folder):
        table = self.table()
        table.to_csv("a.csv", index=False)
        own = {"embeddings_path": "both.zarr", "columns": ["state"]}
        assert "experiment" in refused("append-annotations", **own, annotations=[{"path": "a.csv"}])
        entry = {"path": "a.csv", "experiment": "plate3"}
        assert "no annotation of any embedded cell" in refused("append-annotations", **own, annotations=[entry])
        entry["experiment"] = "plate/1"
        assert "annotated twice" in refused("append-annotations", **own, annotations=[entry, entry])
        assert "did you mean 'columns'" in refused("append-annotations", **own, annotations=[entry], colums=["a"])
        assert "condition of before" in refused(
            "append-annotations", **own | {"columns": ["condition"]}, annotations=[entry]
        )
        missing = [{"path": "none.csv", "experiment": "plate/1"}]
        assert "none.csv" in refused("append-annotations", **own, annotations=missing)


def test_predictions_of_all_classifiers_of_a_folder(folder):
    (folder / "classifiers").mkdir()
    for task in ("condition", "half"):
        obs = anndata.read_zarr("third.zarr").obs.astype({"condition": str})
        obs.assign(half=np.where(obs["track_id"] < 10, "low", "high")).to_csv("labels.csv", index=False)
        succeed(
            "train-linear-classifier", task=task, output_path=f"classifiers/{task}.npz",
            train_datasets=[{"embeddings": "third.zarr", "annotations": "labels.csv"}],
        )  # fmt: skip
    config = {"embeddings_path": "both.zarr", "pipelines_dir": "classifiers"}
    assert "predicted_condition" in succeed("append-predictions", **config)
    read = anndata.read_zarr("both.zarr")
    assert set(read.obs["predicted_half"].cat.categories) == {"low", "high"}
    assert read.obsm["predicted_condition_proba"].shape == (200, 2)
    assert "of before" in refused("append-predictions", **config)
    succeed("append-predictions", **config, overwrite=True)
    assert "no classifier" in refused("append-predictions", embeddings_path="both.zarr", pipelines_dir=".")
    twice = ["classifiers/half.npz"] * 2
    assert "half" in refused("append-predictions", embeddings_path="third.zarr", classifiers=twice)


def test_split_stores_hold_each_cell_once(folder):
    said = succeed("split-embeddings", "--input", "both.zarr", "-o", "parts")
    assert "plate_1.zarr: 100 cells" in said
    whole = anndata.read_zarr("both.zarr")
    parts = [anndata.read_zarr(f"parts/{name}.zarr") for name in ("plate_1", "plate2")]
    assert parts[0].obs["experiment"].astype(str).unique().tolist() == ["plate/1"]
    np.testing.assert_array_equal(np.concatenate([part.X for part in parts]), whole.X)
    assert refused("split-embeddings", "--input", "both.zarr", "-o", "parts")
    write_store("alike.zarr", ["a/b", "a b"])
    assert "rename" in refused("split-embeddings", "--input", "alike.zarr", "-o", "others")


def test_reductions_of_several_stores_are_fitted_together(folder):
    succeed("reduce-dimensionality", input_paths=["both.zarr", "third.zarr"], pca={"n_components": 2})
    stores = [anndata.read_zarr(path) for path in ("both.zarr", "third.zarr")]
    features = StandardScaler().fit_transform(np.concatenate([store.X for store in stores]))
    expected = PCA(2, random_state=42).fit_transform(features)
    found = np.concatenate([store.obsm["X_pca_combined"] for store in stores])
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-3, atol=1e-4)
    again = {"input_paths": ["both.zarr", "third.zarr"], "pca": {"n_components": 3}}
    assert "of before" in refused("reduce-dimensionality", **again)
    succeed("reduce-dimensionality", **again, overwrite_keys=True)
    assert anndata.read_zarr("third.zarr").obsm["X_pca_combined"].shape == (100, 3)


def test_a_reduction_of_one_store_leaves_cells_without_features_out(folder):
    adata = anndata.read_zarr("third.zarr")
    adata.X[3] = np.nan
    write_anndata(adata, "holes.zarr")
    said = succeed("reduce-dimensionality", input_path="holes.zarr", output_path="out.zarr", pca={})
    assert "1 cells have features that are not finite" in said
    read = anndata.read_zarr("out.zarr")
    assert np.flatnonzero(np.isnan(read.obsm["X_pca"]).any(axis=1)).tolist() == [3]
    assert "no reduction asked for" in refused("reduce-dimensionality", input_path="third.zarr")
    assert "input_paths" in refused("reduce-dimensionality", pca={})
    assert "third2.zarr" in refused("reduce-dimensionality", input_path="third2.zarr", pca={})


@pytest.mark.slow
def test_pacmap(folder):
    succeed("reduce-dimensionality", input_path="third.zarr", pacmap={"n_neighbors": 5})
    values = anndata.read_zarr("third.zarr").obsm["X_pacmap"]
    assert values.shape == (100, 2)
    assert np.isfinite(values).all()


def test_smoothness_of_models_and_their_comparison(folder):
    models = [{"path": "both.zarr", "label": "first"}, {"path": "third.zarr", "label": "second"}]
    said = succeed("evaluate-smoothness", models=models, output_dir="smooth", save_distributions=True)
    assert "lower is smoother" in said
    stats, distances, _ = compute_embeddings_smoothness(anndata.read_zarr("third.zarr"))
    row = pd.read_csv("smooth/second_smoothness.csv").iloc[0]
    np.testing.assert_allclose(row["smoothness_score"], stats["smoothness_score"])
    with np.load("smooth/second_distributions.npz") as file:
        np.testing.assert_array_equal(file["adjacent_frame"], distances["adjacent_frame"])
    assert (folder / "smooth/first_smoothness.png").stat().st_size > 5000
    assert refused("evaluate-smoothness", models=models, output_dir="smooth")
    assert "first" in refused("evaluate-smoothness", models=[models[0], models[0]], output_dir="other")

    outside = [{"path": "both.zarr", "label": "../first"}]
    assert "label" in refused("evaluate-smoothness", models=outside, output_dir="other")

    files = [{"path": f"smooth/{name}_smoothness.csv", "label": name} for name in ("first", "second")]
    for kind in ("markdown", "csv", "json"):
        said = succeed("compare-models", result_files=files, output_path=f"out.{kind}", output_format=kind)
        assert "second" in (folder / f"out.{kind}").read_text()
    assert said.count("(best)") == 2
    odd = [{"path": "config.yml", "label": "odd"}]
    assert "config.yml" in refused("compare-models", result_files=odd)
    assert "speed" in refused("compare-models", result_files=files, metrics=["speed"])


def test_pictures_of_reductions(folder):
    succeed("reduce-dimensionality", input_paths=["both.zarr", "third.zarr"], pca={"n_components": 2})
    config = {"input_paths": ["both.zarr", "third.zarr"], "output_dir": "pictures"}
    said = succeed("plot-embeddings", **config, embedding_keys=["X_pca_combined"], color_by=["condition", "organelle"])
    assert "organelle: no such column, left out" in said
    assert (folder / "pictures/pca_combined.png").stat().st_size > 10_000
    assert "pca_combined.png" in refused("plot-embeddings", **config, embedding_keys=["X_pca_combined"])
    assert "reduce-dimensionality" in refused("plot-embeddings", **config, embedding_keys=["X_umap"])
    config["output_dir"] = "others"
    assert "color_by" in refused("plot-embeddings", **config, embedding_keys=["X_pca_combined"], color_by=["a"])


@pytest.mark.parametrize(
    "command",
    ["append-annotations", "append-predictions", "reduce-dimensionality", "plot-embeddings", "evaluate-smoothness",
     "compare-models"],
)  # fmt: skip
def test_help_shows_a_config_that_is_read(folder, command):
    said = succeed(command, "--help")
    example = said[said.index("Example:") :].splitlines()[1:]
    config = yaml.safe_load("\n".join(example))
    message = refused(command, **config)
    assert "unknown key" not in message
    assert "config.yml" not in message, "what the example says is right; the files that it names are missing"
