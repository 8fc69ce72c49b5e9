"""What a config puts into its batches: shares, coverage, tau, and what is left out, before any training.

>>> report = inspect_data(data, n_batches=100)  # doctest: +SKIP
>>> for table in report_tables(report): print(table.markdown())  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynaclr.datamodule import MultiExperimentDataModule
from dynaclr.dataset import MultiExperimentTripletDataset, Pairs
from dynaclr.index.track_statistics import track_statistics
from viscy_data.distributed import EpochPositions
from viscy_utils.reports.tables import ReportTable

__all__ = ["BatchReport", "inspect_data", "report_tables"]

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_NOTABLE = 0.02  # of a batch: less is rounding


@dataclass(frozen=True)
class BatchReport:
    """What was found.

    Parameters
    ----------
    composition : dict
        As :meth:`viscy_data.sampler.FlexibleBatchSampler.stats`, over the batches that were drawn.
    n_batches, n_anchors, batch_size : int
        Batches of an epoch over all ranks; training anchors; anchors per batch.
    coverage : float
        Share of the anchors that the first epoch reaches.
    images, lineages : float
        FOVs and frames that the anchors of a batch are of, and lineages, on average.
    tau_hours : DataFrame
        Per experiment quantiles of the hours from anchor to positive.
    tracks : DataFrame
        Per experiment ``side`` (of the split), ``tracks``, ``observations``, ``anchors``, and ``without_positive``:
        tracks of which no observation is an anchor; and what :func:`~dynaclr.index.track_statistics.track_statistics`
        says.
    shortfalls : list of str
        Why shares that were asked for were not delivered.
    border : DataFrame
        Per experiment ``side``, ``observations``, ``moved`` (those whose patch the edge of the image moves), ``median``
        and ``most`` (pixels that those are moved by), and ``left_out`` (by ``max_border_shift``, over all experiments
        of the side).
    """

    composition: dict[str, Any]
    n_batches: int
    n_anchors: int
    batch_size: int
    coverage: float
    images: float
    lineages: float
    tau_hours: pd.DataFrame
    tracks: pd.DataFrame
    shortfalls: list[str]
    border: pd.DataFrame


def inspect_data(data: MultiExperimentDataModule, n_batches: int = 100) -> BatchReport:
    """Draw training batches, without reading pixels, and count what is in them.

    Parameters
    ----------
    data : MultiExperimentDataModule
        Set up for ``fit``.
    n_batches : int, default 100
        How many to draw; further epochs follow when one has fewer.
    """
    sampler, dataset = data.train_sampler(), data.train_dataset
    drawn = []
    for number in range(n_batches):
        epoch, place = divmod(number, sampler.n_batches)
        drawn.append(dataset.pairs(EpochPositions(sampler.batch(place, epoch), epoch)))
    anchors = np.concatenate([pairs.anchors for pairs in drawn])
    tau = np.concatenate([pairs.tau for pairs in drawn])
    sides = [("training", dataset)] + ([("validation", data.val_dataset)] if data.val_dataset is not None else [])
    return BatchReport(
        composition=sampler.stats(),
        n_batches=sampler.n_batches,
        n_anchors=sampler.n_anchors,
        batch_size=sampler.batch_size,
        coverage=sampler.coverage(0),
        images=_mean_distinct(drawn, dataset, ("fov_index", "t")),
        lineages=_mean_distinct(drawn, dataset, ("lineage_id",)),
        tau_hours=_tau_hours(dataset, anchors, tau),
        tracks=pd.concat([_track_counts(part).assign(side=side) for side, part in sides]),
        shortfalls=_shortfalls(dataset, sampler.stats()),
        border=pd.concat([_border_shifts(part).assign(side=side) for side, part in sides]),
    )


def _mean_distinct(drawn: Sequence[Pairs], dataset: MultiExperimentTripletDataset, columns: Sequence[str]) -> float:
    """Return how many different values the anchors of a batch have, on average."""
    table = dataset.index.tracks.assign(fov_index=dataset.fov_index)[list(columns)]
    return float(np.mean([len(table.iloc[pairs.anchors].drop_duplicates()) for pairs in drawn]))


def _tau_hours(dataset: MultiExperimentTripletDataset, anchors: np.ndarray, tau: np.ndarray) -> pd.DataFrame:
    names = dataset.index.tracks["experiment"].iloc[anchors].astype(str).to_numpy()
    registry = dataset.index.registry
    hours = dict(zip(registry.names, registry.interval_hours, strict=True))
    offsets = pd.Series(tau * np.array([hours[name] for name in names]))
    return offsets.groupby(names).quantile(QUANTILES).unstack()


def _track_counts(dataset: MultiExperimentTripletDataset) -> pd.DataFrame:
    index = dataset.index
    table = pd.DataFrame({"experiment": index.tracks["experiment"].astype(str), "track": index.track_index})
    table["anchor"] = False
    table.loc[index.anchor_rows, "anchor"] = True
    per_track = table.groupby(["experiment", "track"])["anchor"].agg(["size", "sum"])
    counts = per_track.groupby("experiment").agg(
        observations=("size", "sum"),
        anchors=("sum", "sum"),
        without_positive=("sum", lambda counts: int((counts == 0).sum())),
    )
    return counts.join(track_statistics(index))


def _shortfalls(dataset: MultiExperimentTripletDataset, composition: dict[str, Any]) -> list[str]:
    """Explain the shares of conditions that were not delivered, by the experiments that lack them."""
    anchors = dataset.index.tracks.iloc[dataset.index.anchor_rows]
    counts = pd.crosstab(anchors["experiment"].astype(str), anchors["condition"].astype(str))
    sentences = []
    for condition, share in composition.get("condition", {}).items():
        asked, delivered = (share[key] / composition["anchors"] for key in ("asked", "delivered"))
        if asked - delivered <= _NOTABLE:
            continue
        lacking = [name for name in counts.index if condition not in counts or not counts.loc[name, condition]]
        sentences.append(
            f"condition {condition!r}: asked {asked:.0%}, delivered {delivered:.0%}: "
            + (
                f"it coincides with the experiment, as there is none of it in {', '.join(lacking)}"
                if lacking
                else "its cells are too few near the times that batches are about"
            )
        )
    return sentences


def _border_shifts(dataset: MultiExperimentTripletDataset) -> pd.DataFrame:
    index = dataset.index
    shift = index.tracks["border_shift"]
    names = index.tracks["experiment"].astype(str)
    moved = shift[shift > 0].groupby(names).agg(moved="size", median="median", most="max")
    table = shift.groupby(names).agg(observations="size").join(moved)
    return table.fillna(0).assign(left_out=index.n_border)


def report_tables(report: BatchReport, n_ranks: int = 1) -> list[ReportTable]:
    """Lay a report out.

    Parameters
    ----------
    report : BatchReport
    n_ranks : int, default 1
        Processes that would share the batches.
    """
    tables = [_epoch_table(report, n_ranks), _shares_table(report.composition)]
    if report.shortfalls:
        tables.append(_shortfalls_table(report))
    fallbacks = {name: count for name, count in report.composition["fallbacks"].items() if count}
    if fallbacks:
        n_anchors = report.composition["anchors"]
        rows = [(name.replace("_", " "), str(count), f"{count / n_anchors:.1%}") for name, count in fallbacks.items()]
        tables.append(ReportTable("What the data could not satisfy", ("fall-back", "anchors", "share"), rows))
    return [*tables, _tau_table(report), _tracks_table(report), _lengths_table(report), _border_table(report)]


def _tau_table(report: BatchReport) -> ReportTable:
    heads = ["min" if q == 0 else "max" if q == 1 else f"{q:.0%}" for q in QUANTILES]
    rows = [(str(name), *(f"{hours:.2f}" for hours in row)) for name, row in report.tau_hours.iterrows()]
    return ReportTable("Hours from anchor to positive", ["experiment", *heads], rows)


def _tracks_table(report: BatchReport) -> ReportTable:
    rows = []
    for name, row in report.tracks.iterrows():
        share = row["without_positive"] / row["tracks"]
        counts = (str(row[column]) for column in ("observations", "anchors", "tracks"))
        rows.append((str(name), row["side"], *counts, f"{row['without_positive']} ({share:.0%})"))
    heads = ("experiment", "side", "observations", "anchors", "tracks", "tracks without a positive")
    return ReportTable("Cells", heads, rows)


def _lengths_table(report: BatchReport) -> ReportTable:
    rows = []
    for name, row in report.tracks.iterrows():
        gaps = f"{row['with_gaps']} ({row['missing']} frames)"
        rows.append((str(name), row["side"], f"{row['frames']:g}", gaps, str(row["divisions"])))
    return ReportTable("Tracks", ("experiment", "side", "median frames", "with gaps", "divisions"), rows)


def _shortfalls_table(report: BatchReport) -> ReportTable:
    return ReportTable("Why shares fall short", ("",), [(sentence,) for sentence in report.shortfalls])


def _border_table(report: BatchReport) -> ReportTable:
    rows = []
    for name, row in report.border.iterrows():
        moved = f"{row['moved']:.0f} ({row['moved'] / row['observations']:.1%})"
        pixels = (f"{row[column]:.0f}" for column in ("median", "most"))
        rows.append((str(name), row["side"], moved, *pixels, str(row["left_out"])))
    heads = ("experiment", "side", "patches moved", "median px", "most px", "left out of this side")
    return ReportTable("Cells at the border: patches that the edge of the image moves", heads, rows)


def _epoch_table(report: BatchReport, n_ranks: int) -> ReportTable:
    rows = [
        ("anchors", str(report.n_anchors)),
        ("batches", f"{report.n_batches} of {report.batch_size}"),
        ("batches per rank", f"{-(-report.n_batches // n_ranks)} on {n_ranks} ranks"),
        ("anchors reached", f"{report.coverage:.1%}"),
        ("FOVs and frames in a batch", f"{report.images:.1f}"),
        ("lineages in a batch", f"{report.lineages:.1f}"),
    ]
    return ReportTable("An epoch", ("", ""), rows)


def _shares_table(composition: dict[str, Any]) -> ReportTable:
    """Shares asked for beside shares delivered."""
    n_batches, n_anchors = composition["batches"], composition["anchors"]
    rows = []
    units = {"experiment": n_batches, "condition": n_anchors, "temporal": n_anchors}
    for axis, unit in units.items():
        for name, counts in composition.get(axis, {}).items():
            rows.append((axis, name, f"{counts['asked'] / unit:.1%}", f"{counts['delivered'] / unit:.1%}"))
    for axis, head in (("leaky", ("leak", "from other experiments")), ("neighbors", ("neighbors", "near an anchor"))):
        if axis in composition:
            counts = composition[axis]
            rows.append((*head, f"{counts['asked'] / n_anchors:.1%}", f"{counts['delivered'] / n_anchors:.1%}"))
    return ReportTable(f"Shares in {n_batches} batches", ("axis", "", "asked", "delivered"), rows)
