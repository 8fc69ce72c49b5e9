"""What a prediction has written so far: parts per rank, the manifest they belong to, and their merging.

``<output>.parts/manifest.json`` says what was predicted with what; ``rank<k>/<first>-<last>`` are complete parts with
the rows ``first`` to ``last`` (excluded) of that rank, see :mod:`viscy_utils.embeddings.part_files`. Nothing else
counts as written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from viscy_data.errors import InputError
from viscy_data.files import replacing
from viscy_utils.embeddings.kind import part_folders, parts_path_of
from viscy_utils.embeddings.part_files import Part, Rows
from viscy_utils.embeddings.part_merging import merge_parts

__all__ = ["PredictionParts"]


class PredictionParts:
    """The parts of one output.

    Parameters
    ----------
    output_path : Path
        Where the merged store will be.
    rank : int, default 0
        Whose parts are written.
    """

    def __init__(self, output_path: Path, rank: int = 0) -> None:
        self.output_path = Path(output_path)
        self.path = parts_path_of(output_path)
        self._own = self.path / f"rank{rank}"

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Compare with what the parts of an earlier run belong to.

        Raises
        ------
        InputError
            If they belong to another model, other data or another number of ranks, or if nobody knows the data.
        """
        if not (self.path / "manifest.json").exists() and not part_folders(self.path):
            return  # killed before there was anything
        if manifest.get("data") is None:
            raise InputError(
                str(self.path),
                field="data",
                found="parts of an interrupted prediction, and a data module that does not say what its data are",
                expected="a data module with data_record",
                fix="start over with overwrite: true",
            )
        found = self._read_manifest()
        different = [key for key in {**manifest, **found} if found.get(key) != manifest.get(key)]
        if different:
            raise InputError(
                str(self.path),
                field=", ".join(different),
                found="; ".join(f"{key}: {found.get(key)!r}" for key in different),
                expected="; ".join(f"{key}: {manifest.get(key)!r}" for key in different),
                fix="repeat the interrupted prediction as it was, or start over with overwrite: true",
            )

    def _read_manifest(self) -> dict[str, Any]:
        try:
            return json.loads((self.path / "manifest.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def create(self, manifest: Mapping[str, Any]) -> None:
        """Make the folder, or keep the one there is."""
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self.path / "manifest.json", overwrite=True) as temporary:
            temporary.write_text(json.dumps(dict(manifest), indent=1))

    def remove(self) -> None:
        """Delete all parts; where this is interrupted, nothing is left that looks like whole ones."""
        gone = self.path.with_name(f".{self.path.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)  # of a removal that was interrupted
        with suppress(OSError):
            self.path.rename(gone)
        for folder in (gone, self.path):
            shutil.rmtree(folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Delete the folder of a run that has written no row of any rank."""
        if not any(self.path.glob("rank*")):
            self.remove()

    def n_rows(self) -> int:
        """Count the rows this rank has written; parts after a gap do not count and are deleted."""
        done = 0
        for part in map(Part, part_folders(self.path)):
            if part.folder.parent != self._own:
                continue
            if part.first != done:
                shutil.rmtree(part.folder)
                continue
            done = part.last
        return done

    def write(self, rows: Rows, first: int) -> None:
        """Write rows ``first`` to ``first + len(rows)`` of this rank as one part."""
        Part.write(self._own, rows, first)

    def merge(
        self,
        overwrite: bool = False,
        uns: Mapping[str, Any] | None = None,
        feature_names: Sequence[str] | None = None,
    ) -> int:
        """Merge the parts of all ranks into the output, in the order of the dataset, and delete them.

        Rows are copied in blocks, see :mod:`viscy_utils.embeddings.part_merging`.

        Parameters
        ----------
        overwrite : bool, default False
            Replace an existing output.
        uns : mapping, optional
            What the output holds beside its rows.
        feature_names : sequence of str, optional
            Different ones; features are numbered by default.

        Returns
        -------
        int
            Number of rows.

        Raises
        ------
        InputError
            If there is no part.
        FileExistsError
            If there is an output and ``overwrite`` is False; the parts stay.
        """
        parts = part_folders(self.path)
        if not parts:
            raise InputError(str(self.path), found="no rows", fix="check what the prediction runs over")
        with replacing(self.output_path, overwrite) as temporary:
            n_rows = merge_parts(parts, temporary, uns or {}, feature_names)
        self.remove()
        return n_rows
