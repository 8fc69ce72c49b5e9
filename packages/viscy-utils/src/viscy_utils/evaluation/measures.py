"""The measures of a report by name: what each needs, which way is better, and how it is had from embedded cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from viscy_utils.evaluation.clusters import ClusterScores, cluster_scores
from viscy_utils.evaluation.corrected_folds import probe_cells, separability_of_cells
from viscy_utils.evaluation.divisions import DivisionScores, division_detection
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.mixing import batch_silhouette, kbet, label_silhouette, lisi
from viscy_utils.evaluation.mmd_by_time import mmd_by_time
from viscy_utils.evaluation.onsets import onset_error
from viscy_utils.evaluation.origins import patch_side
from viscy_utils.evaluation.probe import probe_scores
from viscy_utils.evaluation.profiles import profile_score
from viscy_utils.evaluation.purity import knn_purity
from viscy_utils.evaluation.retrieval import CellPlaces, Retrieval, lineage_retrieval
from viscy_utils.evaluation.scores import ProbeScores, Score
from viscy_utils.evaluation.smoothness import smoothness_by_time

if TYPE_CHECKING:
    import pandas as pd

_MOST_RETRIEVED, _MOST_MOVING = 100_000, 20_000
_ALPHA = 0.05
_HOURS = "hours_post_infection"

__all__ = ["MEASURES", "Judged", "Measure", "all_measures"]


@dataclass(frozen=True)
class Judged:
    """Cells with the label that is asked for; what several measures share is computed once.

    Attributes
    ----------
    everything : Embedded
        All labelled cells.
    cells : Embedded
        Those of them that measures of quadratic cost look at.
    label : str
        Column of ``obs``.
    test_experiments : tuple of str
        The probe is scored on these; on folds over FOVs when empty.
    seed : int
        Of every draw.
    """

    everything: Embedded
    cells: Embedded
    label: str
    test_experiments: tuple[str, ...] = ()
    seed: int = 0

    @cached_property
    def experiments(self) -> np.ndarray:
        """Experiment per judged cell."""
        return self.cells.obs["experiment"].to_numpy().astype(str)

    @cached_property
    def probe(self) -> ProbeScores:
        """The label by a linear probe."""
        test = np.isin(self.experiments, self.test_experiments) if self.test_experiments else None
        return probe_cells(self.cells, self.cells.obs[self.label].to_numpy(), test, self.seed)

    @cached_property
    def experiment_from_neighbors(self) -> ProbeScores:
        """The experiment by the vote of neighbours."""
        return separability_of_cells(self.cells, self.seed)

    @cached_property
    def experiment_from_probe(self) -> ProbeScores:
        """The experiment by a linear probe."""
        return separability_of_cells(self.cells, self.seed, probe_scores)

    @cached_property
    def labels(self) -> np.ndarray:
        """Label per judged cell, as text."""
        return self.cells.obs[self.label].to_numpy(dtype=object).astype(str)

    @property
    def batches(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, experiments and lineages of the judged cells."""
        return self.cells.features, self.experiments, self.cells.lineages

    @cached_property
    def retrieval(self) -> Retrieval:
        """Lineages found among all cells; crops overlap where positions and the size of crops are known."""
        every = self.everything.sample(_MOST_RETRIEVED, self.seed)
        known = {"y", "x"} <= set(every.obs)
        places = CellPlaces(
            every.fovs,
            every.tracks,
            every.obs["t"].to_numpy().astype(np.int64),
            every.obs[["y", "x"]].to_numpy(dtype=float) if known else None,
            patch_side(every) if known else None,
        )
        return lineage_retrieval(every.features, every.lineages, places, seed=self.seed)

    @cached_property
    def clusters(self) -> ClusterScores:
        """Clusters found without labels, against labels and experiments."""
        return cluster_scores(self.cells.features, self.labels, self.experiments, self.cells.lineages, seed=self.seed)

    @cached_property
    def conditions(self) -> pd.DataFrame:
        """Discrepancy of labels by experiment and frame (`viscy_utils.evaluation.mmd_by_time`)."""
        every = self.everything
        columns = (every.obs[name].to_numpy(dtype=object).astype(str) for name in (self.label, "experiment"))
        t = every.obs["t"].to_numpy().astype(np.int64)
        return mmd_by_time(every.features, *columns, every.lineages, t, seed=self.seed)

    @property
    def discrepancy(self) -> Score:
        """Mean of :attr:`conditions`."""
        table = self.conditions
        if table.empty:
            return Score.missing("no frame of an experiment has 5 lineages of two labels")
        told = f"q < {_ALPHA} in {(table['q'] < _ALPHA).sum()} of {len(table)} frames"
        return Score(float(table["mmd2"].mean()), np.nan, np.nan, 0.0, told, int(table["n_cells"].sum()))

    @property
    def onset(self) -> Score:
        """Error of the time at which tracks change their label, where they do."""
        every = self.everything
        unit = _HOURS if _HOURS in every.obs and np.isfinite(every.obs[_HOURS].to_numpy(float)).all() else "t"
        labels = every.obs[self.label].to_numpy(dtype=object).astype(str)
        test = every.obs["experiment"].isin(self.test_experiments).to_numpy() if self.test_experiments else None
        hours = every.obs[unit].to_numpy(dtype=float)
        found = onset_error(every.features, labels, every.tracks, every.lineages, hours, test, seed=self.seed)
        return (
            replace(found, note=f"in {'frames' if unit == 't' else 'hours'}, {found.note}") if found.n_cells else found
        )

    @cached_property
    def moving(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, tracks and frames of whole tracks."""
        cells = self.everything.whole_tracks(_MOST_MOVING)
        return cells.features, cells.tracks, cells.obs["t"].to_numpy().astype(np.int64)

    @cached_property
    def smoothness_by_time(self) -> pd.DataFrame:
        """Smoothness and dynamic range frame by frame."""
        return smoothness_by_time(*self.moving, seed=self.seed)

    @cached_property
    def divisions(self) -> DivisionScores:
        """Divisions told from matched controls, where the embeddings carry the parents of tracks."""
        every = self.everything
        if "parent_track_id" not in every.obs:
            missing = "no column parent_track_id"
            return DivisionScores(ProbeScores.missing(missing), Score.missing(missing))
        t = every.obs["t"].to_numpy().astype(np.int64)
        columns = (every.tracks, every.parents, t, every.fovs, every.lineages)
        return division_detection(every.features, *columns, seed=self.seed)


@dataclass(frozen=True)
class Measure:
    """A figure of a report.

    Attributes
    ----------
    name : str
        In JSON and CSV.
    title : str
        In tables; ``{label}`` stands for the column that is asked for.
    better : {"higher", "lower"}
    compute : callable
        From judged cells to a score, a missing one where the columns at hand do not allow it.
    is_main : bool, default False
        Shown on the terminal as well.
    """

    name: str
    title: str
    better: Literal["higher", "lower"]
    compute: Callable[[Judged], Score]
    is_main: bool = False


MEASURES = (
    Measure("probe_macro_f1", "probe of {label}\nmacro-F1", "higher", lambda judged: judged.probe.macro_f1),
    Measure(
        "probe_auroc",
        "probe of {label}\nAUROC, one class against the others",
        "higher",
        lambda judged: judged.probe.auroc,
        is_main=True,
    ),
    Measure(
        "experiment_probe",
        "experiment told by a linear probe\nbalanced accuracy",
        "lower",
        lambda judged: judged.experiment_from_probe.balanced_accuracy,
        is_main=True,
    ),
    Measure(
        "experiment_probe_auroc",
        "experiment told by a linear probe\nAUROC",
        "lower",
        lambda judged: judged.experiment_from_probe.auroc,
    ),
    Measure(
        "separability_auroc",
        "experiment told from neighbours\nAUROC",
        "lower",
        lambda judged: judged.experiment_from_neighbors.auroc,
    ),
    Measure(
        "ilisi", "experiments among neighbours\niLISI, 0 to 1", "higher", lambda judged: lisi(*judged.batches), True
    ),
    Measure("kbet", "experiments among neighbours\nkBET acceptance", "higher", lambda judged: kbet(*judged.batches)),
    Measure(
        "asw_batch",
        "silhouette of experiments within a {label}\n1 - |s|",
        "higher",
        lambda judged: batch_silhouette(
            judged.cells.features, judged.labels, judged.experiments, judged.cells.lineages, seed=judged.seed
        ),
    ),
    Measure(
        "asw_label",
        "silhouette of {label}\n(s + 1) / 2",
        "higher",
        lambda judged: label_silhouette(judged.cells.features, judged.labels, judged.cells.lineages, seed=judged.seed),
    ),
    Measure(
        "knn_purity",
        "{label} of 15 neighbours of other lineages\nshare equal",
        "higher",
        lambda judged: knn_purity(judged.cells.features, judged.labels, judged.cells.lineages, seed=judged.seed),
        is_main=True,
    ),
    Measure(
        "lineage_recall_at_1",
        "nearest cell is of the lineage\nrecall at 1",
        "higher",
        lambda judged: judged.retrieval.recall[1],
    ),
    Measure(
        "lineage_recall_at_10",
        "of the lineage among 10 nearest\nrecall at 10",
        "higher",
        lambda judged: judged.retrieval.recall[10],
    ),
    Measure(
        "lineage_map",
        "lineage retrieval\nmean average precision",
        "higher",
        lambda judged: judged.retrieval.mean_average_precision,
        is_main=True,
    ),
    Measure(
        "division_auroc",
        "last frames before divisions, against matched controls\nAUROC of a linear probe",
        "higher",
        lambda judged: judged.divisions.probe.auroc,
    ),
    Measure(
        "division_step_auroc",
        "step at divisions, against steps of matched controls\nAUROC",
        "higher",
        lambda judged: judged.divisions.step,
    ),
    Measure(
        "mmd",
        "{label} apart in single frames of an experiment\nMMD squared, mean",
        "higher",
        lambda judged: judged.discrepancy,
    ),
    Measure(
        "profile_map",
        "FOVs of a {label} find each other in other experiments\nmean average precision of profiles",
        "higher",
        lambda judged: profile_score(judged.everything.features, judged.everything.obs, judged.label, seed=judged.seed),
    ),
    Measure("cluster_silhouette", "clusters\nsilhouette", "higher", lambda judged: judged.clusters.silhouette),
    Measure("cluster_label_nmi", "clusters against {label}\nNMI", "higher", lambda judged: judged.clusters.label_nmi),
    Measure("cluster_label_ari", "clusters against {label}\nARI", "higher", lambda judged: judged.clusters.label_ari),
    Measure(
        "cluster_experiment_nmi",
        "clusters against experiments\nNMI",
        "lower",
        lambda judged: judged.clusters.experiment_nmi,
    ),
    Measure(
        "cluster_experiment_ari",
        "clusters against experiments\nARI",
        "lower",
        lambda judged: judged.clusters.experiment_ari,
    ),
    Measure(
        "onset_error",
        "onset of {label} told from other tracks\nmean error",
        "lower",
        lambda judged: judged.onset,
    ),
)
"""In the order of tables."""


def all_measures(judged: Judged) -> dict[str, Score]:
    """Compute every measure that the columns at hand allow; the others are missing scores that say why."""
    return {measure.name: measure.compute(judged) for measure in MEASURES}
