"""What data modules made of others pass on to them: the trainer, preparation, set-up and state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule

from viscy_data.batches.record import described, plain_record
from viscy_data.errors import InputError
from viscy_data.stores import FovKey

__all__ = ["Members"]

_STATE = "members"


class Members(LightningDataModule):
    """Mixin for a data module that consists of others.

    Attributes
    ----------
    data_modules : tuple of LightningDataModule
    """

    data_modules: tuple[LightningDataModule, ...]

    @property
    def left_out_fovs(self) -> dict[FovKey, str]:
        """FOVs that members could not read and have left out, with what was found there."""
        found = [getattr(member, "left_out_fovs", {}) for member in self.data_modules]
        return {key: why for own in found for key, why in own.items()}

    def take(self, data_modules: Sequence[LightningDataModule]) -> None:
        """Keep the members.

        Raises
        ------
        InputError
            If there are none, or one is no data module.
        """
        strange = [type(member).__name__ for member in data_modules if not isinstance(member, LightningDataModule)]
        if strange or not data_modules:
            found = ", ".join(strange) if strange else "none"
            raise InputError(type(self).__name__, field="data_modules", found=found, expected="Lightning data modules")
        self.data_modules = tuple(data_modules)

    def prepare_data(self) -> None:
        """Prepare the data of every member."""
        for member in self._attached():
            member.prepare_data()

    def set_up_members(self, stage: str) -> None:
        """Set up every member."""
        for member in self._attached():
            member.setup(stage)

    def teardown(self, stage: str) -> None:
        """Tear down every member."""
        for member in self._attached():
            member.teardown(stage)

    def member_states(self) -> dict[str, Any]:
        """Return the states of the members, without their places in an epoch: the loaders are not theirs alone."""
        states = [member.state_dict() for member in self._attached()]
        return {_STATE: [{k: v for k, v in state.items() if k != "train_loader"} for state in states]}

    def restore_members(self, state: Mapping[str, Any]) -> None:
        """Give the members their states, as far as there are any."""
        for member, own in zip(self._attached(), state.get(_STATE, []), strict=False):
            member.load_state_dict(own)

    def member_settings(self) -> dict[str, Any]:
        """Return the arguments of the members, for the hyper-parameters of checkpoints."""
        settings = [{"class": plain_record(member), **dict(member.hparams)} for member in self.data_modules]
        return {"data_modules": plain_record(settings)}

    def member_records(self) -> dict[str, Any]:
        """Return what decides the pixels of the members, see ``data_record`` of theirs."""
        records = []
        for member in self.data_modules:
            if hasattr(member, "data_record"):
                records.append(member.data_record())
            else:
                records.append({"class": plain_record(member), "settings": described(dict(member.hparams))})
        return {_STATE: records}

    def _attached(self) -> tuple[LightningDataModule, ...]:
        """Return the members, who by now know the trainer: it says in which stage and on which rank they are."""
        for member in self.data_modules:
            member.trainer = self.trainer
        return self.data_modules
