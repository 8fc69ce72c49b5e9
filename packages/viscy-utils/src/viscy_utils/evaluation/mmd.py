"""Whether two sets of embeddings are of one distribution: maximum mean discrepancy with a permutation test.

Gretton et al., "A kernel two-sample test", JMLR 13 (2012), 723-773.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["compute_mmd_unbiased", "gaussian_rbf_kernel", "median_heuristic", "mmd_permutation_test"]

_MOST_ROWS = 20_000  # the kernel has this many squared entries of 8 bytes
_PERMUTATIONS_AT_ONCE = 64
_SUBSAMPLE_SEED = 0


def median_heuristic(X: NDArray, Y: NDArray, subsample: int = 1000) -> float:
    """Return the median of the distances of all pairs of different rows of both sets.

    Parameters
    ----------
    X : ndarray, shape (M, F)
    Y : ndarray, shape (N, F)
    subsample : int, default 1000
        Of more rows so many are drawn, the same ones each time.

    Returns
    -------
    float
        Positive: 1 where all rows are equal.
    """
    rows = np.concatenate([X, Y]).astype(np.float64)
    if len(rows) > subsample:
        rows = rows[np.random.default_rng(_SUBSAMPLE_SEED).choice(len(rows), subsample, replace=False)]
    pairs = np.triu_indices(len(rows), k=1)
    return float(np.median(np.sqrt(_squared_distances(rows, rows)[pairs]))) or 1.0


def gaussian_rbf_kernel(X: NDArray, Y: NDArray, bandwidth: float) -> NDArray[np.float64]:
    r"""Compute :math:`\exp(-\|x - y\|^2 / 2 h^2)` for all pairs of rows, shape (M, N)."""
    return np.exp(-_squared_distances(np.asarray(X, float), np.asarray(Y, float)) / (2 * bandwidth**2))


def _squared_distances(x: NDArray, y: NDArray) -> NDArray[np.float64]:
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    return np.maximum(squares, 0)


def compute_mmd_unbiased(X: NDArray, Y: NDArray, bandwidth: float | None = None) -> float:
    """Estimate the squared discrepancy without bias: about 0, also below, for one distribution.

    Parameters
    ----------
    X : ndarray, shape (M, F)
    Y : ndarray, shape (N, F)
        At least two rows each.
    bandwidth : float, optional
        Of the Gaussian kernel; :func:`median_heuristic` by default.

    Raises
    ------
    ValueError
        For fewer rows.
    """
    kernel = _kernel(X, Y, bandwidth)
    side = np.arange(len(kernel)) < len(X)
    return float(_discrepancies(kernel, side[:, None])[0])


def _kernel(x: NDArray, y: NDArray, bandwidth: float | None) -> NDArray[np.float64]:
    """Kernel of all pairs of rows of both sets, with zeros for a row and itself."""
    if min(len(x), len(y)) < 2:
        raise ValueError(f"the discrepancy needs two rows on each side, found {len(x)} and {len(y)}")
    if len(x) + len(y) > _MOST_ROWS:
        raise ValueError(f"{len(x) + len(y)} rows need too much memory: draw at most {_MOST_ROWS} of them")
    rows = np.concatenate([x, y])
    kernel = gaussian_rbf_kernel(rows, rows, bandwidth or median_heuristic(x, y))
    np.fill_diagonal(kernel, 0)
    return kernel


def _discrepancies(kernel: NDArray, sides: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Squared discrepancy for each column of ``sides``, which says what is of the first set."""
    first = sides.astype(np.float64)
    n_first = first.sum(axis=0)
    n_second = len(kernel) - n_first
    of_first = kernel @ first
    within_first = np.sum(first * of_first, axis=0)
    across = of_first.sum(axis=0) - within_first
    within_second = kernel.sum() - within_first - 2 * across
    with np.errstate(divide="ignore", invalid="ignore"):
        within = within_first / (n_first * (n_first - 1)) + within_second / (n_second * (n_second - 1))
        return within - 2 * across / (n_first * n_second)


def mmd_permutation_test(
    X: NDArray,
    Y: NDArray,
    n_permutations: int = 1000,
    bandwidth: float | None = None,
    seed: int = 42,
    units: NDArray | None = None,
) -> tuple[float, float, NDArray[np.float64]]:
    """Test whether two sets are of one distribution.

    Parameters
    ----------
    X : ndarray, shape (M, F)
    Y : ndarray, shape (N, F)
    n_permutations : int, default 1000
    bandwidth : float, optional
        As in :func:`compute_mmd_unbiased`.
    seed : int, default 42
    units : ndarray, shape (M + N,), optional
        Independent unit (lineage) of each row of X, then of Y. Whole units change sides: rows of one cell are not
        independent, and a test that permutes them finds differences where there are none.

    Returns
    -------
    mmd2 : float
        As from :func:`compute_mmd_unbiased`.
    p : float
        (1 + permutations with at least this discrepancy) / (1 + permutations).
    null : ndarray of float64, shape (n_permutations,)
        Discrepancies of the permutations.

    Raises
    ------
    ValueError
        If a unit is on both sides, there are too few rows, or too many for the memory.
    """
    kernel = _kernel(X, Y, bandwidth)
    side = np.arange(len(kernel)) < len(X)
    codes = np.arange(len(side)) if units is None else np.unique(units, return_inverse=True)[1]
    of_unit = np.zeros(codes.max() + 1, dtype=bool)
    of_unit[codes[side]] = True
    if of_unit[codes[~side]].any():
        raise ValueError("units: a lineage is on both sides, so that they are not two independent sets")
    rng = np.random.default_rng(seed)
    null = np.empty(n_permutations)
    for start in range(0, n_permutations, _PERMUTATIONS_AT_ONCE):
        part = slice(start, min(start + _PERMUTATIONS_AT_ONCE, n_permutations))
        shuffled = np.stack([rng.permutation(of_unit) for _ in range(part.stop - part.start)], axis=1)
        null[part] = _discrepancies(kernel, shuffled[codes])
    found = float(_discrepancies(kernel, side[:, None])[0])
    # Rounding must not make an equal permutation a smaller one, and one that has no value is no evidence.
    n_larger = int(np.sum(~(null < found - 1e-12)))
    return found, (1 + n_larger) / (1 + n_permutations), null
