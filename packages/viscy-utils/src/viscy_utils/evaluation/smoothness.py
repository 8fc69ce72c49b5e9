"""How much an embedding moves from one frame to the next, against how far apart unrelated cells are."""

from __future__ import annotations

import numpy as np

__all__ = ["temporal_smoothness"]


def temporal_smoothness(
    features: np.ndarray, tracks: np.ndarray, t: np.ndarray, *, seed: int = 0, n_random: int = 20_000
) -> float:
    r"""Mean distance of adjacent frames of a track over mean distance of random pairs of cells.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
        One row per cell and frame.
    tracks : ndarray, shape (N,)
        Track per row, unique across FOVs and experiments.
    t : ndarray of int, shape (N,)
        Frame per row. Only pairs exactly one frame apart count: a gap is no step.
    seed : int, default 0
        Of the random pairs, which are never of one track.
    n_random : int, default 20000
        How many random pairs.

    Returns
    -------
    float
        :math:`\overline{d(z_t, z_{t+1})} / \overline{d(z_i, z_j)}` with cosine distance of the centred features.
        Lower is smoother, 1 means no memory, and 0 a collapse in time. NaN without adjacent frames or with one track.
    """
    centred = features - features.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), np.finfo(centred.dtype).tiny)
    codes = np.unique(tracks, return_inverse=True)[1]
    order = np.lexsort((t, codes))
    first, second = order[:-1], order[1:]
    adjacent = (codes[first] == codes[second]) & (t[second] - t[first] == 1)
    rng = np.random.default_rng(seed)
    a, b = rng.integers(len(codes), size=(2, n_random))
    unrelated = codes[a] != codes[b]
    if not adjacent.any() or not unrelated.any():
        return float("nan")
    step = _cosine_distance(unit[first[adjacent]], unit[second[adjacent]])
    return float(step.mean() / _cosine_distance(unit[a[unrelated]], unit[b[unrelated]]).mean())


def _cosine_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return 1 - np.einsum("nf,nf->n", a, b)
