"""Which FOVs train and which validate: one split, a function of a seed and the names of the FOVs.

>>> from viscy_data.stores import FovInfo, FovKey
>>> fovs = [FovInfo(FovKey("p.zarr", f"A/1/{n}"), (1, 1, 1, 8, 8), "uint8", ("a",)) for n in range(5)]
>>> split = FovSplit.draw(fovs, ratio=0.8, seed=0)
>>> len(split.train), len(split.val)
(4, 1)
>>> FovSplit.from_record(split.record()) == split == FovSplit.draw(fovs[::-1], ratio=0.8, seed=0)
True
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from viscy_data.checks import is_texts
from viscy_data.errors import InputError
from viscy_data.stores import FovInfo

__all__ = ["FovSplit"]


@dataclass(frozen=True)
class FovSplit:
    """A split of the FOVs of one plate.

    Parameters
    ----------
    store : str
        The plate.
    train, val : tuple of str
        Names of its FOVs on either side.
    """

    store: str
    train: tuple[str, ...]
    val: tuple[str, ...]

    @classmethod
    def draw(cls, fovs: Sequence[FovInfo], ratio: float, seed: int, *, where: str = "") -> FovSplit:
        """Split FOVs at random.

        Parameters
        ----------
        fovs : sequence of FovInfo
            Of one plate, in any order.
        ratio : float
            Share of the FOVs for training, rounded down, but at least one on each side.
        seed : int
            With the names of the FOVs, determines the split.
        where : str, optional
            What errors call the plate; its path by default.

        Raises
        ------
        InputError
            If there are fewer than two FOVs.
        """
        if len(fovs) < 2:
            raise InputError(
                where or (fovs[0].store if fovs else "split"),
                found=f"{len(fovs)} FOVs to fit",
                expected="at least 2, to train and to validate",
            )
        names = sorted(fov.name for fov in fovs)
        n_train = min(max(int(len(names) * ratio), 1), len(names) - 1)
        chosen = set(np.random.default_rng(seed).permutation(len(names))[:n_train].tolist())
        train, val = (
            tuple(name for place, name in enumerate(names) if (place in chosen) is side) for side in (True, False)
        )
        return cls(fovs[0].store, train, val)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> FovSplit:
        """Return the split of a :meth:`record`.

        Raises
        ------
        InputError
            If it is none.
        """
        if not isinstance(record, Mapping) or not isinstance(record.get("store"), str):
            raise InputError("split", found=repr(record), expected="the record of a split: store, train and val")
        for side in ("train", "val"):
            if not is_texts(record.get(side)):
                raise InputError("split", field=side, found=repr(record.get(side)), expected="names of FOVs")
        return cls(record["store"], tuple(record["train"]), tuple(record["val"]))

    def record(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def is_of(self, fovs: Sequence[FovInfo]) -> bool:
        """Tell whether these are FOVs of the plate that was split, some of them on either side."""
        names = {fov.name for fov in fovs if fov.store == self.store}
        return all(names.intersection(side) for side in (self.train, self.val))

    def sides(self, fovs: Sequence[FovInfo]) -> tuple[list[FovInfo], list[FovInfo]]:
        """Return the FOVs of either side, sorted by name; warn of FOVs that are on neither, and of absent ones."""
        by_name = {fov.name: fov for fov in sorted(fovs, key=lambda fov: fov.name)}
        new = sorted(by_name.keys() - {*self.train, *self.val})
        gone = sorted({*self.train, *self.val} - by_name.keys())
        for names, what in ((new, "are not in it and are left out"), (gone, "of it are not among those to fit")):
            if names:
                warnings.warn(f"{self.store}: a split is kept; {len(names)} FOVs {what}: {names[:5]}", stacklevel=4)
        train, val = ([by_name[name] for name in side if name in by_name] for side in (self.train, self.val))
        return train, val
