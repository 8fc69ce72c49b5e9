"""Volumes kept in files on a local disk, one per volume: made once, shared by workers, ranks and later runs.

Memory stays bounded whatever the size of the data: files are mapped, so only what is looked at is read, and the system
drops it again when memory is short.

>>> import tempfile
>>> volumes = VolumeFiles(tempfile.mkdtemp(), n_volumes=1, n_bytes=32)
>>> volumes.fetch("A/1/0 t0", lambda: torch.ones(1, 2, 2, 2))[0, 0, 0].tolist()
[1.0, 1.0]
>>> volumes.fetch("A/1/0 t0", lambda: torch.zeros(1, 2, 2, 2))[0, 0, 0].tolist()
[1.0, 1.0]
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from viscy_data.cache import check_space, fill_once, readable_size

__all__ = ["VolumeFiles"]

_logger = logging.getLogger(__name__)
_N_LOCKS = 64  # volumes that may be made at the same time


class VolumeFiles:
    """A folder of volumes by name.

    Parameters
    ----------
    folder : str or Path
        Made where there is none. What is in it is trusted: its name says what the volumes are made of.
    n_volumes, n_bytes : int
        How many there will be, and how large they are together: for messages and to see that the disk can hold them.

    Attributes
    ----------
    folder : Path
    n_made : int
        Volumes that this process has made.

    Raises
    ------
    InputError
        If the disk has not the space.
    """

    def __init__(self, folder: str | Path, n_volumes: int, n_bytes: int) -> None:
        self.folder, self.n_volumes, self.n_made = Path(folder), n_volumes, 0
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = [path.stat().st_size for path in self.folder.glob("[!.]*.npy")]
        check_space(self.folder, n_bytes - sum(there), "set scratch_dir (or TMPDIR) to a larger disk")
        _logger.info(
            "volumes are kept in %s: %d of %d are there, %s in all; rm -r it for the space",
            self.folder,
            len(there),
            n_volumes,
            readable_size(n_bytes),
        )

    def fetch(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """Return a volume, made by the first process that asks for it while the others wait.

        Parameters
        ----------
        name : str
            Other volumes have other names.
        make : callable
            Makes it where it is not there.

        Returns
        -------
        Tensor
            A private view of the file: what is written to it is not kept.
        """
        place = self.folder / f"{name.replace('/', '_').replace(' ', '_')}.npy"
        if not place.exists():
            lock = self.folder / f".{zlib.crc32(place.name.encode()) % _N_LOCKS}.lock"
            fill_once(place, lambda temporary: self._make(temporary, make), lock)
        return torch.from_numpy(np.load(place, mmap_mode="c"))

    def _make(self, temporary: Path, make: Callable[[], Tensor]) -> None:
        np.save(temporary, make().numpy())
        self.n_made += 1
        if self.n_made % max(1, self.n_volumes // 10) == 0:
            _logger.info("%d of %d volumes made by this process in %s", self.n_made, self.n_volumes, self.folder)
