"""Whether the time at which a cell changes its label can be read off its trajectory."""

from __future__ import annotations

import numpy as np

from viscy_data.optional import from_extra
from viscy_utils.evaluation.intervals import mean_by_unit
from viscy_utils.evaluation.pseudotime import build_template, dtw_align_tracks
from viscy_utils.evaluation.scores import Score

with from_extra("eval", package="viscy-utils"):
    import pandas as pd

__all__ = ["label_onsets", "onset_error"]

_LEAST_TRACKS = 5  # of each half
_AROUND = 12  # frames on both sides of the onset


def label_onsets(labels: np.ndarray, tracks: np.ndarray, hours: np.ndarray) -> np.ndarray:
    """Find when tracks change from one label to another, once and for all.

    Parameters
    ----------
    labels : ndarray of str, shape (N,)
    tracks : ndarray, shape (N,)
    hours : ndarray of float, shape (N,)

    Returns
    -------
    ndarray of float64, shape (N,)
        Of the row's track, in the middle between both frames; NaN for tracks that do not change, change more than
        once, or as fewer tracks do, and everywhere where there are not two labels.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    numbers = np.unique(tracks, return_inverse=True)[1]
    onsets = np.full(len(labels), np.nan)
    if len(classes) != 2:
        return onsets
    order = np.lexsort((hours, numbers))
    same = np.diff(numbers[order]) == 0
    steps = np.where(same, np.diff(codes[order]), 0)
    n_changes = np.bincount(numbers[order][1:], np.abs(steps), minlength=numbers.max() + 1)
    direction = 1 if (steps > 0).sum() >= (steps < 0).sum() else -1
    changes = np.flatnonzero((steps == direction) & (n_changes[numbers[order][1:]] == 1))
    of_track = np.full(numbers.max() + 1, np.nan)
    of_track[numbers[order][changes]] = (hours[order][changes] + hours[order][changes + 1]) / 2
    return of_track[numbers]


def onset_error(
    features: np.ndarray,
    labels: np.ndarray,
    tracks: np.ndarray,
    units: np.ndarray,
    hours: np.ndarray,
    test: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> Score:
    """Tell the onsets of tracks from a template of others, by :func:`dtw_align_tracks`.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
    labels, tracks : ndarray, shape (N,)
        As for :func:`label_onsets`.
    units : ndarray, shape (N,)
        Lineage per row.
    hours : ndarray of float, shape (N,)
    test : ndarray of bool, shape (N,), optional
        Rows of tracks whose onset is to be told; half of the lineages by default.
    seed : int, default 0

    Returns
    -------
    Score
        Mean absolute error; a track that is not seen to respond is given the mean onset of the template's tracks, and
        chance is the error when all are. Missing where the labels or the extra ``pseudotime`` do not allow it.
    """
    onsets = label_onsets(labels, tracks, hours)
    known = np.isfinite(onsets)
    if test is None:
        names = np.unique(units[known])
        chosen = np.random.default_rng(seed).permutation(names)[: len(names) // 2]
        test = np.isin(units, chosen)
    counts = [len(np.unique(tracks[known & side])) for side in (~test, test)]
    if min(counts) < _LEAST_TRACKS:
        return Score.missing(f"tracks that change from one of two labels to the other: {counts[0]} and {counts[1]}")
    try:
        template, told = _align(features, tracks, hours, onsets, known & ~test, known & test)
    except (ValueError, ImportError) as err:
        return Score.missing(str(err))
    table = pd.DataFrame({"unit": units, "true": onsets, "track": tracks})[known & test].assign(told=told)
    table = table.drop_duplicates("track")
    errors, guess = ((table["true"] - each).abs() for each in (table["told"].fillna(template), template))
    note = f"of {len(table)} tracks, {int(table['told'].isna().sum())} of them not seen to respond"
    return Score(
        *mean_by_unit(errors.to_numpy(), table["unit"].to_numpy(), seed), float(guess.mean()), note, len(table)
    )


def _align(
    features: np.ndarray, tracks: np.ndarray, hours: np.ndarray, onsets: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the mean onset of the tracks to train on, and the onset that is told for each row to test."""
    order = np.lexsort((hours, tracks))
    steps = np.diff(hours[order])[np.diff(tracks[order]) == 0]
    interval = float(np.median(steps))
    around = (-_AROUND * interval, _AROUND * interval)
    template = build_template(
        features[train], tracks[train], hours[train], onsets[train], interval_hours=interval, around_hours=around
    )
    mean = float(pd.Series(onsets[train]).groupby(tracks[train]).first().mean())
    told = dtw_align_tracks(features[test], tracks[test], hours[test], template)["onset_hours"]
    return mean, told.to_numpy()
