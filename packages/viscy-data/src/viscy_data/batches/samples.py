"""Datasets of single samples, each transformed on its own where it is read: images to batches.

``dataset[3]`` is a sample, ``dataset[[3, 1]]`` a batch. What is random about a sample is a function of the seed, its
position and the epoch, and not of its batch or of the process that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from viscy_data.norm_meta import collate_norm_meta

__all__ = ["SampleDataset", "collate_samples", "draw_seed"]

Sample = dict[str, Any]


class SampleDataset(Dataset):
    """Samples that a transform sees one by one.

    Parameters
    ----------
    transform : callable, optional
        Takes the mapping of a sample and returns one, or a list of them: several patches of one image. It is copied, so
        that datasets do not share random states.
    seed : int, default 0
        Of the transform.
    """

    seeds_batches: ClassVar[bool] = False
    """Whether a batch has ``rng_seed``: int, for what happens to it on the device."""
    uncollated: ClassVar[tuple[str, ...]] = ()
    """Entries that a batch has as lists, one per sample."""

    def __init__(self, transform: Callable[[Sample], Any] | None = None, seed: int = 0) -> None:
        self.transform, self.seed = deepcopy(transform), seed

    def read(self, position: int) -> Sample:
        """Return a sample as the transform gets it."""
        raise NotImplementedError(f"{type(self).__name__} does not say what a sample is")

    def finish(self, patch: Sample) -> Sample:
        """Return what becomes of a transformed patch; itself by default."""
        return patch

    def item(self, patches: list[Sample]) -> Any:
        """Return what ``dataset[position]`` gives: the list of its patches by default."""
        return patches

    def patches(self, position: int, epoch: int = 0) -> list[Sample]:
        """Return the patches of a sample, one unless the transform makes more of it."""
        sample = self.read(position)
        if self.transform is None:
            return [self.finish(sample)]
        if hasattr(self.transform, "set_random_state"):  # one of MONAI, which workers without transforms do not import
            self.transform.set_random_state(seed=draw_seed(self.seed, epoch, position))
        made = self.transform(sample)
        return [self.finish(_plain(patch)) for patch in (made if isinstance(made, list | tuple) else [made])]

    def __getitem__(self, index: int | Sequence[int]) -> Any:
        """Return a sample, or the batch of several.

        Raises
        ------
        IndexError
            If there is no such sample.
        """
        alone = isinstance(index, int | np.integer)
        positions = np.atleast_1d(np.asarray(index, np.int64))
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"positions {positions.min()} to {positions.max()}, but there are {len(self)} samples")
        epoch = getattr(index, "epoch", 0)
        if alone:
            return self.item(self.patches(int(index), epoch))
        patches = [patch for position in positions.tolist() for patch in self.patches(position, epoch)]
        batch = collate_samples(patches, self.uncollated)
        return batch | ({"rng_seed": draw_seed(self.seed, epoch, *positions)} if self.seeds_batches else {})


def draw_seed(*entropy: int) -> int:
    """Return a seed of 32 bits that is a function of whole numbers."""
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def collate_samples(samples: Sequence[Mapping[str, Any]], uncollated: Sequence[str] = ()) -> Sample:
    """Make a batch of samples with the same keys.

    Parameters
    ----------
    samples : sequence of mapping
        Tensors, numbers, texts or tuples of them; ``norm_meta`` holds statistics, or None where there are none.
    uncollated : sequence of str, default ()
        Entries that stay lists.

    Returns
    -------
    dict
        Tensors are stacked; a named tuple stays one. ``norm_meta`` has what all samples have, and is left out where
        that is nothing.

    Raises
    ------
    ValueError
        If samples are of different sizes or have different keys.
    """
    keys = list(samples[0])
    if any(list(sample) != keys for sample in samples):
        raise ValueError(
            f"samples of one batch have different entries: {sorted({tuple(sample) for sample in samples})}"
        )
    batch: Sample = {}
    for key in keys:
        values = [sample[key] for sample in samples]
        if key == "norm_meta":
            batch |= {key: statistics} if (statistics := collate_norm_meta(values)) else {}
            continue
        if key in uncollated:
            batch[key] = values
            continue
        shapes = {tuple(value.shape) for value in values if isinstance(value, Tensor)}
        if len(shapes) > 1:
            raise ValueError(f"{key!r} of one batch has sizes {sorted(shapes)}: crop to one size, or use batch_size 1")
        batch[key] = default_collate(values)
    return batch


def _plain(patch: Mapping[str, Any]) -> Sample:
    """MONAI's transforms may hand back arrays, and tensors that carry metadata."""
    plain: Sample = {}
    for key, value in patch.items():
        value = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        plain[key] = value.as_subclass(Tensor) if isinstance(value, Tensor) else value
    return plain
