"""Architectures beside plain timm, MONAI and torch modules of the same topology, forward and backward.

    python benchmarks/models.py [--quick] [--device cpu|cuda] [--threads N] [--only NAME ...]

Both take turns, in alternating order, so that a busy machine slows both alike; each line gives the medians of the times
and the median of the ratios of neighbouring measurements, over all runs and as a range over runs. A ratio below 1: ours
is faster. The plain forms have the same layers, and neither checks nor options; that of FCMAE has the ConvNeXt V2
blocks of timm, whose depthwise convolutions have a bias.
"""

# ruff: noqa: D102 - every method here is a forward

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from types import SimpleNamespace
from typing import NamedTuple

import timm
import torch
from monai.networks.blocks import Convolution, ResidualUnit, UpSample
from monai.networks.nets import VarAutoEncoder
from monai.networks.nets.resnet import ResNetFeatures
from timm.layers import LayerNorm2d
from timm.models.convnext import ConvNeXtStage
from torch import Tensor, nn

import viscy_models


class Case(NamedTuple):
    """An architecture: its arguments, the plain form, and the input shape."""

    arguments: dict
    plain: Callable[[], nn.Module]
    shape: tuple[int, ...]
    quick: tuple[int, ...]


class Stem(nn.Module):
    """3D convolution, depth folded into channels."""

    def __init__(self, channels: int, width: int, kernel: tuple[int, int, int], depth: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, width // (depth // kernel[0]), kernel, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(1, 2)


def projection(*widths: int) -> nn.Module:
    a, b, c = widths
    return nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(True), nn.Linear(b, c), nn.BatchNorm1d(c))


class Encoder(nn.Module):
    """Features of a backbone and their projection."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(x)
        return features, self.head(features)


def plain_contrastive() -> nn.Module:
    backbone = timm.create_model("convnext_tiny", num_classes=0)
    backbone.stem[0] = nn.Identity()
    return Encoder(nn.Sequential(Stem(2, 96, (5, 4, 4), 15), backbone), projection(768, 768, 128))


class LastMap(nn.Module):
    """Last feature map of MONAI's ResNet, averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ResNetFeatures("resnet18", pretrained=False, spatial_dims=3, in_channels=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[-1].mean((2, 3, 4))


