"""Which pairs attract and which repel: for a block of rows at a time, so that no N x N mask need exist.

Each function here returns a *relation*: a function of a slice of query rows that gives the positive pairs and the
negatives of just these rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "PairMasks",
    "Relation",
    "Relations",
    "StackedViews",
    "cross_relations",
    "group_masks",
    "group_relations",
    "label_relations",
    "listed_relations",
    "stack_views",
    "view_relations",
]


class Relations(NamedTuple):
    """Pairs of a block of R query rows with M references."""

    query: Tensor
    """Row within the block of each positive pair, (P,), int64."""
    positive: Tensor
    """Reference of each positive pair, (P,), int64."""
    negatives: Tensor
    """(R, M): bool, or how often each reference counts as a negative, float32."""


class PairMasks(NamedTuple):
    """Pairs of a block of R query rows with M references, without a list whose length depends on values.

    A GPU makes masks while the program goes on; the length of a list is an answer that has to be waited for.
    """

    positives: Tensor
    """(R, M), bool."""
    negatives: Tensor
    """(R, M), bool."""


Relation = Callable[[slice], Relations]


def label_relations(labels: Tensor, reference_labels: Tensor | None = None) -> Relation:
    """Pair by label: equal labels attract, different ones repel.

    Parameters
    ----------
    labels : Tensor, shape (N,)
    reference_labels : Tensor, shape (M,), optional
        By default the queries are their own references, and no row is its own positive.

    Returns
    -------
    callable
        From a slice of query rows to `Relations`; pairs ordered by query, then by reference.
    """
    references = labels if reference_labels is None else reference_labels

    def relate(rows: slice) -> Relations:
        same = labels[rows, None] == references
        negatives = ~same
        if reference_labels is None:
            same.diagonal(offset=rows.start).fill_(False)
        return Relations(*torch.where(same), negatives)

    return relate


class StackedViews(NamedTuple):
    """Two views of n cells below one another."""

    views: Tensor
    """(2n, D): first all anchors, then all positives."""
    ids: Tensor
    """(2B,) int64: the rows of `views` that are contrasted; all of them, or this process's share."""
    groups: Tensor | None
    """(2n,) group of each row, when given."""

    @property
    def queries(self) -> Tensor:
        """(2B, D): the rows that are contrasted, `views` itself where that is all of them."""
        return self.views if len(self.ids) == len(self.views) else self.views[self.ids]


def stack_views(
    anchor: Tensor, positive: Tensor, groups: Tensor | None = None, own: slice = slice(None)
) -> StackedViews:
    """Stack two views of n cells.

    Parameters
    ----------
    anchor, positive : Tensor, shape (n, D)
    groups : Tensor, shape (n,), optional
        On any device.
    own : slice, default all
        The cells that are contrasted; the others only serve as negatives.

    Returns
    -------
    StackedViews
    """
    cells = torch.arange(len(anchor), device=anchor.device)[own]
    ids = torch.cat([cells, cells + len(anchor)])
    groups = None if groups is None else groups.to(anchor.device).repeat(2)
    return StackedViews(torch.cat([anchor, positive]), ids, groups)


def view_relations(stacked: StackedViews) -> Relation:
    """Pair each view with the other view of its cell; all other cells repel, but those of the same group.

    Parameters
    ----------
    stacked : StackedViews
        Queries are its `ids`, references all its rows. Without groups every cell is a group of its own.

    Returns
    -------
    callable
        From a slice of `ids` to `Relations`: one positive per query.
    """
    ids, groups, n_views = stacked.ids, stacked.groups, len(stacked.views)

    def relate(rows: slice) -> Relations:
        own = ids[rows]
        other = (own + n_views // 2) % n_views
        query = torch.arange(len(own), device=own.device)
        if groups is None:
            negatives = torch.ones(len(own), n_views, dtype=torch.bool, device=own.device)
            negatives[query, own] = False
            negatives[query, other] = False
        else:
            negatives = groups[own, None] != groups
        return Relations(query, other, negatives)

    return relate


def cross_relations(stacked: StackedViews) -> Relation:
    """Pair each cell with itself in the other view; there all other cells repel, but those of the same group.

    Parameters
    ----------
    stacked : StackedViews
        Queries are one view of this process's cells, references the other view of all cells.

    Returns
    -------
    callable
        From a slice of these cells to `Relations`: one positive per query.
    """
    n_cells = len(stacked.views) // 2
    cells = stacked.ids[: len(stacked.ids) // 2]
    groups = torch.arange(n_cells, device=cells.device) if stacked.groups is None else stacked.groups[:n_cells]

    def relate(rows: slice) -> Relations:
        own = cells[rows]
        return Relations(torch.arange(len(own), device=own.device), own, groups[own, None] != groups)

    return relate


def group_masks(stacked: StackedViews) -> Callable[[slice], PairMasks]:
    """Pair each view with all other views of its group; those of other groups repel.

    Parameters
    ----------
    stacked : StackedViews
        Queries are its `ids`, references all its rows. Without groups every cell is a group of its own.

    Returns
    -------
    callable
        From a slice of `ids` to `PairMasks`.
    """
    ids, groups = stacked.ids, stacked.groups
    if groups is None:
        groups = torch.arange(len(stacked.views) // 2, device=ids.device).repeat(2)

    def relate(rows: slice) -> PairMasks:
        own = ids[rows]
        same = groups[own, None] == groups
        itself = own[:, None] == torch.arange(len(groups), device=own.device)
        return PairMasks(same & ~itself, ~same)

    return relate


def group_relations(stacked: StackedViews) -> Relation:
    """List the pairs of :func:`group_masks`.

    Parameters
    ----------
    stacked : StackedViews

    Returns
    -------
    callable
        From a slice of `ids` to `Relations`, pairs ordered by query, then by reference.
    """
    masks = group_masks(stacked)

    def relate(rows: slice) -> Relations:
        positives, negatives = masks(rows)
        return Relations(*torch.where(positives), negatives)

    return relate


def listed_relations(positives: tuple[Tensor, Tensor], negatives: tuple[Tensor, Tensor], n_references: int) -> Relation:
    """Pair as listed, for instance by a miner.

    Parameters
    ----------
    positives, negatives : tuple of two Tensors, int64
        Queries and references of the pairs. A negative listed k times counts k times.
    n_references : int

    Returns
    -------
    callable
        From a slice of query rows to `Relations`, positive pairs in their order.
    """

    def relate(rows: slice) -> Relations:
        query, positive = _inside(positives, rows)
        repelled, negative = _inside(negatives, rows)
        counts = torch.zeros(rows.stop - rows.start, n_references, device=query.device)
        counts.index_put_((repelled, negative), counts.new_ones(()), accumulate=True)
        return Relations(query, positive, counts)

    return relate


def _inside(pairs: tuple[Tensor, Tensor], rows: slice) -> tuple[Tensor, Tensor]:
    query, reference = pairs
    inside = (query >= rows.start) & (query < rows.stop)
    return query[inside] - rows.start, reference[inside]
