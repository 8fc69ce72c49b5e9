"""Parts of a prediction merge into what AnnData writes of all rows at once, and few bytes are held for it."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from viscy_utils.embeddings.kind import part_folders
from viscy_utils.embeddings.part_files import Part, Rows
from viscy_utils.embeddings.part_merging import merge_parts
from viscy_utils.embeddings.store import build_anndata, observation_table, write_anndata

ad = pytest.importorskip("anndata")


def table_of(n, rng):
    """Columns of all kinds; some cells have the name of another, some in other letters."""
    fov = rng.choice(["/A/1/0", "B/2/1", "b/2/1"], n)
    return pd.DataFrame(
        {
            **{"experiment": rng.choice(["plate", "Plate", "µ"], n), "fov_name": fov},
            **{"track_id": rng.integers(0, 3, n), "t": rng.integers(0, 3, n), "x": rng.random(n).astype(np.float32)},
            **{"divides": rng.random(n) < 0.5, "hpi": np.where(rng.random(n) < 0.5, np.nan, 1.5)},
            **{"note": [None if k % 3 else f"n{k}" for k in range(n)], "area/um": np.arange(n), 3: "three"},
        }
    )


def write_parts(folder, table, samples, cuts):
    """Write rows in the order of ``samples``, cut into parts; returns the tables of the parts."""
    features = np.stack([samples, -samples], 1)
    bounds = [0, *sorted(cuts), len(samples)]
    for first, last in pairwise(bounds):
        if last > first:
            part = slice(first, last)
            own = table.iloc[samples[part]]
            Part.write(folder / "rank0", Rows(features[part], features[part, :1], own, samples[part]), first)
    return part_folders(folder)


@pytest.mark.filterwarnings("ignore:names that a store cannot hold")
@settings(deadline=None, max_examples=4)
@given(st.integers(1, 40), st.lists(st.integers(0, 40), max_size=4), st.integers(1, 50), st.integers(0, 99))
def test_parts_merge_into_what_anndata_writes_of_all_rows(tmp_path_factory, n, cuts, block_rows, seed):
    folder, rng = tmp_path_factory.mktemp("parts"), np.random.default_rng(seed)
    table, samples = table_of(n, rng), rng.permutation(n)
    parts = write_parts(folder, table, samples, [min(cut, n) for cut in cuts])
    assert merge_parts(parts, folder / "merged.zarr", {"a": "b"}, block_rows=block_rows) == n
    features = np.stack([np.arange(n), -np.arange(n)], 1)
    whole = build_anndata(features, observation_table(table), {"X_projections": features[:, :1]})
    whole.uns["a"] = "b"
    write_anndata(whole, folder / "whole.zarr")
    merged, expected = ad.read_zarr(folder / "merged.zarr"), ad.read_zarr(folder / "whole.zarr")
    pd.testing.assert_frame_equal(merged.obs, expected.obs)
    assert merged.obs_names.is_unique
    np.testing.assert_array_equal(merged.X, expected.X)
    np.testing.assert_array_equal(merged.obsm["X_projections"], expected.obsm["X_projections"])
    assert merged.uns == expected.uns
    same = [dict(zarr.open_group(folder / f"{name}.zarr", mode="r")["obs"].attrs) for name in ("merged", "whole")]
    assert same[0] == same[1]


def test_columns_that_parts_have_differently_are_joined_as_pandas_joins_them(tmp_path):
    tables = [
        pd.DataFrame({"t": [0, 1], "n": [1, 2], "flag": [True, False], "only": [1, 2], "mixed": [5, 6]}),
        pd.DataFrame({"t": [2, 3], "n": [0.5, 1.5], "mixed": ["a", None], "new": ["x", "y"]}),
        pd.DataFrame({"t": [4], "n": pd.array([None], dtype="Int64"), "mixed": [1.5], "big": [2**40]}),
    ]
    for number, table in enumerate(tables):
        rows = Rows(np.ones((len(table), 1)), None, table, np.arange(len(table)) + 2 * number)
        Part.write(tmp_path / "rank0", rows, 2 * number)
    merge_parts(part_folders(tmp_path), tmp_path / "merged.zarr", {}, block_rows=2)
    tables[2]["n"] = [np.nan]
    expected = observation_table(pd.concat(tables, ignore_index=True))
    pd.testing.assert_frame_equal(
        ad.read_zarr(tmp_path / "merged.zarr").obs.astype(object), expected.astype(object), check_index_type=False
    )


def test_what_merging_holds_hardly_grows_with_the_rows(tmp_path):
    held = {}
    for n in (32_768, 131_072):
        folder, numbers = tmp_path / str(n), np.arange(n)
        index = pd.DataFrame({"fov_name": "A/1/0", "track_id": numbers // 8, "t": numbers % 8, "x": numbers / 2})
        for first in range(0, n, 16_384):
            rows = slice(first, first + 16_384)
            Part.write(folder / "rank0", Rows(np.ones((16_384, 4)), None, index[rows], numbers[rows]), first)
        parts = part_folders(folder)
        assert {len(list(part.iterdir())) for part in parts} == {2}, "a part is few files"
        tracemalloc.start()
        merge_parts(parts, folder / "merged.zarr", {}, block_rows=4096)
        held[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert held[131_072] - held[32_768] < 40 * (131_072 - 32_768)
