"""Writing embeddings as they come: layout, order, interruption, resuming, replacing."""

from __future__ import annotations

import hashlib
import shutil
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from viscy_data.distributed import SequentialBatchSampler
from viscy_data.errors import InputError, MissingInputError
from viscy_utils.callbacks import EmbeddingWriter
from viscy_utils.callbacks.embedding_writer import (
    get_available_index_columns,
    read_embedding_dataset,
    write_embedding_dataset,
)
from viscy_utils.embeddings.origin import read_origin
from viscy_utils.embeddings.part_files import Rows
from viscy_utils.embeddings.prediction_parts import PredictionParts
from viscy_utils.embeddings.reductions import reduce_features
from viscy_utils.embeddings.store import observation_table, parts_path_of, write_anndata
from viscy_utils.evaluation import load_annotation_anndata
from viscy_utils.evaluation.annotation import convert

ad = pytest.importorskip("anndata")


class Cells(Dataset):
    """Observation i has features (i, -i) and a row of index columns."""

    def __init__(self, n):
        self.n, self.asked = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, positions):
        self.asked += positions
        i = np.asarray(positions)
        index = [
            {"experiment": f"plate{k % 2}", "condition": "mock", "hours_post_infection": k / 2}
            | {"fov_name": "/A/1/0", "track_id": int(k) // 3, "t": int(k) % 3, "id": int(k), "y": 1.5}
            for k in i
        ]
        return {"x": torch.tensor(np.stack([i, -i], axis=1), dtype=torch.float32), "index": index}


class CellsModule(LightningDataModule):
    def __init__(self, n=10, batch_size=3):
        super().__init__()
        self.save_hyperparameters()
        self.dataset, self.start = Cells(n), 0

    def data_record(self):
        return {
            "class": "CellsModule",
            "settings": dict(self.hparams),
            "sources": {"predict/plate.zarr": self.dataset.n},
        }

    def skip_predicted(self, n_samples):
        self.start = n_samples

    def predict_dataloader(self):
        batches = SequentialBatchSampler(self.dataset.n, self.hparams.batch_size, pad=False, start=self.start)
        return DataLoader(self.dataset, sampler=batches, batch_size=None, collate_fn=lambda batch: batch)


class Encoder(LightningModule):
    def __init__(self, fail_at=None, scale=1.0):
        super().__init__()
        self.fail_at = fail_at
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def predict_step(self, batch, batch_idx):
        if batch_idx == self.fail_at:
            raise RuntimeError("out of memory")
        x = batch["x"] * self.scale
        return {"features": x.to(torch.bfloat16), "projections": x[:, :1], "index": batch["index"]}


def predict(writer, data, model=None, **options):
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, callbacks=[writer], enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.predict(model or Encoder(), data, return_predictions=False, **options)


def n_parts(path):
    return len(list(parts_path_of(path).glob("rank*/[0-9]*-[0-9]*")))


def assert_complete(path, n):
    adata = ad.read_zarr(path)
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X, np.stack([np.arange(n), -np.arange(n)], axis=1))
    np.testing.assert_array_equal(adata.obsm["X_projections"][:, 0], np.arange(n))
    np.testing.assert_array_equal(adata.obs["id"], np.arange(n))
    assert not parts_path_of(path).exists()
    return adata


pytestmark = pytest.mark.filterwarnings("ignore:The 'predict_dataloader' does not have many workers")


@pytest.mark.parametrize("interval", ["batch", "epoch", "batch_and_epoch"])
def test_all_intervals_write_the_same_store(tmp_path, interval):
    path = tmp_path / "cells.zarr"
    predict(EmbeddingWriter(path, write_interval=interval), CellsModule())
    adata = assert_complete(path, 10)
    assert zarr.open_group(path, mode="r").metadata.zarr_format == 2
    assert list(adata.obs.columns)[:5] == ["experiment", "condition", "hours_post_infection", "fov_name", "track_id"]
    assert isinstance(adata.obs["fov_name"].dtype, pd.CategoricalDtype)
    assert set(adata.obs["fov_name"]) == {"A/1/0"}
    assert adata.obs["track_id"].dtype == np.int64
    assert adata.obs_names[4] == "plate0/A/1/0/1/1"
    assert adata.obs_names.is_unique


def test_rows_are_on_disk_before_the_prediction_ends(tmp_path):
    path = tmp_path / "cells.zarr"
    counts = []

    class Watching(Encoder):
        def predict_step(self, batch, batch_idx):
            counts.append(n_parts(path))
            return super().predict_step(batch, batch_idx)

    predict(EmbeddingWriter(path, part_rows=3), CellsModule(), Watching())
    assert counts == [0, 1, 2, 3]


