from __future__ import annotations

import dataclasses
import json
import math
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from viscy_data.errors import InputError, MissingInputError

GOLDEN = Path(__file__).parent / "golden" / "index"


def build(config, *others, z_range=slice(0, 1), yx_patch_size=(32, 32), tau_range_hours=(0.5, 1.0), **options):
    registry = ExperimentRegistry([config, *others])
    return MultiExperimentIndex(registry, z_range, yx_patch_size, tau_range_hours, **options)


# golden cases


@pytest.fixture(
    params=["borders", "divisions_two_experiments", "no_parent_column_and_missing_csv", "random_three_intervals"]
)
def golden(request, make_experiment):
    """Return (description, registry, excluded FOVs, expected tables) of a golden case."""
    folder = GOLDEN / request.param
    case = json.loads((folder / "case.json").read_text())
    configs = []
    for entry in case["experiments"]:
        fields = {key: value for key, value in entry.items() if key not in ("fovs", "channel_names", "name")}
        fovs = dict.fromkeys(entry["fovs"])
        shape = (case["T"], 1, case["height"], case["width"])
        config = make_experiment(entry["name"], fovs, shape, entry["channel_names"], **fields)
        configs.append(dataclasses.replace(config, tracks_path=str(folder / "tracks" / entry["name"])))
    tracks = pd.read_csv(folder / "expected_tracks.csv", index_col="row", keep_default_na=False)
    anchors = json.loads((folder / "expected_valid_anchors.json").read_text())
    # One FOV of one case has a cycle of parents, which the reference accepts and this index refuses.
    cyclic = ["A/2/0"] if request.param == "random_three_intervals" else []
    return case, ExperimentRegistry(configs), cyclic, tracks[~tracks["fov_name"].isin(cyclic)], anchors


def frames_inside_the_hours(case, hours, golden_frames):
    """Whether the reference's rounded frames are those inside the hours (it admits 0 but leaves it out)."""
    for entry in case["experiments"]:
        low, high = golden_frames[entry["name"]]
        per_hour = 60 / entry["interval_minutes"]
        if (
            hours[0] < 0
            or max(low, 1) != max(math.ceil(hours[0] * per_hour), 1)
            or high != math.floor(hours[1] * per_hour)
        ):
            return False
    return True


@pytest.mark.filterwarnings(
    "ignore:.*no tracking table", "ignore:.*in no condition", "ignore:.*begin before their parent"
)
@pytest.mark.filterwarnings("ignore:.*after the last frame")
def test_tracks_and_anchors_are_the_golden_ones(golden):
    case, registry, excluded, expected, anchors = golden
    n_compared = 0
    for golden_anchors in anchors.values():
        hours = tuple(golden_anchors["tau_range_hours"])
        if not frames_inside_the_hours(case, hours, golden_anchors["frames"]):
            continue
        patch = tuple(case["yx_patch_size"])
        index = MultiExperimentIndex(
            registry, slice(0, 1), patch, hours, exclude_fovs=excluded, positive_scope="lineage"
        )
        table = index.valid_anchors
        rows = zip(table["experiment"], table["fov_name"], table["track_id"], table["t"], strict=True)
        assert [list(row) for row in rows] == [row for row in golden_anchors["rows"] if row[1] not in excluded]
        n_compared += 1
    assert n_compared >= 2
    for name in expected.columns:
        found = index.tracks[name]
        if isinstance(found.dtype, pd.CategoricalDtype):
            assert found.tolist() == expected[name].tolist(), name
        else:
            numbers = pd.to_numeric(expected[name]).fillna(-1)  # none is -1 here, empty there
            if name == "parent_track_id":
                numbers = numbers.where(numbers != expected["track_id"], -1)  # and so is a track itself
            np.testing.assert_allclose(found, numbers, rtol=1e-6, err_msg=name)
    assert {position: list(channels.values()) for position, channels in registry.channel_maps.items()} == {
        name: list(channels.values()) for name, channels in case["channel_maps"].items()
    }


def test_the_cycle_of_the_golden_case_is_refused_with_fov_and_tracks(make_experiment):
    config = make_experiment("slow", {"A/2/0": None}, shape=(20, 1, 64, 96))
    config = dataclasses.replace(config, tracks_path=str(GOLDEN / "random_three_intervals" / "tracks" / "slow"))
    with (
        pytest.warns(UserWarning, match="tracking tables of 2 FOVs that the store does not have"),
        pytest.raises(InputError, match=r"A/2/0/tracks.csv, field parent_track_id\n.*tracks 4, 5 of FOV A/2/0"),
    ):
        build(config)


