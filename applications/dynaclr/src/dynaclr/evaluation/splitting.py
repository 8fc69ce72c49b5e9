"""Embeddings of several experiments as one store each."""

from __future__ import annotations

import re
from pathlib import Path

from dynaclr.evaluation.stores import say, write_store
from viscy_data.errors import InputError
from viscy_data.files import refuse_existing
from viscy_utils.embeddings.reading import read_embeddings

__all__ = ["split_embeddings"]


def split_embeddings(input_path: Path, output_dir: Path, overwrite: bool = False) -> list[Path]:
    """Write the embeddings of each experiment to a store of its own, ``<output_dir>/<experiment>.zarr``.

    Parameters
    ----------
    input_path : Path
        Store of embeddings with the column ``experiment``.
    output_dir : Path
        Made when missing.
    overwrite : bool, default False
        Replace stores that are there.

    Returns
    -------
    list of Path
        In the order of the names.

    Raises
    ------
    InputError
        Without the column, or where two experiments would have files of one name.
    FileExistsError
        If a store is there and may not be replaced; none is written then.
    """
    adata = read_embeddings(input_path)
    if "experiment" not in adata.obs:
        raise InputError(str(input_path), field="obs", found="no column experiment", fix="nothing is to be split")
    experiments = adata.obs["experiment"].astype(str)
    names = sorted(experiments.unique())
    targets = {name: output_dir / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.zarr" for name in names}
    if len({str(path).lower() for path in targets.values()}) < len(names):
        found = f"experiments that differ only in signs that no file may have: {', '.join(names)}"
        raise InputError(str(input_path), field="obs.experiment", found=found, fix="rename them")
    for path in targets.values():
        refuse_existing(path, overwrite, remedy="choose another folder, or replace it with --overwrite")
    for name, path in targets.items():
        part = adata[(experiments == name).to_numpy()].copy()
        write_store(part, input_path, path, overwrite)
        say(f"wrote {path}: {part.n_obs} cells.")
    say(f"next: dynaclr evaluate --embeddings {targets[names[0]]} --output-dir report")
    return list(targets.values())
