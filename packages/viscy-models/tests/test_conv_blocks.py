"""Convolutional blocks: keys, numbers, what each option does and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from viscy_models import _components

GOLDEN = Path(__file__).parent / "golden" / "unet"
ConvBlock2D, ConvBlock3D = _components.ConvBlock2D, _components.ConvBlock3D


@pytest.mark.parametrize("case", sorted(path.stem for path in GOLDEN.glob("ConvBlock*.json")))
def test_keys_shapes_and_outputs_are_those_of_published_checkpoints(case, fill, signed):
    golden = json.loads((GOLDEN / f"{case}.json").read_text())
    block = getattr(_components, golden["model"])(**golden["kwargs"])
    state = [[key, [list(v.shape), str(v.dtype).removeprefix("torch.")]] for key, v in block.state_dict().items()]
    assert state == [[key, entry] for key, entry in golden["state_dict"].items()]
    with torch.no_grad():
        output = fill(block)(signed(golden["input"], golden["name"])).numpy()
    expected = np.load(GOLDEN / f"{case}.npz")["output"]
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from(["first", "linear", "last"]),
    st.permutations("can"),
    st.sampled_from([2, 3]),
)
def test_any_widths_and_order_keep_the_image_size(before, after, repeats, steps, order, dims):
    make = ConvBlock2D if dims == 2 else ConvBlock3D
    block = make(before, after, num_repeats=repeats, filter_steps=steps, layer_order="".join(order)).eval()
    assert block(torch.rand(1, before, *[5, 6, 7][:dims])).shape == (1, after, *[5, 6, 7][:dims])
    convolutions = [m for name, m in block.named_children() if name.startswith("Conv")]
    changes = [m.in_channels != m.out_channels for m in convolutions]
    if before != after and steps != "linear":
        assert changes == [i == (0 if steps == "first" else repeats - 1) for i in range(repeats)]


@pytest.mark.parametrize("order", ["can", "cna", "nac", "acn"])
def test_layers_run_in_the_order_given(order):
    block = ConvBlock2D(2, 2, num_repeats=1, layer_order=order, residual=False).eval()
    block.batch_norm_0.running_mean.fill_(0.3)
    x = torch.randn(2, 2, 6, 6)
    expected = x
    for letter in order:
        layer = {"c": block.Conv2d_0, "a": nn.ReLU(), "n": block.batch_norm_0}[letter]
        expected = layer(expected)
    torch.testing.assert_close(block(x), expected)


def test_residual_sum_puts_zeros_in_front_of_the_old_channels():
    x = torch.rand(1, 2, 4, 4)
    options = {"num_repeats": 1, "norm": "none"}
    with_sum, without = ConvBlock2D(2, 5, **options), ConvBlock2D(2, 5, residual=False, **options)
    without.load_state_dict(with_sum.state_dict())
    added = with_sum(x) - without(x)
    assert (added[:, :3] == 0).all()
    torch.testing.assert_close(added[:, 3:], x)


@pytest.mark.parametrize("make", [ConvBlock2D, ConvBlock3D])
def test_dropout_rates_below_one_drop_that_share_of_channels_in_training_only(make):
    torch.manual_seed(0)
    block = make(1, 400, dropout=0.3, num_repeats=1, norm="none", activation="linear", residual=False)
    x = torch.rand(1, 1, *[3] * block.spatial_dims)
    dropped = (block(x).flatten(2) == 0).all(2).float().mean()
    assert 0.2 < dropped < 0.4
    plain = make(1, 400, num_repeats=1, norm="none", activation="linear", residual=False)
    plain.load_state_dict(block.state_dict())
    assert torch.equal(block.eval()(x), plain(x))


def test_kernel_sizes_may_be_numbers_or_lists():
    for kernel in (5, [5, 5], (5, 5)):
        assert ConvBlock2D(1, 2, kernel_size=kernel).Conv2d_0.kernel_size == (5, 5)
    for kernel in (5, [5, 5, 5]):
        assert ConvBlock3D(1, 2, kernel_size=kernel).Conv3d_0.kernel_size == (5, 5, 5)
    assert ConvBlock3D(1, 2, kernel_size=[1, 3, 5])(torch.rand(2, 1, 2, 5, 6)).shape == (2, 2, 2, 5, 6)


@pytest.mark.parametrize(
    ("padding", "size"), [(None, (7, 8, 9)), ("same", (7, 8, 9)), ("valid_stack", (3, 8, 9)), ("valid", (3, 4, 5))]
)
def test_padding_takes_effect_and_the_sum_takes_the_centre(padding, size):
    block = ConvBlock3D(2, 2, padding=padding, num_repeats=2)
    for convolution in (block.Conv3d_0, block.Conv3d_1):
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    x = torch.rand(2, 2, 7, 8, 9)
    margins = [(whole - part) // 2 for whole, part in zip((7, 8, 9), size, strict=True)]
    centre = x[(..., *(slice(m, m + length) for m, length in zip(margins, size, strict=True)))]
    torch.testing.assert_close(block(x), centre)


def test_valid_padding_is_the_inner_part_of_same_padding():
    x = torch.rand(1, 2, 5, 6, 6)
    options = {"num_repeats": 1, "norm": "none"}
    same, valid = ConvBlock3D(2, 3, **options), ConvBlock3D(2, 3, padding="valid_stack", **options)
    valid.load_state_dict(same.state_dict())
    torch.testing.assert_close(valid(x), same(x)[:, :, 1:-1])


def test_instance_norm_has_no_parameters():
    block = ConvBlock2D(1, 4, norm="instance", residual=False, layer_order="can", num_repeats=1)
    assert not [key for key in block.state_dict() if "norm" in key]
    output = block(torch.rand(2, 1, 8, 8))
    torch.testing.assert_close(output.mean((2, 3)), torch.zeros(2, 4), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel_size": 4}, "kernel_size is 4, expected an odd number"),
        ({"kernel_size": (3, 3, 3, 3)}, "kernel_size is .*, expected an odd number or"),
        ({"kernel_size": 3.0}, "kernel_size is 3.0"),
        ({"kernel_size": "3"}, "kernel_size is '3'"),
        ({"transpose": True}, "transpose=True is not available"),
        ({"norm": "bach"}, r"norm is 'bach' \(did you mean 'batch'\?\), expected one of batch, instance, none"),
        ({"activation": "gelu"}, "activation is 'gelu'.*expected one of relu, leakyrelu, elu, selu, linear"),
        ({"filter_steps": "middle"}, "filter_steps is 'middle', expected one of first, linear, last"),
        ({"layer_order": "cc"}, "layer_order is 'cc', expected the letters c, a and n"),
        ({"dropout": 1.0}, "dropout is 1.0, expected a rate from 0 to below 1"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"dropout": True}, "dropout is True"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"num_repeats": 0}, "num_repeats is 0, expected at least 1"),
        ({"in_filters": 0}, "in_filters is 0"),
        ({"out_filters": -1}, "out_filters is -1"),
    ],
)
@pytest.mark.parametrize("make", [ConvBlock2D, ConvBlock3D])
def test_wrong_arguments_fail_at_construction(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**{"in_filters": 2, "out_filters": 3, **changes})


def test_an_unknown_padding_is_refused():
    with pytest.raises(ValueError, match=r"padding is 'valid_stak' \(did you mean 'valid_stack'"):
        ConvBlock3D(1, 2, padding="valid_stak")


def test_an_input_of_another_shape_is_explained():
    with pytest.raises(ValueError, match=r"found an input of shape \(1, 3, 8, 8\), expected \(B, 2, Y, X\)"):
        ConvBlock2D(2, 3)(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"expected \(B, 2, Z, Y, X\)"):
        ConvBlock3D(2, 3)(torch.rand(1, 2, 8, 8))
