"""Stores of OME-NGFF 0.4 whose metadata say something else: axes, channels, versions, shapes, types, compressors."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest
from hypothesis import strategies as st

from viscy_data.errors import InputError
from viscy_data.stores import PlateWriter, open_array, read_fovs, read_plate, read_stack
from viscy_data.testing.mutations import TreeEdit, byte_edits, edited_bytes, edited_tree, tree_edits

pytest_plugins = ["viscy_data.testing.fixtures"]

INDEX = "build-index experiments.yml index.parquet"
FOV = "A/1/0"
METADATA = [
    *(".zattrs", ".zgroup", "A/.zgroup", "A/1/.zattrs", "A/1/.zgroup"),
    *(f"{FOV}/.zattrs", f"{FOV}/.zattrs", f"{FOV}/.zgroup", *[f"{FOV}/0/.zarray"] * 4),
]
VALUES = [
    *(
        None,
        True,
        0,
        1,
        2,
        3,
        -1,
        5,
        0.5,
        float("nan"),
        10**12,
        "",
        "x",
        "0",
        "1",
        "../x",
        "A/1",
        "B/2",
        "0.1",
        "0.4",
        "0.5",
        "9.9",
    ),
    *("<u2", ">u2", "|u1", "<f4", "<f8", "<i2", "|O", "|S3", "<U2", "<M8[s]", ".", "/", "F", "C", "NaN", "Infinity"),
    *("t", "c", "z", "y", "T", "time", "space", "channel", "hour", "micrometer"),
    *({"id": "zstd", "level": 3}, {"id": "gzip", "level": 99}, {"id": "blosc", "cname": "none"}, {"id": "pickle"}),
    *([{"id": "delta", "dtype": "<u2"}], {"id": "zlib", "level": 1}, {"id": "lz4"}, [1, 1, 1, 1, 1], [0, 1, 1, 8, 8]),
]
KEPT: list[tuple[str, list[TreeEdit]]] = []


@pytest.fixture(scope="session")
def older(trained, tmp_path_factory):
    """Return the first store in OME-NGFF 0.4."""
    path = tmp_path_factory.mktemp("older") / "images.zarr"
    fovs = read_plate(trained / "first/images.zarr")
    with PlateWriter(path, list(fovs[0].channel_names), version="0.4") as writer:
        for fov in fovs:
            writer.write(fov.name, open_array(fov).read().result())
    return path


def _spoilt(place, trained, older, name, change):
    (place.folder / "first").unlink()
    (place.folder / "first").mkdir()
    (place.folder / "first/tracks").symlink_to(trained / "first/tracks")
    shutil.copytree(older, place.folder / "first/images.zarr")
    target = place.folder / "first/images.zarr" / name
    target.write_bytes(change(target.read_bytes()))


def _tried(place):
    """Describe the store, index it, and read pixels of it; nothing but errors that name it."""
    place.accepted("info first/images.zarr")
    accepted = place.accepted(INDEX)
    assert (place.folder / "index.parquet").exists() == accepted
    with contextlib.suppress(InputError):
        for fov in read_fovs(place.folder / "first/images.zarr"):
            assert read_stack(fov, 0, 0).shape == fov.shape[2:]


@pytest.mark.filterwarnings("ignore")
def test_values_of_metadata(fresh, tried, trained, older):
    def check(case):
        name, edits = case
        place = fresh()
        change = lambda text: json.dumps(edited_tree(json.loads(text), edits)).encode()  # noqa: E731
        _spoilt(place, trained, older, name, change)
        _tried(place)

    tried(check, st.tuples(st.sampled_from(METADATA), tree_edits(2, VALUES)), 10, 400, KEPT)


@pytest.mark.filterwarnings("ignore")
def test_bytes_of_metadata(fresh, tried, trained, older):
    def check(case):
        name, edits = case
        place = fresh()
        _spoilt(place, trained, older, name, lambda text: edited_bytes(text, edits))
        _tried(place)

    tried(check, st.tuples(st.sampled_from(METADATA), byte_edits()), 3, 160)
