"""The description of one experiment, as written in a YAML file."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ExperimentConfig"]


@dataclass
class ExperimentConfig:
    """One acquisition: where it is, what its channels and wells mean, and its clock.

    Parameters
    ----------
    name : str
        Name of the experiment, unique among those trained together.
    data_path : str
        HCS OME-Zarr store: a path or URL.
    tracks_path : str
        Folder with one tracking table per FOV, ``<row>/<column>/<fov>/*.csv``.
    channel_names : list of str
        All channels of the store, in its order.
    source_channel : list of str
        The channels that are used; their positions correspond across experiments.
    condition_wells : dict of str to list of str
        Wells (``"A/1"``) of each condition.
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
    """

    name: str
    data_path: str
    tracks_path: str
    channel_names: list[str]
    source_channel: list[str]
    condition_wells: dict[str, list[str]]
    interval_minutes: float = 30.0
    start_hpi: float = 0.0
    organelle: str = ""
    date: str = ""
    moi: float = 0.0
    normalization_path: str = ""
