"""An index in a few lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dynaclr.index.left_out import LeftOut
from dynaclr.index.track_statistics import track_statistics

if TYPE_CHECKING:
    from dynaclr.index import MultiExperimentIndex

__all__ = ["summarize"]


def summarize(index: MultiExperimentIndex) -> str:
    """Count what an index holds, by experiment, and what was left out."""
    tracks = index.tracks
    n_experiments = len(index.registry.experiments)
    lines = [
        f"MultiExperimentIndex: {n_experiments} experiments, {len(tracks)} total observations, "
        f"{len(index.anchor_rows)} valid anchors"
    ]
    is_anchor = np.zeros(len(tracks), dtype=bool)
    is_anchor[index.anchor_rows] = True
    condition = tracks["condition"].cat
    statistics = track_statistics(index)
    for name, rows in index.experiment_groups.items():
        counts = np.bincount(condition.codes.to_numpy()[rows], minlength=len(condition.categories))
        conditions = ", ".join(
            f"{label}({count})" for label, count in zip(condition.categories, counts, strict=True) if count
        )
        own = np.unique(index.track_index[rows])
        low, high = index.registry.tau_range_frames(name, index.tau_range_hours)
        lines += [
            f"  {name}: {len(rows)} observations, {is_anchor[rows].sum()} anchors, conditions: {conditions}",
            f"    {len(np.unique(index.fov_index[rows]))} FOVs, {len(own)} tracks, "
            f"{len(np.unique(index.forest.root[own]))} lineages, {statistics.loc[name, 'divisions']} divisions, "
            f"tau {low} to {high} frames",
            f"    a track has {statistics.loc[name, 'frames']:g} frames in the median; "
            f"{statistics.loc[name, 'with_gaps']} tracks miss {statistics.loc[name, 'missing']} frames in between",
        ]
    lines += _left_out_lines(index.left_out)
    lines += _border_lines(index)
    return "\n".join(lines)


def _left_out_lines(left_out: LeftOut) -> list[str]:
    lines = []
    if left_out.fovs:
        shown = ", ".join(": ".join(key) for key in left_out.fovs[:5]) + (", ..." if len(left_out.fovs) > 5 else "")
        lines.append(f"  left out: {len(left_out.fovs)} FOVs without a tracking table ({shown})")
    if left_out.n_outside or left_out.n_beyond:
        lines.append(
            f"  left out: {left_out.n_outside} observations outside the image, {left_out.n_beyond} after the last frame"
        )
    remarks = [(name, remark) for name, own in left_out.by_experiment.items() for remark in own.remarks]
    return lines + [f"  {name}: {remark}" for name, remark in remarks]


def _border_lines(index: MultiExperimentIndex) -> list[str]:
    """Say how many patches the edge moves, and how far."""
    shift = index.tracks["border_shift"].to_numpy()
    moved = shift[shift > 0]
    lines = []
    if len(moved):
        lines.append(
            f"  at the border: the patches of {len(moved)} observations ({len(moved) / len(shift):.1%}) are moved into "
            f"their image, by {np.median(moved):.0f} pixels in the median and {moved.max()} at most"
        )
    if index.n_border:
        lines.append(f"  left out: {index.n_border} observations at the border (max_border_shift)")
    return lines
