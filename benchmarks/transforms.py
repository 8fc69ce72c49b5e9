"""Batched transforms beside MONAI sample by sample, Kornia, torchvision and bare torch, in the same run.

    uv run --with kornia python benchmarks/transforms.py [--quick] [--device cpu|cuda] [--threads N] [--only NAME ...]

All forms of one transform take turns, so that a busy machine slows all alike; medians are compared. A ratio above 1
says how many times faster ours is than its best peer. Bare torch is what one would write by hand for the same result:
parameters per sample where that is cheap, one for the whole batch where it is not. A form that takes longer than two
seconds runs once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import kornia
import monai.transforms as monai
import numpy as np
import torch
from monai.data import set_track_meta
from torch import Tensor
from torch.nn.functional import affine_grid, conv3d, grid_sample, interpolate, pad
from torchvision.transforms import v2

import viscy_transforms as vt

FULL, QUICK = (32, 2, 15, 128, 128), (8, 2, 5, 64, 64)
SLOW = 2.0
ROTATE, SCALE, GAMMA, SIGMA, ELASTIC = (-3.14, 3.14), (0.8, 1.2), (0.8, 1.2), (0.75, 1.5), (3.0, 5.0)
TILT = (-0.2, 0.2)
DEGREES, TILT_DEGREES = float(np.rad2deg(ROTATE[1])), float(np.rad2deg(TILT[1]))

Form = Callable[[Tensor], object]


def each(transform: Callable[[Tensor], Tensor]) -> Form:
    """Apply a transform of one sample to every sample of a batch, and make a batch of the results."""
    return lambda batch: torch.stack([torch.as_tensor(transform(sample)) for sample in batch])


def key(transform: Callable[[dict], dict]) -> Form:
    return lambda batch: transform({"x": batch})["x"]


def draw(batch: Tensor, low: float, high: float, n: int | None = None) -> Tensor:
    """Draw one number per sample, shaped to broadcast."""
    numbers = torch.rand(len(batch) if n is None else n, device=batch.device)
    return (numbers * (high - low) + low).reshape(-1, 1, 1, 1, 1)


def bare_affine(batch: Tensor) -> Tensor:
    """Rotate and scale in the plane, z and channels folded together."""
    angle, scale = draw(batch, *ROTATE).flatten(), draw(batch, *SCALE).flatten()
    cos, sin, zero = angle.cos() / scale, angle.sin() / scale, torch.zeros_like(angle)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], 1).reshape(-1, 2, 3)
    images = batch.flatten(1, 2)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False).reshape(batch.shape)


def bare_elastic(batch: Tensor) -> Tensor:
    """Warp by a smooth field, one width for the whole batch."""
    theta = torch.eye(3, 4, device=batch.device).expand(len(batch), 3, 4)
    grid = affine_grid(theta, list(batch.shape), align_corners=False)
    noise = torch.randn(len(batch), 3, *batch.shape[2:], device=batch.device)
    grid = grid + bare_smooth(noise, ELASTIC).movedim(1, -1)
    return grid_sample(batch, grid, padding_mode="reflection", align_corners=False)


def bare_smooth(batch: Tensor, sigma: tuple[float, float] = SIGMA) -> Tensor:
    """Convolve along each axis, one width for the whole batch."""
    radius = int(4 * sigma[1] + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=batch.device)
    line = torch.exp(-0.5 * (offsets / draw(batch, *sigma, n=1).flatten()) ** 2)
    line, channels = line / line.sum(), batch.shape[1]
    for axis in range(3):
        shape = [1, 1, 1]
        shape[axis] = -1
        kernel = line.reshape(1, 1, *shape).repeat(channels, 1, 1, 1, 1)
        padding = [radius if other == axis else 0 for other in range(3)]
        batch = conv3d(batch, kernel, padding=padding, groups=channels)
    return batch


def bare_contrast(batch: Tensor) -> Tensor:
    low, extent = batch.amin((1, 2, 3, 4), keepdim=True), batch.amax((1, 2, 3, 4), keepdim=True)
    extent = extent - low
    return ((batch - low) / extent) ** draw(batch, *GAMMA) * extent + low


def bare_percentiles(batch: Tensor) -> Tensor:
    low, high = torch.quantile(batch.flatten(1), torch.tensor([0.01, 0.99], device=batch.device), dim=1)
    low, high = (bound.reshape(-1, 1, 1, 1, 1) for bound in (low, high))
    return (batch - low) / (high - low)


def bare_sharpen(batch: Tensor) -> Tensor:
    """Convolve with the Laplacian, channel by channel."""
    kernel = torch.zeros(3, 3, 3, device=batch.device)
    kernel[1, 1] = kernel[1, :, 1] = kernel[:, 1, 1] = -1
    kernel[1, 1, 1] = 6
    channels = batch.shape[1]
    detail = conv3d(batch, kernel.expand(channels, 1, 3, 3, 3), padding=1, groups=channels)
    return batch + draw(batch, 0.1, 0.5) * detail


def bare_flip(sample: Tensor) -> Tensor:
    return sample.flip([axis for axis in (1, 2, 3) if torch.rand(()) < 0.5])


def bare_shift_z(sample: Tensor) -> Tensor:
    shift, depth = int(torch.randint(-3, 4, ())), sample.shape[1]
    return pad(sample, (0, 0, 0, 0, 3, 3))[:, 3 - shift : 3 - shift + depth]


def bare_crop(roi: tuple[int, ...]) -> Form:
    def crop(sample: Tensor) -> Tensor:
        for axis, length in enumerate(roi, start=1):
            start = int(torch.randint(sample.shape[axis] - length + 1, ()))
            sample = sample.narrow(axis, start, length)
        return sample

    return each(crop)


def geometric(shape: tuple[int, ...]) -> dict[str, dict[str, Form]]:
    """Forms of the transforms that move pixels; the first of each is ours."""
    roi = (shape[2], shape[3] * 3 // 4, shape[4] * 3 // 4)
    in_plane = [(1.0, 1.0), SCALE, SCALE]
    flip3d = torch.nn.Sequential(
        *(
            getattr(kornia.augmentation, f"Random{axis}Flip3D")(p=0.5)
            for axis in ("Depthical", "Vertical", "Horizontal")
        )
    )
    zooming = {"scale_factor": (1.0, 0.5, 0.5), "mode": "trilinear"}
    return {
        "affine": {
            "ours": key(vt.BatchedRandAffined("x", 1.0, [ROTATE, 0.0, 0.0], scale_range=in_plane)),
            "MONAI": each(
                monai.RandAffine(
                    1.0, (ROTATE, 0.0, 0.0), scale_range=(0.0, 0.2, 0.2), mode="bilinear", padding_mode="zeros"
                )
            ),
            "Kornia": kornia.augmentation.RandomAffine3D((0.0, 0.0, DEGREES), scale=((1.0, 1.0), SCALE, SCALE), p=1.0),
            "torchvision": each(v2.RandomAffine(DEGREES, scale=SCALE, interpolation=v2.InterpolationMode.BILINEAR)),
            "bare": bare_affine,
        },
        "affine out of the plane": {
            "ours": key(vt.BatchedRandAffined("x", 1.0, [ROTATE, TILT, TILT])),
            "MONAI": each(monai.RandAffine(1.0, (ROTATE, TILT, TILT), mode="bilinear", padding_mode="zeros")),
            "Kornia": kornia.augmentation.RandomAffine3D((TILT_DEGREES, TILT_DEGREES, DEGREES), p=1.0),
        },
        "flip": {
            "ours": vt.BatchedRandFlip([0, 1, 2], prob=0.5),
            "MONAI": each(monai.Compose([monai.RandFlip(0.5, axis) for axis in range(3)])),
            "Kornia": flip3d,
            "torchvision": each(v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])),
            "bare": each(bare_flip),
        },
        "elastic": {
            "ours": key(vt.BatchedRand3DElasticd("x", ELASTIC, (20.0, 40.0), prob=1.0)),
            "MONAI": each(monai.Rand3DElastic(ELASTIC, (20.0, 40.0), prob=1.0, padding_mode="reflection")),
            "bare, one sigma": bare_elastic,
        },
        "z shift": {
            "ours": key(vt.BatchedRandZStackShiftd("x", 3, prob=1.0)),
            "bare": each(bare_shift_z),
        },
        "random crop": {
            "ours": vt.BatchedRandSpatialCrop(roi),
            "MONAI": each(monai.RandSpatialCrop(roi, random_size=False)),
            "Kornia": kornia.augmentation.RandomCrop3D(roi, p=1.0),
            "torchvision": each(v2.RandomCrop(roi[1:])),
            "bare": bare_crop(roi),
        },
        "centre crop": {
            "ours": lambda batch: vt.BatchedCenterSpatialCrop(roi)(batch).contiguous(),
            "MONAI": each(monai.CenterSpatialCrop(roi)),
            "torchvision": lambda batch: v2.functional.center_crop(batch, list(roi[1:])).contiguous(),
        },
        "zoom": {
            "ours": vt.BatchedZoom(**zooming),
            "MONAI": each(monai.Zoom((1.0, 0.5, 0.5), mode="trilinear", keep_size=False)),
            "bare": lambda batch: interpolate(batch, **zooming),
        },
        "pixel shuffling": {
            "ours": key(vt.BatchedRandLocalPixelShufflingd("x", 3, 1.0, prob=1.0)),
            "MONAI": each(monai.RandCoarseShuffle(holes=100, spatial_size=3, prob=1.0)),
        },
    }


def pixelwise(shape: tuple[int, ...], device: str) -> dict[str, dict[str, Form]]:
    """Forms of the transforms that compute values; the first of each is ours."""
    stats = {"mean": torch.rand(shape[0], device=device), "std": 1 + torch.rand(shape[0], device=device)}
    meta = {"norm_meta": {"x": {"fov_statistics": stats}}}
    normalize = vt.NormalizeSampled("x", "fov_statistics")
    mean, std = (stats[name].reshape(-1, 1, 1, 1, 1) for name in ("mean", "std"))
    return {
        "smooth": {
            "ours": vt.BatchedRandGaussianSmooth(SIGMA, SIGMA, SIGMA, prob=1.0),
            "MONAI": each(monai.RandGaussianSmooth(SIGMA, SIGMA, SIGMA, prob=1.0)),
            "bare, one sigma": bare_smooth,
        },
        "sharpen": {
            "ours": key(vt.BatchedRandSharpend("x", prob=1.0)),
            "MONAI (Gaussian)": each(monai.RandGaussianSharpen(prob=1.0)),
            "bare": bare_sharpen,
        },
        "contrast": {
            "ours": vt.BatchedRandAdjustContrast(GAMMA, prob=1.0),
            "MONAI": each(monai.RandAdjustContrast(1.0, GAMMA)),
            "bare": bare_contrast,
        },
        "percentiles": {
            "ours": vt.BatchedScaleIntensityRangePercentiles(1, 99, 0.0, 1.0),
            "MONAI": each(monai.ScaleIntensityRangePercentiles(1, 99, 0.0, 1.0)),
            "bare": bare_percentiles,
        },
        "noise": {
            "ours": vt.BatchedRandGaussianNoise(1.0, std=0.2),
            "MONAI": each(monai.RandGaussianNoise(1.0, std=0.2)),
            "torchvision": v2.GaussianNoise(sigma=0.2, clip=False),
            "bare": lambda batch: torch.randn_like(batch).mul_(draw(batch, 0.0, 0.2)).add_(batch),
        },
        "scale": {
            "ours": vt.BatchedRandScaleIntensity(0.5, prob=1.0),
            "MONAI": each(monai.RandScaleIntensity(0.5, 1.0)),
            "bare": lambda batch: batch * draw(batch, 0.5, 1.5),
        },
        "histogram shift": {
            "ours": key(vt.BatchedRandHistogramShiftd("x", (-0.1, 0.1), prob=1.0)),
            "MONAI": each(monai.RandShiftIntensity(0.1, prob=1.0)),
            "bare": lambda batch: batch + draw(batch, -0.1, 0.1),
        },
        "invert": {
            "ours": key(vt.RandInvertIntensityd("x", prob=0.5)),
            "bare": lambda batch: batch * (2.0 * (draw(batch, 0, 1) < 0.5) - 1),
        },
        "normalise": {
            "ours": lambda batch: normalize({"x": batch, **meta})["x"],
            "MONAI": each(monai.NormalizeIntensity(0.5, 1.5)),
            "bare": lambda batch: (batch - mean) / std,
        },
    }


def chain() -> dict[str, dict[str, Form]]:
    """Return a training chain as in published configs, and the same with MONAI sample by sample."""
    batched = monai.Compose(
        [
            vt.BatchedRandAffined("x", 0.8, [ROTATE, 0.0, 0.0], scale_range=[(1.0, 1.0), SCALE, SCALE]),
            vt.BatchedRandFlipd("x", (1, 2), 0.5),
            vt.BatchedRandAdjustContrastd("x", GAMMA, 0.5),
            vt.BatchedRandScaleIntensityd("x", 0.5, 0.5),
            vt.BatchedRandGaussianSmoothd("x", SIGMA, SIGMA, SIGMA, prob=0.5),
            vt.BatchedRandGaussianNoised("x", 0.5, std=0.2),
        ]
    )
    single = monai.Compose(
        [
            monai.RandAffine(
                0.8, (ROTATE, 0.0, 0.0), scale_range=(0.0, 0.2, 0.2), mode="bilinear", padding_mode="zeros"
            ),
            monai.RandFlip(0.5, 1),
            monai.RandFlip(0.5, 2),
            monai.RandAdjustContrast(0.5, GAMMA),
            monai.RandScaleIntensity(0.5, 0.5),
            monai.RandGaussianSmooth(SIGMA, SIGMA, SIGMA, prob=0.5),
            monai.RandGaussianNoise(0.5, std=0.2),
        ]
    )
    return {"**training chain**": {"ours": key(batched), "MONAI": each(single)}}


def time_forms(forms: dict[str, Form], batch: Tensor, n_rounds: int) -> dict[str, float]:
    """Median time of each form in seconds."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(n_rounds):
        for name, form in forms.items():
            if max(times[name], default=0.0) < SLOW:
                times[name].append(time_once(form, batch))
    return {name: median(measured) for name, measured in times.items()}


