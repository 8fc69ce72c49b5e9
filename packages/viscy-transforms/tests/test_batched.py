"""What holds for every batched random transform."""

from __future__ import annotations

import pickle

import pytest
import torch
from monai.transforms import Compose, MapTransform, RandomizableTransform

import viscy_transforms as vt

# Name of the dictionary form, arguments under which every transformed sample of the test batch differs from its input.
RANDOM = {
    "BatchedRandAffined": {"rotate_range": [1.0, 0.0, 0.0], "scale_range": [[1.0, 1.0], [0.8, 1.2], [0.8, 1.2]]},
    "BatchedRandFlipd": {"spatial_axes": [1]},
    "BatchedRandAdjustContrastd": {"gamma": (0.4, 0.8)},
    "BatchedRandScaleIntensityd": {"factors": (0.1, 0.5)},
    "BatchedRandGaussianSmoothd": {"sigma_x": (0.5, 1.0), "sigma_y": (0.5, 1.0), "sigma_z": 0.0},
    "BatchedRandGaussianNoised": {"std": 0.5},
    "BatchedRandHistogramShiftd": {"shift_range": (0.1, 0.5)},
    "BatchedRandSharpend": {},
    "BatchedRandLocalPixelShufflingd": {"shuffle_prob": 0.5},
    "BatchedRand3DElasticd": {"sigma_range": (1.0, 2.0), "magnitude_range": (3.0, 6.0)},
}
# Axes counted from the first spatial one, cubes that become squares, and a warp that needs a stack.
OTHERWISE_IN_2D = ("BatchedRandFlipd", "BatchedRandLocalPixelShufflingd", "BatchedRand3DElasticd")
FIELDS = ("BatchedRandGaussianNoised", "BatchedRand3DElasticd")  # torch draws other normal numbers in float64
EACH = pytest.mark.parametrize("name", RANDOM)


def make(name, keys="x", prob=1.0, **changes):
    return getattr(vt, name)(keys, prob=prob, **{**RANDOM[name], **changes})


def changed(before, after):
    return (before != after).flatten(1).any(1)


@EACH
def test_probability_zero_leaves_and_one_changes_every_sample(name, batch):
    assert torch.equal(make(name, prob=0.0)({"x": batch})["x"], batch)
    assert changed(batch, make(name)({"x": batch})["x"]).all()


@EACH
def test_all_keys_of_a_sample_get_the_same_draw(name, batch):
    out = make(name, keys=["x", "y"], prob=0.5)({"x": batch, "y": batch.clone()})
    assert torch.equal(out["x"], out["y"])


@EACH
def test_keys_may_differ_in_channels(name, batch):
    out = make(name, keys=["x", "y"])({"x": batch, "y": batch[:, :1]})
    assert out["y"].shape == (8, 1, 3, 12, 12)


@EACH
def test_samples_get_different_parameters(name, signed):
    x = signed((1, 1, 1, 8, 8)).repeat(8, 1, 1, 1, 1)
    out = make(name)({"x": x})["x"]
    if name != "BatchedRandFlipd":
        assert len(out.flatten(1).unique(dim=0)) == 8


@EACH
def test_a_sample_does_not_depend_on_its_neighbours(name, batch):
    transform = make(name, prob=0.7)
    other = torch.cat([batch[:1], 5 * batch[1:] + 3])
    first = transform.set_random_state(seed=4)({"x": batch})["x"]
    second = transform.set_random_state(seed=4)({"x": other})["x"]
    torch.testing.assert_close(first[0], second[0])


