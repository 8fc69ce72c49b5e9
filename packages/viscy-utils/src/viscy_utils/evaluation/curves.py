"""How figures of an embedding go with time, and with the number of labels: curves, each with chance or an interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viscy_utils.evaluation.annotation_efficiency import annotation_efficiency
from viscy_utils.evaluation.distance import mean_squared_displacement
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.folds import label_folds
from viscy_utils.evaluation.measures import Judged

__all__ = ["CURVES", "N_LINEAGES", "Curve", "CurveKind", "all_curves", "curve_records"]

_MOST_LAGS = 50
_MOST_PROBED = 5_000
N_LINEAGES = (2, 5, 10, 20, 50, 100)
"""Labelled lineages per class, of the curve of annotation efficiency."""


@dataclass(frozen=True)
class Curve:
    """A figure along an axis.

    Attributes
    ----------
    measure : str
        Name of one of :data:`CURVES`.
    part : str
        What of the embedding it is of; empty for all of it.
    x, value, low, high, chance : tuple of float, each of length K
        NaN where there is none.
    """

    measure: str
    part: str
    x: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    chance: tuple[float, ...]


@dataclass(frozen=True)
class CurveKind:
    """What a curve is of.

    Attributes
    ----------
    name : str
    title : str
        ``{label}`` stands for the column that is asked for.
    x : str
        What the axis is.
    compute : callable
        From judged cells to curves.

    Raises
    ------
        ValueError
            Why there is none.
    """

    name: str
    title: str
    x: str
    compute: Callable[[Judged], list[Curve]]


def _curve(measure: str, x: Any, value: Any, chance: Any, spread: Any = np.nan, part: str = "") -> Curve:
    value = np.asarray(value, dtype=float)
    columns = [np.broadcast_to(each, value.shape) for each in (x, value, value - spread, value + spread, chance)]
    return Curve(measure, part, *(tuple(map(float, each)) for each in columns))


def _by_time(name: str, chance: float) -> Callable[[Judged], list[Curve]]:
    def compute(judged: Judged) -> list[Curve]:
        table = judged.smoothness_by_time.dropna()
        if table.empty:
            raise ValueError("no frame has two tracks that go on")
        return [_curve(name, table.index, table[name], chance)]

    return compute


def _displacement(judged: Judged) -> list[Curve]:
    features, tracks, t = judged.moving
    longest = int(np.ptp(t))
    table = mean_squared_displacement(features, tracks, t, min(_MOST_LAGS, longest) or None).dropna()
    if table.empty:
        raise ValueError("no track has two frames")
    return [_curve("displacement", table.index, table["relative"], 1.0)]


def _discrepancy(judged: Judged) -> list[Curve]:
    if judged.conditions.empty:
        raise ValueError(judged.discrepancy.note)
    names = sorted(set(judged.labels))
    curves = []
    for (experiment, label), own in judged.conditions.groupby(["experiment", "label"]):
        others = names[1] if len(names) == 2 else "the others"
        part = f"{experiment}, {label} against {others}"
        curves.append(_curve("mmd", own["t"], own["mmd2"], own["null_95"], part=part))
    return curves


def _efficiency(judged: Judged) -> list[Curve]:
    if judged.cells.refit is not None:
        raise ValueError("corrections are learnt on the training cells of each probe, which these are not")
    cells = judged.cells.sample(_MOST_PROBED, judged.seed)
    labels = cells.obs[judged.label].to_numpy(dtype=object).astype(str)
    if judged.test_experiments:
        test = cells.obs["experiment"].isin(judged.test_experiments).to_numpy()
    else:
        test = _third(labels, cells, judged.seed)
    table = annotation_efficiency(
        cells.features, labels, cells.lineages, test, n_lineages=N_LINEAGES, n_draws=3, seed=judged.seed
    ).dropna()
    if table.empty:
        raise ValueError("no two labels among the cells to score")
    spread = table["balanced_accuracy_std"]
    return [_curve("annotation_efficiency", table.index, table["balanced_accuracy"], table["chance"], spread)]


def _third(labels: np.ndarray, cells: Embedded, seed: int) -> np.ndarray:
    """Choose about a third of the cells, with its share of each label: FOVs, or lineages where there are few FOVs."""
    folds = label_folds(labels, cells.fovs, cells.obs["experiment"].to_numpy().astype(str), most=3)
    if folds.number < 2:
        folds = label_folds(labels, cells.lineages, most=3)
    if folds.number < 2:
        raise ValueError("a label in a single FOV and a single lineage")
    test = np.zeros(len(labels), bool)
    test[next(folds.split(seed))[1]] = True
    return test


CURVES = (
    CurveKind(
        "annotation_efficiency",
        "balanced accuracy of a probe of {label}<br>by labelled lineages",
        "lineages per class",
        _efficiency,
    ),
    CurveKind("mmd", "{label} apart: MMD squared<br>chance: 95 % of permutations", "frame", _discrepancy),
    CurveKind("displacement", "mean squared displacement<br>1: unrelated cells", "frames apart", _displacement),
    CurveKind("smoothness", "smoothness<br>1: no memory", "frame", _by_time("smoothness", 1.0)),
    CurveKind("dynamic_range", "dynamic range<br>0: no memory", "frame", _by_time("dynamic_range", 0.0)),
)
"""In the order of pictures."""


def all_curves(judged: Judged) -> tuple[tuple[Curve, ...], tuple[str, ...]]:
    """Compute every curve that the columns at hand allow.

    Returns
    -------
    curves : tuple of Curve
    notes : tuple of str
        Which are missing, and why.
    """
    curves: list[Curve] = []
    notes = []
    for kind in CURVES:
        try:
            curves += kind.compute(judged)
        except ValueError as err:
            notes.append(f"no curve of {kind.name.replace('_', ' ')}: {err}")
    return tuple(curves), tuple(notes)


def curve_records(curves: Mapping[str, Sequence[Curve]]) -> Iterator[dict[str, Any]]:
    """Yield a flat record per point of the curves of several embeddings, for CSV."""
    for name, own in curves.items():
        for curve in own:
            for point in zip(curve.x, curve.value, curve.low, curve.high, curve.chance, strict=True):
                yield {"name": name, "measure": curve.measure, "part": curve.part} | dict(
                    zip(("x", "value", "low", "high", "chance"), point, strict=True)
                )
