"""The FOVs that a data module uses of those that a store names, alike in all ranks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from viscy_data.distributed import gather_from_ranks
from viscy_data.errors import InputError
from viscy_data.stores import FovInfo, FovKey, Source, StoragePolicy, left_out_text, usable_fovs

__all__ = ["ReadableFovs"]


class ReadableFovs:
    """List FOVs, and remember which are left out.

    Parameters
    ----------
    storage : StoragePolicy
        What to do about FOVs that cannot be read.

    Attributes
    ----------
    left_out : dict of FovKey to str
        FOVs that could not be read, with what was found there.
    """

    def __init__(self, storage: StoragePolicy) -> None:
        self.storage, self.left_out = storage, dict[FovKey, str]()

    def read(self, source: Source, *, array_key: str | None = None) -> tuple[FovInfo, ...]:
        """List the FOVs of a store, or of several, that all ranks can use. Every rank calls.

        Raises
        ------
        InputError
            As :func:`viscy_data.stores.usable_fovs`, and where no FOV is left.
        """
        found = usable_fovs(source, self.storage, array_key=array_key)
        left_out = self.leave_out(found.left_out)
        fovs = tuple(fov for fov in found.fovs if fov.key not in left_out)
        if found.fovs and not fovs:
            expected = "a FOV that all ranks can read"
            raise InputError(str(source), found=left_out_text(left_out), expected=expected)
        return fovs

    def leave_out(self, bad: Mapping[FovKey, str]) -> dict[FovKey, str]:
        """Leave out what any rank cannot read, and say so once.

        Parameters
        ----------
        bad : mapping of FovKey to str
            FOVs that this rank cannot read, and what was found there. Every rank calls.

        Returns
        -------
        dict of FovKey to str
            FOVs that any rank cannot read.
        """
        if self.storage.bad_fovs == "stop":
            return {}
        left_out = {key: why for own in gather_from_ranks(dict(bad)) for key, why in own.items()}
        if new := {key: why for key, why in left_out.items() if key not in self.left_out}:
            warnings.warn(left_out_text(new), stacklevel=5)
        self.left_out |= left_out
        return left_out
