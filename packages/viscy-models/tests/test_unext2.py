"""UNeXt2: keys, numbers, what each option does and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from viscy_models import UNeXt2

CASES = sorted(path.stem for path in (Path(__file__).parent / "golden" / "unext2").glob("*.json"))


def small(**changes):
    return UNeXt2(**{"backbone": "convnextv2_atto", "decoder_conv_blocks": 1, "head_expansion_ratio": 1, **changes})


@pytest.mark.parametrize("case", CASES)
def test_keys_shapes_and_outputs_are_those_of_published_checkpoints(case, recorded):
    golden = recorded(f"unext2/{case}")
    golden.check_keys(UNeXt2)
    model, x = golden.build(UNeXt2)
    with torch.no_grad():
        golden.compare(output=model(x))


@pytest.mark.parametrize("mode", ["pixelshuffle", "deconv"])
@pytest.mark.parametrize(
    "options",
    [
        {"in_channels": 2, "out_channels": 3, "out_stack_depth": 1},
        {"in_stack_depth": 10, "head_pool": True},
        {"in_stack_depth": 1, "stem_kernel_size": (1, 4, 4), "out_stack_depth": 4},
        {"backbone": "convnext_femto", "decoder_norm_layer": "batch", "drop_path_rate": 0.2},
        {"backbone": "convnext_zepto_rms"},
    ],
)
def test_every_option_gives_a_stack_of_its_size(mode, options):
    model = small(decoder_mode=mode, **options)
    depth = options.get("in_stack_depth", 5)
    out = model(torch.rand(2, options.get("in_channels", 1), depth, 32, 64))
    assert out.shape == (2, options.get("out_channels", 1), options.get("out_stack_depth", depth), 32, 64)
    out.square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_widths_follow_the_backbone():
    names = ("convnextv2_pico", "convnext_nano", "convnext_base")
    with torch.device("meta"):
        models = {name: UNeXt2(backbone=name, decoder_upsample_pre_conv=True, in_stack_depth=20) for name in names}
    for model in models.values():
        channels = model.encoder_stages.feature_info.channels()
        shapes = {key: tuple(v.shape) for key, v in model.state_dict().items()}
        assert shapes["stem.conv.weight"] == (channels[0] // 4, 1, 5, 4, 4)
        for i, (coarse, fine) in enumerate(zip(channels[:0:-1], [*channels[-2:0:-1], 22 * 16], strict=True)):
            stage = f"decoder.decoder_stages.{i}"
            assert shapes[f"{stage}.upsample.pixelshuffle.conv_block.weight"] == (coarse, coarse, 3, 3)
            assert shapes[f"{stage}.conv.downsample.1.weight"] == (fine, coarse // 4 + coarse // 2, 1, 1)


def test_a_finer_stem_gives_a_finer_output():
    assert small(stem_kernel_size=(5, 2, 2))(torch.rand(1, 1, 5, 16, 32)).shape == (1, 1, 5, 32, 64)


def test_predictions_are_padded_for_six_halvings():
    model = small()
    assert model.num_blocks == 6
    assert model.out_stack_depth == 5
    assert small(out_stack_depth=2).out_stack_depth == 2


def test_pretrained_weights_come_from_a_local_file(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("convnextv2_atto")
    save_file(source.state_dict(), tmp_path / "atto.safetensors")
    model = small(pretrained=tmp_path / "atto.safetensors")
    theirs, ours = source.state_dict(), model.encoder_stages.state_dict()
    assert torch.equal(ours["stages_2.blocks.1.mlp.fc1.weight"], theirs["stages.2.blocks.1.mlp.fc1.weight"])
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        small(pretrained=str(tmp_path / "absent.safetensors"))


def test_checkpointing_changes_memory_only():
    def run(**options):
        torch.manual_seed(0)
        model = small(drop_path_rate=0.3, decoder_mode="deconv", decoder_norm_layer="batch", **options)
        torch.manual_seed(1)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            out = model(x)
        out.square().mean().backward()
        return out, [p.grad for p in model.parameters()], list(model.buffers()), sum(saved)

    x = torch.rand(2, 1, 5, 32, 32)
    plain, checkpointed = run(), run(gradient_checkpointing=True)
    assert torch.equal(plain[0], checkpointed[0])
    for one, other in zip(plain[1] + plain[2], checkpointed[1] + checkpointed[2], strict=True):
        torch.testing.assert_close(one, other)
    assert checkpointed[3] < plain[3] / 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "convnextv2_tinny"}, r"unknown backbone 'convnextv2_tinny' \(did you mean 'convnextv2_tiny'"),
        ({"backbone": "resnet50"}, r"unknown backbone 'resnet50'.*expected a convnext or convnextv2 model"),
        ({"backbone": "convnext_atto_ols"}, "does not begin with one convolution.*'convnext_tiny'"),
        ({"backbone": "convnext_tiny.nobody"}, "unknown weights 'convnext_tiny.nobody', expected convnext_tiny or one"),
        ({"in_stack_depth": 7}, "in_stack_depth 7 is not a multiple of the stem kernel depth 5; 5 and 10 are"),
        ({"in_stack_depth": 3}, "in_stack_depth 3 is not a multiple"),
        ({"in_stack_depth": 15}, "leaves 3 depth slices, which do not divide the 40 channels"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"out_channels": 0}, "out_channels is 0"),
        ({"out_stack_depth": 0}, "out_stack_depth is 0"),
        ({"head_expansion_ratio": 0}, "head_expansion_ratio is 0"),
        ({"decoder_conv_blocks": 0}, "decoder_conv_blocks is 0"),
        ({"decoder_mode": "nearest"}, "mode is 'nearest'.*expected one of deconv, pixelshuffle"),
        ({"decoder_norm_layer": "nothing"}, "norm_name is 'nothing'"),
        ({"decoder_mode": "deconv", "decoder_upsample_pre_conv": True}, "is for pixelshuffle"),
        ({"stem_kernel_size": (5, 0, 4)}, "stem_kernel_size is .*three positive numbers"),
        ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0"),
    ],
)
def test_wrong_arguments_fail_at_construction(changes, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.mark.parametrize("shape", [(1, 2, 5, 32, 32), (1, 1, 6, 32, 32), (1, 1, 5, 48, 32), (1, 5, 32, 32)])
def test_an_input_of_another_shape_is_explained(shape):
    message = r"found an input of shape .*expected \(B, 1 channels, 5 z slices, Y, X\) with Y a multiple of 32"
    with pytest.raises(ValueError, match=message):
        small()(torch.rand(shape))