# what a row says


def test_columns_are_compact(make_experiment):
    tracks = build(make_experiment()).tracks
    kinds = {name: str(dtype) for name, dtype in tracks.dtypes.items()}
    assert {kinds[name] for name in ("track_id", "parent_track_id")} == {"int16"}
    assert kinds["t"] == "int32"
    assert {kinds[name] for name in ("y", "x", "y_clamp", "x_clamp", "hours_post_infection")} == {"float32"}
    texts = (
        "experiment",
        "condition",
        "well_name",
        "fov_name",
        "global_track_id",
        "fluorescence_channel",
        "lineage_id",
    )
    assert {kinds[name] for name in texts} == {"category"}


def test_equal_fov_names_of_two_experiments_stay_apart(make_experiment, track_rows):
    first = make_experiment("first", {"A/1/0": track_rows({0: range(3)})}, start_hpi=2.0)
    second = make_experiment("second", {"A/1/0": track_rows({0: range(4)})}, interval_minutes=15.0)
    index = build(first, second)
    assert index.experiment_groups["first"].tolist() == [0, 1, 2]
    assert index.experiment_groups["second"].tolist() == [3, 4, 5, 6]
    assert [fov.store for fov in index.positions] == [first.data_path, second.data_path]
    assert index.fov_index.tolist() == [0] * 3 + [1] * 4
    assert index.fov_experiments == ("first", "second")
    assert index.lineage.tolist() == [0] * 3 + [1] * 4
    assert index.tracks["global_track_id"].tolist() == ["first_A/1/0_0"] * 3 + ["second_A/1/0_0"] * 4
    assert index.tracks["hours_post_infection"].tolist() == [2, 2.5, 3, 0, 0.25, 0.5, 0.75]


def test_sisters_share_a_lineage_and_are_no_positives(make_experiment, track_rows):
    table = track_rows({5: range(3), 8: range(3, 6), 9: [3]}, {8: 5, 9: 5})
    config = make_experiment(fovs={"A/1/0": table})
    index = build(config, tau_range_hours=(0.5, 0.5))
    assert index.tracks["lineage_id"].tolist() == ["first_A/1/0_5"] * 7
    assert index.anchor_rows.tolist() == [0, 1, 2, 3, 4]  # the daughter of a single frame is none
    with_sisters = build(config, tau_range_hours=(0.5, 0.5), positive_scope="lineage")
    assert with_sisters.anchor_rows.tolist() == [0, 1, 2, 3, 4, 6]
    own_track = build(config, tau_range_hours=(0.5, 0.5), positive_scope="track")
    assert own_track.anchor_rows.tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("parent", [-1, 99])
def test_no_parent_and_unknown_parents_make_roots(make_experiment, track_rows, parent):
    table = track_rows({-1: range(3), 1: range(3), 2: range(3)}, {1: parent, 2: parent})
    index = build(make_experiment(fovs={"A/1/0": table}))
    assert (index.forest.parent == -1).all()  # a track called -1 is nobody's parent
    assert len(np.unique(index.lineage)) == 3


def test_zero_hours_pair_every_observation_with_itself(make_experiment, track_rows):
    index = build(make_experiment(fovs={"A/1/0": track_rows({0: [0], 1: [5]})}), tau_range_hours=(0, 0))
    assert index.anchor_rows.tolist() == [0, 1]
    positives, tau = index.positives.draw(index.anchor_rows, 0, 0, np.random.default_rng(0))
    assert (positives.tolist(), tau.tolist()) == ([0, 1], [0, 0])


@pytest.mark.parametrize("size", [(32, 32), (15, 33)])
def test_centres_are_clamped_so_that_patches_fit(make_experiment, track_rows, size):
    table = track_rows({0: range(6)})
    table["y"], table["x"] = [0, 3.4, 20.9, 40, 60, 63.99], [0, 95.9, 50, 14.2, 80, 1]
    tracks = build(make_experiment(fovs={"A/1/0": table}), yx_patch_size=size).tracks
    for name, length, extent in (("y_clamp", size[0], 64), ("x_clamp", size[1], 96)):
        start = np.floor(tracks[name] + 0.5) - length // 2
        assert (start >= 0).all()
        assert (start + length <= extent).all()
    assert tracks["y_clamp"][2] == pytest.approx(20.9)


