"""Anchors sorted once by (experiment, condition, time), so that every pool is a few contiguous slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from viscy_data.blocks import row_blocks
from viscy_data.checks import near_matches
from viscy_data.errors import InputError
from viscy_data.lookup import row_dtype

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["UNKNOWN_CONDITION", "AnchorColumns", "AnchorGroups", "lineage_codes"]

_WHERE = "anchors"
_COUNTED = 1 << 16  # keys up to which a block is put in its place key by key

Ints = NDArray[np.int64]

UNKNOWN_CONDITION = "unknown"
"""Name of the group of rows without a condition."""


@dataclass(frozen=True)
class AnchorColumns:
    """Names of the columns of a table of anchors; only those of the axes in use need exist.

    Parameters
    ----------
    experiment, condition, time : str
        By which anchors are divided, balanced and concentrated.
    lineage : str, optional
        By which ``max_per_lineage`` counts.
    frame : tuple of str
        What anchors with the same image have in common, for ``locality``.
    """

    experiment: str = "experiment"
    condition: str = "condition"
    time: str = "hours_post_infection"
    lineage: str | None = None
    frame: tuple[str, ...] = ("experiment", "fov_name", "t")


@dataclass(frozen=True, eq=False)
class AnchorGroups:
    """A permutation of the anchors in which every (experiment, condition) is a slice, ordered by time.

    Attributes
    ----------
    order : ndarray of int32 or int64, shape (N,)
        Positions in the table, sorted.
    edges : ndarray of int64, shape (E, C, 2)
        First place and end of each slice of ``order``.
    experiments, conditions : tuple of str
        Names, one empty name when the table is not divided.
    times : ndarray of float64, shape (T,)
        Distinct times, ascending; empty when time plays no role.
    run_keys, run_starts : ndarray of int64
        The runs of equal (slice, time): ``slice * T + time code``, and the first place of each (one entry more).
    """

    order: NDArray[np.integer]
    edges: NDArray[np.int64]
    experiments: tuple[str, ...]
    conditions: tuple[str, ...]
    times: NDArray[np.float64]
    run_keys: NDArray[np.int64]
    run_starts: NDArray[np.int64]

    @classmethod
    def from_table(
        cls,
        table: pd.DataFrame,
        experiment: str | None = None,
        condition: str | None = None,
        time: str | None = None,
        frame: tuple[str, ...] = (),
    ) -> AnchorGroups:
        """Sort a table by the columns named, and within them by those of ``frame``; None leaves an axis out.

        Raises
        ------
        InputError
            If the table is empty, a column is missing, an experiment is missing in a row, or a time is not finite.
        """
        n_rows = len(table)
        if n_rows == 0:
            raise InputError(_WHERE, found="none", expected="at least one anchor to sample from")
        experiment_codes, experiments = _codes(table, experiment, None)
        condition_codes, conditions = _codes(table, condition, UNKNOWN_CONDITION)
        time_codes, times = _time_codes(table, time)
        n_times = max(1, len(times))
        n_strata = len(experiments) * len(conditions)
        key = experiment_codes.astype(np.min_scalar_type(n_strata * n_times))
        for codes, n_codes in ((condition_codes, len(conditions)), (time_codes, n_times)):
            if n_codes > 1:
                key *= key.dtype.type(n_codes)
                key += codes.astype(key.dtype, copy=False)
        near = _frame_order(table, frame) if frame else None
        order, run_keys, run_starts = _sort(key if near is None else key[near], n_strata * n_times)
        order = order if near is None else near[order].astype(order.dtype)
        bounds = run_starts[np.searchsorted(run_keys, np.arange(n_strata + 1) * n_times)]
        edges = np.stack([bounds[:-1], bounds[1:]], axis=1).reshape(len(experiments), len(conditions), 2)
        return cls(order, edges, experiments, conditions, times, run_keys, run_starts)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Anchors of each experiment and condition, shape (E, C)."""
        return self.edges[..., 1] - self.edges[..., 0]

    def stratum(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Flat (experiment, condition) number of places in ``order``."""
        return np.searchsorted(self.edges[..., 1].ravel(), places, side="right")

    def time_at(self, place: int) -> float:
        """Time of the anchor at a place in ``order``."""
        run = np.searchsorted(self.run_starts, place, side="right") - 1
        return float(self.times[self.run_keys[run] % len(self.times)])

    def window(self, time: float, half_width: float) -> NDArray[np.int64]:
        """Slices with ``|t - time| <= half_width``, shape (E, C, 2), inside those of ``edges``."""
        slack = 1e-9 * max(1.0, abs(time), half_width)
        limits = np.searchsorted(self.times, [time - half_width - slack, time + half_width + slack])
        n_strata = self.edges.shape[0] * self.edges.shape[1]
        keys = np.arange(n_strata)[:, None] * len(self.times) + limits
        return self.run_starts[np.searchsorted(self.run_keys, keys)].reshape(self.edges.shape)


def _sort(key: NDArray[np.integer], n_keys: int) -> tuple[NDArray[np.integer], Ints, Ints]:
    """Sort rows by key, rows of one key in their order.

    Blocks that stay in the processor's cache are sorted one by one, and each of their rows is put where the rows of its
    key go on: in no more room than the result takes, and faster than one sort of everything.

    Returns
    -------
    order : ndarray of int32 or int64, shape (N,)
        Rows by key.
    run_keys, run_starts : ndarray of int64
        The distinct keys, ascending, and where each begins in ``order``, with the end as one entry more.
    """
    dtype = row_dtype(len(key))
    if n_keys > _COUNTED:
        order = _sort_by_digits(key, n_keys)
        ordered = key[order]
        starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
        return order.astype(dtype), ordered[starts].astype(np.int64), np.append(starts, len(order))
    counts = _count(key, n_keys)
    ends = np.cumsum(counts)
    free = ends - counts  # the next place of each key
    order = np.empty(len(key), dtype)
    for part in row_blocks(len(key)):
        own = np.argsort(key[part], kind="stable")
        keys = key[part][own]
        n_own = np.bincount(keys, minlength=n_keys)
        place = (free - (np.cumsum(n_own) - n_own))[keys]
        place += np.arange(len(own))
        order[place] = own + part.start
        free += n_own
    distinct = np.flatnonzero(counts)
    return order, distinct, np.append((ends - counts)[distinct], len(key))


def _count(codes: NDArray[np.integer], n_codes: int) -> Ints:
    """Count codes from 0 on, without a copy of all of them in 64 bits."""
    counts = np.zeros(n_codes, np.int64)
    for part in row_blocks(len(codes)):
        counts += np.bincount(codes[part], minlength=n_codes)
    return counts


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    if name not in table.columns:
        raise InputError(_WHERE, field=name, found="no such column", expected=near_matches(name, table.columns))
    return table[name]


def _codes(table: pd.DataFrame, name: str | None, missing: str | None) -> tuple[NDArray[np.integer], tuple[str, ...]]:
    """Factorise a column into codes of its sorted distinct names; rows without a value are called ``missing``."""
    import pandas as pd

    if name is None:
        return np.zeros(len(table), dtype=np.int8), ("",)
    column = _column(table, name)
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, values = column.cat.codes.to_numpy(), column.cat.categories
    else:
        codes, values = pd.factorize(column)
    names = [str(value) for value in values]
    if codes.min() < 0:
        if missing is None:
            n_lacking = np.count_nonzero(codes < 0)
            raise InputError(
                _WHERE, field=name, found=f"nothing in {n_lacking} of {len(table)} rows", expected="a name in every row"
            )
        names = [missing, *names]
        codes = codes.astype(np.min_scalar_type(-len(names) - 1)) + np.int8(1)
    used = _count(codes, len(names))
    present = sorted({names[i] for i in np.flatnonzero(used)})
    if present == names:
        return codes, tuple(names)
    rank = {text: i for i, text in enumerate(present)}
    lookup = np.array([rank.get(text, -1) for text in names], dtype=np.min_scalar_type(-max(1, len(present))))
    return lookup[codes], tuple(present)


def lineage_codes(table: pd.DataFrame, name: str) -> NDArray[np.integer]:
    """Return a number for the lineage of each row; rows without one count as lineages of their own.

    Raises
    ------
    InputError
        If there is no such column.
    """
    import pandas as pd

    codes = pd.factorize(_column(table, name))[0].astype(np.int64)
    without = np.flatnonzero(codes < 0)
    codes[without] = len(table) + np.arange(len(without))
    return codes.astype(np.int32) if len(table) < 2**30 else codes


def _frame_order(table: pd.DataFrame, names: tuple[str, ...]) -> NDArray[np.int64]:
    """Order rows such that those that agree in all columns are neighbours."""
    import pandas as pd

    codes = [pd.factorize(_column(table, name), sort=True)[0] for name in names]
    return np.lexsort(codes[::-1])


def _time_codes(table: pd.DataFrame, name: str | None) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    import pandas as pd

    if name is None:
        return np.zeros(len(table), dtype=np.int8), np.empty(0)
    column = _column(table, name)
    plain = isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf"
    values = column.to_numpy() if plain else column.to_numpy(np.float64, na_value=np.nan)
    found = []
    for part in row_blocks(len(values)):
        own, times = pd.factorize(values[part], use_na_sentinel=False)
        found.append((part, own.astype(np.min_scalar_type(len(times))), times))
    distinct = np.unique(np.concatenate([times for *_, times in found]))
    if not np.isfinite(distinct).all():
        finite = np.isfinite(values)
        first = int(np.flatnonzero(~finite)[0])
        raise InputError(
            _WHERE,
            field=name,
            found=f"no finite number in {np.count_nonzero(~finite)} of {len(values)} rows, the first at {first}",
            expected="the time of every anchor",
            fix="leave these anchors out, or turn temporal_enrichment off",
        )
    codes = np.empty(len(values), dtype=np.min_scalar_type(len(distinct)))
    for part, own, times in found:
        codes[part] = np.searchsorted(distinct, times).astype(codes.dtype)[own]
    return codes, distinct.astype(np.float64)


def _sort_by_digits(key: NDArray[np.integer], n_keys: int) -> Ints:
    """Sort non-negative integers by radix: numpy does so in linear time for 16 bits, hence digit by digit."""
    order = np.argsort(key.astype(np.uint16), kind="stable")
    shift = 16
    while n_keys > 1 << shift:
        digit = (key >> shift).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
        shift += 16
    return order
