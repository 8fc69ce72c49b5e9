"""Onsets that labels of tracks tell, and how well trajectories do."""

from __future__ import annotations

import numpy as np
import pytest

from viscy_utils.evaluation.onsets import label_onsets, onset_error

HOURS = 0.5 * np.arange(24)


def _tracks(n_tracks=40, response=6.0, seed=0):
    """Tracks that switch at their own hour, in any order of rows; (features, labels, tracks, hours, true onsets)."""
    rng = np.random.default_rng(seed)
    onset = rng.uniform(2.2, 9.3, n_tracks)
    track, hours = np.repeat(np.arange(n_tracks), len(HOURS)), np.tile(HOURS, n_tracks)
    since = hours - onset[track]
    features = 0.3 * rng.normal(size=(len(track), 5))
    features[:, 0] += response / (1 + np.exp(-2 * since))
    features[:, 1] += response * np.exp(-(since**2))
    labels = np.where(since >= 0, "infected", "healthy")
    rows = rng.permutation(len(track))
    return features[rows], labels[rows], track[rows], hours[rows], onset[track][rows]


def test_the_onset_of_a_track_is_between_its_two_frames():
    _, labels, track, hours, true = _tracks()
    found = label_onsets(labels, track, hours)
    assert np.abs(found - true).max() <= 0.25
    for number in range(40):
        own = track == number
        last = hours[own][labels[own] == "healthy"].max()
        np.testing.assert_allclose(found[own], last + 0.25)


def test_tracks_that_do_not_change_once_or_change_back_have_no_onset():
    labels = np.array(list("aaabaaaaababbbaaabbb"))
    tracks, hours = np.repeat(np.arange(5), 4), np.tile(np.arange(4.0), 5)
    found = label_onsets(labels, tracks, hours)
    np.testing.assert_array_equal(found[::4], [2.5, np.nan, np.nan, np.nan, 0.5])
    assert np.isnan(label_onsets(np.array(list("abc") * 4), np.zeros(12), np.arange(12.0))).all()


def test_trajectories_tell_onsets_better_than_their_mean_and_noise_does_not():
    pytest.importorskip("dtaidistance")
    features, labels, track, hours, _ = _tracks()
    found = onset_error(features, labels, track, track, hours)
    assert found.high < 0.6 < 1.2 < found.chance
    assert found.n_cells == 20
    half = track < 20
    true = label_onsets(labels, track, hours)
    guess = np.mean([true[track == number][0] for number in range(20)])
    by_loop = np.mean([abs(true[track == number][0] - guess) for number in range(20, 40)])
    assert onset_error(features, labels, track, track, hours, ~half).chance == pytest.approx(by_loop)
    dull = onset_error(np.random.default_rng(0).normal(size=features.shape), labels, track, track, hours)
    assert dull.value > found.high


def test_labels_that_do_not_change_say_so():
    features, _, track, hours, _ = _tracks()
    never = onset_error(features, np.where(track % 2, "a", "b"), track, track, hours)
    assert np.isnan(never.value)
    assert "0 and 0" in never.note
