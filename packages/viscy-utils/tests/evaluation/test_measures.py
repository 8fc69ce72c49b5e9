"""All measures of a report at once: each has a value or a reason, and says what was built into the cells."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from viscy_utils.evaluation.comparison import (
    Comparison,
    compare,
    comparison_records,
    main_table,
    measures_table,
)
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.measures import MEASURES
from viscy_utils.evaluation.origins import patch_side
from viscy_utils.evaluation.scores import Score


def _embedded(shift=0.0, state=3.0, n_experiments=2, seed=0):
    """Tracks of 5 frames in 4 FOVs of each experiment; half of the lineages are infected."""
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(120), 5)
    fov, infected = track % (4 * n_experiments), rng.integers(2, size=120)[track]
    features = rng.normal(size=(120, 6))[track] + 0.3 * rng.normal(size=(600, 6))
    features[:, 0] += state * infected
    features[:, 1] += shift * (fov % n_experiments)
    obs = pd.DataFrame(
        {
            "experiment": [f"day {n}" for n in fov % n_experiments],
            "fov_name": [f"A/1/{n}" for n in fov],
            "track_id": track,
            "t": np.tile(np.arange(5), 120),
            "y": rng.uniform(0, 900, 600),
            "x": rng.uniform(0, 900, 600),
            "state": np.where(infected, "infected", "healthy"),
        }
    )
    return Embedded("made up", features.astype(np.float32), obs)


def test_every_measure_has_a_value_and_follows_what_was_built_in():
    mixed, apart = (compare([_embedded(shift)], "state")[0].measures for shift in (0, 8))
    assert list(mixed) == [measure.name for measure in MEASURES]
    missing = {name: score.note for name, score in mixed.items() if np.isnan(score.value)}
    assert missing.pop("onset_error").endswith("0 and 0")  # no track changes its state
    assert missing == dict.fromkeys(("division_auroc", "division_step_auroc"), "no column parent_track_id")
    for name in ("ilisi", "kbet", "asw_batch"):
        assert apart[name].value < mixed[name].value - 0.1
    for name in ("experiment_probe", "experiment_probe_auroc", "separability_auroc"):
        assert apart[name].value > 0.9 > mixed[name].value
    dull = compare([_embedded(state=0)], "state")[0].measures
    for name in (
        "probe_macro_f1",
        "probe_auroc",
        "knn_purity",
        "asw_label",
        "mmd",
        "cluster_label_nmi",
        "cluster_label_ari",
    ):
        assert dull[name].value < mixed[name].value - 0.1
    assert mixed["lineage_map"].low > mixed["lineage_map"].chance


def test_measures_of_a_single_experiment_say_why_they_are_missing():
    (row,) = compare([_embedded(n_experiments=1)], "state")
    missing = {name for name, score in row.measures.items() if np.isnan(score.value)}
    assert {"experiment_probe", "ilisi", "kbet", "asw_batch"} <= missing
    assert all(row.measures[name].note for name in missing)
    assert "probe_auroc" not in missing
    assert "not computed: a single batch" in measures_table([row], "state").markdown()


def test_the_record_holds_each_measure_with_interval_and_chance():
    (record,) = comparison_records(compare([_embedded()], "state"))
    for measure in MEASURES:
        assert {measure.name, f"{measure.name}_low", f"{measure.name}_high", f"{measure.name}_chance"} <= set(record)


def test_the_same_cells_give_the_same_numbers():
    first, second = (compare([_embedded()], "state", max_cells=300) for _ in range(2))
    assert repr(first) == repr(second)  # NaN is no equal of itself


@pytest.mark.parametrize("data", [None, json.dumps({"settings": {"final_yx_patch_size": [64, 96]}})])
def test_the_size_of_crops_is_read_from_the_origin(data):
    origin = {"origin": {} if data is None else {"data": data}}
    cells = Embedded("made up", np.zeros((1, 1)), pd.DataFrame(), origin=origin)
    assert patch_side(cells) == (None if data is None else 96)


def test_parents_are_tracks_of_the_same_field():
    obs = pd.DataFrame(
        {
            "experiment": "day",
            "fov_name": ["A/1/0", "A/1/0", "A/1/1", "A/1/1", "A/1/1"],
            "track_id": [1, 2, 1, 2, 3],
            "t": 0,
            "parent_track_id": [-1, 1, np.nan, 1, 7],
        }
    )
    cells = Embedded("made up", np.zeros((5, 1)), obs)
    assert cells.parents.tolist() == [-1, cells.tracks[0], -1, cells.tracks[2], -1]


def test_the_main_scores_fit_a_terminal_of_80_columns():
    scored = Score(0.8461, 0.7971, 0.8944, 1 / 3, "a long note that the page has")
    found = {measure.name: scored for measure in MEASURES}
    best = replace(scored, value=0.9, low=0.85, high=0.94)
    rows = [
        Comparison("PCA of normalised pixels", best, scored, 0.3, 100, measures=found),
        Comparison("untrained", scored, scored, 0.4, 100, measures=found),
    ]
    page = io.StringIO()
    Console(file=page, width=80).print(main_table(rows, "infection").terminal())
    lines = page.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    (line,) = (line for line in lines if "0.900 [0.850, 0.940], chance 0.33" in line)
    assert "PCA of normalised pixels (best)" in line
    assert sum("0.846 [0.797, 0.894], chance 0.33" in line for line in lines) == 3 + 2 * 5
    assert len(lines) < 50
    assert "long note" not in page.getvalue()