def test_cells_are_clamped_to_the_image_that_they_are_in(make_experiment, track_rows):
    def experiment(name, shape):
        return make_experiment(name, {"A/1/0": track_rows({0: range(3)}, y=shape[2] - 1.0, x=shape[3] - 1.0)}, shape)

    tracks = build(experiment("small", (3, 1, 32, 40)), experiment("large", (3, 1, 64, 96))).tracks
    for name, (height, width) in {"small": (32, 40), "large": (64, 96)}.items():
        own = tracks[tracks["experiment"] == name]
        assert (own["y_clamp"] == height - 16).all()
        assert (own["x_clamp"] == width - 16).all()


def test_a_patch_may_be_moved_by_as_much_as_is_allowed_and_no_more(make_experiment, track_rows):
    table = track_rows({0: range(5)})
    table["x"] = [16, 15, 14, 13, 12]  # which moves patches of 32 pixels by 0 to 4
    index = build(make_experiment(fovs={"A/1/0": table}), max_border_shift=2)
    assert index.tracks["border_shift"].tolist() == [0, 1, 2]
    assert index.tracks["x"].tolist() == [16, 15, 14]


# what is left out


def test_rows_outside_the_image_are_dropped_after_the_lineage_is_known(make_experiment, track_rows):
    table = track_rows({0: range(2), 1: range(2, 5), 2: range(5, 8)}, {1: 0, 2: 1})
    table.loc[table["track_id"] == 1, "y"] = 64.0
    index = build(make_experiment(fovs={"A/1/0": table}))
    assert index.tracks["track_id"].tolist() == [0, 0, 2, 2, 2]
    assert set(index.tracks["lineage_id"]) == {"first_A/1/0_0"}
    assert index.left_out.n_outside == 3
    assert "3 observations outside the image" in index.summary()


def test_rows_after_the_last_frame_are_dropped_and_counted(make_experiment, track_rows):
    config = make_experiment(fovs={"A/1/0": track_rows({0: range(12)})}, shape=(8, 1, 64, 96))
    with pytest.warns(UserWarning, match="4 of 12 observations lie after the last frame"):
        index = build(config)
    assert index.tracks["t"].max() == 7


def test_fovs_without_a_table_are_counted_and_named(make_experiment, track_rows):
    config = make_experiment(fovs={"A/1/0": track_rows({0: range(4)}), "A/1/1": None, "B/1/0": None})
    with pytest.warns(UserWarning, match="2 of 3 FOVs have no tracking table and are left out: first: A/1/1, first: B"):
        index = build(config)
    assert [fov.name for fov in index.positions] == ["A/1/0"]


def test_tables_of_unknown_fovs_are_reported(make_experiment):
    config = make_experiment()
    folder = Path(config.tracks_path) / "C" / "1" / "0"
    folder.mkdir(parents=True)
    (folder / "tracks.csv").write_text("track_id,t,y,x\n")
    with pytest.warns(UserWarning, match="1 FOVs that the store does not have are ignored: C/1/0"):
        build(config)


def test_a_table_of_a_header_is_a_fov_without_cells(make_experiment, track_rows):
    index = build(make_experiment(fovs={"A/1/0": track_rows({}), "A/1/1": track_rows({0: range(3)})}))
    assert (len(index.positions), len(index.tracks)) == (2, 3)
    assert index.tracks["t"].dtype == np.int32


def test_wells_without_a_condition_are_named(make_experiment, track_rows):
    table = track_rows({0: range(3)})
    config = make_experiment(fovs={"A/1/0": table, "B/1/0": table}, condition_wells={"control": ["A/1"]})
    with pytest.warns(UserWarning, match="1 wells are in no condition .* 'unknown': first: B/1"):
        index = build(config)
    assert {name: len(rows) for name, rows in index.condition_groups.items()} == {"control": 3, "unknown": 3}


def test_children_before_their_parents_are_reported(make_experiment, track_rows):
    config = make_experiment(fovs={"A/1/0": track_rows({0: range(3, 6), 1: range(4)}, {1: 0})})
    with pytest.warns(UserWarning, match="1 tracks begin before their parent"):
        build(config)


