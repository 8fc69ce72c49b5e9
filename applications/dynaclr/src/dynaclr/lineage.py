"""Which track descends from which: a forest of tracks as flat arrays.

Every track has at most one parent. Roots are found by pointer jumping; a depth-first order gives each track an interval
that contains exactly the intervals of its descendants, so that a relation between two tracks is two comparisons, for
whole arrays at once. Nothing here walks the forest track by track or generation by generation.

>>> forest = LineageForest([-1, 0, 0, 1])  # 0 divides into 1 and 2, 1 goes on as 3
>>> forest.root
array([0, 0, 0, 0], dtype=int32)
>>> bool(forest.is_descendant(3, 1)), bool(forest.is_descendant(3, 2))
(True, False)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["LineageCycleError", "LineageForest"]


class LineageCycleError(ValueError):
    """Tracks that are their own ancestors.

    Parameters
    ----------
    tracks : ndarray of int64
        Numbers of the tracks that lie on a cycle, ascending.
    """

    def __init__(self, tracks: np.ndarray) -> None:
        self.tracks = tracks
        super().__init__(f"tracks {', '.join(map(str, tracks[:20]))} are their own ancestors")


class LineageForest:
    """Parents, roots and depth-first intervals of tracks.

    Parameters
    ----------
    parent : array of int, shape (n_tracks,)
        Number of each track's parent track; -1 makes a root.

    Attributes
    ----------
    parent, root : ndarray of int32, shape (n_tracks,)
        As given; the oldest ancestor (a root's is itself).
    enter, leave : ndarray of int32, shape (n_tracks,)
        Position of the track in a depth-first order of the forest, and the position after its last descendant:
        ``d`` is ``a`` or a descendant of ``a`` when ``enter[a] <= enter[d] < leave[a]``.

    Raises
    ------
    LineageCycleError
        If tracks are their own ancestors; the error carries their numbers.
    ValueError
        If a parent is not a track.
    """

    def __init__(self, parent: ArrayLike) -> None:
        parent = np.asarray(parent, dtype=np.int32).reshape(-1)
        if len(parent) and (parent.min() < -1 or parent.max() >= len(parent)):
            raise ValueError(f"parents must lie between -1 and {len(parent) - 1}, the number of the last track")
        self.parent = parent
        self.root = _roots(parent)
        self.enter, self.leave = _intervals(parent, self.root)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what :meth:`from_arrays` makes it from, to be written to a file."""
        return {"parent": self.parent, "root": self.root, "enter": self.enter, "leave": self.leave}

    @classmethod
    def from_arrays(cls, parent: np.ndarray, root: np.ndarray, enter: np.ndarray, leave: np.ndarray) -> LineageForest:
        """Take the arrays of :meth:`arrays` as they are, such as those of a mapped file, without a copy."""
        forest = cls.__new__(cls)
        forest.parent, forest.root, forest.enter, forest.leave = parent, root, enter, leave
        return forest

    def __len__(self) -> int:
        return len(self.parent)

    def is_descendant(self, descendant: ArrayLike, ancestor: ArrayLike) -> np.ndarray:
        """Tell whether tracks are, or descend from, other tracks.

        Parameters
        ----------
        descendant, ancestor : array of int
            Track numbers, broadcast against each other.

        Returns
        -------
        ndarray of bool
            True also where both are the same track.
        """
        place = self.enter[np.asarray(descendant)]
        ancestor = np.asarray(ancestor)
        return (self.enter[ancestor] <= place) & (place < self.leave[ancestor])


def _roots(parent: np.ndarray) -> np.ndarray:
    """Oldest ancestors by pointer jumping: log2(depth) steps."""
    root = np.where(parent < 0, np.arange(len(parent), dtype=np.int32), parent)
    for _ in range(len(parent).bit_length() + 1):
        above = root[root]
        if np.array_equal(above, root):
            break
        root = above
    lost = parent[root] >= 0  # more jumps than tracks, and still no root: these lead onto a cycle
    if lost.any():
        raise LineageCycleError(np.unique(root[lost]).astype(np.int64))
    return root


def _intervals(parent: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth-first intervals by list ranking.

    Each tree is a tour that passes every track twice, down (node v) and up (node n + v). Doubling the steps along the
    tours gives every node the number of downward nodes that are still to come, hence its place, in log2(size of the
    largest tree) steps whatever the depth.
    """
    n = len(parent)
    after = _tour(parent)
    ahead = np.zeros(2 * n, dtype=np.int32)
    ahead[:n] = 1
    while True:
        further = after[after]
        if np.array_equal(further, after):
            break
        ahead += ahead[after]  # the end of a tour carries 0, so stepping onto it again adds nothing
        after = further
    is_root = np.flatnonzero(parent < 0)
    sizes = ahead[is_root]
    end = np.zeros(n, dtype=np.int32)
    end[is_root] = np.cumsum(sizes)
    end = end[root]
    return end - ahead[:n], end - ahead[n:]


def _tour(parent: np.ndarray) -> np.ndarray:
    """Next node of the tour for all 2 n nodes; the last node of a tree is followed by itself."""
    n = len(parent)
    tracks = np.arange(n, dtype=np.int32)
    after = np.empty(2 * n, dtype=np.int32)
    after[:n] = tracks + n  # down, then up again where there is no child
    after[n:] = np.where(parent < 0, tracks, parent) + n
    children = np.argsort(parent, kind="stable").astype(np.int32)
    children = children[np.searchsorted(parent[children], 0) :]
    mothers = parent[children]
    first = np.ones(len(children), dtype=bool)
    first[1:] = mothers[1:] != mothers[:-1]
    after[mothers[first]] = children[first]
    younger = np.flatnonzero(~first)
    after[children[younger - 1] + n] = children[younger]
    return after
