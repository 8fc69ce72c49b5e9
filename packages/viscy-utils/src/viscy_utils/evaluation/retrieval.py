"""Whether a cell finds its own lineage among all others: recall at k and mean average precision.

Musgrave, Belongie and Lim, "A metric learning reality check", ECCV 2020, for both figures in metric learning. Crops
that show the same pixels find each other whatever an encoder has learned, so they are not among the candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from viscy_data.optional import from_extra
from viscy_utils.evaluation.draws import draw_rows
from viscy_utils.evaluation.intervals import mean_by_unit
from viscy_utils.evaluation.neighborhoods import blocks_of_distances
from viscy_utils.evaluation.scores import Score

with from_extra("eval", package="viscy-utils"):
    from scipy.special import gammaln

__all__ = ["CellPlaces", "Retrieval", "chance_of_precision", "lineage_retrieval"]


@dataclass(frozen=True)
class CellPlaces:
    """Where cells are, to tell which crops show the same pixels.

    Attributes
    ----------
    fovs, tracks : ndarray, shape (N,)
        Unique across experiments.
    t : ndarray of int, shape (N,)
        Frame.
    yx_px : ndarray of float, shape (N, 2), optional
        Centre of the cell in pixels.
    patch_px : float, optional
        Side of the crops in pixels.
    """

    fovs: np.ndarray
    tracks: np.ndarray
    t: np.ndarray
    yx_px: np.ndarray | None = None
    patch_px: float | None = None

    def overlapping(self, rows: np.ndarray, n_frames: int = 1) -> np.ndarray:
        """Tell which cells show the same as rows (B,).

        These are the rows themselves and, of frames at most ``n_frames`` apart, those of the same track and those whose
        crops overlap.

        Returns
        -------
        ndarray of bool, shape (B, N)
        """
        same = self.tracks[rows, None] == self.tracks
        if self.yx_px is not None and self.patch_px is not None:
            near = (np.abs(self.yx_px[rows, None] - self.yx_px) < self.patch_px).all(axis=2)
            same |= near & (self.fovs[rows, None] == self.fovs)
        return same & (np.abs(self.t[rows, None] - self.t) <= n_frames)


@dataclass(frozen=True)
class Retrieval:
    """What was found.

    Attributes
    ----------
    recall : dict of int to Score
        By k: share of the cells that have one of their lineage among their k nearest.
    mean_average_precision : Score
        Mean over cells of the mean precision at each cell of their lineage.
    """

    recall: dict[int, Score]
    mean_average_precision: Score


def lineage_retrieval(
    features: np.ndarray,
    lineages: np.ndarray,
    places: CellPlaces,
    *,
    k: Sequence[int] = (1, 10),
    n_queries: int = 1000,
    n_frames: int = 1,
    seed: int = 0,
) -> Retrieval:
    """Rank all cells by their cosine distance from some, and look where those of the same lineage are.

    About 10 s for 100,000 cells of 128 features; what it costs grows with cells times ``n_queries``.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
    lineages : ndarray, shape (N,)
        Unique across FOVs.
    places : CellPlaces
        Crops that overlap in frames at most ``n_frames`` apart, and adjacent frames of one track, are no candidates.
    k : sequence of int, default (1, 10)
    n_queries : int, default 1000
        So many cells are asked for, drawn evenly at random.
    n_frames : int, default 1
    seed : int, default 0
        Of the draw and the bootstrap.

    Returns
    -------
    Retrieval
        Equal distances count against a cell. Chance is that of a random order (for average precision its expectation,
        Bestgen, PLOS ONE 10 (2015)); intervals are over lineages. Missing where no cell has another of its lineage.
    """
    codes = np.unique(lineages, return_inverse=True)[1]
    queries = draw_rows(len(codes), n_queries, seed)
    asked, found = [], []
    blocks = blocks_of_distances(features, queries, lambda rows: places.overlapping(rows, n_frames), metric="cosine")
    for rows, distances in blocks:
        for row, near in zip(rows, distances, strict=True):
            candidates = np.isfinite(near)
            wanted = near[candidates & (codes == codes[row])]
            if len(wanted):
                asked.append(row)
                found.append(_ranked(near[candidates], np.sort(wanted)))
    if not asked:
        missing = Score.missing("no cell has another one of its lineage outside of overlapping crops")
        return Retrieval(dict.fromkeys(k, missing), missing)
    first, precision, n_wanted, n_candidates = np.array(found).T
    units, left_out = codes[asked], len(queries) - len(asked)
    note = f"{len(asked)} cells asked for" + (f", {left_out} alone in their lineage left out" if left_out else "")
    chances = {each: _chance_of_recall(n_wanted, n_candidates, each).mean() for each in k}

    def score(values: np.ndarray, chance: float) -> Score:
        return Score(*mean_by_unit(values, units, seed), float(chance), note, len(asked))

    recall = {each: score((first <= each).astype(float), chances[each]) for each in k}
    return Retrieval(recall, score(precision, chance_of_precision(n_wanted, n_candidates).mean()))


def _ranked(distances: np.ndarray, wanted: np.ndarray) -> tuple[float, float, float, float]:
    """Return the rank of the first that is wanted, the average precision, and the numbers of wanted and of all."""
    ranks = np.searchsorted(np.sort(distances), wanted, side="right")
    precision = np.mean(np.searchsorted(wanted, wanted, side="right") / ranks)
    return float(ranks[0]), float(precision), float(len(wanted)), float(len(distances))


def _chance_of_recall(n_wanted: np.ndarray, n_all: np.ndarray, k: int) -> np.ndarray:
    """One minus the hypergeometric probability of none among k."""
    n_others = n_all - n_wanted
    possible = n_others >= k
    others = np.where(possible, n_others, k)
    none = _log_choices(others, k) - _log_choices(np.maximum(n_all, k), k)
    return np.where(possible, 1 - np.exp(none), 1.0)


def _log_choices(n: np.ndarray, k: int) -> np.ndarray:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def chance_of_precision(n_wanted: np.ndarray, n_all: np.ndarray) -> np.ndarray:
    """Return the expected average precision of a random order (Bestgen 2015).

    Parameters
    ----------
    n_wanted, n_all : ndarray of float, shape (N,)
        How many of how many candidates are wanted.
    """
    harmonic = np.cumsum(1 / np.arange(1, n_all.max() + 1))[n_all.astype(int) - 1]
    follows = (n_wanted - 1) / np.maximum(n_all - 1, 1)
    return (harmonic + follows * (n_all - harmonic)) / n_all
