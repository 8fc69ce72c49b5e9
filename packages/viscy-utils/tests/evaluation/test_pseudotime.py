"""Onsets of responses: by a slow search over all warpings, and on simulated cells whose onset is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from viscy_data.synthetic import ExperimentSpec, simulate_tracks
from viscy_utils.evaluation.pseudotime import Template, build_template, dtw_align_tracks

pytest.importorskip("dtaidistance")


def _simulated(seed, noise=0.4):
    """Cells of infected wells, and features that follow the texture among noise and what differs between tracks."""
    spec = ExperimentSpec(
        "day", condition_wells={"infected": ("B/1",)}, fovs_per_well=4, n_frames=30, n_cells=15, cell_cycle_hours=60,
        infection_mean_hours=5,
    )  # fmt: skip
    tables = [simulate_tracks(spec, f"B/1/{n}", seed=seed) for n in range(4)]
    cells = pd.concat([table.assign(track=table["track_id"] + 1000 * n) for n, table in enumerate(tables)])
    cells = cells.reset_index(drop=True)
    rng = np.random.default_rng(seed)
    track = np.unique(cells["track"], return_inverse=True)[1]
    features = noise * rng.normal(size=(len(cells), 12)) + rng.normal(size=(track.max() + 1, 12))[track] * (
        [0] * 2 + [1] * 10
    )
    features[:, 0] += 3 * cells["infection_progress"]
    return cells, features


def _align(reference, cells, features, **options):
    known, its_features = reference
    onset = known["infection_time_hpi"].to_numpy()
    template = build_template(
        its_features, known["track"].to_numpy(), known["hours_post_infection"].to_numpy(), onset, interval_hours=0.5
    )
    hours = cells["hours_post_infection"].to_numpy()
    return dtw_align_tracks(features, cells["track"].to_numpy(), hours, template, **options)


def test_onsets_of_simulated_cells_are_found_where_the_mean_onset_is_far_off():
    reference, (cells, features) = _simulated(0), _simulated(1)
    found = _align(reference, cells, features)
    first = cells.assign(**found).groupby("track").first()
    hours = cells.groupby("track")["hours_post_infection"]
    # Onsets that the track shows, with an hour on both sides.
    seen = (first["infection_time_hpi"] > hours.min() + 1) & (first["infection_time_hpi"] < hours.max() - 1)
    truth = first["infection_time_hpi"][seen]
    error = (first["onset_hours"][seen] - truth).abs()
    known = reference[0].groupby("track")["infection_time_hpi"].first()
    baseline = (known[np.isfinite(known)].mean() - truth).abs()
    assert len(truth) > 25
    assert first["onset_hours"][seen].notna().mean() > 0.95
    assert error.mean() < 0.7  # hours
    assert baseline.mean() > 3 * error.mean()


def test_a_track_that_never_responds_passes_no_onset():
    reference, (cells, features) = _simulated(0), _simulated(2)
    healthy = cells.groupby("track")["infection_progress"].transform("max") == 0
    found = _align(reference, cells[healthy], features[healthy.to_numpy()])
    tracks = cells[healthy]["track"].to_numpy()
    n_false = found.assign(track=tracks).groupby("track")["onset_hours"].first().notna().sum()
    assert n_false <= 0.1 * len(np.unique(tracks)) + 1
    assert found["hours_since_onset"].isna().equals(found["onset_hours"].isna())


def _slow(track, reference, penalty):
    """Least cost of a path from any to any point of the reference: all predecessors, one after the other."""
    cost = np.full((len(track), len(reference)), np.inf)
    for i in range(len(track)):
        for j in range(len(reference)):
            step = np.sum((track[i] - reference[j]) ** 2)
            ways = [0.0] if i == 0 else []
            if i and j:
                ways.append(cost[i - 1, j - 1])
            if i:
                ways.append(cost[i - 1, j] + penalty**2)
            if j:
                ways.append(cost[i, j - 1] + penalty**2)
            cost[i, j] = step + min(ways)
    return np.sqrt(cost[-1].min()) / len(track)


def test_cost_is_that_of_a_slow_search():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(9, 2))
    scale = np.linalg.norm(reference[:, None] - reference, axis=2).max()
    template = Template(reference, np.arange(9) - 4.0, np.zeros(2), np.eye(2), 1)
    for seed in range(5):
        track = np.random.default_rng(seed).normal(size=(6, 2))
        found = dtw_align_tracks(track, np.zeros(6), np.arange(6), template, penalty=0.2)
        assert found["dtw_cost"][0] == pytest.approx(_slow(track / scale, reference / scale, 0.2))
        assert (np.diff(found["pseudotime_hours"]) >= 0).all()


def test_a_part_of_the_template_lies_on_itself_in_any_order_of_rows():
    hours = np.arange(-4, 5) / 2
    values = np.column_stack([np.tanh(hours), hours**2])
    template = Template(values, hours, np.zeros(2), np.eye(2), 1)
    part = np.arange(2, 8)
    shuffled = np.random.default_rng(0).permutation(len(part))
    clock = (10 + hours[part])[shuffled]
    found = dtw_align_tracks(values[part][shuffled], np.zeros(6), clock, template)
    np.testing.assert_allclose(found["pseudotime_hours"], hours[part][shuffled])
    np.testing.assert_allclose(found["onset_hours"], 10)
    np.testing.assert_allclose(found["hours_since_onset"], clock - 10)
    assert found["dtw_cost"].max() < 1e-9


def test_short_tracks_and_templates_without_an_onset_are_said():
    cells, features = _simulated(0)
    found = _align((cells, features), cells, features, min_frames=1000)
    assert found[["pseudotime_hours", "onset_hours", "dtw_cost"]].isna().all(axis=None)
    hours, track = cells["hours_post_infection"].to_numpy(), cells["track"].to_numpy()
    with pytest.raises(ValueError, match="both sides of its onset"):
        build_template(features, track, hours, np.full(len(hours), np.inf), interval_hours=0.5)
    with pytest.raises(ValueError, match="does not move"):
        build_template(np.ones_like(features), track, hours, np.full(len(hours), 8.0), interval_hours=0.5)
