"""Copies of stores on a local disk, which are read in their place: made once per machine, whole or not there.

>>> import tempfile, numpy as np
>>> from viscy_data.stores import PlateWriter, read_fovs
>>> folder = Path(tempfile.mkdtemp())
>>> with PlateWriter(folder / "plate.zarr", ["Phase"]) as plate:
...     _ = plate.write("A/1/0", np.zeros((1, 1, 1, 8, 8), np.uint8))
>>> copy = StoreCopy(folder / "plate.zarr", scratch_dir=folder)
>>> copy.make()
>>> [fov.name for fov in read_fovs(copy.source)]
['A/1/0']
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from viscy_data.cache import cache_root, check_space, digest_of, fill_once, fingerprint, folder_size, readable_size
from viscy_data.cache_room import reserve
from viscy_data.errors import InputError
from viscy_data.stores import Source, fov_keys, source_paths

__all__ = ["StoreCopy"]

_logger = logging.getLogger(__name__)
_METADATA = ("zarr.json", ".zgroup", ".zattrs")


class StoreCopy:
    """The copy of what a config calls its images. FOVs have the same names in it.

    Parameters
    ----------
    source : str, Path, or sequence of these
        As for :func:`viscy_data.read_fovs`, of folders.
    scratch_dir : str or Path, optional
        See :func:`viscy_data.cache.cache_root`.

    Attributes
    ----------
    folder : Path
        Where it is, or will be: another place once a file has changed. It stands for the store of the FOVs, which is a
        plate, or the folder that images have in common.
    source : str or list of str
        What is read instead.

    Raises
    ------
    InputError
        If something is no folder, a URL for instance.
    """

    def __init__(self, source: Source, scratch_dir: str | Path | None = None) -> None:
        paths = source_paths(source)
        for path in paths:
            if not os.path.isdir(path):
                expected = "stores on a disk of this machine or network"
                raise InputError(path, field="caching", found="no folder", expected=expected, fix="set caching: false")
        self._store = Path(fov_keys(source)[0].store)
        made_of = digest_of(paths, [fingerprint(path) for path in paths])
        self.folder = cache_root(scratch_dir) / f"{self._store.stem}-{made_of}{self._store.suffix}"
        self._parts = {path: os.path.relpath(path, self._store) for path in paths}
        copies = [os.path.normpath(self.folder / below) for below in self._parts.values()]
        self.source: Source = copies if len(copies) > 1 else copies[0]

    def make(self, max_cache_gb: float | None = None) -> None:
        """Make it, unless it is there or another process makes it; see :func:`viscy_data.cache_room.reserve`.

        Raises
        ------
        InputError
            If the disk has not the space, or the limit does not leave it.
        """
        n_bytes, place = sum(map(folder_size, self._parts)), self.folder
        reserve(place, n_bytes, max_cache_gb)
        if not place.exists():
            check_space(place.parent, n_bytes, "set scratch_dir to a larger disk, or caching: false")
        size = readable_size(n_bytes)
        _logger.info("%s (%s) is read from its copy %s; rm -r that for the space", self._store, size, place)
        fill_once(self.folder, self._fill)

    def _fill(self, temporary: Path) -> None:
        copied = _CopyProgress(str(self._store))
        for part, below in self._parts.items():
            shutil.copytree(part, temporary / below, copy_function=copied, dirs_exist_ok=True)
        for name in _METADATA:  # of a plate of which some images are copied
            if (self._store / name).is_file():
                shutil.copyfile(self._store / name, temporary / name)


class _CopyProgress:
    """Copy files and say from time to time how many."""

    def __init__(self, source: str) -> None:
        self._source, self._n_copied = source, 0

    def __call__(self, source: str, target: str) -> str:
        self._n_copied += 1
        if self._n_copied % 10_000 == 0:
            _logger.info("copied %d files of %s", self._n_copied, self._source)
        return shutil.copyfile(source, target)
