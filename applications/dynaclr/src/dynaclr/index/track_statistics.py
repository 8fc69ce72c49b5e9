"""How long tracks are, where frames are missing in them, and how often they divide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from dynaclr.index import MultiExperimentIndex

__all__ = ["track_statistics"]


def track_statistics(index: MultiExperimentIndex) -> pd.DataFrame:
    """Describe the tracks of every experiment.

    Returns
    -------
    DataFrame
        By experiment: ``tracks`` (count), ``frames`` (median number of observations of a track), ``with_gaps`` (tracks
        that miss a frame between their first and last), ``missing`` (such frames), ``divisions`` (tracks with at least
        two daughters).
    """
    import pandas as pd

    tracks = pd.DataFrame({"track": index.track_index, "t": index.tracks["t"].to_numpy()})
    table = tracks.groupby("track")["t"].agg(["size", "min", "max"])
    table["missing"] = table["max"] - table["min"] + 1 - table["size"]
    parents = index.forest.parent[index.forest.parent >= 0]
    table["divides"] = np.bincount(parents, minlength=len(index.forest))[table.index] > 1
    table["experiment"] = index.track_experiments[table.index]
    return table.groupby("experiment", sort=False).agg(
        tracks=("size", "size"),
        frames=("size", "median"),
        with_gaps=("missing", lambda missing: int((missing > 0).sum())),
        missing=("missing", "sum"),
        divisions=("divides", "sum"),
    )
