"""Storage that fails: every fault is put into a real store, or into a real server, and told by its place."""

import shutil
import time
from collections import Counter

import numpy as np
import pytest
import zarr

from viscy_data import PatchReader
from viscy_data.errors import InputError, MissingInputError
from viscy_data.stores import FovKey, GrowingPlate, PlateWriter, open_array, read_plate, read_stack
from viscy_data.testing.serving import served

CHANNELS = ["Phase", "GFP"]
SIZE = (1, 8, 8)
T, C = 2, 1  # the broken chunk
DELAYED = "/c/2/1/"


def pixels():
    return np.random.default_rng(0).integers(1, 1000, (3, 2, 1, 16, 16), dtype=np.uint16)


@pytest.fixture(params=["0.4", "0.5"])
def plate(tmp_path, request):
    with PlateWriter(tmp_path / "p.zarr", CHANNELS, version=request.param) as writer:
        for fov in ("A/1/0", "A/1/1"):
            writer.write(fov, pixels())
    return tmp_path / "p.zarr"


def chunk(plate, t=T, c=C):
    array = plate / "A/1/0/0"
    return (array / "c" if (array / "c").is_dir() else array) / f"{t}/{c}/0/0/0"


def read(reader, t, fov=0, channels=(0, 1)):
    at = np.array([fov]), np.array([t]), np.array([channels]), *[np.array([0])] * 3
    return reader.read(*at, SIZE)


def test_a_truncated_chunk_is_named_with_store_fov_frame_channel_and_file(plate):
    chunk(plate).write_bytes(chunk(plate).read_bytes()[:-4])
    reader = PatchReader(read_plate(plate))
    np.testing.assert_array_equal(read(reader, T, channels=(0,))[0, 0], pixels()[T, 0, :, :8, :8])
    with pytest.raises(InputError) as caught:
        read(reader, T)
    assert caught.value.where == f"{plate}, FOV A/1/0, frame {T}, channel 'GFP'"
    assert str(chunk(plate)) in caught.value.found


def test_a_missing_chunk_is_told_counted_and_no_cause_to_lose_the_others(plate):
    chunk(plate).unlink()
    reader = PatchReader(read_plate(plate))
    told = rf"(?s)p\.zarr, FOV A/1/0, frame {T}, channel 'GFP': chunk .*{chunk(plate)}.*fill value.*sparse store"
    with pytest.warns(UserWarning, match=told) as caught:
        patch = read(reader, T)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(patch[0, 0], pixels()[T, 0, :, :8, :8])
    assert not patch[0, 1].any()
    read(reader, T)  # further ones are counted, not told
    read(reader, 0)
    assert reader.missing == Counter({FovKey(str(plate), "A/1/0"): 2})
    fov = read_plate(plate)[0]
    with pytest.warns(UserWarning, match=told):
        assert not read_stack(fov, T, C).any()
    assert not open_array(fov)[T, C].read().result().any()


def test_a_fault_under_one_of_many_small_boxes_changes_no_other_box(plate):
    chunk(plate).unlink()
    reader = PatchReader(read_plate(plate))
    fov, t, y = (column.ravel() for column in np.meshgrid([0, 1], range(3), range(9), indexing="ij"))
    zero = np.zeros(len(t), int)
    with pytest.warns(UserWarning, match=f"frame {T}, channel 'GFP'") as caught:
        patches = reader.read(fov, t, [[0, 1]] * len(t), zero, y, zero, SIZE)
    assert [each.filename for each in caught] == [__file__]
    expected = np.stack([pixels()[frame, :, :, row : row + 8, :8] for frame, row in zip(t, y, strict=True)])
    expected[(fov == 0) & (t == T), C] = 0
    np.testing.assert_array_equal(patches, expected)
    assert reader.missing == Counter({FovKey(str(plate), "A/1/0"): 9})


def test_faults_of_patches_that_are_larger_than_a_block_are_found_as_well(tmp_path):
    frames = np.ones((3, 2, 1, 400, 400), np.float32)
    with PlateWriter(tmp_path / "p.zarr", CHANNELS) as writer:
        writer.write("A/1/0", frames)
    missing, broken = (tmp_path / f"p.zarr/A/1/0/0/c/{t}/1/0/0/0" for t in (1, 2))
    missing.unlink()
    broken.write_bytes(b"no chunk")
    reader = PatchReader(read_plate(tmp_path / "p.zarr"))
    zero = np.zeros(2, int)
    with pytest.warns(UserWarning, match="frame 1, channel 'GFP'"):
        patches = reader.read(zero, np.arange(2), [[0, 1]] * 2, zero, zero, zero, (1, 400, 400))
    assert patches.mean(axis=(2, 3, 4)).tolist() == [[1, 1], [1, 0]]
    with pytest.raises(InputError, match="frame 2, channel 'GFP'"):
        reader.read(zero, zero + 2, [[0, 1]] * 2, zero, zero, zero, (1, 400, 400))


