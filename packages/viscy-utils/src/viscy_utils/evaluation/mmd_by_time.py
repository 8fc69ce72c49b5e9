"""Whether conditions differ at one time: discrepancy of the cells of a frame, and permutations of whole lineages."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from viscy_data.optional import from_extra
from viscy_utils.evaluation.draws import draw_rows
from viscy_utils.evaluation.mmd import mmd_permutation_test

with from_extra("eval", package="viscy-utils"):
    import pandas as pd
    from scipy.stats import false_discovery_control

__all__ = ["mmd_by_time"]

_LEAST_UNITS = 5  # of a side: fewer allow no permutation that is rare
_MOST_CELLS = 500  # of a side


def mmd_by_time(
    features: np.ndarray,
    labels: np.ndarray,
    experiments: np.ndarray,
    units: np.ndarray,
    t: np.ndarray,
    *,
    n_times: int = 8,
    n_permutations: int = 199,
    seed: int = 0,
) -> pd.DataFrame:
    """Test in single frames of each experiment whether cells of a label are distributed as those of the other labels.

    Cells of one experiment and one frame are compared, so that neither what experiments differ in nor age counts. Of
    two labels, the first is compared with the second; of more, each with all others.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
    labels, experiments : ndarray of str, shape (N,)
    units : ndarray, shape (N,)
        Lineage per cell: whole ones are permuted. Those of two labels in the frame are left out.
    t : ndarray of int, shape (N,)
        Frame per cell.
    n_times : int, default 8
        Frames of an experiment, spread over those in which both sides have at least 5 lineages.
    n_permutations : int, default 199
    seed : int, default 0
        Of the permutations, and of the 500 cells of a side that are drawn of more.

    Returns
    -------
    DataFrame
        Columns ``experiment``, ``label``, ``t``, ``mmd2`` (unbiased, Gaussian kernel of median bandwidth: Gretton et
        al. 2012), ``p``, ``q`` (of all rows, Benjamini and Hochberg 1995), ``null_95`` (that 95 % of the permutations
        stay below), ``n_cells`` and ``n_units``; no rows where no frame has enough lineages.
    """
    rows = []
    for experiment in np.unique(experiments):
        own = np.flatnonzero(experiments == experiment)
        names = np.unique(labels[own])
        for name in names[:1] if len(names) == 2 else names:
            of_label = labels[own] == name
            tested = list(_frames(own, of_label, units[own], np.asarray(t)[own]))
            for number in np.unique(np.linspace(0, len(tested) - 1, min(n_times, len(tested))).astype(int)):
                frame, *sides = tested[number]
                found = _test([features[side] for side in sides], [units[side] for side in sides], n_permutations, seed)
                rows.append({"experiment": str(experiment), "label": str(name), "t": int(frame)} | found)
    columns = ["experiment", "label", "t", "mmd2", "p", "q", "null_95", "n_cells", "n_units"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(q=false_discovery_control(table["p"])) if rows else table


def _frames(
    rows: np.ndarray, of_label: np.ndarray, units: np.ndarray, t: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the frames that can be tested, with the rows of both sides."""
    for frame in np.unique(t):
        here = t == frame
        both = np.intersect1d(units[here & of_label], units[here & ~of_label])
        sides = [np.flatnonzero(here & side & ~np.isin(units, both)) for side in (of_label, ~of_label)]
        if min(len(np.unique(units[side])) for side in sides) >= _LEAST_UNITS:
            yield frame, rows[sides[0]], rows[sides[1]]


def _test(features: list[np.ndarray], units: list[np.ndarray], n_permutations: int, seed: int) -> dict[str, float]:
    drawn = [draw_rows(len(each), _MOST_CELLS, seed) for each in features]
    first, second = (each[rows] for each, rows in zip(features, drawn, strict=True))
    own = np.concatenate([each[rows] for each, rows in zip(units, drawn, strict=True)])
    mmd2, p, null = mmd_permutation_test(first, second, n_permutations, seed=seed, units=own)
    counts = {"n_cells": len(own), "n_units": len(np.unique(own))}
    return {"mmd2": mmd2, "p": p, "null_95": float(np.nanquantile(null, 0.95))} | counts