def test_an_interrupted_prediction_is_readable_and_continues_where_it_stopped(tmp_path):
    path = tmp_path / "cells.zarr"
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(EmbeddingWriter(path, part_rows=4), CellsModule(), Encoder(fail_at=3))
    assert not path.exists()
    partial = read_embedding_dataset(parts_path_of(path))
    np.testing.assert_array_equal(partial["features"][:, 0], np.arange(9))
    with pytest.raises(MissingInputError, match=r"cells\.zarr\.parts"):
        read_embedding_dataset(path)
    data = CellsModule()
    predict(EmbeddingWriter(path, part_rows=4), data)
    assert data.dataset.asked == [9]
    assert_complete(path, 10)


def test_parts_that_are_complete_are_merged_without_predicting(tmp_path):
    path = tmp_path / "cells.zarr"
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(EmbeddingWriter(path), CellsModule(n=7), Encoder(fail_at=2))
    data = CellsModule(n=7)
    predict(EmbeddingWriter(path), data)
    assert data.dataset.asked == [6]
    predict(EmbeddingWriter(tmp_path / "b.zarr"), CellsModule(n=6))
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(EmbeddingWriter(tmp_path / "c.zarr", part_rows=6), CellsModule(n=7), Encoder(fail_at=2))
    assert_complete(tmp_path / "b.zarr", 6)


@pytest.mark.parametrize(("data", "model"), [({"batch_size": 2}, {}), ({}, {"scale": 2.0})])
def test_parts_of_another_prediction_are_refused(tmp_path, data, model):
    path = tmp_path / "cells.zarr"
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(EmbeddingWriter(path), CellsModule(), Encoder(fail_at=1))
    with pytest.raises(InputError, match=r"overwrite: true"):
        predict(EmbeddingWriter(path), CellsModule(**data), Encoder(**model))
    predict(EmbeddingWriter(path, overwrite=True), CellsModule(**data))
    assert_complete(path, 10)


def test_parts_of_another_checkpoint_are_refused(tmp_path):
    for name, scale in (("one", 1.0), ("two", 2.0)):
        trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
        trainer.strategy.connect(Encoder(scale=scale))
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
    path = tmp_path / "cells.zarr"
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(EmbeddingWriter(path), CellsModule(), Encoder(fail_at=2), ckpt_path=tmp_path / "one.ckpt")
    with pytest.raises(InputError, match=r"field model[\s\S]*overwrite: true"):
        predict(EmbeddingWriter(path), CellsModule(), Encoder(), ckpt_path=tmp_path / "two.ckpt")
    data = CellsModule()
    predict(EmbeddingWriter(path), data, Encoder(), ckpt_path=tmp_path / "one.ckpt")
    assert data.dataset.asked == [6, 7, 8, 9]
    assert_complete(path, 10)


def test_a_data_module_that_cannot_continue_says_so(tmp_path):
    class Plain(CellsModule):
        skip_predicted = None

    path = tmp_path / "cells.zarr"
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(EmbeddingWriter(path), Plain(), Encoder(fail_at=1))
    with pytest.raises(InputError, match="start over with overwrite: true"):
        predict(EmbeddingWriter(path), Plain())


def test_parts_of_data_that_nobody_knows_are_not_gone_on_with(tmp_path):
    class Unknown(CellsModule):
        data_record = None

    path = tmp_path / "cells.zarr"
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(EmbeddingWriter(path), Unknown(), Encoder(fail_at=1))
    with pytest.raises(InputError, match="data_record"):
        predict(EmbeddingWriter(path), Unknown())
    predict(EmbeddingWriter(path, overwrite=True), Unknown())
    assert_complete(path, 10)


def test_embeddings_say_where_they_come_from(tmp_path):
    path = tmp_path / "cells.zarr"
    predict(EmbeddingWriter(path, pca_kwargs={"n_components": 1}), CellsModule())
    origin = read_origin(path)
    assert origin["data"] == CellsModule().data_record()
    assert origin["options"] == {"pca_kwargs": {"n_components": 1}}
    assert origin["versions"]["torch"] == version("torch")
    assert set(origin["checkpoint"]) == {"path", "weights"}
    assert datetime.fromisoformat(origin["date"]) <= datetime.now().astimezone()


def test_the_checkpoint_is_named_with_hash_and_step(tmp_path):
    model = Encoder()
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    path = tmp_path / "cells.zarr"
    predict(EmbeddingWriter(path), CellsModule(), model, ckpt_path=tmp_path / "last.ckpt")
    checkpoint = read_origin(path)["checkpoint"]
    digest = hashlib.blake2b((tmp_path / "last.ckpt").read_bytes(), digest_size=16).hexdigest()
    assert checkpoint == {"path": str(tmp_path / "last.ckpt"), "blake2b": digest, "epoch": 0, "step": 0}


