"""What training and validation of a classifier share: labelled cells, groups that stay whole, a solver that fits."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.labels import is_missing, is_unknown

if TYPE_CHECKING:
    import anndata as ad

__all__ = ["LabelledCells", "choose_groups", "fewest_groups", "labelled_cells", "solver_that_fits"]


@dataclass(frozen=True)
class LabelledCells:
    """Cells that have a label.

    Attributes
    ----------
    features : ndarray of float64, shape (N, F)
    labels : ndarray of str, shape (N,)
    experiments, fovs, lineages : ndarray of int64, shape (N,)
        Unique across stores.
    groups : ndarray, shape (N,), optional
        What was asked to be kept together.
    """

    features: np.ndarray
    labels: np.ndarray
    experiments: np.ndarray
    fovs: np.ndarray
    lineages: np.ndarray
    groups: np.ndarray | None


def labelled_cells(adata: ad.AnnData, task: str, groups: np.ndarray | None = None) -> LabelledCells:
    """Take the cells of embeddings that have a label other than "unknown".

    Parameters
    ----------
    adata : AnnData
        ``fov_name``, ``track_id`` and ``task`` in ``obs``, perhaps ``experiment``, ``dataset`` and ``lineage_id``.
    task : str
    groups : ndarray, shape (N,), optional
        Per row of ``adata``.
    """
    kept = ~(is_missing(adata.obs[task]) | is_unknown(adata.obs[task]))
    obs = adata.obs[kept].reset_index(drop=True)
    if "experiment" not in obs:
        obs["experiment"] = "all"
    if "dataset" in obs:  # FOVs of equal name in two stores are two
        obs["experiment"] = obs["dataset"].astype(str) + "/" + obs["experiment"].astype(str)
    cells = Embedded("", np.asarray(adata.X, dtype=np.float64)[kept], obs)
    own = None if groups is None else np.unique(np.asarray(groups)[kept], return_inverse=True)[1]
    labels = np.asarray(obs[task], dtype=object).astype(str)
    experiments = np.unique(obs["experiment"].astype(str), return_inverse=True)[1]
    return LabelledCells(cells.features, labels, experiments, cells.fovs, cells.lineages, own)


def choose_groups(cells: LabelledCells) -> tuple[str, np.ndarray]:
    """Choose what is divided: the largest unit of which every class has two."""
    own = [("groups", cells.groups)] if cells.groups is not None else []
    for name, groups in own or [("FOV", cells.fovs), ("lineage", cells.lineages)]:
        if fewest_groups(groups, cells.labels) >= 2:
            return name, groups
    raise ValueError(
        "a class lives in a single lineage or group: there is nothing to validate on (split_train_data: 1)"
    )


def fewest_groups(groups: np.ndarray, labels: np.ndarray) -> int:
    """Count the groups of the class that has the fewest."""
    return min(len(np.unique(groups[labels == label])) for label in np.unique(labels))


def solver_that_fits(params: dict[str, Any], n_classes: int) -> dict[str, Any]:
    """Replace a solver that tells only two classes apart, with a warning, where there are more."""
    if params.get("solver") != "liblinear" or n_classes == 2:
        return params
    warnings.warn(f"liblinear tells two classes apart, and there are {n_classes}: lbfgs is used instead", stacklevel=3)
    return params | {"solver": "lbfgs"}
