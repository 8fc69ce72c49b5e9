"""Curves: the numbers of their functions, chance beside them, and why one is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from viscy_utils.evaluation.comparison import compare
from viscy_utils.evaluation.curves import CURVES, curve_records
from viscy_utils.evaluation.curves_picture import curves_figure, draw_curves
from viscy_utils.evaluation.distance import mean_squared_displacement
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.smoothness import smoothness_by_time


def _embedded(name="made up", n_tracks=60, n_frames=6):
    """Two experiments of 3 FOVs; half of the tracks are infected and move away."""
    rng = np.random.default_rng(0)
    track, t = np.repeat(np.arange(n_tracks), n_frames), np.tile(np.arange(n_frames), n_tracks)
    infected = track % 2 == 0
    features = rng.normal(size=(n_tracks, 6))[track] + 0.3 * rng.normal(size=(len(track), 6))
    features[:, 0] += t * infected
    obs = pd.DataFrame(
        {
            "experiment": np.where(track < n_tracks // 2, "<first>", "second"),
            "fov_name": np.array(["A/1/0", "A/1/1", "A/1/2"])[track // 2 % 3],
            "track_id": track,
            "t": t,
            "state": np.where(infected, "infected", "healthy"),
        }
    )
    return Embedded(name, features.astype(np.float32), obs)


@pytest.fixture(scope="module")
def row():
    return compare([_embedded()], "state")[0]


def test_every_curve_is_there_with_chance_and_is_of_its_function(row):
    cells = _embedded()
    found = {curve.measure: curve for curve in row.curves}
    assert list(found) == [kind.name for kind in CURVES]
    assert not row.notes
    assert all(np.isfinite(curve.chance).all() and len(curve.x) for curve in row.curves)
    t = cells.obs["t"].to_numpy()
    table = smoothness_by_time(cells.features, cells.tracks, t)
    for name in ("smoothness", "dynamic_range"):
        assert found[name].x == tuple(table.index)
        np.testing.assert_allclose(found[name].value, table[name])
    moved = mean_squared_displacement(cells.features, cells.tracks, t)
    np.testing.assert_allclose(found["displacement"].value, moved["relative"])
    late = [curve for curve in row.curves if curve.measure == "mmd"]
    assert [curve.part for curve in late] == [f"{day}, healthy against infected" for day in ("<first>", "second")]
    assert all(curve.value[-1] > curve.chance[-1] and curve.value[-1] > curve.value[0] for curve in late)
    efficiency = found["annotation_efficiency"]
    assert efficiency.x[0] == 2
    assert np.all(np.diff([efficiency.low, efficiency.value, efficiency.high], axis=0) >= 0)


def test_a_record_per_point(row):
    records = list(curve_records({"made up": row.curves}))
    assert len(records) == sum(len(curve.x) for curve in row.curves)
    assert list(records[0]) == ["name", "measure", "part", "x", "value", "low", "high", "chance"]


def test_curves_that_are_missing_say_why():
    cells = _embedded()
    still = replace(cells, features=cells.features[::6], obs=cells.obs[::6].assign(state="healthy"))
    (row,) = compare([still], "state")
    assert not row.curves
    assert len(row.notes) == len(CURVES)
    assert "no curve of displacement: no track has two frames" in row.notes
    assert curves_figure([row], "state") is None


def test_both_pictures_show_all_panels_and_names_as_text(row):
    rows = [row, replace(row, name="<b>other</b>")]
    figure = Figure()
    draw_curves(figure, rows, "state")
    panels = [axis for axis in figure.axes if axis.get_title(loc="left")]
    assert len(panels) == len(CURVES)
    assert [len(axis.lines) for axis in panels] == [4, 8, 4, 4, 4]
    pytest.importorskip("plotly")
    page = curves_figure(rows, "state")
    assert len(page.data) == 24
    assert [trace.name for trace in page.data if trace.showlegend] == ["made up", "&lt;b&gt;other&lt;/b&gt;"]
    assert "<first>" not in page.to_json()


def test_tracks_stay_whole_where_some_are_looked_at():
    cells = _embedded()
    some = cells.whole_tracks(100)
    assert len(some.obs) <= 120
    assert (some.obs.groupby(["experiment", "fov_name", "track_id"]).size() == 6).all()
    assert cells.whole_tracks(10_000) is cells
