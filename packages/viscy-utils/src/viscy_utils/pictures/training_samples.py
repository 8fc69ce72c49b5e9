"""A few samples of what a loader loads, read beside it: its order, its counters and its workers notice nothing.

>>> batch = read_samples(trainer.train_dataloader, n_samples=10, seed=0)  # doctest: +SKIP
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.multiprocessing import get_start_method
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from viscy_utils.randomness import fixed_randomness, generators_of

__all__ = ["read_samples"]

# Of loaders without a batch size: these samplers yield single positions, all others whole lists of them.
_SINGLE_POSITIONS = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler, DistributedSampler)


def read_samples(loaders: Any, n_samples: int, seed: int = 0) -> Any:
    """Read random samples from the dataset of a loader, collated as the loader does it.

    The loader is not iterated. The samples are drawn without replacement, and are the same for the same seed. Random
    generators are left as they were, those that the dataset keeps included.

    Parameters
    ----------
    loaders : DataLoader, or mapping or sequence of them
    n_samples : int
        At most the size of the dataset. Of an iterable dataset the first ones are read; of a dataset whose single items
        are whole batches one item.
    seed : int, default 0
        Which samples, and what is random in reading them.

    Returns
    -------
    batch
        As from the loader, or batches in the structure of `loaders`.

    Raises
    ------
    TypeError
        If something has no dataset to read from.
    ValueError
        If a dataset is empty.
    """
    if isinstance(loaders, Mapping):
        return {name: read_samples(loader, n_samples, seed) for name, loader in loaders.items()}
    if isinstance(loaders, list | tuple):
        return [read_samples(loader, n_samples, seed) for loader in loaders]
    if not isinstance(loaders, DataLoader):
        raise TypeError(f"{type(loaders).__name__} has no dataset to read samples from; expected a torch DataLoader")
    with fixed_randomness(seed, generators=generators_of(loaders.dataset, loaders.collate_fn)):
        return next(iter(_side_loader(loaders, n_samples, seed)))


def _side_loader(loader: DataLoader, n_samples: int, seed: int) -> DataLoader:
    """Return a loader of a single batch."""
    options: dict[str, Any] = {"collate_fn": loader.collate_fn, "generator": torch.Generator().manual_seed(seed)}
    if _forks(loader):
        # Handles that the dataset opens when it first reads must not exist in this process when its workers are forked.
        options |= {"num_workers": 1, "worker_init_fn": loader.worker_init_fn}
        options["multiprocessing_context"] = loader.multiprocessing_context
    if isinstance(loader.dataset, IterableDataset):
        size = None if loader.batch_size is None else n_samples
        return DataLoader(copy.deepcopy(loader.dataset), batch_size=size, **options)
    positions = _positions(loader, n_samples, seed)
    if loader.batch_sampler is not None:
        return DataLoader(loader.dataset, batch_sampler=[positions], **options)
    single = type(loader.sampler) in _SINGLE_POSITIONS
    return DataLoader(loader.dataset, batch_size=None, sampler=positions[:1] if single else [positions], **options)


def _forks(loader: DataLoader) -> bool:
    if loader.num_workers == 0:
        return False
    context = loader.multiprocessing_context
    return (get_start_method() if context is None else context.get_start_method()) == "fork"


def _positions(loader: DataLoader, n_samples: int, seed: int) -> list[int]:
    pool = _trained_on(loader.sampler if loader.batch_sampler is None else loader.batch_sampler)
    size = len(loader.dataset) if pool is None else len(pool)
    if size == 0:
        raise ValueError("the dataset is empty")
    chosen = np.sort(np.random.default_rng(seed).choice(size, min(n_samples, size), replace=False)).tolist()
    return chosen if pool is None else [int(pool[place]) for place in chosen]


def _trained_on(sampler: Sampler) -> Any:
    """Return the positions a sampler is restricted to, if it is: the others may be those of the validation."""
    sampler = getattr(sampler, "sampler", sampler)
    return sampler.indices if isinstance(sampler, SubsetRandomSampler) else None
