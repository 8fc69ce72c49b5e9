"""Pictures of embeddings: what stands in their titles and legends, and what is drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from viscy_utils.evaluation.comparison import compare
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.embedding_pictures import draw_embeddings, label_owner, project, time_axis
from viscy_utils.evaluation.image_tiles import Block, Tile, draw_blocks, scale_bar_length
from viscy_utils.reports.panels import draw_classes

Figure = pytest.importorskip("matplotlib.figure").Figure
FigureCanvasAgg = pytest.importorskip("matplotlib.backends.backend_agg").FigureCanvasAgg


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    track = np.repeat(np.arange(24), 3)
    obs = pd.DataFrame(
        {
            "experiment": np.where(track < 12, "first", "second"),
            "fov_name": np.array(["A/1/0", "A/1/1", "B/1/0", "B/1/1"])[track // 3 % 4],
            "track_id": track,
            "t": np.tile(np.arange(3), 24),
            "hours_post_infection": 3 + 0.5 * np.tile(np.arange(3), 24),
            "state": np.where(track % 2, "infected", "healthy"),
        }
    )
    return Embedded("trained", rng.normal(size=(72, 5)).astype(np.float32), obs)


def drawn(cells, **options):
    figure = Figure(layout="constrained", figsize=(15, 4))
    draw_embeddings(figure, [cells], compare([cells], "state"), "state", **options)
    FigureCanvasAgg(figure).draw()
    return figure


def test_titles_hold_score_chance_and_number_of_cells(cells):
    (score,) = compare([cells], "state")
    titles = [axis.get_title() for axis in drawn(cells).axes[:3]]
    assert f"state of the cell: probe\n{score.probe.value:.3f}" in titles[0]
    assert "chance 0.5, n = 72 cells" in titles[0]
    assert f"told from neighbours\n{score.separability.value:.3f}" in titles[1]
    assert titles[2] == f"hours post infection: smoothness {score.smoothness:.2f}"


def test_legends_are_beside_the_panels_and_mark_what_was_held_out(cells):
    figure = drawn(cells, held_out=["second"])
    renderer = figure.canvas.get_renderer()
    for axis in figure.axes[:2]:
        legend = axis.get_legend()
        assert legend.get_window_extent(renderer).x0 >= axis.get_window_extent(renderer).x1 - 1
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["first", "second (held out)"]


@pytest.mark.parametrize(("start", "name"), [(0, "hours"), (3, "hours post infection")])
def test_hours_are_those_post_infection_only_where_that_is_known(cells, start, name):
    obs = cells.obs.assign(hours_post_infection=start + 0.5 * cells.obs["t"])
    assert time_axis(obs)[0] == name
    assert time_axis(obs.drop(columns="hours_post_infection")) is None


def test_a_label_belongs_to_the_largest_place_that_it_is_constant_in(cells):
    wells = cells.obs["fov_name"].str[0]
    assert label_owner(cells.obs.assign(state=wells), "state") == "well"
    assert label_owner(cells.obs.assign(state=cells.obs["fov_name"]), "state") == "FOV"
    assert label_owner(cells.obs, "state") == "cell"


@pytest.mark.parametrize("n", [0, 1, 2, 4, 5, 9])
@pytest.mark.parametrize("n_features", [1, 2, 6])
def test_few_cells_have_places_too(n, n_features):
    points = project(np.random.default_rng(0).normal(size=(n, n_features)).astype(np.float32))
    assert points.shape == (n, 2)
    assert np.isfinite(points).all()


def test_more_classes_than_colours_are_counted():
    axis = Figure().subplots()
    draw_classes(axis, np.zeros((72, 2)), pd.Series([f"class {k % 30:02d}" for k in range(72)]))
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert len(texts) == 21
    assert texts[-1] == "and 10 more"


def test_a_scale_bar_has_its_length_in_the_units_of_the_image():
    figure = Figure()
    tiles = [Tile(np.zeros((20, 40)), um_per_px=size) for size in (0.5, 0.0)]
    draw_blocks([Block([tiles], [""], "title")], "", figure)
    for axis, (words, length) in zip(figure.axes, (("10 µm", 20), ("20 px", 20)), strict=True):
        assert axis.texts[0].get_text() == words
        (bar,) = axis.lines
        assert np.ptp(bar.get_xdata()) == length
        assert axis.get_xlim() == (-0.5, 39.5)
    assert figure.texts[0].get_text() == "title"


def test_a_place_is_marked_only_inside_of_the_image():
    figure = Figure()
    tiles = [Tile(np.zeros((8, 8)), place=place) for place in ((3.0, 2.0), (9.0, 2.0))]
    draw_blocks([Block([tiles], [""])], "", figure)
    inside, outside = figure.axes
    assert (inside.lines[0].get_xdata()[0], inside.lines[0].get_ydata()[0]) == (2.0, 3.0)
    assert not outside.lines


@pytest.mark.parametrize("width", [0.3, 1.0, 7.0, 64.0, 5000.0])
def test_scale_bars_are_round_and_fit(width):
    length = scale_bar_length(width)
    assert width / 5 <= length <= width / 2
    assert f"{length:e}"[0] in "125"
