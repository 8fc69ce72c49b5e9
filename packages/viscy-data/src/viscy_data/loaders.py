"""One way to make a loader for datasets that build whole batches: workers, pinning, prefetching and resuming.

A sampler of batches (lists of positions) takes the place of the usual ``sampler``, without collation::

    batches = FlexibleBatchSampler(anchors, batch_size=128)
    loader = BatchLoader(dataset, sampler=batches)      # dataset[[3, 1, 2]] is a batch

Lightning then finds the sampler where it looks for one: it announces the epochs to it, and leaves it in place under
distributed training, since the samplers of this package divide the work themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from monai.data import ThreadDataLoader
from monai.data.thread_buffer import buffer_iterator
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler

from viscy_data.distributed import ResumableSampler, check_place
from viscy_data.errors import InputError
from viscy_data.worker_processes import begin_worker, identity, worker_context

__all__ = ["BatchLoader", "identity"]


class _Failure(NamedTuple):
    """An exception on its way from the reading thread to the consumer."""

    error: Exception


def _outcomes(batches: Iterator[Any]) -> Iterator[Any]:
    """Hand on an exception as the last item: a thread that dies would look like the end of the epoch."""
    try:
        yield from batches
    except Exception as err:  # noqa: BLE001 - raised again by the consumer
        yield _Failure(err)


class BatchLoader(ThreadDataLoader):
    """Load whole batches: one reading thread in front of the model, worker processes behind it on request.

    Parameters
    ----------
    dataset : Dataset
        ``dataset[list_of_positions]`` is a batch.
    sampler : Sampler of lists of int
        Such as :class:`~viscy_data.sampler.FlexibleBatchSampler` or
        :class:`~viscy_data.distributed.SequentialBatchSampler`.
    num_workers : int, default 0
        Worker processes, which begin as :func:`~viscy_data.worker_processes.worker_context` says, never as forks of
        this one: open stores and threads do not survive that. They stay alive between epochs.
    pin_memory : bool, default False
        Copy tensors into page-locked memory.
    buffer_size : int, default 1
        Batches that the reading thread holds ready.
    **kwargs
        Further arguments of :class:`torch.utils.data.DataLoader`, such as ``prefetch_factor``.

    Raises
    ------
    ValueError
        If the sampler yields single positions, or collation is asked for.

    Notes
    -----
    Iterating never draws from torch's global generator, so that losses do not depend on the number of workers.
    ``state_dict`` and ``load_state_dict`` let Lightning continue in the middle of an epoch at the right batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        buffer_size: int = 1,
        **kwargs: Any,
    ) -> None:
        if sampler is None or isinstance(sampler, SequentialSampler | RandomSampler):
            raise ValueError(
                "BatchLoader needs a sampler that yields lists of positions, found "
                f"{'none' if sampler is None else type(sampler).__name__}. "
                "(Lightning's overfit_batches puts in one of single positions: use limit_train_batches instead.)"
            )
        # Lightning re-instantiates loaders from their attributes, so the fixed settings come back as arguments.
        fixed = {"batch_size": None, "collate_fn": identity, "use_thread_workers": False, "repeats": 1}
        refused = [name for name, value in fixed.items() if kwargs.setdefault(name, value) is not value]
        if refused:
            raise ValueError(f"BatchLoader: {', '.join(refused)} cannot be set, its dataset returns whole batches.")
        if num_workers > 0:
            kwargs.setdefault("multiprocessing_context", worker_context())
            kwargs.setdefault("persistent_workers", True)
            kwargs.setdefault("worker_init_fn", begin_worker)  # MONAI's own would have every worker import MONAI
        if kwargs.get("generator") is None:
            kwargs["generator"] = torch.Generator()
        super().__init__(
            dataset, buffer_size=buffer_size, sampler=sampler, num_workers=num_workers, pin_memory=pin_memory, **kwargs
        )
        self._options = kwargs
        self._place: tuple[int, int] | None = None

    def with_sampler(self, sampler: Sampler) -> BatchLoader:
        """Return a loader like this one that goes through its dataset in another order."""
        settings = (self.num_workers, self.pin_memory, self.buffer_size)
        return type(self)(self.dataset, sampler, *settings, **self._options)

    def __iter__(self) -> Iterator[Any]:
        """Yield the rest of the epoch: from ``sampler.start`` on."""
        # A generator: nothing is drawn before the first batch is asked for, and by then the epoch has been announced.
        self._place = None
        self._place = epoch, done = self._where()
        batches = _outcomes(DataLoader.__iter__(self))
        for batch in buffer_iterator(batches, self.buffer_size, self.buffer_timeout):
            if isinstance(batch, _Failure):
                raise batch.error
            done += self._n_ranks
            self._place = (epoch, done)
            yield batch

    @property
    def _n_ranks(self) -> int:
        return getattr(self.sampler, "num_replicas", 1)

    @property
    def _n_batches(self) -> int:
        return getattr(self.sampler, "n_batches", len(self.sampler) * self._n_ranks)

    def _where(self) -> tuple[int, int]:
        """Return the epoch, and how many of its batches over all ranks were handed out."""
        epoch = int(getattr(self.sampler, "epoch", 0))
        begun = self._place is not None and self._place[0] == epoch
        return self._place if begun else (epoch, getattr(self.sampler, "start", 0))

    def state_dict(self) -> dict[str, int]:
        """Say where in which epoch the loader is.

        Returns
        -------
        dict
            ``epoch``; ``batches``: of the epoch over all ranks; ``done``: those of them that were handed out so far;
            ``ranks``: the number of ranks.
        """
        epoch, done = self._where()
        n_batches = self._n_batches
        return {"epoch": epoch, "batches": n_batches, "done": min(done, n_batches), "ranks": self._n_ranks}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue after the batches of ``state_dict`` when its epoch is iterated; others begin at their start.

        The number of ranks may be another one than it was: those that there are share the batches that are left.

        Raises
        ------
        ValueError
            If the sampler cannot begin there; an :class:`~viscy_data.errors.InputError` where the number of ranks is
            why, or there is no such place.
        """
        sampler = self.sampler
        if not isinstance(sampler, ResumableSampler):
            raise ValueError(f"{type(sampler).__name__} cannot begin in the middle of an epoch.")
        check_place(state_dict, type(self).__name__)
        n_batches, done = self._n_batches, state_dict.get("done")
        if done is None:  # of a version that counted the batches of a rank, on as many ranks as now
            done = state_dict["batches"] * self._n_ranks
        elif done == state_dict["batches"]:
            done = n_batches
        elif done and not sampler.elastic and state_dict["ranks"] != self._n_ranks:
            raise InputError(
                type(sampler).__name__,
                field="number of ranks",
                found=f"{self._n_ranks}, and {state_dict['ranks']} in the checkpoint",
                expected="as many in the middle of an epoch, since each rank has a part of the samples of its own",
                fix="go on with as many as before up to the end of the epoch, or from a checkpoint of the end of one",
            )
        sampler.set_epoch(state_dict["epoch"])
        sampler.start = min(done, n_batches)
        self._place = None
