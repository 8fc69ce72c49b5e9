from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from monai.transforms import CenterSpatialCrop

from viscy_data.channels import center_crop, gather_channels, scatter_channels, transform_channelwise

NAMES = ["Phase", "GFP", "RFP"]


@pytest.fixture
def patch():
    return torch.arange(2 * 3 * 1 * 4 * 5, dtype=torch.float32).reshape(2, 3, 1, 4, 5)


def test_channels_are_views_under_their_names(patch):
    channels = scatter_channels(NAMES, patch)
    assert list(channels) == NAMES
    assert {value.shape for value in channels.values()} == {(2, 1, 1, 4, 5)}
    channels["GFP"].zero_()
    assert (patch[:, 1] == 0).all()
    assert (patch[:, 2] != 0).all()


def test_gathering_undoes_scattering_and_sorts_by_name(patch):
    channels = scatter_channels(NAMES, patch)
    torch.testing.assert_close(gather_channels(channels, NAMES), patch)
    torch.testing.assert_close(gather_channels(channels, ["RFP", "Phase"]), patch[:, [2, 0]])


def test_transform_sees_channels_and_statistics_by_name(patch):
    seen = []

    def transform(data):
        seen.append(dict(data))
        return {"note": "other keys do no harm", **dict(reversed(data.items())), "GFP": data["GFP"] + 1000}

    statistics = {"Phase": {"fov_statistics": {"mean": torch.zeros(2)}}}
    out = transform_channelwise(transform, NAMES, patch, statistics)
    expected = patch.clone()
    expected[:, 1] += 1000
    torch.testing.assert_close(out, expected)
    assert list(seen[0]) == [*NAMES, "norm_meta"]
    assert seen[0]["norm_meta"] is statistics


@pytest.mark.parametrize("statistics", [None, {}])
def test_transform_sees_no_statistics_when_there_are_none(patch, statistics):
    out = transform_channelwise(lambda data: {name: data[name] for name in data}, NAMES, patch, statistics)
    torch.testing.assert_close(out, patch)


@pytest.mark.parametrize("names", [["Phase", "GFP"], ["Phase", "GFP", "GFP"], [*NAMES, "BFP"]])
def test_names_must_be_one_per_channel(patch, names):
    with pytest.raises(ValueError, match="3 channels need as many unique names"):
        scatter_channels(names, patch)


def test_channel_that_a_transform_lost_is_named(patch):
    with pytest.raises(KeyError, match="'GFP'"):
        transform_channelwise(lambda data: {"Phase": data["Phase"], "RFP": data["RFP"]}, NAMES, patch, None)


@hypothesis_settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=3))
def test_centre_crop_is_that_of_monai(sizes):
    size = [s for s, _ in sizes]
    image = torch.from_numpy(np.random.default_rng(0).random([2, *(s + more for s, more in sizes)]))
    cropped = center_crop(image, size)
    assert list(cropped.shape[1:]) == size
    torch.testing.assert_close(cropped, CenterSpatialCrop(size)(image).as_tensor())


@pytest.mark.parametrize("size", [(1, 5, 5), (1, 4, 6), (0, 4, 4), (1, 1, 1, 1, 1, 1)])
def test_crop_larger_than_the_image_is_refused(patch, size):
    with pytest.raises(ValueError, match="does not fit"):
        center_crop(patch, size)
