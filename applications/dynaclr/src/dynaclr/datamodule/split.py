"""Which cells train and which validate: whole experiments, FOVs or lineages, so that no cell is on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from viscy_data.checks import near_matches
from viscy_data.errors import InputError, raise_all

__all__ = ["ExperimentSplit", "SplitWithin", "check_known"]


def check_known(names: Sequence[str], registry: ExperimentRegistry, field: str, where: str) -> None:
    """Refuse names that no experiment has.

    Raises
    ------
    InputError
        With near matches for every unknown name.
    """
    known = registry.names
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
        names = registry.names
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


@dataclass(frozen=True)
class SplitWithin:
    """Validate on a part of every experiment, where there are none to hold out.

    An encoder that is validated so has seen the microscope, the plate and perhaps the neighbours of the cells: its
    losses say that it does not learn cells by heart, and nothing of other experiments.

    Parameters
    ----------
    by : {"fov", "lineage"}, default "fov"
        What stays together: all cells of a FOV, or a cell with its ancestors and descendants.
    fraction : float, default 0.2
        Share of the FOVs, or of the lineages, of each experiment to validate on; at least one of them.
    """

    by: Literal["fov", "lineage"] = "fov"
    fraction: float = 0.2

    def rows(self, index: MultiExperimentIndex, seed: int) -> np.ndarray:
        """Choose the observations to validate on.

        Parameters
        ----------
        index : MultiExperimentIndex
            Of all experiments.
        seed : int
            With the FOVs and lineages of an experiment, determines which of them.

        Returns
        -------
        ndarray of bool, shape (N,)
            Which rows of ``index.tracks``.

        Raises
        ------
        InputError
            If an experiment has nothing to divide, naming all that have not.
        """
        groups = index.fov_index if self.by == "fov" else index.lineage
        chosen = np.zeros(int(groups.max(initial=-1)) + 1, bool)
        problems = []
        for name, rows in index.experiment_groups.items():
            own = np.unique(groups[rows])
            if len(own) < 2:
                problems.append(
                    InputError(
                        f"experiment {name!r}",
                        field="val_split",
                        found=f"one {self.by} only",
                        expected=f"at least two, since every {self.by} is on one side",
                        fix="set by: lineage" if self.by == "fov" else "leave val_split out",
                    )
                )
                continue
            n_val = min(max(round(self.fraction * len(own)), 1), len(own) - 1)
            chosen[np.random.default_rng(seed).permutation(own)[:n_val]] = True
        raise_all(problems)
        return chosen[groups]
