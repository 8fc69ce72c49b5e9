"""Stems, decoder stages, heads and masked blocks: numbers, initialisation, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from viscy_models import _components as components
from viscy_models._components import (
    PixelToVoxelHead,
    PixelToVoxelShuffleHead,
    UNeXt2Decoder,
    UNeXt2Stem,
    UNeXt2UpStage,
    UnsqueezeHead,
    icnr_init,
)
from viscy_models.unet import fcmae

GOLDEN = Path(__file__).parent / "golden" / "blocks"
CASES = {case["case"]: case for case in json.loads((GOLDEN / "components.json").read_text())}
STORED = dict(np.load(GOLDEN / "components.npz"))


def up_stage(**changes):
    arguments = {"in_channels": 16, "skip_channels": 8, "out_channels": 12, "scale_factor": 2, "mode": "pixelshuffle"}
    arguments |= {"conv_blocks": 1, "norm_name": "instance", "upsample_pre_conv": None}
    return UNeXt2UpStage(**{**arguments, **changes})


@pytest.mark.parametrize("name", CASES)
def test_blocks_have_the_recorded_keys_and_outputs(name, fill, signed):
    case = CASES[name]
    module = getattr(components, case["cls"], None) or getattr(fcmae, case["cls"])
    block = module(**case["kwargs"])
    keys = [[key, [list(v.shape), str(v.dtype).removeprefix("torch.")]] for key, v in block.state_dict().items()]
    assert keys == [[key, entry] for key, entry in case["state_dict"].items()]
    inputs = [signed(case["input"], f"comp_{name}")]
    if "skip" in case:
        inputs.append(signed(case["skip"], f"comp_{name}_skip"))
    outputs = {"out": inputs}
    if "unmasked" in case:
        outputs = {"out_without_mask": inputs, "out": [*inputs, torch.from_numpy(STORED[f"{name}/unmasked"])]}
    fill(block)
    for output, arguments in outputs.items():
        expected = STORED[f"{name}/{output}"]
        with torch.no_grad():
            found = block(*arguments).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_stem_folds_depth_inside_channels():
    stem = UNeXt2Stem(2, 12, (5, 4, 4), 10)
    x = torch.rand(1, 2, 10, 8, 8)
    volume = nn.functional.conv3d(x, stem.conv.weight, stem.conv.bias, stride=(5, 4, 4))
    for channel in range(6):
        for depth in range(2):
            torch.testing.assert_close(stem(x)[0, channel * 2 + depth], volume[0, channel, depth])


@pytest.mark.parametrize("factor", [2, 3])
def test_icnr_makes_a_pixel_shuffle_begin_as_nearest_neighbours(factor):
    conv = nn.Conv2d(3, 2 * factor**2, 3, padding=1, bias=False)
    icnr_init(conv, factor, 2)
    shuffled = nn.functional.pixel_shuffle(conv(torch.rand(1, 3, 5, 5)), factor)
    coarse = shuffled[..., ::factor, ::factor]
    expected = coarse.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    torch.testing.assert_close(shuffled, expected)
    assert shuffled[:, 0].ne(shuffled[:, 1]).all()


def test_icnr_takes_another_initialisation_and_refuses_widths_that_do_not_fit():
    conv = nn.Conv3d(1, 8, 1)
    icnr_init(conv, 2, 3, init=nn.init.ones_)
    assert (conv.weight == 1).all()
    with pytest.raises(ValueError, match=r"a layer with 6 outputs, expected a multiple of 4"):
        icnr_init(nn.Conv2d(1, 6, 1), 2, 2)


@pytest.mark.parametrize("mode", ["pixelshuffle", "deconv"])
@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_up_stages_enlarge_to_the_skip_connection(mode, factor, norm):
    stage = up_stage(mode=mode, scale_factor=factor, norm_name=norm, conv_blocks=2)
    out = stage(torch.rand(2, 16, 4, 3), torch.rand(2, 8, 4 * factor, 3 * factor))
    assert out.shape == (2, 12, 4 * factor, 3 * factor)


def test_a_convolution_before_the_shuffle_makes_room_for_it():
    shapes = {key: tuple(v.shape) for key, v in up_stage(upsample_pre_conv="default").state_dict().items()}
    assert shapes["upsample.pixelshuffle.conv_block.weight"] == (16, 16, 3, 3)
    assert shapes["upsample.pixelshuffle.conv_block.bias"] == (16,)


def test_a_deconvolution_is_the_transposed_convolution_of_torch():
    stage = up_stage(mode="deconv", conv_blocks=1)
    stage.conv = nn.Identity()
    x, skip = torch.rand(1, 16, 3, 3), torch.rand(1, 8, 6, 6)
    expected = nn.functional.conv_transpose2d(x, stage.upsample.conv.weight, stride=2)
    torch.testing.assert_close(stage(x, skip), torch.cat([expected, skip], 1))


def test_decoder_leaves_its_list_of_features_alone_and_counts_them():
    decoder = UNeXt2Decoder([16, 8, 12], "instance", "pixelshuffle", 1, [2, 2, 4], None)
    features = [torch.rand(1, width, size, size) for width, size in ((16, 2), (8, 4), (4, 8))]
    assert decoder(features).shape == (1, 12, 8, 8)
    assert len(features) == 3
    with pytest.raises(ValueError, match="found 2 feature maps, expected 3"):
        decoder(features[:2])


def test_heads_put_channels_into_depth():
    x = torch.arange(24.0).reshape(1, 24, 1, 1)
    out = PixelToVoxelShuffleHead(24, 2, 3, xy_scaling=2)(x)
    # channel = ((out channel * depth) + slice) * 4 + position
    assert torch.equal(out.flatten(), torch.arange(24.0))
    assert out.shape == (1, 2, 3, 2, 2)
    assert UnsqueezeHead()(torch.rand(2, 3, 4, 5)).shape == (2, 3, 1, 4, 5)
    assert PixelToVoxelHead(40, 3, 3, 2, pool=True)(torch.rand(2, 40, 2, 3)).shape == (2, 3, 3, 8, 12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: up_stage(mode="pixelshuffel"), r"mode is 'pixelshuffel' \(did you mean 'pixelshuffle'"),
        (lambda: up_stage(norm_name="layer"), "norm_name is 'layer'.*expected one of batch, instance"),
        (lambda: up_stage(in_channels=18), "found 18 channels to upsample.*multiple of 4"),
        (lambda: up_stage(conv_blocks=0), "conv_blocks is 0"),
        (lambda: up_stage(mode="deconv", upsample_pre_conv="default"), "is for pixelshuffle, found it with deconv"),
        (lambda: up_stage(upsample_pre_conv="defautl"), "did you mean 'default'"),
        (lambda: UNeXt2Decoder([16, 8, 4], "instance", "deconv", 1, [2], None), "3 widths and 1 strides"),
        (lambda: PixelToVoxelHead(40, 1, 5, 2, False), r"in_channels of the head is 40, expected a multiple of 28"),
        (lambda: PixelToVoxelHead(0, 1, 5, 2, False), "in_channels of the head is 0"),
        (lambda: PixelToVoxelShuffleHead(20, 1, 5, 4), "in_channels of the head is 20, expected 80"),
        (lambda: UNeXt2Stem(1, 12, (5, 4, 4), 7), "in_stack_depth 7 is not a multiple of .* 5; 5 and 10 are"),
        (lambda: UNeXt2Stem(1, 12, (5, 4, 4), 25), "leaves 5 depth slices.*12 channels.*fit are 5, 10, 15, 20, 30"),
        (lambda: UNeXt2Stem(1, 12, (5, 4), 5), "stem_kernel_size is .*three positive numbers"),
    ],
)
def test_what_does_not_fit_is_refused_at_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()
