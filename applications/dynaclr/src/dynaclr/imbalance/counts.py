"""How often each class occurs in a training set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

__all__ = ["count_classes"]


def count_classes(loader: Iterable[Any], labels_of: Callable[[Any], Tensor], num_classes: int) -> Tensor:
    """Count the labels of a training set, once through it in order.

    Parameters
    ----------
    loader : iterable of batches
        The data set behind a `DataLoader` is read without its sampler, so that each sample counts once however often
        training draws it. A data set with an attribute ``labels`` or ``targets``, one label per sample, is not read at
        all.
    labels_of : callable
        From a batch to integer labels, of any shape: one per sample, or one per pixel.
    num_classes : int
        K.

    Returns
    -------
    Tensor, shape (K,), int64

    Raises
    ------
    ValueError
        For a label that is not one of 0 to K - 1, and for a loader without batches.

    Notes
    -----
    The random state is left as it was found, so training is the same with and without counting.
    """
    known = _known_labels(loader)
    if known is not None:
        return _count(known, num_classes)
    counts = torch.zeros(num_classes, dtype=torch.int64)
    with isolate_rng():
        for batch in _in_order(loader):
            counts += _count(labels_of(batch), num_classes)
    if not counts.sum():
        raise ValueError("class weights: the training set has no labels to count; give class_weights instead")
    return counts


def _known_labels(loader: Iterable[Any]) -> Tensor | None:
    dataset = getattr(loader, "dataset", None)
    for name in ("labels", "targets"):
        labels = getattr(dataset, name, None)
        if labels is not None and not callable(labels) and len(labels) == len(dataset):
            # A column of a table may not be written to, and a tensor could.
            return labels if isinstance(labels, Tensor) else torch.from_numpy(np.array(labels))
    return None


def _in_order(loader: Iterable[Any]) -> Iterable[Any]:
    """Replace the sampler of a plain loader; loaders that batch in their own way are iterated as they are."""
    plain = type(loader) is DataLoader and loader.batch_size is not None
    if not plain or isinstance(loader.dataset, IterableDataset):
        return loader
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        multiprocessing_context=loader.multiprocessing_context,
        worker_init_fn=loader.worker_init_fn,
    )


def _count(labels: Tensor, num_classes: int) -> Tensor:
    flat = labels.detach().cpu().reshape(-1)
    whole = flat.long()
    if flat.is_floating_point() and not torch.equal(whole.to(flat.dtype), flat):
        raise ValueError("class weights: found labels that are not whole numbers, expected the class of each sample")
    if len(whole) and (whole.min() < 0 or whole.max() >= num_classes):
        found = sorted(set(whole[(whole < 0) | (whole >= num_classes)].tolist()))
        raise ValueError(f"class weights: found label {found[0]}, expected 0 to {num_classes - 1}")
    return torch.bincount(whole, minlength=num_classes)
