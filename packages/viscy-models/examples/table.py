"""Write the table of architectures into the README: what is counted, and what is timed on this machine.

python packages/viscy-models/examples/table.py
"""

from __future__ import annotations

import platform
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import viscy_models

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- written by examples/table.py -->", "<!-- end of the table -->"
N_ROUNDS = 5


class Row(NamedTuple):
    """An architecture, its reference configuration, and the size of its input."""

    name: str
    use: str
    arguments: dict
    shape: tuple[int, ...]


ROWS = (
    Row("UNeXt2", "virtual staining, stack to stack", {}, (1, 1, 5, 256, 256)),
    Row(
        "FullyConvolutionalMAE",
        "pretraining by masking, then virtual staining",
        {"in_channels": 1, "out_channels": 1},
        (1, 1, 5, 256, 256),
    ),
    Row(
        "ContrastiveEncoder",
        "embeddings of stacks, 2D backbone",
        {"backbone": "convnext_tiny", "in_channels": 2, "in_stack_depth": 15},
        (1, 2, 15, 160, 160),
    ),
    Row("ResNet3dEncoder", "embeddings of volumes, 3D backbone", {"backbone": "resnet18"}, (1, 1, 32, 96, 96)),
    Row("BetaVae25D", "generative embeddings of stacks", {}, (1, 2, 16, 256, 256)),
    Row(
        "BetaVaeMonai",
        "generative embeddings, plain convolutions",
        {
            **{"spatial_dims": 3, "in_shape": (2, 16, 128, 128), "out_channels": 2, "latent_size": 128},
            **{"channels": (32, 64, 128, 256), "strides": (2, 2, 2, 2)},
        },
        (1, 2, 16, 128, 128),
    ),
    Row("Unet2d", "segmentation and translation of slices", {}, (1, 1, 1, 256, 256)),
    Row("Unet25d", "translation of stacks into slices", {}, (1, 1, 5, 256, 256)),
)
HEAD = (
    "| architecture | what for | input (B, C, Z, Y, X) | parameters (M) | multiply-adds (G) | forward (ms) |\n"
    "|---|---|---|---|---|---|"
)


def build(row: Row, device: str) -> nn.Module:
    """Make the architecture of a row."""
    with torch.device(device):
        return getattr(viscy_models, row.name)(**row.arguments).eval()


def counted(row: Row) -> str:
    """Return the cells that are the same on every machine; nothing is computed to find them."""
    model = build(row, "meta")
    parameters = sum(p.numel() for p in model.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(row.shape, device="meta"))
    multiply_adds = counter.get_total_flops() / 2
    size = " x ".join(map(str, row.shape))
    return f"| `{row.name}` | {row.use} | {size} | {parameters / 1e6:.1f} | {multiply_adds / 1e9:.1f} |"


def timed(row: Row) -> float:
    """Return the median time of a forward pass in milliseconds of the processor."""
    model, x, times = build(row, "cpu"), torch.rand(row.shape), []
    with torch.inference_mode():
        for _ in range(N_ROUNDS + 1):
            start = time.process_time()
            model(x)
            times.append(time.process_time() - start)
    return median(times[1:]) * 1e3


def table() -> str:
    """Return the whole table, with a note on the times."""
    torch.set_num_threads(1)
    lines = [f"{counted(row)} {timed(row):.0f} |" for row in ROWS]
    note = f"Times: one thread on {platform.machine()}, float32, in evaluation mode, median of {N_ROUNDS}."
    return "\n".join([HEAD, *lines, "", note])


def replace(text: str, block: str) -> str:
    """Put a block between the two markers of a text."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    README.write_text(replace(README.read_text(encoding="utf8"), table()), encoding="utf8")