class Head(nn.Module):
    """Pixel shuffle, 3D convolution, pixel shuffle."""

    def __init__(self, width: int, out: int, depth: int, expansion: int) -> None:
        super().__init__()
        self.depth, self.up = depth + 2, nn.PixelShuffle(2)
        middle = out * 4 * expansion
        self.conv = nn.Sequential(
            Convolution(3, width // 4 // self.depth, middle, kernel_size=3, padding=(0, 1, 1)),
            nn.Conv3d(middle, out * 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.up(x).unflatten(1, (-1, self.depth)))
        return self.up(x.transpose(1, 2)).transpose(1, 2)


class ShuffleHead(nn.Module):
    """Pixel shuffle straight to voxels, averaged over neighbours."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.up = UpSample(2, width, depth, 4, mode="pixelshuffle", pre_conv=None, apply_pad_pool=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x).unflatten(1, (-1, self.depth))


def shuffle(width: int) -> nn.Module:
    return UpSample(2, width, width // 4, 2, mode="pixelshuffle", pre_conv=None, apply_pad_pool=False)


def convnext_stage(before: int, after: int, depth: int) -> nn.Module:
    norm = {"norm_layer": LayerNorm2d, "norm_layer_cl": LayerNorm2d}
    return ConvNeXtStage(before, after, stride=1, depth=depth, ls_init_value=None, conv_mlp=True, use_grn=True, **norm)


class Unext(nn.Module):
    """Features of timm, decoder with skip connections, head."""

    def __init__(self, stem: nn.Module, head: nn.Module, width: int, blocks: int) -> None:
        super().__init__()
        self.stem, self.head = stem, head
        self.encoder = timm.create_model("convnextv2_tiny", features_only=True)
        self.encoder["stem_0"] = nn.Identity()
        pairs = list(pairwise([768, 384, 192, width]))
        self.up = nn.ModuleList(shuffle(a) for a, _ in pairs)
        self.conv = nn.ModuleList(convnext_stage(a // 4 + a // 2, b, blocks) for a, b in pairs)

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(self.stem(x))
        x = features.pop()
        for up, conv in zip(self.up, self.conv, strict=True):
            x = conv(torch.cat([up(x), features.pop()], 1))
        return self.head(x)


class Vae(nn.Module):
    """ResNet, latent space, residual decoder, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(2, 64, (2, 4, 4), 16)
        self.encoder = timm.create_model("resnet50", features_only=True)
        self.encoder["conv1"] = nn.Identity()
        self.size, last = 4, (16 + 2) * 2 * 4 * 2
        self.fc = nn.Linear(2048 * self.size**2, 1024)
        self.mean, self.logvar, self.reshape = (nn.Linear(1024, 1024) for _ in range(3))
        self.proj = nn.Conv2d(1024 // self.size**2, 2048, 1)
        self.decoder = nn.Sequential(
            *(
                nn.Sequential(shuffle(a), ResidualUnit(2, a // 4, b, norm="batch"), ResidualUnit(2, b, b, norm="batch"))
                for a, b in pairwise([2048, 1024, 512, 256, last])
            ),
            Head(last, 2, 16, 2),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        hidden = self.fc(self.encoder(self.stem(x))[-1].flatten(1))
        mean, logvar = self.mean(hidden), self.logvar(hidden)
        z = mean + torch.randn_like(mean) * (0.5 * logvar).exp() if self.training else mean
        return self.decoder(self.proj(self.reshape(z).unflatten(1, (-1, self.size, self.size)))), mean, logvar


def convolutions(before: int, after: int, kernel: Sequence[int], n: int = 2, drop: float = 0.2) -> nn.Module:
    """Chain convolution, dropout, ReLU and batch norm."""
    conv, norm, dropout = (
        (nn.Conv2d, nn.BatchNorm2d, nn.Dropout2d)
        if len(kernel) == 2
        else (nn.Conv3d, nn.BatchNorm3d, nn.Dropout3d)
    )  # fmt: skip
    widths = [before] + [after] * n
    padding = tuple(size // 2 for size in kernel)
    return nn.Sequential(
        *(
            nn.Sequential(conv(a, b, kernel, padding=padding), dropout(drop), nn.ReLU(), norm(b))
            for a, b in pairwise(widths)
        )
    )


class Unet(nn.Module):
    """U-Net of chains of convolutions, 2D or with depth."""

    def __init__(self, volume: bool) -> None:
        super().__init__()
        widths, down, up = [16, 32, 64, 128, 256], (3, 3), (3, 3)
        if volume:
            down, up = (3, 3, 3), (1, 3, 3)
        self.down = nn.ModuleList(convolutions(a, b, down) for a, b in pairwise([1, *widths[:-1]]))
        self.pool = nn.AvgPool3d((1, 2, 2)) if volume else nn.AvgPool2d(2)
        self.skip = nn.ModuleList(nn.Conv3d(w, w, (5, 1, 1)) if volume else nn.Identity() for w in widths[:-1])
        self.bottom = nn.Conv3d(128, 256, (5, 1, 1)) if volume else convolutions(128, 256, down)
        self.larger = (
            nn.Upsample(scale_factor=(1, 2, 2), mode="trilinear")
            if volume
            else nn.Upsample(scale_factor=2, mode="bilinear")
        )
        self.up = nn.ModuleList(convolutions(a + b, b, up) for a, b in pairwise(widths[::-1]))
        last = nn.Sequential(nn.Conv2d(16, 1, 3, padding=1), nn.ReLU())
        self.last = convolutions(16, 1, up, 1) if volume else last
        self.volume = volume

    def forward(self, x: Tensor) -> Tensor:
        x, kept = x if self.volume else x.squeeze(2), []
        for block, skip in zip(self.down, self.skip, strict=True):
            x = block(x)
            kept.append(skip(x))
            x = self.pool(x)
        x = self.bottom(x)
        for block in self.up:
            x = block(torch.cat([self.larger(x), kept.pop()], 1))
        x = self.last(x)
        return x if self.volume else x.unsqueeze(2)


UNEXT_WIDTH = (5 + 2) * 4 * 4
MONAI_VAE = {
    **{"spatial_dims": 3, "in_shape": (2, 16, 64, 64), "out_channels": 2, "latent_size": 128},
    **{"channels": (32, 64, 128, 256), "strides": (2, 2, 2, 2)},
}
CASES = {
    "UNeXt2": Case(
        {},
        lambda: Unext(Stem(1, 96, (5, 4, 4), 5), Head(UNEXT_WIDTH, 1, 5, 4), UNEXT_WIDTH, 2),
        (2, 1, 5, 256, 256),
        (2, 1, 5, 128, 128),
    ),
    "FullyConvolutionalMAE": Case(
        {"in_channels": 1, "out_channels": 1, "pretraining": False},
        lambda: Unext(Stem(1, 96, (5, 4, 4), 5), ShuffleHead(5 * 16, 5), 5 * 16, 1),
        (2, 1, 5, 256, 256),
        (2, 1, 5, 128, 128),
    ),
    "ContrastiveEncoder": Case(
        {"backbone": "convnext_tiny", "in_channels": 2, "in_stack_depth": 15},
        plain_contrastive,
        (8, 2, 15, 160, 160),
        (4, 2, 15, 128, 128),
    ),
    "ResNet3dEncoder": Case(
        {"backbone": "resnet18"},
        lambda: Encoder(LastMap(), projection(512, 512, 128)),
        (2, 1, 32, 96, 96),
        (2, 1, 16, 64, 64),
    ),
    "BetaVae25D": Case(
        {"input_spatial_size": (256, 256)},
        Vae,
        (2, 2, 16, 256, 256),
        (2, 2, 16, 256, 256),
    ),
    "BetaVaeMonai": Case(MONAI_VAE, lambda: VarAutoEncoder(**MONAI_VAE), (4, 2, 16, 64, 64), (2, 2, 16, 64, 64)),
    "Unet2d": Case({}, lambda: Unet(volume=False), (2, 1, 1, 256, 256), (2, 1, 1, 128, 128)),
    "Unet25d": Case({}, lambda: Unet(volume=True), (2, 1, 5, 256, 256), (2, 1, 5, 128, 128)),
}


def forward(model: nn.Module, x: Tensor) -> list[Tensor]:
    result = model(x)
    result = vars(result).values() if isinstance(result, SimpleNamespace) else result
    return [result] if isinstance(result, Tensor) else list(result)


def forward_backward(model: nn.Module, x: Tensor) -> None:
    sum(value.square().mean() for value in forward(model, x)).backward()
    model.zero_grad()


def seconds(run: Callable[[nn.Module, Tensor], object], model: nn.Module, x: Tensor) -> float:
    synchronize = torch.cuda.synchronize if x.is_cuda else lambda: None
    # With one thread the time of the processor is what the others on the machine disturb least.
    clock = time.perf_counter if x.is_cuda or torch.get_num_threads() > 1 else time.process_time
    synchronize()
    start = clock()
    run(model, x)
    synchronize()
    return clock() - start


def compare(models: Sequence[nn.Module], x: Tensor, training: bool, n_rounds: int) -> list[tuple[float, float]]:
    """Return the times of both, after two rounds to warm up."""
    run = forward_backward if training else forward
    for model in models:
        model.train(training)
    times = []
    with torch.set_grad_enabled(training):
        for i in range(-2, n_rounds):
            order = (0, 1) if i % 2 else (1, 0)
            measured = {side: seconds(run, models[side], x) for side in order}
            times += [(measured[0], measured[1])] if i >= 0 else []
    return times


def report(name: str, what: str, runs: list[list[tuple[float, float]]]) -> str:
    per_run = [median(ours / plain for ours, plain in times) for times in runs]
    ours, plain = (median(pair[side] for times in runs for pair in times) * 1e3 for side in (0, 1))
    whole = median(a / b for times in runs for a, b in times)
    return f"| {name} | {what} | {ours:.0f} | {plain:.0f} | {whole:.3f} | {min(per_run):.3f}-{max(per_run):.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller images, fewer rounds")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="*", choices=CASES, help="names of architectures")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; more need an idle machine")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    n_runs, n_rounds = (2, 4) if args.quick else (3, 8)
    print(
        "| architecture | what | ours (ms) | plain (ms) | ours / plain | range over runs |\n|---|---|---|---|---|---|"
    )
    for name in args.only or CASES:
        case = CASES[name]
        models = [getattr(viscy_models, name)(**case.arguments), case.plain()]
        x = torch.rand(case.quick if args.quick else case.shape, device=args.device)
        for what in ("forward", "forward and backward"):
            moved = [model.to(args.device) for model in models]
            runs = [compare(moved, x, what != "forward", n_rounds) for _ in range(n_runs)]
            print(report(name, what, runs), flush=True)


if __name__ == "__main__":
    main()
