"""Stores of embeddings that commands read, add to and write."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from viscy_data.errors import InputError
from viscy_data.files import refuse_existing, replacing
from viscy_utils.embeddings.store import write_anndata

if TYPE_CHECKING:
    import anndata as ad

__all__ = ["refuse_replacing", "say", "write_store"]


def refuse_replacing(
    adata: ad.AnnData, path: str | Path, output: str | Path | None, *, obs: Iterable[str] = (), obsm: Iterable[str] = ()
) -> None:
    """Refuse to replace columns or arrays of a store, or another store; call it unless overwriting is asked for.

    Raises
    ------
    InputError, FileExistsError
    """
    if output is not None:
        refuse_existing(Path(output), False, remedy="choose another output_path, or set overwrite: true")
    for field, there, names in (("obs", adata.obs, obs), ("obsm", adata.obsm, obsm)):
        found = [name for name in names if name in there]
        if found:
            fix = "set overwrite: true (overwrite_keys: true of reductions) to replace them"
            raise InputError(str(path), field=field, found=f"{', '.join(found)} of before", fix=fix)


def write_store(adata: ad.AnnData, path: str | Path, output: str | Path | None, overwrite: bool = False) -> Path:
    """Write a store whole, to its old place unless another one is named, which may be replaced only if it is said.

    Raises
    ------
    FileExistsError
    """
    place = Path(output or path)
    with replacing(place, overwrite=overwrite or output is None) as temporary:
        write_anndata(adata, temporary)
    return place


def say(*lines: str) -> None:
    """Print lines as they are."""
    console = Console(soft_wrap=True)
    for line in lines:
        console.print(line, markup=False, highlight=False)