def test_what_is_not_written_reads_as_the_fill_value_of_the_store(tmp_path):
    with PlateWriter(tmp_path / "p.zarr", CHANNELS) as writer:
        writer.create("A/1/0", (3, 2, 1, 16, 16), "uint16")
    described = tmp_path / "p.zarr/A/1/0/0/zarr.json"
    described.write_text(described.read_text().replace('"fill_value": 0', '"fill_value": 7'))
    with pytest.warns(UserWarning, match="fill value"):
        assert (read(PatchReader(read_plate(tmp_path / "p.zarr")), 0) == 7).all()


def test_planes_of_zeros_that_were_written_are_no_missing_chunks(tmp_path):
    with PlateWriter(tmp_path / "p.zarr", CHANNELS) as writer:
        writer.write("A/1/0", np.zeros((3, 2, 1, 16, 16), np.uint16))
    reader = PatchReader(read_plate(tmp_path / "p.zarr"))
    assert not read(reader, 0).any()
    assert not reader.missing


def test_planes_of_zeros_are_written_also_where_another_library_has_set_another_pipeline(tmp_path):
    pytest.importorskip("zarrs")
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        with PlateWriter(tmp_path / "p.zarr", CHANNELS) as writer:
            writer.write("A/1/0", np.zeros((3, 2, 1, 16, 16), np.uint16))
        growing = GrowingPlate(tmp_path / "g.zarr")
        growing.begin({}, lambda path: shutil.copytree(tmp_path / "p.zarr", path))
        for chunk in (growing.folder / "plate.zarr").rglob("c"):
            shutil.rmtree(chunk)
        growing.array("A/1/0")[...] = 0
        growing.finish()
    for plate in (tmp_path / "p.zarr", growing.path):
        reader = PatchReader(read_plate(plate))
        assert not read(reader, 0).any()
        assert not reader.missing


def test_a_store_that_vanishes_is_an_error_not_black_cells(plate):
    reader = PatchReader(read_plate(plate), cache_pool_bytes=0)
    read(reader, 0)
    shutil.rmtree(plate)
    with pytest.raises(MissingInputError, match=r"p\.zarr, FOV A/1/0"):
        read(reader, 1)


def test_a_store_that_has_changed_since_set_up_is_refused(plate):
    reader = PatchReader(read_plate(plate))
    version = "0.5" if (plate / "zarr.json").exists() else "0.4"
    shutil.rmtree(plate)
    with PlateWriter(plate, CHANNELS, version=version) as writer:
        writer.write("A/1/0", pixels()[:2])
    with pytest.raises(InputError, match=r"(?s)A/1/0.*shape \(2, 2, 1, 16, 16\).*\(3, 2, 1, 16, 16\), which it had"):
        read(reader, 0)


@pytest.fixture
def sick(tmp_path):
    """Serve a plate whose server does what the test says for the chunk at ``T``, ``C``."""
    with PlateWriter(tmp_path / "p.zarr", CHANNELS) as writer:
        writer.write("A/1/0", pixels())
    answers, asked = [], []

    def fault(path):
        if DELAYED not in path:
            return None
        asked.append(path)
        answer = answers.pop(0) if answers else None
        return answer() if callable(answer) else answer

    with served(tmp_path, fault) as url:
        yield f"{url}/p.zarr", answers, asked


@pytest.mark.parametrize("fault", [500, 503, 429, 0])
def test_a_server_that_stumbles_is_asked_again(sick, fault):
    url, answers, asked = sick
    answers += [fault, fault]
    patch = read(PatchReader(read_plate(url)), T)
    np.testing.assert_array_equal(patch[0], pixels()[T, :, :, :8, :8])
    assert len(asked) == 3


@pytest.mark.parametrize("fault", [503, 0])
def test_a_server_that_keeps_failing_is_given_up_with_the_place(sick, fault, monkeypatch):
    url, answers, asked = sick
    monkeypatch.setattr("viscy_data.stores.faults.PIXEL_RETRIES", {"max_retries": 2, "initial_delay": "1ms"})
    reader = PatchReader(read_plate(url))
    answers += [fault] * 100
    with pytest.raises(InputError) as caught:
        read(reader, T)
    assert caught.value.where == f"{url}, FOV A/1/0, frame {T}, channel 'GFP'"
    assert 2 <= len(asked) <= 12
    np.testing.assert_array_equal(read(reader, 0)[0], pixels()[0, :, :, :8, :8])


def test_a_server_that_stalls_is_given_up(sick):
    url, answers, _ = sick
    answers += [lambda: time.sleep(1.5)] * 2
    with pytest.raises(InputError, match=r"(?s)frame 2, channel 'GFP'.*no answer of the server within 0.2 s"):
        read(PatchReader(read_plate(url), server_patience=0.2), T)
