"""What reports say in words, and the tables beside the scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from viscy_utils.evaluation.comparison import Comparison
from viscy_utils.evaluation.embedded import Embedded, LeftOut
from viscy_utils.evaluation.folds import ONE_FOV
from viscy_utils.evaluation.report_tables import (
    cells_table,
    displacement_table,
    left_out_table,
    origin_tables,
    versions_table,
)
from viscy_utils.evaluation.scores import Score
from viscy_utils.evaluation.verdict import verdict


def scored(name, probe, mixing, **options):
    scores = [
        Score.missing("one class") if value is None else Score(value, value - 0.05, value + 0.05, chance)
        for value, chance in ((probe, 0.5), (mixing, 0.25))
    ]
    return Comparison(name, *scores, 0.5, 100, **options)


def test_the_best_is_only_clear_where_intervals_do_not_overlap():
    clear, *_ = verdict([scored("a", 0.7, 0.3), scored("b", 0.9, 0.3)], "state")
    assert clear.level == "good"
    assert clear.text.startswith("b carries state best: 0.900 against 0.700 of a")
    near, *_ = verdict([scored("a", 0.86, 0.3), scored("b", 0.9, 0.3)], "state")
    assert near.level == "watch"
    assert "may be chance" in near.text
    none, *_ = verdict([scored("a", 0.5, 0.3), scored("b", 0.52, 0.3)], "state")
    assert (none.level, none.text) == ("bad", "No embedding carries state above chance.")
    lone, *_ = verdict([scored("a", 0.9, 0.3), scored("b", None, 0.3)], "state")
    assert lone.level == "unknown"


def test_mixing_that_cannot_be_known_from_single_fovs_is_said_to_be_unreliable():
    row = replace(scored("a", 0.9, 0.95), separability=Score(0.95, 0.9, 1.0, 0.25, f"2 folds over FOVs, {ONE_FOV}"))
    line, _ = verdict([row], "state")
    assert line.level == "good"  # of the label alone; experiments that stay apart are one to watch
    assert line.text.endswith("for the experiment's.")


@pytest.mark.parametrize(
    ("probe", "mixing", "level", "words"),
    [
        (0.9, 0.27, "good", "are mixed:"),
        (0.9, 0.4, "good", "are mixed in part:"),
        (0.9, 0.95, "watch", "stay apart:"),
        (0.52, 0.27, "bad", "not above chance"),
        (None, 0.27, "unknown", "not known (one class)"),
        (0.9, None, "good", "Mixing of experiments is not known"),
    ],
)
def test_one_embedding_is_judged_by_biology_first(probe, mixing, level, words):
    line, figures = verdict([scored("a", probe, mixing)], "state", ["third"])
    assert line.level == level
    assert words in line.text
    assert "scored on cells of third" in figures.text


def test_a_linear_probe_that_still_tells_experiments_is_mentioned():
    line, _ = verdict([scored("a", 0.9, 0.27, measures={"experiment_probe": Score(0.97, 0.95, 0.99, 0.25)})], "state")
    assert line.text.endswith("chance 0.25; a linear probe at 0.970.")


def cells():
    t = np.tile(np.arange(5), 6)
    track = np.repeat(np.arange(6), 5)
    obs = pd.DataFrame(
        {"experiment": np.where(track < 4, "one", "two"), "fov_name": "A/1/0", "track_id": track, "t": t}
    )
    obs = obs.assign(hours_post_infection=2 + 0.25 * t, state=np.where(t > 2, "late", "early"))
    return Embedded("e", np.stack([t, np.zeros(30)], axis=1).astype(np.float32), obs)


def test_cells_are_counted_by_experiment_and_label():
    table = cells_table(cells(), "state", ["two"])
    assert table.rows == [
        ("one", "early", "12", "4", "1", "3", "2 to 2.5 h"),
        ("one", "late", "8", "4", "1", "2", "2.75 to 3 h"),
        ("two (held out)", "early", "6", "2", "1", "3", "2 to 2.5 h"),
        ("two (held out)", "late", "4", "2", "1", "2", "2.75 to 3 h"),
    ]


def test_a_straight_walk_moves_by_the_square_of_the_lag():
    table = displacement_table([cells()])
    # Places 0 to 4, equally often, have a variance of 2: the mean square between unrelated cells is 4.
    assert table.rows == [("e", f"{1 / 4:.3f}", f"{4 / 4:.3f}", f"{16 / 4:.3f}")]
    assert table.columns[1:] == ("1 frame\n15 min", "2 frames\n30 min", "4 frames\n1 h")
    still = cells()
    assert displacement_table([still.without(still.obs["t"].to_numpy() > 0, "later")]) is None


def test_what_is_left_out_of_all_is_said_once():
    same, own = LeftOut("no label", 7, ("x/y",)), LeftOut("not finite", 2)
    table = left_out_table([scored("a", 0.9, 0.3, left_out=(same,)), scored("b", 0.9, 0.3, left_out=(same, own))])
    assert table.rows == [("all", "7", "no label", "x/y"), ("b", "2", "not finite", "")]


def test_origins_name_checkpoint_data_and_versions_with_their_hashes():
    source = {"store": "p.zarr", "observations": 1200, "digest": "d1"}
    checkpoint = {"path": "best.ckpt", "blake2b": "b2", "epoch": 3}
    origin = {"checkpoint": checkpoint, "date": "2026-01-01", "versions": {"torch": "2.9"}, "sources": [source]}
    rows = [scored("a", 0.9, 0.3, origin=origin), scored("b", 0.9, 0.3)]
    encoders, data = origin_tables(rows)
    assert encoders.rows == [("a", "best.ckpt\nepoch 3", "2026-01-01", "b2")]
    assert data.rows == [("p.zarr", "1,200", "d1")]
    assert versions_table(rows).rows == [("torch", "2.9")]
    assert list(origin_tables(rows[1:])) == []
    assert versions_table(rows[1:]) is None
