"""The curves of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynaclr.comparison.recorder import EpochRecord
from dynaclr.comparison.runs import VariantRun
from dynaclr.engine.vae.latent import COLLAPSED_NATS
from dynaclr.imbalance import ClassMetrics

__all__ = ["draw_curves"]


def draw_curves(runs: Sequence[VariantRun]) -> Figure:
    """Draw losses, accuracies, the share of the class predicted most and the KL of the latent dimensions.

    Losses of different variants have different scales, so each is drawn relative to its first epoch.
    """
    figure = Figure(figsize=(13, 7), layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    names = ("training", "validation")
    for panel, name, key in zip(panels, names, ("train_loss", "val_loss"), strict=False):
        _curves(panel, runs, f"{name} loss, relative to the first epoch", _relative(key))
    _curves(panels[2], runs, "accuracy", _of_metrics(lambda metrics: metrics.accuracy))
    _curves(panels[3], runs, "worst-class accuracy", _of_metrics(lambda metrics: metrics.worst_class_accuracy))
    _curves(panels[4], runs, "share of the class predicted most", _of_metrics(lambda metrics: metrics.majority_share))
    for panel in panels[2:5]:
        panel.set_ylim(-0.03, 1.03)
    _true_share(panels[4], runs)
    _draw_kl(panels[5], runs)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
    return figure


def _curves(panel: Axes, runs: Sequence[VariantRun], title: str, values: Callable) -> None:
    for number, run in enumerate(runs):
        found = [(record.epoch + 1, value) for record, value in values(run.records) if value is not None]
        label = f"{run.name} (crashed)" if run.error else run.name
        panel.plot(
            *(zip(*found, strict=True) if found else ([], [])), marker="o", ms=3, color=_color(number), label=label
        )
    panel.set_title(title, fontsize="medium")
    panel.set_xlabel("epoch")
    panel.xaxis.get_major_locator().set_params(integer=True)


def _relative(key: str) -> Callable[[Sequence[EpochRecord]], list[tuple[EpochRecord, float | None]]]:
    def values(records: Sequence[EpochRecord]) -> list[tuple[EpochRecord, float | None]]:
        known = [getattr(record, key) for record in records if getattr(record, key) is not None]
        first = abs(known[0]) if known and known[0] and math.isfinite(known[0]) else 1.0
        found = [(record, getattr(record, key)) for record in records]
        return [(record, None if value is None else value / first) for record, value in found]

    return values


def _of_metrics(metric_of: Callable[[ClassMetrics], float]) -> Callable:
    def values(records: Sequence[EpochRecord]) -> list[tuple[EpochRecord, float]]:
        known = [record for record in records if record.confusion is not None]
        return [(record, metric_of(ClassMetrics(torch.tensor(record.confusion)))) for record in known]

    return values


def _true_share(panel: Axes, runs: Sequence[VariantRun]) -> None:
    known = [record for record in chain.from_iterable(run.records for run in runs) if record.confusion is not None]
    if known:
        share = max(ClassMetrics(torch.tensor(known[-1].confusion)).true_shares)
        panel.axhline(share, color="gray", ls="--", lw=1)
        panel.annotate("true share", (0.02, share - 0.06), xycoords=("axes fraction", "data"), color="gray", fontsize=8)


def _draw_kl(panel: Axes, runs: Sequence[VariantRun]) -> None:
    panel.set_title("KL of the latent dimensions, last epoch", fontsize="medium")
    panel.set_xlabel("dimension, sorted")
    panel.set_ylabel("nats")
    known = [(number, run.records[-1].latent_kl) for number, run in enumerate(runs) if run.records]
    known = [(number, kl) for number, kl in known if kl is not None]
    if not known:
        panel.text(0.5, 0.5, "no latent code", ha="center", transform=panel.transAxes, color="gray")
        return
    for number, kl in known:
        panel.plot(
            range(1, len(kl) + 1),
            [max(v, 1e-4) for v in sorted(kl, reverse=True)],
            marker="o",
            ms=3,
            color=_color(number),
        )
    panel.axhline(COLLAPSED_NATS, color="gray", ls="--", lw=1)
    panel.annotate(
        "collapsed below",
        (0.98, COLLAPSED_NATS * 1.1),
        xycoords=("axes fraction", "data"),
        color="gray",
        fontsize=8,
        ha="right",
    )
    panel.set_yscale("log")


def _color(number: int) -> tuple[float, ...]:
    return colormaps["tab10"](number % 10)
