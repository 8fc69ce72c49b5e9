"""The simulated truth: lineages, positions, infection, determinism."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from viscy_data.synthetic import TRACK_COLUMNS, ExperimentSpec, Nuisance, demo_experiments, simulate_tracks


def busy(**changes) -> ExperimentSpec:
    """Return an experiment in which a lot happens."""
    options = {
        "n_frames": 40,
        "n_cells": 10,
        "shape": (1, 128, 160),
        "cell_cycle_hours": 5.0,
        "loss_per_hour": 0.05,
        "entering_per_hour": 1.0,
    }
    return ExperimentSpec("busy", **{**options, **changes})


@pytest.fixture(scope="module")
def infected() -> pd.DataFrame:
    return simulate_tracks(busy(), "B/1/0", seed=3)


def test_lineages_span_several_generations(infected):
    assert infected["generation"].max() >= 2
    daughters = infected.drop_duplicates("track_id").query("parent_track_id >= 0")
    assert (daughters.groupby("parent_track_id").size() == 2).all()


def test_daughters_begin_the_frame_after_their_mother_ends(infected):
    first, last = infected.groupby("track_id").first(), infected.groupby("track_id").last()
    daughters = first[first["parent_track_id"] >= 0]
    assert len(daughters) > 10
    mothers = last.loc[daughters["parent_track_id"]]
    np.testing.assert_array_equal(daughters["t"], mothers["t"] + 1)
    np.testing.assert_array_equal(daughters["parent_id"], mothers["id"])
    np.testing.assert_array_equal(daughters["lineage_id"], mothers["lineage_id"])
    np.testing.assert_array_equal(daughters["generation"], mothers["generation"] + 1)
    distance = np.hypot(daughters["y"].to_numpy() - mothers["y"].to_numpy(), daughters["x"] - mothers["x"].to_numpy())
    assert distance.max() < 2 * infected["radius"].max()


def test_parent_id_is_the_same_cell_one_frame_earlier(infected):
    by_id = infected.set_index("id")
    assert by_id.index.is_unique
    for _, track in infected.groupby("track_id"):
        np.testing.assert_array_equal(np.diff(track["t"]), 1)
        np.testing.assert_array_equal(track["parent_id"].iloc[1:], track["id"].iloc[:-1])
    known = infected.loc[infected["parent_id"] >= 0, "parent_id"]
    assert known.isin(by_id.index).all()


def test_some_tracks_end_without_dividing_and_some_enter_at_the_border(infected):
    last = infected.groupby("track_id").last()
    mothers = infected.loc[infected["parent_track_id"] >= 0, "parent_track_id"].unique()
    assert ((last["t"] < 39) & ~last.index.isin(mothers)).any()
    first = infected.groupby("track_id").first().query("t > 0 and parent_track_id < 0")
    assert len(first) > 3
    at_border = first["y"].isin([0, 127]) | first["x"].isin([0, 159])
    assert at_border.all()


def test_cells_are_infected_from_their_own_time_on_and_only_in_infected_wells(infected):
    expected = infected["hours_post_infection"] >= infected["infection_time_hpi"]
    np.testing.assert_array_equal(infected["infected"], expected)
    np.testing.assert_array_equal(infected["infected"], infected["infection_progress"] >= 0.5)
    assert infected["infection_time_hpi"].nunique() > 10
    assert 0.2 < infected["infected"].mean() < 0.9
    healthy = simulate_tracks(busy(), "A/1/0", seed=3)
    assert not healthy["infected"].any()
    assert (healthy["infection_progress"] == 0).all()


def test_infection_is_inherited_but_not_foreseen(infected):
    first = infected.groupby("track_id").first().query("parent_track_id >= 0")
    mother = infected.groupby("track_id").last().loc[first["parent_track_id"]]
    was_infected = mother["infected"].to_numpy()
    same = first["infection_time_hpi"].to_numpy() == mother["infection_time_hpi"].to_numpy()
    assert same[was_infected].all()
    later = (first["infection_time_hpi"] >= first["hours_post_infection"]).to_numpy()
    assert later[~same].all()


def test_cells_grow_from_division_to_division():
    table = simulate_tracks(busy(cell_diameter_px=24.0), "A/1/0")
    assert table.groupby("track_id")["radius"].apply(lambda radius: (np.diff(radius) >= 0).all()).all()
    assert 20 < 2 * table["radius"].mean() < 28


def test_age_runs_from_birth_to_division_and_doubles_the_area():
    table = simulate_tracks(busy(), "A/1/0")
    assert table["age"].between(0, 1).all()
    steps = table.groupby("track_id")["age"].diff().dropna()
    assert (steps >= 0).all()
    area_at_birth = (table["radius"] ** 2 / 2 ** table["age"]).groupby(table["track_id"])
    assert (area_at_birth.max() / area_at_birth.min() < 1 + 1e-9).all()
    born = table[table["parent_track_id"] >= 0].groupby("track_id")["age"].first()
    assert len(born) > 5
    assert born.max() < 0.1


def test_cells_of_the_first_frame_are_anywhere_in_their_cycle():
    """None is overdue, so divisions are as frequent at the beginning as later: by the interval's share of a cycle."""
    spec = busy(n_cells=300, n_frames=3, shape=(1, 512, 512), interval_minutes=30.0)
    table = simulate_tracks(spec, "A/1/0")
    assert kstest(table.loc[table["t"] == 0, "age"], "uniform").pvalue > 0.01
    mothers = table[(table["t"] == 1) & (table["parent_track_id"] >= 0)]["parent_track_id"].nunique()
    expected = 300 * 0.5 / spec.cell_cycle_hours
    assert abs(mothers - expected) < 4 * np.sqrt(expected)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_cells=st.integers(0, 15),
    n_frames=st.integers(1, 12),
    depth=st.sampled_from([1, 5]),
    interval=st.sampled_from([10.0, 60.0]),
)
def test_every_position_is_inside_and_no_cell_is_twice_in_a_frame(seed, n_cells, n_frames, depth, interval):
    spec = busy(n_cells=n_cells, n_frames=n_frames, shape=(depth, 96, 64), interval_minutes=interval)
    table = simulate_tracks(spec, "B/1/0", seed=seed)
    assert not table.duplicated(["track_id", "t"]).any()
    for axis, size in zip("zyx", spec.shape, strict=True):
        assert table[axis].between(0, size - 1).all()
    assert table["t"].between(0, n_frames - 1).all()
    assert set(TRACK_COLUMNS) <= set(table.columns)


