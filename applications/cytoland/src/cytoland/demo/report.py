"""Predicted fluorescence beside the true one, and how well both predictions agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cytoland.demo.baseline import LinearFilter
from viscy_data import SlidingWindowDataset, read_plate
from viscy_data.stores import read_stack
from viscy_utils.evaluation.image_metrics import image_metrics
from viscy_utils.evaluation.image_tiles import Block, Tile, contrast_limits, draw_blocks
from viscy_utils.reports.files import json_text, write_text
from viscy_utils.reports.numbers import number
from viscy_utils.reports.tables import ReportTable

__all__ = ["Picture", "Score", "compare", "write_report"]

METHODS = ("UNeXt2", "linear filter")
_DPI = 110


@dataclass(frozen=True)
class Score:
    """How well a method predicts a FOV, over the slices that are in the middle of a window."""

    method: str
    fov_name: str
    pearson: float
    ssim: float
    psnr: float


class Picture(NamedTuple):
    """The middle slice of a FOV, each (Y, X): source, true fluorescence, and the predictions by method."""

    fov_name: str
    source: NDArray
    target: NDArray
    predicted: dict[str, NDArray]


def compare(windows: SlidingWindowDataset, plate: Path, linear: LinearFilter) -> tuple[list[Score], list[Picture]]:
    """Judge a predicted plate and a linear filter.

    Parameters
    ----------
    windows : SlidingWindowDataset
        Of the FOVs of the plate, one channel to one channel, normalised as for the network.
    plate : Path
        What the network predicts of them.
    linear : LinearFilter
    """
    middle = windows.z_window_size // 2
    scores, pictures = [], []
    for fov in read_plate(plate):
        numbers = [n for n in range(len(windows)) if windows.fovs[windows.place(n)[0]].name == fov.name]
        samples = [windows[n] for n in numbers]
        target = torch.stack([sample["target"][0, middle] for sample in samples])  # (Z, Y, X)
        frame = torch.from_numpy(np.asarray(read_stack(fov, 0, 0)))
        found = {
            METHODS[0]: frame[middle : middle + len(samples)],
            METHODS[1]: torch.stack([linear.predict(sample["source"]) for sample in samples]),
        }
        for method, stack in found.items():
            figures = image_metrics(stack[None, None], target[None, None])
            scores.append(Score(method, fov.name, *(figures[name].item() for name in ("pearson", "ssim", "psnr"))))
        shown = len(samples) // 2
        predicted = {method: stack[shown].numpy() for method, stack in found.items()}
        pictures.append(
            Picture(fov.name, samples[shown]["source"][0, middle].numpy(), target[shown].numpy(), predicted)
        )
    return scores, pictures


def write_report(folder: Path, scores: Sequence[Score], pictures: Sequence[Picture]) -> list[ReportTable]:
    """Write ``report.png``, ``report.md`` and ``report.json``, and return the table of means and that of FOVs."""
    folder.mkdir(exist_ok=True)
    columns = ("Pearson", "SSIM", "PSNR (dB)")
    means = []
    for method in METHODS:
        rows = [(score.pearson, score.ssim, score.psnr) for score in scores if score.method == method]
        means.append([method, *map(number, np.mean(rows, axis=0))])
    each = [[s.fov_name, s.method, *map(number, (s.pearson, s.ssim, s.psnr))] for s in scores]
    tables = [
        ReportTable("Held-out FOVs, mean", ["", *columns], means),
        ReportTable("Each FOV", ["FOV", "", *columns], each),
    ]
    write_text(folder / "report.md", "\n".join(table.markdown() for table in tables))
    write_text(folder / "report.json", json_text([asdict(score) for score in scores]))
    figure = Figure(dpi=_DPI)
    FigureCanvasAgg(figure)
    draw_blocks([_block(picture, scores) for picture in pictures], "Nuclei predicted from phase", figure, 1)
    figure.savefig(folder / "report.png")
    return tables


def _block(picture: Picture, scores: Sequence[Score]) -> Block:
    """Lay a FOV out; both predictions have the colours of the true image."""
    limits = contrast_limits(picture.target)
    tiles = [
        Tile(picture.source, f"{picture.fov_name}\nphase", "gray", contrast_limits(picture.source)),
        Tile(picture.target, "nuclei\ntrue", "inferno", limits),
    ]
    for method, image in picture.predicted.items():
        [score] = [s for s in scores if (s.method, s.fov_name) == (method, picture.fov_name)]
        tiles.append(Tile(image, f"{method}\nPearson {score.pearson:.3f}", "inferno", limits))
    return Block([tiles], [""])
