"""How much an embedding moves from one frame to the next, against how far apart unrelated cells are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from viscy_data.optional import require
from viscy_utils.evaluation.pairs import later_pairs, paired_distances, unrelated_pairs

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd

__all__ = [
    "compute_embeddings_smoothness",
    "compute_piece_wise_distance",
    "find_distribution_peak",
    "smoothness_by_time",
    "temporal_smoothness",
]

_logger = logging.getLogger(__name__)
_N_RANDOM = 20_000
_SEED = 42


def temporal_smoothness(
    features: np.ndarray, tracks: np.ndarray, t: np.ndarray, *, seed: int = 0, n_random: int = _N_RANDOM
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
    step, unrelated = _distances(centred, tracks, t, "cosine", np.random.default_rng(seed), n_random)
    if not len(step) or not len(unrelated):
        return float("nan")
    return float(step.mean() / unrelated.mean())


def smoothness_by_time(
    features: np.ndarray,
    tracks: np.ndarray,
    t: np.ndarray,
    *,
    metric: Literal["cosine", "euclidean"] = "cosine",
    seed: int = 0,
) -> pd.DataFrame:
    """Compute smoothness and dynamic range frame by frame: steps that begin in a frame against pairs of its cells.

    Cells of different ages differ, so pairs of one frame are the fair comparison. About 2 s for 100,000 cells.

    Parameters
    ----------
    features, tracks, t
        As for :func:`temporal_smoothness`.
    metric : {"cosine", "euclidean"}, default "cosine"
        Of features centred over all cells.
    seed : int, default 0
        Of the pairs, which are never of one track.

    Returns
    -------
    DataFrame
        Index ``t``; ``smoothness``, the ratio of the mean distances; ``dynamic_range``, the difference of the most
        frequent ones (:func:`find_distribution_peak` of histograms); ``n_steps``. NaN where a frame has one track.
    """
    import pandas as pd

    t, tracks = np.asarray(t), np.asarray(tracks)
    centred = np.asarray(features, dtype=np.float64) - np.mean(features, axis=0, dtype=np.float64)
    earlier, later = later_pairs(tracks, t)
    steps = paired_distances(centred[earlier], centred[later], metric)
    table = {}
    for frame in np.unique(t[earlier]):
        own, rows = steps[t[earlier] == frame], np.flatnonzero(t == frame)
        first, second = unrelated_pairs(
            tracks[rows], np.random.default_rng([seed, int(frame) % 2**32]), _N_RANDOM // 10
        )
        apart = paired_distances(centred[rows[first]], centred[rows[second]], metric)
        table[frame] = (np.nan, np.nan, len(own))
        if len(apart):
            peaks = [find_distribution_peak(each, "histogram") for each in (apart, own)]
            table[frame] = (own.mean() / apart.mean(), peaks[0] - peaks[1], len(own))
    columns = ["smoothness", "dynamic_range", "n_steps"]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns).rename_axis("t")


def _distances(
    features: np.ndarray, tracks: np.ndarray, t: np.ndarray, metric: str, rng: np.random.Generator, n_random: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of adjacent frames, and of pairs of cells of different tracks."""
    pairs = later_pairs(tracks, t), unrelated_pairs(tracks, rng, n_random)
    adjacent, unrelated = (paired_distances(features[first], features[second], metric) for first, second in pairs)
    return adjacent, unrelated


