"""One dataset of several, whose batches keep the samples of each apart; and such a batch made into one.

>>> import torch
>>> merge_batches([{"source": torch.zeros(2, 1), "names": ["a", "b"]}, {"source": torch.ones(1, 1), "names": ["c"]}])
{'source': tensor([[0.],
        [0.],
        [1.]]), 'names': ['a', 'b', 'c']}
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, default_collate

from viscy_data.batches.samples import collate_samples
from viscy_data.distributed import EpochPositions

__all__ = ["BatchedConcatDataset", "is_micro_batches", "merge_batches"]

_OWNER = "_dataset_idx"
_WHOLE = "batch"


class BatchedConcatDataset(ConcatDataset):
    """Datasets one after the other.

    ``dataset[[3, 70, 1]]`` is a list of micro-batches, one per dataset that has some of these positions, in the order
    of the datasets: a dict with the entries that its dataset returns and ``_dataset_idx``, the number of the dataset.
    What is no dict is found under ``batch``.

    Parameters
    ----------
    datasets : iterable of Dataset
        Those of this package, which return whole batches, those that have ``__getitems__``, or any with a length.
    """

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        super().__init__(datasets)

    def __getitem__(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Return micro-batches, see :meth:`__getitems__`."""
        if isinstance(positions, int | np.integer):
            raise NotImplementedError("a BatchedConcatDataset is asked for lists of positions, not for single ones")
        return self.__getitems__(positions)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return micro-batches.

        Raises
        ------
        ValueError
            If a position is not one of this dataset; negative ones count from the end.
        """
        n, positions = len(self), np.asarray(indices, np.int64)
        if ((positions < -n) | (positions >= n)).any():
            raise ValueError(f"positions {positions.min()} to {positions.max()}, but there are {n} items")
        positions = np.where(positions < 0, positions + n, positions)
        owner = np.searchsorted(self.cumulative_sizes, positions, side="right")
        batches = []
        for number in sorted(set(owner.tolist())):
            first = self.cumulative_sizes[number - 1] if number else 0
            own = EpochPositions((positions[owner == number] - first).tolist(), getattr(indices, "epoch", 0))
            batches.append(mark(_batch(self.datasets[number], own), number))
        return batches

    def source_digests(self) -> list[dict[str, Any]]:
        """Say which pixels there are, as far as the datasets do."""
        known = [dataset for dataset in self.datasets if hasattr(dataset, "source_digests")]
        return [source for dataset in known for source in dataset.source_digests()]


def mark(batch: Any, owner: int) -> dict[str, Any]:
    """Return a micro-batch: a batch that knows its dataset."""
    return {**batch, _OWNER: owner} if isinstance(batch, Mapping) else {_WHOLE: batch, _OWNER: owner}


def unmark(micro_batch: Mapping[str, Any]) -> tuple[Any, int]:
    """Return the batch as its dataset made it, and the number of the dataset."""
    batch = {key: value for key, value in micro_batch.items() if key != _OWNER}
    return batch[_WHOLE] if batch.keys() == {_WHOLE} else batch, micro_batch[_OWNER]


def is_micro_batches(batch: Any) -> bool:
    """Tell whether this is what a :class:`BatchedConcatDataset` returns."""
    return isinstance(batch, list) and len(batch) > 0 and all(isinstance(b, Mapping) and _OWNER in b for b in batch)


def merge_batches(batches: Sequence[Any], where: str = "batch") -> Any:
    """Make one batch of several: tensors one below the other, lists one after the other, mappings and tuples by entry.

    Keys that not all have are left out, with a warning. Other values, such as a number for the whole batch, have to be
    equal.

    Raises
    ------
    ValueError
        If they do not fit together, naming the entry.
    """
    first = batches[0]
    if len({_kind(batch) for batch in batches}) > 1:
        raise ValueError(f"{where}: {', '.join(sorted({type(batch).__name__ for batch in batches}))} in one batch")
    if isinstance(first, Mapping):
        return {
            key: merge_batches([batch[key] for batch in batches], f"{where}, {key}") for key in _common(batches, where)
        }
    if isinstance(first, Tensor):
        if len(shapes := {tuple(batch.shape[1:]) for batch in batches}) > 1:
            raise ValueError(
                f"{where}: samples of sizes {sorted(shapes)} in one batch; the members have to give one size"
            )
        return torch.cat(list(batches))
    if isinstance(first, np.ndarray):
        return np.concatenate(batches)
    # Collated texts come as tuples too; a tuple of tensors or of lists is one of entries.
    if isinstance(first, list) or (isinstance(first, tuple) and all(isinstance(e, str | int | float) for e in first)):
        return type(first)(entry for batch in batches for entry in batch)
    if isinstance(first, tuple):
        merged = [merge_batches(parts, where) for parts in zip(*batches, strict=True)]
        return type(first)(*merged) if hasattr(first, "_fields") else tuple(merged)
    if any(batch != first for batch in batches):
        raise ValueError(f"{where}: {', '.join(map(repr, batches))} in one batch")
    return first


def _kind(value: Any) -> type:
    kinds = (Mapping, Tensor, np.ndarray, list, tuple)
    return next((kind for kind in kinds if isinstance(value, kind)), type(value))


def _common(batches: Sequence[Mapping[str, Any]], where: str) -> list[str]:
    common = [key for key in batches[0] if all(key in batch for batch in batches)]
    partial = sorted({str(key) for batch in batches for key in batch if key not in common})
    if partial:
        warnings.warn(f"{where}: {', '.join(partial)} left out, which not all members have", stacklevel=2)
    return common


def _batch(dataset: Dataset, positions: EpochPositions) -> Any:
    if hasattr(dataset, "source_digests"):  # one of ours
        return dataset[positions]
    if hasattr(dataset, "__getitems__"):
        items = dataset.__getitems__(positions)
    else:
        items = [dataset[position] for position in positions]
    if isinstance(items, Mapping):
        return items
    samples = [sample for item in items for sample in (item if isinstance(item, list) else [item])]
    return collate_samples(samples) if isinstance(samples[0], Mapping) else default_collate(samples)