def test_truth_depends_on_seed_experiment_and_fov_only():
    spec = busy(fovs_per_well=2)
    once = {fov: simulate_tracks(spec, fov, seed=1) for fov in spec.fov_conditions}
    again = {fov: simulate_tracks(spec, fov, seed=1) for fov in reversed(spec.fov_conditions)}
    for fov, table in once.items():
        pd.testing.assert_frame_equal(table, again[fov], check_exact=True)
    assert not once["A/1/0"]["y"].equals(once["A/1/1"]["y"])
    assert not once["A/1/0"]["y"].equals(simulate_tracks(spec, "A/1/0", seed=2)["y"])


def test_the_demo_differs_in_everything_that_should_not_matter():
    specs = demo_experiments()
    for field in ("name", "reporter", "interval_minutes", "start_hpi", "channel_names", "nuisance"):
        assert len({getattr(spec, field) for spec in specs}) == 3, field
    assert sorted(len(spec.channel_names) for spec in specs) == [2, 2, 3]
    assert [spec.n_frames for spec in demo_experiments(scale=0.5)] == [12, 24, 6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reporter": "mitos"}, "did you mean 'mito'"),
        ({"channel_names": ("Phase3D", "RFP")}, "'GFP' is not one of the channel_names"),
        ({"channel_names": ("GFP", "GFP", "Phase3D")}, "must be unique"),
        ({"condition_wells": {"a": ("A/1",), "b": ("A/1",)}}, "each well once"),
        ({"n_frames": 0}, "n_frames must be positive, got 0"),
        ({"shape": (256, 256)}, r"three positive sizes \(Z, Y, X\)"),
        ({"loss_per_hour": -1.0}, "loss_per_hour must not be negative"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ExperimentSpec("e", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"gain": 0.0}, "gain must be positive"), ({"noise": -1.0}, "noise must not"), ({"illumination": 2.5}, "in")],
)
def test_nuisance_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Nuisance(**changes)


def test_an_unknown_fov_is_refused():
    with pytest.raises(KeyError, match="C/1/0"):
        simulate_tracks(busy(), "C/1/0")


def test_scale_of_the_demo_must_be_positive():
    with pytest.raises(ValueError, match="scale must be positive"):
        demo_experiments(scale=0)
