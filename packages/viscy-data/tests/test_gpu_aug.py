"""Frames by channel: kept on disk, transformed in the worker and on the device."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
import torch
from monai.transforms import Compose, Decollated, MapTransform, Randomizable, RandSpatialCropSamplesd
from torch.utils.data import Dataset

from viscy_data import CachedOmeZarrDataModule, CachedOmeZarrDataset, GPUTransformDataModule, MmappedDataModule
from viscy_data.errors import InputError
from viscy_data.stores import PlateWriter, read_plate, update_attributes
from viscy_data.testing.encoding import Encoding, write_encoded_plate
from viscy_data.testing.training import Recorder, StopAfter, quiet_trainer
from viscy_data.volume_files import VolumeFiles

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]

NAMES = ["A/1/0", "A/1/1", "A/2/0", "B/1/0"]
CHANNELS = ["Phase", "GFP"]
SHAPE = (3, 2, 2, 12, 16)
CODE = Encoding(n_plates=1, n_fovs=len(NAMES), shape=SHAPE)
MODULES = [CachedOmeZarrDataModule, MmappedDataModule]


class Add(MapTransform):
    """Add a number; count how often."""

    def __init__(self, keys, offset=1000.0):
        super().__init__(keys)
        self.offset, self.n_calls = offset, 0

    def __call__(self, data):
        self.n_calls += 1
        return {**data, **{key: data[key] + self.offset for key in self.keys}}


class Normalize(MapTransform):
    level = "fov_statistics"

    def __call__(self, data):
        out = dict(data)
        for key in self.keys:
            mean = data["norm_meta"][key][self.level]["mean"]
            out[key] = data[key] - (mean.view(-1, 1, 1, 1, 1) if mean.ndim else mean)
        return out


class Shift(MapTransform, Randomizable):
    def __call__(self, data):
        offset = self.R.uniform(1, 1e6)
        return {**data, **{key: data[key] + offset for key in self.keys}}


class Stack(MapTransform):
    """What the model asks for."""

    def __call__(self, data):
        return {"source": torch.cat([data[key] for key in self.keys], dim=-4)}


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "plate.zarr"
    write_encoded_plate(path, CODE, 0, NAMES, CHANNELS)
    for number, name in enumerate(NAMES):
        statistics = {channel: {"fov_statistics": {"mean": float(number), "std": 2.0}} for channel in CHANNELS}
        update_attributes(path, name, "normalization", statistics)
    return path


def module(path, scratch, kind=CachedOmeZarrDataModule, **options):
    settings = {"channels": CHANNELS, "batch_size": 2, "num_workers": 0, "split_ratio": 0.5, "scratch_dir": scratch}
    settings |= {"train_cpu_transforms": [], "val_cpu_transforms": [], "pin_memory": False}
    settings |= {"train_gpu_transforms": [Stack(CHANNELS)], "val_gpu_transforms": [Stack(CHANNELS)]}
    settings |= {"preprocess_transforms": []} if kind is MmappedDataModule else {}
    return kind(path, **settings | options)


def origins(images):
    return CODE.decode(images.numpy())


# Kept volumes


def test_a_kept_volume_is_made_once_and_is_read_by_others(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return torch.arange(8.0).reshape(2, 1, 2, 2)

    volumes = VolumeFiles(tmp_path / "kept", 2, 64)
    first = volumes.fetch("A/1/0 t0", make)
    first += 100  # a private view
    other = pickle.loads(pickle.dumps(volumes))
    assert torch.equal(other.fetch("A/1/0 t0", make), torch.arange(8.0).reshape(2, 1, 2, 2))
    assert len(calls) == volumes.n_made == 1
    other.fetch("A/1/0 t1", make)
    assert len(calls) == 2


def test_a_volume_that_could_not_be_made_is_not_kept(tmp_path):
    volumes = VolumeFiles(tmp_path, 1, 0)

    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        volumes.fetch("a", fail)
    assert volumes.fetch("a", lambda: torch.ones(1)).tolist() == [1.0]


def test_size_place_and_progress_are_said(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="viscy_data"):
        volumes = VolumeFiles(tmp_path / "kept", 1, 2048)
        volumes.fetch("a", lambda: torch.ones(1))
    assert f"volumes are kept in {tmp_path / 'kept'}: 0 of 1 are there, 2.0 KiB in all" in caplog.text
    assert "1 of 1 volumes made" in caplog.text
    with pytest.raises(InputError, match="scratch_dir"):
        VolumeFiles(tmp_path, 1, 1 << 60)


# The dataset


@pytest.mark.parametrize("kept", [True, False])
def test_samples_are_whole_frames_by_channel(plate, tmp_path, kept):
    cache = VolumeFiles(tmp_path, 12, 0) if kept else None
    data = CachedOmeZarrDataset(read_plate(plate), CHANNELS[::-1], cache)
    assert len(data) == len(NAMES) * SHAPE[0]
    for _ in range(2):
        for position in (0, 4, 11):
            (sample,) = data[position]
            fov, t = divmod(position, SHAPE[0])
            for number, name in enumerate(CHANNELS):
                np.testing.assert_array_equal(sample[name], CODE.pixels(0, fov)[t, [number]])
            assert sample["norm_meta"]["GFP"]["fov_statistics"]["mean"] == fov
    assert len(list(tmp_path.glob("*.npy"))) == 3 * kept
    unkept = CachedOmeZarrDataset(read_plate(plate), CHANNELS, cache, skip_cache=True)
    assert torch.equal(unkept[4][0]["GFP"], data[4][0]["GFP"])
    assert len(list(tmp_path.glob("*.npy"))) == 3 * kept


def test_every_so_many_th_frame_of_each_fov(plate):
    data = CachedOmeZarrDataset(read_plate(plate), CHANNELS, frame_step=2)
    assert [data.place(position) for position in range(len(data))] == [(f, t) for f in range(4) for t in (0, 2)]


def test_a_changed_store_is_read_anew(tmp_path):
    def first_pixel(path):
        cache = VolumeFiles(tmp_path / "kept", 1, 0)
        return float(CachedOmeZarrDataset(read_plate(path), ["a"], cache)[0][0]["a"][0, 0, 0, 0])

    for value in (1, 2):
        path = tmp_path / f"{value}" / "plate.zarr"
        with PlateWriter(path, ["a"]) as writer:
            writer.write("A/1/0", np.full((1, 1, 1, 4, 4), value, np.uint8))
        assert first_pixel(path) == value


# The data modules


@pytest.mark.parametrize("kind", MODULES)
def test_a_plate_trains_and_validates_on_fovs_of_its_own(plate, tmp_path, kind):
    data, model = module(plate, tmp_path, kind, batch_size=4), Recorder()
    quiet_trainer(max_epochs=1).fit(model, data)
    assert [len(batch) for batch in model.seen["train"]] == [4, 2]
    train, val = (torch.cat(seen) for seen in (model.seen["train"], model.seen["val"]))
    assert train.shape == (6, 2, *SHAPE[2:])
    found = [{NAMES[fov] for fov in np.unique(origins(images).fov)} for images in (train, val)]
    assert found == [set(data.split.train), set(data.split.val)]
    frames = {(int(f), int(t)) for f, t in zip(*(axis[:, 0, 0, 0, 0] for axis in origins(train)[1:3]), strict=True)}
    assert len(frames) == 6
    assert len(list(data.cache_dir.glob("*.npy"))) == 12
    again = Recorder()
    quiet_trainer(max_epochs=1).validate(again, data, verbose=False)
    assert torch.equal(torch.cat(again.seen["val"]), val)


def test_excluded_fovs_and_other_wells_do_not_take_part(plate, tmp_path):
    data = module(plate, tmp_path, include_wells=["A/1", "A/2"], exclude_fovs=["A/1/1"])
    data.setup("fit")
    assert set(data.split.train + data.split.val) == {"A/1/0", "A/2/0"}
    with pytest.raises(InputError, match="exclude_fovs"):
        module(plate, tmp_path, exclude_fovs=["A/1/7"]).setup("fit")


def test_preprocessing_happens_once_with_the_statistics(plate, tmp_path):
    steps = [Normalize(CHANNELS), Add(["GFP"])]
    data, later = (module(plate, tmp_path, MmappedDataModule, preprocess_transforms=steps) for _ in range(2))
    for each in (data, later):
        each.setup("fit")
        batch = each.train_dataset[[0, 4]]
        fov, t = each.train_dataset.place(4)
        number = NAMES.index(each.train_dataset.fovs[fov].name)
        expected = CODE.pixels(0, number)[t, [0, 1]] - number + np.array([0, 1000])[:, None, None, None]
        np.testing.assert_array_equal(torch.cat([batch[name][1] for name in CHANNELS]), expected)
        assert set(batch) == {*CHANNELS, "rng_seed"}
    assert data.train_dataset.cache.n_made == 2
    assert later.train_dataset.cache.n_made == 0
    assert steps[1].n_calls == 2


def test_other_content_and_options_have_folders_of_their_own(plate, tmp_path):
    folders = [
        module(plate, tmp_path).cache_dir,
        module(plate, tmp_path, channels="GFP").cache_dir,
        module(plate, tmp_path, array_key="1").cache_dir,
        module(plate, tmp_path, MmappedDataModule, preprocess_transforms=[Add(["GFP"], 1.0)]).cache_dir,
        module(plate, tmp_path, MmappedDataModule, preprocess_transforms=[Add(["GFP"], 2.0)]).cache_dir,
        module(tmp_path / "plate.zarr", tmp_path).cache_dir,
    ]
    assert len(set(folders)) == len(folders)
    assert module(plate, tmp_path, batch_size=9).cache_dir == folders[0]


def test_patches_are_made_in_the_worker_and_samples_on_the_device_are_collated(plate, tmp_path):
    crops = RandSpatialCropSamplesd(CHANNELS, (2, 4, 4), num_samples=3, random_size=False)
    device = [Normalize(CHANNELS), Decollated(CHANNELS), Stack(CHANNELS)]
    data = module(plate, tmp_path, train_cpu_transforms=[crops], train_gpu_transforms=device)
    data.setup("fit")
    batch = data.train_dataset[[5, 0]]
    assert batch["Phase"].shape == (6, 1, 2, 4, 4)
    ready = data.pipeline(batch, training=True, augment=True)
    assert ready["source"].shape == (6, 2, 2, 4, 4)
    fov = data.train_dataset.place(5)[0]
    number = NAMES.index(data.train_dataset.fovs[fov].name)
    assert (origins(ready["source"][:1] + number).fov == number).all()


@pytest.mark.parametrize("kind", MODULES)
def test_frames_that_the_limit_has_no_room_for_are_refused(plate, tmp_path, kind):
    gb = 12 * 2 * 2 * 12 * 16 * 4 / (1 << 30)
    with pytest.raises(InputError, match=r"(?s)max_cache_gb.*36\.0 KiB that this run.*at most"):
        module(plate, tmp_path, kind, max_cache_gb=0.99 * gb).setup("fit")
    module(plate, tmp_path, kind, max_cache_gb=gb).setup("fit")


@pytest.mark.slow
def test_workers_share_kept_frames_and_give_the_same_batches(plate, tmp_path):
    found = []
    for num_workers in (2, 0):
        data = module(plate, tmp_path, num_workers=num_workers, train_cpu_transforms=[Shift(["GFP"])])
        data.setup("fit")
        found.append(list(data.train_dataloader()))
    assert len(found[0]) == len(found[1]) == 3
    for shared, alone in zip(*found, strict=True):
        assert torch.equal(shared["GFP"], alone["GFP"])
        assert shared["rng_seed"] == alone["rng_seed"]
    assert data.train_dataset.cache.n_made == 0  # the workers of the first have made them


@pytest.mark.parametrize("killed_after", [2, 4])
def test_a_run_resumed_in_mid_epoch_goes_on_with_the_batches_of_an_unbroken_one(plate, tmp_path, killed_after):
    def data():
        device = [Shift(CHANNELS), Stack(CHANNELS)]
        return module(plate, tmp_path, train_cpu_transforms=[Shift(["GFP"])], train_gpu_transforms=device)

    whole, killed, resumed = Recorder(), Recorder(), Recorder()
    quiet_trainer().fit(whole, data())
    path = tmp_path / "killed.ckpt"
    with pytest.raises(SystemExit):
        quiet_trainer(callbacks=[StopAfter(path, killed_after)]).fit(killed, data())
    quiet_trainer().fit(resumed, data(), ckpt_path=path, weights_only=True)
    expected = whole.seen["train"][killed_after:]
    assert len(resumed.seen["train"]) == len(expected)
    assert all(torch.equal(*pair) for pair in zip(resumed.seen["train"], expected, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_ratio": 0}, "split_ratio"),
        ({"channels": []}, "channels"),
        ({"train_cpu_transforms": [1]}, "train_cpu_transforms"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_cache_gb": 0}, "max_cache_gb"),
    ],
)
def test_impossible_settings_are_refused(plate, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        module(plate, tmp_path, **options)


def test_data_that_do_not_fit_the_settings_are_refused(plate, tmp_path):
    with pytest.raises(ValueError, match="'DAPI'"):
        module(plate, tmp_path, channels="DAPI").setup("fit")
    normalize = Normalize(CHANNELS)
    normalize.level = "timepoint_statistics"
    with pytest.raises(ValueError, match=r"(?s)no timepoint_statistics.*viscy preprocess"):
        module(plate, tmp_path, val_gpu_transforms=[normalize]).setup("fit")
    with pytest.raises(NotImplementedError, match="no stage 'predict'"):
        module(plate, tmp_path).setup("predict")


# A subclass as VisCy v2.2 has them


class Numbers(Dataset):
    """Single samples, or lists of patches."""

    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return [self.transform({"Phase": torch.full((1, 1, 2, 2), float(index))})]


class OwnModule(GPUTransformDataModule):
    train_cpu_transforms = val_cpu_transforms = property(lambda self: Compose([Add(["Phase"])]))
    train_gpu_transforms = val_gpu_transforms = property(lambda self: Compose([Stack(["Phase"])]))

    def __init__(self):
        super().__init__()
        self.batch_size, self.num_workers, self.pin_memory, self.prefetch_factor = 2, 0, False, None

    def setup(self, stage):
        self.train_dataset = Numbers(self.train_cpu_transforms)
        self.val_dataset = Numbers(self.val_cpu_transforms)


def test_a_subclass_brings_any_dataset_of_samples_and_its_own_transforms():
    model = Recorder()
    quiet_trainer(max_epochs=1).fit(model, OwnModule())
    assert sorted(torch.cat(model.seen["train"])[:, 0, 0, 0, 0].tolist()) == [1000.0, 1001, 1002, 1003, 1004]
    assert torch.cat(model.seen["val"])[:, 0, 0, 0, 0].tolist() == [1000.0, 1001, 1002, 1003, 1004]


def test_a_subclass_without_transforms_is_told_so(plate):
    class Silent(GPUTransformDataModule):
        pass

    with pytest.raises(NotImplementedError, match="Silent does not say its train_gpu_transforms"):
        Silent().setup("fit")
