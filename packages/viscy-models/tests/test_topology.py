"""Names and shapes of weights over a grid of arguments, against the topology that checkpoints have, as it is written.

The rules are spelled out here once more, in their own way, and for arguments that the recorded configurations do not
cover. Only the inside of the backbones, which are timm's and MONAI's, is left out.
"""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch

import viscy_models

FEATURES = {  # of timm: widths of the feature maps, finest first
    "convnextv2_atto": [40, 80, 160, 320],
    "convnextv2_tiny": [96, 192, 384, 768],
    "convnext_tiny": [96, 192, 384, 768],
    "resnet18": [64, 64, 128, 256, 512],
    "resnet50": [64, 256, 512, 1024, 2048],
}


def some(grid):
    """Take a fifth of a grid; as no axis has 5 values, each value meets those of the other axes."""
    return list(grid)[::5]


def shapes(name, options, backbone):
    """Build a model without memory and list its weights, but those of the backbone."""
    with torch.device("meta"):
        model = getattr(viscy_models, name)(**options)
    return {key: tuple(value.shape) for key, value in model.state_dict().items() if not key.startswith(backbone)}


def both(key, *shape):
    return {f"{key}.weight": shape, f"{key}.bias": shape[:1]}


def batch_norm(key, width):
    return {**both(key, width), f"{key}.running_mean": (width,), f"{key}.running_var": (width,)} | {
        f"{key}.num_batches_tracked": ()
    }


def convnext_stage(key, taken, made, n_blocks):
    found = {}
    if taken != made:
        found |= both(f"{key}.downsample.0", taken) | both(f"{key}.downsample.1", made, taken, 1, 1)
    for j in range(n_blocks):
        block = f"{key}.blocks.{j}"
        found |= both(f"{block}.conv_dw", made, 1, 7, 7) | both(f"{block}.norm", made)
        found |= both(f"{block}.mlp.fc1", 4 * made, made, 1, 1) | both(f"{block}.mlp.grn", 4 * made)
        found |= both(f"{block}.mlp.fc2", made, 4 * made, 1, 1)
    return found


def residual_unit(key, taken, made, norm):
    found = {}
    for unit, width in (("unit0", taken), ("unit1", made)):
        found |= both(f"{key}.conv.{unit}.conv", made, width, 3, 3) | {f"{key}.conv.{unit}.adn.A.weight": (1,)}
        found |= batch_norm(f"{key}.conv.{unit}.adn.N", made) if norm == "batch" else {}
    return found | (both(f"{key}.residual", made, taken, 1, 1) if taken != made else {})


def voxel_head(key, taken, out, depth, ratio):
    middle, inner = 4 * out * ratio, taken // 4 // (depth + 2)
    found = both(f"{key}.conv.0.conv", middle, inner, 3, 3, 3) | {f"{key}.conv.0.adn.A.weight": (1,)}
    return found | both(f"{key}.conv.1", 4 * out, middle, 1, 1, 1)


