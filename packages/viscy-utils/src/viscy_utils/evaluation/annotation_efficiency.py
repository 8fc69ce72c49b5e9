"""How many labelled lineages a linear probe needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from viscy_utils.evaluation.labels import is_missing
from viscy_utils.evaluation.probe import probe_scores

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["annotation_efficiency"]


def annotation_efficiency(
    features: np.ndarray,
    labels: np.ndarray,
    lineages: np.ndarray,
    test: np.ndarray,
    *,
    n_lineages: Sequence[int] = (2, 5, 10, 20, 50, 100),
    n_draws: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a linear probe on the same cells for growing numbers of labelled lineages.

    Costs ``len(n_lineages) * n_draws`` small trainings, some seconds.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
    labels : ndarray, shape (N,)
        Cells without one are left out.
    lineages : ndarray, shape (N,)
        Of one on both sides of ``test`` an error is raised.
    test : ndarray of bool, shape (N,)
        Cells to score: those of whole experiments or FOVs. The others may train.
    n_lineages : sequence of int, default (2, 5, 10, 20, 50, 100)
        Per class, as far as there are as many; drawn at random, and each draw contains the smaller ones. A lineage
        counts to its most frequent class.
    n_draws : int, default 5
    seed : int, default 0

    Returns
    -------
    DataFrame
        Index ``n_lineages`` per class; means over draws of ``n_cells`` labelled, ``balanced_accuracy``, ``macro_f1``
        and ``auroc``; ``balanced_accuracy_std`` over draws; ``chance`` of the balanced accuracy.

    Raises
    ------
    ValueError
        If there are not two classes to train on, or a lineage is on both sides.
    """
    import pandas as pd

    kept = ~is_missing(labels)
    features, lineages, test = np.asarray(features)[kept], np.asarray(lineages)[kept], np.asarray(test, bool)[kept]
    classes, codes = np.unique(np.asarray(labels, dtype=object)[kept].astype(str), return_inverse=True)
    pools = _lineages_by_class(lineages[~test], codes[~test])
    if len(pools) < 2:
        raise ValueError("annotation efficiency needs lineages of two classes to train on")
    rng = np.random.default_rng(seed)
    orders = [[rng.permutation(pool) for pool in pools] for _ in range(n_draws)]
    rows = []
    for number in sorted(n_lineages):
        if number > max(map(len, pools)):
            break
        for order in orders:
            chosen = np.concatenate([names[:number] for names in order])
            used = test | np.isin(lineages, chosen)
            scores = probe_scores(
                features[used], classes[codes[used]], lineages[used], lineages[used], test=test[used], seed=seed
            )
            named = {name: score.value for name, score in vars(scores).items()}
            chance = scores.balanced_accuracy.chance
            rows.append({"n_lineages": number, "n_cells": int((used & ~test).sum()), **named, "chance": chance})
    groups = pd.DataFrame(rows).groupby("n_lineages")
    return groups.mean().assign(balanced_accuracy_std=groups["balanced_accuracy"].std(ddof=0))


def _lineages_by_class(lineages: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
    """Return the lineages whose most frequent class it is, for each class that has any."""
    names, numbers = np.unique(lineages, return_inverse=True)
    counts = np.zeros((len(names), codes.max(initial=0) + 1))
    np.add.at(counts, (numbers, codes), 1)
    most = counts.argmax(axis=1)
    return [names[most == each] for each in np.unique(most)]
