from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from iohub.ngff import open_ome_zarr

from viscy_data.errors import InputError, InputErrors, MissingInputError
from viscy_data.stores import (
    FovKey,
    PlateWriter,
    canonical_fov_name,
    canonical_store,
    read_attributes,
    read_plate,
    update_attributes,
)
from viscy_data.testing.serving import served

FORMATS = {
    "v0.4": {"version": "0.4", "chunks": (1, 1, 1, 8, 8)},
    "v0.5": {"version": "0.5", "chunks": (1, 1, 1, 8, 8)},
    "v0.5-sharded": {"version": "0.5", "chunks": (1, 1, 1, 8, 8), "shards": (2, 1, 2, 16, 16)},
}


def pixels(seed: int = 0, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (3, 2, 2, 20, 18)).astype(dtype)


@pytest.fixture(params=FORMATS)
def plate(request, tmp_path: Path) -> Path:
    path = tmp_path / "plate.zarr"
    with PlateWriter(path, ["Phase", "GFP"], **FORMATS[request.param]) as writer:
        for seed, name in enumerate(["B/1/0", "A/2/0", "A/10/1", "A/10/0"]):
            writer.write(name, pixels(seed), scale=(1, 1, 2.0, 0.5, 0.25))
    return path


def test_written_plate_is_listed_in_the_order_of_iohub(plate):
    fovs = read_plate(plate)
    with open_ome_zarr(plate, mode="r") as opened:
        expected = [(name, position["0"].shape, position.channel_names) for name, position in opened.positions()]
    assert [(fov.name, fov.shape, list(fov.channel_names)) for fov in fovs] == expected
    assert {fov.well for fov in fovs} == {"A/2", "A/10", "B/1"}
    assert fovs[0].key == FovKey(str(plate.resolve()), "A/10/0")
    assert fovs[0].store == fovs[0].key.store
    assert {fov.scale for fov in fovs} == {(1.0, 1.0, 2.0, 0.5, 0.25)}
    assert pickle.loads(pickle.dumps(fovs)) == fovs


def test_written_plate_is_one_for_iohub(plate):
    with open_ome_zarr(plate, mode="r") as opened:
        assert [name for name, _ in opened.positions()] == ["A/10/0", "A/10/1", "A/2/0", "B/1/0"]
        position = opened["A/10/1"]
        np.testing.assert_array_equal(position["0"].numpy(), pixels(2))
        assert (position.channel_names, position.scale) == (["Phase", "GFP"], [1.0, 1.0, 2.0, 0.5, 0.25])
        assert [axis.type for axis in position.axes] == ["time", "channel", "space", "space", "space"]
        assert [getattr(axis, "unit", None) for axis in position.axes] == ["second", None, *["micrometer"] * 3]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_plates_of_iohub_and_of_ours_read_alike(tmp_path, version):
    names = ["B/1/0", "A/2/0", "A/2/1"]
    with PlateWriter(tmp_path / "ours.zarr", ["Phase", "GFP"], version=version) as writer:
        for name in names:
            writer.write(name, pixels())
    iohub = {"layout": "hcs", "mode": "w-", "channel_names": ["Phase", "GFP"], "version": version}
    with open_ome_zarr(tmp_path / "theirs.zarr", **iohub) as opened:
        for name in names:
            opened.create_position(*name.split("/")).create_image("0", pixels())
    found, files = {}, {}
    for whose in ("ours", "theirs"):
        path = tmp_path / f"{whose}.zarr"
        found[whose] = [replace(fov, key=FovKey("", fov.name)) for fov in read_plate(path)]
        files[whose] = {str(file.relative_to(path)) for file in path.rglob("*")}
    assert found["ours"] == found["theirs"]
    assert files["ours"] == files["theirs"]


def test_no_fov_is_written_twice(tmp_path):
    def write():
        with PlateWriter(tmp_path / "p.zarr", ["a", "b"]) as writer:
            writer.write("A/1/0", pixels())
            writer.write("/A/1/0/", pixels())

    with pytest.raises(ValueError, match="A/1/0"):
        write()


def test_pixels_come_back_as_written(plate):
    group = zarr.open_group(plate, mode="r")
    for seed, name in enumerate(["B/1/0", "A/2/0", "A/10/1", "A/10/0"]):
        np.testing.assert_array_equal(group[f"{name}/0"][:], pixels(seed))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_dtype_is_reported_by_its_numpy_name(tmp_path, dtype, version):
    with PlateWriter(tmp_path / "p.zarr", ["a", "b"], version=version) as writer:
        writer.write("A/1/0", pixels(dtype=dtype))
    assert [fov.dtype for fov in read_plate(tmp_path / "p.zarr")] == [dtype]


def test_sharded_store_is_sharded(tmp_path):
    with PlateWriter(tmp_path / "p.zarr", ["a", "b"], **FORMATS["v0.5-sharded"]) as writer:
        writer.write("A/1/0", pixels())
    array = zarr.open_array(tmp_path / "p.zarr" / "A/1/0/0", mode="r")
    assert (array.shards, array.chunks) == ((2, 1, 2, 16, 16), (1, 1, 1, 8, 8))


