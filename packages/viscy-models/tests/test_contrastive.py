"""Encoders: topology, numbers, what is refused."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import viscy_models
from viscy_models import ContrastiveEncoder, ResNet3dEncoder
from viscy_models.contrastive import projection_mlp


def small(**changes):
    arguments = {"backbone": "convnext_atto", "in_channels": 1, "in_stack_depth": 5, "embedding_dim": 32}
    return ContrastiveEncoder(**{**arguments, "projection_dim": 16, **changes})


def test_keys_shapes_and_outputs_are_those_of_published_checkpoints(golden, fill, signed):
    model = getattr(viscy_models, golden["model"])(**golden["kwargs"])
    state = model.state_dict()
    assert [[key, [list(v.shape), str(v.dtype).removeprefix("torch.")]] for key, v in state.items()] == [
        [key, entry] for key, entry in golden["state_dict"].items()
    ]
    fill(model)
    with torch.no_grad():
        embedding, projection = model(signed(golden["io"][0]["input"]))
    for name, value in (("embedding", embedding), ("projection", projection)):
        expected = golden["outputs"][name]
        np.testing.assert_allclose(value.numpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_exports_are_the_same_objects():
    assert ContrastiveEncoder is viscy_models.contrastive.ContrastiveEncoder
    assert set(viscy_models.__all__) <= set(dir(viscy_models))
    with pytest.raises(AttributeError, match="attribute Nothing"):
        viscy_models.Nothing  # noqa: B018


@pytest.mark.parametrize(
    ("backbone", "width"),
    [("resnet18", 512), ("resnet34", 512), ("convnext_atto", 320), ("convnextv2_atto", 320), ("convnext_femto", 384)],
)
def test_small_backbones_for_small_patches(backbone, width):
    model = small(backbone=backbone, in_stack_depth=1, stem_kernel_size=(1, 2, 2), stem_stride=(1, 2, 2)).eval()
    with torch.no_grad():
        embedding, projection = model(torch.rand(2, 1, 1, 32, 32))
    assert model.num_features == width
    assert embedding.shape == (2, width)
    assert projection.shape == (2, 16)


@pytest.mark.parametrize(("backbone", "expansion"), [("resnet18", 1), ("resnet50", 4)])
def test_width_is_that_of_the_first_stage_and_doubles(backbone, expansion):
    stem = {"in_stack_depth": 1, "stem_kernel_size": (1, 3, 3), "stem_stride": (1, 2, 2)}
    narrow = small(backbone=backbone, width=16, **stem).eval()
    with torch.no_grad():
        embedding, _ = narrow(torch.rand(2, 1, 1, 32, 32))
    assert embedding.shape == (2, 128 * expansion)
    full, same = small(backbone=backbone, **stem), small(backbone=backbone, width=64, **stem)
    assert {k: v.shape for k, v in full.state_dict().items()} == {k: v.shape for k, v in same.state_dict().items()}


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_stem_stride_sets_the_resolution_and_not_the_width(stride):
    model = small(in_stack_depth=1, stem_kernel_size=(1, 4, 4), stem_stride=(1, stride, stride)).eval()
    with torch.no_grad():
        embedding, _ = model(torch.rand(1, 1, 1, 36, 36))
    assert embedding.shape == (1, 320)


def test_stem_folds_depth_inside_channels():
    model = small(in_stack_depth=10)
    x = torch.rand(1, 1, 10, 8, 8)
    volume = nn.functional.conv3d(x, model.stem.conv.weight, model.stem.conv.bias, stride=(5, 4, 4))
    for channel in range(volume.shape[1]):
        for depth in range(2):
            torch.testing.assert_close(model.stem(x)[0, channel * 2 + depth], volume[0, channel, depth])


def test_kernel_may_overlap_in_depth():
    # Depth 5, kernel 3, stride 2: two slices remain, which share the 40 channels of the backbone's stem.
    assert small(in_stack_depth=5, stem_kernel_size=(3, 4, 4), stem_stride=(2, 4, 4)).stem.conv.out_channels == 20


def test_slices_beyond_the_last_kernel_are_said(caplog):
    small(in_stack_depth=7)
    assert "the last 2 z slices are not seen" in caplog.text


def test_evaluation_is_deterministic_and_independent_of_the_batch():
    model = small(drop_path_rate=0.5).eval()
    x = torch.rand(3, 1, 5, 32, 32)
    with torch.no_grad():
        first, again, alone = model(x)[1], model(x)[1], model(x[1:2])[1]
    assert torch.equal(first, again)
    torch.testing.assert_close(first[1:2], alone, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter():
    model = small()
    model(torch.rand(4, 1, 5, 32, 32))[1].square().mean().backward()
    # A convolution before a batch norm has a gradient too; only that there is one matters.
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_embedding_dim_is_the_hidden_width_of_the_projection():
    model = small(embedding_dim=24)
    assert model.projection[0].weight.shape == (24, model.num_features)
    volumetric = ResNet3dEncoder("resnet10", embedding_dim=24, projection_dim=8)
    assert volumetric.projection[0].weight.shape == (24, 512)
    assert volumetric.eval()(torch.rand(1, 1, 8, 16, 16))[1].shape == (1, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "convnext_tinny"}, r"unknown backbone 'convnext_tinny' \(did you mean 'convnext_tiny'"),
        ({"backbone": "vit"}, "expected one of .*convnext_tiny.*resnet50"),
        ({"backbone": "resnet18", "in_stack_depth": 15}, "leaves 3 depth slices.*64 channels.*fit are 5, 10, 20, 40"),
        ({"width": 32}, "width=32 is for ResNets, found backbone 'convnext_atto'"),
        ({"backbone": "resnet18", "width": 0}, "width is 0, expected at least 1"),
        ({"backbone": "resnet18", "width": 32, "pretrained": True}, "pretrained weights have the width.*width=32"),
        ({"in_stack_depth": 3}, "in_stack_depth is 3, shallower than the stem kernel depth 5"),
        ({"in_stack_depth": 0}, "in_stack_depth is 0"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"stem_stride": (5, 4)}, "stem_stride is .*three positive numbers"),
        ({"stem_kernel_size": (5, 0, 4)}, "stem_kernel_size is .*three positive numbers"),
        ({"projection_dim": 0}, "projection_dim is 0, expected at least 1"),
    ],
)
def test_wrong_arguments_fail_at_construction(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet11"}, "unknown 3D backbone 'resnet11' .*expected one of resnet10"),
        ({"backbone": "resnet10", "in_channels": 0}, "in_channels is 0"),
        ({"backbone": "resnet10", "in_channels": 2, "pretrained": True}, "pretrained weights exist for one channel"),
    ],
)
def test_wrong_arguments_of_the_3d_encoder_fail_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNet3dEncoder(**arguments)


@pytest.mark.parametrize("make", [small, lambda: ResNet3dEncoder("resnet10")])
def test_a_training_batch_of_one_is_explained(make):
    model = make()
    x = torch.rand(1, 1, 5, 32, 32)
    with pytest.raises(ValueError, match=r"training batch of 1.*at least 2 samples"):
        model(x)
    assert model.eval()(x)[0].shape[0] == 1


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 2, 5, 32, 32), (2, 1, 6, 32, 32)])
def test_an_input_of_another_shape_is_explained(shape):
    with pytest.raises(ValueError, match="1 channels, 5 z slices"):
        small()(torch.rand(shape))


def test_a_volume_of_other_channels_is_explained():
    with pytest.raises(ValueError, match="1 channels, Z, Y, X"):
        ResNet3dEncoder("resnet10")(torch.rand(2, 2, 5, 16, 16))


def test_projection_widths_are_checked():
    assert projection_mlp(3, 4, 5).eval()(torch.rand(2, 3)).shape == (2, 5)
    with pytest.raises(ValueError, match="hidden_dims"):
        projection_mlp(3, 0, 5)


def test_a_head_without_batch_norm_keeps_what_a_batch_shares():
    options = {"embedding_dim": 8, "projection_dim": 4, "width": 8, "projection_norm": False}
    encoder = ContrastiveEncoder("resnet18", 1, 1, (1, 3, 3), (1, 2, 2), **options)
    assert {name.split(".")[1] for name, _ in encoder.projection.named_parameters("projection")} == {"0", "3"}
    assert not any(isinstance(layer, torch.nn.BatchNorm1d) for layer in encoder.modules())
    features, projections = encoder(torch.rand(6, 1, 1, 32, 32))
    first, last = encoder.projection[0], encoder.projection[3]
    expected = torch.relu(features @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(projections, expected)
    normed = ContrastiveEncoder("resnet18", 1, 1, (1, 3, 3), (1, 2, 2), **options | {"projection_norm": True})
    assert normed(torch.rand(6, 1, 1, 32, 32))[1].mean(dim=0).abs().max() < 1e-5


def test_residual_branches_start_at_zero_unless_told_otherwise():
    def last_scales(**options):
        encoder = ContrastiveEncoder("resnet18", 1, 1, (1, 3, 3), (1, 2, 2), **options)
        return {name: weight for name, weight in encoder.state_dict().items() if name.endswith("bn2.weight")}

    assert all((weight == 0).all() for weight in last_scales().values())
    assert all((weight == 1).all() for weight in last_scales(zero_init_last=False).values())
    with pytest.raises(ValueError, match="zero_init_last=False is for ResNets"):
        ContrastiveEncoder("convnext_atto", 1, 1, (1, 4, 4), (1, 4, 4), zero_init_last=False)


@pytest.mark.parametrize("backbone", ["convnext_atto", "convnextv2_atto", "resnet18"])
def test_pretrained_weights_come_from_a_local_file_without_network(backbone, tmp_path, monkeypatch):
    source = timm.create_model(backbone)
    save_file(source.state_dict(), tmp_path / "backbone.safetensors")
    monkeypatch.setattr(socket, "socket", None)
    model = ContrastiveEncoder(backbone, 1, 1, (1, 4, 4), (1, 4, 4), pretrained=tmp_path / "backbone.safetensors")
    loaded = {key: value for key, value in model.encoder.state_dict().items() if value.ndim}
    assert len(loaded) > 20
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in loaded.items())


def test_a_pretrained_file_that_is_missing_or_of_another_model_is_refused(tmp_path):
    path = str(tmp_path / "backbone.pt")
    with pytest.raises(FileNotFoundError, match=r"backbone.pt': no such file, expected one, True or False"):
        small(pretrained=path)
    others = {"convnext_femto": "size mismatch", "resnet18": "KeyError", "convnextv2_atto": "parameters are not in it"}
    for other, message in others.items():
        torch.save(timm.create_model(other).state_dict(), path)
        with pytest.raises(ValueError, match=rf"backbone.pt does not fit convnext_atto[\s\S]*{message}"):
            small(pretrained=path)
