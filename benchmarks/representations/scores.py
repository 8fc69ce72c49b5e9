"""What an embedding knows of the truth, and what it knows of the experiment.

Probes are trained on the other experiments and scored on the one that the encoder has not seen.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from viscy_utils.evaluation.corrected_folds import probe_cells, separability_of_cells
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.probe import probe_scores
from viscy_utils.evaluation.pseudotime import build_template, dtw_align_tracks
from viscy_utils.evaluation.retrieval import CellPlaces, lineage_retrieval

_JUDGED = 2500
_PATCH_PX = 24
_INTERVAL_HOURS = 0.5


def score(cells: Embedded, held_out: str, seed: int) -> dict[str, float]:
    """Judge embedded cells by their truth.

    Parameters
    ----------
    cells : Embedded
        With ``infection_progress``, ``infection_time_hpi``, ``rounding`` and ``age`` in ``obs``.
    held_out : str
        Experiment that was not trained on.
    seed : int
        Of draws and folds.
    """
    infection, auc = _state(cells, "infection_progress", 0.0, 1.0, held_out, seed)
    mitosis, mitosis_auc = _state(cells, "rounding", 0.0, 0.5, held_out, seed)
    error, found = onset_error(cells, held_out)
    drawn = cells.sample(_JUDGED, seed)
    return {
        "infection": infection,
        "infection_auc": auc,
        "mitosis": mitosis,
        "mitosis_auc": mitosis_auc,
        "age_r2": _age(cells, held_out),
        "onset_error_h": error,
        "onset_found": found,
        "lineage_at_1": _lineages(cells, held_out, seed),
        "experiment_probe": separability_of_cells(drawn, seed, probe_scores).balanced_accuracy.value,
        "experiment_neighbors": separability_of_cells(drawn, seed).balanced_accuracy.value,
    }


def _state(
    cells: Embedded, column: str, none: float, from_here: float, held_out: str, seed: int
) -> tuple[float, float]:
    """Probe whether a cell is in a state, leaving out those between."""
    values = cells.obs[column].to_numpy()
    settled = cells.without((values > none) & (values < from_here), "between the states")
    labels = np.where(settled.obs[column].to_numpy() >= from_here, "yes", "no")
    test = settled.obs["experiment"].to_numpy().astype(str) == held_out
    scores = probe_cells(settled, labels, test, seed)
    return scores.balanced_accuracy.value, scores.auroc.value


def _age(cells: Embedded, held_out: str) -> float:
    """Share of the variance of the age that a ridge regression explains."""
    test = cells.obs["experiment"].to_numpy().astype(str) == held_out
    age = cells.obs["age"].to_numpy()
    reader = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 4, 9)))
    reader.fit(cells.features[~test], age[~test])
    return float(r2_score(age[test], reader.predict(cells.features[test])))


def onset_error(cells: Embedded, held_out: str) -> tuple[float, float]:
    """Compare the hour at which tracks of the held-out experiment pass the onset with that at which they were infected.

    Returns
    -------
    float
        Median of the absolute differences in hours, over tracks that are infected while they are seen.
    float
        Share of these tracks in which an onset was found.
    """
    obs, tracks = cells.obs, cells.tracks
    hours, onset = obs["hours_post_infection"].to_numpy(), obs["infection_time_hpi"].to_numpy()
    spans = obs.assign(track=tracks).groupby("track")["hours_post_infection"].agg(["min", "max"])
    first, last = spans.loc[tracks, "min"].to_numpy(), spans.loc[tracks, "max"].to_numpy()
    seen = (onset > first) & (onset < last)
    test = obs["experiment"].to_numpy().astype(str) == held_out
    known, asked = seen & ~test, seen & test
    scaled = StandardScaler().fit(cells.features[~test]).transform(cells.features)
    template = build_template(scaled[known], tracks[known], hours[known], onset[known], interval_hours=_INTERVAL_HOURS)
    found = dtw_align_tracks(scaled[asked], tracks[asked], hours[asked], template)["onset_hours"].to_numpy()
    one_per_track = np.unique(tracks[asked], return_index=True)[1]
    errors = np.abs(found - onset[asked])[one_per_track]
    return float(np.nanmedian(errors)) if np.isfinite(errors).any() else float("nan"), float(np.isfinite(errors).mean())


def _lineages(cells: Embedded, held_out: str, seed: int) -> float:
    other = cells.obs["experiment"].to_numpy().astype(str) != held_out
    own = cells.without(other, "of other experiments")
    obs = own.obs
    places = CellPlaces(
        own.fovs, own.tracks, obs["t"].to_numpy().astype(np.int64), obs[["y", "x"]].to_numpy(float), _PATCH_PX
    )
    return lineage_retrieval(own.features, own.lineages, places, k=(1,), n_queries=500, seed=seed).recall[1].value
