"""FOVs that cannot be read and chunks that are not stored: stop, or go on as the config says, counted and named."""

import shutil

import numpy as np
import pytest
import zarr

from viscy_data import ConcatDataModule, PatchReader
from viscy_data.errors import InputError
from viscy_data.stores import (
    FovKey,
    PlateWriter,
    StoragePolicy,
    left_out_text,
    open_array,
    read_block,
    read_fovs,
    read_stack,
    usable_fovs,
)
from viscy_data.testing import DATA_MODULES, write_data

LEAVE_OUT, REFUSE = StoragePolicy(bad_fovs="leave_out"), StoragePolicy(missing_chunks="refuse")
FOVS = ["A/1/0", "A/1/1", "A/2/0"]
BAD = "A/1/1"
SHAPE = (3, 2, 1, 16, 16)
LAYOUTS = {"v2": {"version": "0.4"}, "v3": {}, "sharded": {"chunks": (1, 1, 1, 8, 8), "shards": (1, 1, 1, 16, 16)}}


def pixels():
    return np.random.default_rng(0).integers(1, 1000, SHAPE, dtype=np.uint16)


@pytest.fixture(params=LAYOUTS)
def plate(tmp_path, request):
    with PlateWriter(tmp_path / "p.zarr", ["Phase", "GFP"], **LAYOUTS[request.param]) as writer:
        for fov in FOVS:
            writer.write(fov, pixels())
    return tmp_path / "p.zarr"


def chunk(plate, t, channel, fov=BAD):
    """Return the file of a chunk, or of a shard."""
    array = plate / fov / "0"
    return (array / "c" if (array / "c").is_dir() else array) / f"{t}/{channel}/0/0/0"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-4])


def metadata(plate, kind):
    names = {"group": ("zarr.json", ".zattrs"), "array": ("0/zarr.json", "0/.zarray")}[kind]
    return next(plate / BAD / name for name in names if (plate / BAD / name).exists())


