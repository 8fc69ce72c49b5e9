"""The report as a page: what is in it, and what a browser draws of it."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from viscy_data.stores import FovKey, PlateWriter, read_fov, read_stack
from viscy_utils.evaluation.atlas import make_atlas
from viscy_utils.evaluation.cell_images import read_cell_images
from viscy_utils.evaluation.comparison import Comparison
from viscy_utils.evaluation.embedded import Embedded, LeftOut
from viscy_utils.evaluation.embedding_pictures import Layout
from viscy_utils.evaluation.measures import MEASURES
from viscy_utils.evaluation.report_page import most_cells, report_page
from viscy_utils.evaluation.scores import Score
from viscy_utils.reports.html.cell_map import color_columns
from viscy_utils.reports.html.packing import pack, script_json
from viscy_utils.reports.html.thumbnails import make_sheets
from viscy_utils.reports.tables import Marked, ReportTable

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;"
EXPERIMENTS = ("first", "second", EVIL)
N_FRAMES, SIZE = 10, 64


def unpacked(packed):
    kinds = {"u1": "<u1", "u2": "<u2", "u4": "<u4", "i4": "<i4", "f4": "<f4"}
    return np.frombuffer(base64.b64decode(packed["base64"]), kinds[packed["kind"]])


def make_plate(path, n_fovs, size):
    """Write noise, which compresses worst, with a constant frame number added in the second channel."""
    rng = np.random.default_rng(0)
    with PlateWriter(path, ["Phase", "GFP"]) as plate:
        for fov in range(n_fovs):
            pixels = rng.integers(0, 4000, (N_FRAMES, 2, 1, size, size)).astype(np.uint16)
            plate.write(f"A/1/{fov}", pixels)


def origin(store, size, weights="ab12"):
    images = [
        {"experiment": name, "channels": ["Phase", "GFP"], "z_range": [0, 1], "yx_size": [size] * 2}
        for name in EXPERIMENTS
    ]
    source = {"store": str(store), "fovs": 3, "observations": 9, "digest": "d1", "images": images}
    checkpoint = {"path": "runs/a/best.ckpt", "blake2b": weights, "epoch": 3, "step": 70}
    stored = {"checkpoint": checkpoint, "date": "2026-03-01T10:00:00+00:00", "config": f"data: {EVIL}"}
    return {"origin": stored | {"versions": {"torch": "2.7"}, "data": json.dumps({"sources": {"predict": [source]}})}}


def make_cells(n_tracks, store, size=16, image=SIZE, seed=0):
    """Cells of three experiments: tracks of ten frames, the second half of them born of the first half."""
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(n_tracks), N_FRAMES)
    t = np.tile(np.arange(N_FRAMES), n_tracks)
    obs = pd.DataFrame(
        {
            "experiment": np.array(EXPERIMENTS)[track % 3],
            "fov_name": [f"A/1/{number}" for number in track % 3],
            "track_id": track,
            "t": t,
            "parent_track_id": np.where(track >= n_tracks // 2, track - n_tracks // 2, -1),
            "y": rng.uniform(0, image - 1, len(track)),
            "x": rng.uniform(0, image - 1, len(track)),
            "condition": np.where(track % 2, "virus", "mock"),
            "hours_post_infection": 3 + 0.5 * t,
            "lineage_id": [f"lineage {number}" for number in track],
            "infection": np.where(t > 5, "infected", "healthy"),
        }
    )
    features = rng.normal(size=(len(obs), 4)).astype(np.float32)
    features[:, 0] += 3 * (t > 5)
    return Embedded("trained", features, obs, origin=origin(store, size))


def comparison(name, probe, mixing, origin_of=None):
    score = Score(probe, probe - 0.05, probe + 0.05, 0.5, "trained on the other experiments", 90)
    left_out = (LeftOut("no infection", 7, (f"{EVIL}/A/1/0/2/1",)),)
    mixed = Score(mixing, mixing - 0.05, mixing + 0.05, 1 / 3, "3 folds over FOVs", 90)
    measures = {measure.name: Score.missing("no lineages") for measure in MEASURES}
    return Comparison(name, score, mixed, 0.3, 90, left_out, ("one note",), origin_of or {}, measures)


def make_page(embedded, held_out=("second",), n_laid_out=200):
    atlas = make_atlas(embedded, most_cells(embedded), 60)
    # No t-SNE: how points are laid out is none of the page's business.
    layouts = []
    for number, each in enumerate(embedded):
        rows = atlas.rows[number][atlas.order]
        rows = np.sort(rows[rows >= 0][:n_laid_out])
        layouts.append(Layout(rows, each.features[rows, :2]))
    scores = [
        comparison(each.name, 0.9 - 0.2 * n, 0.4 + 0.3 * n, each.origin["origin"]) for n, each in enumerate(embedded)
    ]
    return report_page(embedded, scores, "infection", atlas, layouts, held_out=held_out)


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    path = tmp_path_factory.mktemp("plate") / "plate.zarr"
    make_plate(path, 3, SIZE)
    return path


@pytest.fixture
def embedded(plate):
    cells = make_cells(30, plate)
    other = make_cells(30, plate, seed=1)
    rows = np.arange(len(cells.obs))[::-1][:240]  # fewer cells, in another order
    return [
        cells,
        Embedded(
            "untrained",
            other.features[rows],
            cells.obs.iloc[rows].reset_index(drop=True),
            origin=origin(plate, 16, "cd"),
        ),
    ]


@pytest.fixture
def page_file(embedded, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(make_page(embedded), encoding="utf8")
    return path


@given(st.lists(st.integers(-(2**31), 2**31 - 1)) | st.lists(st.integers(0, 300)) | st.lists(st.floats(width=32)))
def test_packed_numbers_are_read_back(values):
    array = np.array(values, np.float32 if any(isinstance(value, float) for value in values) else np.int64)
    np.testing.assert_array_equal(unpacked(pack(array)), array)


@given(st.dictionaries(st.text(), st.text() | st.just(EVIL)))
def test_json_in_a_script_is_the_same_and_ends_no_script(content):
    text = script_json(content)
    assert json.loads(text) == content
    assert not set("<>&\u2028\u2029") & set(text)


def test_tables_escape_names_and_show_judgements():
    page = ReportTable(EVIL, [EVIL], [[Marked(f"{EVIL}\nnext", "bad")]]).html()
    assert "<script" not in page
    assert "<img" not in page
    assert '<span class="bad">' in page
    assert "&amp;amp;<br>next" in page


def test_sheets_hold_the_images_in_order_and_stay_within_their_bytes():
    levels = np.linspace(0, 255, 300).astype(np.uint8)
    pixels = np.broadcast_to(levels[:, None, None, None], (300, 2, 20, 24)).copy()
    pixels[:, 1] = 255 - pixels[:, 1]
    sheets = make_sheets(pixels, np.arange(300) + 5, ("a", "b"), 10**6)
    assert sheets.size == (20, 24)
    assert sheets.cells.tolist() == list(range(5, 305))
    record = sheets.record("none")
    for number in (0, 17, 255, 256, 299):
        sheet, place = divmod(number, record["columns"] ** 2)
        picture = np.asarray(Image.open(BytesIO(base64.b64decode(sheets.sheets[sheet].partition(",")[2]))))
        top, left = place // record["columns"] * 20, place % record["columns"] * 48
        tile = picture[top : top + 20, left : left + 48].astype(int)
        assert abs(tile[4:-4, 4:20].mean() - levels[number]) < 6
        assert abs(tile[4:-4, 28:44].mean() - (255 - levels[number])) < 6
    fewer = make_sheets(pixels, np.arange(300), ("a", "b"), len(sheets.sheets[0]) + 10)
    assert len(fewer.sheets) == 1
    assert fewer.cells.tolist() == list(range(256))
    large = make_sheets(np.zeros((1, 1, 200, 100), np.uint8), np.arange(1), ("a",), 10**6)
    assert large.size == (48, 24)


def test_images_are_those_of_the_cells(plate):
    cells = make_cells(6, plate)
    rows = np.array([41, 3, 25])
    found = read_cell_images(cells, rows)
    assert found.rows.tolist() == [3, 25, 41]
    assert found.channels == ("Phase", "GFP")
    assert found.pixels.shape == (3, 2, 16, 16)
    for number, row in enumerate(found.rows):
        cell = cells.obs.iloc[row]
        fov = read_fov(FovKey(str(plate), cell["fov_name"]))
        y, x = (int(np.clip(np.floor(cell[axis] + 0.5) - 8, 0, SIZE - 16)) for axis in "yx")
        for channel in (0, 1):
            window = np.asarray(read_stack(fov, int(cell["t"]), channel), float)[0, y : y + 16, x : x + 16]
            # Shown brightness is a straight line of counts, but for the ends.
            shown = found.pixels[number, channel].astype(float)
            inside = (shown > 0) & (shown < 255)
            assert np.corrcoef(shown[inside], window[inside])[0, 1] > 0.999


@pytest.mark.parametrize("what", ["places", "origin", "store"])
def test_embeddings_whose_images_are_not_at_hand_say_so(plate, tmp_path, what):
    cells = make_cells(6, tmp_path / "gone.zarr" if what == "store" else plate)
    if what == "places":
        cells.obs.pop("y")
    if what == "origin":
        cells.origin.clear()
    found = read_cell_images(cells, np.arange(4))
    assert len(found.rows) == 0
    words = {"places": "lack the columns y", "origin": "do not say", "store": "gone.zarr"}[what]
    assert any(words in note for note in found.notes)


def test_an_atlas_finds_the_cells_of_every_embedding(embedded):
    atlas = make_atlas(embedded, 100_000, 60)
    assert atlas.n_cells == len(atlas.cells) == 300
    for each, rows in zip(embedded, atlas.rows, strict=True):
        here = rows >= 0
        assert sorted(rows[here]) == list(range(len(each.obs)))
        for column in ("experiment", "track_id", "t", "y"):
            assert atlas.cells[column][here].tolist() == each.obs[column].iloc[rows[here]].tolist()
    first = atlas.cells.iloc[atlas.order[:60]]
    assert first.groupby("track_id").size().tolist() == [N_FRAMES] * 6  # whole tracks
    few = make_atlas(embedded, 100, 60)
    assert (len(few.cells), few.n_cells) == (100, 300)
    assert sorted(few.order) == list(range(100))


def test_columns_that_colour_are_classes_and_numbers_but_no_identities():
    cells = make_cells(60, "plate").obs
    columns, notes = color_columns(cells, ("infection",))
    assert columns[0] == "infection"
    assert set(columns) == {"infection", "experiment", "fov_name", "t", "condition", "hours_post_infection"}
    assert notes == ["colours that the map does not offer: lineage_id (60 classes)"]


def test_the_page_is_the_same_for_the_same_embeddings(embedded, page_file):
    assert make_page(embedded) == page_file.read_text(encoding="utf8")


def test_a_label_of_numbers_is_shown_as_classes(plate, tmp_path):
    cells = make_cells(12, plate)
    cells.obs["infection"] = (cells.obs["t"] > 5).astype(int) + 1
    text = make_page([cells])
    data = json.loads(text.partition('id="map-data">')[2].partition("</script>")[0])
    (column,) = (column for column in data["columns"] if column["title"] == "infection")
    assert [entry["name"] for entry in column["classes"]] == ["1", "2"]
    assert [entry["count"] for entry in column["classes"]] == ["72", "48"]


class _Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_no_name_becomes_markup_and_nothing_is_loaded_from_elsewhere(page_file):
    parser = _Elements()
    parser.feed(page_file.read_text(encoding="utf8"))
    assert not [tag for tag, _ in parser.found if tag in ("img", "link", "iframe", "object", "embed", "base")]
    assert not [attrs for _, attrs in parser.found if "src" in attrs or "onerror" in attrs]
    assert all(attrs.get("href", "#").startswith("#") for _, attrs in parser.found)
    assert sum(tag == "script" for tag, _ in parser.found) == 4  # plotly, the data, the map, the second figure


INSIDE = """(() => {
  const box = (element) => element.getBoundingClientRect();
  const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
  const map = box(document.querySelector('#map .nsewdrag')), legend = box(document.getElementById('map-legend'));
  const mixing = box(document.querySelector('#biology-mixing .nsewdrag'));
  const second = box(document.querySelector('#biology-mixing .legend'));
  return [apart(map, legend), legend.width > 0, apart(mixing, second), second.width > 0,
          document.documentElement.scrollWidth <= window.innerWidth];
})()"""


def test_a_browser_draws_cells_tracks_and_images_and_asks_for_nothing(page_file, open_page, tmp_path):
    page = open_page(page_file)
    assert page.value("document.getElementById('map').data.map((trace) => [trace.type, trace.mode])") == [
        ["scattergl", "markers"], ["scattergl", "markers"], ["scattergl", "lines"],
    ]  # fmt: skip
    counts = "document.getElementById('map').data.slice(0, 2).map((trace) => trace.x.length)"
    assert sum(page.value(counts)) == 200  # what is laid out, of 300 cells
    options = "[...document.querySelectorAll('#%s option')].map((option) => option.textContent)"
    views = page.value(options % "map-view")
    assert views == [f"{name}: {way}" for name in ("trained", "untrained") for way in ("t-SNE", "principal components")]
    colours = page.value(options % "map-color")
    assert colours[:3] == ["infection", "experiment", "hours post infection"]
    assert set(colours[3:]) == {"condition", "fov_name", "frame", "lineage_id"}
    choose = (
        "(() => {{ const s = document.getElementById('{}'); s.value = '{}'; s.dispatchEvent(new Event('change')); }})()"
    )
    page.value(choose.format("map-view", 1))
    assert page.value(counts) == [200, 100]  # every cell; those of "second" are triangles
    assert page.value("document.getElementById('map').data[1].marker.symbol") == "triangle-up"
    assert "▲ held out: second" in page.value("document.getElementById('map-legend').innerText")
    page.value(choose.format("map-color", 1))
    legend = page.value("document.getElementById('map-legend').innerText")
    assert EVIL in legend
    assert "▲" in legend
    page.value("document.querySelector('#map-legend button.class').click()")
    assert sum(page.value(counts)) == 200
    page.value("document.querySelector('#map-legend button.class').click()")
    page.value(choose.format("map-tracks", "all"))
    assert page.value("document.getElementById('map').data[2].x.filter((x) => x === null).length") == 30
    assert page.value(INSIDE) == [True] * 5
    point_at_first_cell(page)
    card = page.value("document.getElementById('map-card').innerText")
    assert "track " in card
    assert "hours post infection" in card
    assert page.value("document.querySelector('#map-card canvas').width") == 32
    page.screenshot(tmp_path / "report.png")
    page.resize(420, 900)
    page.wait_for("window.innerWidth === 420")
    page.wait_for(f"{INSIDE}.every(Boolean)", 20)
    page.screenshot(tmp_path / "report_on_a_phone.png")
    assert page.requests() == []
    assert page.errors() == []
    assert page.value("fetch('https://example.org').then(() => 'left the page', () => 'refused')") == "refused"


def point_at_first_cell(page):
    x, y = page.value("""(() => {
      const map = document.getElementById('map'), { xaxis, yaxis } = map._fullLayout;
      map.scrollIntoView({ block: "center" });
      const box = map.getBoundingClientRect(), [trace] = map.data;
      return [box.left + xaxis._offset + xaxis.d2p(trace.x[0]), box.top + yaxis._offset + yaxis.d2p(trace.y[0])];
    })()""")
    page.point_at(x, y)
    page.wait_for("!document.getElementById('map-card').hidden", 20)


@pytest.mark.slow
def test_a_hundred_thousand_cells_of_eight_embeddings_stay_below_30_megabytes(tmp_path):
    make_plate(tmp_path / "plate.zarr", 3, 256)
    cells = make_cells(11_000, tmp_path / "plate.zarr", size=96, image=256)
    many = [Embedded(f"embedding {n}", cells.features + n, cells.obs, origin=cells.origin) for n in range(8)]
    text = make_page(many, n_laid_out=2000)
    assert len(text.encode()) < 30e6
    assert "the maps show 100,000 of 110,000 cells" in text
    assert "have one, to keep the page small" in text
    (tmp_path / "report.html").write_text(text, encoding="utf8")
