"""Where the frames of a plate are kept, and how much that will be."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

from viscy_data.cache import cache_root, digest_of, fingerprint
from viscy_data.cache_room import reserve
from viscy_data.stores import FovInfo, Source, source_paths
from viscy_data.volume_files import VolumeFiles

__all__ = ["FrameNames", "frame_cache", "frame_folder"]

_STAT_THREADS = 16
_FLOAT_BYTES = 4


def frame_folder(
    source: Source,
    channels: Sequence[str],
    array_key: str | None = None,
    preprocessing: Sequence[Any] = (),
    seed: int = 0,
    scratch_dir: str | Path | None = None,
) -> Path:
    """Return the folder of kept frames, named by what they are made of; their files are named by FOV and content.

    Parameters
    ----------
    source : str, Path, or sequence of these
        As for :func:`viscy_data.read_fovs`.
    channels, array_key
        What is read.
    preprocessing : sequence, default ()
        What happens to a frame before it is kept, as :func:`~viscy_data.batches.record.described`; ``seed`` is that of
        its random numbers.
    scratch_dir : str or Path, optional
        See :func:`viscy_data.cache.cache_root`.
    """
    paths = source_paths(source)
    made_of = digest_of(paths, array_key, list(channels), preprocessing, seed if preprocessing else 0)
    return cache_root(scratch_dir) / f"{Path(paths[0]).stem}-{made_of}"


def frame_cache(
    folder: Path, fovs: Sequence[FovInfo], n_channels: int, frame_step: int = 1, *, max_cache_gb: float | None = None
) -> VolumeFiles:
    """Return the kept frames of a folder, for some FOVs; what is not there is made when it is asked for.

    Raises
    ------
    InputError
        If the disk, or ``max_cache_gb``, has not the space for them, see :func:`viscy_data.cache_room.reserve`.
    """
    n_frames = [len(range(0, fov.shape[0], frame_step)) for fov in fovs]
    n_pixels = sum(n * prod(fov.shape[2:]) for n, fov in zip(n_frames, fovs, strict=True))
    n_bytes = n_pixels * n_channels * _FLOAT_BYTES
    reserve(folder, n_bytes, max_cache_gb)
    return VolumeFiles(folder, sum(n_frames), n_bytes)


class FrameNames:
    """Names of kept frames: by FOV and its content, not by position, so that no dataset gets a frame of another.

    >>> import tempfile
    >>> from viscy_data.stores import FovKey
    >>> FrameNames([FovInfo(FovKey(tempfile.mkdtemp(), "A/1/0"), (1, 1, 1, 8, 8), "uint8", ("a",))]).name(0, 7)[-3:]
    '-t7'
    """

    def __init__(self, fovs: Sequence[FovInfo]) -> None:
        with ThreadPoolExecutor(_STAT_THREADS) as pool:
            content = pool.map(lambda fov: fingerprint(f"{fov.store}/{fov.name}"), fovs)
            self._of_fovs = [f"{fov.name}-{digest}" for fov, digest in zip(fovs, content, strict=True)]

    def name(self, fov: int, t: int) -> str:
        """Return the name of a frame, for :meth:`viscy_data.volume_files.VolumeFiles.fetch`."""
        return f"{self._of_fovs[fov]}-t{t}"
