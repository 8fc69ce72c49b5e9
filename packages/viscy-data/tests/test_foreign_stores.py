"""Stores as other programs write them."""

from __future__ import annotations

import itertools
import json
import shutil
import warnings

import numcodecs
import numpy as np
import pytest
import zarr

from viscy_data.errors import InputError, InputErrors, MissingInputError
from viscy_data.patches import PatchReader
from viscy_data.stores import (
    FovKey,
    open_array,
    read_attributes,
    read_fov,
    read_plate,
    read_stack,
    update_attributes,
    update_attributes_of,
)
from viscy_data.testing import write_foreign_plate

pytest.importorskip("tensorstore")

SIZES = {"t": 3, "c": 2, "z": 4, "y": 6, "x": 5}
CHANNELS = ["Phase", "GFP"]
VERSIONS = ["0.4", "0.5"]
ORDERS = ["".join(order) for order in itertools.permutations("tczyx")][::7]
MISSING = ["tcyx", "czyx", "tzyx", "yx", "xy", "cyx", "xyc", "zyx", "tyx", "yxct"]


def value_at(t, c, z, y, x):
    """The value of a pixel, from its place alone."""
    return t + 5 * (c + 5 * (z + 5 * (y + 10 * x)))


def stored(axes: str) -> np.ndarray:
    """Pixels in the order of ``axes``, made by a loop over places; an axis that is not there is at 0."""
    pixels = np.empty([SIZES[axis] for axis in axes], np.uint16)
    for place in np.ndindex(*pixels.shape):
        pixels[place] = value_at(**{**dict.fromkeys("tczyx", 0), **dict(zip(axes, place, strict=True))})
    return pixels


def write(tmp_path, axes="tczyx", images=None, **options):
    options = {"channel_names": CHANNELS if "c" in (axes or "c") else ["Phase"], **options}
    images = {"A/1/0": stored(axes)} if images is None else images
    return write_foreign_plate(tmp_path / "plate.zarr", images, axes=axes, **options)


