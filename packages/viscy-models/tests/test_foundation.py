"""Pretrained encoders, with random weights of tiny networks, beside transformers that are written out here."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, instance_norm, interpolate, layer_norm, softmax

from viscy_models.foundation import CellDinoModel, DINOv3Model, OpenPhenomModel, TimmEncoder

TINY = {"depth": 2, "embed_dim": 64, "num_heads": 2}


def random(*shape: int, scale: float = 0.2) -> Tensor:
    return torch.randn(shape) * scale


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def transformer_weights(width: int, tokens: int, patch: int) -> dict[str, Tensor]:
    """Return what the weights of both kinds of transformers have in common."""
    return {
        "cls_token": random(1, 1, width),
        "patch_embed.proj.weight": random(width, 1, patch, patch),
        "patch_embed.proj.bias": random(width),
        "norm.weight": 1 + random(width),
        "norm.bias": random(width),
        "pos_embed": random(1, 1 + tokens, width),
    }


def dinov2_weights(width: int = 128, depth: int = 2, side: int = 2, patch: int = 8) -> dict[str, Tensor]:
    state = transformer_weights(width, side**2, patch) | {"mask_token": random(1, width)}
    for i in range(depth):
        shapes = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        shapes |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for name, shape in shapes.items():
            state |= {f"blocks.{i}.{name}.weight": random(*shape), f"blocks.{i}.{name}.bias": random(shape[0])}
        for name in ("norm1", "norm2"):
            state |= {f"blocks.{i}.{name}.weight": 1 + random(width), f"blocks.{i}.{name}.bias": random(width)}
        state |= {f"blocks.{i}.ls1.gamma": random(width), f"blocks.{i}.ls2.gamma": random(width)}
    return state


def parallel_weights(width: int = 32, depth: int = 2, side: int = 2, patch: int = 8) -> dict[str, Tensor]:
    state = transformer_weights(width, side**2, patch)
    state["pos_embed"] = torch.cat([random(1, 1, width), random(1, side**2, width).repeat(1, 3, 1)], dim=1)
    for i in range(depth):
        b = f"blocks.{i}."
        state |= {b + "in_norm.weight": 1 + random(width), b + "in_norm.bias": random(width)}
        state |= {b + "in_proj.weight": random(7 * width, width), b + "mlp_bias": random(4 * width)}
        for name in ("q_norm", "k_norm"):
            state |= {b + f"{name}.weight": 1 + random(width // 2), b + f"{name}.bias": random(width // 2)}
        for name, inputs in (("attn_out_proj", width), ("mlp_out_proj", 4 * width)):
            state |= {b + f"{name}.weight": random(width, inputs), b + f"{name}.bias": random(width)}
        state[b + "ls.gamma"] = random(width)
    return state


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)


def linear(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend for one sequence and one head."""
    return softmax(q @ k.T / math.sqrt(q.shape[-1]), dim=-1) @ v


