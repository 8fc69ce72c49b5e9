"""Tables of a report beside the scores: the cells, their movement over time, what was left out, what made them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from viscy_utils.evaluation.comparison import Comparison
from viscy_utils.evaluation.distance import mean_squared_displacement
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.reports.numbers import duration, number
from viscy_utils.reports.tables import ReportTable

__all__ = ["cells_table", "displacement_table", "left_out_table", "origin_tables", "versions_table"]

_MOST_LAGS = 6
_MOST_CELLS = 20_000
_HOURS = "hours_post_infection"


def cells_table(embedded: Embedded, label: str, held_out: Sequence[str] = ()) -> ReportTable:
    """Count cells, tracks, FOVs and frames by experiment and label.

    Parameters
    ----------
    embedded : Embedded
    label : str
        Column of ``obs``.
    held_out : sequence of str
        Experiments that are marked so.
    """
    table = embedded.obs.assign(track=embedded.tracks, fov=embedded.fovs, label=embedded.obs[label].astype(str))
    rows = []
    for (experiment, name), part in table.groupby(["experiment", "label"], observed=True):
        shown = f"{experiment} (held out)" if experiment in held_out else str(experiment)
        counts = len(part), part["track"].nunique(), part["fov"].nunique(), part["t"].nunique()
        rows.append((shown, str(name), *(f"{count:,}" for count in counts), _span(part)))
    return ReportTable("", ("experiment", label, "cells", "tracks", "FOVs", "frames", "time"), rows)


def _span(part: Any) -> str:
    if _HOURS not in part:
        return "-"
    hours = part[_HOURS].to_numpy(dtype=float)
    hours = hours[np.isfinite(hours)]
    return f"{hours.min():.3g} to {hours.max():.3g} h" if len(hours) else "-"


def displacement_table(embedded: Sequence[Embedded]) -> ReportTable | None:
    """Say how far embeddings move with time, by :func:`viscy_utils.evaluation.distance.mean_squared_displacement`.

    Returns
    -------
    ReportTable or None
        Relative displacement by lag: 1 is that of unrelated cells. None where no track has two frames.
    """
    longest = max(int(each.obs.groupby(each.tracks)["t"].agg(np.ptp).max()) for each in embedded)
    lags = [lag for lag in (2**power for power in range(_MOST_LAGS)) if lag <= longest]
    if not lags:
        return None
    rows = []
    for each in embedded:
        cells = each.whole_tracks(_MOST_CELLS)
        found = mean_squared_displacement(cells.features, cells.tracks, cells.obs["t"].to_numpy(), lags[-1])
        values = [number(found["relative"].get(lag)) for lag in lags]
        rows.append((each.name, *values))
    hours = _frame_hours(embedded[0])
    heads = [f"{lag} frame{'s' * (lag > 1)}" + (f"\n{duration(lag * hours)}" if hours else "") for lag in lags]
    return ReportTable("Mean squared displacement, 1 is that of unrelated cells", ("embedding", *heads), rows)


def _frame_hours(embedded: Embedded) -> float | None:
    """Return the time between frames where all experiments have the same."""
    if _HOURS not in embedded.obs:
        return None
    table = (
        embedded.obs[["experiment", "t", _HOURS]].drop_duplicates(["experiment", "t"]).sort_values(["experiment", "t"])
    )
    same = table["experiment"].to_numpy()[1:] == table["experiment"].to_numpy()[:-1]
    steps = np.diff(table[_HOURS].to_numpy(dtype=float))[same] / np.diff(table["t"].to_numpy())[same]
    return float(steps[0]) if len(steps) and np.allclose(steps, steps[0]) else None


def left_out_table(comparisons: Sequence[Comparison]) -> ReportTable:
    """List which cells no score is from, and why."""
    shared = set.intersection(*(set(row.left_out) for row in comparisons))
    named = dict.fromkeys(("all" if each in shared else row.name, each) for row in comparisons for each in row.left_out)
    rows = [(name, f"{each.n_cells:,}", each.reason, "\n".join(each.examples)) for name, each in named]
    return ReportTable("Cells that were left out", ("embedding", "cells", "reason", "such as"), rows)


def origin_tables(comparisons: Sequence[Comparison]) -> Iterator[ReportTable]:
    """Yield what made the embeddings: checkpoints with hashes, data with digests."""
    origins = {row.name: row.origin for row in comparisons if row.origin}
    if not origins:
        return
    yield ReportTable(
        "Encoders", ("embedding", "encoder", "date", "BLAKE2b"), [_encoder(*each) for each in origins.items()]
    )
    sources = {
        (source["store"], source["digest"]): source for each in origins.values() for source in each.get("sources", [])
    }
    rows = [(store, f"{each['observations']:,}", digest) for (store, digest), each in sources.items()]
    if rows:
        yield ReportTable("Data", ("store", "cells", "digest of the cells"), rows)


def versions_table(comparisons: Sequence[Comparison]) -> ReportTable | None:
    """List the versions of what predicted; None where no embedding says."""
    versions = {row.name: row.origin["versions"] for row in comparisons if row.origin.get("versions")}
    if not versions:
        return None
    packages = dict.fromkeys(package for each in versions.values() for package in each)
    rows = [(package, *(str(each.get(package, "-")) for each in versions.values())) for package in packages]
    return ReportTable("", ("package", *versions), rows)


def _encoder(name: str, origin: dict[str, Any]) -> tuple[str, str, str, str]:
    checkpoint = origin.get("checkpoint", {})
    place = [f"{key} {checkpoint[key]}" for key in ("epoch", "step") if key in checkpoint]
    path = checkpoint.get("path") or "no checkpoint: weights as they were made"
    words = "\n".join(filter(None, [str(origin.get("model", "")), path, ", ".join(place)]))
    return name, words, str(origin.get("date", "-")), str(checkpoint.get("blake2b") or checkpoint.get("weights") or "-")