def test_a_store_of_another_program_has_no_origin(tmp_path):
    write_embedding_dataset(tmp_path / "cells.zarr", np.zeros((2, 3)), pd.DataFrame({"track_id": [1, 2]}))
    assert read_origin(tmp_path / "cells.zarr") is None


def test_existing_output_is_refused_before_anything_is_computed(tmp_path):
    path = tmp_path / "cells.zarr"
    predict(EmbeddingWriter(path), CellsModule(n=4))
    data = CellsModule()
    with pytest.raises(FileExistsError, match="overwrite: true"):
        predict(EmbeddingWriter(path), data)
    assert data.dataset.asked == []
    assert_complete(path, 4)
    predict(EmbeddingWriter(path, overwrite=True), data)
    assert_complete(path, 10)


def test_a_failed_overwrite_keeps_the_old_store(tmp_path):
    path = tmp_path / "cells.zarr"
    predict(EmbeddingWriter(path), CellsModule(n=4))
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(EmbeddingWriter(path, overwrite=True), CellsModule(), Encoder(fail_at=1))
    assert ad.read_zarr(path).n_obs == 4


def test_loaders_of_single_observations_keep_their_order(tmp_path):
    class Single(Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, i):
            return {"x": torch.tensor([float(i), -float(i)]), "index": {"fov_name": "A/1/0", "track_id": i, "t": 0}}

    class Columns(Encoder):
        def predict_step(self, batch, batch_idx):
            return {"latent": batch["x"], "reconstruction": batch["x"], "index": batch["index"]}

    path = tmp_path / "cells.zarr"
    predict(EmbeddingWriter(path), DataLoader(Single(), batch_size=2), Columns())
    adata = ad.read_zarr(path)
    np.testing.assert_array_equal(adata.X[:, 0], np.arange(5))
    np.testing.assert_array_equal(adata.obs["track_id"], np.arange(5))
    assert "X_projections" not in adata.obsm


def test_predictions_without_features_are_named(tmp_path):
    class Wrong(Encoder):
        def predict_step(self, batch, batch_idx):
            return {"embedding": batch["x"], "index": batch["index"]}

    with pytest.raises(InputError, match=r"found +embedding, index\n.*'features' or 'latent'"):
        predict(EmbeddingWriter(tmp_path / "cells.zarr"), CellsModule(), Wrong())


