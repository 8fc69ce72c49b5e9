"""What is done about FOVs and chunks that cannot be read: stop, or go on without them, counted and named.

>>> import tempfile, numpy as np
>>> from pathlib import Path
>>> from viscy_data.stores import PlateWriter
>>> path = tempfile.mkdtemp() + "/plate.zarr"
>>> with PlateWriter(path, ["Phase"]) as plate:
...     for fov in ("A/1/0", "A/1/1"):
...         plate.write(fov, np.ones((2, 1, 1, 8, 8), np.uint16))
>>> _ = Path(path, "A/1/1/0/c/0/0/0/0/0").write_bytes(b"broken")
>>> usable = usable_fovs(path, StoragePolicy(bad_fovs="leave_out"))
>>> [fov.name for fov in usable.fovs], [key.name for key in usable.left_out]
(['A/1/0'], ['A/1/1'])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal, NamedTuple, get_args

from viscy_data.checks import Option, check_options
from viscy_data.errors import InputError, raise_all
from viscy_data.stores.arrays import begin_open, end_open
from viscy_data.stores.faults import read_channel, reading_context
from viscy_data.stores.names import FovInfo, FovKey, MissingChunks
from viscy_data.stores.reading import READ_THREADS, check_described, try_fovs
from viscy_data.stores.sources import Source, fov_keys

__all__ = ["DEFAULT_STORAGE", "BadFovs", "StoragePolicy", "UsableFovs", "left_out_text", "usable_fovs", "why_left_out"]

BadFovs = Literal["stop", "leave_out"]
"""What is done about FOVs that cannot be read."""

_SHOWN = 10
_SHOWS_PROGRESS = 200  # FOVs: a second or so on a local disk


@dataclass(frozen=True)
class StoragePolicy:
    """What to do where a store is not as it should be.

    Parameters
    ----------
    bad_fovs : {"stop", "leave_out"}, default "stop"
        Stop at set-up if FOVs cannot be read, all of them named; or leave them out, count and record them. Which FOVs
        are bad is decided at set-up: by their metadata, and with ``leave_out`` by decoding the first and the last chunk
        of each. What turns out later, in the middle of an epoch, stops the run in either case.
    missing_chunks : {"fill", "refuse"}, default "fill"
        Take chunks that are not stored for the fill value, as Zarr has it, with a warning for each FOV; or take them
        for faults, in a store whose writer has written all chunks.
    """

    bad_fovs: BadFovs = "stop"
    missing_chunks: MissingChunks = "fill"

    def __post_init__(self) -> None:
        choices = {"bad_fovs": BadFovs, "missing_chunks": MissingChunks}
        options = [
            Option(name, getattr(self, name), getattr(self, name) in get_args(kind), " or ".join(get_args(kind)))
            for name, kind in choices.items()
        ]
        raise_all(check_options(type(self).__name__, options))


DEFAULT_STORAGE = StoragePolicy()
"""Stop at bad FOVs, read missing chunks as the fill value."""


class UsableFovs(NamedTuple):
    """FOVs that can be read, and why others cannot.

    Parameters
    ----------
    fovs : tuple of FovInfo
    left_out : dict of FovKey to str
        What was found at each FOV that is left out.
    """

    fovs: tuple[FovInfo, ...]
    left_out: dict[FovKey, str]


def usable_fovs(
    source: Source, storage: StoragePolicy = DEFAULT_STORAGE, *, array_key: str | None = None
) -> UsableFovs:
    """List the FOVs of a store, or of several, that can be used.

    Parameters
    ----------
    source, array_key
        As for :func:`viscy_data.read_fovs`.
    storage : StoragePolicy, default ``DEFAULT_STORAGE``
        With ``leave_out`` one chunk at either end of every FOV is decoded; takes tensorstore, without it only metadata
        are looked at.

    Raises
    ------
    InputError
        As :func:`viscy_data.read_fovs`; with ``leave_out`` only for what is wrong with a store or a well as a whole,
        and where no FOV is left.
    """
    found = try_fovs(fov_keys(source), array_key=array_key)
    if storage.bad_fovs == "stop":
        check_described(found)
    bad = dict(found.bad)
    fovs = [replace(entry.fov, missing_chunks=storage.missing_chunks) for entry in found.described]
    if storage.bad_fovs == "leave_out" and find_spec("tensorstore") is not None:
        bad |= _undecodable(fovs)
    if bad and len(bad) == len(fovs) + len(found.bad):
        raise_all(bad.values())
    return UsableFovs(
        tuple(fov for fov in fovs if fov.key not in bad), {key: why_left_out(key, err) for key, err in bad.items()}
    )


def left_out_text(left_out: Mapping[FovKey, str], shown: int = _SHOWN) -> str:
    """Say how many FOVs are left out, which, and why; the first ``shown`` of them by name."""
    if not left_out:
        return "no FOV is left out"
    names = [f"{key.store}, FOV {key.name} ({why})" for key, why in list(left_out.items())[:shown]]
    more = f"; and {len(left_out) - shown} more" if len(left_out) > shown else ""
    what = "1 FOV that cannot be read is" if len(left_out) == 1 else f"{len(left_out)} FOVs that cannot be read are"
    return f"{what} left out: {'; '.join(names)}{more}"


def why_left_out(key: FovKey, error: InputError) -> str:
    """Say in a line what is wrong with a FOV that is left out, as in :class:`UsableFovs`."""
    place = error.where.removeprefix(f"{key.store}, FOV {key.name}").lstrip(", ")
    return ": ".join(filter(None, [place, error.field, error.found or error.expected]))


def _undecodable(fovs: Sequence[FovInfo]) -> dict[FovKey, InputError]:
    """Decode the first and the last chunk of every FOV."""
    context = reading_context(0)

    def probe(fov: FovInfo) -> InputError | None:
        try:
            array = end_open(fov, begin_open(fov, context, fill_missing=False))
            for t, channel, *place in ((0,) * 5, tuple(size - 1 for size in fov.shape)):
                z, y, x = (slice(start, start + 1) for start in place)
                read_channel(fov, array, t, channel, (z, y, x), told=_ignore)
        except InputError as err:
            return err
        return None

    with ThreadPoolExecutor(READ_THREADS, thread_name_prefix="probe_fovs") as pool:
        errors = _tracked(pool.map(probe, fovs), len(fovs))
        return {fov.key: err for fov, err in zip(fovs, errors, strict=True) if err is not None}


def _tracked(results: Iterable[InputError | None], n: int) -> Iterable[InputError | None]:
    """Show how far the look at many FOVs has come, where `rich` is installed."""
    if n < _SHOWS_PROGRESS or find_spec("rich") is None:
        return results
    from rich.progress import track

    return track(results, "looking at FOVs", n, transient=True)


def _ignore(told: str) -> None:
    """Take a chunk that is not stored for one of a sparse store; whoever reads it says so."""
