"""Files that were made to do harm: they are refused in words, in no time and in little memory."""

import json
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
import yaml

from viscy_data.errors import InputError
from viscy_data.memory import memory_bytes, refuse_too_large
from viscy_data.stores import PlateWriter, canonical_fov_name, read_fovs, read_plate
from viscy_data.testing.foreign import write_foreign_series
from viscy_data.tracks import read_tracks
from viscy_data.tracks.napari import read_napari
from viscy_data.yaml_reading import parse_yaml


@contextmanager
def little_memory(n_bytes=50_000_000):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < n_bytes
    finally:
        tracemalloc.stop()


@pytest.fixture(params=["0.4", "0.5", "sharded"])
def plate(tmp_path, request):
    options = {"version": "0.4"} if request.param == "0.4" else {}
    if request.param == "sharded":
        options = {"chunks": (1, 1, 1, 8, 8), "shards": (1, 1, 1, 8, 8)}
    with PlateWriter(tmp_path / "p.zarr", ["Phase"], **options) as writer:
        writer.write("A/1/0", np.ones((1, 1, 1, 8, 8), np.uint16))
    return tmp_path / "p.zarr"


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_chunk_that_no_memory_holds_is_refused_before_it_is_made(plate):
    array, huge = plate / "A/1/0/0", [1, 1, 1, 10**6, 10**6]

    def inflate(document):
        document["shape"] = huge
        if "chunks" in document:
            document["chunks"] = huge
            return
        document["chunk_grid"]["configuration"]["chunk_shape"] = huge
        for codec in document["codecs"]:
            if codec["name"] == "sharding_indexed":
                codec["configuration"]["chunk_shape"] = huge

    edit(array / (".zarray" if (array / ".zarray").exists() else "zarr.json"), inflate)
    with pytest.raises(InputError, match=r"(?s)p\.zarr, FOV A/1/0, field chunks.*2000\.0 GB at once.*smaller chunks"):
        read_plate(plate)


def test_a_large_image_of_small_chunks_is_no_harm(plate):
    array = plate / "A/1/0/0"
    grow = {"shape": [10**6, 1, 1, 8, 8]}
    edit(array / (".zarray" if (array / ".zarray").exists() else "zarr.json"), lambda document: document.update(grow))
    assert read_plate(plate)[0].shape == (10**6, 1, 1, 8, 8)


@pytest.mark.parametrize("name", ["../q.zarr/A/1", "A/../../B/1", "..", "A\\..\\..\\1", "/../A"])
def test_names_that_lead_out_of_a_store_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="a name with"):
        canonical_fov_name(name)
    with PlateWriter(tmp_path / "p.zarr", ["Phase"]) as writer:
        writer.write("A/1/0", np.ones((1, 1, 1, 8, 8), np.uint16))
        with pytest.raises(InputError, match="a name with"):
            writer.create(name, (1, 1, 1, 8, 8))
    change = lambda document: document["attributes"]["ome"]["plate"]["wells"][0].update(path=name)  # noqa: E731
    edit(tmp_path / "p.zarr/zarr.json", change)
    with pytest.raises(InputError, match="a name with"):
        read_plate(tmp_path / "p.zarr")


def test_an_array_outside_of_its_store_is_refused(plate):
    place = plate / "A/1/0"
    file = place / (".zattrs" if (place / ".zattrs").exists() else "zarr.json")
    file.write_text(file.read_text().replace('"path": "0"', '"path": "../../../../q.zarr/0"'))
    with pytest.raises(InputError, match="a name with"):
        read_plate(plate)


def test_series_outside_of_their_store_are_refused(tmp_path):
    images = {"0": np.ones((1, 1, 1, 8, 8), np.uint8)}
    write_foreign_series(tmp_path / "s.zarr", images, version="0.4", listed=True, channel_names=["a"])
    edit(tmp_path / "s.zarr/OME/.zattrs", lambda found: found.update(series=["../p.zarr/A/1/0"]))
    with pytest.raises(InputError, match="a name with"):
        read_fovs(tmp_path / "s.zarr")


def test_metadata_that_are_too_deep_are_refused(plate):
    for file in (plate / "A/1/0/zarr.json", plate / "A/1/0/.zattrs"):
        if file.exists():
            file.write_text('{"a":' * 100_000)
    with pytest.raises(InputError, match="no JSON"):
        read_plate(plate)


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "aliases that stand for 490329064 values"),
        ("a: &a [1, *a]", "contains itself"),
        ("a: &a {b: *a}", "contains itself"),
        ("[" * 3000 + "]" * 3000, "hundreds deep|maximum nesting depth"),  # PyYAML counts from 6.0.4 on
        ("a: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
    ],
    ids=["bomb", "list in itself", "mapping in itself", "deep", "python"],
)
def test_yaml_that_would_fill_the_memory_or_run_code_is_refused(text, told):
    with little_memory(), pytest.raises(yaml.YAMLError, match=told):
        parse_yaml(text)


def test_yaml_with_aliases_is_read():
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}") == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}
    assert parse_yaml("") is None


def test_an_array_that_declares_more_than_its_file_holds_is_refused(tmp_path):
    with (tmp_path / "t.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**13, 4)})
    with pytest.raises(InputError, match="no arrays of numbers"):
        read_napari(tmp_path / "t.npy")


def test_a_table_of_one_endless_line_is_refused(tmp_path):
    path = tmp_path / "tracks.csv"
    for text in (b"track_id,t,y,x", b""):
        with path.open("wb") as file:
            file.write(text)
            file.truncate(2_000_000_000)
        with (
            little_memory(),
            pytest.raises(InputError, match=r"tracks\.csv\n  found    a first line of more than 1"),
        ):
            read_tracks(path)


def test_a_table_that_no_memory_holds_is_refused(tmp_path):
    path = tmp_path / "tracks.csv"
    with path.open("wb") as file:
        file.write(b"track_id,t,y,x\n0,0,1.5,2.5\n")
        file.truncate(memory_bytes() // 4 + 100)
    with (
        little_memory(),
        pytest.raises(InputError, match=r"(?s)field size.*as bytes and as text.*a table per FOV"),
    ):
        read_tracks(path)


def test_what_takes_more_than_half_of_the_memory_is_refused():
    half = memory_bytes() // 2
    refuse_too_large("a.csv", half, field="x", what="much", fix="less")
    with pytest.raises(InputError, match=r"(?s)a\.csv, field x\n  found    much, .* GB at once\n  expected at most"):
        refuse_too_large("a.csv", half + 1, field="x", what="much", fix="less")