@pytest.mark.slow
@settings(deadline=None, max_examples=5)
@given(st.integers(1, 3), st.integers(1, 25), st.integers(1, 4), st.integers(1, 9), st.booleans())
def test_parts_of_any_number_of_ranks_merge_in_the_order_of_the_data(world, n, batch, part, pad):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/cells.zarr"
        for rank in range(world):
            parts = PredictionParts(path, rank)
            if pad:  # batches dealt out in turn
                positions = [
                    i for k in range(rank, -(-n // batch), world) for i in range(k * batch, min(n, (k + 1) * batch))
                ]
            else:
                positions = [i for b in SequentialBatchSampler(n, batch, world, rank, pad=False) for i in b]
            for first in range(0, len(positions), part):
                i = np.asarray(positions[first : first + part])
                index = pd.DataFrame({"fov_name": [f"A/1/{k % 3}" for k in i], "track_id": i, "t": 0})
                parts.write(Rows(np.stack([i, i + 1], 1), None, index, i), first)
            assert parts.n_rows() == len(positions)
        assert PredictionParts(path).merge() == n
        adata = ad.read_zarr(path)
        np.testing.assert_array_equal(adata.X[:, 1], np.arange(1, n + 1))
        assert adata.obs["fov_name"].astype(str).tolist() == [f"A/1/{k % 3}" for k in range(n)]


def test_rows_after_a_gap_do_not_count(tmp_path):
    parts = PredictionParts(tmp_path / "cells.zarr")
    rows = Rows(np.zeros((2, 1)), None, pd.DataFrame({"t": [0, 1]}), np.arange(2))
    parts.write(rows, 0)
    parts.write(rows, 4)
    assert parts.n_rows() == 2
    assert n_parts(tmp_path / "cells.zarr") == 1


def table(n=6):
    return pd.DataFrame(
        {"fov_name": ["/A/1/0"] * n, "track_id": np.arange(n) // 2, "t": np.arange(n) % 2, "id": range(n)}
    )


STRANGE = ["area/um", "area_um", "/lead", "", ".", "..", ".zattrs", "_index", "a\0b", "x" * 300, 3, "µm", " "]


def test_a_removal_that_is_interrupted_leaves_nothing_that_looks_like_parts(tmp_path, monkeypatch):
    parts = PredictionParts(tmp_path / "embeddings.zarr")
    (parts.path / "rank0").mkdir(parents=True)

    def killed(path, **options):
        if Path(path).exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            parts.remove()
    assert not parts.path.exists()
    parts.create({})
    parts.remove()
    assert list(tmp_path.iterdir()) == []


def test_columns_of_any_name_are_kept_and_those_written_otherwise_are_said(tmp_path):
    table = pd.DataFrame({"fov_name": "A/1/0", "track_id": [0, 1], "t": 0})
    for number, name in enumerate(STRANGE):
        table[name] = [number, number + 100]
    with pytest.warns(
        UserWarning, match=r"names that a store cannot hold are written otherwise: 'area/um' \('area_um_1'"
    ):
        write_embedding_dataset(tmp_path / "e.zarr", np.ones((2, 3)), table)
    obs = ad.read_zarr(tmp_path / "e.zarr").obs
    assert obs.columns[:3].tolist() == ["fov_name", "track_id", "t"]
    assert obs.iloc[:, 3:].to_numpy().tolist() == [
        list(range(len(STRANGE))),
        list(range(100, 100 + len(STRANGE))),
    ]
    assert obs["area_um"].tolist() == [1, 101]


def test_keys_of_any_name_are_kept(tmp_path):
    adata = ad.AnnData(
        np.ones((2, 1), np.float32), obsm={"X/a": np.zeros((2, 1))}, uns={"predicted_a/b_classes": ["c"]}
    )
    with pytest.warns(UserWarning, match="'X/a'"):
        write_anndata(adata, tmp_path / "e.zarr")
    read = ad.read_zarr(tmp_path / "e.zarr")
    assert (list(read.obsm), list(read.uns)) == (["X_a"], ["predicted_a_b_classes"])
    assert (list(adata.obsm), list(adata.uns)) == (["X/a"], ["predicted_a/b_classes"])


def test_row_names_are_unique_even_where_case_is_ignored():
    index = pd.DataFrame({"fov_name": ["A/1/0", "a/1/0", "A/1/0"], "track_id": [1, 1, 2], "t": [0, 0, 0]})
    names = observation_table(index).index
    assert len({name.lower() for name in names}) == 3
    assert index.columns.tolist() == ["fov_name", "track_id", "t"]


def test_reductions_get_defaults_and_leave_the_users_options_alone(tmp_path):
    pca, umap = {"n_components": 50}, {"normalize_features": False}
    features = np.random.default_rng(0).normal(size=(6, 4))
    write_embedding_dataset(tmp_path / "e.zarr", features, table(), features[:, :2], pca_kwargs=pca)
    adata = ad.read_zarr(tmp_path / "e.zarr")
    assert adata.obsm["X_pca"].shape == (6, 4)
    assert (pca, umap) == ({"n_components": 50}, {"normalize_features": False})
    # Distances between standardised rows are what PCA keeps.
    z = (features - features.mean(0)) / features.std(0)
    distances = [np.linalg.norm(a[:, None] - a[None], axis=-1) for a in (z, adata.obsm["X_pca"])]
    np.testing.assert_allclose(*distances, rtol=1e-4)


def test_a_failing_reduction_keeps_the_embeddings(tmp_path, caplog):
    write_embedding_dataset(tmp_path / "e.zarr", np.ones((2, 4)), table(2), pca_kwargs={"n_components": 2})
    assert "no pca: ValueError: pca needs at least 3 rows" in caplog.text
    assert ad.read_zarr(tmp_path / "e.zarr").X.shape == (2, 4)
    write_embedding_dataset(tmp_path / "f.zarr", np.ones((4, 4)), table(4), umap_kwargs={"colour": 2})
    assert "no umap" in caplog.text


def test_phate_is_an_extra_of_its_own(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "phate", None)
    write_embedding_dataset(tmp_path / "f.zarr", np.eye(4), table(4), phate_kwargs={"n_components": 2})
    assert "no phate: ImportError" in caplog.text
    assert "pip install 'viscy-utils[phate]'" in caplog.text
    with pytest.raises(ImportError, match=r"viscy-utils\[phate\]"):  # before anything is predicted
        predict(EmbeddingWriter(tmp_path / "g.zarr", phate_kwargs={"n_components": 2}), CellsModule())
    assert not (tmp_path / "g.zarr.parts").exists()


def test_phate_reduces_when_it_is_installed():
    pytest.importorskip("phate")
    features = np.random.default_rng(0).normal(size=(20, 4))
    assert reduce_features("phate", features, {"n_components": 2}).shape == (20, 2)


@pytest.mark.parametrize(("method", "neighbours"), [("umap", "n_neighbors"), ("phate", "knn")])
def test_neighbours_are_capped_for_small_data(monkeypatch, method, neighbours):
    seen = {}

    class Estimator:
        def __init__(self, **options):
            seen.update(options)

        def fit_transform(self, features):
            return features

    monkeypatch.setitem(sys.modules, method, SimpleNamespace(**{method.upper(): Estimator}))
    reduce_features(method, np.ones((4, 2)), {"n_components": 3})
    assert (seen[neighbours], seen["n_components"]) == (3, 3)


def test_a_dataset_is_read_with_its_index(tmp_path):
    features = np.arange(12.0).reshape(6, 2)
    write_embedding_dataset(tmp_path / "e.zarr", features, table(), features[:, :1])
    with pytest.raises(FileExistsError, match="overwrite"):
        write_embedding_dataset(tmp_path / "e.zarr", features, table())
    dataset = read_embedding_dataset(tmp_path / "e.zarr")
    assert dataset["features"].dims == ("sample", "features")
    np.testing.assert_array_equal(dataset["projections"], features[:, :1])
    chosen = dataset.sel(fov_name="A/1/0", track_id=1, t=1)
    np.testing.assert_array_equal(chosen["features"].squeeze(), features[3])
    write_embedding_dataset(tmp_path / "e.zarr", features + 1, table(), overwrite=True)
    assert read_embedding_dataset(tmp_path / "e.zarr")["features"].max() == 12


@pytest.fixture
def legacy(tmp_path):
    features = np.arange(12, dtype=np.float32).reshape(6, 2)
    coords = {name: ("sample", np.asarray(column)) for name, column in table().items()}
    coords |= {f"PCA{i}": ("sample", features[:, 0] * i) for i in (1, 2, 10)}
    data = {"features": (("sample", "features"), features), "projections": (("sample", "p"), features)}
    xr.Dataset(data, coords).to_zarr(tmp_path / "legacy.zarr", zarr_format=2, consolidated=False)
    return tmp_path / "legacy.zarr"


def test_stores_of_the_old_layout_are_read_and_converted(legacy, tmp_path):
    dataset = read_embedding_dataset(legacy)
    assert dataset["features"].shape == (6, 2)
    assert get_available_index_columns(dataset) == ["fov_name", "track_id", "t", "id"]
    adata = convert(legacy, tmp_path / "new.zarr", return_anndata=True)
    again = ad.read_zarr(tmp_path / "new.zarr")
    np.testing.assert_array_equal(adata.X, again.X)
    assert again.obsm["X_pca"].shape == (6, 3)
    np.testing.assert_array_equal(again.obsm["X_pca"][:, 2], 10 * again.X[:, 0])
    assert again.obs["fov_name"].tolist() == ["A/1/0"] * 6
    with pytest.raises(FileExistsError, match="overwrite"):
        convert(legacy, tmp_path / "new.zarr")


def test_annotations_are_matched_on_fov_and_id(legacy, tmp_path):
    adata = convert(legacy, tmp_path / "new.zarr", return_anndata=True)
    csv = tmp_path / "labels.csv"
    rows = pd.DataFrame({"fov_name": ["/A/1/0", "A/1/0", "B/1/0"], "id": [4, 1, 2], "state": ["x", "y", "x"]})
    rows.to_csv(csv, index=False)
    with pytest.warns(UserWarning, match=r"1 of 3 rows of .*labels\.csv name no cell, such as B/1/0/2"):
        load_annotation_anndata(adata, csv, "state", {"x": "infected"})
    assert adata.obs["state"].astype(object).where(adata.obs["state"].notna(), None).tolist() == [
        None, "y", None, None, "infected", None,
    ]  # fmt: skip
    with pytest.raises(KeyError, match="lacks the columns other"):
        load_annotation_anndata(adata, csv, "other")
    pd.concat([rows, rows[:1]]).to_csv(csv, index=False)
    with pytest.raises(ValueError, match="annotated twice, such as A/1/0/4"):
        load_annotation_anndata(adata, csv, "state")


@pytest.mark.parametrize(("kwargs", "word"), [({"write_interval": "step"}, "step"), ({"part_rows": 0}, "part_rows")])
def test_bad_options_are_refused(tmp_path, kwargs, word):
    with pytest.raises(ValueError, match=word):
        EmbeddingWriter(tmp_path / "cells.zarr", **kwargs)
