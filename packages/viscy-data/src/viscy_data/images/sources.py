"""From files and folders to what is in them: files found, opened and described, each recording once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from viscy_data.errors import InputError, raise_all
from viscy_data.files import missing_path
from viscy_data.images.bioio_plugins import BioioImages
from viscy_data.images.files import ImageFile, ImagePosition
from viscy_data.images.leica import LeicaImages
from viscy_data.images.nikon import NikonImages
from viscy_data.images.patterns import natural_key
from viscy_data.images.tiff import TiffImages
from viscy_data.images.zeiss import ZeissImages

__all__ = ["FORMATS", "Found", "OpenFiles", "describe_files", "find_files", "is_image", "open_images"]

FORMATS: dict[str, Callable[[Path], ImageFile]] = {
    ".nd2": NikonImages,
    ".czi": ZeissImages,
    ".lif": LeicaImages,
}
"""Readers by suffix; TIFF takes an option more, and bioio is asked for what is not here."""

_TIFF = (".tif", ".tiff", ".btf", ".tf8", ".stk", ".lsm")
_THREADS = 8  # hide the latency of network file systems
_OPEN = 16


class Found(NamedTuple):
    """Files that hold images, and what is said of the others."""

    files: list[Path]
    notes: list[str]


def open_images(path: Path, axes: str | None = None) -> ImageFile:
    """Open a file with the reader of its format.

    Parameters
    ----------
    path : Path
    axes : str, optional
        Axes of a TIFF that does not name them.

    Raises
    ------
    InputError
        If it cannot be read.
    ImportError
        If a library of the extra ``images`` is missing.
    """
    suffix = path.suffix.lower()
    with _reading(path):
        return TiffImages(path, axes) if suffix in _TIFF else FORMATS.get(suffix, BioioImages)(path)


def find_files(sources: Sequence[Path]) -> Found:
    """List the image files of files and folders, in the order of their names.

    Raises
    ------
    MissingInputError
        If a source does not exist.
    InputError
        If a folder holds no image.
    """
    files: list[Path] = []
    notes = []
    for source in sources:
        if not source.exists():
            raise missing_path(source, expected="an image file, or a folder of them")
        if source.is_file():
            files.append(source)
            continue
        inside = [path for path in sorted(source.rglob("*"), key=natural_key) if _is_file(path, source)]
        images = [path for path in inside if is_image(path)]
        others = Counter(path.suffix or path.name for path in inside if not is_image(path))
        shown = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        if not images:
            found = f"no image among its files ({shown})" if others else "no file"
            raise InputError(str(source), found=found, expected="TIFF, OME-TIFF, ND2, CZI or LIF")
        if others:
            notes.append(f"{source}: {sum(others.values())} files are no images and are left alone: {shown}")
        files += images
    return Found(list(dict.fromkeys(path.resolve() for path in files)), notes)


def describe_files(
    files: Sequence[Path], axes: str | None = None, on_file: Callable[[int], None] = lambda n_files: None
) -> dict[Path, tuple[ImagePosition, ...]]:
    """Describe the positions of every file; files that are read through another one are left out.

    Parameters
    ----------
    files : sequence of Path
    axes : str, optional
        See :func:`open_images`.
    on_file : callable, optional
        Told how many files there are, once per file that has been looked at.

    Raises
    ------
    InputError
        Naming all files that cannot be read.
    """

    def look(path: Path) -> tuple[tuple[ImagePosition, ...], frozenset[Path]] | InputError:
        try:
            with open_images(path, axes) as image:
                return image.positions, image.companions
        except InputError as err:
            return err
        finally:
            on_file(len(files))

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="describe_files") as pool:
        looked = dict(zip(files, pool.map(look, files), strict=True))
    raise_all([entry for entry in looked.values() if isinstance(entry, InputError)][:5])
    companions: set[Path] = set()
    described = {}
    for path, (positions, others) in looked.items():
        if path not in companions:
            described[path] = positions
            companions |= others
    return described


@dataclass
class OpenFiles:
    """Files that stay open while planes are read from them, the latest few.

    Attributes
    ----------
    n_planes : int
        Planes that were read.
    """

    axes: str | None = None
    n_planes: int = 0
    _open: dict[Path, ImageFile] = field(default_factory=dict)

    def read(self, path: Path, position: int, t: int, c: int, z: int) -> np.ndarray:
        """Read one plane, (Y, X).

        Raises
        ------
        InputError
            If the file cannot be read.
        """
        image = self._open.pop(path, None) or open_images(path, self.axes)
        self._open[path] = image
        while len(self._open) > _OPEN:
            self._open.pop(next(iter(self._open))).close()
        self.n_planes += 1
        with _reading(path):
            return image.read(position, t, c, z)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._open.popitem()[1].close()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell what a library says of a broken file as the fault of the file."""
    try:
        yield
    except (InputError, ImportError, MemoryError):
        raise
    except Exception as err:
        # readers of damaged files raise whatever comes: struct.error, RuntimeError, KeyError ...
        logging.getLogger(__name__).debug("reading %s", path, exc_info=True)
        found = f"a file that cannot be read ({type(err).__name__}: {str(err).splitlines()[0] if str(err) else ''})"
        needs_codecs = "imagecodecs" in str(err)
        fix = "pip install imagecodecs" if needs_codecs else "look whether it opens elsewhere; copy or export it anew"
        raise InputError(str(path), found=found[:300], expected="a whole image file", fix=fix) from err


def _is_file(path: Path, folder: Path) -> bool:
    """Tell files from folders, and from the inside of stores, such as what an interrupted import has left."""
    return path.is_file() and not any(".zarr" in name for name in path.relative_to(folder).parts[:-1])


def is_image(path: Path) -> bool:
    """Tell by its name whether a file of a folder is an image that can be read."""
    is_hidden = path.name.startswith(".")  # such as ._A01.tif, which macOS leaves on other disks
    return not is_hidden and path.suffix.lower() in (*_TIFF, *FORMATS)
