"""Which pairs of rows attract, as a mask: from pairs, from ids, from labels; and relations from masks.

A mask of all pairs takes N x M bytes. Where that is too much, the relations of `masks` make it block by block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from viscy_losses.functional.masks import Relation, Relations

__all__ = ["id_mask", "label_mask", "mask_relations", "pair_mask"]


def pair_mask(n_pairs: int, device: torch.device | str | None = None) -> Tensor:
    """Pair row i of the first half with row i of the second.

    Parameters
    ----------
    n_pairs : int
    device : optional

    Returns
    -------
    Tensor, shape (2 n_pairs, 2 n_pairs), bool
        Symmetric, one positive per row.

    Examples
    --------
    >>> pair_mask(1)
    tensor([[False,  True],
            [ True, False]])
    """
    return torch.eye(2 * n_pairs, dtype=torch.bool, device=device).roll(n_pairs, 1)


def label_mask(labels: Tensor, reference_labels: Tensor | None = None) -> Tensor:
    """Pair rows of equal label.

    Parameters
    ----------
    labels : Tensor, shape (N,)
    reference_labels : Tensor, shape (M,), optional
        By default the rows themselves, of which none is its own positive.

    Returns
    -------
    Tensor, shape (N, M), bool
    """
    if reference_labels is not None:
        return labels[:, None] == reference_labels
    return (labels[:, None] == labels).fill_diagonal_(False)


def id_mask(ids: Tensor, reference_ids: Tensor | None = None, *, unknown: int = -1) -> Tensor:
    """Pair rows of the same identity (cell, track or lineage).

    Parameters
    ----------
    ids : Tensor, shape (N,), integer
    reference_ids : Tensor, shape (M,), integer, optional
        By default the rows themselves, of which none is its own positive.
    unknown : int, default -1
        Id of rows that are nobody in particular: unlike a label, it pairs with nothing.

    Returns
    -------
    Tensor, shape (N, M), bool
    """
    return label_mask(ids, reference_ids) & (ids != unknown)[:, None]


def mask_relations(positives: Tensor, negatives: Tensor | None = None) -> Relation:
    """Pair as masks say, for `contrast` and `info_nce`.

    Parameters
    ----------
    positives : Tensor, shape (N, M), bool
    negatives : Tensor, shape (N, M), bool, optional
        By default what is not positive, and of a square mask not the diagonal either: there rows are their own
        references.

    Returns
    -------
    callable
        From a slice of rows to `Relations`, pairs ordered by query, then by reference.

    Examples
    --------
    >>> import torch
    >>> from viscy_losses.functional import info_nce
    >>> relations = mask_relations(pair_mask(2))(slice(None))
    >>> round(info_nce(torch.eye(4), relations, temperature=1.0).mean().item(), 4)  # log 3: all others are at 0
    1.0986
    """
    if positives.dtype != torch.bool or (negatives is not None and negatives.shape != positives.shape):
        found = [f"{mask.dtype} {tuple(mask.shape)}" for mask in (positives, negatives) if mask is not None]
        raise ValueError(f"positives and negatives: found {' and '.join(found)}, expected two bool masks of one shape")
    if negatives is None:
        negatives = ~positives
        if positives.shape[0] == positives.shape[1]:
            negatives.fill_diagonal_(False)
    return lambda rows: Relations(*torch.where(positives[rows]), negatives[rows])
