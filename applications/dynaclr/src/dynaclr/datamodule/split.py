"""Which experiments train, validate and are predicted: always whole ones, so that no cell is on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynaclr.experiment import ExperimentRegistry
from viscy_data.checks import near_matches
from viscy_data.errors import InputError, raise_all

__all__ = ["ExperimentSplit", "check_known"]


def check_known(names: Sequence[str], registry: ExperimentRegistry, field: str, where: str) -> None:
    """Refuse names that no experiment has.

    Raises
    ------
    InputError
        With near matches for every unknown name.
    """
    known = [config.name for config in registry.experiments]
    raise_all(
        InputError(where, field=field, found=repr(name), expected=near_matches(name, known), fix="correct the name")
        for name in names
        if name not in known
    )


@dataclass(frozen=True)
class ExperimentSplit:
    """Names of the experiments on either side.

    Parameters
    ----------
    train, val : tuple of str
        In the order of the experiments file.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]

    @classmethod
    def of(cls, registry: ExperimentRegistry, val_experiments: Sequence[str], where: str) -> ExperimentSplit:
        """Split the experiments of a file.

        Raises
        ------
        InputError
            If a name is unknown, nothing is left to train on, or a store is on both sides.
        """
        field = "val_experiments"
        check_known(val_experiments, registry, field, where)
        names = [config.name for config in registry.experiments]
        split = cls(
            tuple(name for name in names if name not in val_experiments),
            tuple(name for name in names if name in val_experiments),
        )
        if not split.train:
            raise InputError(
                where,
                field=field,
                found=f"all {len(names)} experiments",
                expected="at least one experiment left to train on",
                fix="take one out of val_experiments, or add experiments",
            )
        raise_all(
            InputError(
                where,
                field=field,
                found=f"{', '.join(map(repr, users))} read the same store {store}, on both sides of the split",
                expected="cells that are validated on are never trained on",
                fix="put all of them into val_experiments, or none",
            )
            for store, users in registry.shared_stores.items()
            if len({name in split.val for name in users}) == 2
        )
        return split
