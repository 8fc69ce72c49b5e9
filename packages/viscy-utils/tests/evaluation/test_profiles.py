"""Profiles: averages of cells, and average precision against a loop over profiles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from viscy_utils.evaluation.profiles import aggregate_profiles, profile_average_precision, profile_score


def _cells(effect=3.0, n_experiments=3, seed=0):
    rng = np.random.default_rng(seed)
    n = 900
    fov = rng.integers(12, size=n)
    experiment = rng.integers(n_experiments, size=n)
    condition = np.array(["mock", "dengue", "zika"])[fov % 3]
    features = rng.normal(size=(n, 5)) + 0.1 * rng.normal(size=(n_experiments, 5))[experiment]
    features[:, 0] += effect * (condition == "dengue")
    names = {"experiment": experiment.astype(str), "fov_name": [f"A/1/{n}" for n in fov], "condition": condition}
    return features, pd.DataFrame(names)


def test_profiles_are_means_of_their_cells():
    features, obs = _cells()
    groups, profiles = aggregate_profiles(features, obs, ["experiment", "condition"])
    for (_, row), profile in zip(groups.iterrows(), profiles, strict=True):
        own = (obs["experiment"] == row["experiment"]) & (obs["condition"] == row["condition"])
        assert row["n_cells"] == own.sum()
        np.testing.assert_allclose(profile, features[own].mean(axis=0))
    assert groups["n_cells"].sum() == len(obs)


def test_average_precision_is_that_of_a_loop():
    pytest.importorskip("copairs")
    features, obs = _cells()
    found = profile_average_precision(features, obs, null_size=200)
    groups, profiles = aggregate_profiles(features, obs, ["experiment", "fov_name", "condition"])
    unit = profiles - profiles.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    precision = []
    for row in range(len(groups)):
        same = (groups["condition"] == groups["condition"][row]).to_numpy()
        own = (groups["experiment"] == groups["experiment"][row]).to_numpy()
        wanted, others = same & ~own, ~same & own
        precision.append(average_precision_score(wanted[wanted | others], (unit @ unit[row])[wanted | others]))
    for name in found.index:
        expected = np.mean(np.array(precision)[groups["condition"] == name])
        assert found["mean_average_precision"][name] == pytest.approx(expected, abs=1e-5)
    assert found["n_profiles"].sum() == len(groups)
    assert found["mean_average_precision"]["dengue"] > 0.95
    assert found["p_value"]["dengue"] < 0.05
    # Each profile has 8 of its label in other experiments, and 8 of other labels in its own.
    rng, wanted = np.random.default_rng(0), np.repeat([True, False], 8)
    chance = np.mean([average_precision_score(wanted, rng.random(16)) for _ in range(2000)])
    np.testing.assert_allclose(found["chance"], chance, atol=0.01)
    score = profile_score(features, obs, "condition")
    assert score.value == pytest.approx(found["mean_average_precision"].mean())
    assert "of dengue" in score.note


def test_a_single_experiment_compares_its_fields_and_a_single_condition_nothing():
    pytest.importorskip("copairs")
    features, obs = _cells(n_experiments=1)
    assert set(profile_average_precision(features, obs, null_size=100).index) == {"mock", "dengue", "zika"}
    with pytest.raises(ValueError, match="no profile has both"):
        profile_average_precision(features, obs.assign(condition="mock"))
    assert "no profile has both" in profile_score(features, obs.assign(condition="mock"), "condition").note
