"""Samples of several data modules in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule

from viscy_data.batches.stages import Stage, StagedDataModule
from viscy_data.combined.concat_dataset import BatchedConcatDataset, is_micro_batches, mark, merge_batches, unmark
from viscy_data.combined.members import Members
from viscy_data.distributed import ShardedBatchSampler, World
from viscy_data.errors import InputError, raise_all

__all__ = ["BatchedConcatDataModule", "CachedConcatDataModule", "ConcatDataModule"]

_OF_THE_FIRST = ("pin_memory", "persistent_workers", "prefetch_factor")


class ConcatDataModule(Members, StagedDataModule):
    """Batches drawn at random from the samples of several data modules.

    Each member prepares its own samples on the device (normalisation, augmentation, crop), then they become one batch:
    the members have to give the same entries and sizes. Members train as often as they have samples; their own orders
    of training (balance, enrichment) have no effect here: for those, train side by side
    (:class:`CombinedDataModule`).

    Parameters
    ----------
    data_modules : sequence of LightningDataModule
        Set up, they have a ``train_dataset`` and perhaps a ``val_dataset``. Their ``batch_size`` is the number of
        samples in a batch of all members together, on each rank; it and ``num_workers`` are the same in all of them.
    seed : int, default 0
        Of the order of training.

    Raises
    ------
    InputError
        A ValueError, if the members differ in batch size, workers, or patches per window.
    """

    stages = ("fit", "validate")

    def __init__(self, data_modules: Sequence[LightningDataModule], *, seed: int = 0) -> None:
        self.take(data_modules)
        raise_all(check for name in ("batch_size", "num_workers") for check in self._differences(name))
        first = self.data_modules[0]
        staged = isinstance(first, StagedDataModule)
        super().__init__(
            batch_size=first.batch_size,
            num_workers=first.num_workers,
            seed=seed,
            loader_options=first.loader_options() if staged else {n: getattr(first, n, None) for n in _OF_THE_FIRST},
            problems=self._differences("train_patches_per_stack", 1),
        )
        self.hparams.update(self.member_settings())
        del self._settings["data_modules"]  # described by the members themselves

    def fit_datasets(self) -> tuple[BatchedConcatDataset, BatchedConcatDataset | None]:
        """Put the datasets of the members one after the other."""
        self.set_up_members("fit")
        absent = [type(m).__name__ for m in self.data_modules if getattr(m, "train_dataset", None) is None]
        if absent:
            raise InputError(type(self).__name__, field="data_modules", found=f"{absent[0]} has no train_dataset")
        return BatchedConcatDataset([member.train_dataset for member in self.data_modules]), self._validation()

    def evaluation_dataset(self) -> BatchedConcatDataset | None:
        """Put the validation datasets of the members one after the other."""
        self.set_up_members("validate")
        return self._validation()

    def items_per_batch(self, stage: Stage) -> int:
        """Return how many items make a batch, which is less than its samples where items are several patches."""
        count = getattr(self.data_modules[0], "items_per_batch", None)
        return self.batch_size if count is None else count(stage)

    def n_anchors(self) -> dict[str, int]:
        """Count what there is to train on, by member."""
        datasets = [] if self.train_dataset is None else self.train_dataset.datasets
        return {str(number): len(dataset) for number, dataset in enumerate(datasets)}

    def _validation(self) -> BatchedConcatDataset | None:
        datasets = [getattr(member, "val_dataset", None) for member in self.data_modules]
        if all(dataset is None for dataset in datasets):
            return None
        # Nothing keeps the place of a member that does not validate, so that numbers of datasets are those of members.
        return BatchedConcatDataset([[] if dataset is None else dataset for dataset in datasets])

    def _differences(self, name: str, otherwise: Any = None) -> list[InputError]:
        values = [getattr(member, name, otherwise) for member in self.data_modules]
        if None not in values and len(set(values)) == 1:
            return []
        found = ", ".join(f"{type(m).__name__} {value}" for m, value in zip(self.data_modules, values, strict=True))
        return [InputError(type(self).__name__, field=name, found=found, expected="the same in all data modules")]

    # Batches

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Let every member prepare its samples for the transfer."""
        return self._each(batch, lambda member, own: member.on_before_batch_transfer(own, dataloader_idx))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Let every member prepare its samples for the model, and make them one batch."""
        done = self._each(batch, lambda member, own: member.on_after_batch_transfer(own, dataloader_idx))
        return merge_batches([unmark(part)[0] for part in done]) if is_micro_batches(batch) else batch

    def _each(self, batch: Any, hook: Callable[[LightningDataModule, Any], Any]) -> Any:
        if not is_micro_batches(batch):
            return batch
        members, done = self._attached(), []
        for part in batch:
            own, number = unmark(part)
            done.append(mark(hook(members[number], own), number))
        return done

    # Checkpoints and records

    def state_dict(self) -> dict[str, Any]:
        """Add the states of the members, such as how they split their FOVs."""
        return super().state_dict() | self.member_states()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the members, whose datasets may be others afterwards."""
        before = [getattr(member, "train_dataset", None) for member in self.data_modules]
        self.restore_members(state_dict)
        after = [getattr(member, "train_dataset", None) for member in self.data_modules]
        if self.train_dataset is not None and any(a is not b for a, b in zip(before, after, strict=True)):
            self.train_dataset, self.val_dataset = self.fit_datasets()
        super().load_state_dict(state_dict)

    def data_record(self) -> dict[str, Any]:
        """Return everything that decides the pixels, with the records of the members."""
        return super().data_record() | self.member_records()


class BatchedConcatDataModule(ConcatDataModule):
    """The same as :class:`ConcatDataModule`, which it differed from in VisCy v2.2: both read whole batches."""


class CachedConcatDataModule(ConcatDataModule):
    """A :class:`ConcatDataModule` whose ranks keep to a contiguous part of the samples each.

    What a rank has read once it finds in its own cache again. Each rank trains on its part in a new order in each
    epoch, so batches mix less than those of a :class:`ConcatDataModule`; a lone process has the whole.
    """

    def train_sampler(self, world: World | None = None) -> ShardedBatchSampler:
        """Return shuffled batches of this rank's part."""
        world = World() if world is None else world
        n_items = self.items_per_batch("fit")
        return ShardedBatchSampler(len(self.train_dataset), n_items, world.size, world.rank, seed=self.seed)