@pytest.mark.parametrize("fov", [None, "A/2/0"])
def test_updated_attribute_is_read_back_and_the_others_stay(plate, fov):
    before = read_attributes(plate, fov)
    value = {"Phase": {"fov_statistics": {"mean": 1.5}}}
    update_attributes(plate, fov, "normalization", value)
    update_attributes(plate, fov, "note", "x")
    assert read_attributes(plate, fov) == {**before, "normalization": value, "note": "x"}
    node = zarr.open_group(plate, mode="r", path=fov or "")
    assert node.attrs["normalization"] == value
    assert len(read_plate(plate)) == 4
    assert not list(plate.rglob(".*.json.*"))


def test_attributes_must_be_finite_so_that_strict_readers_can_parse_them(plate):
    before = read_attributes(plate)
    with pytest.raises(ValueError, match="JSON compliant"):
        update_attributes(plate, None, "normalization", float("nan"))
    assert read_attributes(plate) == before


def test_plate_behind_a_url_is_the_same_plate(plate):
    assert read_plate(f"file://{plate}") == read_plate(plate)


def test_plate_on_a_web_server_is_listed(plate):
    pytest.importorskip("tensorstore")  # reads what is not a local folder

    with served(plate.parent) as server:
        url = f"{server}/{plate.name}"
        fovs = read_plate(url + "/")
        attributes = read_attributes(url, "A/2/0")
    assert [fov.store for fov in fovs] == [url] * 4
    assert [fov.name for fov in fovs] == [fov.name for fov in read_plate(plate)]
    assert attributes == read_attributes(plate, "A/2/0")


def test_link_to_a_store_is_the_same_store(plate, tmp_path):
    link = tmp_path / "link.zarr"
    link.symlink_to(plate)
    assert read_plate(link)[0].key == read_plate(plate)[0].key


@pytest.mark.parametrize("name", ["A/1/0", "/A/1/0", "A/1/0/", "//A//1/0"])
def test_fov_names_have_one_spelling(name):
    assert canonical_fov_name(name) == "A/1/0"


def test_store_names_have_one_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert canonical_store("x/../plate.zarr") == str(tmp_path.resolve() / "plate.zarr")
    assert canonical_store("s3://bucket/plate.zarr/") == "s3://bucket/plate.zarr"


def test_missing_store_is_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"nowhere\.zarr") as caught:
        read_plate(tmp_path / "nowhere.zarr")
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(MissingInputError, match=r"nowhere\.zarr"):
        read_attributes(tmp_path / "nowhere.zarr")


def test_missing_fov_is_named(plate):
    with pytest.raises(MissingInputError, match="FOV A/9/9"):
        read_attributes(plate, "A/9/9")
    with pytest.raises(MissingInputError, match="FOV A/9/9"):
        update_attributes(plate, "A/9/9", "a", 1)


def test_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="a folder without Zarr metadata"):
        read_plate(tmp_path)


def test_single_fov_is_refused_with_what_to_do(plate):
    with pytest.raises(InputError, match=r"(?s)single FOV, without plate metadata.*path of the plate"):
        read_plate(plate / "A/2/0")


def test_group_that_is_no_plate_is_refused(plate):
    with pytest.raises(InputError, match="without plate metadata"):
        read_plate(plate / "A")


def test_all_unusable_fovs_are_named_together(plate):
    for name in ("A/2/0", "B/1/0"):
        for document in (plate / name / "0").glob("[.z]*"):
            if document.name in ("zarr.json", ".zarray"):
                document.unlink()
    with pytest.raises(InputErrors, match=r"(?s)FOV A/2/0.*FOV B/1/0") as caught:
        read_plate(plate)
    assert len(caught.value.errors) == 2


def test_array_without_five_axes_is_refused(tmp_path):
    with PlateWriter(tmp_path / "p.zarr", ["a", "b"], version="0.5") as writer:
        writer.write("A/1/0", pixels())
    document = tmp_path / "p.zarr/A/1/0/0/zarr.json"
    document.write_text(json.dumps({**json.loads(document.read_text()), "shape": [2, 20, 18]}))
    with pytest.raises(InputError, match="five axes, TCZYX"):
        read_plate(tmp_path / "p.zarr")


def test_existing_path_is_never_overwritten(plate):
    before = read_attributes(plate)
    with pytest.raises(FileExistsError, match=r"plate\.zarr exists"):
        PlateWriter(plate, ["a"])
    assert read_attributes(plate) == before


def test_failed_writing_leaves_nothing_behind(tmp_path):
    def write():
        with PlateWriter(tmp_path / "p.zarr", ["a", "b"]) as writer:
            writer.write("A/1/0", pixels())
            writer.write("A/1/1", pixels()[:, :1])

    with pytest.raises(ValueError, match="expected TCZYX with 2 channels"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "0.4", "chunks": (1, 1, 1, 8, 8), "shards": (1, 1, 1, 8, 8)}, "shards need version 0.5"),
        ({"chunks": (1, 1, 1, 8, 8), "shards": (1, 1, 1, 12, 8)}, "multiple of chunks"),
        ({"shards": (1, 1, 1, 12, 8)}, "multiple of chunks"),
    ],
)
def test_impossible_shards_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        PlateWriter(tmp_path / "p.zarr", ["a"], **options)


def test_writing_outside_the_with_block_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="inside the with block"):
        PlateWriter(tmp_path / "p.zarr", ["a", "b"]).write("A/1/0", pixels())
