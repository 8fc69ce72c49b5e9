"""Several data modules side by side: a training batch holds a batch of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader

from viscy_data.batches.elastic import follow_ranks
from viscy_data.combined.cycles import CycledBatchSampler
from viscy_data.combined.members import Members
from viscy_data.distributed import ResumableSampler
from viscy_data.errors import InputError
from viscy_data.loaders import BatchLoader

__all__ = ["CombineMode", "CombinedDataModule"]

Part = Literal["train", "val", "test", "predict"]


class CombineMode(Enum):
    """How loaders are gone through together, see :class:`lightning.pytorch.utilities.CombinedLoader`."""

    MIN_SIZE = "min_size"
    MAX_SIZE_CYCLE = "max_size_cycle"
    MAX_SIZE = "max_size"
    SEQUENTIAL = "sequential"


class CombinedDataModule(Members):
    """Train on a batch of each data module at a time; go through them one after the other elsewhere.

    A training batch is a list with a batch of each member, in their order, each prepared by its own member: its
    ``batch_size`` is that of the member, and the model decides what to do with the parts. One after the other, batches
    are those of the members, and ``dataloader_idx`` tells which.

    Parameters
    ----------
    data_modules : sequence of LightningDataModule
    train_mode : CombineMode, default MAX_SIZE_CYCLE
        ``max_size_cycle``: an epoch is as long as the longest member's, and shorter members begin again, in a new
        order; ``min_size``: as long as the shortest; ``max_size``: None takes the place of batches of members that
        have no more.
    val_mode, test_mode, predict_mode : CombineMode, default SEQUENTIAL
        The same there; ``sequential``: one member after the other.

    Raises
    ------
    InputError
        For what are no data modules, or a mode that is none or cannot be.
    """

    def __init__(
        self,
        data_modules: Sequence[LightningDataModule],
        train_mode: CombineMode = CombineMode.MAX_SIZE_CYCLE,
        val_mode: CombineMode = CombineMode.SEQUENTIAL,
        test_mode: CombineMode = CombineMode.SEQUENTIAL,
        predict_mode: CombineMode = CombineMode.SEQUENTIAL,
    ) -> None:
        super().__init__()
        self.take(data_modules)
        self.train_mode = _mode("train_mode", train_mode, without="sequential")
        self.val_mode, self.test_mode = _mode("val_mode", val_mode), _mode("test_mode", test_mode)
        self.predict_mode = _mode("predict_mode", predict_mode, only="sequential")
        self.save_hyperparameters(logger=False)
        self.hparams.update(self.member_settings() | self._modes())
        self._owners: dict[Part, list[tuple[int, int]]] = {}
        self._train_loaders: list[Any] = []
        self._restored: list[dict[str, int] | None] = []
        self._n_predicted = 0

    def setup(self, stage: str) -> None:
        """Set up every member."""
        self._n_predicted = 0
        self.set_up_members(stage)

    # Loaders

    def train_dataloader(self) -> CombinedLoader:
        """Return the training loaders of all members together; from where a restored checkpoint stopped."""
        loaders = self._loaders("train", lambda member: member.train_dataloader())
        mode = self.train_mode
        if mode == "max_size_cycle":
            loaders = _as_long_as_the_longest(loaders)
            # Loaders of one length end together; cycling would fetch a batch more to find out.
            mode = "min_size" if len(set(map(len, loaders))) == 1 else mode
        for loader, state in zip(loaders, self._restored, strict=False):
            if state is not None:
                loader.load_state_dict(state)
        self._train_loaders, self._restored = loaders, []
        return CombinedLoader(loaders, mode)

    def val_dataloader(self) -> CombinedLoader | list:
        """Return the validation loaders of all members, or an empty list where there are none."""
        loaders = self._loaders("val", lambda member: member.val_dataloader())
        return CombinedLoader(loaders, self.val_mode) if loaders else []

    def test_dataloader(self) -> CombinedLoader:
        """Return the test loaders of all members."""
        return CombinedLoader(self._loaders("test", lambda member: member.test_dataloader()), self.test_mode)

    def predict_dataloader(self) -> CombinedLoader:
        """Return the prediction loaders of all members."""
        left = self._n_predicted

        def rest(member: LightningDataModule) -> Any:
            nonlocal left
            loader = member.predict_dataloader()
            if not left:
                return loader
            n_skipped = min(left, sum(map(len, loader.sampler)))
            left -= n_skipped
            member.skip_predicted(n_skipped)
            return member.predict_dataloader()

        return CombinedLoader(self._loaders("predict", rest), self.predict_mode)

    def skip_predicted(self, n_samples: int) -> None:
        """Begin this rank's prediction after its first ``n_samples`` samples of all members; until the next set-up."""
        self._n_predicted = int(n_samples)

    def _loaders(self, part: Part, of: Callable[[LightningDataModule], Any]) -> list[Any]:
        """Ask every member for its loaders, which may be none or several, and keep in mind whose they are."""
        loaders, self._owners[part] = [], []
        for number, member in enumerate(self._attached()):
            own = of(member)
            for place, loader in enumerate(own if isinstance(own, list | tuple) else [own]):
                loaders.append(loader)
                self._owners[part].append((number, place))
        return loaders

    def _first_batch(self) -> int:
        """Return the number of the first batch to come of the loader that says how long an epoch is."""
        ours = [loader for loader in self._train_loaders if isinstance(loader, BatchLoader)]
        decides = min if self.train_mode == "min_size" else max
        return decides(ours, key=len).sampler.start_batch

    # Batches

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Let every member prepare its own part for the transfer."""
        return self._each(batch, dataloader_idx, lambda member, own, n: member.on_before_batch_transfer(own, n))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Let every member prepare its own part for the model."""
        return self._each(batch, dataloader_idx, lambda member, own, n: member.on_after_batch_transfer(own, n))

    def _each(self, batch: Any, dataloader_idx: int, hook: Callable[[LightningDataModule, Any, int], Any]) -> Any:
        part = self._part()
        owners, members = self._owners.get(part, []), self._attached()
        if getattr(self, f"{part}_mode") == "sequential":
            if dataloader_idx >= len(owners):
                return batch
            number, place = owners[dataloader_idx]
            return hook(members[number], batch, place)
        if not isinstance(batch, list) or len(batch) != len(owners):
            return batch  # an example input, not a batch of these loaders
        own = zip(owners, batch, strict=True)
        return [None if b is None else hook(members[number], b, place) for (number, place), b in own]

    def _part(self) -> Part:
        trainer = self.trainer
        if trainer is None or trainer.training:
            return "train"
        if trainer.validating or trainer.sanity_checking:
            return "val"
        return "test" if trainer.testing else "predict"

    # Checkpoints and records

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the members, and how far their training loaders have come."""
        loaders = [loader.state_dict() if hasattr(loader, "state_dict") else None for loader in self._train_loaders]
        return self.member_states() | {"train_loaders": loaders}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the members, and keep the places in the epoch for the next training loaders."""
        self.restore_members(state_dict)
        self._restored = list(state_dict.get("train_loaders", []))
        follow_ranks(self.trainer, self._restored, self._first_batch)

    def data_record(self) -> dict[str, Any]:
        """Return everything that decides the pixels, with the records of the members."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"class": name, "settings": self._modes()} | self.member_records()

    def _modes(self) -> dict[str, str]:
        return {f"{part}_mode": getattr(self, f"{part}_mode") for part in ("train", "val", "test", "predict")}


def _as_long_as_the_longest(loaders: Sequence[Any]) -> list[Any]:
    """Let loaders that can go through their batches again do so, until all ranks together have as many of each."""
    orders = [getattr(loader, "sampler", None) for loader in loaders]
    numbers = [o.n_batches if isinstance(o, ResumableSampler) else len(l) for o, l in zip(orders, loaders, strict=True)]
    longest = max(numbers)
    return [
        loader.with_sampler(CycledBatchSampler(loader.sampler, longest))
        if isinstance(loader, BatchLoader) and number < longest
        else loader
        for loader, number in zip(loaders, numbers, strict=True)
    ]


def _mode(field: str, mode: CombineMode | str, without: str = "", only: str = "") -> str:
    """Return the value of a mode, given by itself or by its value."""
    known = [m.value for m in CombineMode if m.value != without and only in ("", m.value)]
    value = mode.value if isinstance(mode, CombineMode) else mode
    if value not in known:
        fix = "use a ConcatDataModule to draw batches from all samples" if without else ""
        raise InputError("CombinedDataModule", field=field, found=repr(value), expected=", ".join(known), fix=fix)
    return value
