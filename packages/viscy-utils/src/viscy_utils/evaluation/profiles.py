"""Whether wells of one condition find each other across experiments: mean average precision of profiles.

Kalinin et al., Nature Communications 16 (2025), by `copairs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from viscy_data.optional import require
from viscy_utils.evaluation.retrieval import chance_of_precision
from viscy_utils.evaluation.scores import Score

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["aggregate_profiles", "profile_average_precision", "profile_score"]


def aggregate_profiles(features: np.ndarray, obs: pd.DataFrame, by: Sequence[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """Average the features of the cells of each group.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
    obs : DataFrame
        N rows.
    by : sequence of str
        Columns that name a group, such as ``["experiment", "well_name", "condition"]``.

    Returns
    -------
    groups : DataFrame
        G rows with the columns ``by``, as text, and ``n_cells``; sorted.
    profiles : ndarray of float64, shape (G, F)
    """
    names = obs[list(by)].astype(str).reset_index(drop=True)
    codes = names.groupby(list(by)).ngroup().to_numpy()
    counts = np.bincount(codes)
    sums = np.zeros((len(counts), np.shape(features)[1]))
    np.add.at(sums, codes, np.asarray(features, dtype=np.float64))
    first = np.unique(codes, return_index=True)[1]
    return names.iloc[first].assign(n_cells=counts).reset_index(drop=True), sums / counts[:, None]


def profile_average_precision(
    features: np.ndarray,
    obs: pd.DataFrame,
    *,
    label: str = "condition",
    batch: str = "experiment",
    unit: str = "fov_name",
    null_size: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score how well profiles of a label are nearer to each other than to other labels of their batch.

    Needs the extra ``profiles``. Costs grow with the square of the number of profiles, not with that of cells.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
        Averaged over the cells of each (batch, unit, label), and centred over all profiles; compared by cosine.
    obs : DataFrame
        N rows with the three columns.
    label, batch, unit : str
        By default conditions of FOVs across experiments. Positives are profiles of the label of other batches (with a
        single batch: of other units); negatives are of other labels of the same batch.
    null_size : int, default 1000
        Random orders from which p is estimated.
    seed : int, default 0

    Returns
    -------
    DataFrame
        Index ``label``: ``n_profiles``, ``mean_average_precision``, ``chance`` (that of a random order), ``p_value``
        and ``corrected_p_value`` (Benjamini and Hochberg). Labels without positives or negatives are left out.

    Raises
    ------
    ValueError
        If no profile has both a positive and a negative.
    """
    copairs = require("copairs.map", extra="profiles", package="viscy-utils")
    groups, profiles = aggregate_profiles(features, obs, [batch, unit, label])
    profiles = profiles - profiles.mean(axis=0)
    other = batch if groups[batch].nunique() > 1 else unit
    relation = {"pos_sameby": [label], "pos_diffby": [other], "neg_sameby": [batch], "neg_diffby": [label]}
    _check_pairs(groups, label, batch, other)
    found = copairs.average_precision(groups, profiles, **relation, progress_bar=False)
    found = found[found["average_precision"].notna()].reset_index(drop=True)
    table = copairs.mean_average_precision(
        found, [label], null_size=null_size, threshold=0.05, seed=seed, progress_bar=False, max_workers=1
    )
    counts = (found[name].to_numpy(float) for name in ("n_pos_pairs", "n_total_pairs"))
    by_label = found.assign(chance=chance_of_precision(*counts)).groupby(label)
    table = table.set_index(label).assign(n_profiles=by_label.size(), chance=by_label["chance"].mean())
    return table[["n_profiles", "mean_average_precision", "chance", "p_value", "corrected_p_value"]].sort_index()


def profile_score(features: np.ndarray, obs: pd.DataFrame, label: str, *, seed: int = 0) -> Score:
    """Average :func:`profile_average_precision` of FOVs over labels.

    Returns
    -------
    Score
        Without an interval; the note has p of each label. Missing where labels or the extra ``profiles`` do not
        allow it.
    """
    try:
        table = profile_average_precision(features, obs, label=label, seed=seed)
    except (ValueError, ImportError) as err:
        return Score.missing(str(err))
    p = ", ".join(f"p {value:.2g} of {name}" for name, value in table["corrected_p_value"].items())
    means = table[["mean_average_precision", "chance"]].mean()
    return Score(means.iloc[0], np.nan, np.nan, means.iloc[1], f"{p}; {table['n_profiles'].sum()} profiles", len(obs))


def _check_pairs(groups: pd.DataFrame, label: str, batch: str, other: str) -> None:
    has_positive = groups.groupby(label)[other].transform("nunique") > 1
    has_negative = groups.groupby(batch)[label].transform("nunique") > 1
    if not (has_positive & has_negative).any():
        raise ValueError(
            f"no profile has both one of its {label!r} in another {other!r} and one of another {label!r} in its "
            f"{batch!r}"
        )
