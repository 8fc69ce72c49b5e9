"""What all eight architectures can do: compile, mixed precision, memory formats, checkpointing, loading."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

import viscy_models
from viscy_models import load_weights

DEPTH5 = {"in_channels": 1, "in_stack_depth": 5}
# Small, without randomness in training (dropout) but with what has state (batch normalisation).
MODELS: dict[str, tuple[dict, tuple[int, ...]]] = {
    "UNeXt2": ({"backbone": "convnextv2_atto", "decoder_conv_blocks": 1, "head_expansion_ratio": 1}, (2, 1, 5, 64, 64)),
    "FullyConvolutionalMAE": (
        {**DEPTH5, "out_channels": 1, "encoder_blocks": (1, 2), "dims": (8, 16), "pretraining": False},
        (2, 1, 5, 32, 32),
    ),
    "ContrastiveEncoder": ({**DEPTH5, "backbone": "convnext_atto", "embedding_dim": 16}, (3, 1, 5, 64, 64)),
    "ResNet3dEncoder": ({"backbone": "resnet10", "embedding_dim": 16, "projection_dim": 8}, (3, 1, 8, 32, 32)),
    "BetaVae25D": (
        {
            **{"backbone": "resnet18", "in_channels": 1, "in_stack_depth": 4, "out_stack_depth": 4, "latent_dim": 16},
            **{"input_spatial_size": (64, 64), "conv_blocks": 1, "head_expansion_ratio": 1},
        },
        (2, 1, 4, 64, 64),
    ),
    "BetaVaeMonai": (
        {
            **{"spatial_dims": 3, "in_shape": (1, 8, 16, 16), "out_channels": 1, "latent_size": 8},
            **{"channels": (4, 8), "strides": (2, 2)},
        },
        (2, 1, 8, 16, 16),
    ),
    "Unet2d": ({"num_blocks": 2, "num_filters": (4, 6, 8), "dropout": 0.0}, (2, 1, 1, 16, 16)),
    "Unet25d": ({"num_blocks": 2, "num_filters": (4, 6, 8), "dropout": 0.0}, (2, 1, 5, 16, 16)),
}
each_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture
def make(name) -> Callable[..., nn.Module]:
    """Return a constructor of the model with random numbers that are the same in every test."""

    def made(**changes) -> nn.Module:
        torch.manual_seed(0)
        return getattr(viscy_models, name)(**{**MODELS[name][0], **changes})

    return made


@pytest.fixture
def images(name) -> Tensor:
    return torch.rand(MODELS[name][1], generator=torch.Generator().manual_seed(1))


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return what the model returns, whatever the structure."""
    torch.manual_seed(2)
    result = model(x)
    result = vars(result).values() if not isinstance(result, Tensor | tuple) else result
    return [result] if isinstance(result, Tensor) else list(result)


def assert_close(found: list[Tensor], expected: list[Tensor], share: float = 1e-4) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (a.float() - b.float()).abs().max() <= share * b.abs().max()


@each_model
def test_evaluation_is_deterministic(make, images):
    model = make().eval()
    with torch.no_grad():
        first = outputs(model, images)
        torch.rand(1)
        again = model(images)
    again = vars(again).values() if not isinstance(again, Tensor | tuple) else again
    for a, b in zip(first, [again] if isinstance(again, Tensor) else again, strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@each_model
def test_forward_compiles_without_a_graph_break(make, images, name):
    # Training is the longer way through a model; a VAE draws in one and not in the other.
    for training in (True, False) if name == "BetaVaeMonai" else (True,):
        model = make().train(training)
        compiled = torch.compile(deepcopy(model), fullgraph=True, backend="eager")
        with torch.set_grad_enabled(training):
            assert_close(outputs(compiled, images), outputs(model, images))
        torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet3dEncoder", "Unet2d"])
def test_checkpointed_models_compile_and_keep_their_statistics(make, images):
    plain, saving = make(), make(gradient_checkpointing=True)
    compiled = torch.compile(saving, fullgraph=True, backend="aot_eager")
    for model in (plain, compiled):
        sum(value.square().mean() for value in outputs(model, images)).backward()
    torch.compiler.reset()
    for (key, value), other in zip(plain.state_dict().items(), saving.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, msg=key, rtol=1e-4, atol=1e-5)


@each_model
def test_autocast_to_bfloat16_stays_close_in_both_directions(make, images):
    model = make().eval()
    expected = outputs(model, images)
    with torch.autocast("cpu", torch.bfloat16):
        found = outputs(model, images)
    for a, b in zip(found, expected, strict=True):
        assert torch.isfinite(a).all()
        assert (a.float() - b).norm() < 0.1 * b.norm()
    sum(value.float().square().mean() for value in found).backward()
    # On CPUs torch (2.7 to 2.15) reads memory never written for the bfloat16 gradients of weights of 3D convolutions.
    spoilt = {id(module.weight) for module in model.modules() if isinstance(module, nn.Conv3d)}
    gradients = [p.grad for p in model.parameters() if p.grad is not None and id(p) not in spoilt]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@each_model
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.channels_last_3d])
def test_channels_last_changes_the_layout_and_not_the_outputs(make, images, memory_format):
    model = make().eval()
    with torch.no_grad():
        expected = outputs(model, images)
        assert model.to(memory_format=memory_format) is model
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        for weight in model.parameters():
            assert weight.dim() not in formats or weight.is_contiguous(memory_format=formats[weight.dim()])
        assert_close(outputs(model, images.to(memory_format=torch.channels_last_3d)), expected)
        assert_close(outputs(model.to(memory_format=torch.contiguous_format), images), expected)
    assert all(weight.is_contiguous() for weight in model.parameters())