def test_wells_and_fovs_are_filtered(make_experiment, track_rows):
    fovs = {name: track_rows({0: range(3)}) for name in ("A/1/0", "A/1/1", "B/1/0")}
    config = make_experiment(fovs=fovs)
    assert set(build(config, include_wells=["A/1"]).tracks["fov_name"]) == {"A/1/0", "A/1/1"}
    assert set(build(config, exclude_fovs=["/A/1/1"]).tracks["fov_name"]) == {"A/1/0", "B/1/0"}


# what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include_wells": ["A/11"]}, r"include_wells\n  found    'A/11'\n  fix      did you mean 'A/1'"),
        ({"include_wells": "A/1"}, r"include_wells\n  found    the text 'A/1'\n  expected a list"),
        ({"exclude_fovs": ["A/1/00"]}, r"exclude_fovs\n  found    'A/1/00'\n  fix      did you mean 'A/1/0'"),
        ({"z_range": (0, 3)}, r"'first', field z_range\n  found    \(0, 3\), but FOV A/1/0 has 2 slices"),
        ({"z_range": slice(2, 2)}, "0 <= first < last"),
        ({"z_range": slice(None, 2)}, "two whole numbers"),
        ({"z_range": (0, 2, 1)}, "two whole numbers"),
        (
            {"yx_patch_size": (65, 32)},
            r"'first', field yx_patch_size\n  found    \(65, 32\), but FOV A/1/0 has 64 x",
        ),
        ({"yx_patch_size": (0, 32)}, "more than 0"),
        ({"yx_patch_size": (32.0, 32)}, "two whole numbers of pixels"),
        (
            {"tau_range_hours": (4.0, 5.0)},
            r"4 to 5 h, at which no observation .*: first \(8 to 10 frames\)",
        ),
        ({"tau_range_hours": (2.0, 1.0)}, "reversed"),
        ({"positive_scope": "sisters"}, "positive_scope must be one of"),
    ],
)
def test_impossible_options_are_refused(make_experiment, options, message):
    with pytest.raises(ValueError, match=message):
        build(make_experiment(shape=(10, 2, 64, 96)), **options)


def test_filters_that_leave_nothing_are_refused(make_experiment):
    with (
        pytest.warns(UserWarning, match="leave no FOV of experiment 'first'"),
        pytest.raises(InputError, match="no FOV left"),
    ):
        build(make_experiment(), exclude_fovs=["A/1/0"])


def test_a_missing_folder_and_a_folder_of_something_else_are_refused(make_experiment, tmp_path):
    config = make_experiment()
    with pytest.raises(MissingInputError, match="'first', field tracks_path\n  found    no folder"):
        build(dataclasses.replace(config, tracks_path=str(tmp_path / "nowhere")))
    lost = dataclasses.replace(config, tracks_path=str(tmp_path / "nowhere"))
    with pytest.raises(MissingInputError, match=r"^plates/experiments\.yml: experiment 'first', field tracks_path"):
        MultiExperimentIndex(ExperimentRegistry([lost], source="plates/experiments.yml"), slice(0, 1), (32, 32))
    with pytest.raises(InputError, match=r"no tracking table in .* for any of 1 FOVs\n.*A/1/0/tracks.csv"):
        build(dataclasses.replace(config, tracks_path=str(tmp_path)))


def test_two_tables_of_one_fov_are_refused(make_experiment):
    config = make_experiment()
    (Path(config.tracks_path) / "A" / "1" / "0" / "copy.csv").write_text("track_id,t,y,x\n")
    with pytest.raises(InputError, match=r"2 CSV files: copy.csv, tracks.csv"):
        build(config)


def write_table(config, text):
    path = Path(config.tracks_path) / "A" / "1" / "0" / "tracks.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("track_id,y,x\n0,1,1\n", "field t\n  found    columns track_id, y, x"),
        ("track_id,t,y,x\n0,0,1,1\n0,0,2,2\n", "track 0 more than once in frame 0"),
        ("track_id,t,y,x\n0,0,,1\n0,1,2,2\n", "field y\n"),
        ("track_id,t,y,x,parent_track_id\n0,0,1,1,1\n1,1,2,2,0\n", "tracks 0, 1 of FOV A/1/0 are their own ancestors"),
        (
            "track_id,t,y,x,parent_track_id\n0,0,1,1,\n1,0,1,1,\n2,1,2,2,0\n2,2,2,2,1\n",
            "track 2 with the parents 0 and 1",
        ),
        ("track_id,t,y,x\n0,0,-1,1\n0,1,-2,2\n", "no cell inside the images of 1 FOVs"),
    ],
)
def test_a_wrong_table_is_named(make_experiment, text, message):
    config = make_experiment()
    path = write_table(config, text)
    with pytest.raises(InputError, match=message) as caught:
        build(config)
    assert str(path) in str(caught.value) or "no cell" in message


