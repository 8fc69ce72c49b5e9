"""Whether an embedding sees divisions: cells about to divide against other cells of the same field and frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from viscy_utils.evaluation.pairs import later_pairs, paired_distances
from viscy_utils.evaluation.probe import probe_scores
from viscy_utils.evaluation.scores import ProbeScores, Score, score_shares

__all__ = ["DivisionScores", "dividing_cells", "division_detection"]

_FEWEST = 10


@dataclass(frozen=True)
class DivisionScores:
    """How divisions are told.

    Attributes
    ----------
    probe : ProbeScores
        A linear probe of the features of the last frames of mothers against matched controls.
    step : Score
        AUROC of the distance from a mother's last frame to her daughters' first, against the steps of controls.
    """

    probe: ProbeScores
    step: Score


def dividing_cells(tracks: np.ndarray, parents: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the last row of each mother and the first row of each of her daughters.

    Parameters
    ----------
    tracks, parents : ndarray, shape (N,)
        Track and parent track per row, both unique across FOVs and experiments; a parent that is no track is none.
    t : ndarray of int, shape (N,)

    Returns
    -------
    mothers, daughters : ndarray of int64, shape (D,)
        Rows; a mother of two stands there twice. A daughter that begins later than the frame after, or the only one of
        her mother, is none: a track that was interrupted does not divide.
    """
    order = np.lexsort((t, tracks))
    edges = np.flatnonzero(np.diff(tracks[order]) != 0)
    first, last = order[np.r_[0, edges + 1]], order[np.r_[edges, len(order) - 1]]
    names = tracks[first]
    place = np.minimum(np.searchsorted(names, parents[first]), len(names) - 1)
    is_daughter = (names[place] == parents[first]) & (parents[first] != names)
    is_daughter &= t[first] - t[last[place]] == 1
    siblings = np.bincount(place[is_daughter], minlength=len(names))
    is_daughter &= siblings[place] > 1
    return last[place[is_daughter]], first[is_daughter]


def division_detection(
    features: np.ndarray,
    tracks: np.ndarray,
    parents: np.ndarray,
    t: np.ndarray,
    fovs: np.ndarray,
    lineages: np.ndarray,
    *,
    n_frames: int = 2,
    seed: int = 0,
) -> DivisionScores:
    """Score how well divisions are told from matched controls, by features and by the step they make.

    A control is a cell of the same FOV in the same frame that is seen one frame later and is not within ``n_frames`` of
    a division itself, drawn at random: neither the field nor the time tells them. A second for 100,000 cells.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
    tracks, parents, t : ndarray, shape (N,)
        As for :func:`dividing_cells`.
    fovs, lineages : ndarray, shape (N,)
    n_frames : int, default 2
        The last so many frames of a mother are divisions to the probe.
    seed : int, default 0

    Returns
    -------
    DivisionScores
        Folds and intervals over lineages; chance is 0.5. Missing with fewer than 10 divisions that have a control.
    """
    tracks, t, fovs, lineages = (np.asarray(each) for each in (tracks, t, fovs, lineages))
    mothers, daughters = dividing_cells(tracks, np.asarray(parents), t)
    earlier, later = later_pairs(tracks, t)
    before = _frame_of_event(tracks, mothers, t, np.inf) - t
    since = t - _frame_of_event(tracks, daughters, t, -np.inf)
    quiet = (before[earlier] > n_frames) & (since[earlier] >= n_frames)
    near = np.flatnonzero((before >= 0) & (before < n_frames))
    rng = np.random.default_rng(seed)
    cells, controls, _ = _matched(near, earlier[quiet], later[quiet], fovs, t, rng)
    if len(cells) < _FEWEST:
        missing = f"{len(cells)} cells before a division with a control, expected at least {_FEWEST}"
        return DivisionScores(ProbeScores.missing(missing), Score.missing(missing))
    rows = np.concatenate([cells, controls])
    divides = np.repeat(["divides", "other"], len(cells))
    probe = probe_scores(features[rows], divides, lineages[rows], lineages[rows], seed=seed)
    note = f"{len(cells)} cells before divisions, folds over lineages"
    if np.isfinite(probe.auroc.value):
        probe = ProbeScores(**{name: replace(score, note=note) for name, score in vars(probe).items()})
    where = dict(zip(mothers.tolist(), range(len(mothers)), strict=True))  # one daughter of each mother
    cells, controls, after = _matched(np.array(list(where), np.int64), earlier[quiet], later[quiet], fovs, t, rng)
    own = daughters[[where[row] for row in cells.tolist()]]
    steps = paired_distances(features[np.r_[cells, controls]], features[np.r_[own, after]], "euclidean")
    shares = np.column_stack([steps, -steps])
    labels = np.repeat(["divides", "other"], len(cells))
    classes, units = np.array(["divides", "other"]), lineages[np.r_[cells, controls]]
    return DivisionScores(probe, score_shares(labels, shares, classes, units, seed).auroc)


def _frame_of_event(tracks: np.ndarray, rows: np.ndarray, t: np.ndarray, without: float) -> np.ndarray:
    """Return per row the frame of the row of ``rows`` that is of its track."""
    frames = dict(zip(tracks[rows].tolist(), t[rows].tolist(), strict=True))
    return np.array([frames.get(name, without) for name in tracks.tolist()])


def _matched(
    cells: np.ndarray, first: np.ndarray, then: np.ndarray, fovs: np.ndarray, t: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw for each cell one of ``first`` of its FOV and frame, with that of ``then``; leave out cells without."""
    _, keys = np.unique(np.stack([fovs, t]), axis=1, return_inverse=True)
    keys = keys.ravel()
    order = np.argsort(keys[first], kind="stable")
    sorted_keys = keys[first][order]
    start, end = (np.searchsorted(sorted_keys, keys[cells], side) for side in ("left", "right"))
    has = end > start
    chosen = order[start[has] + (rng.random(has.sum()) * (end - start)[has]).astype(np.int64)]
    return cells[has], first[chosen], then[chosen]
