"""From observations and links between them to tracks: trackers that store a graph are brought to one form here.

A track is a run of observations without a branch. Where one is followed by several it divides: each of them begins a
track whose parent is the divided one. A link may skip frames (gap closing).

>>> links = np.array([[10, 11], [11, 12], [11, 13]])  # 11 divides into 12 and 13
>>> tracks_of_graph(np.array([10, 11, 12, 13]), np.array([0, 1, 2, 2]), links)
(array([0, 0, 1, 2]), array([-1, -1,  0,  0]))
"""

from __future__ import annotations

import numpy as np

__all__ = ["GraphError", "links_of_tracks", "tracks_of_graph"]


class GraphError(ValueError):
    """Links that make no tracks; the text says which and why."""


def tracks_of_graph(
    node: np.ndarray, t: np.ndarray, links: np.ndarray, track_id: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a graph of observations into tracks.

    Parameters
    ----------
    node, t : ndarray of int, shape (N,)
        Id and frame of each observation.
    links : ndarray of int, shape (M, 2)
        Ids of linked observations, in either order.
    track_id : ndarray of int, shape (N,), optional
        Tracks that the file names. They are kept if each is a run of linked observations; they may end without a
        division, which the graph alone cannot say.

    Returns
    -------
    track_id : ndarray of int64, shape (N,)
        As given, or numbered by the frame and id of a track's first observation.
    parent_track_id : ndarray of int64, shape (N,)
        The divided track, -1 for none; the same for all observations of a track.

    Raises
    ------
    GraphError
        For ids that repeat or are missing, links within a frame, and merges.
    """
    node, t, links = np.asarray(node, np.int64), np.asarray(t, np.int64), np.asarray(links, np.int64).reshape(-1, 2)
    order = np.argsort(node, kind="stable")
    if (np.diff(node[order]) == 0).any():
        raise GraphError(f"observation {node[order][1:][np.diff(node[order]) == 0][0]} is listed more than once")
    source, target = _directed(node, order, t, links)
    before = np.full(len(node), -1)
    before[target] = source
    n_before, n_after = (np.bincount(end, minlength=len(node)) for end in (target, source))
    if (n_before > 1).any():
        merged = node[n_before > 1]
        raise GraphError(
            f"{len(merged)} observations follow several others, such as {merged[0]} in frame {t[n_before > 1][0]}: "
            "cells do not merge"
        )
    if track_id is not None and _are_runs(track_id, before):
        return np.asarray(track_id, np.int64), _parents(np.asarray(track_id, np.int64), before)
    continues = (before >= 0) & (n_after[before] == 1)
    first = _firsts(np.where(continues, before, np.arange(len(node))))
    starts = np.unique(first)
    starts = starts[np.lexsort((node[starts], t[starts]))]
    number = np.full(len(node), -1)
    number[starts] = np.arange(len(starts))
    track = number[first]
    parent = before[first]
    return track, np.where(parent < 0, -1, track[parent])


def links_of_tracks(track: np.ndarray, t: np.ndarray, parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Link observations of tracks: each to the next of its track, the last of a mother to the first of its daughters.

    Parameters
    ----------
    track, t, parent : ndarray of int, shape (N,)
        Track, frame and parent of each observation, in any order.

    Returns
    -------
    links : ndarray of int64, shape (M, 2)
        Rows of the earlier and the later observation.
    unlinked : ndarray of int64
        Tracks whose parent is not there, or does not end before they begin.

    Examples
    --------
    >>> links, unlinked = links_of_tracks(np.array([1, 1, 2, 3]), np.array([0, 1, 2, 2]), np.array([-1, -1, 1, 9]))
    >>> links.tolist(), unlinked.tolist()
    ([[0, 1], [1, 2]], [3])
    """
    order = np.lexsort((t, track))
    if not len(order):
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    same = np.diff(track[order]) == 0
    starts, ends = order[np.r_[True, ~same]], order[np.r_[~same, True]]
    ids, wanted = track[starts], parent[starts]
    place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    linked = (ids[place] == wanted) & (t[ends[place]] < t[starts])
    within = np.column_stack([order[:-1][same], order[1:][same]])
    return np.concatenate([within, np.column_stack([ends[place], starts])[linked]]), ids[(wanted >= 0) & ~linked]


def _are_runs(track: np.ndarray, before: np.ndarray) -> bool:
    """Tell whether every track begins once, and is left by links from its last observation only."""
    has_before = before >= 0
    within = has_before & (track[before] == track)
    n_within = np.bincount(before[within], minlength=len(track))
    begins_once = (~within).sum() == len(np.unique(track))
    return bool(begins_once and (n_within <= 1).all() and (n_within[before[has_before & ~within]] == 0).all())


def _parents(track: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the parent of the track of each observation, where tracks are runs."""
    begins = np.flatnonzero((before < 0) | (track[before] != track))
    parent = np.where(before[begins] < 0, -1, track[before[begins]])
    ids, place = np.unique(track, return_inverse=True)
    of_track = np.empty(len(ids), np.int64)
    of_track[np.searchsorted(ids, track[begins])] = parent
    return of_track[place]


def _directed(node: np.ndarray, order: np.ndarray, t: np.ndarray, links: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the earlier and the later observation of each link, each link once."""
    if not len(links):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    place = np.minimum(np.searchsorted(node[order], links), len(node) - 1)
    unknown = node[order][place] != links
    if unknown.any():
        raise GraphError(
            f"{int(unknown.sum())} links name observations that are not listed, such as {links[unknown][0]}"
        )
    rows = order[place]
    same = t[rows[:, 0]] == t[rows[:, 1]]
    if same.any():
        a, b = links[same][0]
        raise GraphError(f"observations {a} and {b} are linked and in one frame, {t[rows[same][0, 0]]}")
    forward = t[rows[:, 0]] < t[rows[:, 1]]
    directed = np.unique(np.where(forward[:, None], rows, rows[:, ::-1]), axis=0)
    return directed[:, 0], directed[:, 1]


def _firsts(before: np.ndarray) -> np.ndarray:
    """Follow links to the first observation of each track, by doubling the steps."""
    while True:
        further = before[before]
        if np.array_equal(further, before):
            return before
        before = further