def test_problems_of_many_tables_are_reported_together_and_counted(make_experiment, track_rows):
    config = make_experiment(fovs={f"A/1/{fov}": track_rows({0: range(3)}) for fov in range(12)})
    for path in Path(config.tracks_path).rglob("*.csv"):
        path.write_text("track_id,t\n0,0\n")
    with pytest.raises(InputError, match="found    5 more problems of this kind") as caught:
        build(config)
    assert len(caught.value.errors) == 8


def test_joined_names_that_collide_are_refused(make_experiment, track_rows):
    table = track_rows({0: range(3)})
    first = make_experiment("x", {"A/1/0": table})
    second = make_experiment("x_A", {"B/1/0": table})
    registry = ExperimentRegistry([first, second])
    fov = registry.fovs["x"][0]
    registry.fovs["x"] = (dataclasses.replace(fov, key=fov.key._replace(name="A_B/1/0")),)
    (Path(first.tracks_path) / "A").rename(Path(first.tracks_path) / "A_B")
    with pytest.raises(InputError, match="two FOVs that both read 'x_A_B/1/0'"):
        MultiExperimentIndex(registry, slice(0, 1), (32, 32))


def test_whole_floats_and_empty_parents_are_read(make_experiment):
    config = make_experiment()
    write_table(config, "track_id,t,y,x,parent_track_id,note\n1.0,0.0,9,9,,a\n1.0,1.0,9,9,,b\n2.0,2.0,9,9,1.0,a\n")
    tracks = build(config).tracks
    assert tracks["t"].tolist() == [0, 1, 2]
    assert tracks["parent_track_id"].tolist() == [-1, -1, 1]
    assert tracks["global_track_id"].tolist()[2] == "first_A/1/0_2"
    assert isinstance(tracks["note"].dtype, pd.CategoricalDtype)


def test_columns_that_some_tables_lack_are_filled_with_none(make_experiment, track_rows):
    extra = track_rows({0: range(3)}).assign(id=[7, 8, 9], z=[1.0, 1.0, 1.0], area=[3, 4, 5], label=["a", "b", "a"])
    index = build(make_experiment(fovs={"A/1/0": track_rows({0: range(2)}), "A/1/1": extra}))
    tracks = index.tracks
    assert tracks["id"].tolist() == [-1, -1, 7, 8, 9]
    assert (tracks["id"].dtype, tracks["z"].dtype) == (np.int16, np.float32)
    assert tracks["area"].isna().tolist() == [True, True, False, False, False]
    assert tracks["label"].tolist()[2:] == ["a", "b", "a"]


def test_ids_beyond_32_bits_are_kept(make_experiment, track_rows):
    table = track_rows({0: range(3)}).assign(id=np.arange(3) + 2**40)
    assert build(make_experiment(fovs={"A/1/0": table})).tracks["id"].tolist() == [2**40, 2**40 + 1, 2**40 + 2]


# groups, anchors, subsets


