"""Pairs of rows of an embedding: one track some frames later, and cells that have nothing to do with each other."""

from __future__ import annotations

import numpy as np

__all__ = ["later_pairs", "paired_distances", "unrelated_pairs"]


def later_pairs(tracks: np.ndarray, t: np.ndarray, n_frames: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows of each track that are exactly so many frames apart: a gap is no step, and no order is assumed.

    Parameters
    ----------
    tracks : ndarray, shape (N,)
        Track per row, unique across FOVs and experiments.
    t : ndarray of int, shape (N,)
        Frame per row.
    n_frames : int, default 1
        How far apart, at least 1.

    Returns
    -------
    earlier, later : ndarray of int64, shape (P,)
        Each pair once, by track and time.

    Examples
    --------
    >>> later_pairs(np.array([7, 7, 7]), np.array([3, 1, 2]))
    (array([1, 2]), array([2, 0]))
    """
    codes = np.unique(tracks, return_inverse=True)[1].astype(np.int64)
    frames = np.asarray(t).astype(np.int64)
    if not len(frames):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # One number per (track, frame); the gap between tracks is wider than any step.
    keys = codes * (np.ptp(frames) + n_frames + 1) + frames - frames.min()
    order = np.argsort(keys, kind="stable")
    place = np.minimum(np.searchsorted(keys[order], keys[order] + n_frames), len(keys) - 1)
    found = keys[order][place] == keys[order] + n_frames
    return order[found], order[place[found]]


def unrelated_pairs(tracks: np.ndarray, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of rows of different tracks.

    Parameters
    ----------
    tracks : ndarray, shape (N,)
    rng : numpy.random.Generator
    n : int
        How many to draw; those within a track are left out of them.

    Returns
    -------
    first, second : ndarray of int64, shape (<= n,)
    """
    if not len(tracks):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    codes = np.unique(tracks, return_inverse=True)[1]
    first, second = rng.integers(len(codes), size=(2, n))
    apart = codes[first] != codes[second]
    return first[apart], second[apart]


def paired_distances(first: np.ndarray, second: np.ndarray, metric: str = "cosine") -> np.ndarray:
    """Return the distance of each pair of rows.

    Parameters
    ----------
    first, second : ndarray of float, shape (P, F)
    metric : {"cosine", "euclidean"}, default "cosine"
        The cosine distance of a vector of zeros is 1.

    Returns
    -------
    ndarray of float64, shape (P,)
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if metric == "euclidean":
        return np.linalg.norm(first - second, axis=1)
    if metric != "cosine":
        raise ValueError(f"metric: found {metric!r}, expected 'cosine' or 'euclidean'")
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return 1 - np.einsum("pf,pf->p", first, second) / np.maximum(norms, np.finfo(np.float64).tiny)
