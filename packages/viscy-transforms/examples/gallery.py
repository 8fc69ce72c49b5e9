"""Draw what every transform does to a synthetic cell, as a grid of images.

    python packages/viscy-transforms/examples/gallery.py [OUTPUT.png]

Needs matplotlib. The first channel is shown, in its middle slice unless said otherwise; every panel starts from the
cell in the upper left corner.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from monai.data import set_track_meta
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

import viscy_transforms as vt

SHAPE = (9, 96, 96)
MIDDLE = SHAPE[0] // 2
COLUMNS = 7
ALWAYS = {"prob": 1.0}
ABOUT_Z = {"rotate_range": [(0.6, 0.6), 0.0, 0.0]}

Panel = tuple[str, str, Callable[[], Tensor]]


def draw_cell() -> Tensor:
    """Draw a membrane, a nucleus with nucleoli, and vesicles, off centre and lopsided, in photons from 0 to about 1."""
    rng = np.random.default_rng(7)
    z, y, x = np.meshgrid(*(np.arange(length, dtype=float) for length in SHAPE), indexing="ij")

    def blob(center, radii, softness=0.08):
        distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), center, radii, strict=True)) ** 0.5
        return 1 / (1 + np.exp((distance - 1) / softness))

    body = np.maximum(blob((4, 52, 44), (5, 30, 34)), blob((4, 34, 66), (4, 15, 22)))
    image = 0.30 * body + 0.45 * blob((4, 56, 38), (3.5, 14, 17), 0.05)
    for dy, dx in ((-4, -6), (5, 5)):
        image += 0.35 * blob((4, 56 + dy, 38 + dx), (1.5, 3, 3), 0.2)
    for _ in range(26):
        center = rng.uniform((2, 22, 14), (7, 80, 84))
        image += 0.55 * blob(center, (1.2, 1.8, 1.8), 0.3) * body
    return torch.from_numpy(image + rng.normal(0.02, 0.012, SHAPE)).float().clamp(min=0)


def show(image: Tensor) -> Tensor:
    """Take the first sample, the first channel and the middle slice."""
    volume = image.reshape(-1, *image.shape[-3:])[0]
    return volume[volume.shape[0] // 2]


def side_by_side(images: list[Tensor], gap: int = 4) -> Tensor:
    """Put middle slices next to one another."""
    return torch.cat([pad(show(image), (0, gap), value=torch.nan) for image in images], -1)[:, :-gap]


def apply(name: str, cell: Tensor, *args, seed: int = 0, **kwargs) -> Tensor:
    """Apply a transform by name: dictionary forms to the key ``x``."""
    cls = getattr(vt, name)
    transform = cls("x", *args, **kwargs) if name.endswith("d") else cls(*args, **kwargs)
    if hasattr(transform, "set_random_state"):
        torch.manual_seed(seed)
        transform.set_random_state(seed=seed)
    return torch.as_tensor(transform({"x": cell})["x"] if name.endswith("d") else transform(cell))


def geometric(batch: Tensor) -> list[Panel]:
    """List what moves pixels."""
    in_plane = [(1.0, 1.0), (0.6, 0.9), (1.1, 1.3)]
    roi = (SHAPE[0], 48, 48)
    weights = torch.zeros(1, *SHAPE)
    weights[:, MIDDLE, 56, 38] = weights[:, MIDDLE, 34, 66] = 1
    sample = batch[0]
    return [
        (
            "BatchedRandAffined",
            "turned and stretched",
            lambda: apply("BatchedRandAffined", batch, **ALWAYS, **ABOUT_Z, scale_range=in_plane),
        ),
        ("RandAffined", "sample by sample", lambda: apply("RandAffined", batch, 1.0, [(-0.6, -0.6), 0, 0], 0.0, 0.0)),
        ("BatchedRandFlip(d)", "x and y", lambda: apply("BatchedRandFlip", batch, [1, 2], 1.0)),
        ("RandFlipd", "y", lambda: apply("RandFlipd", batch, 1.0, 1)),
        (
            "BatchedRand3DElasticd",
            "smooth field",
            lambda: apply("BatchedRand3DElasticd", batch, (5.0, 5.0), (60.0, 60.0), **ALWAYS),
        ),
        (
            "BatchedRandZStackShiftd",
            "by 4 slices",
            lambda: apply("BatchedRandZStackShiftd", batch, 4, seed=8, **ALWAYS),
        ),
        ("BatchedRandSpatialCrop(d)", "48 of 96 pixels", lambda: apply("BatchedRandSpatialCrop", batch, roi, seed=3)),
        ("RandSpatialCropd", "48 of 96 pixels", lambda: apply("RandSpatialCropd", batch, roi, seed=4)),
        ("BatchedCenterSpatialCrop(d)", "48 of 96 pixels", lambda: apply("BatchedCenterSpatialCrop", batch, roi)),
        ("CenterSpatialCropd", "64 of 96 pixels", lambda: apply("CenterSpatialCropd", batch, (SHAPE[0], 64, 64))),
        ("RandWeightedCropd", "two windows, by weight", lambda: weighted_crops(sample, weights)),
        ("TiledSpatialCropSamplesd", "the first two tiles", lambda: tiles(sample)),
        ("BatchedZoom(d)", "0.25, 24 by 24 pixels", lambda: apply("BatchedZoom", batch, (1, 0.25, 0.25), "area")),
    ]


def intensity(batch: Tensor) -> list[Panel]:
    """List what changes every pixel on its own."""
    stats = {"mean": torch.tensor([0.3]), "std": torch.tensor([0.4])}
    normalized = {"x": batch, "norm_meta": {"x": {"fov_statistics": stats}}}
    normalize, percentiles = vt.NormalizeSampled("x", "fov_statistics"), (5, 95, 0.0, 1.0)
    return [
        ("BatchedRandAdjustContrast(d)", "gamma 0.4", lambda: apply("BatchedRandAdjustContrast", batch, 0.4, 1.0)),
        ("RandAdjustContrastd", "gamma 3", lambda: apply("RandAdjustContrastd", batch, 1.0, (2.99, 3.01))),
        (
            "BatchedRandScaleIntensity(d)",
            "times 1.8",
            lambda: apply("BatchedRandScaleIntensity", batch, (0.8, 0.8), 1.0),
        ),
        ("RandScaleIntensityd", "times 0.4", lambda: apply("RandScaleIntensityd", batch, (-0.6, -0.6), 1.0)),
        (
            "BatchedRandHistogramShiftd",
            "plus 0.4",
            lambda: apply("BatchedRandHistogramShiftd", batch, (0.4, 0.4), **ALWAYS),
        ),
        ("RandInvertIntensityd", "shown from -1.2 to 0", lambda: apply("RandInvertIntensityd", batch, **ALWAYS) + 1.2),
        (
            "NormalizeSampled",
            "shown from -1 to 2",
            lambda: 0.4 * (1 + normalize(normalized)["x"]),
        ),
        ("NormalizeIntensityd", "shown from -1 to 5", lambda: 0.2 * (1 + apply("NormalizeIntensityd", batch))),
        (
            "BatchedScaleIntensityRangePercentiles(d)",
            "5 to 95 %",
            lambda: apply("BatchedScaleIntensityRangePercentiles", batch, *percentiles),
        ),
        (
            "ScaleIntensityRangePercentilesd",
            "5 to 95 %, clipped",
            lambda: apply("ScaleIntensityRangePercentilesd", batch, *percentiles, clip=True),
        ),
    ]


def filters(batch: Tensor) -> list[Panel]:
    """List what mixes pixels with their neighbours or with noise."""
    noisy = {"mean": 0.0, "std": 0.25}
    return [
        (
            "BatchedRandGaussianSmooth(d)",
            "sigma 2",
            lambda: apply("BatchedRandGaussianSmooth", batch, 2.0, 2.0, 0.0, **ALWAYS),
        ),
        ("RandGaussianSmoothd", "sigma 4", lambda: apply("RandGaussianSmoothd", batch, 1.0, 0.0, 4.0, 4.0)),
        ("BatchedRandSharpend", "share 0.6", lambda: apply("BatchedRandSharpend", batch, (0.6, 0.6), **ALWAYS)),
        (
            "BatchedRandGaussianNoise(d)",
            "deviation 0.25",
            lambda: apply("BatchedRandGaussianNoise", batch, 1.0, **noisy, sample_std=False),
        ),
        (
            "RandGaussianNoised",
            "deviation 0.25",
            lambda: apply("RandGaussianNoised", batch, 1.0, **noisy, sample_std=False),
        ),
        (
            "RandGaussianNoiseTensor(d)",
            "deviation 0.15",
            lambda: apply("RandGaussianNoiseTensor", batch[0], 1.0, 0.0, 0.15, sample_std=False),
        ),
        (
            "BatchedRandLocalPixelShufflingd",
            "cubes of 9 pixels",
            lambda: apply("BatchedRandLocalPixelShufflingd", batch, 9, 0.8, **ALWAYS),
        ),
    ]


def structure(batch: Tensor) -> list[Panel]:
    """List what changes the dictionary."""
    two = torch.cat([batch, batch.flip(-1)])
    channels = {"a": batch[0], "b": batch[0].square()}
    return [
        (
            "StackChannelsd",
            "two channels of one tensor",
            lambda: two_channels(vt.StackChannelsd({"x": ["a", "b"]})(channels)["x"]),
        ),
        (
            "Decollate",
            "two samples of a batch",
            lambda: side_by_side([torch.as_tensor(one) for one in vt.Decollate()(two)]),
        ),
        (
            "Decollated",
            "two samples of a batch",
            lambda: side_by_side([torch.as_tensor(one["x"]) for one in vt.Decollated("x")({"x": two})]),
        ),
        ("ToDeviced", "elsewhere, unchanged", lambda: apply("ToDeviced", batch, device="cpu")),
    ]


def two_channels(stacked: Tensor) -> Tensor:
    """Put channels next to one another."""
    return side_by_side([channel[None] for channel in stacked])


def weighted_crops(sample: Tensor, weights: Tensor) -> Tensor:
    """Put the windows of RandWeightedCropd next to one another."""
    crop = vt.RandWeightedCropd("x", "w", (SHAPE[0], 40, 40), num_samples=2).set_random_state(seed=1)
    crops = crop({"x": sample, "w": weights})
    return side_by_side([torch.as_tensor(crop["x"]) for crop in crops])


def tiles(sample: Tensor) -> Tensor:
    """Put the tiles of TiledSpatialCropSamplesd next to one another."""
    found = vt.TiledSpatialCropSamplesd("x", (SHAPE[0], 48, 48), 2)({"x": sample})
    return side_by_side([tile["x"] for tile in found])


def main(path: Path) -> None:
    """Draw the grid."""
    set_track_meta(False)
    batch = draw_cell()[None, None]
    original = [("one cell", "the input", lambda: batch)]
    panels = [*original, *geometric(batch), *intensity(batch), *filters(batch), *structure(batch)]
    rows = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(2.1 * COLUMNS, 2.72 * rows), squeeze=False)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.945, wspace=0.06, hspace=0.4)
    for axis, (title, note, make) in zip(axes.flat, panels, strict=True):
        image = make()
        axis.axis("off")
        axis.imshow(show(image) if image.ndim > 2 else image, cmap="inferno", vmin=0, vmax=1.2, interpolation="nearest")
        axis.set_anchor("N")
        axis.set_title(break_lines(title), fontsize=9.5, fontweight="bold", pad=17, linespacing=1.1)
        axis.text(0.5, 1.025, note, fontsize=9, color="0.3", ha="center", va="bottom", transform=axis.transAxes)
    save(figure, path)


def break_lines(name: str, width: int = 19) -> str:
    """Break a long name before one of its words."""
    words, lines = re.findall("[A-Z][^A-Z]*", name.replace("3D", "3d")), [""]
    for word in words:
        if len(lines[-1] + word) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines).replace("3d", "3D") if words else name


def save(figure: Figure, path: Path) -> None:
    """Write with 128 colours, which takes a third of the space and shows no difference."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=72)
    Image.open(buffer).convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "gallery.png")
