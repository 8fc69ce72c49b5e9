"""Masked autoencoder: masks, what hidden pixels may not influence, keys, numbers and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from viscy_models import FullyConvolutionalMAE
from viscy_models.unet.fcmae import (
    MaskedAdaptiveProjection,
    MaskedConvNeXtV2Block,
    MaskedConvNeXtV2Stage,
    MaskedMultiscaleEncoder,
    generate_mask,
    masked_patchify,
    masked_unpatchify,
    upsample_mask,
)

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in (GOLDEN / "fcmae").glob("*.json"))


@pytest.fixture
def masks():
    with np.load(GOLDEN / "blocks" / "components.npz") as stored:
        prefix = "mask_fns/"
        return {key.removeprefix(prefix): torch.from_numpy(stored[key]) for key in stored if key.startswith(prefix)}


def small(**changes):
    return FullyConvolutionalMAE(
        **{"in_channels": 1, "out_channels": 1, "encoder_blocks": (1, 1), "dims": (8, 16), **changes}
    )


def active(model):
    """Give the response normalisation weights, which begin at zero and would hide what it sees."""
    for name, value in model.named_parameters():
        if "grn" in name:
            nn.init.normal_(value)
    return model


@pytest.mark.parametrize("case", CASES)
def test_keys_shapes_and_outputs_are_those_of_published_checkpoints(case, recorded):
    golden = recorded(f"fcmae/{case}")
    golden.check_keys(FullyConvolutionalMAE)
    model, x = golden.build(FullyConvolutionalMAE)
    with torch.no_grad():
        if not model.pretraining:
            golden.compare(output=model(x))
            return
        output, nothing = model(x)
        torch.manual_seed(1234)
        masked, mask = model(x, mask_ratio=0.5)
    assert nothing is None
    assert mask.dtype == torch.bool
    run = "seed1234_ratio0.5"
    golden.compare(output=output, **{f"masked_output_{run}": masked, f"mask_{run}": mask})


def test_mask_functions_give_the_recorded_numbers(masks, signed):
    x, unmasked = signed((2, 3, 4, 8), "mask_x"), masks["unmasked"]
    assert torch.equal(x, masks["x"])
    assert torch.equal(masked_patchify(x, unmasked), masks["patchify"])
    assert torch.equal(masked_patchify(x), masks["patchify_none"])
    assert torch.equal(masked_unpatchify(masks["patchify"], x.shape, unmasked), masks["unpatchify"])
    assert torch.equal(upsample_mask(masks["upsample_in"], x.shape), masks["upsample_out_4x8"])
    torch.manual_seed(11)
    drawn = generate_mask((2, 1, 64, 48), stride=16, mask_ratio=0.6, device="cpu")
    assert torch.equal(drawn, masks["generate_seed11_64x48_s16_r0.6"])


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 4),
    ratio=st.floats(0, 0.99),
    channels=st.integers(1, 3),
)
def test_every_sample_hides_the_same_number_and_tokens_return_to_their_place(batch, size, stride, ratio, channels):
    shape = (batch, channels, size[0] * stride, size[1] * stride)
    mask = generate_mask(torch.Size(shape), stride, ratio, "cpu")
    assert mask.flatten(1).sum(1).tolist() == [int(size[0] * size[1] * ratio)] * batch
    fine = upsample_mask(mask, torch.Size(shape))
    assert torch.equal(fine[..., ::stride, ::stride], mask)
    assert fine.sum() == mask.sum() * stride**2
    x = torch.rand(shape)
    tokens = masked_patchify(x, ~fine)
    for sample in range(batch):
        assert torch.equal(tokens[sample], x[sample][:, ~fine[sample, 0]].T)
    assert torch.equal(masked_unpatchify(tokens, x.shape, ~fine), x * ~fine)


def test_masks_that_do_not_fit_are_explained():
    with pytest.raises(ValueError, match=r"target of 6 x 8 \(Y, X\), expected multiples of the mask's 4 x 4"):
        upsample_mask(torch.ones(1, 1, 4, 4, dtype=torch.bool), torch.Size((1, 1, 6, 8)))
    unequal = torch.tensor([[True, False], [True, True]]).reshape(2, 1, 1, 2)
    with pytest.raises(ValueError, match="found from 1 to 2 visible pixels per sample, expected the same number"):
        masked_patchify(torch.rand(2, 3, 1, 2), unequal)


def test_a_masked_block_is_the_dense_one_computed_on_visible_tokens():
    """The same in a loop: zero what is hidden, convolve, and normalise each sample over what is visible."""
    block = active(MaskedConvNeXtV2Block(4))
    x, unmasked = torch.randn(2, 4, 6, 6), ~generate_mask((2, 4, 6, 6), 1, 0.4, "cpu")
    before = x.clone()
    out = block(x, unmasked)
    assert torch.equal(x, before)
    for sample in range(2):
        visible = unmasked[sample, 0]
        masked = x[sample] * visible
        convolved = nn.functional.conv2d(masked[None], block.dwconv.weight, padding=3, groups=4)[0]
        tokens = block.mlp.act(block.mlp.fc1(block.layernorm(convolved[:, visible].T)))
        norm = tokens.square().sum(0).sqrt()
        tokens = tokens + block.mlp.grn.bias + block.mlp.grn.weight * tokens * norm / (norm.mean() + 1e-6)
        expected = masked.clone()
        expected[:, visible] += block.mlp.fc2(tokens).T
        torch.testing.assert_close(out[sample], expected)


@pytest.mark.parametrize("options", [{"out_channels": 8}, {"stride": 2}, {"out_channels": 8, "stride": 2}])
def test_blocks_that_change_size_hide_it_too(options):
    block = MaskedConvNeXtV2Block(4, **options)
    size = 8 // options.get("stride", 1)
    unmasked = ~generate_mask((2, 4, size, size), 1, 0.5, "cpu")
    out = block(torch.rand(2, 4, 8, 8), unmasked)
    assert out.shape == (2, options.get("out_channels", 4), size, size)
    assert (out * ~unmasked == 0).all()
    assert (out * unmasked != 0).any()


@pytest.mark.parametrize("depth", [1, 5])
def test_features_do_not_depend_on_hidden_pixels_and_the_input_stays_as_it_was(depth):
    encoder = active(MaskedMultiscaleEncoder(1, (1, 2, 1), (8, 16, 32)))
    x = torch.rand(2, 1, depth, 48, 32)
    before = x.clone()
    torch.manual_seed(0)
    features, mask = encoder(x, mask_ratio=0.5)
    assert torch.equal(x, before)
    changed = torch.where(mask[:, :, None], torch.randn_like(x), x)
    torch.manual_seed(0)
    others, _ = encoder(changed, mask_ratio=0.5)
    assert mask.shape == (2, 1, 48, 32)
    assert mask.flatten(1).sum(1).tolist() == [3 * 16 * 16] * 2
    for level, (one, other) in enumerate(zip(features, others, strict=True)):
        torch.testing.assert_close(one, other)
        hidden = mask[:, :, :: 4 * 2**level, :: 4 * 2**level]
        assert (one * hidden == 0).all()
        assert one.shape == (2, 8 * 2**level, 48 // 2**level // 4, 32 // 2**level // 4)


def test_a_ratio_too_small_to_hide_a_cell_hides_nothing():
    model = small().eval()
    x = torch.rand(1, 1, 5, 16, 16)
    output, mask = model(x, mask_ratio=0.1)
    assert not mask.any()
    torch.testing.assert_close(output, model(x)[0])


@pytest.mark.parametrize("head_conv", [False, True])
@pytest.mark.parametrize("channels", [(1, 3), (3, 1)])
def test_the_output_has_the_channels_asked_for(head_conv, channels):
    model = small(in_channels=channels[0], out_channels=channels[1], head_conv=head_conv, pretraining=False)
    assert model(torch.rand(2, channels[0], 5, 16, 24)).shape == (2, channels[1], 5, 16, 24)


@pytest.mark.parametrize(("kernel", "num_blocks"), [((5, 1, 1), 0), ((5, 2, 2), 2), ((10, 8, 8), 6), ((2, 4, 4), 4)])
def test_any_patch_size_keeps_the_size_of_the_image(kernel, num_blocks):
    model = small(stem_kernel_size=kernel, in_stack_depth=10, dims=(20, 40), decoder_conv_blocks=2)
    assert model.num_blocks == num_blocks
    size = 2 * kernel[1]
    assert model(torch.rand(1, 1, 10, size, 2 * size), mask_ratio=0.5)[0].shape == (1, 1, 10, size, 2 * size)


def test_a_single_slice_takes_the_2d_convolution():
    model = small()
    x = torch.rand(1, 1, 1, 16, 16)
    model(x)[0].sum().backward()
    assert model.encoder.stem.conv3d.weight.grad is None
    assert model.encoder.stem.conv2d.weight.grad is not None
    assert MaskedAdaptiveProjection(1, 8, kernel_size_2d=(2, 4))(x).shape == (1, 8, 8, 4)


def test_masked_training_compiles_without_a_break():
    model = small(encoder_drop_path_rate=0.1)
    x = torch.rand(2, 1, 5, 16, 16)
    output, mask = torch.compile(model, fullgraph=True, backend="eager")(x, mask_ratio=0.5)
    output.mean().backward()
    assert mask.flatten(1).sum(1).tolist() == [128, 128]


def test_checkpointing_changes_memory_only():
    def run(**options):
        torch.manual_seed(0)
        model = small(encoder_blocks=(2, 2), encoder_drop_path_rate=0.3, **options)
        torch.manual_seed(1)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            out, mask = model(x, mask_ratio=0.5)
        out.square().mean().backward()
        return out, mask, [p.grad for p in model.parameters() if p.grad is not None], sum(saved)

    x = torch.rand(2, 1, 5, 32, 32)
    plain, checkpointed = run(), run(gradient_checkpointing=True)
    assert torch.equal(plain[0], checkpointed[0])
    assert torch.equal(plain[1], checkpointed[1])
    for one, other in zip(plain[2], checkpointed[2], strict=True):
        torch.testing.assert_close(one, other)
    assert checkpointed[3] < plain[3] / 2


def test_stages_check_their_arguments():
    assert isinstance(MaskedConvNeXtV2Stage(4, 4, stride=1).downsample, nn.Identity)
    assert MaskedConvNeXtV2Stage(4, 8, stride=1)(torch.rand(1, 4, 4, 4)).shape == (1, 8, 4, 4)
    with pytest.raises(ValueError, match="drop_path_rates has 1 numbers, expected 2"):
        MaskedConvNeXtV2Stage(4, 4, drop_path_rates=[0.1])
    with pytest.raises(ValueError, match="out_channels is 6, expected a multiple of in_channels 4"):
        MaskedConvNeXtV2Block(4, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": (8, 24)}, r"dims is \(8, 24\), expected .* twice the one before, such as \(8, 16\)"),
        ({"dims": (8,), "encoder_blocks": (1,)}, r"dims is \(8,\), expected two widths or more"),
        ({"dims": (), "encoder_blocks": ()}, r"dims is \(\), expected two"),
        ({"dims": (7, 14)}, "dims begins with 7, expected an even number"),
        ({"encoder_blocks": (1, 1, 1)}, "found 3 numbers of blocks and 2 dims"),
        ({"encoder_blocks": (1, 0)}, "a number of blocks or of dims is 0"),
        ({"in_stack_depth": 7}, "in_stack_depth 7 is not a multiple of the stem kernel depth 5"),
        ({"in_stack_depth": 3}, "in_stack_depth 3 is not a multiple"),
        ({"in_stack_depth": 15}, "leaves 3 depth slices, which do not divide the 8 channels"),
        ({"stem_kernel_size": (5, 4, 2)}, r"4 x 2 in \(Y, X\), expected a square"),
        ({"stem_kernel_size": (5, 4)}, "three positive numbers"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"out_channels": 0}, "out_channels is 0"),
        ({"head_conv_expansion_ratio": 0}, "head_conv_expansion_ratio is 0"),
        ({"decoder_conv_blocks": 0}, "conv_blocks is 0"),
        ({"encoder_drop_path_rate": 1.5}, "drop_path_rate is 1.5"),
    ],
)
def test_wrong_arguments_fail_at_construction(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.mark.parametrize("shape", [(1, 2, 5, 16, 16), (1, 1, 3, 16, 16), (1, 1, 5, 12, 16), (1, 1, 16, 16)])
def test_an_input_of_another_shape_is_explained(shape):
    with pytest.raises(ValueError, match=r"expected \(B, 1 channels, 1 or 5 z slices, Y, X\) with Y a multiple of 8"):
        small()(torch.rand(shape))


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_a_ratio_out_of_range_is_explained(ratio):
    with pytest.raises(ValueError, match=r"mask_ratio is .*from 0 to below 1"):
        small()(torch.rand(1, 1, 5, 16, 16), mask_ratio=ratio)
