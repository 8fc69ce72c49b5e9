"""Probes: what they reach on constructed embeddings, and what they refuse."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from viscy_utils.evaluation.probe import experiment_separability, linear_probe


def _tracks(n_tracks=60, n_frames=10, n_fovs=6, dim=8, seed=0):
    """Random features that are nearly constant within a track, and the groups they belong to."""
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(n_tracks), n_frames)
    fov = track % n_fovs
    features = rng.normal(size=(n_tracks, dim))[track] + 0.01 * rng.normal(size=(len(track), dim))
    return rng, track, fov, features.astype(np.float32)


def test_probe_of_labels_random_per_track_is_at_chance():
    rng, track, fov, features = _tracks(n_tracks=240)
    labels = rng.integers(2, size=240)[track]
    score = linear_probe(features, labels, fov, track)
    assert abs(score.value - 0.5) < 0.12
    assert score.low <= 0.5 <= score.high
    assert score.chance == 0.5


def test_probe_finds_a_linear_label_on_held_out_cells():
    rng, track, fov, features = _tracks()
    labels = rng.integers(2, size=60)[track]
    features[:, 0] += 6 * labels
    held_out = linear_probe(features, labels, fov, track, test=fov == 0)
    assert held_out.value > 0.95
    assert "other experiments" in held_out.note
    assert linear_probe(features, labels, fov, track).value > 0.95


def test_probe_without_two_classes_says_why():
    _, track, fov, features = _tracks()
    assert np.isnan(linear_probe(features, np.zeros(len(track)), fov, track).value)
    assert "single FOV" in linear_probe(features, fov == 0, fov, track).note
    assert "one side" in linear_probe(features, fov == 0, fov, track, test=fov == 0).note


def test_separability_tells_separate_from_mixed_experiments():
    _, track, fov, features = _tracks()
    experiment = fov % 3
    mixed = experiment_separability(features, experiment, fov, track)
    features[np.arange(len(track)), experiment] += 10
    separate = experiment_separability(features, experiment, fov, track)
    assert separate.value > 0.99
    assert abs(mixed.value - mixed.chance) < 0.2
    assert np.isnan(experiment_separability(features, np.zeros(len(track)), fov, track).value)


@pytest.mark.parametrize("judge", [experiment_separability, linear_probe], ids=["neighbours", "probe"])
def test_who_knows_the_condition_alone_does_not_know_the_experiment(judge):
    """Folds that leave out other conditions of each experiment bring them below chance; balanced ones do not."""
    rng = np.random.default_rng(0)
    cells = np.arange(2400)
    fov = cells % 16  # four of each of four experiments, two of each condition
    experiment, condition = fov % 4, fov // 8
    features = rng.normal(size=(len(cells), 8)) + 6 * condition[:, None]
    options = {"groups": fov, "units": cells}
    balanced = judge(features, experiment, **options, conditions=condition)
    assert abs(balanced.value - 0.25) < 0.04
    assert "2 folds" in balanced.note
    assert judge(features, experiment, **options).value < 0.2
    features[cells, experiment] += 10
    assert judge(features, experiment, **options, conditions=condition).value > 0.99
    alone = judge(features, experiment, **options, conditions=fov)  # one FOV of each: not possible
    assert "4 folds" in alone.note
    assert "not reliable" in alone.note
    assert "not reliable" not in balanced.note


@pytest.mark.parametrize("judge", [experiment_separability, linear_probe], ids=["neighbours", "probe"])
@pytest.mark.parametrize("n_fovs", [1, 2])
def test_an_experiment_told_from_single_fovs_is_said_to_be_unreliable(judge, n_fovs):
    """Embeddings that know the condition and not the experiment are far below chance with a FOV of each."""
    cells = np.arange(1200)
    fov = cells % (4 * n_fovs)
    experiment, condition = fov % 2, fov // 2 % 2
    features = np.random.default_rng(0).normal(size=(len(cells), 8)) + 6 * condition[:, None]
    score = judge(features, experiment, groups=fov, units=cells, conditions=condition)
    assert ("not reliable" in score.note) == (n_fovs == 1)
    assert (score.value < 0.2) == (n_fovs == 1)


@pytest.mark.parametrize("fovs_of_each", [1, 2, 3])
def test_who_knows_the_experiment_alone_does_not_know_the_condition(fovs_of_each):
    """A fold without the only infected FOV of an experiment makes its cells look uninfected: below chance."""
    rng = np.random.default_rng(0)
    cells = np.arange(1200)
    fov = cells % (4 * fovs_of_each)
    experiment, condition = fov % 2, fov // 2 % 2
    features = rng.normal(size=(len(cells), 8))
    features[:, 1:] += 6 * experiment[:, None]
    own = {"groups": fov, "units": cells}
    blind = [linear_probe(features, condition, **own, experiments=experiment, seed=seed) for seed in range(2)]
    assert all(abs(score.value - 0.5) < 0.08 for score in blind)
    assert blind[0].note == ("2 folds over experiments" if fovs_of_each == 1 else f"{fovs_of_each} folds over FOVs")
    if fovs_of_each == 1:
        assert min(linear_probe(features, condition, **own, seed=seed).value for seed in range(4)) < 0.2
    features[:, 0] += 10 * condition
    assert linear_probe(features, condition, **own, experiments=experiment).value > 0.99


@pytest.mark.parametrize(("labels", "alone"), [([0, 0, 1, 1], "0, 1"), ([0, 1, 0, 2], "1, 2")])
def test_labels_that_go_with_experiments_are_said(labels, alone):
    rng = np.random.default_rng(0)
    fov = np.repeat(np.arange(8), 50)  # two of each label
    label, experiment = np.asarray(labels)[fov // 2], fov // 4
    score = linear_probe(rng.normal(size=(len(fov), 4)), label, fov, np.arange(len(fov)), experiments=experiment)
    assert score.note.endswith(f"folds over FOVs, labels of a single experiment, which may be what is told: {alone}")


def test_labels_of_cells_are_divided_over_all_fovs():
    rng, track, fov, features = _tracks()
    labels = rng.integers(2, size=60)[track]
    plain = linear_probe(features, labels, fov, track)
    assert linear_probe(features, labels, fov, track, experiments=fov % 2) == plain


def test_cells_without_a_label_have_no_condition_either():
    _, track, fov, features = _tracks()
    labels = np.where(track < 12, None, (fov % 2).astype(str).astype(object))
    conditions = fov // 3
    kept = track >= 12
    options = {"conditions": conditions, "seed": 1}
    own = linear_probe(features[kept], fov[kept] % 2, fov[kept], track[kept], conditions=conditions[kept], seed=1)
    assert linear_probe(features, labels, fov, track, **options).value == own.value


def test_interval_comes_from_whole_lineages():
    """A hundred copies of each cell must not make the interval narrower."""
    rng, track, fov, features = _tracks(n_tracks=40, n_frames=1)
    labels = rng.integers(2, size=40)
    features[:, 0] += 1.5 * labels
    few = linear_probe(features, labels, fov, track, test=fov < 3)
    copies = np.repeat(np.arange(40), 100)
    many = linear_probe(features[copies], labels[copies], fov[copies], track[copies], test=fov[copies] < 3)
    assert many.high - many.low > 0.7 * (few.high - few.low)


def test_a_mask_with_one_lineage_on_both_sides_is_refused():
    """On labels that are random per lineage such a mask lets the probe recognise lineages: 0.7 instead of 0.5."""
    rng, track, fov, features = _tracks(n_tracks=120)
    labels = rng.integers(2, size=120)[track]
    with pytest.raises(ValueError, match=r"120 of 120 lineages are on both sides of the split, such as 0"):
        linear_probe(features, labels, fov, track, test=np.arange(len(track)) % 2 == 0)
    assert abs(linear_probe(features, labels, fov, track, test=fov == 0).value - 0.5) < 0.25


def test_groups_that_share_a_lineage_are_refused():
    _, track, _, features = _tracks()
    with pytest.raises(ValueError, match="lineages are in several groups"):
        linear_probe(features, track % 2, np.arange(len(track)) % 5, track)


def _scale_that_differs_between_the_sides(seed=0):
    """Feature 0 tells the label on both sides; a few held-out outliers make its overall scale a thousand times larger.

    Feature 1 hints at the label among the training cells and at the opposite among the held-out ones: a scaler that has
    seen the held-out cells leaves only this one to learn from.
    """
    rng = np.random.default_rng(seed)
    labels, held_out = np.tile([0, 1], 100), np.repeat([False, True], 100)
    sign = 2.0 * labels - 1
    features = np.stack([sign, np.where(held_out, -sign, sign)], axis=1) + [0.1, 1.5] * rng.normal(size=(200, 2))
    features[[196, 199], 0] = [-1e4, 1e4]
    return features, labels, held_out


def test_the_scaler_of_a_held_out_probe_has_seen_training_cells_only():
    features, labels, held_out = _scale_that_differs_between_the_sides()
    own = linear_probe(features, labels, np.arange(200), np.arange(200), test=held_out)
    assert own.value > 0.9
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    assert linear_probe(scaled, labels, np.arange(200), np.arange(200), test=held_out).value > 0.9  # it scales itself
    centre, spread = features[~held_out].mean(axis=0), features[~held_out].std(axis=0)
    model = LogisticRegression(max_iter=2000).fit((features[~held_out] - centre) / spread, labels[~held_out])
    predicted = model.predict((features[held_out] - centre) / spread)
    assert own.value == pytest.approx(np.mean([np.mean(predicted[labels[held_out] == k] == k) for k in (0, 1)]))
    leaky = LogisticRegression(max_iter=2000).fit(scaled[~held_out], labels[~held_out])
    assert np.mean(leaky.predict(scaled[held_out]) == labels[held_out]) < 0.4


def test_the_scaler_of_each_fold_has_seen_its_training_cells_only():
    features, labels, held_out = _scale_that_differs_between_the_sides()
    groups = np.where(held_out, 0, 1)  # two folds: each side once trains and once is told
    own = linear_probe(features, labels, groups, np.arange(200))
    right = np.zeros(200, dtype=bool)
    for test in (held_out, ~held_out):
        centre, spread = features[~test].mean(axis=0), features[~test].std(axis=0)
        model = LogisticRegression(max_iter=2000).fit((features[~test] - centre) / spread, labels[~test])
        right[test] = model.predict((features[test] - centre) / spread) == labels[test]
    assert own.value == pytest.approx(np.mean([right[labels == k].mean() for k in (0, 1)]))
    assert right[held_out].mean() > 0.9


MISSING = ["", "  ", "nan", "None", "<NA>", None, np.nan, pd.NA]


@pytest.mark.parametrize("missing", MISSING, ids=repr)
def test_cells_without_a_label_are_no_class(missing):
    rng, track, fov, features = _tracks()
    state = rng.integers(2, size=60)
    labels = np.array(["healthy", "infected"], dtype=object)[state[track]]
    features[:, 0] += 6 * state[track]
    unlabelled = rng.random(len(track)) < 1 / 3
    labels[unlabelled] = missing
    found = linear_probe(features, labels, fov, track)
    kept = ~unlabelled
    alone = linear_probe(features[kept], labels[kept].astype(str), fov[kept], track[kept])
    assert (found.value, found.low, found.high, found.chance) == (alone.value, alone.low, alone.high, 0.5)
    assert found.n_cells == kept.sum()
    assert f"{unlabelled.sum()} cells without a label left out" in found.note


def test_a_class_that_only_the_held_out_cells_have_is_named():
    _, track, fov, features = _tracks()
    labels = np.where(fov == 0, np.where(track % 4 == 0, "new", "a"), np.where(track % 2 == 0, "a", "b"))
    found = linear_probe(features, labels, fov, track, test=fov == 0)
    assert found.chance == 0.5
    assert "'new' is only among the held-out cells" in found.note


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_probe_depends_neither_on_the_order_of_cells_nor_on_the_names_of_classes(seed):
    rng, track, fov, features = _tracks(n_tracks=24, n_frames=4, seed=seed)
    labels = rng.integers(2, size=24)[track]
    order = rng.permutation(len(track))
    first = linear_probe(features, labels, fov, track, test=fov < 2)
    other = linear_probe(
        features[order], np.array(["x", "y"])[labels[order]], fov[order], track[order], test=fov[order] < 2
    )
    if np.isnan(first.value):
        assert np.isnan(other.value)
    else:
        assert first.value == pytest.approx(other.value, abs=0.02)


def test_a_rare_class_counts_as_much_as_a_common_one():
    """Two normal distributions one deviation apart: told with 69 % when both count alike, with 50 % when the rare one
    is left to drown."""
    rng = np.random.default_rng(0)
    labels = np.array(["rare"] * 150 + ["common"] * 2850)
    features = rng.normal(size=(3000, 1)) + (labels == "rare")[:, None]
    groups = np.arange(3000) % 10
    assert linear_probe(features, labels, groups, np.arange(3000)).value == pytest.approx(0.69, abs=0.04)


def test_folds_keep_groups_together_in_any_order_of_rows():
    """Features tell the group and nothing else: what is learnt of other groups is of no use."""
    rng = np.random.default_rng(1)
    groups = rng.permutation(np.repeat(np.arange(40), 20))
    labels = np.array(["x", "y"])[rng.permutation(40) % 2][groups]
    features = rng.normal(size=(40, 30))[groups] + 0.01 * rng.normal(size=(800, 30))
    assert linear_probe(features, labels, groups, groups).value < 0.75


def test_every_class_counts_as_much_whatever_its_cells():
    """Two classes are told without error, ten cells of a third were never seen: two thirds, not 95 %."""
    labels = np.repeat(["a", "b", "a", "b", "c"], [100, 100, 100, 100, 10])
    features = np.where(labels == "a", 5.0, -5.0)[:, None] + np.random.default_rng(0).normal(size=(410, 2))
    score = linear_probe(features, labels, np.arange(410), np.arange(410), test=np.arange(410) >= 200)
    assert score.value == pytest.approx(2 / 3)


def test_experiments_that_differ_along_the_common_mean_are_told():
    """Angles from the origin say nothing here, angles about the centre everything."""
    rng = np.random.default_rng(0)
    fov = np.arange(600) % 6
    features = rng.normal(size=(600, 3)) + np.where(fov % 2, 130.0, 70.0)[:, None] * [1, 0, 0]
    assert experiment_separability(features, fov % 2, fov, np.arange(600)).value > 0.95
