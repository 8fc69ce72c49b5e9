"""The description of one experiment, as written in a YAML file."""

from __future__ import annotations

from dataclasses import dataclass

from viscy_data.stores import canonical_fov_name

__all__ = ["ExperimentConfig"]


@dataclass
class ExperimentConfig:
    """One acquisition: where it is, what its channels and wells mean, and its clock.

    Parameters
    ----------
    name : str
        Name of the experiment, unique among those trained together.
    data_path : str or list of str
        HCS OME-Zarr store, or images that are in no plate: a path or URL, a pattern of paths (``movies/*.zarr``), or a
        list, see :func:`viscy_data.read_fovs`.
    tracks_path : str
        Folder with one tracking table per FOV, ``<row>/<column>/<fov>/*.csv``, or ``<image>/*.csv`` of an image
        ``<image>.zarr`` that is in no plate.
    channel_names : list of str
        All channels of the store, in its order.
    source_channel : list of str
        The channels that are used; their positions correspond across experiments.
    condition_wells : dict of str to list of str, optional
        Wells (``"A/1"``) of each condition; an untreated movie needs none. An image that is in no plate is a well of
        its own (``"movie.zarr"``), or the folder below the common one is (``"infected"``).
    interval_minutes : float, default 30.0
        Time from one frame to the next.
    start_hpi : float, default 0.0
        Hours post infection of the first frame.
    organelle, date : str, optional
        For the reader.
    moi : float, default 0.0
        Multiplicity of infection, for the reader.
    normalization_path : str, optional
        File with the normalisation statistics of a store that cannot be written to.
    default_condition : str, optional
        Condition of the wells that ``condition_wells`` does not name; by default they are "unknown", and batches are
        not balanced over conditions together with them.
    """

    name: str
    data_path: str | list[str]
    tracks_path: str
    channel_names: list[str]
    source_channel: list[str]
    condition_wells: dict[str, list[str]] | None = None
    interval_minutes: float = 30.0
    start_hpi: float = 0.0
    organelle: str = ""
    date: str = ""
    moi: float = 0.0
    normalization_path: str = ""
    default_condition: str = ""

    def condition_of_well(self) -> dict[str, str]:
        """Return the condition of each well that ``condition_wells`` names."""
        return {
            canonical_fov_name(well): condition
            for condition, wells in (self.condition_wells or {}).items()
            for well in wells
        }