def unext2_decoder(widths, n_blocks, pre_conv=False):
    found = {}
    for i, (coarse, fine) in enumerate(pairwise(widths)):
        stage, middle = f"decoder.decoder_stages.{i}", coarse // 4
        if pre_conv:
            found |= both(f"{stage}.upsample.pixelshuffle.conv_block", 4 * middle, coarse, 3, 3)
        found |= convnext_stage(f"{stage}.conv", middle + coarse // 2, fine, n_blocks)
    return found


@pytest.mark.parametrize(
    ("backbone", "channels", "depths", "ratio", "pre_conv"),
    some(
        product(
            ["convnextv2_atto", "convnextv2_tiny"],
            [(1, 1), (1, 2), (3, 1)],
            [(5, 5), (15, 3)],
            [1, 4],
            [False, True],
        )
    ),
)
def test_unext2(backbone, channels, depths, ratio, pre_conv):
    widths = FEATURES[backbone]
    if widths[0] % (depths[0] // 5):
        depths = (10, depths[1])
    options = {"in_channels": channels[0], "out_channels": channels[1], "in_stack_depth": depths[0]}
    options |= {"out_stack_depth": depths[1], "backbone": backbone, "head_expansion_ratio": ratio}
    options |= {"decoder_upsample_pre_conv": pre_conv, "decoder_conv_blocks": 3 - ratio // 2}
    head = (depths[1] + 2) * channels[1] * 4 * ratio
    expected = both("stem.conv", widths[0] // (depths[0] // 5), channels[0], 5, 4, 4)
    expected |= unext2_decoder([*widths[:0:-1], head], options["decoder_conv_blocks"], pre_conv)
    expected |= voxel_head("head", head, channels[1], depths[1], ratio)
    assert shapes("UNeXt2", options, "encoder_stages.") == expected


@pytest.mark.parametrize(
    ("channels", "depth", "head_conv", "ratio", "dims"),
    some(
        product(
            [(1, 1), (1, 2), (2, 1), (3, 2)],
            [5, 15],
            [False, True],
            [1, 4],
            [(24, 48), (96, 192, 384, 768)],
        )
    ),
)
def test_masked_autoencoder(channels, depth, head_conv, ratio, dims):
    options = {"in_channels": channels[0], "out_channels": channels[1], "in_stack_depth": depth, "dims": dims}
    options |= {"head_conv": head_conv, "head_conv_expansion_ratio": ratio, "encoder_blocks": [1] * len(dims)}
    head = (depth + 2) * channels[0] * 4 * ratio if head_conv else channels[1] * depth * 16
    expected = both("encoder.stem.conv3d", dims[0] // (depth // 5), channels[0], 5, 4, 4)
    expected |= both("encoder.stem.conv2d", dims[0], channels[0], 4, 4) | both("encoder.stem.norm", dims[0])
    for i, width in enumerate(dims):
        stage = f"encoder.stages.{i}"
        if i:
            expected |= both(f"{stage}.downsample.0", dims[i - 1])
            expected |= both(f"{stage}.downsample.1", width, dims[i - 1], 2, 2)
        expected |= {f"{stage}.blocks.0.dwconv.weight": (width, 1, 7, 7)} | both(f"{stage}.blocks.0.layernorm", width)
        expected |= both(f"{stage}.blocks.0.mlp.fc1", 4 * width, width)
        expected |= both(f"{stage}.blocks.0.mlp.grn", 4 * width)
        expected |= both(f"{stage}.blocks.0.mlp.fc2", width, 4 * width)
    expected |= unext2_decoder([*dims[:0:-1], head], n_blocks=1)
    expected |= voxel_head("head", head, channels[1], depth, ratio) if head_conv else {}
    assert shapes("FullyConvolutionalMAE", options, "nothing") == expected


def test_masked_autoencoder_as_recorded_from_a_checkpoint():
    options = {"in_channels": 1, "out_channels": 2, "in_stack_depth": 15, "stem_kernel_size": [5, 4, 4]}
    options |= {"head_conv": True, "head_conv_expansion_ratio": 4, "head_conv_pool": True}
    found = shapes("FullyConvolutionalMAE", options, "nothing")
    assert found["decoder.decoder_stages.2.conv.downsample.1.weight"] == (272, 144, 1, 1)
    assert found["decoder.decoder_stages.2.conv.blocks.0.mlp.fc1.weight"] == (1088, 272, 1, 1)


@pytest.mark.parametrize("head_conv", [False, True])
@pytest.mark.parametrize("channels", [(1, 2), (2, 1), (3, 2)])
def test_masked_autoencoder_translates_between_any_channels(channels, head_conv):
    options = {"dims": (8, 16), "encoder_blocks": (1, 1), "pretraining": False, "head_conv": head_conv}
    model = viscy_models.FullyConvolutionalMAE(*channels, **options).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, channels[0], 5, 8, 8)).shape == (1, channels[1], 5, 8, 8)


@pytest.mark.parametrize(
    ("backbone", "channels", "depth", "widths"),
    some(
        product(["convnext_tiny", "convnextv2_atto", "resnet18", "resnet50"], [1, 2], [5, 10, 20], [(8, 4), (768, 128)])
    ),
)
def test_contrastive_encoder(backbone, channels, depth, widths):
    stem = FEATURES[backbone][0]
    options = {"backbone": backbone, "in_channels": channels, "in_stack_depth": depth}
    options |= {"embedding_dim": widths[0], "projection_dim": widths[1]}
    expected = both("stem.conv", stem // (depth // 5), channels, 5, 4, 4)
    for linear, norm, taken, made in ((0, 1, FEATURES[backbone][-1], widths[0]), (3, 4, *widths)):
        expected |= both(f"projection.{linear}", made, taken) | batch_norm(f"projection.{norm}", made)
    assert shapes("ContrastiveEncoder", options, "encoder.") == expected


@pytest.mark.parametrize(
    ("backbone", "depth", "n_stages", "mode", "norm"),
    some(product(["resnet50", "convnext_tiny"], [4, 8], [3, 4], ["pixelshuffle", "deconv"], ["batch", "instance"])),
)
def test_variational_autoencoder(backbone, depth, n_stages, mode, norm):
    features = FEATURES[backbone]
    size = 128 // 4 // 2 ** (len(features) - 1)
    latent = 16 * size**2
    options = {"backbone": backbone, "in_channels": 3, "in_stack_depth": depth, "out_stack_depth": 2}
    options |= {"latent_dim": latent, "input_spatial_size": (128, 128), "decoder_stages": n_stages, "conv_blocks": 2}
    options |= {"upsample_mode": mode, "norm_name": norm, "head_expansion_ratio": 3}
    head = (2 + 2) * 3 * 4 * 3
    widths = [features[-1] // 2**i for i in range(n_stages)] + [head]
    expected = both("encoder.stem.conv", features[0] // (depth // 2), 3, 2, 4, 4)
    expected |= both("encoder.fc", latent, features[-1] * size**2)
    expected |= both("encoder.fc_mu", latent, latent) | both("encoder.fc_logvar", latent, latent)
    expected |= both("decoder.latent_reshape", latent, latent) | both("decoder.latent_proj", widths[0], 16, 1, 1)
    for i, (coarse, fine) in enumerate(pairwise(widths)):
        stage = f"decoder.decoder_stages.{i}"
        if mode == "deconv":
            expected |= {f"{stage}.upsample.conv.weight": (coarse, fine, 2, 2)}
            expected |= residual_unit(f"{stage}.conv.0", fine, fine, norm) | both(f"{stage}.conv.1", fine, fine, 1, 1)
        else:
            expected |= residual_unit(f"{stage}.conv.0", coarse // 4, fine, norm)
            expected |= residual_unit(f"{stage}.conv.1", fine, fine, norm)
    expected |= voxel_head("decoder.head", head, 3, 2, 3)
    assert shapes("BetaVae25D", options, "encoder.encoder.") == expected


@pytest.mark.parametrize(
    ("name", "channels", "n_blocks", "n_layers", "task", "residual"),
    some(product(["Unet2d", "Unet25d"], [(1, 1), (2, 3)], [2, 4], [1, 2], ["seg", "reg"], [False, True])),
)
def test_unets(name, channels, n_blocks, n_layers, task, residual):
    options = {"in_channels": channels[0], "out_channels": channels[1], "num_blocks": n_blocks, "task": task}
    options |= {"num_block_layers": n_layers, "residual": residual}
    flat = name == "Unet2d"
    options |= {} if flat else {"in_stack_depth": 5, "out_stack_depth": 3}
    down, up, point = ((3, 3),) * 2 + ((1, 1),) if flat else ((3, 3, 3), (1, 3, 3), (1, 1, 1))

    def block(key, taken, made, kernel, layers=n_layers, normed=True):
        found = both(f"{key}.resid_conv", made, taken, *point)
        for i in range(layers):
            found |= batch_norm(f"{key}.batch_norm_{i}", made) if normed else {}
            found |= both(f"{key}.Conv{len(kernel)}d_{i}", made, made if i else taken, *kernel)
        return found

    filters = [16 * 2**i for i in range(n_blocks + 1)]
    expected = {}
    for i, (taken, made) in enumerate(pairwise([channels[0], *filters[:-1]])):
        expected |= block(f"down_conv_block_{i}", taken, made, down)
        expected |= {} if flat else both(f"skip_conv_layer_{i}", made, made, 3, 1, 1)
    if flat:
        expected |= block("bottom_transition_block", filters[-2], filters[-1], down)
    else:
        expected |= both("bottom_transition_block", filters[-1], filters[-2], 3, 1, 1)
    for i, (below, made) in enumerate(pairwise(filters[::-1])):
        expected |= block(f"up_conv_block_{i}", below + made, made, up)
    normed = task == "seg" and not flat
    expected |= block("terminal_block", filters[0], channels[1], up, layers=1, normed=normed)
    assert shapes(name, options, "nothing") == expected
