"""Images that are in no plate: one, many, series, on servers; each is a FOV everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from viscy_data import CachedOmeZarrDataModule, HCSDataModule, TripletDataModule, find_tracks, read_fovs
from viscy_data.errors import InputError, InputErrors, MissingInputError
from viscy_data.norm_meta import read_norm_meta
from viscy_data.stores import FovKey, PlateWriter, read_plate, read_stack, update_attributes
from viscy_data.testing.foreign import write_foreign_image, write_foreign_series
from viscy_data.testing.serving import served
from viscy_data.tracks import write_tracks

pd = pytest.importorskip("pandas")
pytest.importorskip("tensorstore")
pytestmark = pytest.mark.filterwarnings("ignore:.*channels without a label")

CHANNELS = ["Phase", "GFP"]
FORMATS = {
    "v0.4": {"version": "0.4"},
    "v0.5": {"version": "0.5"},
    "v0.5-sharded": {"version": "0.5", "chunks": (1, 1, 1, 8, 9), "shards": (3, 1, 2, 16, 18)},
}


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (3, 2, 2, 16, 18)).astype(np.uint16)


def stacks(fovs) -> list[np.ndarray]:
    return [read_stack(fov, 2, 1) for fov in fovs]


@pytest.fixture(params=FORMATS)
def movies(request, tmp_path) -> Path:
    """A folder of three images, two of them in folders of their own."""
    for seed, name in enumerate(["a.ome.zarr", "infected/b.zarr", "mock/b.zarr"]):
        write_foreign_image(
            tmp_path / name, pixels(seed), channel_names=CHANNELS, array_key="s0", **FORMATS[request.param]
        )
    return tmp_path


def test_an_image_is_a_fov_of_the_folder_around_it(movies):
    [fov] = read_fovs(movies / "a.ome.zarr")
    assert fov.key == FovKey(str(movies.resolve()), "a.ome.zarr")
    assert (fov.well, fov.array_key, fov.shape, fov.channel_names) == (
        "a.ome.zarr",
        "s0",
        (3, 2, 2, 16, 18),
        ("Phase", "GFP"),
    )
    np.testing.assert_array_equal(stacks([fov])[0], pixels(0)[2, 1])
    assert read_fovs(str(movies / "*.zarr")) == (fov,)
    assert read_fovs([movies / "a.ome.zarr"]) == (fov,)


def test_images_of_several_folders_are_fovs_of_the_folder_that_they_share(movies):
    fovs = read_fovs(str(movies / "*/*.zarr"))
    assert [(fov.name, fov.well) for fov in fovs] == [("infected/b.zarr", "infected"), ("mock/b.zarr", "mock")]
    assert {fov.store for fov in fovs} == {str(movies.resolve())}
    np.testing.assert_array_equal(stacks(fovs), [pixels(1)[2, 1], pixels(2)[2, 1]])
    given = read_fovs([movies / "mock/b.zarr", movies / "a.ome.zarr", movies / "infected/*.zarr"])
    assert [fov.name for fov in given] == ["mock/b.zarr", "a.ome.zarr", "infected/b.zarr"]  # in the order of the list


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_of_a_series_are_its_fovs(tmp_path, version, listed):
    names = ["7", "0"] if listed else [str(number) for number in range(11)]
    images = {name: pixels(int(name)) for name in names}
    path = write_foreign_series(tmp_path / "s.zarr", images, listed=listed, version=version)
    fovs = read_fovs(path)
    assert [(fov.store, fov.name) for fov in fovs] == [(str(path.resolve()), name) for name in names]
    assert fovs[0].channel_names == ("0", "1")
    np.testing.assert_array_equal(stacks(fovs), [pixels(int(name))[2, 1] for name in names])
    assert read_fovs(path / "0") == (fovs[names.index("0")],)
    assert [fov.name for fov in read_fovs([path / names[1], path / names[0]])] == [names[1], names[0]]


def test_an_image_of_a_plate_keeps_the_name_that_it_has_in_the_plate(tmp_path):
    with PlateWriter(tmp_path / "p.zarr", CHANNELS) as plate:
        for seed, name in enumerate(["A/1/0", "B/1/0"]):
            plate.write(name, pixels(seed))
    both = read_plate(tmp_path / "p.zarr")
    assert read_fovs(tmp_path / "p.zarr") == both
    assert read_fovs(tmp_path / "p.zarr/B/1/0") == both[1:]
    assert read_fovs(str(tmp_path / "p.zarr/*/1/0")) == both


def test_plates_and_images_together_are_named_by_their_paths(movies):
    with PlateWriter(movies / "p.zarr", CHANNELS) as plate:
        plate.write("A/1/0", pixels(5))
    fovs = read_fovs([movies / "p.zarr", movies / "a.ome.zarr"])
    assert [(fov.name, fov.well) for fov in fovs] == [("p.zarr/A/1/0", "p.zarr/A/1"), ("a.ome.zarr", "a.ome.zarr")]
    np.testing.assert_array_equal(stacks(fovs), [pixels(5)[2, 1], pixels(0)[2, 1]])


def test_statistics_of_an_image_are_its_attributes(movies):
    [fov] = read_fovs(movies / "a.ome.zarr")
    statistics = {"Phase": {"fov_statistics": {"mean": 1.5, "std": 2.0}}}
    update_attributes(*fov.key, "normalization", statistics)
    assert read_norm_meta(fov.key) == statistics
    assert read_fovs(movies / "a.ome.zarr") == (fov,)


def test_what_is_no_image_is_refused_by_name(movies, tmp_path):
    (movies / "notes.txt").write_text("x")
    with pytest.raises(InputErrors, match=r"(?s)infected.*folder without Zarr metadata.*notes.txt.*a file"):
        read_fovs([movies / "infected", movies / "notes.txt"])
    with pytest.raises(InputError, match=r"give the pattern .*/\*\.zarr"):
        read_fovs(movies / "infected")
    with pytest.raises(MissingInputError, match=r"nothing that matches"):
        read_fovs(str(movies / "*.tiff"))
    with pytest.raises(InputError, match="the same store twice"):
        read_fovs([movies / "a.ome.zarr", str(movies / "*.zarr")])
    with pytest.raises(InputError, match="an empty list"):
        read_fovs([])


def test_a_series_without_images_is_refused(tmp_path):
    path = write_foreign_series(tmp_path / "s.zarr", {"later": pixels(0)}, listed=False)
    with pytest.raises(InputError, match="without an image 0"):
        read_fovs(path)


# Servers


@pytest.fixture
def server(tmp_path):
    with served(tmp_path) as url:
        yield url


def test_images_and_series_on_a_web_server_read_as_on_disk(movies, server):
    write_foreign_series(movies / "s.zarr", {"0": pixels(3), "1": pixels(4)}, listed=False, channel_names=CHANNELS)
    [fov] = read_fovs(f"{server}/a.ome.zarr/")
    assert fov.key == FovKey(server, "a.ome.zarr")
    np.testing.assert_array_equal(stacks([fov])[0], pixels(0)[2, 1])
    series = read_fovs(f"{server}/s.zarr")
    assert [fov.key for fov in series] == [FovKey(f"{server}/s.zarr", name) for name in "01"]
    np.testing.assert_array_equal(stacks(series), [pixels(3)[2, 1], pixels(4)[2, 1]])
    several = read_fovs([f"{server}/infected/b.zarr", f"{server}/mock/b.zarr"])
    assert [fov.name for fov in several] == ["infected/b.zarr", "mock/b.zarr"]


def test_a_plate_in_googles_storage_is_read(movies, server, monkeypatch):
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server)
    [fov] = read_fovs("gs://bucket/a.ome.zarr")
    assert fov.key == FovKey("gs://bucket", "a.ome.zarr")
    np.testing.assert_array_equal(stacks([fov])[0], pixels(0)[2, 1])


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_a_plate_on_an_s3_server_of_ones_own_is_read(tmp_path, server, monkeypatch, variable):
    with PlateWriter(tmp_path / "bucket/deep/p.zarr", CHANNELS) as plate:
        for seed, name in enumerate(["A/1/0", "B/1/0"]):
            plate.write(name, pixels(seed))
    settings = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    for name, value in (settings | {variable: f"{server}/"}).items():
        monkeypatch.setenv(name, value)
    fovs = read_fovs("s3://bucket/deep/p.zarr")
    assert [fov.key for fov in fovs] == [FovKey("s3://bucket/deep/p.zarr", name) for name in ("A/1/0", "B/1/0")]
    np.testing.assert_array_equal(stacks(fovs), [pixels(0)[2, 1], pixels(1)[2, 1]])
    data = HCSDataModule("s3://bucket/deep/p.zarr", "Phase", "GFP", 2, 0.5, 1, num_workers=0, yx_patch_size=(16, 18))
    data.setup("fit")
    [batch] = list(data.val_dataloader())[-1:]
    seed = [fov.name for fov in fovs].index(data.split.val[0])
    np.testing.assert_array_equal(batch["target"][0, 0].numpy(), pixels(seed)[2, 1])
    assert read_fovs("s3://bucket/deep/p.zarr/B/1/0") == fovs[1:]
    with pytest.raises(MissingInputError, match="servers call forbidden"):
        read_fovs("s3://forbidden/p.zarr")


def test_servers_that_do_not_answer_are_told_in_one_sentence(server, tmp_path):
    with pytest.raises(InputError, match=r"(?s)127\.0\.0\.1:9/p\.zarr.*ould not connect.*check the address") as caught:
        read_fovs("http://127.0.0.1:9/p.zarr")
    assert "curl_code" not in str(caught.value)
    with pytest.raises(MissingInputError, match="check the address"):
        read_fovs(f"{server}/nothing.zarr")
    with pytest.raises(MissingInputError, match="servers call forbidden"):
        read_fovs(f"{server}/forbidden/p.zarr")
    with pytest.raises(InputError, match=r"(?s)found +unsupported URL scheme.*http, https, s3 or gs"):
        read_fovs("htp://x/p.zarr")
    with pytest.raises(InputError, match="a pattern of URLs"):
        read_fovs(f"{server}/*.zarr")
    write_foreign_image(tmp_path / "a.zarr", pixels(0), channel_names=CHANNELS)
    with pytest.raises(InputError, match="as far apart"):
        read_fovs([f"{server}/a.zarr", f"{server.replace('127.0.0.1', 'localhost')}/a.zarr"])


def test_metadata_of_images_stay_readable_json(movies):
    for document in (*movies.rglob("zarr.json"), *movies.rglob(".zattrs")):
        json.loads(document.read_text())


# Data modules


@pytest.fixture
def plate_and_images(tmp_path) -> dict[str, str]:
    """The same two FOVs in a plate and as images, with tracks of each."""
    table = [(k, t, 8.0, 6.0 + 5 * k) for k in range(2) for t in range(3)]
    table = pd.DataFrame(table, columns=["track_id", "t", "y", "x"]).assign(id=range(6), parent_track_id=-1)
    with PlateWriter(tmp_path / "p.zarr", CHANNELS) as plate:
        for seed, name in enumerate(["A/1/0", "A/1/1"]):
            plate.write(name, pixels(seed))
            write_tracks(table, tmp_path / "tracks" / name / "tracks.csv")
    for seed, name in enumerate(["one", "two"]):
        write_foreign_image(tmp_path / f"images/{name}.zarr", pixels(seed), channel_names=CHANNELS, array_key="full")
        write_tracks(table, tmp_path / "tracks" / name / "tracks.csv")
    return {"plate": str(tmp_path / "p.zarr"), "images": str(tmp_path / "images/*.zarr")}


def test_tracks_of_an_image_are_found_with_and_without_its_ending(tmp_path):
    for folder in ("a", "b.zarr", "c.zarr/0", "d/0"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "t.csv").touch()
    names = ["a.ome.zarr", "b.zarr", "c.zarr/0", "d.zarr/0"]
    found = [find_tracks(tmp_path, name) for name in names]
    assert [path.parent.relative_to(tmp_path).as_posix() for path in found] == ["a", "b.zarr", "c.zarr/0", "d/0"]
    assert find_tracks(tmp_path, "e.zarr") is None


def test_windows_of_images_are_those_of_a_plate(plate_and_images):
    def batches(path):
        data = HCSDataModule(path, "Phase", "GFP", 1, 0.5, batch_size=2, num_workers=0, yx_patch_size=(8, 8))
        data.setup("fit")
        data.setup("predict")
        assert len(data.train_dataset.fovs) == len(data.val_dataset.fovs) == 1
        return list(data.predict_dataloader())

    found, expected = batches(plate_and_images["images"]), batches(plate_and_images["plate"])
    assert len(found) == len(expected) == 6
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours["source"], theirs["source"])
    assert {image for batch in found for image in batch["index"].image} == {"/one.zarr/full", "/two.zarr/full"}


def test_triplets_of_images_are_those_of_a_plate(plate_and_images, tmp_path):
    def batches(path):
        options = {"split_ratio": 0.5, "batch_size": 2, "num_workers": 0}
        data = TripletDataModule(path, tmp_path / "tracks", ["Phase"], (0, 2), (6, 6), (6, 6), **options)
        data.setup("fit")
        data.setup("predict")
        return list(data.predict_dataloader())

    found, expected = batches(plate_and_images["images"]), batches(plate_and_images["plate"])
    assert len(found) == len(expected) == 6
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours["anchor"], theirs["anchor"])
    assert [record["fov_name"] for record in found[0]["index"]] == ["one.zarr"] * 2


def test_frames_of_images_are_kept_as_those_of_a_plate(plate_and_images, tmp_path):
    transforms = [[], [], [], []]
    data = CachedOmeZarrDataModule(
        plate_and_images["images"], CHANNELS, 1, 0, 0.5, *transforms, pin_memory=False, scratch_dir=tmp_path
    )
    data.setup("fit")
    assert [len(dataset) for dataset in (data.train_dataset, data.val_dataset)] == [3, 3]
    volumes = {float(batch["GFP"].sum()) for batch in (*data.train_dataloader(), *data.val_dataloader())}
    assert volumes == {float(pixels(seed)[t, 1].sum()) for seed in range(2) for t in range(3)}
