"""Annotated embeddings of several stores, put together for training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.cell_matching import match_cells
from viscy_data.errors import InputError
from viscy_data.stores import canonical_fov_name
from viscy_utils.embeddings.reading import read_embeddings
from viscy_utils.embeddings.store import import_anndata
from viscy_utils.evaluation.embedded import canonical_fovs
from viscy_utils.evaluation.labels import is_missing, is_unknown, read_label_table

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd

__all__ = ["load_and_combine_datasets"]

_logger = logging.getLogger(__name__)


def load_and_combine_datasets(datasets: Sequence[Mapping[str, Any]], task: str) -> ad.AnnData:
    """Read embeddings with their annotations, and keep the cells that have a label.

    Parameters
    ----------
    datasets : sequence of mapping
        ``embeddings``, an AnnData store; ``annotations``, a CSV with the column ``task`` and those that identify cells:
        ``experiment`` (if both have it), ``fov_name``, ``track_id``, ``t``, or ``fov_name`` and ``id``; optionally
        ``include_wells``, such as ``[A/1]``.
    task : str
        The annotation. Tables that lack it are left out, with a warning; so are cells without a label or with the
        label "unknown", and rows that name no cell, counted in the log.

    Returns
    -------
    AnnData
        ``obs`` with ``task`` and ``dataset``, the path of the store.

    Raises
    ------
    InputError
        If no cell is left.
    ValueError
        If a cell is annotated twice, or stores differ in their number of features.
    """
    parts = [part for dataset in datasets if (part := _load(dataset, task)) is not None]
    if not sum(len(part) for part in parts):
        raise InputError(
            ", ".join(str(dataset["annotations"]) for dataset in datasets),
            field=task,
            found="no label of any cell of the embeddings",
            expected=f"a column {task!r}, and cells that are in the embeddings and in include_wells",
            fix="correct task or include_wells, or compare the names of FOVs and tracks",
        )
    widths = {part.obs["dataset"].iloc[0]: part.n_vars for part in parts if len(part)}
    if len(set(widths.values())) > 1:
        found = ", ".join(f"{store}: {width}" for store, width in widths.items())
        raise ValueError(f"embeddings of different numbers of features are not of one encoder: {found}")
    return import_anndata().concat(parts, join="outer", index_unique="-", keys=[str(n) for n in range(len(parts))])


def _load(dataset: Mapping[str, Any], task: str) -> ad.AnnData | None:
    store, source = str(dataset["embeddings"]), Path(dataset["annotations"])
    table = read_label_table(source)
    if task not in table:
        _logger.warning("%s is left out: no column %r among %s", source, task, ", ".join(table.columns))
        return None
    adata = read_embeddings(store)
    fovs = canonical_fovs(adata.obs["fov_name"])
    wells = dataset.get("include_wells")
    if wells is not None:
        prefixes = tuple(f"{canonical_fov_name(well)}/" for well in wells)
        adata = adata[fovs.str.startswith(prefixes).to_numpy()]
    labels = _match(adata.obs, table, task, str(source))
    kept = ~(is_missing(labels) | is_unknown(labels))
    _logger.info("%s: %d of %d cells have a label of %s", store, kept.sum(), len(kept), task)
    part = adata[kept].copy()
    part.obs = part.obs.assign(**{task: labels[kept].astype(str), "dataset": store})
    return part


def _match(obs: pd.DataFrame, table: pd.DataFrame, task: str, source: str) -> np.ndarray:
    """Return the label of each row of ``obs``, NaN where the table has none."""
    match = match_cells(obs, table, source=source)
    if match.note:
        _logger.warning(match.note)
    return table[task].reindex(match.rows).to_numpy(dtype=object)