def compute_embeddings_smoothness(
    features_ad: ad.AnnData, distance_metric: Literal["cosine", "euclidean"] = "cosine", verbose: bool = False
) -> tuple[dict[str, float], dict[str, np.ndarray], list[list[float]]]:
    """Compare the steps between adjacent frames with random pairs of cells, in standardised features.

    Parameters
    ----------
    features_ad : AnnData
        With ``fov_name``, ``track_id``, ``t`` and perhaps ``experiment`` in ``obs``, in any order of rows.
    distance_metric : {"cosine", "euclidean"}, default "cosine"
    verbose : bool, default False
        Log the statistics.

    Returns
    -------
    stats : dict of str to float
        Mean, standard deviation, median and peak of the distances of adjacent frames (``adjacent_frame_*``) and of
        random pairs of different tracks (``random_frame_*``); ``smoothness_score``, the ratio of the means (lower is
        smoother); ``dynamic_range``, the difference of the peaks.
    distributions : dict of str to ndarray
        ``adjacent_frame`` and ``random_frame``: the distances.
    per_track : list of list of float
        Distances of adjacent frames of each track that has any.

    Raises
    ------
    ValueError
        Without two adjacent frames or a second track.
    """
    from sklearn.preprocessing import StandardScaler

    obs = features_ad.obs
    names = [name for name in ("experiment", "fov_name", "track_id") if name in obs]
    tracks = obs.groupby(names, observed=True, sort=False).ngroup().to_numpy()
    scaled = StandardScaler().fit_transform(np.asarray(features_ad.X, dtype=np.float64))
    rng = np.random.default_rng(_SEED)
    adjacent, unrelated = _distances(scaled, tracks, obs["t"].to_numpy(), distance_metric, rng, _N_RANDOM)
    if not len(adjacent) or not len(unrelated):
        raise ValueError("smoothness needs a track with two adjacent frames and a second track")
    distributions = {"adjacent_frame": adjacent, "random_frame": unrelated}
    stats = {f"{kind}_{name}": value for kind, each in distributions.items() for name, value in _summary(each).items()}
    stats["smoothness_score"] = stats["adjacent_frame_mean"] / stats["random_frame_mean"]
    stats["dynamic_range"] = stats["random_frame_peak"] - stats["adjacent_frame_peak"]
    if verbose:
        _logger.info("smoothness: %s", ", ".join(f"{name} {value:.4g}" for name, value in stats.items()))
    earlier = later_pairs(tracks, obs["t"].to_numpy())[0]
    return stats, distributions, _by_track(adjacent, tracks[earlier])


def _summary(values: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values)),
        "median": float(np.median(values)),
        "peak": find_distribution_peak(values),
    }


def _by_track(values: np.ndarray, tracks: np.ndarray) -> list[list[float]]:
    """Split values whose tracks stand together."""
    starts = np.flatnonzero(np.diff(tracks)) + 1
    return [part.tolist() for part in np.split(values, starts) if len(part)]


def compute_piece_wise_distance(
    features_df: pd.DataFrame,
    cross_dist: np.ndarray,
    rank_fractions: np.ndarray,
    groupby: Sequence[str] = ("fov_name", "track_id"),
) -> tuple[list[list[float]], list[list[float]]]:
    """Look up the distances and ranks of adjacent frames of each track.

    Parameters
    ----------
    features_df : DataFrame
        Column ``t`` and those of ``groupby``; row i is row and column i of the matrices. Rows in any order.
    cross_dist, rank_fractions : ndarray, shape (N, N)
    groupby : sequence of str, default ("fov_name", "track_id")
        What identifies a track.

    Returns
    -------
    distances, ranks : list of list of float
        Per track, for frames that are exactly one apart; tracks without any have an empty list.
    """
    distances, ranks = [], []
    frames = features_df["t"].to_numpy()
    for rows in features_df.groupby(list(groupby), observed=True).indices.values():
        earlier, later = later_pairs(np.zeros(len(rows), np.int64), frames[rows])
        distances.append(np.asarray(cross_dist)[rows[earlier], rows[later]].tolist())
        ranks.append(np.asarray(rank_fractions)[rows[earlier], rows[later]].tolist())
    return distances, ranks


def find_distribution_peak(data: np.ndarray, method: Literal["histogram", "kde_robust"] = "kde_robust") -> float:
    """Find the most frequent value of a sample.

    Parameters
    ----------
    data : ndarray of float
        Flattened; values that are not finite are left out.
    method : {"histogram", "kde_robust"}, default "kde_robust"
        The middle of the fullest of 50 bins, or the highest of 1000 points of a Gaussian kernel density estimate
        (the median of a sample without spread).

    Raises
    ------
    ValueError
        For an empty sample or another method.
    """
    values = np.asarray(data, dtype=np.float64).ravel()
    values = values[np.isfinite(values)]
    if method not in ("histogram", "kde_robust"):
        raise ValueError(f"method: found {method!r}, expected 'histogram' or 'kde_robust'")
    if not len(values):
        raise ValueError("a sample without finite values has no peak")
    if method == "histogram":
        counts, edges = np.histogram(values, bins=50)
        fullest = int(np.argmax(counts))
        return float((edges[fullest] + edges[fullest + 1]) / 2)
    gaussian_kde = require("scipy.stats", extra="eval", package="viscy-utils").gaussian_kde
    if np.ptp(values) == 0:
        return float(np.median(values))
    points = np.linspace(values.min(), values.max(), 1000)
    return float(points[np.argmax(gaussian_kde(values)(points))])
