"""A run that goes on with more or fewer ranks than before, from where in the epoch it was.

Samplers number the batches of an epoch over all ranks, so loaders know what is left of it whatever the number of ranks.
Lightning also counts the batches of a rank, by which it tells when to validate and when an epoch is over: that number
has to become the one that this place in the epoch has with the ranks that there are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from lightning.pytorch import Callback, LightningModule, Trainer

from viscy_data.distributed import check_place

__all__ = ["follow_ranks"]

_logger = logging.getLogger(__name__)


def follow_ranks(
    trainer: Trainer | None, places: Sequence[Mapping[str, int] | None], first_batch: Callable[[], int]
) -> None:
    """Let a trainer go on from a place in the epoch that another number of ranks has come to.

    Parameters
    ----------
    trainer : Trainer or None
        That is about to fit; nothing happens without one.
    places : sequence of (mapping or None)
        Restored states of loaders, see :meth:`viscy_data.loaders.BatchLoader.state_dict`.
    first_batch : callable
        Returns, once there are loaders, the number of this rank's first batch.

    Raises
    ------
    InputError
        If one of them is no place in an epoch.
    """
    for place in places:
        if place is not None:
            check_place(place, "state of the data module")
    known = [place for place in places if place is not None and "ranks" in place]
    if trainer is not None and known and known[0]["ranks"] != trainer.world_size:
        trainer.callbacks.append(_PlaceInEpoch(known[0], first_batch))


class _PlaceInEpoch(Callback):
    """Number the batches of a rank anew, once."""

    def __init__(self, place: Mapping[str, int], first_batch: Callable[[], int]) -> None:
        self._place: Mapping[str, int] | None = place
        self._first_batch = first_batch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the numbers: by now there are loaders, and the loop of the epoch has not begun."""
        if self._place is None:
            return
        progress, end = trainer.fit_loop.epoch_loop.batch_progress, trainer.num_training_batches
        first = end if progress.is_last_batch else min(self._first_batch(), end)
        moved = first - progress.current.ready
        for count in ("ready", "started", "processed", "completed"):
            setattr(progress.current, count, getattr(progress.current, count) + moved)
        self._say(trainer, first)
        self._place = None

    def _say(self, trainer: Trainer, first: int) -> None:
        place = self._place
        _logger.info(
            "epoch %d: %d of %d batches were trained on with %d ranks, and the others follow with %d",
            *(place["epoch"], place["done"], place["batches"], place["ranks"], trainer.world_size),
        )
        if first % trainer.accumulate_grad_batches and first < trainer.num_training_batches:
            _logger.warning("the gradients of fewer batches than accumulate_grad_batches make the first step")
