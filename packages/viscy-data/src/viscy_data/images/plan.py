"""The plan of an import: which plane of which file becomes which plane of the plate; what is missing or contradicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from pathlib import Path

import numpy as np

from viscy_data.errors import InputError, raise_all
from viscy_data.images.metadata import first_few, name_channels, scale_fovs
from viscy_data.images.patterns import natural_key
from viscy_data.images.placing import Placed, by_order, by_pattern, by_table, proposed_pattern
from viscy_data.images.sources import describe_files, find_files

__all__ = ["FovPlan", "ImportOptions", "ImportPlan", "plan_import"]

_Key = tuple[int | None, str | None, int | None]


@dataclass(frozen=True)
class ImportOptions:
    """What the user says that files do not, or say wrongly.

    Parameters
    ----------
    pattern : str, optional
        Of file names, see :class:`viscy_data.images.NamePattern`.
    axes : str, optional
        Axes of TIFFs that do not name them, or wrongly, such as ``"TYX"``.
    channels : sequence of str, default ()
        Names in the order of the channels, or ``old=new``.
    pixel_size_um, z_step_um, interval_seconds : float, optional
        In place of what the files say.
    well : str, optional
        Of all FOVs.
    table : Path, optional
        CSV with the columns source, fov and maybe position.
    fill_missing : bool, default False
        Leave planes that are missing zero.
    """

    pattern: str | None = None
    axes: str | None = None
    channels: Sequence[str] = ()
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    interval_seconds: float | None = None
    well: str | None = None
    table: Path | None = None
    fill_missing: bool = False


@dataclass(frozen=True)
class FovPlan:
    """One FOV of the plate.

    Parameters
    ----------
    name : str
        ``row/column/fov``.
    shape : tuple of int
        (T, C, Z, Y, X).
    dtype : numpy.dtype
    scale : tuple of float
        Seconds and micrometres; 1 where nobody knows.
    axes : tuple
        Frames, channels and slices that file names tell apart, in order; None for an axis inside the files.
    sources : mapping
        From (frame, channel, slice), as file names say them, to the position of a file.
    """

    name: str
    shape: tuple[int, int, int, int, int]
    dtype: np.dtype
    scale: tuple[float, float, float, float, float]
    axes: tuple[Sequence | None, Sequence | None, Sequence | None]
    sources: Mapping[_Key, Placed] = field(repr=False)

    def source(self, t: int, c: int, z: int) -> tuple[Placed, tuple[int, int, int]] | None:
        """Return the position that has a plane, and where it is in there; None for a missing plane."""
        at = (t, c, z)
        key = tuple(None if values is None else values[n] for values, n in zip(self.axes, at, strict=True))
        inside = tuple(n if values is None else 0 for values, n in zip(self.axes, at, strict=True))
        placed = self.sources.get(key)
        return None if placed is None or inside in placed.facts.missing else (placed, inside)

    def missing(self) -> Iterable[tuple[int, int, int]]:
        """List the planes that no file has."""
        if len(self.sources) == self._n_expected and not any(own.facts.missing for own in self.sources.values()):
            return []
        return [place for place in np.ndindex(self.shape[:3]) if self.source(*place) is None]

    def shown(self, t: int, c: int, z: int) -> str:
        """Name a plane as the files do."""
        words = [self.name]
        for name, values, n, size in zip(("t", "channel", "z"), self.axes, (t, c, z), self.shape[:3], strict=True):
            if size > 1:
                words.append(f"{name} {n if values is None else values[n]}")
        return " ".join(words)

    @property
    def _n_expected(self) -> int:
        return math.prod(len(values) for values in self.axes if values is not None)


@dataclass(frozen=True)
class ImportPlan:
    """What an import will write.

    Parameters
    ----------
    fovs : tuple of FovPlan
    channel_names : tuple of str
    notes : tuple of str
        What was decided, assumed, left out.
    axes : str, optional
        Of TIFFs that do not name them.
    """

    fovs: tuple[FovPlan, ...]
    channel_names: tuple[str, ...]
    notes: tuple[str, ...]
    axes: str | None = None


def plan_import(
    sources: Sequence[Path],
    options: ImportOptions | None = None,
    on_file: Callable[[int], None] = lambda n_files: None,
) -> ImportPlan:
    """Look at files and folders and plan their import. No pixel is read.

    Parameters
    ----------
    sources : sequence of Path
    options : ImportOptions, optional
    on_file : callable, optional
        Told how many files there are, once per file that has been looked at.

    Returns
    -------
    ImportPlan

    Raises
    ------
    MissingInputError, InputError
        For sources that do not exist or cannot be read, names that do not match, planes that are there twice or not at
        all, and files of one FOV that differ in size, type or channels.
    """
    options = options or ImportOptions()
    if options.table is not None and (options.pattern or options.well):
        raise InputError("--map", found="--pattern or --well beside it", expected="one of them")
    found = find_files(sources)
    described = describe_files(found.files, options.axes, on_file)
    notes = list(found.notes)
    if n_parts := len(found.files) - len(described):
        notes.append(f"{n_parts} files are parts of a recording that begins in another one, and are read through that")
    pattern = options.pattern
    if pattern is None and options.table is None and (pattern := proposed_pattern(described)):
        notes.append(f"names are read as --pattern '{pattern}'")
    if options.table is not None:
        placed, said = by_table(described, options.table)
    else:
        place = partial(by_pattern, text=pattern) if pattern else by_order
        placed, said = place(described, well=options.well)
    fovs, channels, problems = _fovs(placed)
    raise_all(problems[:5])
    names, named = name_channels(channels, placed, options.channels)
    sized, measures = scale_fovs(fovs, options, named_times=bool(pattern) and "{t}" not in pattern)
    plan = ImportPlan(tuple(sized), names, tuple([*notes, *said, *named, *measures]), options.axes)
    return _with_missing(plan, options.fill_missing)


def _fovs(placed: Sequence[Placed]) -> tuple[list[FovPlan], Sequence[str] | None, list[InputError]]:
    """Group positions by FOV, and find doubles and contradictions."""
    problems: list[InputError] = []
    times, channels, slices = (_values(placed, name) for name in ("t", "channel", "z"))
    axes = (_steps(times), channels, _steps(slices))
    by_fov: dict[str, dict[_Key, Placed]] = {}
    for own in placed:
        sources = by_fov.setdefault(own.fov, {})
        other = sources.setdefault((own.t, own.channel, own.z), own)
        if other is not own:
            found = f"FOV {own.fov}{_place(own)}, which {other.path.name} has too"
            fix = "tell them apart: a {fov} or {well} in --pattern, a / for folders, or --map"
            problems.append(InputError(str(own.path), found=found, expected="every plane once", fix=fix))
    fovs = []
    for name, sources in by_fov.items():
        first = next(iter(sources.values()))
        problems += [problem for own in sources.values() if (problem := _unlike(own, first, axes))]
        shape = tuple(
            size if values is None else len(values) for size, values in zip(first.facts.shape[:3], axes, strict=True)
        )
        fovs.append(FovPlan(name, (*shape, *first.facts.shape[3:]), first.facts.dtype, (1.0,) * 5, axes, sources))
    counts = {fov.shape[1]: fov.name for fov in fovs}
    if len(counts) > 1:
        found = ", ".join(f"{count} in {name}" for count, name in counts.items())
        problems.append(InputError("channels", found=found, expected="as many in all FOVs", fix="import them apart"))
    return sorted(fovs, key=lambda fov: natural_key(fov.name)), channels, problems


def _values(placed: Sequence[Placed], name: str) -> list | None:
    """Return the values of a field of names, sorted; None where names do not have it."""
    values = {getattr(own, name) for own in placed}
    return None if None in values else sorted(values, key=natural_key)


def _steps(values: list[int] | None) -> Sequence[int] | None:
    """Fill the gaps of numbers that are evenly apart, so that a frame that all FOVs lack is missed too."""
    if values is None or len(values) < 2:
        return values
    steps = range(values[0], values[-1] + 1, reduce(math.gcd, np.diff(values).tolist()))
    if len(steps) > 2 * len(values):
        raise InputError(
            "the names of the files",
            found=f"frames or slices that are unevenly apart: {', '.join(map(str, values[:6]))} ...",
            expected="even steps, of which a few may be missing",
            fix="number them with {t} or {z}, or leave out those that do not belong to the others",
        )
    return steps


def _place(own: Placed) -> str:
    return "".join(f" {name} {getattr(own, name)}" for name in ("t", "channel", "z") if getattr(own, name) is not None)


def _unlike(own: Placed, first: Placed, axes: Sequence[Sequence | None]) -> InputError | None:
    """Return a problem if a file is not like the first of its FOV, or has an axis that names have too."""
    for axis, values, name in zip(range(3), axes, ("{t}", "{channel}", "{z}"), strict=True):
        if values is not None and own.facts.shape[axis] > 1:
            found = f"{own.facts.shape[axis]} along {'TCZ'[axis]} inside, and a {name} in the name"
            return InputError(str(own.path), found=found, expected=f"one of them; leave {name} out of the pattern")
    if (own.facts.shape, own.facts.dtype) == (first.facts.shape, first.facts.dtype):
        return None
    found, expected = (f"{_size(facts.shape)} of {facts.dtype}" for facts in (own.facts, first.facts))
    return InputError(str(own.path), found=found, expected=f"{expected}, as in {first.path.name} of FOV {own.fov}")


def _size(shape: Sequence[int]) -> str:
    return " x ".join(f"{size} {axis}" for axis, size in zip("TCZYX", shape, strict=True) if size > 1 or axis in "YX")


def _with_missing(plan: ImportPlan, fill: bool) -> ImportPlan:
    """Refuse planes that are missing, or note them."""
    missing = [fov.shown(*place) for fov in plan.fovs for place in fov.missing()]
    if not missing:
        return plan
    counted = f"{len(missing)} planes are missing: {first_few(missing)}"
    if not fill:
        fix = "bring the files, leave these FOVs out, or leave the planes zero with --fill-missing"
        raise InputError("the recording", found=counted, expected="every frame, channel and slice", fix=fix)
    return replace(plan, notes=(*plan.notes, f"{counted}; they stay zero"))