FAULTS = {
    "first chunk": lambda plate: truncate(chunk(plate, 0, 0)),
    "last chunk": lambda plate: truncate(chunk(plate, 2, 1)),
    "empty chunk": lambda plate: chunk(plate, 0, 0).write_bytes(b""),
    "group": lambda plate: metadata(plate, "group").write_text("{"),
    "array": lambda plate: truncate(metadata(plate, "array")),
    "no array": lambda plate: shutil.rmtree(plate / BAD / "0"),
    "codec": lambda plate: [
        metadata(plate, "array").write_text(metadata(plate, "array").read_text().replace(known, "unknown"))
        for known in ("zstd", "blosc", "zlib", "sharding_indexed")
    ],
}
AT_SETUP = {"group", "array", "no array", "codec"}
"""What stops at set-up also where nothing is left out."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_fov_is_left_out_and_named_or_stops(plate, fault):
    assert usable_fovs(plate, LEAVE_OUT) == (read_fovs(plate), {})
    FAULTS[fault](plate)
    usable = usable_fovs(plate, LEAVE_OUT)
    assert [fov.name for fov in usable.fovs] == [name for name in FOVS if name != BAD]
    assert usable.left_out.keys() == {FovKey(str(plate), BAD)}
    if fault == "last chunk":
        assert usable.left_out[FovKey(str(plate), BAD)].startswith("frame 2, channel 'GFP'")
    if fault in AT_SETUP:
        with pytest.raises(InputError, match=BAD):
            usable_fovs(plate)
    else:
        assert usable_fovs(plate).fovs == read_fovs(plate)


def test_a_fault_that_is_met_later_stops_and_says_what_would_leave_it_out(plate):
    truncate(chunk(plate, 1, 0))  # neither the first nor the last chunk
    usable = usable_fovs(plate, LEAVE_OUT)
    assert not usable.left_out
    where = rf"FOV {BAD}, frame 1, channel 'Phase'"
    with pytest.raises(InputError, match=rf"(?s){where}.*{chunk(plate, 1, 0)}.*storage\.bad_fovs: leave_out"):
        read_stack(usable.fovs[1], 1, 0)


def test_a_plate_of_bad_fovs_and_what_is_wrong_with_the_plate_itself_are_refused(plate):
    for fov in FOVS:
        truncate(chunk(plate, 0, 0, fov))
    with pytest.raises(InputError, match=r"(?s)3 problems.*A/1/0.*A/1/1.*A/2/0"):
        usable_fovs(plate, LEAVE_OUT)
    well = next(plate / "A/1" / name for name in ("zarr.json", ".zattrs") if (plate / "A/1" / name).exists())
    well.write_text("{")
    with pytest.raises(InputError, match="A/1"):
        usable_fovs(plate, LEAVE_OUT)


def test_what_is_left_out_is_counted_and_the_first_are_named():
    bad = {FovKey("p.zarr", f"A/1/{number}"): "broken" for number in range(12)}
    assert left_out_text(bad).startswith("12 FOVs that cannot be read are left out: p.zarr, FOV A/1/0 (broken); ")
    assert left_out_text(bad).endswith("A/1/9 (broken); and 2 more")
    assert left_out_text({FovKey("p.zarr", "A/1/0"): "broken"}).startswith("1 FOV that cannot be read is left out")


@pytest.mark.parametrize("options", [{"bad_fovs": "ignore"}, {"missing_chunks": True}])
def test_other_policies_are_refused(options):
    with pytest.raises(InputError, match=f"StoragePolicy, field {next(iter(options))}"):
        StoragePolicy(**options)


# Chunks that are not stored


def test_a_chunk_that_is_not_stored_is_a_fault_where_the_config_says_so(plate):
    chunk(plate, 1, 1).unlink()
    _, fov, _ = usable_fovs(plate, REFUSE).fovs
    assert open_array(fov)[1, 0].read().result().any()
    where = rf"(?s)FOV {BAD}, frames? 1, channels? .*'GFP'\n.*1/1/0/0/0.*missing.*missing_chunks: fill"
    zero = np.zeros(1, int)
    for use in (
        lambda: PatchReader([fov]).read(zero, zero + 1, [[0, 1]], zero, zero, zero, (1, 8, 8)),
        lambda: read_stack(fov, 1, 1),
        lambda: read_block(fov, open_array(fov), range(1, 2), [0, 1]),
    ):
        with pytest.raises(InputError, match=where):
            use()
    allowed = usable_fovs(plate).fovs[1]
    with pytest.warns(UserWarning, match="fill value"):
        assert not read_stack(allowed, 1, 1).any()


def test_a_fov_whose_last_chunk_is_not_stored_is_bad_where_that_is_a_fault(plate):
    chunk(plate, 2, 1).unlink()
    assert not usable_fovs(plate, LEAVE_OUT).left_out
    assert usable_fovs(plate, StoragePolicy("leave_out", "refuse")).left_out.keys() == {FovKey(str(plate), BAD)}


def test_a_chunk_that_is_missing_inside_of_a_shard_is_found(tmp_path):
    with PlateWriter(tmp_path / "p.zarr", ["Phase", "GFP"], **LAYOUTS["sharded"]) as writer:
        writer.write("A/1/0", pixels())
    array = zarr.open_array(tmp_path / "p.zarr/A/1/0/0", mode="r+").with_config({"write_empty_chunks": False})
    array[1, 0, 0, :8, 8:] = 0  # an empty chunk is not written again
    [sparse], [strict] = (usable_fovs(tmp_path / "p.zarr", storage).fovs for storage in (StoragePolicy(), REFUSE))
    zero = np.zeros(1, int)
    with pytest.warns(UserWarning, match="fill value"):
        patch = PatchReader([sparse]).read(zero, zero + 1, [[0]], zero, zero, zero, (1, 16, 16))[0, 0, 0]
    assert not patch[:8, 8:].any()
    np.testing.assert_array_equal(patch[8:], pixels()[1, 0, 0, 8:])
    with pytest.raises(InputError, match="frame 1, channel 'Phase'"):
        PatchReader([strict]).read(zero, zero + 1, [[0]], zero, zero, zero, (1, 16, 16))


# Data modules


@pytest.fixture(scope="module")
def sound_data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def folder(sound_data, tmp_path):
    return shutil.copytree(sound_data, tmp_path / "data")


STORES = {"ctmc": "ctmc_train.zarr", "segmentation": "predicted.zarr"}
OF_FOVS = ["triplets", "windows", "frames", "mapped", "ctmc", "classification"]


def break_fov(store):
    """Spoil the first chunk of the first FOV of a plate, and name it."""
    first = read_fovs(store)[0]
    for path in (store / first.name / "0").rglob("c/0/*/*/*/*"):
        path.write_bytes(b"no chunk")
    return first.key


@pytest.mark.parametrize("name", OF_FOVS)
def test_every_data_module_of_fovs_goes_on_without_a_bad_one(folder, name):
    key = break_fov(folder / STORES.get(name, "images.zarr"))
    data = DATA_MODULES[name](folder, storage=LEAVE_OUT)
    with pytest.warns(UserWarning, match=f"1 FOV that cannot be read is left out: .*{key.name}"):
        data.setup("fit")
    assert data.left_out_fovs.keys() == {key}
    record = data.data_record()
    assert [entry[:2] for entry in record["left_out"]] == [list(key)]
    loaders = [data.train_dataloader(), data.val_dataloader()]
    assert all(batch is not None for loader in loaders for batch in loader)
    again = DATA_MODULES[name](folder)
    assert again.data_record()["settings"] == record["settings"]  # what is read is recorded, not how it came about
    assert "left_out" not in again.data_record()


def test_segmentations_are_compared_where_both_can_be_read(folder):
    for store, seed in (("predicted.zarr", 0), ("true.zarr", 1)):
        shutil.rmtree(folder / store)
        with PlateWriter(folder / store, ["nuclei"]) as plate:
            for fov in FOVS:
                plate.write(fov, np.full((2, 1, 1, 16, 16), seed, np.uint16))
    key = break_fov(folder / "true.zarr")
    data = DATA_MODULES["segmentation"](folder, storage=LEAVE_OUT)
    with pytest.warns(UserWarning, match="left out"):
        data.setup("test")
    assert data.left_out_fovs.keys() == {key}
    assert len(data.test_dataset) == 2 * (len(FOVS) - 1)


def test_a_fov_that_another_rank_cannot_read_is_left_out_as_well(folder, monkeypatch):
    other = FovKey(str(folder / "images.zarr"), "A/1/2")
    monkeypatch.setattr("viscy_data.batches.readable.gather_from_ranks", lambda own: [own, {other: "no permission"}])
    data = DATA_MODULES["windows"](folder, storage=LEAVE_OUT)
    with pytest.warns(UserWarning, match=r"A/1/2 \(no permission\)"):
        data.setup("fit")
    assert other not in {fov.key for part in (data.train_dataset, data.val_dataset) for fov in part.fovs}
    monkeypatch.setattr("viscy_data.batches.readable.gather_from_ranks", lambda own: pytest.fail("nothing to agree on"))
    DATA_MODULES["windows"](folder).setup("fit")


def test_bad_fovs_may_be_named_among_those_to_leave_out(folder):
    key = break_fov(folder / "images.zarr")
    for name, option in (
        ("windows", "exclude_fov_names"),
        ("triplets", "fit_exclude_fovs"),
        ("frames", "exclude_fovs"),
    ):
        data = DATA_MODULES[name](folder, storage=LEAVE_OUT, **{option: [key.name]})
        with pytest.warns(UserWarning, match="left out"):
            data.setup("fit")


def test_members_tell_what_they_leave_out(folder):
    key = break_fov(folder / "images.zarr")
    data = ConcatDataModule([DATA_MODULES["windows"](folder, storage=LEAVE_OUT) for _ in range(2)])
    with pytest.warns(UserWarning, match="left out"):
        data.setup("fit")
    assert data.left_out_fovs.keys() == {key}
