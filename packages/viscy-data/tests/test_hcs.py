"""Windows of whole plates: which pixels, in which order, transformed how, in every stage."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from monai.transforms import (
    Compose,
    MapTransform,
    RandAffined,
    Randomizable,
    RandSpatialCropSamplesd,
    RandWeightedCropd,
)

from viscy_data import HCSDataModule, MaskTestDataset, SlidingWindowDataset
from viscy_data.distributed import World
from viscy_data.errors import InputError, MissingInputError
from viscy_data.stores import PlateWriter, read_plate, update_attributes
from viscy_data.testing.encoding import Encoding, write_encoded_plate
from viscy_data.testing.training import Recorder, StopAfter, quiet_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]

NAMES = ["A/1/0", "A/1/1", "A/1/2", "B/1/3"]
CHANNELS = ["Phase", "Nuclei", "Membrane"]
SHAPE = (2, 3, 6, 20, 24)
CODE = Encoding(n_plates=1, n_fovs=len(NAMES), shape=SHAPE)
ROLES = {"source": ["Phase"], "target": ["Membrane", "Nuclei"]}
WINDOW = 3


class Normalize(MapTransform):
    """Subtract the mean of the FOV."""

    level = "fov_statistics"

    def __call__(self, data):
        out = dict(data)
        for key in self.key_iterator(data):
            out[key] = data[key] - data["norm_meta"][key][self.level]["mean"]
        return out


class Shift(MapTransform, Randomizable):
    """Add one random number."""

    def __call__(self, data):
        offset = self.R.uniform(1, 1e6)
        return {**data, **{key: data[key] + offset for key in self.keys}}


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    path = tmp_path_factory.mktemp("hcs") / "plate.zarr"
    write_encoded_plate(path, CODE, 0, NAMES, CHANNELS)
    for number, name in enumerate(NAMES):
        statistics = {channel: {"fov_statistics": {"mean": float(number), "std": 2.0}} for channel in CHANNELS}
        update_attributes(path, name, "normalization", statistics)
    return path


@pytest.fixture(scope="module")
def bare_plate(tmp_path_factory):
    """Without statistics; the last FOV is smaller."""
    path = tmp_path_factory.mktemp("bare") / "bare.zarr"
    with PlateWriter(path, CHANNELS) as writer:
        for number, name in enumerate(NAMES):
            size = 20 if number < 3 else 16
            writer.write(name, np.full((1, 3, 4, size, size), number, np.uint16))
    return path


def module(path, **options):
    settings = {"source_channel": "Phase", "target_channel": ["Membrane", "Nuclei"], "z_window_size": WINDOW}
    settings |= {
        "persistent_workers": True,
        "batch_size": 4,
        "num_workers": 0,
        "yx_patch_size": (8, 10),
        "split_ratio": 0.5,
    }
    return HCSDataModule(path, **settings | options)


def crops(num_samples=2):
    return RandWeightedCropd(CHANNELS, "weight", (WINDOW, 8, 10), num_samples)


# The dataset


def test_every_window_is_there_once_slices_running_fastest(plate):
    data = SlidingWindowDataset(read_plate(plate), ROLES, WINDOW)
    expected = []
    for fov in range(len(NAMES)):
        for t in range(SHAPE[0]):
            for z in range(SHAPE[2] - WINDOW + 1):
                expected.append((fov, t, z))
    assert len(data) == len(expected)
    for number, (fov, t, z) in enumerate(expected):
        sample = data[number]
        assert tuple(sample["index"]) == (f"/{NAMES[fov]}/0", t, z)
        for role, numbers in (("source", [0]), ("target", [2, 1])):
            np.testing.assert_array_equal(sample[role], CODE.pixels(0, fov)[t, numbers, z : z + WINDOW])
            assert sample[role].dtype == torch.float32
        assert sample["norm_meta"]["Nuclei"]["fov_statistics"]["mean"] == fov
    with pytest.raises(IndexError, match="there are 32 samples"):
        data[len(expected)]


def test_a_batch_is_the_samples_one_over_the_other(plate):
    data = pickle.loads(pickle.dumps(SlidingWindowDataset(read_plate(plate), ROLES, WINDOW)))
    batch, samples = data[[9, 30, 2]], [data[9], data[30], data[2]]
    for role in ROLES:
        assert torch.equal(batch[role], torch.stack([sample[role] for sample in samples]))
    assert list(batch["index"].image) == [sample["index"].image for sample in samples]
    assert batch["index"].time.tolist() == [sample["index"].time for sample in samples]
    assert batch["norm_meta"]["Phase"]["fov_statistics"]["mean"].tolist() == [1, 3, 0]


def test_the_transform_sees_channels_by_name_weights_and_statistics(plate):
    seen = {}

    def look(sample):
        seen.update(sample)
        return sample

    SlidingWindowDataset(read_plate(plate), ROLES, WINDOW, transform=look)[0]
    assert set(seen) == {"Phase", "Membrane", "Nuclei", "weight", "norm_meta", "index"}
    assert seen["weight"] is seen["Membrane"]
    assert seen["Phase"].shape == (1, WINDOW, *SHAPE[3:])


def test_several_patches_of_a_window_come_with_their_own_index(plate):
    data = SlidingWindowDataset(read_plate(plate), ROLES, WINDOW, transform=crops(3), seed=1)
    sample, batch = data[4], data[[4, 20]]
    assert [part.shape for part in sample["source"]] == [(1, WINDOW, 8, 10)] * 3
    assert batch["target"].shape == (6, 2, WINDOW, 8, 10)
    assert list(batch["index"].image) == ["/A/1/0/0"] * 3 + ["/A/1/2/0"] * 3
    assert torch.equal(batch["source"][:3], torch.stack(sample["source"]))
    origin = CODE.decode(batch["target"].numpy())
    assert (origin.fov == np.repeat([0, 2], 3)[:, None, None, None, None]).all()
    assert len({(int(y), int(x)) for y, x in zip(origin.y[:, 0, 0, 0, 0], origin.x[:, 0, 0, 0, 0], strict=True)}) > 2


def test_a_plate_without_statistics_has_no_such_key(bare_plate, plate):
    fovs = read_plate(bare_plate)[:2]
    assert "norm_meta" not in SlidingWindowDataset(fovs, ROLES, WINDOW)[[0, 1]]
    unasked = SlidingWindowDataset(read_plate(plate), ROLES, WINDOW, load_normalization_metadata=False)
    assert "norm_meta" not in unasked[0]


def test_windows_and_channels_that_there_are_not_are_refused(plate):
    fovs = read_plate(plate)
    with pytest.raises(InputError, match=r"(?s)z_window_size.*\(0, 7\), but FOV A/1/0 \(and 3 more\) has 6 slices"):
        SlidingWindowDataset(fovs, ROLES, 7)
    with pytest.raises(ValueError, match=r"(?s)4 problems.*'Nucleus'.*'Nuclei'"):
        SlidingWindowDataset(fovs, {"source": "Nucleus"}, 1)


def test_frames_of_different_sizes_need_a_crop_to_be_in_one_batch(bare_plate):
    fovs = read_plate(bare_plate)
    data = SlidingWindowDataset(fovs, ROLES, WINDOW)
    with pytest.raises(ValueError, match="crop to one size"):
        data[[0, len(data) - 1]]
    cropped = SlidingWindowDataset(fovs, ROLES, WINDOW, crop_size=(WINDOW, 8, 8))
    assert cropped[[0, len(data) - 1]]["source"].shape == (2, 1, WINDOW, 8, 8)


# Masks


@pytest.fixture
def masks(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for fov, z in [(0, 1), (3, 4)]:
        pixels = np.full(SHAPE[3:], 300 + fov, np.uint16)
        image.fromarray(pixels).save(tmp_path / f"img_p{fov:03d}_z{z}_cp_masks.png")
    return tmp_path


def test_the_middle_slice_of_the_first_frame_has_its_mask(plate, masks):
    data = MaskTestDataset(read_plate(plate), ROLES, WINDOW, ground_truth_masks=masks)
    labelled = {}
    for number in range(len(data)):
        if "labels" in (sample := data[number]):
            labelled[sample["index"]] = sample["labels"]
    assert set(labelled) == {("/A/1/0/0", 0, 0), ("/B/1/3/0", 0, 3)}
    for (image, _, _), labels in labelled.items():
        assert labels.dtype == torch.int16
        assert (labels == 300 + int(image.split("/")[3])).all()
        assert labels.shape == SHAPE[3:]


def test_masks_that_belong_to_no_one_fov_are_refused(plate, masks, tmp_path):
    with pytest.raises(MissingInputError, match=r"cp_masks\.png"):
        MaskTestDataset(read_plate(plate), ROLES, WINDOW, ground_truth_masks=tmp_path / "none")
    same = tmp_path / "same.zarr"
    with PlateWriter(same, CHANNELS) as writer:
        for name in ("A/1/0", "B/1/0"):
            writer.write(name, np.zeros((1, 3, 3, 8, 8), np.uint8))
    with pytest.raises(InputError, match=r"several FOVs with the numbers \[0\]"):
        MaskTestDataset(read_plate(same), ROLES, WINDOW, ground_truth_masks=masks)
    (masks / "img_z1_cp_masks.png").write_bytes(b"")
    with pytest.raises(InputError, match="a name without FOV"):
        MaskTestDataset(read_plate(plate), ROLES, WINDOW, ground_truth_masks=masks)


# The data module


@pytest.mark.slow
def test_batches_are_the_same_for_any_number_of_workers(plate):
    found = []
    for num_workers in (0, 2):
        data = module(plate, num_workers=num_workers, augmentations=[Shift(["Phase"]), crops()])
        data.setup("fit")
        found.append(list(data.train_dataloader()))
    assert len(found[0]) == len(found[1]) == 8
    for alone, shared in zip(*found, strict=True):
        assert torch.equal(alone["source"], shared["source"])
        assert [list(part) for part in alone["index"]] == [list(part) for part in shared["index"]]


def test_a_plate_trains_validates_is_tested_and_predicted(plate, masks):
    model = Recorder(keep=dict)
    options = {"normalizations": [Normalize(CHANNELS)], "augmentations": [crops()], "ground_truth_masks": masks}
    data = module(plate, **options)
    trainer = quiet_trainer()
    trainer.fit(model, data)
    n_train = 2 * 2 * 4  # FOVs, frames, windows
    assert len(model.seen["train"]) == 2 * n_train // 2  # two patches of each of two windows are a batch
    assert model.seen["train"][0]["source"].shape == (4, 1, WINDOW, 8, 10)
    assert model.seen["val"][-1]["target"].shape == (4, 2, WINDOW, 8, 10)
    assert set(model.seen["train"][0]["index"].image) <= {f"/{name}/0" for name in data.split.train}
    assert set(model.seen["val"][-1]["index"].image) <= {f"/{name}/0" for name in data.split.val}
    tested, predicted = Recorder(keep=dict), Recorder(keep=dict)
    trainer.test(tested, data, verbose=False)
    assert [batch["source"].shape for batch in tested.seen["test"]] == [(1, 1, WINDOW, *SHAPE[3:])] * 32
    assert sum("labels" in batch for batch in tested.seen["test"]) == 2
    trainer.predict(predicted, data, return_predictions=False)
    assert set(predicted.seen["predict"][0]) == {"source", "index", "norm_meta"}
    source = torch.cat([batch["source"] for batch in predicted.seen["predict"]])
    means = torch.tensor([0.0, 1, 2, 3]).repeat_interleave(8)[:, None, None, None, None]
    origin = CODE.decode((source + means).numpy())
    assert origin.fov[:, 0, 0, 0, 0].tolist() == np.repeat(range(4), 8).tolist()
    assert origin.z[:, 0, 0, 0, 0].tolist() == [0, 1, 2, 3] * 8


def test_what_is_random_is_another_one_in_each_epoch_and_not_a_matter_of_batch_or_rank(plate):
    def epochs(batch_size, world, n=2):
        data = module(plate, batch_size=batch_size, augmentations=[Shift(["Phase"])], seed=3)
        data.setup("fit")
        sampler = data.train_sampler(world)
        found = []
        for epoch in range(n):
            sampler.set_epoch(epoch)
            offsets = {}
            for positions in sampler:
                batch = data.train_dataset[positions]
                offsets |= dict(zip(positions, batch["source"].mean(dim=(1, 2, 3, 4)).tolist(), strict=True))
            found.append(offsets)
        return found

    alone, ranked = epochs(1, World()), [epochs(2, World(2, rank)) for rank in (0, 1)]
    for epoch in (0, 1):
        together = ranked[0][epoch] | ranked[1][epoch]
        assert len(together) == len(alone[epoch]) == 16
        assert together == pytest.approx(alone[epoch])
    assert all(alone[0][position] != alone[1][position] for position in alone[0])


@pytest.mark.parametrize("killed_after", [3, 9])
def test_a_run_resumed_in_mid_epoch_goes_on_with_the_batches_of_an_unbroken_one(plate, tmp_path, killed_after):
    def data():
        return module(plate, augmentations=[Shift(["Phase"]), crops()], batch_size=4)

    whole, killed, resumed = Recorder(keep=dict), Recorder(keep=dict), Recorder(keep=dict)
    quiet_trainer().fit(whole, data())
    path = tmp_path / "killed.ckpt"
    with pytest.raises(SystemExit):
        quiet_trainer(callbacks=[StopAfter(path, killed_after)]).fit(killed, data())
    quiet_trainer().fit(resumed, data(), ckpt_path=path, weights_only=True)
    expected = whole.seen["train"][killed_after:]
    assert len(resumed.seen["train"]) == len(expected)
    for batch, other in zip(resumed.seen["train"], expected, strict=True):
        assert torch.equal(batch["source"], other["source"])
        assert torch.equal(batch["target"], other["target"])


def test_validation_is_the_centre_without_augmentation_the_same_each_time(plate):
    data = module(plate, augmentations=[Shift(["Phase"])])
    data.setup("validate")
    batch = data.val_dataset[[0, 1]]
    origin = CODE.decode(batch["source"].numpy())
    top, left = SHAPE[3] // 2 - 4, SHAPE[4] // 2 - 5
    assert np.unique(origin.y).tolist() == list(range(top, top + 8))
    assert np.unique(origin.x).tolist() == list(range(left, left + 10))
    assert torch.equal(batch["source"], data.val_dataset[[0, 1]]["source"])


def test_a_two_dimensional_target_is_the_middle_slice(plate):
    data = module(plate, target_2d=True)
    data.setup("fit")
    batch = data.train_dataset[[0, 5]]
    sent = data.on_before_batch_transfer(batch, 0)
    assert torch.equal(sent["target"], batch["target"][:, :, 1:2])
    assert sent["source"].shape[2] == WINDOW
    assert data.on_before_batch_transfer(example := torch.zeros(2), 0) is example


@pytest.mark.parametrize(
    ("scale_range", "n_slices"),
    [(None, 3), ([0.0, 0.3, 0.3], 3), ([(-0.2, 0.0), 0.3, 0.3], 3), ([0.2, 0.3, 0.3], 4), ([(0.0, 0.9), 0, 0], 6)],
)
def test_training_reads_more_slices_where_z_is_stretched(plate, scale_range, n_slices):
    data = module(plate, augmentations=[RandAffined(CHANNELS, prob=1.0, scale_range=scale_range)])
    data.setup("fit")
    assert data.train_dataset.z_window_size == n_slices
    assert data.train_dataset[[0]]["source"].shape == (1, 1, WINDOW, 8, 10)
    assert data.val_dataset.z_window_size == WINDOW


def test_without_a_target_batches_hold_the_source_alone(plate):
    data = module(plate, target_channel=[], augmentations=[Shift(["Phase"])])
    model = Recorder(keep=dict)
    quiet_trainer(max_epochs=1).fit(model, data)
    assert {frozenset(batch) & {"source", "target", "weight"} for batch in data.train_dataloader()} == {
        frozenset({"source"})
    }


def test_validation_has_augmentations_of_its_own(plate):
    data = module(plate, val_augmentations=[Shift(["Phase"])])
    data.setup("fit")
    plain = module(plate, normalizations=None)
    plain.setup("fit")
    first, again, source = ([b["source"] for b in d.val_dataloader()] for d in (data, data, plain))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    offsets = [(ours - theirs).flatten(1) for ours, theirs in zip(first, source, strict=True)]
    assert all((offset.amin(1) >= 0.99).all() and (offset.amax(1) <= 1e6).all() for offset in offsets)
    with pytest.raises(InputError, match="val_augmentations"):
        module(plate, val_augmentations=[3])


def test_a_single_fov_is_predicted(plate):
    data = module(f"{plate}/A/1/2", target_channel=[])
    data.setup("predict")
    assert set(data.predict_dataset[list(range(8))]["index"].image) == {"/A/1/2/0"}
    assert len(data.predict_dataset) == 8
    with pytest.raises(InputError, match="1 FOVs to fit"):
        module(f"{plate}/A/1/2").setup("fit")


def test_prediction_leaves_transforms_of_the_target_out_and_begins_where_it_is_told(plate):
    data = module(plate, normalizations=[Normalize(CHANNELS), Normalize(["Nuclei"])])
    data.setup("predict")
    data.skip_predicted(5)
    batches = list(data.predict_dataloader())
    assert [len(batch["source"]) for batch in batches] == [4] * 6 + [3]
    assert batches[0]["index"].time[0] == 1


def test_fovs_are_taken_and_left_out_by_name(plate):
    data = module(plate, include_fov_names=["A/1"], exclude_fov_names=["A/1/1"])
    data.setup("fit")
    assert set(data.split.train + data.split.val) == {"A/1/0", "A/1/2"}
    with pytest.raises(InputError, match=r"(?s)exclude_fov_names.*'A/1/9'"):
        module(plate, exclude_fov_names=["A/1/9"]).setup("fit")


class Together(Shift):
    """Shift a whole batch; what it sees is a batch of windows."""

    def __call__(self, data):
        assert all(data[key].ndim == 5 for key in self.keys)
        return super().__call__(data)


def test_batches_are_augmented_on_the_device_in_training_and_validation_alone(plate):
    def record(run, **options):
        model = Recorder(keep=dict)
        getattr(quiet_trainer(max_epochs=1, limit_val_batches=1), run)(model, module(plate, **options))
        return model

    shifts = {"gpu_augmentations": [Together(["source"])], "val_gpu_augmentations": [Together(["target"])]}
    plain, shifted, again = record("fit"), record("fit", **shifts), record("fit", **shifts)
    offsets = []
    for one, other, same in zip(plain.seen["train"], shifted.seen["train"], again.seen["train"], strict=True):
        offset = other["source"] - one["source"]
        assert offset.min() > 0
        torch.testing.assert_close(offset, offset.mean().expand_as(offset), rtol=1e-6, atol=0.1)
        assert torch.equal(other["target"], one["target"])
        assert torch.equal(other["source"], same["source"])
        assert list(other) == list(one)
        offsets.append(float(offset.mean()))
    assert len(set(offsets)) == len(offsets) > 1
    assert torch.equal(shifted.seen["val"][-1]["source"], plain.seen["val"][-1]["source"])
    assert (shifted.seen["val"][-1]["target"] > plain.seen["val"][-1]["target"]).all()
    for run in ("test", "predict"):
        for one, other in zip(record(run).seen[run], record(run, **shifts).seen[run], strict=True):
            assert torch.equal(one["source"], other["source"])
    with pytest.raises(InputError, match=r"(?s)keys of Together.*'Phase'.*source, target"):
        module(plate, gpu_augmentations=[Together(["Phase"])])


@pytest.mark.parametrize("images", ["", "/A/1/[0-2]"])
def test_a_cached_plate_is_read_from_its_copy(plate, tmp_path, images):
    with pytest.raises(InputError, match="max_cache_gb"):
        module(f"{plate}{images}", caching=True, scratch_dir=tmp_path, max_cache_gb=1e-6).prepare_data()
    data, plain = module(f"{plate}{images}", caching=True, scratch_dir=tmp_path), module(f"{plate}{images}")
    data.prepare_data()
    for each in (data, plain):
        each.setup("fit")
    assert data.train_dataset.fovs[0].store.startswith(str(tmp_path))
    assert torch.equal(data.train_dataset[[3]]["source"], plain.train_dataset[[3]]["source"])
    assert data.split.train == plain.split.train


def test_kept_frames_give_the_same_windows_and_are_decoded_once(plate, tmp_path):
    def fitted(**options):
        data = module(plate, normalizations=[Normalize(CHANNELS)], augmentations=[Shift(["Phase"])], **options)
        data.setup("fit")
        return data

    plain, times = fitted(), []
    for _ in range(2):
        kept = fitted(mmap_preload=True, scratch_dir=tmp_path)
        for ours, theirs in ((kept.train_dataset, plain.train_dataset), (kept.val_dataset, plain.val_dataset)):
            everything = list(range(len(theirs)))
            for role in ("source", "target"):
                assert torch.equal(ours[everything][role], theirs[everything][role])
        times.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")})
    assert len(times[0]) == len(NAMES) * SHAPE[0]
    assert times[0] == times[1]
    gb = len(NAMES) * np.prod(SHAPE) * 4 / (1 << 30)
    with pytest.raises(InputError, match="max_cache_gb"):
        fitted(mmap_preload=True, scratch_dir=tmp_path, max_cache_gb=0.9 * gb)


def test_the_record_tells_settings_and_windows_apart(plate):
    def record(**options):
        data = module(plate, **options)
        data.setup("fit")
        return json.dumps(data.data_record(), sort_keys=True)

    same = record()
    assert same == record(num_workers=0, pin_memory=False)
    others = [record(z_window_size=2), record(seed=5), record(target_channel="Nuclei"), record(augmentations=[crops()])]
    assert len({same, *others}) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"z_window_size": 0}, "z_window_size"),
        ({"split_ratio": 1.0}, "split_ratio"),
        ({"yx_patch_size": 8}, "yx_patch_size"),
        ({"source_channel": []}, "source_channel"),
        ({"batch_size": 3, "augmentations": [crops()]}, r"(?s)batch_size\n.*3.*multiple of 2"),
        ({"batch_size": 4, "augmentations": [RandSpatialCropSamplesd(["Phase"], 4, 3)]}, "multiple of 3"),
        ({"augmentations": [RandAffined(["Phase"])] * 2}, "2 RandAffined"),
        ({"augmentations": [RandAffined(["Phase"], scale_range=[(0.3, -0.3), 0, 0])]}, "the smaller one first"),
        ({"normalizations": [Shift(["DAPI"])]}, "keys of Shift"),
    ],
)
def test_impossible_settings_are_refused(plate, options, message):
    with pytest.raises(InputError, match=message):
        module(plate, **options)


def test_data_that_do_not_fit_the_settings_are_refused(plate, bare_plate):
    with pytest.raises(InputError, match=r"(?s)yx_patch_size.*20 x 24 pixels"):
        module(plate, yx_patch_size=(64, 8)).setup("fit")
    with pytest.raises(ValueError, match=r"(?s)no fov_statistics of channel 'Phase'.*viscy preprocess"):
        module(bare_plate, normalizations=[Normalize(["Phase"])]).setup("fit")
    with pytest.raises(InputError, match=r"(?s)batch_size.*\(16, 16\), \(20, 20\)"):
        module(bare_plate).setup("predict")
    with pytest.raises(NotImplementedError, match="no stage 'tune'"):
        module(plate).setup("tune")
    module(bare_plate, batch_size=1).setup("predict")


def test_a_compose_of_the_config_is_not_shared_between_datasets(plate):
    shift = Shift(["Phase"])
    first, second = (SlidingWindowDataset(read_plate(plate), ROLES, 1, transform=Compose([shift])) for _ in range(2))
    expected = first[3]["source"]
    second[5]
    assert torch.equal(first[3]["source"], expected)
