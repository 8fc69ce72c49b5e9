"""One table of every cell in every frame, which of them are anchors, and where their positives are.

>>> registry = ExperimentRegistry.from_yaml("experiments.yml")  # doctest: +SKIP
>>> index = MultiExperimentIndex(registry, slice(0, 5), (160, 160), tau_range_hours=(0.5, 2.0))  # doctest: +SKIP
>>> print(index.summary())  # doctest: +SKIP
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dynaclr.experiment import ExperimentRegistry
from dynaclr.index.conditions import report_unnamed, unnamed_wells
from dynaclr.index.file import (
    check_index_file,
    is_mapped,
    mapped_identity,
    open_mapped_index,
    read_index_file,
    write_index_file,
    write_mapped_index,
)
from dynaclr.index.left_out import LeftOut
from dynaclr.index.parts import part_identity, path_of_part, remove_parts
from dynaclr.index.record import IndexRecord
from dynaclr.index.sources import find_sources
from dynaclr.index.summary import summarize
from dynaclr.index.tracks_reading import read_table
from dynaclr.index.tracks_table import TracksTable
from dynaclr.positives import PositiveLookup, PositiveScope
from viscy_data.blocks import row_blocks
from viscy_data.errors import InputError, raise_all
from viscy_data.lookup import true_rows
from viscy_data.memory import give_back
from viscy_data.placement import border_shifts
from viscy_data.stores import FovInfo
from viscy_data.windows import PatchWindow, check_fovs_hold

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MultiExperimentIndex"]

_logger = logging.getLogger(__name__)


class MultiExperimentIndex:
    """Observations of all experiments, their lineages and the anchors among them.

    Parameters
    ----------
    registry : ExperimentRegistry
        Checked experiments.
    z_range : slice or tuple of int
        First and one past the last z slice of the patches; must lie in the stack of every FOV.
    yx_patch_size : tuple of int
        Height and width in pixels of the patches that the model sees; at the edge they are moved inward, only as far as
        needed to lie in the image.
    tau_range_hours : tuple of float, default (0.5, 2.0)
        Offsets between anchor and positive, both included; each experiment gets the frames inside. (0, 0): the positive
        is the anchor's own patch.
    include_wells : list of str, optional
        Take only these wells.
    exclude_fovs : list of str, optional
        Leave out FOVs of these names.
    positive_scope : {"descendants", "lineage", "track"}, default "descendants"
        Whose observations are positives: the anchor's track and its descendants, all tracks of its root, its track.
    dask_address : str, optional
        Scheduler of a running Dask cluster that reads the tracking tables, or ``local`` for processes of this machine.
    workers : int, optional
        Threads, or such processes, that read the tracking tables; by default one per CPU.
    max_border_shift : int, optional
        Leave out, and count, observations whose patch the edge moves by more pixels than this along an axis.

    Attributes
    ----------
    registry, z_range, yx_patch_size, tau_range_hours, positive_scope
        As given; ``z_range`` as a slice.
    tracks : pandas.DataFrame
        One row per observation: the columns of the tracking tables, then ``experiment``, ``condition``, ``well_name``,
        ``fov_name``, ``global_track_id``, ``hours_post_infection``, ``fluorescence_channel``, ``lineage_id`` (the
        ``global_track_id`` of the root), ``y_clamp``, ``x_clamp`` (centre of the patch), ``border_shift`` (pixels that
        the edge moves the patch by, the larger of both axes). Texts are categorical, coordinates float32.
    n_border : int
        Observations left out by ``max_border_shift``.
    positions : tuple of FovInfo
        FOVs with a tracking table.
    fov_index, track_index, lineage : ndarray of int32, shape (N,)
        Per observation: its FOV in ``positions`` (int16 below 32768 FOVs), its track and the root of its track in
        ``forest``.
    forest : LineageForest
        Relations of all tracks.
    anchor_rows : ndarray of int32
        Positions in ``tracks`` of the observations that have a positive, ascending; int64 from 2^31 rows on.

    Raises
    ------
    InputError
        With the problems of the input, before any image is read.
    """

    def __init__(
        self,
        registry: ExperimentRegistry,
        z_range: slice | tuple[int, int],
        yx_patch_size: tuple[int, int],
        tau_range_hours: tuple[float, float] = (0.5, 2.0),
        include_wells: Sequence[str] | None = None,
        exclude_fovs: Sequence[str] | None = None,
        positive_scope: PositiveScope = "descendants",
        dask_address: str | None = None,
        workers: int | None = None,
        *,
        max_border_shift: int | None = None,
    ) -> None:
        self._configure(registry, z_range, yx_patch_size, tau_range_hours, positive_scope, max_border_shift)
        sources = find_sources(registry, include_wells, exclude_fovs)
        self._check_limits([source.fov for source in sources.found], [source.experiment for source in sources.found])
        table = read_table(registry, sources, workers, dask_address)
        give_back()  # the tables of the FOVs, of which the joined one is a copy
        self._record = IndexRecord.of(registry, sources, table.left_out, include_wells, exclude_fovs)
        self._fill(table)
        report_unnamed(registry, self._table)

    def _configure(
        self,
        registry: ExperimentRegistry,
        z_range: slice | tuple[int, int],
        yx_patch_size: tuple[int, int],
        tau_range_hours: tuple[float, float],
        positive_scope: PositiveScope,
        max_border_shift: int | None,
    ) -> None:
        window = PatchWindow(z_range, yx_patch_size, max_border_shift=max_border_shift, where="MultiExperimentIndex")
        raise_all(window.problems())
        self.registry = registry
        self.z_range, self.yx_patch_size = window.slices, window.final_size[1:]
        self.max_border_shift = max_border_shift
        self.tau_range_hours = tau_range_hours
        self.positive_scope = positive_scope
        frames = [registry.tau_range_frames(name, tau_range_hours) for name in registry.names]
        self._tau_frames = np.array(frames, dtype=np.int64)  # (experiments, 2)

    def _check_limits(self, fovs: Sequence[FovInfo], fov_experiment: Sequence[int]) -> None:
        raise_all(self._misfits(fovs, fov_experiment, self.yx_patch_size))

    def _misfits(
        self, fovs: Sequence[FovInfo], fov_experiment: Sequence[int], yx_size: tuple[int, int]
    ) -> list[InputError]:
        errors = []
        for number, config in enumerate(self.registry.experiments):
            own = [fov for fov, experiment in zip(fovs, fov_experiment, strict=True) if experiment == number]
            errors += check_fovs_hold(own, self.z_range, yx_size, f"experiment {config.name!r}")
        return errors

    def misfits(self, yx_size: tuple[int, int]) -> list[InputError]:
        """Say which experiments have images that are smaller than a patch of this height and width."""
        return self._misfits(self.positions, self._table.fov_experiment, yx_size)

    def _fill(self, whole: TracksTable, is_anchor: np.ndarray | None = None) -> None:
        """Derive everything from the table; anchors that are known already are taken as they are."""
        from dynaclr.index.observations import build_observations  # pandas comes with it

        extents, (y, x) = [fov.shape[3:] for fov in whole.fovs], (whole.columns[name].to_numpy() for name in "yx")
        shift = border_shifts(y, x, whole.fov_index, extents, self.yx_patch_size)
        self._whole, self._kept, self._file = whole, None, None
        if self.max_border_shift is not None:
            self._kept = shift <= self.max_border_shift
            shift = shift[self._kept]
            is_anchor = None if is_anchor is None else is_anchor[self._kept]
        self._table = table = whole if self._kept is None else whole.rows(self._kept)
        self.n_border = len(whole) - len(table)
        self.positions = table.fovs
        self.track_index = table.track_index
        self.fov_index = table.fov_index
        self.forest = table.forest
        self.tracks = build_observations(self.registry, table, self.forest, self.yx_patch_size, shift)
        self.anchor_rows = true_rows(self._find_anchors() if is_anchor is None else is_anchor)
        self._check_anchors()

    def _anchors_of_whole(self) -> np.ndarray:
        """Say which observations are anchors, those included that the border leaves out."""
        is_anchor = np.zeros(len(self._whole), dtype=bool)
        is_anchor[self.anchor_rows if self._kept is None else np.flatnonzero(self._kept)[self.anchor_rows]] = True
        return is_anchor

    def _find_anchors(self) -> np.ndarray:
        found = np.empty(len(self._table), bool)
        for part in row_blocks(len(found)):
            rows = np.arange(part.start, part.stop)
            found[part] = self.positives.has_positive(rows, *self.tau_frames(rows))
        return found

    def tau_frames(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return first and last offset in frames, both included, for observations; int64 of shape (B,) each."""
        experiment = self._table.fov_experiment[self.fov_index[rows]]
        low, high = (limits[experiment] for limits in self._tau_frames.T)
        return low, high

    def _check_anchors(self) -> None:
        """Refuse an index without anchors; name experiments without any."""
        names = list(self._table.experiments)
        of_fovs = np.diff(np.searchsorted(self.anchor_rows, self._table.fov_starts.astype(self.anchor_rows.dtype)))
        own = np.bincount(self._table.fov_experiment, of_fovs, minlength=len(names))
        barren = [
            f"{names[number]} ({low} to {high} frames)"
            for number, (low, high) in enumerate(self._tau_frames)
            if number in self._table.fov_experiment and not own[number]
        ]
        hours = "{:g} to {:g} h".format(*self.tau_range_hours)
        if not len(self.anchor_rows):
            raise InputError(
                "tau_range",
                found=f"{hours}, at which no observation of any experiment has a positive: {', '.join(barren)}",
                expected="offsets shorter than the tracks",
                fix="shorten tau_range, or set it to (0, 0) to pair each patch with itself",
            )
        if barren:
            warnings.warn(f"no observation has a positive at {hours} in experiments {', '.join(barren)}", stacklevel=4)

    @cached_property
    def lineage(self) -> np.ndarray:
        """Root track of each observation, int32 of shape (N,): equal numbers are one lineage, across experiments."""
        return self.tracks["lineage_id"].array.codes

    @cached_property
    def positives(self) -> PositiveLookup:
        """Candidates of each anchor."""
        return PositiveLookup(self.tracks["t"].to_numpy(), self.track_index, self.forest, self.positive_scope)

    @cached_property
    def valid_anchors(self) -> pd.DataFrame:
        """The rows of ``tracks`` that are anchors, numbered anew; row ``i`` is ``anchor_rows[i]`` of ``tracks``."""
        return self.tracks.iloc[self.anchor_rows].reset_index(drop=True)

    @property
    def fov_experiments(self) -> tuple[str, ...]:
        """Name of the experiment of each FOV in ``positions``."""
        return tuple(self._table.experiments[number] for number in self._table.fov_experiment)

    @property
    def track_experiments(self) -> np.ndarray:
        """Name of the experiment of each track of ``forest``, texts of shape (M,)."""
        return np.array(self._table.experiments, dtype=object)[self._table.fov_experiment[self._table.track_fov]]

    @property
    def left_out(self) -> LeftOut:
        """What is in the input but not in the index."""
        return self._table.left_out

    @property
    def unnamed_wells(self) -> dict[tuple[str, str], int]:
        """Cells of wells for which their experiment names no condition, by (experiment, well)."""
        return unnamed_wells(self.registry, self._table)

    @property
    def experiment_groups(self) -> dict[str, np.ndarray]:
        """Rows of ``tracks`` by experiment."""
        return self._groups("experiment")

    @property
    def condition_groups(self) -> dict[str, np.ndarray]:
        """Rows of ``tracks`` by condition."""
        return self._groups("condition")

    def _groups(self, column: str) -> dict[str, np.ndarray]:
        labels = self.tracks[column].cat
        codes = labels.codes.to_numpy()
        rows = {label: np.flatnonzero(codes == code) for code, label in enumerate(labels.categories)}
        return {label: own for label, own in rows.items() if len(own)}

    def summary(self) -> str:
        """Count experiments, FOVs, tracks, observations, anchors, divisions, conditions, and what was left out."""
        return summarize(self)

    def subset(self, experiment_names: Iterable[str]) -> Self:
        """Return an index of some of the experiments, in the order of this one, without reading a tracking table.

        That of a mapped index is mapped too, from a file beside it that is written when it is first asked for.

        Raises
        ------
        KeyError
            If a name is unknown.
        InputError
            If no observation of these experiments has a positive.
        """
        registry = self.registry.subset(experiment_names)
        names = registry.names
        if names == self.registry.names:
            return self
        part = copy.copy(self)
        part.registry = registry
        part._record = self._record.subset(names)
        part._tau_frames = self._tau_frames[np.isin(self._table.experiments, names)]

        def take() -> tuple[TracksTable, np.ndarray]:
            return self._whole.subset(names), self._anchors_of_whole()[self._whole.rows_of(names)]

        return self._derive_part(part, repr(names).encode(), take)

    def part(self, rows: np.ndarray) -> Self:
        """Return an index of some of the observations, without reading a tracking table; see :meth:`subset`.

        Parameters
        ----------
        rows : ndarray of bool, shape (N,)
            Which rows of ``tracks`` to keep: whole lineages, so that no anchor loses its positives.

        Raises
        ------
        InputError
            If none of them has a positive.
        """

        def take() -> tuple[TracksTable, np.ndarray]:
            kept = np.zeros(len(self._whole), dtype=bool)
            kept[np.flatnonzero(rows) if self._kept is None else np.flatnonzero(self._kept)[rows]] = True
            return self._whole.rows(kept), self._anchors_of_whole()[kept]

        return self._derive_part(copy.copy(self), np.packbits(rows).tobytes(), take)

    def _derive_part(self, part: Self, said: bytes, take: Callable[[], tuple[TracksTable, np.ndarray]]) -> Self:
        """Fill a part with what is taken of the table and the anchors; one of a mapped index is mapped."""
        for derived in ("lineage", "positives", "valid_anchors"):
            part.__dict__.pop(derived, None)
        if self._file is None:
            part._fill(*take())
            return part
        path, identity = self._file
        place, derivation = path_of_part(path, identity, said), part._derivation()
        found = part_identity(place, derivation)
        if found is None:
            part._fill(*take())
            try:
                part.save(place, overwrite=True)
            except OSError as err:
                _logger.warning("%s: each process holds a part of the index itself, %s", place.parent, err)
                return part
            part.__dict__.pop("lineage", None)
            found = part_identity(place, derivation)
        part._restore(place, found)
        part._check_anchors()
        return part

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the index to a file that :meth:`load` reads several times faster than building takes.

        Parameters
        ----------
        path : str or Path
            ``.parquet`` is small. ``.arrow`` is the index as it lies in memory, about 64 bytes per observation: it is
            opened without being read, and all processes of a machine that open it, workers and ranks, share its pages,
            as long as patch size, tau range, scope, conditions and hours are those at saving.
        overwrite : bool, default False

        Raises
        ------
        FileExistsError
            If there is a file and ``overwrite`` is False.
        InputError
            For an ``.arrow`` file of an index with ``max_border_shift``.
        """
        record = dataclasses.replace(self._record, anchors=self._anchor_options())
        if is_mapped(path):
            if self._kept is not None:
                fix = "save it without max_border_shift, or as .parquet"
                raise InputError(str(path), field="max_border_shift", found=f"{self.max_border_shift}", fix=fix)
            write_mapped_index(path, self, self._table, record, self._derivation(), overwrite)
            remove_parts(path)
            return
        write_index_file(path, self._whole, self._anchors_of_whole(), record, overwrite)

    @classmethod
    def load(
        cls,
        path: str | Path,
        registry: ExperimentRegistry,
        z_range: slice | tuple[int, int],
        yx_patch_size: tuple[int, int],
        tau_range_hours: tuple[float, float] = (0.5, 2.0),
        include_wells: Sequence[str] | None = None,
        exclude_fovs: Sequence[str] | None = None,
        positive_scope: PositiveScope = "descendants",
        *,
        max_border_shift: int | None = None,
    ) -> Self:
        """Read an index, which then equals one built from the same arguments.

        Patches, conditions and hours follow the arguments and the registry; anchors are looked up again when tau range
        or scope differ from those at saving. Tracking tables, FOVs and filters must be those at saving.

        Parameters
        ----------
        path : str or Path
            File of :meth:`save` or of ``dynaclr build-index``.
        registry, z_range, yx_patch_size, tau_range_hours, include_wells, exclude_fovs, positive_scope, max_border_shift
            As in the constructor.

        Raises
        ------
        InputError
            If the file is missing, is no index, or stale; the message says what has changed.
        """
        index = cls.__new__(cls)
        index._configure(registry, z_range, yx_patch_size, tau_range_hours, positive_scope, max_border_shift)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when the index was built; summary() repeats it
            sources = find_sources(registry, include_wells, exclude_fovs)
        now = IndexRecord.of(registry, sources, LeftOut(), include_wells, exclude_fovs)
        check_index_file(path, now)
        if (identity := mapped_identity(path, index._derivation())) is not None:
            index._restore(Path(path).resolve(), identity)
            index._check_limits(index.positions, index._table.fov_experiment)
            index._check_anchors()
            report_unnamed(registry, index._table)
            return index
        table, is_anchor, index._record = read_index_file(path, registry)
        index._check_limits(table.fovs, table.fov_experiment)
        index._fill(table, is_anchor if index._record.anchors == index._anchor_options() else None)
        report_unnamed(registry, index._table)
        return index

    def _restore(self, path: Path, identity: str) -> None:
        """Map a file, with all that is derived in it."""
        mapped = open_mapped_index(path, self.registry)
        if mapped.identity != identity:
            raise InputError(str(path), found="another index than before", expected="the file left as it is")
        self._file = path, identity
        self._whole = self._table = table = mapped.table
        self._kept, self._record, self.n_border = None, mapped.record, 0
        self.positions, self.track_index, self.fov_index = table.fovs, table.track_index, table.fov_index
        self.forest, self.tracks, self.anchor_rows = table.forest, mapped.tracks, mapped.anchor_rows
        t = self.tracks["t"].to_numpy()
        self.positives = PositiveLookup(t, self.track_index, self.forest, self.positive_scope, mapped.order)

    def _derivation(self) -> str:
        """Return a digest of what derived columns, anchors and positives follow from, beside the tracks."""
        configs = [
            (config.condition_of_well(), config.default_condition, config.start_hpi, config.source_channel[1:2])
            for config in self.registry.experiments
        ]
        said = configs, self.registry.interval_hours.tolist(), tuple(self.yx_patch_size), self._anchor_options()
        return hashlib.blake2b(repr(said).encode(), digest_size=16).hexdigest()

    def __copy__(self) -> Self:
        part = type(self).__new__(type(self))
        part.__dict__.update(self.__dict__)
        return part

    def __getstate__(self) -> dict[str, Any]:
        """Pickle an index of a mapped file as its path: whoever unpickles it maps the same pages."""
        if self._file is None:
            return self.__dict__
        names = ("registry", "z_range", "yx_patch_size", "tau_range_hours", "positive_scope", "max_border_shift")
        return {"_file": self._file, "options": {name: getattr(self, name) for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "options" in state:
            self._configure(**state["options"])
            self._restore(*state["_file"])
        else:
            self.__dict__.update(state)

    def _anchor_options(self) -> dict[str, object]:
        options = {"positive_scope": self.positive_scope, "tau_frames": self._tau_frames.tolist()}
        if self.max_border_shift is not None:  # what the border leaves out is nobody's positive
            options["border"] = [self.max_border_shift, *self.yx_patch_size]
        return options
