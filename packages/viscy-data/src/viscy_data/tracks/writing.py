"""Write a tracking table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from viscy_data.files import replacing
from viscy_data.tracks.dialect import REQUIRED

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_tracks"]


def write_tracks(table: pd.DataFrame, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a tracking table as :func:`read_tracks` reads it.

    Parameters
    ----------
    table : pandas.DataFrame
        With at least ``track_id, t, y, x``. Known columns are written first, in the order of ``INDEX_COLUMNS``.
    path : str or Path
        Folders are made; the file appears in one step.
    overwrite : bool, default False
        Whether a file at ``path`` is replaced.

    Raises
    ------
    FileExistsError
        If there is a file and ``overwrite`` is False.
    ValueError
        If a required column is missing.
    """
    from viscy_data.typing import INDEX_COLUMNS  # imports torch, which reading does not need

    path = Path(path)
    if missing := [name for name in REQUIRED if name not in table.columns]:
        raise ValueError(f"tracking table lacks {', '.join(missing)}; found {', '.join(map(str, table.columns))}")
    known = [name for name in INDEX_COLUMNS if name in table.columns]
    others = [name for name in table.columns if name not in known]
    with replacing(
        path, overwrite, remedy="choose another place, or pass overwrite (--overwrite) to replace it"
    ) as temporary:
        table[known + others].to_csv(temporary, index=False)