def edit(path, change):
    """Change a JSON document of a store."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("axes", ORDERS + MISSING)
@pytest.mark.parametrize("by", ["info", "key"])
def test_axes_in_any_order_are_read_as_tczyx(tmp_path, axes, by):
    path = write(tmp_path, axes, scale=[{"t": 60, "c": 1, "z": 2, "y": 0.5, "x": 0.25}[axis] for axis in axes])
    [fov] = read_plate(path)
    assert fov.shape == tuple(SIZES[axis] if axis in axes else 1 for axis in "tczyx")
    assert fov.scale == tuple(
        value if axis in axes else 1.0 for axis, value in zip("tczyx", (60, 1, 2, 0.5, 0.25), strict=True)
    )
    expected = value_at(*np.ogrid[tuple(slice(size) for size in fov.shape)])
    np.testing.assert_array_equal(open_array(fov).read().result(), expected)
    np.testing.assert_array_equal(read_stack(fov, fov.shape[0] - 1, fov.shape[1] - 1), expected[-1, -1])
    reader = PatchReader([fov if by == "info" else fov.key])
    last = [fov.shape[0] - 1], [list(range(fov.shape[1]))], [fov.shape[2] - 1]
    patch = reader.read([0], *last[:2], z=last[2], y=[1], x=[2], size=(1, 4, 3))
    np.testing.assert_array_equal(patch[0], expected[last[0][0], :, -1:, 1:5, 2:5].astype(np.float32))


@pytest.mark.parametrize("version", VERSIONS)
def test_axes_of_either_version_are_found(tmp_path, version):
    [fov] = read_plate(write(tmp_path, "tzcyx", version=version))
    assert (fov.axes, fov.shape) == ("tzcyx", (3, 2, 4, 6, 5))


def test_five_axes_without_names_are_tczyx_and_others_are_refused(tmp_path):
    [fov] = read_plate(write(tmp_path, None, {"A/1/0": stored("tczyx")}))
    assert fov.axes == "tczyx"
    shutil.rmtree(tmp_path / "plate.zarr")
    with pytest.raises(InputError, match=r"A/1/0, field multiscales.axes\n  found    nothing, for an array of 4 axes"):
        read_plate(write(tmp_path, None, {"A/1/0": stored("tcyx")}))


@pytest.mark.parametrize("axes", ["tczyq", "tczyy", "tczx", "tcyx"])
def test_axes_that_cannot_be_read_are_refused_by_name(tmp_path, axes):
    path = write(tmp_path, axes, {"A/1/0": stored("tczyx")[: len(axes)]})
    with pytest.raises(InputError, match=r"A/1/0, field multiscales\.axes") as caught:
        read_plate(path)
    assert all(repr(axis) in caught.value.found for axis in axes)


def test_an_axis_with_a_name_of_its_own_is_known_by_its_type(tmp_path):
    path = write(tmp_path, "tczyx")
    edit(
        path / "A/1/0/zarr.json",
        lambda document: document["attributes"]["ome"]["multiscales"][0]["axes"][1].update(name="channel"),
    )
    assert read_plate(path)[0].axes == "tczyx"


def test_two_channels_of_one_name_are_usable_where_the_name_is_not_asked_for(tmp_path):
    [fov] = read_plate(write(tmp_path, images={"A/1/0": np.zeros((1, 3, 1, 4, 4))}, channel_names=["a", "b", "a"]))
    assert fov.channel_names == ("a", "b", "a")
    assert fov.channel_index("b") == 1
    with pytest.raises(InputError, match=r"A/1/0, field source_channel\n  found    2 channels of the name 'a'.* 0, 2"):
        fov.channel_index("a", "source_channel")
    with pytest.raises(InputError, match="'c'\n  expected"):
        fov.channel_index("c")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(None, ("0", "1")), ([None, "GFP"], ("0", "GFP")), (["Phase", ""], ("Phase", "1")), (["  ", "GFP"], ("0", "GFP"))],
    ids=["no block", "null", "empty", "blank"],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_channels_without_a_label_are_called_by_their_number_which_is_said_once(tmp_path, labels, expected, version):
    images = {name: stored("tczyx") for name in ("A/1/0", "A/1/1")}
    path = write(tmp_path, images=images, channel_names=labels, version=version)
    with pytest.warns(UserWarning, match="2 FOVs have channels without a label.*A/1/0, A/1/1") as caught:
        fovs = read_plate(path)
    assert len(caught) == 1
    assert {fov.channel_names for fov in fovs} == {expected}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_array_is_the_one_that_the_metadata_name_first(tmp_path, version):
    path = write(tmp_path, array_key="full/resolution", version=version)
    [fov] = read_plate(path)
    assert fov.array_key == "full/resolution"
    patch = PatchReader([fov.key]).read([0], [1], [[0]], [2], [0], [0], (1, 6, 5))
    np.testing.assert_array_equal(patch[0, 0, 0], stored("tczyx")[1, 0, 2])
    with pytest.raises(InputError, match="no array '0'"):
        read_plate(path, array_key="0")


@pytest.mark.parametrize("spelling", ["/0", "0/", "./0", 0])
def test_the_path_of_an_array_may_be_spelt_in_any_way(tmp_path, spelling):
    path = write(tmp_path, scale=[1, 1, 2, 0.5, 0.25])
    edit(path / "A/1/0/zarr.json", lambda document: _multiscales(document)["datasets"][0].update(path=spelling))
    [fov] = read_plate(path)
    assert (fov.array_key, fov.scale) == ("0", (1, 1, 2, 0.5, 0.25))
    assert read_stack(fov, 1, 1).shape == (4, 6, 5)


def test_what_the_metadata_list_twice_is_one(tmp_path):
    path = write(tmp_path)
    edit(path / "zarr.json", lambda document: document["attributes"]["ome"]["plate"]["wells"].append({"path": "/A/1/"}))
    edit(
        path / "A/1/zarr.json",
        lambda document: document["attributes"]["ome"]["well"]["images"].append({"path": "0/"}),
    )
    assert [fov.name for fov in read_plate(path)] == ["A/1/0"]


def _multiscales(document):
    return document["attributes"]["ome"]["multiscales"][0]


STRANGE = {
    "axes of nothing": ("A/1/0", lambda document: _multiscales(document).update(axes=[None] * 5)),
    "steps of text": (
        "A/1/0",
        lambda document: _multiscales(document)["datasets"][0].update(
            coordinateTransformations=[{"type": "scale", "scale": list("abcde")}]
        ),
    ),
    "channels of text": ("A/1/0", lambda document: document["attributes"]["ome"]["omero"].update(channels=CHANNELS)),
    "channels of nothing": (
        "A/1/0",
        lambda document: document["attributes"]["ome"]["omero"].update(channels=[None, {"label": "GFP"}]),
    ),
    "a well without a path": ("", lambda document: document["attributes"]["ome"]["plate"].update(wells=[{}])),
    "images of text": ("A/1", lambda document: document["attributes"]["ome"]["well"].update(images=["0"])),
    "no pixels": ("A/1/0/0", lambda document: document.update(shape=[0, 2, 4, 6, 5])),
    "pixels of dates": (
        "A/1/0/0",
        lambda document: document.update(data_type={"name": "numpy.datetime64", "configuration": {"unit": "s"}}),
    ),
}


@pytest.mark.parametrize(("node", "change"), STRANGE.values(), ids=STRANGE)
def test_metadata_of_another_form_are_named(tmp_path, node, change):
    path = write(tmp_path)
    edit(path / node / "zarr.json", change)
    with pytest.raises(InputError) as caught:
        read_plate(path)
    assert str(path) in caught.value.where
    assert {"A/1/0": "FOV A/1/0", "A/1/0/0": "FOV A/1/0", "A/1": "well A/1", "": ""}[node] in caught.value.where


@pytest.mark.parametrize("text", [b"{", b"", b"[]", b"\xff{}"])
@pytest.mark.parametrize("node", ["zarr.json", "A/1/zarr.json", "A/1/0/zarr.json", "A/1/0/0/zarr.json"])
def test_metadata_that_are_no_json_are_named_with_their_file(tmp_path, node, text):
    path = write(tmp_path)
    (path / node).write_bytes(text)
    with pytest.raises(InputError, match="a JSON object") as caught:
        read_plate(path)
    assert caught.value.where == str(path / node)


def test_wells_that_are_not_on_disk_are_left_out_named_and_counted(tmp_path):
    path = write(tmp_path, listed_wells=["B/3", "C/1"])
    with pytest.warns(UserWarning, match="2 of 3 wells that the metadata list are not on disk.*: B/3, C/1"):
        fovs = read_plate(path)
    assert [fov.name for fov in fovs] == ["A/1/0"]


def test_fovs_that_are_not_on_disk_are_left_out_named_and_counted(tmp_path):
    path = write(tmp_path, images={name: stored("tczyx") for name in ("A/1/0", "A/1/1", "A/1/2")})
    shutil.rmtree(path / "A/1/1")
    with pytest.warns(UserWarning, match="1 of 3 FOVs that the metadata list are not on disk.*: A/1/1"):
        assert [fov.name for fov in read_plate(path)] == ["A/1/0", "A/1/2"]
    with pytest.raises(MissingInputError, match="A/1/1"):
        read_fov(FovKey(str(path), "A/1/1"))


def test_a_plate_without_any_of_its_wells_is_refused(tmp_path):
    with pytest.raises(MissingInputError, match="1 of 1 wells that the metadata list are not on disk"):
        read_plate(write(tmp_path, images={}, listed_wells=["A/1"]))


@pytest.mark.filterwarnings("ignore:Array is unsupported by ZarrsCodecPipeline")  # which newer iohub sets for zarr
@pytest.mark.parametrize(
    ("name", "version", "options"),
    [
        ("lz4", "0.4", {"compressors": numcodecs.LZ4()}),
        ("delta", "0.4", {"filters": [numcodecs.Delta("u2")]}),
        ("lzma", "0.4", {"compressors": numcodecs.LZMA()}),
        ("numcodecs.lz4", "0.5", {}),
    ],
)
def test_a_codec_that_cannot_be_read_is_found_when_the_plate_is_read(tmp_path, name, version, options):
    images = {name: stored("tczyx") for name in ("A/1/0", "A/1/1")}
    path = write(tmp_path, images=images, version=version, **options)
    if version == "0.5":  # zarr's own class for this codec warns
        for fov in images:
            edit(path / fov / "0/zarr.json", lambda document: document["codecs"].append({"name": name}))
    with pytest.raises(InputError) as caught:
        read_plate(path)
    assert str(path) in caught.value.where
    assert "A/1/0 (and 1 more)" in caught.value.where
    assert name in caught.value.field
    assert "blosc, zstd" in caught.value.expected
    assert len(str(caught.value)) < 1000


def test_every_codec_of_a_plate_is_tried(tmp_path):
    path = write(tmp_path, images={name: stored("tczyx") for name in ("A/1/0", "A/1/1", "A/1/2")}, version="0.4")
    for fov, codec in {"A/1/1": "lz4", "A/1/2": "lzma"}.items():
        edit(path / fov / "0/.zarray", lambda document, codec=codec: document.update(compressor={"id": codec}))
    with pytest.raises(InputErrors) as caught:
        read_plate(path)
    assert [err.where.split("FOV ")[1] for err in caught.value.errors] == ["A/1/1", "A/1/2"]


def test_a_broken_chunk_beside_sound_ones_is_named_where_it_is_read(tmp_path):
    images = {name: stored("tczyx") for name in ("A/1/0", "A/1/1")}
    path = write(tmp_path, images=images, version="0.4", chunks=(1, 1, 4, 6, 5), compressors=numcodecs.Zstd())
    for chunk in (path / "A/1/0/0").rglob("2.1.*"):
        chunk.write_bytes(chunk.read_bytes()[:10])
    first = next((path / "A/1/0/0").rglob("0.0.*"))
    first.write_bytes(first.read_bytes()[:10])
    fov = read_plate(path)[0]
    assert read_stack(fov, 1, 1).shape == (4, 6, 5)
    with pytest.raises(InputError, match=r"plate.zarr, FOV A/1/0, frame 2, channel 'GFP'"):
        read_stack(fov, 2, 1)
    edit(path / "A/1/0/0/.zarray", lambda document: document["compressor"].update(level=7))
    with pytest.raises(InputError, match=r"A/1/0, frame 0, channel 'Phase', field codecs"):
        read_plate(path)


@pytest.mark.parametrize("kind", ["<u1", ">u2", "|u1", "<f2", "|b1"])
def test_data_types_of_any_spelling_are_read(tmp_path, kind):
    dtype = np.dtype(kind)
    pixels = (stored("tczyx") % 2).astype(dtype)
    path = write(tmp_path, images={"A/1/0": pixels}, version="0.4", compressors=None)
    edit(path / "A/1/0/0/.zarray", lambda document: document.update(dtype=kind))
    [fov] = read_plate(path)
    assert fov.dtype == dtype.name
    patch = PatchReader([fov]).read([0], [2], [[1, 0]], [0], [0], [0], (4, 6, 5))
    np.testing.assert_array_equal(patch[0], pixels[2, ::-1].astype(np.float32))


@pytest.mark.parametrize("kind", ["complex64", "complex128"])
@pytest.mark.parametrize("version", VERSIONS)
def test_complex_pixels_are_refused(tmp_path, kind, version):
    path = write(tmp_path, images={"A/1/0": stored("tczyx").astype(kind)}, version=version)
    with pytest.raises(InputError, match="A/1/0, field data type") as caught:
        read_plate(path)
    assert caught.value.found in (kind, np.dtype(kind).str)


def test_a_zipped_store_and_a_file_are_named_as_such(tmp_path):
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", write(tmp_path))
    with pytest.raises(InputError, match=r"a zipped store\n.*\n  fix      unpack it"):
        read_plate(archive)
    (tmp_path / "notes.txt").write_text("no store")
    with pytest.raises(InputError, match="found    a file"):
        read_plate(tmp_path / "notes.txt")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("holder", ["", "A", "A/1", "A/1/0"])
def test_consolidated_metadata_know_the_attributes_that_are_set(tmp_path, version, holder):
    path = write(tmp_path, images={name: stored("tczyx") for name in ("A/1/0", "B/1/0")}, version=version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr says that consolidated metadata are no part of Zarr v3
        zarr.consolidate_metadata(path, path=holder or None)
    update_attributes(path, None, "note", "plate")
    update_attributes_of(path, "normalization", {"A/1/0": {"a": 1}, "B/1/0": {"b": 2}, None: {"c": 3}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = zarr.open_group(path / holder if holder else path, mode="r", use_consolidated=True)
    inner = {"": "A/1/0", "A": "1/0", "A/1": "0", "A/1/0": ""}[holder]
    fov = opened[inner] if inner else opened
    assert fov.attrs["normalization"] == {"a": 1}
    assert read_attributes(path, "A/1/0")["normalization"] == {"a": 1}
    if not holder:
        assert opened["B/1/0"].attrs["normalization"] == {"b": 2}
        assert dict(opened.attrs) == read_attributes(path)
        assert (opened.attrs["normalization"], opened.attrs["note"]) == ({"c": 3}, "plate")
    assert opened.metadata.consolidated_metadata is not None
    np.testing.assert_array_equal(fov["0"][:], stored("tczyx"))


def test_stores_without_consolidated_metadata_do_not_get_any(tmp_path):
    path = write(tmp_path)
    update_attributes(path, "A/1/0", "note", 1)
    assert not list(path.rglob(".zmetadata"))
    assert "consolidated_metadata" not in (path / "A/1/0/zarr.json").read_text()
