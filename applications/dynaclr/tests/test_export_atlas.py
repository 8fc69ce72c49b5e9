"""`dynaclr export-atlas`: rows, coordinates and pixels, read back by pyarrow and Pillow."""

from __future__ import annotations

import io
import json
import shutil
import tracemalloc

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from dynaclr.cli import cli
from viscy_data.patches import PatchReader
from viscy_data.stores import PlateWriter
from viscy_utils.embeddings.store import add_array, write_anndata

SIDE, N_FRAMES, IMAGE = 8, 10, (40, 48)
EXPERIMENTS = {"bright": 900, "dim": 30}  # and the counts of their brightest pixels


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Embeddings of 600 cells of two experiments, whose plates hold noise."""
    folder = tmp_path_factory.mktemp("atlas")
    rng = np.random.default_rng(0)
    sources = []
    for name, most in EXPERIMENTS.items():
        with PlateWriter(folder / f"{name}.zarr", ["DAPI", "Phase", "GFP"]) as plate:
            for fov in ("A/1/0", "B/1/0"):
                plate.write(fov, rng.integers(0, most, (N_FRAMES, 3, 3, *IMAGE)).astype(np.uint16))
        seen = {"experiment": name, "channels": ["GFP", "Phase"], "z_range": [0, 3], "yx_size": [SIDE, SIDE]}
        sources.append({"store": str(folder / f"{name}.zarr"), "images": [seen]})
    n = 600
    track = np.arange(n) // N_FRAMES
    obs = pd.DataFrame(
        {
            "experiment": pd.Categorical(np.array(list(EXPERIMENTS))[track % 2]),
            "fov_name": pd.Categorical(np.where(track % 3, "A/1/0", "B/1/0")),
            "track_id": track,
            "t": np.arange(n) % N_FRAMES,
            "y": rng.uniform(0, IMAGE[0] - 1, n),
            "x": rng.uniform(0, IMAGE[1] - 1, n),
            "state": pd.Categorical(np.where(np.arange(n) % 7, "healthy", None)),
            "certain": np.arange(n) % 2 == 0,
        },
        index=[f"cell {number}" for number in range(n)],
    )
    adata = anndata.AnnData(rng.normal(size=(n, 5)).astype(np.float32), obs=obs)
    adata.obsm["X_umap"] = rng.normal(size=(n, 3)).astype(np.float32)
    adata.obsm["X_pca_combined"] = rng.normal(size=(n, 2)).astype(np.float32)
    adata.obsm["X_umap"][5] = np.nan
    adata.uns["origin"] = {"data": json.dumps({"sources": {"predict": sources}})}
    write_anndata(adata, folder / "embeddings.zarr")
    return folder


@pytest.fixture
def folder(stored, tmp_path, monkeypatch):
    """A folder with a copy of the embeddings, in which the command runs."""
    shutil.copytree(stored / "embeddings.zarr", tmp_path / "embeddings.zarr")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    arguments = ("export-atlas", "embeddings.zarr", "-o", "atlas.parquet", *map(str, arguments))
    return CliRunner().invoke(cli, arguments, env={"COLUMNS": "160"})


def succeed(*arguments):
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments):
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return done.output


def patches(stored, obs):
    """Cut the middle slice of each cell, moved into the image, by a loop; returns (N, 2, SIDE, SIDE)."""
    plates = {name: plate_pixels(stored / f"{name}.zarr") for name in EXPERIMENTS}
    cut = []
    for cell in obs.itertuples():
        image = plates[cell.experiment][cell.fov_name]
        top, left = (
            int(np.clip(np.floor(place + 0.5) - SIDE // 2, 0, size - SIDE))
            for place, size in zip((cell.y, cell.x), IMAGE, strict=True)
        )
        cut.append(image[cell.t, [2, 1], 1, top : top + SIDE, left : left + SIDE])
    return np.array(cut, float)


def plate_pixels(path):
    group = zarr.open_group(path, mode="r")
    return {fov: np.asarray(group[f"{fov}/0"]) for fov in ("A/1/0", "B/1/0")}


def decoded(entry):
    return np.asarray(Image.open(io.BytesIO(entry["bytes"])))


def test_rows_columns_and_pixels_are_those_of_the_store(stored, folder):
    said = succeed()
    assert "599 cells, places of umap (stored), thumbnails of 599 (GFP, Phase)" in said
    assert "1 cells left out: values of umap that are not finite" in said
    assert "uvx embedding-atlas atlas.parquet --x projection_x --y projection_y --image image" in said
    adata = anndata.read_zarr("embeddings.zarr")
    kept = np.delete(np.arange(600), 5)
    obs = adata.obs.iloc[kept]
    file = pq.ParquetFile("atlas.parquet")
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [512, 87]
    table = file.read()
    assert table.column_names == ["cell", "projection_x", "projection_y", *obs, "image"]
    columns = table.to_pydict()
    assert columns["cell"] == obs.index.tolist()
    np.testing.assert_array_equal(
        np.stack([columns["projection_x"], columns["projection_y"]], axis=1).astype(np.float32),
        np.asarray(adata.obsm["X_umap"])[kept, :2],
    )
    for name in ("experiment", "fov_name", "track_id", "t", "y", "x", "certain"):
        assert columns[name] == obs[name].tolist(), name
    assert columns["state"] == [None if pd.isna(state) else state for state in obs["state"]]

    # Black and white are percentiles of all cells of the experiment, whatever row group a cell is in.
    cut, experiments = patches(stored, obs), obs["experiment"].to_numpy()
    for name in EXPERIMENTS:
        own = np.flatnonzero(experiments == name)
        expected = []
        for channel in (0, 1):
            low, high = np.percentile(cut[own, channel].astype(np.float32), (0.5, 99.5))
            expected.append(np.clip(np.rint(255 * (cut[own, channel] - low) / (high - low)), 0, 255))
        shown = np.array([decoded(columns["image"][row]) for row in own], float)
        difference = np.abs(shown - np.concatenate(expected, axis=2))
        assert difference.max() <= 1  # float32 and float64 may round differently
        assert (difference > 0).mean() < 1e-3
    assert columns["image"][3]["path"] == "cell 3.png"


def test_libraries_are_told_which_column_holds_images(folder):
    succeed("--max-cells", 20)
    schema = pq.read_schema("atlas.parquet")
    note = json.loads(schema.metadata[b"huggingface"])
    assert note["info"]["features"] == {"image": {"_type": "Image"}}
    image = schema.field("image").type
    assert [(field.name, str(field.type)) for field in image] == [("bytes", "binary"), ("path", "string")]
    assert not any(str(field.type).startswith("dictionary") for field in schema)


def test_thumbnails_are_made_smaller_by_averaging_and_never_larger(folder):
    succeed("--max-cells", 30)
    whole = pq.read_table("atlas.parquet")
    succeed("--max-cells", 30, "--thumbnail-size", 4, "--overwrite")
    small = pq.read_table("atlas.parquet")
    assert small["cell"] == whole["cell"]
    for one, other in zip(whole["image"].to_pylist(), small["image"].to_pylist(), strict=True):
        full, half = decoded(one), decoded(other)
        assert (full.shape, half.shape) == ((SIDE, 2 * SIDE), (SIDE // 2, SIDE))
        means = full.reshape(4, 2, 8, 2).mean(axis=(1, 3))
        assert np.abs(half - means).max() <= 1  # rounded after each axis


def test_fewer_cells_keep_their_order_and_equal_seeds_give_equal_bytes(folder):
    succeed("--max-cells", 50, "--no-thumbnails", "--seed", 3)
    first = (folder / "atlas.parquet").read_bytes()
    cells = [int(name.split()[1]) for name in pq.read_table("atlas.parquet")["cell"].to_pylist()]
    assert len(cells) == 50
    assert cells == sorted(cells)
    assert "image" not in pq.read_schema("atlas.parquet").names
    succeed("--max-cells", 50, "--no-thumbnails", "--seed", 3, "--overwrite")
    assert (folder / "atlas.parquet").read_bytes() == first
    succeed("--max-cells", 50, "--no-thumbnails", "--seed", 4, "--overwrite")
    assert (folder / "atlas.parquet").read_bytes() != first


def test_layouts_are_taken_or_computed(folder):
    assert "places of pca_combined (stored)" in succeed("--layout", "X_pca_combined", "--no-thumbnails")
    adata = anndata.read_zarr("embeddings.zarr")
    table = pq.read_table("atlas.parquet")
    np.testing.assert_array_equal(table["projection_y"], np.asarray(adata.obsm["X_pca_combined"])[:, 1])

    assert "600 cells, places of pca (computed)" in succeed("--layout", "pca", "--no-thumbnails", "--overwrite")
    expected = PCA(2, random_state=0).fit_transform(StandardScaler().fit_transform(adata.X))
    table = pq.read_table("atlas.parquet")
    found = np.stack([table["projection_x"], table["projection_y"]], axis=1)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-3, atol=1e-4)


def test_cells_whose_store_is_not_at_hand_have_no_image(stored, folder):
    adata = anndata.read_zarr("embeddings.zarr")
    shutil.rmtree("embeddings.zarr")
    lost = adata.uns["origin"]["data"].replace(str(stored / "dim.zarr"), str(folder / "gone.zarr"))
    adata.uns["origin"]["data"] = lost
    write_anndata(adata, "embeddings.zarr")
    said = " ".join(succeed().split())
    assert "no images of cells of" in said
    table = pq.read_table("atlas.parquet")
    images = pd.Series(table["image"].to_pylist())
    assert images.isna().tolist() == [name == "dim" for name in table["experiment"].to_pylist()]

    del adata.uns["origin"]
    shutil.rmtree("embeddings.zarr")
    write_anndata(adata, "embeddings.zarr")
    said = succeed("--overwrite")
    assert "do not say which stores" in said
    assert "--image" not in said
    assert "image" not in pq.read_schema("atlas.parquet").names


def test_what_cannot_be_exported_is_refused_and_nothing_is_lost(folder):
    assert "did you mean 'pca" in refused("--layout", "X_pca_combind")
    assert "one of" in refused("--layout", "spiral")
    succeed("--no-thumbnails")
    before = (folder / "atlas.parquet").read_bytes()
    assert "atlas.parquet exists; choose another file, or replace it with --overwrite" in refused()
    assert run("--max-cells", 0).exit_code == 2
    adata = anndata.read_zarr("embeddings.zarr")
    adata.obs["image"] = "a.png"
    shutil.rmtree("embeddings.zarr")
    write_anndata(adata, "embeddings.zarr")
    assert "columns called image" in refused("--overwrite")
    assert (folder / "atlas.parquet").read_bytes() == before
    shutil.rmtree("embeddings.zarr")
    assert "embeddings.zarr" in refused("--overwrite")
    assert sorted(path.name for path in folder.iterdir()) == ["atlas.parquet"]


def test_features_are_read_in_blocks_and_only_where_a_layout_is_computed(folder):
    """40,000 cells of 256 features are 41 MB, a copy of which is never in memory."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40_000, 256)).astype(np.float32) * np.linspace(1, 3, 256, dtype=np.float32) + 50
    features[:, 7] = features[:, 3] + 0.1 * features[:, 7]  # the first component is of these two
    features[:, 9] = 5
    features[11, 4] = np.inf
    obs = pd.DataFrame({"t": np.arange(40_000)}, index=[str(number) for number in range(40_000)])
    succeed("--no-thumbnails", "--max-cells", 5)  # imports what it needs
    shutil.rmtree("embeddings.zarr")
    write_anndata(anndata.AnnData(features, obs=obs), "embeddings.zarr")
    tracemalloc.start()
    said = succeed("--no-thumbnails", "--layout", "pca", "--overwrite")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "1 cells left out" in said
    assert most < 0.75 * features.nbytes
    table = pq.read_table("atlas.parquet")
    kept = np.delete(features, 11, axis=0)
    scaled = StandardScaler().fit_transform(kept.astype(np.float64))
    expected = PCA(2).fit_transform(scaled)[:, 0]
    np.testing.assert_allclose(table["projection_x"], expected, rtol=1e-3, atol=1e-3)

    group = zarr.open_group("embeddings.zarr", mode="r+", use_consolidated=False)
    add_array(group, "obsm/X_umap", (40_000, 2))[:] = rng.normal(size=(40_000, 2))
    for path in (folder / "embeddings.zarr" / "X").iterdir():
        if not path.name.startswith("."):
            path.write_bytes(b"no pixels") if path.is_file() else shutil.rmtree(path)
    assert "40,000 cells, places of umap (stored)" in succeed("--no-thumbnails", "--overwrite")


def test_every_fov_is_opened_once(folder, monkeypatch):
    readers = []

    class Counted(PatchReader):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            readers.append(self)

    monkeypatch.setattr("viscy_utils.evaluation.cell_images.PatchReader", Counted)
    succeed()
    assert pq.ParquetFile("atlas.parquet").num_row_groups == 2
    assert [reader.opens for reader in readers] == [4]  # two FOVs of two plates