def patches(image: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Return the tokens (N, W) of one image (Y, X), without positions."""
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    return conv2d(image[None, None], weight, bias, stride=weight.shape[-1])[0].flatten(1).T


def dinov2_features(image: Tensor, state: dict[str, Tensor], depth: int = 2) -> Tensor:
    """Return the class token (W,) of one image (Y, X)."""
    x = torch.cat([state["cls_token"][0], patches(image, state)]) + state["pos_embed"][0]
    width = x.shape[1]
    for i in range(depth):
        b = f"blocks.{i}."
        q, k, v = linear(norm(x, state, b + "norm1"), state, b + "attn.qkv").split(width, dim=1)
        heads = [attention(q[:, h : h + 64], k[:, h : h + 64], v[:, h : h + 64]) for h in range(0, width, 64)]
        x = x + state[b + "ls1.gamma"] * linear(torch.cat(heads, dim=1), state, b + "attn.proj")
        hidden = gelu(linear(norm(x, state, b + "norm2"), state, b + "mlp.fc1"))
        x = x + state[b + "ls2.gamma"] * linear(hidden, state, b + "mlp.fc2")
    return norm(x, state, "norm")[0]


def channel_agnostic_features(images: Tensor, state: dict[str, Tensor], depth: int = 2) -> Tensor:
    """Return the mean tokens (C, W) of the channels of one image (C, Y, X)."""
    positions = state["pos_embed"][0]
    tokens = torch.cat([patches(image, state) for image in images])
    x = torch.cat([state["cls_token"][0] + positions[:1], tokens + positions[1 : 1 + len(tokens)]])
    width = x.shape[1]
    for i in range(depth):
        b = f"blocks.{i}."
        both = norm(x, state, b + "in_norm") @ state[b + "in_proj.weight"].T
        mlp, q, k, v = both.split([4 * width, width, width, width], dim=1)
        half = width // 2
        heads = [
            attention(norm(q[:, s], state, b + "q_norm"), norm(k[:, s], state, b + "k_norm"), v[:, s])
            for s in (slice(0, half), slice(half, width))
        ]
        attended = linear(torch.cat(heads, dim=1), state, b + "attn_out_proj")
        x = x + state[b + "ls.gamma"] * (
            attended + linear(gelu(mlp + state[b + "mlp_bias"]), state, b + "mlp_out_proj")
        )
    return norm(x, state, "norm")[1:].unflatten(0, (len(images), -1)).mean(dim=1)


def test_channels_are_encoded_alone_and_put_together_as_asked(tmp_path):
    options = {"pretrained": False, "in_channels": 2, "img_size": 32, "model_options": TINY}
    joined = TimmEncoder("vit_small_patch16_224", **options).eval()
    averaged = TimmEncoder("vit_small_patch16_224", **options, channels="average").eval()
    averaged.load_state_dict(joined.state_dict())
    x = torch.randn(3, 2, 5, 48, 48)
    middle = interpolate(x[:, :, 2], size=(32, 32), mode="bilinear", antialias=True)
    alone = [joined.backbone(middle[:, [c, c, c]]) for c in range(2)]
    features, projections = joined(x)
    torch.testing.assert_close(features, torch.cat(alone, dim=1))
    assert projections is features
    assert joined.num_features == features.shape[1] == 128
    torch.testing.assert_close(averaged(x)[0], (alone[0] + alone[1]) / 2)
    assert averaged.num_features == 64


@pytest.mark.parametrize("plane", ["middle", "max", "mean"])
def test_a_stack_becomes_the_plane_that_was_asked_for(plane):
    x = torch.randn(2, 1, 4, 16, 16)
    slow = torch.empty(2, 1, 16, 16)
    for b in range(2):
        for row in range(16):
            for column in range(16):
                column_values = x[b, 0, :, row, column].tolist()
                chosen = {"middle": column_values[2], "max": max(column_values), "mean": sum(column_values) / 4}
                slow[b, 0, row, column] = chosen[plane]
    encoder = TimmEncoder("resnet18", pretrained=False, img_size=16, plane=plane)
    torch.testing.assert_close(encoder.preprocess_2d(x), slow)


def test_a_model_of_dinov2_is_read_from_a_file_of_timm(tmp_path):
    source = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=518, **TINY)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    encoder = TimmEncoder(
        "vit_small_patch14_dinov2", pretrained=tmp_path / "weights.safetensors", img_size=28, model_options=TINY
    )
    assert torch.equal(encoder.backbone.blocks[1].mlp.fc2.weight, source.blocks[1].mlp.fc2.weight)
    assert encoder(torch.randn(2, 1, 1, 28, 28))[0].shape == (2, 64)


@pytest.mark.parametrize("prefix", ["", "teacher"])
def test_cell_dino_is_the_transformer_of_its_weights(tmp_path, prefix):
    state = dinov2_weights()
    chunked = {k.replace("blocks.", f"backbone.blocks.{k.split('.')[1]}.") if "blocks" in k else f"backbone.{k}": v
               for k, v in state.items()}  # fmt: skip
    torch.save({"teacher": chunked} if prefix else state, tmp_path / "weights.pth")
    model = CellDinoModel(tmp_path / "weights.pth", img_size=16, patch_size=8, in_channels=2)
    x = torch.randn(3, 2, 1, 16, 16) * 3 + 1
    images = instance_norm(x[:, :, 0])
    slow = torch.stack([torch.cat([dinov2_features(c, state) for c in image]) for image in images])
    torch.testing.assert_close(model(x)[0], slow, rtol=1e-4, atol=1e-4)


def test_openphenom_is_the_channel_agnostic_encoder_of_its_weights(tmp_path):
    state = parallel_weights()
    whole = {f"encoder.vit_backbone.{k}": v for k, v in state.items()} | {"decoder.mask_token": random(1, 1, 8)}
    save_file({k: v.contiguous() for k, v in whole.items()}, tmp_path / "model.safetensors")
    each = OpenPhenomModel(str(tmp_path), in_channels=3, channels="concatenate")
    mean = OpenPhenomModel(str(tmp_path / "model.safetensors"), in_channels=3, projection_dim=4)
    x = torch.randn(2, 3, 1, 16, 16) * 2 - 1
    slow = torch.stack([channel_agnostic_features(image, state) for image in instance_norm(x[:, :, 0])])
    torch.testing.assert_close(each(x)[0], slow.flatten(1), rtol=1e-4, atol=1e-4)
    features, projections = mean(x)
    torch.testing.assert_close(features, slow.mean(dim=1), rtol=1e-4, atol=1e-4)
    assert projections.shape == (2, 4)


def test_what_is_frozen_stays_as_it_is_and_its_projection_learns():
    encoder = TimmEncoder("vit_small_patch16_224", pretrained=False, img_size=16, projection_dim=8, model_options=TINY)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()
    assert not encoder.backbone.training
    assert encoder.projection.training
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    encoder(torch.randn(4, 1, 1, 16, 16))[1].square().sum().backward()
    torch.optim.SGD(trained, lr=0.1).step()
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("projection.") for name in changed)


def test_what_is_not_frozen_gets_gradients():
    encoder = TimmEncoder("vit_small_patch16_224", freeze=False, pretrained=False, img_size=16, model_options=TINY)
    encoder.train()(torch.randn(4, 1, 1, 16, 16))[0].square().sum().backward()
    assert encoder.backbone.patch_embed.proj.weight.grad.abs().sum() > 0
    assert encoder.backbone.training


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("facebook/dinov3-vits16-pretrain-lvd1689m", "vit_small_patch16_dinov3.lvd1689m"),
        ("facebook/dinov3-convnext-tiny-pretrain-lvd1689m", "convnext_tiny.dinov3_lvd1689m"),
        ("vit_small_patch16_dinov3", "vit_small_patch16_dinov3"),
    ],
)
def test_networks_of_dinov3_are_found_by_the_names_that_people_know(monkeypatch, name, expected):
    asked = []
    tiny = timm.create_model("resnet18", num_classes=0)
    monkeypatch.setattr(timm, "create_model", lambda found, **options: asked.append(found) or tiny)
    DINOv3Model(name, pretrained=False)
    assert asked == [expected]


def test_every_published_name_of_dinov3_is_a_model_of_timm():
    networks = ["vits16", "vits16plus", "vitb16", "vitl16", "vith16plus", "vit7b16"]
    networks += ["convnext-tiny", "convnext-small", "convnext-base", "convnext-large"]
    known = set(timm.list_pretrained("*dinov3*"))
    with pytest.MonkeyPatch.context() as patch:
        tiny = timm.create_model("resnet18", num_classes=0)
        patch.setattr(timm, "create_model", lambda found, **options: asked.append(found) or tiny)
        asked: list[str] = []
        for network in networks:
            DINOv3Model(f"facebook/dinov3-{network}-pretrain-lvd1689m", pretrained=False)
    assert set(asked) <= known


def test_a_tiny_dinov3_encodes_stacks():
    tiny = {"depth": 1, "embed_dim": 64, "num_heads": 1}
    model = DINOv3Model("vit_small_patch16_dinov3", pretrained=False, img_size=32, model_options=tiny)
    assert model(torch.randn(2, 1, 3, 40, 40))[0].shape == (2, 64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: DINOv3Model("resnet18"), "expected a network of DINOv3"),
        (lambda path: DINOv3Model("facebook/dinov3-vitx-pretrain-lvd1689m"), "vits16plus"),
        (lambda path: TimmEncoder("resnet18", pretrained=False, plane="mid"), "plane.*'mid'.*middle, max, mean"),
        (lambda path: TimmEncoder("resnet18", pretrained=False, channels="rgb"), "channels.*'rgb'"),
        (lambda path: TimmEncoder("resnet18", pretrained=False, in_channels=0), "in_channels"),
        (lambda path: TimmEncoder("vit_tiny_patch16_224", pretrained=False, img_size=40), "multiple .* 16 pixels"),
        (lambda path: CellDinoModel(path, img_size=30), "img_size: found 30, expected a multiple of patch_size 16"),
        (lambda path: CellDinoModel(path), "found no pos_embed"),
        (lambda path: OpenPhenomModel(str(path)), "found no pos_embed"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, make, message):
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "other.pt")


def test_weights_that_are_cut_short_are_refused(tmp_path):
    state = dinov2_weights(depth=2)
    del state["blocks.1.mlp.fc2.bias"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(ValueError, match=r"does not fit .*\n.*1 missing from the file: blocks.1.mlp.fc2.bias"):
        CellDinoModel(tmp_path / "cut.pth", img_size=16, patch_size=8)
    with pytest.raises(FileNotFoundError, match="absent"):
        OpenPhenomModel(str(tmp_path / "absent.safetensors"))


def test_an_image_of_other_channels_is_refused():
    encoder = TimmEncoder("resnet18", pretrained=False, img_size=32)
    with pytest.raises(ValueError, match=r"C = 1: in_channels of the encoder"):
        encoder(torch.zeros(2, 2, 1, 32, 32))


def test_two_projections_are_one_too_many():
    with pytest.raises(ValueError, match="at most one"):
        TimmEncoder("resnet18", projection=nn.Identity(), pretrained=False, projection_dim=4)