def step(model: nn.Module, x: Tensor) -> tuple[list[Tensor], int]:
    """Go forward and backward and return the outputs and the bytes kept in between."""
    kept: dict[int, int] = {}
    parameters = {p.data_ptr() for p in model.parameters()}

    def pack(value: Tensor) -> Tensor:
        if value.data_ptr() not in parameters:
            kept[value.data_ptr()] = value.nbytes
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        found = outputs(model, x)
    n_bytes = sum(kept.values())
    sum(value.square().mean() for value in found).backward()
    return [value.detach() for value in found], n_bytes


@each_model
def test_gradient_checkpointing_changes_memory_and_nothing_else(make, images):
    plain, saving = make(), make(gradient_checkpointing=True)
    assert list(saving.state_dict()) == list(plain.state_dict())
    saving.load_state_dict(plain.state_dict())
    expected, most = step(plain, images)
    found, least = step(saving, images)
    assert_close(found, expected, share=1e-5)
    assert least < 0.85 * most
    for (key, a), b in zip(saving.named_parameters(), plain.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), key
        if b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, msg=key, rtol=1e-3, atol=1e-5)
    for key, value in saving.state_dict().items():
        if "running" in key or "tracked" in key:  # updated once, although computed twice
            torch.testing.assert_close(value, plain.state_dict()[key], msg=key)


@each_model
@pytest.mark.parametrize("form", ["lightning", "bare"])
def test_weights_are_loaded_from_a_checkpoint(make, form, tmp_path):
    source, target = make(), make()
    for value in source.state_dict().values():
        value.copy_(torch.rand(value.shape) if value.is_floating_point() else value + 3)
    state = source.state_dict()
    if form == "lightning":
        state = {"epoch": 1, "state_dict": {f"model.{key}": value for key, value in state.items()}}
    torch.save(state, tmp_path / "weights.ckpt")
    load_weights(target, tmp_path / "weights.ckpt")
    for key, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[key])


@each_model
def test_a_checkpoint_of_other_widths_is_reported_key_by_key(make, name, tmp_path):
    source = make()
    key, value = next((key, value) for key, value in source.state_dict().items() if value.dim() > 1)
    torch.save({**source.state_dict(), key: value[:0], "further": value}, tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match=f"does not fit {name}") as error:
        load_weights(make(), tmp_path / "weights.ckpt")
    assert f"{key} (0, " in str(error.value)
    assert "1 unexpected in the file: further" in str(error.value)


@each_model
@pytest.mark.parametrize("wrong", ["channels", "axes"])
def test_an_input_of_another_shape_is_refused_with_the_one_expected(make, images, wrong):
    x = images.repeat(1, 2, *[1] * (images.dim() - 2)) if wrong == "channels" else images[0]
    with pytest.raises(ValueError, match=r"found an input of shape .*expected"):
        make().eval()(x)


WRONG = [
    ("UNeXt2", {"backbone": "convnextv2_atom"}, "unknown backbone 'convnextv2_atom'.*did you mean.*convnextv2_atto"),
    ("UNeXt2", {"in_channels": 0}, "in_channels is 0"),
    ("UNeXt2", {"in_stack_depth": 7}, "in_stack_depth 7 is not a multiple of the stem kernel depth 5; 5 and 10 are"),
    ("FullyConvolutionalMAE", {"out_channels": 0}, "out_channels is 0"),
    ("FullyConvolutionalMAE", {"dims": (8, 17)}, "expected two widths or more, each twice the one before"),
    (
        "FullyConvolutionalMAE",
        {"in_stack_depth": 7},
        "in_stack_depth 7 is not a multiple of the stem kernel depth 5; 5 and 10 are",
    ),
    ("ContrastiveEncoder", {"backbone": "convnext_atom"}, "unknown backbone 'convnext_atom'.*convnext_atto"),
    ("ContrastiveEncoder", {"in_stack_depth": 35}, "leaves 7 depth slices, which do not divide the 40 channels"),
    ("ResNet3dEncoder", {"backbone": "resnet11"}, "unknown 3D backbone 'resnet11'.*expected one of resnet10"),
    ("ResNet3dEncoder", {"in_channels": -1}, "in_channels is -1, expected at least 1"),
    ("BetaVae25D", {"backbone": "vgg16"}, "unknown backbone 'vgg16', expected a resnet or convnext"),
    ("BetaVae25D", {"input_spatial_size": (128, 128), "latent_dim": 15}, "latent_dim is 15, expected a multiple of 4"),
    ("BetaVae25D", {"input_spatial_size": (48, 48)}, r"input_spatial_size is \(48, 48\), expected multiples of 64"),
    ("BetaVaeMonai", {"norm": "group"}, "norm is 'group', expected one of batch, instance"),
    ("BetaVaeMonai", {"strides": (2,)}, "expected one of each a level"),
    ("Unet2d", {"num_filters": (4, 8)}, "num_filters has 2 numbers, expected 3"),
    ("Unet25d", {"out_stack_depth": 6}, "out_stack_depth is 6, expected at most in_stack_depth = 5"),
]


@pytest.mark.parametrize(("name", "wrong", "message"), WRONG)
def test_wrong_arguments_fail_at_construction(make, wrong, message):
    with pytest.raises(ValueError, match=message):
        make(**wrong)