@EACH
def test_a_seed_given_to_compose_makes_it_reproducible(name, batch):
    pipeline = Compose([make(name, prob=0.5)])
    draws = [pipeline.set_random_state(seed=seed)({"x": batch})["x"] for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@EACH
def test_a_seeded_transform_leaves_the_global_generator_alone(name, batch):
    transform = make(name).set_random_state(seed=0)
    before = torch.get_rng_state()
    transform({"x": batch})
    assert torch.equal(torch.get_rng_state(), before)


@EACH
def test_without_a_seed_the_global_generator_is_used(name, batch):
    transform, outs = make(name, prob=0.5), []
    for _ in range(2):
        torch.manual_seed(11)
        outs.append(transform({"x": batch})["x"])
    assert torch.equal(*outs)


@EACH
def test_nothing_given_is_modified_and_other_entries_pass_through(name, batch):
    before, sample = batch.clone(), {"index": "first entry is no tensor", "x": batch, "norm_meta": None}
    out = make(name)(sample)
    assert torch.equal(batch, before)
    assert sample["x"] is batch
    assert out is not sample
    assert list(out) == list(sample)


@EACH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("prob", [0.5, 1.0])
def test_dtype_is_kept(name, dtype, prob, batch):
    transform = make(name, prob=prob)
    single = transform.set_random_state(seed=0)({"x": batch})["x"]
    out = transform.set_random_state(seed=0)({"x": batch.to(dtype)})["x"]
    assert out.dtype == dtype
    if dtype != torch.float64 or name not in FIELDS:
        torch.testing.assert_close(out.float(), single, rtol=0.1, atol=0.1)


@EACH
def test_strided_batches(name, batch):
    transform = make(name)
    strided = batch.transpose(3, 4)
    one = transform.set_random_state(seed=0)({"x": strided})["x"]
    torch.testing.assert_close(one, transform.set_random_state(seed=0)({"x": strided.contiguous()})["x"])


@pytest.mark.parametrize("name", [name for name in RANDOM if name not in OTHERWISE_IN_2D])
def test_a_single_slice_is_treated_like_a_2d_image(name, batch):
    transform = make(name)
    stack = transform.set_random_state(seed=0)({"x": batch[:, :, :1]})["x"]
    plane = transform.set_random_state(seed=0)({"x": batch[:, :, 0]})["x"]
    torch.testing.assert_close(stack[:, :, 0], plane)


@EACH
def test_types_and_pickling(name, batch):
    transform = make(name, prob=0.5).set_random_state(seed=0)
    assert isinstance(transform, MapTransform)
    assert isinstance(transform, RandomizableTransform)
    copy = pickle.loads(pickle.dumps(transform))
    assert torch.equal(transform({"x": batch})["x"], copy({"x": batch})["x"])


@EACH
def test_missing_keys(name, batch):
    with pytest.raises(KeyError, match="absent"):
        make(name, keys=["x", "absent"])({"x": batch})
    out = make(name, keys=["absent", "x"], allow_missing_keys=True)({"x": batch})
    assert changed(batch, out["x"]).all()


@EACH
def test_wrong_probabilities_and_unequal_batches_are_refused(name, batch):
    with pytest.raises(ValueError, match=r"prob of .* is 1.5"):
        make(name, prob=1.5)
    with pytest.raises(ValueError, match="drawn for a batch of 8, found 4"):
        make(name, keys=["x", "y"])({"x": batch, "y": batch[:4]})


def test_integers_become_float_where_values_are_computed():
    x = torch.arange(16).reshape(2, 1, 1, 2, 4)
    assert vt.BatchedRandScaleIntensity(factors=(0.5, 0.5), prob=1.0)(x).dtype == torch.float32
    assert vt.BatchedRandFlip(0, prob=1.0)(x).dtype == torch.int64


def test_a_draw_can_be_used_again(batch):
    transform = vt.BatchedRandScaleIntensity(factors=0.5, prob=1.0)
    first = transform(batch)
    assert torch.equal(transform(batch, randomize=False), first)


def test_exports():
    assert all(callable(getattr(vt, name)) for name in vt.__all__ if name != "__version__")
    with pytest.raises(AttributeError, match="attribute Nothing"):
        vt.Nothing  # noqa: B018
