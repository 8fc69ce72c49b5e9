"""Variational autoencoders: keys, numbers, where randomness comes from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from monai.networks.nets import VarAutoEncoder
from torch import nn

from viscy_models import BetaVae25D, BetaVaeMonai
from viscy_models.vae.beta_vae_25d import VaeDecoder, VaeEncoder, VaeUpStage

FOLDER = Path(__file__).parent / "golden" / "vae"
LARGE = {"BetaVae25D__default_full", "BetaVae25D__resnet50_2ch_z16_l256_128"}
STACKS = [
    pytest.param(path.stem, marks=[pytest.mark.slow] * (path.stem in LARGE))
    for path in sorted(FOLDER.glob("*25D*.json"))
]


def small(**changes):
    arguments = {"backbone": "convnext_atto", "in_channels": 1, "in_stack_depth": 5, "out_stack_depth": 3}
    arguments |= {"latent_dim": 8, "input_spatial_size": (32, 32), "decoder_stages": 3, "head_expansion_ratio": 1}
    return BetaVae25D(**{**arguments, "stem_kernel_size": (5, 4, 4), "stem_stride": (5, 4, 4), **changes})


def monai(**changes):
    arguments = {"spatial_dims": 2, "in_shape": (1, 16, 8), "out_channels": 2, "latent_size": 4}
    return BetaVaeMonai(**{**arguments, "channels": (4, 8), "strides": (2, 2), **changes})


@pytest.mark.parametrize("case", sorted(path.stem for path in FOLDER.glob("*25D*.json")))
def test_keys_and_shapes_are_those_of_published_checkpoints(case, recorded):
    recorded(f"vae/{case}").check_keys(BetaVae25D)


@pytest.mark.parametrize("case", STACKS)
def test_outputs_are_those_of_published_checkpoints(case, recorded):
    golden = recorded(f"vae/{case}")
    model, x = golden.build(BetaVae25D)
    with torch.no_grad():
        latent = model.encoder(x)
        golden.compare(mean=latent.mean, logvar=latent.log_covariance, decoder_of_mean=model.decoder(latent.mean))


@pytest.mark.parametrize("case", sorted(path.stem for path in FOLDER.glob("*Monai*.json")))
def test_monai_outputs_are_those_of_published_checkpoints(case, recorded):
    golden = recorded(f"vae/{case}")
    golden.check_keys(BetaVaeMonai)
    model, x = golden.build(BetaVaeMonai)
    with torch.no_grad():
        golden.compare(**vars(model(x)))


@pytest.mark.parametrize("mode", ["pixelshuffle", "deconv"])
@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "resnet18", "input_spatial_size": (64, 64), "decoder_stages": 4, "drop_path_rate": 0.1},
        {"backbone": "convnextv2_atto", "norm_name": "instance", "conv_blocks": 1, "head_pool": True},
        {"in_channels": 3, "in_stack_depth": 10, "latent_dim": 32, "input_spatial_size": (64, 64)},
        {"stem_kernel_size": (3, 2, 2), "stem_stride": (2, 2, 2), "decoder_stages": 2, "latent_dim": 16},
        {"backbone": "resnet26", "input_spatial_size": (64, 64), "decoder_stages": 4},
    ],
)
def test_every_option_gives_a_stack_of_its_size(mode, options):
    model = small(upsample_mode=mode, **options)
    channels, size = options.get("in_channels", 1), options.get("input_spatial_size", (32, 32))
    out = model(torch.rand(3, channels, options.get("in_stack_depth", 5), *size))
    assert isinstance(out, SimpleNamespace)
    assert list(vars(out)) == ["recon_x", "mean", "logvar", "z"]
    assert out.recon_x.shape == (3, channels, 3, *size)
    assert {out.mean.shape, out.logvar.shape, out.z.shape} == {(3, options.get("latent_dim", 8))}
    (out.recon_x.square().mean() + out.logvar.mean()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("make", [small, monai])
def test_evaluation_is_deterministic_and_independent_of_the_batch(make):
    model = make().eval()
    x = torch.rand(2, *((1, 5, 32, 32) if make is small else (1, 16, 8)))
    with torch.no_grad():
        first, again, alone = model(x), model(x, torch.Generator()), model(x[1:])
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(again, name))
        torch.testing.assert_close(value[1:], getattr(alone, name), rtol=1e-4, atol=1e-5)


def test_evaluation_decodes_the_mean():
    model, x = small().eval(), torch.rand(2, 1, 5, 32, 32)
    with torch.no_grad():
        out = model(x)
        assert torch.equal(out.z, out.mean)
        assert torch.equal(out.recon_x, model.decoder(out.mean))
        plain, centred = monai().eval(), monai(use_mean_at_inference=True).eval()
        out = plain(torch.rand(2, 1, 16, 8))
        torch.testing.assert_close(out.z, out.mean + (out.logvar / 2).exp())
        out = centred(torch.rand(2, 1, 16, 8))
        assert torch.equal(out.z, out.mean)


@pytest.mark.parametrize("make", [small, monai])
def test_training_draws_from_the_generator_that_is_passed_and_from_no_other(make):
    model, x = make().train(), torch.rand(2, *((1, 5, 32, 32) if make is small else (1, 16, 8)))
    before = torch.get_rng_state()
    first, again = (model(x, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.z, again.z)
    noise = torch.randn(first.z.shape, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(first.z, first.mean + (first.logvar / 2).exp() * noise)
    torch.manual_seed(7)
    torch.testing.assert_close(model(x).z, first.z)


def test_the_draw_has_the_spread_that_the_encoder_says():
    encoder = VaeEncoder("convnext_atto", 1, 5, 8, (32, 32), (5, 4, 4), (5, 4, 4))
    mean, logvar = torch.full((20000, 2), 3.0), torch.tensor([0.0, 2.0]).expand(20000, 2)
    z = encoder.reparameterize(mean, logvar, torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), torch.full((2,), 3.0), rtol=0, atol=0.1)
    torch.testing.assert_close(z.var(0), torch.tensor([1.0, 2.0]).exp() ** torch.tensor([0, 1]), rtol=0.05, atol=0)
    assert encoder.eval().reparameterize(mean, logvar) is mean


def test_the_monai_model_is_that_of_monai():
    x = torch.rand(2, 1, 8, 8, 16)
    options = {"channels": (4, 8), "strides": ((1, 2, 2), (2, 1, 2)), "num_res_units": 1, "use_sigmoid": True}
    options |= {"inter_channels": (8,), "inter_dilations": (2,), "dropout": 0.1}
    model = BetaVaeMonai(3, (1, 8, 8, 16), 2, 4, norm="batch", **options).eval()
    peer = VarAutoEncoder(3, (1, 8, 8, 16), 2, 4, norm="batch", **options).eval()
    peer.load_state_dict({key.removeprefix("model."): value for key, value in model.state_dict().items()})
    with torch.no_grad():
        out = model(x)
        for ours, theirs in zip((out.recon_x, out.mean, out.logvar, out.z), peer(x), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_an_up_stage_halves_or_keeps_what_it_is_told():
    x = torch.rand(2, 16, 3, 3)
    for mode in ("pixelshuffle", "deconv"):
        for factor in (1, 2, 4):
            stage = VaeUpStage(16, 6, factor, mode, 2, "batch", None)
            assert stage(x).shape == (2, 6, 3 * factor, 3 * factor)
    keys = VaeUpStage(16, 6, 2, "deconv", 2, "batch", None).state_dict()
    assert {key.split(".conv.unit")[0] for key in keys} == {
        "upsample.conv.weight",
        "conv.0",
        "conv.1.weight",
        "conv.1.bias",
    }
    shuffled = VaeUpStage(16, 6, 2, "pixelshuffle", 1, "batch", "default").state_dict()
    assert shuffled["upsample.pixelshuffle.conv_block.weight"].shape == (16, 16, 3, 3)
    custom = VaeUpStage(16, 6, 2, "pixelshuffle", 1, "batch", nn.Conv2d(16, 16, 1))
    assert custom.upsample.pixelshuffle.conv_block.kernel_size == (1, 1)


def test_a_decoder_may_end_without_upsampling():
    decoder = VaeDecoder((32, 16, 8, 8), 32, 2, 4, 1, (2, 2, 2, 1), encoder_spatial_size=4)
    assert decoder(torch.rand(2, 32)).shape == (2, 2, 4, 128, 128)


def test_pretrained_weights_come_from_a_local_file(tmp_path):
    source = timm.create_model("resnet18")
    torch.save(source.state_dict(), tmp_path / "resnet18.pth")
    options = {"input_spatial_size": (64, 64), "decoder_stages": 1}
    model = small(backbone="resnet18", pretrained=str(tmp_path / "resnet18.pth"), **options)
    theirs, ours = source.state_dict(), model.encoder.encoder.state_dict()
    assert torch.equal(ours["layer3.1.conv2.weight"], theirs["layer3.1.conv2.weight"])


@pytest.mark.parametrize(
    "options", [{"backbone": "resnet18", "input_spatial_size": (64, 64)}, {"upsample_mode": "deconv"}]
)
def test_checkpointing_changes_memory_only(options):
    def run(**more):
        torch.manual_seed(0)
        model = small(drop_path_rate=0.3, **options, **more)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            out = model(x, torch.Generator().manual_seed(1))
        out.recon_x.square().mean().backward()
        return (
            out.recon_x,
            [p.grad for p in model.parameters() if p.grad is not None],
            list(model.buffers()),
            sum(saved),
        )

    x = torch.rand(2, 1, 5, *options.get("input_spatial_size", (32, 32)))
    plain, checkpointed = run(), run(gradient_checkpointing=True)
    assert torch.equal(plain[0], checkpointed[0])
    for one, other in zip(plain[1] + plain[2], checkpointed[1] + checkpointed[2], strict=True):
        torch.testing.assert_close(one, other)
    assert checkpointed[3] < plain[3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet51"}, r"unknown backbone 'resnet51' \(did you mean .*'resnet50'"),
        ({"backbone": "vit_tiny"}, "unknown backbone 'vit_tiny' .*expected a resnet or convnext model"),
        ({"backbone": "resnet18d"}, "does not begin with one convolution.*'resnet50' or 'convnext_tiny'"),
        ({"latent_dim": 9, "input_spatial_size": (64, 64)}, "latent_dim is 9, expected a multiple of 4.* 8 or 12"),
        ({"latent_dim": 0}, "latent_dim is 0"),
        ({"input_spatial_size": (48, 48)}, r"input_spatial_size is \(48, 48\), expected multiples of 32.* 32 or 64"),
        ({"input_spatial_size": (32, 64)}, "expected two equal numbers"),
        ({"backbone": "resnet18"}, "expected multiples of 64 .* 16 of the backbone"),
        ({"stem_kernel_size": (5, 7, 7)}, "stem_kernel_size 7 is larger than stem_stride 4"),
        ({"stem_stride": (5, 4, 2)}, "expected squares"),
        ({"in_stack_depth": 15}, "leaves 3 depth slices.*40 channels"),
        ({"in_stack_depth": 3}, "in_stack_depth is 3, shallower than"),
        ({"decoder_stages": 0}, "decoder_stages is 0"),
        ({"decoder_stages": 9}, "to upsample by pixel shuffle, expected a multiple of 4"),
        ({"upsample_mode": "nearest"}, "mode is 'nearest'"),
        ({"upsample_mode": "deconv", "upsample_pre_conv": "default"}, "is for pixelshuffle"),
        ({"norm_name": "group"}, "norm_name is 'group'"),
        ({"conv_blocks": 0}, "conv_blocks is 0"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"out_stack_depth": 0}, "out_stack_depth is 0"),
        ({"head_expansion_ratio": 0}, "expansion_ratio is 0"),
    ],
)
def test_wrong_arguments_fail_at_construction(changes, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        small(**changes)


def test_strides_of_the_decoder_are_counted():
    with pytest.raises(ValueError, match="found 2 decoder_channels and 1 strides"):
        VaeDecoder((16, 8), 16, strides=(2,), encoder_spatial_size=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "layer"}, "norm is 'layer'.*expected one of batch, instance"),
        ({"spatial_dims": 4}, "spatial_dims is 4, expected 1, 2 or 3"),
        ({"in_shape": (16, 16)}, r"in_shape is \(16, 16\), expected the channels and 2 sizes"),
        ({"in_shape": (1, 18, 8)}, r"divide the image by \(4, 4\) .* found \(18, 8\)"),
        ({"strides": (2,)}, "expected one of each a level"),
        ({"strides": ((2, 2, 2), 2)}, "expected a positive number or 2 of them per level"),
        ({"kernel_size": 4}, "kernel_size is 4, expected an odd number"),
        ({"up_kernel_size": (3, 3, 3)}, "up_kernel_size is .*or 2 of them"),
        ({"latent_size": 0}, "latent_size is 0"),
        ({"out_channels": 0}, "out_channels is 0"),
    ],
)
def test_wrong_arguments_of_the_monai_model_fail_at_construction(changes, message):
    with pytest.raises(ValueError, match=message):
        monai(**changes)


@pytest.mark.parametrize("shape", [(1, 2, 5, 32, 32), (1, 1, 4, 32, 32), (1, 1, 5, 64, 64), (1, 5, 32, 32)])
def test_an_input_of_another_shape_is_explained(shape):
    with pytest.raises(ValueError, match=r"found an (input|image) of .*expected \(.*(1 channels, 5 z slices|32, 32)"):
        small()(torch.rand(shape))
    with pytest.raises(ValueError, match=r"found an input of shape .*expected \(B, 1, 16, 8\) as in_shape says"):
        monai()(torch.rand(1, 1, 8, 16))
