"""Linear classifiers: what they have seen, what they are judged on, and what their files hold."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from viscy_data.errors import InputError
from viscy_utils.cli.yaml_models import read_yaml_model
from viscy_utils.embeddings.store import write_anndata
from viscy_utils.evaluation.linear_classifier import (
    load_and_combine_datasets,
    load_pipeline_from_wandb,
    predict_with_classifier,
    save_pipeline_to_wandb,
    train_linear_classifier,
)
from viscy_utils.evaluation.linear_classifier_config import (
    LinearClassifierInferenceConfig,
    LinearClassifierTrainConfig,
)
from viscy_utils.evaluation.linear_classifier_file import hash_store, load_classifier, save_classifier


def cells(n_tracks=60, n_frames=4, n_classes=2, told=True, seed=0):
    """Tracks of nearly constant features in ten FOVs; the labels are told by the first features, or noise per track."""
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(n_tracks), n_frames)
    labels = rng.integers(n_classes, size=n_tracks)
    features = rng.normal(size=(n_tracks, 6))
    features[np.arange(n_tracks), labels] += 8 * told
    obs = pd.DataFrame(
        {
            "experiment": "one",
            "fov_name": np.array([f"{row}/1/{fov}" for row in "AB" for fov in range(5)])[track % 10],
            "track_id": track,
            "t": np.tile(np.arange(n_frames), n_tracks),
            "id": np.arange(len(track)),
            "state": np.array(["healthy", "infected", "dead"])[labels[track]],
        },
        index=[str(row) for row in range(len(track))],
    )
    return anndata.AnnData((features[track] + 0.01 * rng.normal(size=(len(track), 6))).astype(np.float32), obs=obs)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("options", [{}, {"use_pca": True, "n_pca_components": 4}, {"use_scaling": False}])
def test_a_state_that_features_tell_is_learnt(n_classes, options):
    pipeline, metrics = train_linear_classifier(cells(n_classes=n_classes), "state", **options)
    assert metrics["val_accuracy"] > 0.95
    assert (
        metrics["val_balanced_accuracy_low"]
        <= metrics["val_balanced_accuracy"]
        <= metrics["val_balanced_accuracy_high"]
    )
    assert metrics["val_chance"] == 1 / n_classes
    names = {"accuracy", "weighted_precision", "weighted_recall", "weighted_f1", "macro_f1", "auroc", "infected_f1"}
    assert {f"{side}_{name}" for side in ("train", "val") for name in names} <= set(metrics)
    assert pipeline.config["split_by"] == "FOV"


def test_labels_that_are_random_per_track_are_not_told_on_validation_cells():
    """A split over cells recognises the tracks: 1.0 instead of chance."""
    scores = [train_linear_classifier(cells(told=False, seed=seed), "state")[1]["val_accuracy"] for seed in range(6)]
    assert abs(np.mean(scores) - 0.5) < 0.15


def test_scaler_and_components_have_seen_training_cells_only():
    adata = cells()
    adata.obs["experiment"] = np.where(adata.obs["track_id"] < 40, "one", "two")
    groups = adata.obs["experiment"].to_numpy()
    adata.X[groups == "two"] *= 50
    pipeline, _ = train_linear_classifier(
        adata, "state", use_pca=True, n_pca_components=3, groups=groups, split_train_data=0.5
    )
    own = [np.asarray(adata.X[groups == name], float) for name in ("one", "two")]
    sizes = {len(features): features for features in own}
    trained = sizes[pipeline.config["n_train"]]
    np.testing.assert_allclose(pipeline.scaler.mean_, trained.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(pipeline.scaler.scale_, trained.std(axis=0), rtol=1e-6)
    scaled = (trained - trained.mean(axis=0)) / trained.std(axis=0)
    axes = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)[2][:3]
    np.testing.assert_allclose(np.abs(np.sum(axes * pipeline.pca.components_, axis=1)), 1, atol=1e-6)


def test_a_group_that_divides_lineages_is_refused():
    adata = cells()
    with pytest.raises(ValueError, match="lineages are in several groups"):
        train_linear_classifier(adata, "state", groups=np.arange(len(adata)) % 5)
    adata.obs["lineage_id"] = adata.obs["track_id"] // 2
    adata.obs["fov_name"] = "A/1/0"
    with pytest.raises(ValueError, match="lineages are in several groups"):
        train_linear_classifier(adata, "state", groups=adata.obs["track_id"].to_numpy())


def test_a_single_fov_is_split_by_lineages():
    adata = cells()
    adata.obs["fov_name"] = "A/1/0"
    pipeline, metrics = train_linear_classifier(adata, "state")
    assert pipeline.config["split_by"] == "lineage"
    assert metrics["val_accuracy"] > 0.95
    adata.obs["track_id"] = 0
    with pytest.raises(ValueError, match="lives in a single"):
        train_linear_classifier(adata, "state")
    pipeline, metrics = train_linear_classifier(adata, "state", split_train_data=1.0)
    assert pipeline.config["n_validation"] == 0
    assert not [name for name in metrics if name.startswith("val_")]


def test_metrics_are_those_of_the_validation_cells_by_definition():
    adata = cells(n_classes=3, told=False)
    pipeline, metrics = train_linear_classifier(adata, "state", split_train_data=0.6)
    # Which cells validated: those of FOVs whose cells the scaler has not seen.
    features, labels = np.asarray(adata.X, float), adata.obs["state"].to_numpy().astype(str)
    sets = []
    fovs = adata.obs["fov_name"].to_numpy()
    for chosen in range(1 << 10):
        held = np.isin(fovs, [name for k, name in enumerate(np.unique(fovs)) if chosen >> k & 1])
        if held.sum() == pipeline.config["n_validation"] and np.allclose(
            features[~held].mean(axis=0), pipeline.scaler.mean_
        ):
            sets.append(held)
    (held,) = sets
    predicted, truth = pipeline.predict(features[held]), labels[held]
    assert metrics["val_accuracy"] == np.mean(predicted == truth)
    recalls = {name: np.mean(predicted[truth == name] == name) for name in np.unique(truth)}
    assert metrics["val_balanced_accuracy"] == pytest.approx(np.mean(list(recalls.values())))
    assert metrics["val_dead_recall"] == recalls["dead"]
    share = pipeline.predict_proba(features[held])
    areas = [roc_auc_score(truth == name, share[:, k]) for k, name in enumerate(pipeline.classifier.classes_)]
    assert metrics["val_auroc"] == pytest.approx(np.mean(areas))


def test_cells_without_a_label_are_left_out_and_counted():
    adata = cells()
    adata.obs["state"] = adata.obs["state"].astype(object)
    adata.obs.iloc[:7, adata.obs.columns.get_loc("state")] = ["", None, np.nan, "nan", "unknown", "  ", "NA"]
    pipeline, _ = train_linear_classifier(adata, "state")
    assert pipeline.classifier.classes_.tolist() == ["healthy", "infected"]
    assert pipeline.config["n_without_label"] == 7


def test_liblinear_gives_way_where_there_are_three_classes():
    with pytest.warns(UserWarning, match="lbfgs is used instead"):
        train_linear_classifier(cells(n_classes=3), "state", classifier_params={"solver": "liblinear"})


@given(st.integers(0, 100), st.sampled_from(["lbfgs", "liblinear"]), st.booleans(), st.booleans())
@settings(max_examples=10, deadline=None)
def test_a_saved_classifier_is_the_same_and_its_bytes_are(tmp_path_factory, seed, solver, use_scaling, use_pca):
    folder, adata = tmp_path_factory.mktemp("saved"), cells(seed=seed, told=False)
    options = {"use_scaling": use_scaling, "use_pca": use_pca, "n_pca_components": 3}
    pipeline, metrics = train_linear_classifier(adata, "state", classifier_params={"solver": solver}, **options)
    for name in ("one.npz", "two.npz"):
        save_classifier(pipeline, folder / name, {"metrics": metrics})
    assert (folder / "one.npz").read_bytes() == (folder / "two.npz").read_bytes()
    loaded, content = load_classifier(folder / "one.npz")
    np.testing.assert_array_equal(loaded.predict(adata.X), pipeline.predict(adata.X))
    np.testing.assert_allclose(loaded.predict_proba(adata.X), pipeline.predict_proba(adata.X), rtol=1e-12)
    assert content["schema"] == "viscy linear classifier 1"
    assert content["origin"]["metrics"]["val_accuracy"] == metrics["val_accuracy"]
    assert (loaded.task, loaded.config) == ("state", pipeline.config)
    with pytest.raises(FileExistsError):
        save_classifier(pipeline, folder / "one.npz", {})


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_nothing_in_a_file_is_executed(tmp_path):
    bomb = np.array([Bomb()], dtype=object)
    np.savez(tmp_path / "bomb.npz", json=bomb)
    np.savez(tmp_path / "other.npz", json=np.frombuffer(b'{"schema": "viscy linear classifier 9"}', np.uint8))
    (tmp_path / "text.npz").write_text("text")
    for name, found in (
        ("bomb.npz", "another file"),
        ("text.npz", "another file"),
        ("other.npz", r"classifier\n  found    9"),
    ):
        with pytest.raises(InputError, match=found):
            load_classifier(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_classifier(tmp_path / "absent.npz")


class TestPrediction:
    @pytest.fixture
    def pipeline(self):
        return train_linear_classifier(cells(), "state")[0]

    def test_predictions_are_stored_under_the_names_of_the_reference(self, pipeline, tmp_path):
        metadata = {"artifact_name": "a", "artifact_id": "b", "artifact_version": "v1"}
        adata = predict_with_classifier(cells(seed=1), pipeline, "state", metadata)
        write_anndata(adata, tmp_path / "p.zarr")
        read = anndata.read_zarr(tmp_path / "p.zarr")
        assert (read.obs["predicted_state"] == read.obs["state"]).mean() > 0.95
        shares = read.obsm["predicted_state_proba"]
        assert shares.shape == (240, 2)
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
        assert list(read.uns["predicted_state_classes"]) == ["healthy", "infected"]
        assert [read.uns[f"classifier_state_{key}"] for key in ("artifact", "id", "version")] == ["a", "b", "v1"]

    def test_other_wells_and_rows_that_are_not_finite_have_no_prediction(self, pipeline, caplog):
        adata = cells(seed=1)
        adata.X[0, 0] = np.nan
        adata = predict_with_classifier(adata, pipeline, "state", include_wells=["/A/1"])
        predicted = adata.obs["predicted_state"].notna().to_numpy()
        expected = adata.obs["fov_name"].str.startswith("A/1/").to_numpy(copy=True)
        expected[0] = False
        np.testing.assert_array_equal(predicted, expected)
        np.testing.assert_array_equal(np.isfinite(adata.obsm["predicted_state_proba"]).all(axis=1), expected)
        assert "1 rows of features that are not finite" in caplog.text
        with pytest.raises(ValueError, match=r"no cells of C/1, expected of A/1, B/1"):
            predict_with_classifier(adata, pipeline, "state", include_wells=["C/1"])

    def test_embeddings_of_another_width_are_refused(self, pipeline):
        with pytest.raises(ValueError, match="found embeddings of 5 features, expected 6"):
            predict_with_classifier(cells()[:, :5].copy(), pipeline, "state")


class TestDatasets:
    @pytest.fixture
    def stored(self, tmp_path):
        """Return a factory of (store, table) of annotated cells."""

        def make(name, columns=("fov_name", "track_id", "t"), change=lambda table: table, seed=0):
            adata = cells(seed=seed)
            table = adata.obs[[*columns, "state"]].copy()
            del adata.obs["state"]
            write_anndata(adata, tmp_path / f"{name}.zarr")
            change(table).to_csv(tmp_path / f"{name}.csv", index=False)
            return {"embeddings": str(tmp_path / f"{name}.zarr"), "annotations": str(tmp_path / f"{name}.csv")}

        return make

    @pytest.mark.parametrize("columns", [("experiment", "fov_name", "track_id", "t"), ("fov_name", "id")])
    def test_labels_find_their_cells_whatever_the_order_and_slashes(self, stored, columns):
        def change(table):
            return table.assign(fov_name="/" + table["fov_name"]).sample(frac=1, random_state=0)

        adata = load_and_combine_datasets([stored("a", columns, change)], "state")
        expected = cells()
        assert adata.obs["state"].tolist() == expected.obs["state"].tolist()
        np.testing.assert_array_equal(adata.X, expected.X)

    def test_stores_are_joined_and_their_fovs_kept_apart(self, stored):
        adata = load_and_combine_datasets([stored("a"), stored("b", seed=1)], "state")
        assert len(adata) == 480
        assert adata.obs_names.is_unique
        assert adata.obs["dataset"].nunique() == 2
        pipeline, metrics = train_linear_classifier(adata, "state")
        assert metrics["val_accuracy"] > 0.95
        # Twenty FOVs, not ten: the split is finer than one that takes equal names together.
        assert pipeline.config["n_validation"] % 24 == 0

    def test_wells_and_unlabelled_cells_are_left_out(self, stored):
        def change(table):
            table.iloc[:10, -1] = "unknown"
            return table.iloc[:-10]

        dataset = stored("a", change=change) | {"include_wells": ["A/1"]}
        adata = load_and_combine_datasets([dataset], "state")
        fovs = cells().obs["fov_name"].iloc[10:-10]
        assert adata.obs["fov_name"].tolist() == [name for name in fovs if name.startswith("A/1/")]

    def test_a_table_without_the_task_is_left_out_and_said(self, stored, caplog):
        both = [stored("a"), stored("b", change=lambda table: table.rename(columns={"state": "shape"}))]
        assert len(load_and_combine_datasets(both, "state")) == 240
        assert "b.csv is left out: no column 'state'" in caplog.text
        with pytest.raises(ValueError, match="no label of any cell"):
            load_and_combine_datasets(both[1:], "state")

    def test_rows_that_name_no_cell_are_counted(self, stored, caplog):
        strange = stored("a", change=lambda table: pd.concat([table, table.iloc[:3].assign(track_id=7777)]))
        assert len(load_and_combine_datasets([strange], "state")) == 240
        assert "3 of 243 rows of" in caplog.text
        assert "a.csv name no cell, such as A/" in caplog.text

    def test_a_cell_that_is_annotated_twice_is_refused(self, stored):
        with pytest.raises(InputError, match="annotated twice"):
            load_and_combine_datasets([stored("a", change=lambda table: pd.concat([table, table]))], "state")

    def test_a_hash_changes_with_any_byte(self, stored, tmp_path):
        path = tmp_path / "a.zarr"
        stored("a")
        before = hash_store(path)
        assert before == hash_store(path)
        (path / ".zattrs").write_text((path / ".zattrs").read_text() + " ")
        assert hash_store(path) != before


class TestConfig:
    def read(self, tmp_path, kind, text):
        (tmp_path / "c.yml").write_text(text)
        return read_yaml_model(tmp_path / "c.yml", kind)

    def test_what_cannot_be_used_is_named_with_its_file(self, tmp_path):
        (tmp_path / "e.zarr").mkdir()
        good = f"embeddings: {tmp_path}/e.zarr, annotations: {tmp_path}/e.zarr"
        datasets = f"train_datasets: [{{{good}}}]\n"
        for text, words in (
            ("task: state\n", ["train_datasets", "nothing"]),
            (f"task: state\n{datasets}", ["output_path", "nothing says where"]),
            (f"task: ' '\noutput_path: o\n{datasets}", ["task", "at least 1 character"]),
            (f"tusk: s\ntask: s\noutput_path: o\n{datasets}", ["tusk", "did you mean 'task'"]),
            (f"task: s\noutput_path: o\nuse_pca: true\n{datasets}", ["n_pca_components", "at least 1"]),
            (f"task: s\noutput_path: o\nsplit_train_data: 0\n{datasets}", ["split_train_data", "greater than 0"]),
            ("task: s\noutput_path: o\ntrain_datasets: [{embeddings: x, annotations: y}]", ["x does not exist"]),
            ("- 1\n", ["a list without keys"]),
        ):
            with pytest.raises(InputError) as caught:
                self.read(tmp_path, LinearClassifierTrainConfig, text)
            for word in ["c.yml", *words]:
                assert word in str(caught.value), text

    def test_there_is_one_classifier_and_no_output_yet(self, tmp_path):
        (tmp_path / "e.zarr").mkdir()
        path = f"embeddings_path: {tmp_path}/e.zarr\n"
        classifier = f"classifier_path: {tmp_path}/e.zarr\n"
        for text, word in (
            (path, "classifier_path"),
            (path + classifier + "wandb_project: p\n", "classifier_path"),
            (path + "wandb_project: p\n", "model_name"),
            (path + classifier + f"output_path: {tmp_path}/e.zarr\n", "exists"),
        ):
            with pytest.raises(InputError, match=word):
                self.read(tmp_path, LinearClassifierInferenceConfig, text)
        assert self.read(tmp_path, LinearClassifierInferenceConfig, path + classifier).version == "latest"


def test_an_artifact_of_weights_and_biases_holds_the_file_and_no_pickle(monkeypatch, tmp_path):
    """A stand-in with the calls of the client that are used."""
    stored, logged = {}, {}

    class Artifact:
        def __init__(self, name, type, metadata):
            self.name, self.id, self.version = name, "id", "v0"

        def add_file(self, path):
            stored["bytes"] = Path(path).read_bytes()

        def wait(self):
            return self

        def download(self, folder):
            Path(folder, "c.npz").write_bytes(stored["bytes"])
            return folder

    class Run:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def log(self, metrics):
            logged.update(metrics)

        def log_artifact(self, artifact):
            stored["artifact"] = artifact

    api = SimpleNamespace(artifact=lambda name: stored.update(asked=name) or stored["artifact"])
    client = SimpleNamespace(Artifact=Artifact, init=lambda **options: Run(), Api=lambda: api)
    monkeypatch.setitem(sys.modules, "wandb", client)
    pipeline, metrics = train_linear_classifier(cells(), "state")
    config = {"task": "state", "input_channel": "phase", "marker": "g3bp1", "use_pca": True, "n_pca_components": 4}
    assert save_pipeline_to_wandb(pipeline, metrics, config, "p") == "linear-classifier-state-phase-g3bp1-pca4"
    assert logged == metrics
    loaded, _, metadata = load_pipeline_from_wandb("p", "m", wandb_entity="e")
    assert stored["asked"] == "e/p/m:latest"
    assert metadata["artifact_version"] == "v0"
    np.testing.assert_array_equal(loaded.predict(cells().X), pipeline.predict(cells().X))
    assert set(np.load(io.BytesIO(stored["bytes"])).files) == {
        "json", "scaler.mean_", "scaler.scale_", "scaler.var_", "classifier.coef_", "classifier.intercept_",
    }  # fmt: skip
    with pytest.raises(KeyError, match="input_channel"):
        save_pipeline_to_wandb(pipeline, metrics, {"task": "state"}, "p")


def test_the_classifier_is_a_logistic_regression_of_the_training_cells():
    adata = cells()
    pipeline, _ = train_linear_classifier(adata, "state", use_scaling=False, split_train_data=1.0, calibrate=False)
    own = LogisticRegression(max_iter=1000, class_weight="balanced").fit(np.asarray(adata.X, float), adata.obs["state"])
    np.testing.assert_allclose(pipeline.classifier.coef_, own.coef_, rtol=1e-6)


def test_calibration_changes_probabilities_and_no_prediction():
    """Labels that are noise for a third of the tracks: an uncalibrated classifier of many features is too sure."""
    adata = cells(n_tracks=200, n_classes=3)
    rng = np.random.default_rng(1)
    adata = anndata.AnnData(np.hstack([adata.X, rng.normal(size=(200, 60))[adata.obs["track_id"]]]), obs=adata.obs)
    noise = rng.random(200)[adata.obs["track_id"]] < 0.4
    wrong = np.array(["healthy", "infected", "dead"])[rng.integers(3, size=200)[adata.obs["track_id"]]]
    adata.obs["state"] = np.where(noise, wrong, adata.obs["state"])
    (sure, before), (fair, after) = (
        train_linear_classifier(adata, "state", classifier_params={"C": 100.0}, calibrate=each)
        for each in (False, True)
    )
    assert (sure.predict(adata.X) == fair.predict(adata.X)).all()
    assert after["val_calibration_error"] < before["val_calibration_error"] - 0.05
    assert after["val_brier"] < before["val_brier"]
    temperature = fair.config["temperature"]
    assert temperature > 1
    np.testing.assert_allclose(fair.classifier.coef_ * temperature, sure.classifier.coef_)
    assert sure.config["temperature"] is None
