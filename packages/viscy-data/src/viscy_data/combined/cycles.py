"""A training loader that goes on: through its data again, in a new order, until an epoch has the length asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from viscy_data.loaders import BatchLoader

__all__ = ["CycledLoader"]


class CycledLoader:
    """Repeat a loader of whole batches within an epoch.

    Epoch ``e`` of a loader that is gone through ``k`` times are its epochs ``e * k`` to ``e * k + k - 1``: every batch
    is a function of epoch and number, and a resumed epoch goes on as an unbroken one.

    Parameters
    ----------
    loader : BatchLoader
        With a sampler that can begin in the middle of an epoch.
    length : int
        Batches of an epoch, at least as many as the loader has.

    Examples
    --------
    >>> from viscy_data.distributed import ShuffledBatchSampler
    >>> class Numbers(list):
    ...     def __getitem__(self, positions):
    ...         return sorted(positions)
    >>> loader = CycledLoader(BatchLoader(Numbers(range(4)), ShuffledBatchSampler(4, 2)), length=5)
    >>> batches = list(loader)
    >>> len(batches), sorted(batches[0] + batches[1]), sorted(batches[2] + batches[3])
    (5, [0, 1, 2, 3], [0, 1, 2, 3])
    """

    def __init__(self, loader: BatchLoader, length: int) -> None:
        self.loader, self.length = loader, length
        self.epoch, self._start, self._served = 0, (0, 0), 0

    @property
    def sampler(self) -> CycledLoader:
        """Itself: where Lightning looks for ``set_epoch``."""
        return self

    @property
    def dataset(self) -> Any:
        """The dataset of the loader."""
        return self.loader.dataset

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; Lightning calls it at the start of each."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the present epoch, from where a restored state says."""
        epoch, start = self._start
        self._served = start if epoch == self.epoch else 0
        per_cycle = len(self.loader)
        n_cycles = -(-self.length // per_cycle)
        while self._served < self.length:
            cycle, first = divmod(self._served, per_cycle)
            self.loader.load_state_dict({"epoch": self.epoch * n_cycles + cycle, "batches": first})
            for batch in self.loader:
                self._served += 1
                yield batch
                if self._served == self.length:
                    return

    def state_dict(self) -> dict[str, int]:
        """Say where in which epoch the loader is, see :meth:`BatchLoader.state_dict`."""
        return {"epoch": self.epoch, "batches": self._served}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue after the batches of ``state_dict`` when its epoch is iterated; others begin at their start."""
        self.epoch = state_dict["epoch"]
        self._start = (state_dict["epoch"], state_dict["batches"])
        self._served = state_dict["batches"]
