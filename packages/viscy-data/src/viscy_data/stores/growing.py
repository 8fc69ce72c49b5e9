"""A plate that is written in many steps, and continued after an interruption.

Until it is whole it lies in ``<path>.parts``, beside a manifest of what it is made from and a count of the steps done,
and without the metadata of its root, so that no reader takes it for a plate.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from viscy_data.errors import InputError
from viscy_data.files import place, refuse_existing, replacing
from viscy_data.stores.writing import ALL_CHUNKS, pipeline_of_all_chunks

__all__ = ["GrowingPlate"]


class GrowingPlate:
    """A plate in the making.

    Parameters
    ----------
    path : Path
        Where the plate will be.

    Attributes
    ----------
    folder : Path
        ``<path>.parts``: the plate until it is whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.folder = self.path.with_name(f"{self.path.name}.parts")
        self._plate, self._root = self.folder / "plate.zarr", self.folder / "root"

    def begin(
        self,
        manifest: Mapping[str, Any],
        write: Callable[[Path], None],
        overwrite: bool = False,
        *,
        fix: str = "repeat the interrupted command as it was, or start over",
    ) -> None:
        """Make the plate, or keep what an interrupted run of the same manifest has left.

        Parameters
        ----------
        manifest : mapping
            JSON values: what the plate is made from.
        write : callable
            Makes the plate, with all FOVs, at the path it is given.
        overwrite : bool, default False
            Start over, and let :meth:`finish` replace an existing plate.
        fix : str, optional
            What the error about another manifest advises.

        Raises
        ------
        FileExistsError
            If the plate exists.
        InputError
            If the parts belong to another manifest; the fields that differ are named.
        """
        refuse_existing(self.path, overwrite)
        if overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)
        about = self.folder / "manifest.json"
        if about.exists() and self._plate.exists():
            found = json.loads(about.read_text())
            if different := sorted(key for key in manifest if found.get(key) != manifest[key]):
                kept = {"found": "another one in what was interrupted", "expected": "the same", "fix": fix}
                raise InputError(str(self.folder), field=", ".join(different), **kept)
            self._move_files(self._plate, self._root)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        write(self._plate)
        self._move_files(self._plate, self._root)
        with replacing(about) as temporary:
            temporary.write_text(json.dumps(dict(manifest)))

    def array(self, fov_name: str) -> Any:
        """Open the zarr array of a FOV, to be written to."""
        import zarr

        array = self._plate / fov_name / "0"
        with pipeline_of_all_chunks():
            return zarr.open_array(array, mode="r+").with_config(ALL_CHUNKS)

    def n_done(self, rank: int = 0) -> int:
        """Count the steps that a rank has done, its first ones."""
        path = self._done(rank)
        return int(path.read_text()) if path.exists() else 0

    def n_done_by_all(self) -> int:
        """Count the steps that all ranks have done."""
        return sum(int(path.read_text()) for path in self.folder.glob("done-*.txt"))

    def set_done(self, n_steps: int, rank: int = 0) -> None:
        """Record that the first steps of a rank are written."""
        with replacing(self._done(rank), overwrite=True) as temporary:
            temporary.write_text(str(n_steps))

    def finish(self, overwrite: bool = False) -> None:
        """Give the plate its name and delete what was beside it."""
        refuse_existing(self.path, overwrite)
        self._move_files(self._root, self._plate)
        place(self._plate, self.path, overwrite)
        shutil.rmtree(self.folder)

    def _move_files(self, source: Path, target: Path) -> None:
        """Take the metadata of the root away, or put them back."""
        self._root.mkdir(exist_ok=True)
        for file in [path for path in source.iterdir() if path.is_file()]:
            os.rename(file, target / file.name)

    def _done(self, rank: int) -> Path:
        return self.folder / f"done-{rank}.txt"
