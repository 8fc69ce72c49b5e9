"""MONAI's transforms under the names of old configs, on samples and on batches."""

from __future__ import annotations

import monai.transforms
import pytest
import torch
from monai.transforms import Compose

import viscy_transforms as vt

RANDOM = {
    "RandAffined": {
        "rotate_range": [3.14, 0.0, 0.0],
        "shear_range": [0.0, 0.01, 0.01],
        "scale_range": [0, 0.2, 0.2],
        "padding_mode": "zeros",
    },
    "RandAdjustContrastd": {"gamma": (0.4, 0.8)},
    "RandScaleIntensityd": {"factors": 0.5},
    "RandGaussianSmoothd": {"sigma_x": (0.25, 0.75), "sigma_y": (0.25, 0.75), "sigma_z": (0.0, 0.0)},
    "RandGaussianNoised": {"mean": 0.0, "std": 0.2},
    "RandFlipd": {"spatial_axis": [1, 2]},
}
EACH = pytest.mark.parametrize("name", RANDOM)


def make(name, keys="x", prob=1.0):
    return getattr(vt, name)(keys=keys, prob=prob, **RANDOM[name])


@EACH
def test_batches_are_transformed_sample_by_sample(name, batch):
    transform = make(name)
    found = transform.set_random_state(seed=5)({"x": batch})["x"]
    transform.set_random_state(seed=5)
    one_by_one = [transform({"x": sample})["x"] for sample in batch]
    assert type(found) is torch.Tensor
    for sample, expected in zip(found, one_by_one, strict=True):
        assert torch.equal(sample, torch.as_tensor(expected))


@EACH
def test_samples_of_a_batch_are_chosen_independently(name, signed):
    x = signed((40, 1, 3, 6, 6))
    out = make(name, prob=0.5).set_random_state(seed=0)({"x": x})["x"]
    assert 8 < (out != x).flatten(1).any(1).sum() < 32


@EACH
def test_all_keys_of_a_sample_get_the_same_draw(name, batch):
    sample = {"index": "no tensor", "x": batch, "y": batch.clone()}
    out = make(name, keys=["x", "y"], prob=0.5)(sample)
    assert sample["x"] is batch
    assert out["index"] == "no tensor"
    assert torch.equal(out["x"], out["y"])


@EACH
def test_it_is_still_monais_transform_and_seeded_by_compose(name, batch):
    transform = make(name, prob=0.5)
    assert isinstance(transform, getattr(monai.transforms, name))
    pipeline = Compose([transform])
    outs = [pipeline.set_random_state(seed=seed)({"x": batch})["x"] for seed in (1, 1)]
    assert torch.equal(*outs)


def test_half_precision_batches_stay_half(batch):
    assert make("RandScaleIntensityd")({"x": batch.half()})["x"].dtype == torch.float16


def test_crops_of_batches(batch):
    assert vt.RandSpatialCropd("x", (2, 4, 4))({"x": batch})["x"].shape == (8, 2, 2, 4, 4)
    centre = vt.CenterSpatialCropd("x", (3, 4, 4))({"x": batch})["x"]
    assert torch.equal(centre, batch[..., 4:8, 4:8])


@pytest.mark.parametrize("shape", [(2, 3, 12, 12), (8, 2, 3, 12, 12)])
def test_random_crops_larger_than_the_image_are_refused(shape, signed):
    sample = {"x": signed(shape), "w": torch.ones(1, *shape[-3:])}
    for random_center in (True, False):
        crop = vt.RandSpatialCropd("x", (3, 16, -1), random_center=random_center)
        with pytest.raises(ValueError, match=r"roi_size \(3, 16, -1\) is larger than the image \(3, 12, 12\)"):
            crop(sample)
    if len(shape) == 4:
        with pytest.raises(ValueError, match=r"spatial_size \(4, 8, 8\) is larger than the image \(3, 12, 12\)"):
            vt.RandWeightedCropd("x", "w", (4, 8, 8))(sample)


def test_a_centre_crop_keeps_axes_that_are_shorter(batch):
    """As in MONAI, whose results published configurations rely on."""
    assert vt.CenterSpatialCropd("x", (9, 4, -1))({"x": batch})["x"].shape == (8, 2, 3, 4, 12)


def test_unequal_batches_are_refused(batch):
    with pytest.raises(ValueError, match="batches of one size"):
        make("RandFlipd", keys=["x", "y"])({"x": batch, "y": batch[:3]})


def test_weighted_crops_prefer_heavy_places():
    weight = torch.zeros(1, 4, 12, 12)
    weight[..., 2, 8, 3] = 1
    image = torch.arange(4.0 * 144).reshape(1, 4, 12, 12)
    crops = vt.RandWeightedCropd(["x"], "w", (1, 1, 1), num_samples=3)({"x": image, "w": weight})
    assert len(crops) == 3
    assert all(float(crop["x"].flatten()[0]) == image[0, 2, 8, 3] for crop in crops)
    assert isinstance(vt.RandWeightedCropd("x", "w", (1, 1, 1)), monai.transforms.MultiSampleTrait)
