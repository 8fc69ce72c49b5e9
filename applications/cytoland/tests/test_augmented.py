"""Predictions of turned and of padded images, and of whole stacks, against slow loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cytoland import AugmentedPredictionVSUNet, VSUNet, rotation_tta_transforms
from cytoland.engine.augmented import predict_padded
from viscy_data.errors import InputError


class Directed(nn.Module):
    """A network whose answer depends on the direction and, where asked for, on the slice of the window."""

    out_stack_depth = 3

    def __init__(self, num_blocks=0, channels=1):
        super().__init__()
        self.num_blocks, self.channels = num_blocks, channels

    def forward(self, x):
        assert all(size % 2**self.num_blocks == 0 for size in x.shape[-2:])
        made = x + 0.5 * x.roll(1, dims=-1) + torch.arange(x.shape[2]).view(-1, 1, 1)
        return made.repeat(1, self.channels, 1, 1, 1)


def turned_back(network, image):
    """Predict quarter turns with numpy, one after the other."""
    found = []
    for k in range(4):
        turned = torch.from_numpy(np.rot90(image.numpy(), k, axes=(-2, -1)).copy())
        found.append(np.rot90(network(turned).numpy(), -k, axes=(-2, -1)))
    return found


@pytest.fixture
def image():
    return torch.randn(2, 1, 3, 6, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("reduction", "combine"), [("mean", np.mean), ("median", np.median), ("product", np.prod)])
def test_quarter_turns_are_turned_back_and_combined(image, reduction, combine):
    expected = combine(turned_back(Directed(), image), axis=0)
    module = VSUNet("2D", {"num_blocks": 1, "num_filters": [2, 4]}, test_time_augmentations=True, tta_type=reduction)
    module.model = Directed()
    np.testing.assert_allclose(module.perform_test_time_augmentations(image), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(module.predict_step({"source": image}, 0), expected, rtol=1e-5, atol=1e-6)
    if reduction != "product":
        augmented = AugmentedPredictionVSUNet.with_rotation_tta(Directed(), reduction=reduction)
        np.testing.assert_allclose(augmented.predict_step({"source": image}, 0), expected, rtol=1e-5, atol=1e-6)


def test_without_transforms_the_network_alone_predicts(image):
    torch.testing.assert_close(AugmentedPredictionVSUNet(Directed())(image), Directed()(image))


@pytest.mark.parametrize("n", [0, 5, 1.5])
def test_other_numbers_of_turns_are_refused(n):
    with pytest.raises(InputError, match="1, 2, 3 or 4 quarter turns"):
        rotation_tta_transforms(n)


def test_transforms_without_inverses_are_refused():
    with pytest.raises(InputError, match="inverse_transforms"):
        AugmentedPredictionVSUNet(Directed(), rotation_tta_transforms(4)[0], rotation_tta_transforms(2)[1])
    with pytest.raises(InputError, match="'mean' or 'median'"):
        AugmentedPredictionVSUNet(Directed(), reduction="mode")


@given(height=st.integers(1, 20), width=st.integers(1, 20), blocks=st.integers(0, 3))
@settings(deadline=None, max_examples=30)
def test_images_of_any_size_come_back_in_their_place(height, width, blocks):
    """A network that looks at single pixels predicts the same, padded or not."""

    class Pixels(nn.Module):
        num_blocks = blocks

        def forward(self, x):
            assert all(size % 2**blocks == 0 for size in x.shape[-2:])
            return 2 * x + 1

    image = torch.arange(2.0 * height * width).reshape(1, 1, 2, height, width)
    torch.testing.assert_close(predict_padded(Pixels(), image), 2 * image + 1)


def test_what_is_padded_mirrors_the_image():
    class Rows(nn.Module):
        num_blocks = 3

        def forward(self, x):
            self.seen = x
            return x

    network, image = Rows(), torch.arange(6.0).reshape(1, 1, 1, 6, 1).expand(1, 1, 1, 6, 8)
    predict_padded(network, image)
    assert network.seen[0, 0, 0, :, 0].tolist() == [1, 0, 1, 2, 3, 4, 5, 4]


@pytest.mark.parametrize(("step", "first"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3, 4])])
def test_slices_are_the_mean_of_the_windows_that_have_them(step, first):
    x = torch.randn(1, 1, 7, 4, 4, generator=torch.Generator().manual_seed(0))
    found = AugmentedPredictionVSUNet(Directed(channels=2)).predict_sliding_windows(x, step=step)
    one = Directed()
    for z in range(7):
        values = [one(x[:, :, f : f + 3])[0, 0, z - f] for f in first if f <= z < f + 3]
        for channel in range(2):
            torch.testing.assert_close(found[0, channel, z], torch.stack(values).mean(0))


def test_stacks_that_do_not_fit_are_refused():
    augmented = AugmentedPredictionVSUNet(Directed())
    with pytest.raises(InputError, match="2 slices"):
        augmented.predict_sliding_windows(torch.zeros(1, 1, 2, 4, 4), 1)
    with pytest.raises(InputError, match="1 channels of 3 slices"):
        augmented.predict_sliding_windows(torch.zeros(1, 1, 5, 4, 4), 2)
    for step in (0, 4):
        with pytest.raises(InputError, match="1 to 3, so that no slice is missed"):
            augmented.predict_sliding_windows(torch.zeros(1, 1, 5, 4, 4), 1, step=step)