@pytest.mark.parametrize("scope", ["descendants", "lineage", "track"])
@given(data=st.data())
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anchors_equal_a_loop_over_all_pairs(scope, data, make_experiment, track_rows, tmp_path):
    n_tracks = data.draw(st.integers(1, 6))
    frames = {track: sorted(data.draw(st.sets(st.integers(0, 9), min_size=1))) for track in range(n_tracks)}
    parents = {track: data.draw(st.integers(-1, track - 1)) for track in range(n_tracks)}
    name = f"case{len(list(tmp_path.iterdir()))}"
    config = make_experiment(name, {"A/1/0": track_rows(frames, parents)})

    def path(track):
        return [track] if parents[track] < 0 else [track, *path(parents[track])]

    related = {
        "track": lambda a, b: a == b,
        "descendants": lambda a, b: a in path(b),
        "lineage": lambda a, b: path(a)[-1] == path(b)[-1],
    }[scope]
    rows = [(track, t) for track, times in frames.items() for t in times]
    expected = [row for row, (a, t) in enumerate(rows) if any(related(a, b) and 2 <= u - t <= 4 for b, u in rows)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not expected:
            with pytest.raises(InputError, match="no observation of any experiment has a positive"):
                build(config, tau_range_hours=(1.0, 2.0), positive_scope=scope)
        else:
            assert build(config, tau_range_hours=(1.0, 2.0), positive_scope=scope).anchor_rows.tolist() == expected


def test_valid_anchors_are_rows_of_tracks_with_a_fresh_index(make_experiment, track_rows):
    index = build(make_experiment(fovs={"A/1/0": track_rows({0: range(3), 1: [0], 2: range(4)})}))
    assert index.valid_anchors.index.tolist() == list(range(len(index.anchor_rows)))
    pd.testing.assert_frame_equal(index.valid_anchors, index.tracks.iloc[index.anchor_rows].reset_index(drop=True))


def test_an_experiment_without_anchors_is_named(make_experiment, track_rows):
    first = make_experiment("first")
    second = make_experiment("second", {"A/1/0": track_rows({0: [0]})})
    with pytest.warns(UserWarning, match=r"no observation has a positive at 0.5 to 1 h in experiments second \(1 to 2"):
        build(first, second)


def test_a_subset_equals_an_index_of_these_experiments(make_experiment, track_rows):
    configs = [
        make_experiment("first", {"A/1/0": track_rows({0: range(3), 4: range(2, 6)}, {4: 0})}),
        make_experiment("second", {"A/1/0": track_rows({0: range(4)}), "A/2/0": track_rows({1: range(5)})}),
        make_experiment("third", {"A/1/0": track_rows({2: range(5), 3: range(5, 8)}, {3: 2})}, interval_minutes=15.0),
    ]
    index = build(*configs)
    part, alone = index.subset(["third", "first"]), build(configs[0], configs[2])
    assert [config.name for config in part.registry.experiments] == ["first", "third"]
    pd.testing.assert_frame_equal(part.tracks, alone.tracks)
    for name in ("anchor_rows", "fov_index", "track_index", "lineage"):
        np.testing.assert_array_equal(getattr(part, name), getattr(alone, name))
    np.testing.assert_array_equal(part.forest.parent, alone.forest.parent)
    assert part.positions == alone.positions
    assert part.summary() == alone.summary()
    assert len(index.tracks) == 7 + 9 + 8  # the whole is as it was
    with pytest.raises(KeyError, match="no experiment 'fourth'"):
        index.subset(["fourth"])


def test_summary_counts(make_experiment, track_rows):
    table = track_rows({0: range(3), 1: range(3, 6), 2: range(3, 5), 7: range(4)}, {1: 0, 2: 0})
    assert build(make_experiment(fovs={"A/1/0": table})).summary().splitlines() == [
        "MultiExperimentIndex: 1 experiments, 12 total observations, 9 valid anchors",
        "  first: 12 observations, 9 anchors, conditions: control(12)",
        "    1 FOVs, 4 tracks, 2 lineages, 1 divisions, tau 1 to 2 frames",
        "    a track has 3 frames in the median; 0 tracks miss 0 frames in between",
    ]


def test_an_index_can_be_pickled_and_holds_no_open_file(make_experiment):
    index = build(make_experiment())
    again = pickle.loads(pickle.dumps(index))
    pd.testing.assert_frame_equal(again.tracks, index.tracks)
    assert again.positives.count(again.anchor_rows, 1).tolist() == index.positives.count(index.anchor_rows, 1).tolist()


def test_any_number_of_workers_gives_the_same_index(make_experiment, track_rows):
    config = make_experiment(fovs={f"A/1/{fov}": track_rows({fov: range(fov + 2)}) for fov in range(6)})
    one, many = build(config, workers=1), build(config, workers=4)
    pd.testing.assert_frame_equal(one.tracks, many.tracks)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")  # of dask
def test_the_workers_of_a_dask_cluster_read_the_tables(make_experiment, track_rows):
    distributed = pytest.importorskip("distributed")
    config = make_experiment(fovs={f"A/1/{fov}": track_rows({fov: range(fov + 2)}) for fov in range(6)})
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with distributed.LocalCluster(**options) as cluster:
        read = build(config, dask_address=cluster.scheduler_address)
    pd.testing.assert_frame_equal(read.tracks, build(config).tracks)


def test_dask_that_is_not_installed_is_named_with_its_extra(make_experiment, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'viscy-data\[dask\]'"):
        build(make_experiment(), dask_address="tcp://host:8786")