def time_once(form: Form, batch: Tensor) -> float:
    """Time the second of two calls, so that no form pays for memory that the one before it gave back."""
    synchronize = torch.cuda.synchronize if batch.is_cuda else lambda: None
    seconds = 0.0
    for _ in range(2):
        if seconds < SLOW:
            synchronize()
            start = time.perf_counter()
            form(batch)
            synchronize()
            seconds = time.perf_counter() - start
    return seconds


def report(name: str, times: dict[str, float]) -> str:
    ours, peers = times["ours"], {form: seconds for form, seconds in times.items() if form != "ours"}
    best = min(peers, key=peers.__getitem__)
    others = ", ".join(f"{form} {seconds * 1e3:.1f}" for form, seconds in peers.items() if form != best)
    return f"| {name} | {ours * 1e3:.1f} | {best} {peers[best] * 1e3:.1f} | {peers[best] / ours:.2f} | {others} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"a batch of {QUICK} instead of {FULL}, fewer rounds")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="*", help="names of transforms")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; more need an idle machine")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    set_track_meta(False)
    shape, n_rounds = (QUICK, 5) if args.quick else (FULL, 7)
    torch.manual_seed(0)
    batch = torch.rand(shape, device=args.device)
    cases = {**geometric(shape), **pixelwise(shape, args.device), **chain()}
    copy = time_forms({"copy": Tensor.clone}, batch, n_rounds)["copy"]
    print(f"batch {shape}, {args.device}, {torch.get_num_threads()} threads, a copy takes {copy * 1e3:.1f} ms\n")
    print("| transform | ours (ms) | best peer (ms) | peer / ours | other peers (ms) |\n|---|---|---|---|---|")
    for name, forms in cases.items():
        if not args.only or name.strip("*") in args.only:
            print(report(name, time_forms(forms, batch, n_rounds)), flush=True)


if __name__ == "__main__":
    main()
