"""What an index makes of input as it comes: cells elsewhere, columns of many kinds, wells without a condition."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from dynaclr.index.conditions import check_balance
from viscy_data.errors import InputError
from viscy_data.sampler import BatchPlan

HEADER = "track_id,t,y,x"


def build(*configs, **options):
    return MultiExperimentIndex(ExperimentRegistry(configs), slice(0, 1), (16, 16), **options)


def write_table(config, text, fov="A/1/0"):
    path = Path(config.tracks_path) / fov / "tracks.csv"
    path.write_text(text)
    return path


def with_column(name, *values):
    """Return a table of one track with a further column."""
    return f"{HEADER},{name}\n" + "".join(f"0,{t},9,9,{value}\n" for t, value in enumerate(values))


@pytest.fixture
def two_fovs(make_experiment, track_rows):
    """Return a function that writes two tables and returns the experiment."""

    def make(first, second):
        config = make_experiment(fovs={name: track_rows({0: range(3)}) for name in ("A/1/0", "A/1/1")})
        return config, write_table(config, first), write_table(config, second, "A/1/1")

    return make


def saved_and_loaded(index, tmp_path):
    index.save(tmp_path / "index.parquet")
    options = {"tau_range_hours": index.tau_range_hours}
    return MultiExperimentIndex.load(tmp_path / "index.parquet", index.registry, slice(0, 1), (16, 16), **options)


# cells that are not where the image is


def test_cells_outside_are_said_with_share_example_and_a_guess(make_experiment, track_rows, caplog):
    swapped = track_rows({0: range(5), 1: range(5)}, y=90.0, x=30.0)
    right = make_experiment("right", {"A/1/0": track_rows({0: range(5)})})
    wrong = make_experiment("wrong", {"A/1/0": pd.concat([swapped, track_rows({2: range(5)}, y=30.0, x=30.0)])})
    with caplog.at_level(logging.WARNING):
        index = build(right, wrong)
    assert (
        "experiment 'wrong': 10 of 15 cells (67 %) lie outside their image and are left out, for example "
        in caplog.text
    )
    assert "track 0 in frame 0 of A/1/0 at y = 90, x = 30, where the image is 64 x 96 pixels" in caplog.text
    assert "experiment 'wrong': x and y seem swapped (A/1/0)" in caplog.text
    assert "'right'" not in caplog.text
    assert "wrong: x and y seem swapped" in index.summary()


def test_frames_that_count_from_1_are_named_as_that(make_experiment, track_rows, caplog):
    with (
        pytest.warns(UserWarning, match="1 of 10 observations lie after the last frame"),
        caplog.at_level(logging.WARNING),
    ):
        build(make_experiment(fovs={"A/1/0": track_rows({0: range(1, 11)})}))
    assert "frames seem to count from 1 (A/1/0)" in caplog.text


def test_an_index_without_a_cell_in_its_images_says_why(make_experiment, track_rows):
    config = make_experiment(fovs={"A/1/0": track_rows({0: range(5)}, y=90.0, x=30.0)})
    with pytest.raises(InputError, match=r"no cell inside the images of 1 FOVs.*first: x and y seem swapped"):
        build(config)


def test_parents_that_are_not_in_their_table_are_counted(make_experiment, track_rows, caplog):
    table = track_rows({0: range(3), 1: range(3, 6), 2: range(3, 6), 3: range(3)}, {1: 0, 2: 77, 3: 78})
    with caplog.at_level(logging.WARNING):
        index = build(make_experiment(fovs={"A/1/0": table}))
    assert "2 tracks name a parent that is not in their table" in caplog.text
    assert index.left_out.n_orphans == 2


@pytest.mark.parametrize("parents", [(0, 1), (0, -1), (-1, 0), (0, 77), (77, 78), ("", 0)])
def test_a_parent_that_changes_along_its_track_is_refused(make_experiment, parents):
    config = make_experiment()
    first, second = parents
    rows = f"0,0,9,9,\n1,0,9,9,\n2,1,9,9,{first}\n2,2,9,9,{second}\n"
    path = write_table(config, f"{HEADER},parent_track_id\n{rows}")
    with pytest.raises(InputError, match=r"field parent_track_id\n  found    track 2 with the parents") as caught:
        build(config)
    assert caught.value.where == str(path)


def test_a_lineage_in_a_column_parent_is_read_and_said_once(two_fovs, caplog):
    table = f"{HEADER},parent\n0,0,9,9,0\n1,1,9,9,0\n1,2,9,9,0\n"
    with caplog.at_level(logging.WARNING):
        index = build(two_fovs(table, table)[0])
    assert caplog.text.count("the column 'parent' is read as parent_track_id (2 tracking tables, the first ") == 1
    assert set(index.tracks["lineage_id"]) == {"first_A/1/0_0", "first_A/1/1_0"}


def test_counts_of_what_is_left_out_survive_a_subset_and_a_file(make_experiment, track_rows, tmp_path):
    outside = pd.concat([track_rows({0: range(5)}), track_rows({1: range(3)}, {1: 9}, y=500.0)])
    first = make_experiment("first: x", {"A/1/0": outside, "A/1/1": None})
    second = make_experiment("second", {"A/1/0": track_rows({0: range(12)})})
    with pytest.warns(UserWarning, match="no tracking table|after the last frame"):
        index = build(first, second)
    loaded = saved_and_loaded(index, tmp_path)
    for whole in (index, loaded):
        parts = {name: whole.subset([name]).left_out for name in whole.registry.names}
        found = {name: (part.fovs, part.n_outside, part.n_beyond, part.n_orphans) for name, part in parts.items()}
        assert found == {
            "first: x": ((("first: x", "A/1/1"),), 3, 0, 1),
            "second": ((), 0, 2, 0),
        }
        assert whole.left_out.n_outside == 3
    assert loaded.summary() == index.summary()
    assert "3 observations outside" in loaded.subset(["first: x"]).summary()


# columns


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        (("1", "2"), ("a", "b"), "text, but numbers in"),
        (("a", "b"), ("1.5", "2"), "numbers, but text in"),
        (("true", "false"), ("1", "0"), "numbers, but true or false in"),
        (("a", "b"), ("true", ""), "true or false, but text in"),
        (("2024-11-05", "2024-11-06"), ("1", "2"), "numbers, but text in"),
    ],
)
def test_a_column_of_two_types_is_refused_with_column_and_files(two_fovs, first, second, kinds):
    config, *paths = two_fovs(with_column("state", *first), with_column("state", *second))
    with pytest.raises(InputError) as caught:
        build(config)
    assert (caught.value.where, caught.value.field) == (str(paths[1]), "state")
    assert caught.value.found == f"{kinds} {paths[0]}"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("1", "2"), ("1.5", ""), [1, 2, 1.5, None]),
        (("1", "2"), ("", ""), [1, 2, None, None]),
        (("", ""), ("a", "b"), [None, None, "a", "b"]),
        (("a", ""), ("", "b"), ["a", None, None, "b"]),
        (("true", "false"), ("false", "true"), [True, False, False, True]),
        (("true", "false"), ("", ""), ["True", "False", None, None]),
        (("true", ""), ("false", "true"), ["True", None, "False", "True"]),
        (("2024-11-05", "2024-11-06"), ("2024-11-05", ""), ["2024-11-05", "2024-11-06", "2024-11-05", None]),
        (("", ""), ("", ""), [None] * 4),
        (("9007199254740993", "1"), ("2", "3"), [9007199254740993, 1, 2, 3]),
    ],
)
def test_a_column_with_gaps_is_saved_and_loaded(two_fovs, tmp_path, first, second, expected):
    config = two_fovs(with_column("state", *first), with_column("state", *second))[0]
    index = build(config, tau_range_hours=(0.5, 0.5))
    for table in (index.tracks, saved_and_loaded(index, tmp_path).tracks):
        found = [None if pd.isna(value) else value for value in table["state"]]
        assert found == expected
        assert all(type(value) is not bool or other is value for value, other in zip(expected, found, strict=True))


def test_a_column_that_one_table_lacks_is_saved_and_loaded(two_fovs, tmp_path):
    for column, value in (("flag", "true"), ("note", "a"), ("area", "3")):
        config = two_fovs(with_column(column, value, value), f"{HEADER}\n0,0,9,9\n0,1,9,9\n")[0]
        Path(config.tracks_path).parent.rename(Path(config.tracks_path).parent.with_name(column))
        moved = Path(config.tracks_path).parent.with_name(column)
        config = dataclasses.replace(config, data_path=str(moved / "plate.zarr"), tracks_path=str(moved / "tracks"))
        index = build(config, tau_range_hours=(0.5, 0.5))
        loaded = saved_and_loaded(index, tmp_path / column)
        pd.testing.assert_frame_equal(loaded.tracks, index.tracks)
        assert loaded.tracks[column].isna().tolist() == [False, False, True, True]


def test_large_numbers_are_not_rounded_silently(two_fovs):
    config = two_fovs(with_column("hash", 2**53 + 1, 1), with_column("hash", 0.5, 1))[0]
    with pytest.raises(InputError, match=f"field hash\n  found    the whole number {2**53 + 1}"):
        build(config)


@pytest.mark.parametrize(
    "name", ["condition", "fov_name", "experiment", "hours_post_infection", "lineage_id", "y_clamp", "border_shift"]
)
def test_a_column_called_like_one_of_the_index_is_kept_beside_it_and_said(two_fovs, tmp_path, name):
    config = two_fovs(with_column(name, 5, 6), with_column(name, 7, 8))[0]
    with pytest.warns(UserWarning, match=f"'{name}' .now 'tracks_{name}'."):
        index = build(config, tau_range_hours=(0.5, 0.5))
    assert index.tracks[f"tracks_{name}"].tolist() == [5, 6, 7, 8]
    with pytest.warns(UserWarning, match=f"'{name}' .now 'tracks_{name}'."):
        loaded = saved_and_loaded(index, tmp_path)
    pd.testing.assert_frame_equal(loaded.tracks, index.tracks)


def test_a_column_that_repeats_the_index_is_taken_as_the_same(two_fovs):
    config = two_fovs(with_column("fov_name", "A/1/0", "/A/1/0/"), with_column("fov_name", "A/1/1", "A/1/1"))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index = build(config, tau_range_hours=(0.5, 0.5))
    assert "tracks_fov_name" not in index.tracks
    assert index.tracks["fov_name"].tolist() == ["A/1/0", "A/1/0", "A/1/1", "A/1/1"]


def test_a_column_that_the_file_needs_itself_is_refused(two_fovs, tmp_path):
    table = with_column("__is_anchor", 1, 2)
    index = build(two_fovs(table, table)[0], tau_range_hours=(0.5, 0.5))
    with pytest.raises(InputError, match="field __is_anchor"):
        index.save(tmp_path / "index.parquet")


# wells without a condition


@pytest.fixture
def two_wells(make_experiment, track_rows):
    """Return a function that makes an experiment of two wells."""

    def make(name="first", **fields):
        return make_experiment(name, {fov: track_rows({0: range(5)}) for fov in ("A/1/0", "B/1/0")}, **fields)

    return make


def test_wells_without_a_condition_are_counted_and_said_once(two_wells):
    config = two_wells(condition_wells={"control": ["A/1"]})
    with pytest.warns(UserWarning, match=r"'unknown': first: B/1 \(5 of 20 cells\)"):
        index = build(config, two_wells("second"))
    index.subset(["first"])  # says nothing again
    assert index.unnamed_wells == {("first", "B/1"): 5}


def test_a_default_condition_is_that_of_the_other_wells(two_wells):
    index = build(two_wells(condition_wells={"control": ["A/1"]}, default_condition="mock"))
    assert {name: len(rows) for name, rows in index.condition_groups.items()} == {"control": 5, "mock": 5}
    assert index.unnamed_wells == {}


def test_every_experiment_has_a_default_condition_of_its_own(two_wells):
    first = two_wells("first", condition_wells={"control": ["A/1"]}, default_condition="mock")
    second = two_wells("second", condition_wells={"control": ["A/1"]}, default_condition="infected")
    tracks = build(first, second).tracks
    found = tracks[["experiment", "well_name", "condition"]].astype(str).drop_duplicates().to_numpy().tolist()
    assert found == [
        ["first", "A/1", "control"],
        ["first", "B/1", "mock"],
        ["second", "A/1", "control"],
        ["second", "B/1", "infected"],
    ]


def test_an_untreated_movie_needs_no_conditions(two_wells):
    index = build(two_wells(condition_wells=None))
    assert set(index.condition_groups) == {"unknown"}
    check_balance(index, BatchPlan(), "experiments.yml")


@pytest.mark.filterwarnings("ignore:.*in no condition")
def test_balance_over_wells_without_a_condition_is_an_explicit_choice(two_wells):
    index = build(two_wells(condition_wells={"control": ["A/1"]}))
    with pytest.raises(InputError, match=r"s\.yml, field condition_wells\n  found    5 of 10 cells .50%.*B/1"):
        check_balance(index, BatchPlan(), "experiments.yml")
    for plan in (BatchPlan(condition_balanced=False), BatchPlan(condition_ratio={"unknown": 0.5, "control": 0.5})):
        check_balance(index, plan, "experiments.yml")
    check_balance(build(two_wells("second")), BatchPlan(), "experiments.yml")
    mixed = build(two_wells("third"), two_wells("fourth", condition_wells=None))
    with pytest.raises(InputError, match="fourth: A/1, fourth: B/1"):
        check_balance(mixed, BatchPlan(), "experiments.yml")


def test_the_registry_says_its_own_words(two_wells):
    registry = ExperimentRegistry([two_wells("a", interval_minutes=15.0), two_wells("b", interval_minutes=90.0)])
    assert registry.names == ["a", "b"]
    np.testing.assert_array_equal(registry.interval_hours, [0.25, 1.5])
    assert registry.channel_keys() == ["ch_0", "ch_1"]
    assert registry.subset(["b"]).names == ["b"]
