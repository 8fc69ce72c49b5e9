"""What `dynaclr inspect-batches` says is what the batches hold."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from matplotlib import image

from dynaclr.commands.inspect_batches import inspect_batches
from dynaclr.config import load_data_module
from dynaclr.inspection import inspect_data
from dynaclr.pair_page import example_pairs
from viscy_data.errors import InputError
from viscy_utils.embeddings.store import build_anndata, observation_table, write_anndata

DATA = """
data:
  class_path: dynaclr.datamodule.MultiExperimentDataModule
  init_args:
    {experiments_yaml: x.yml, val_experiments: [], z_range: [0, 1], yx_patch_size: [8, 8], final_yx_patch_size: [8, 8]}
"""


@pytest.fixture
def experiments(encoded_experiments):
    return encoded_experiments()


@pytest.fixture
def encoding(experiments):
    return experiments.encoding


@pytest.fixture
def config(experiments, tmp_path):
    """Return a factory of configs as for fit."""

    def make(name="fit.yml", **options):
        settings = {
            "experiments_yaml": str(experiments.yaml),
            "z_range": [1, 3],
            "yx_patch_size": [8, 12],
            "final_yx_patch_size": [6, 8],
            "val_experiments": [],
            "batch_size": 4,
            "num_workers": 0,
        }
        data = {"class_path": "dynaclr.datamodule.MultiExperimentDataModule", "init_args": settings | options}
        path = tmp_path / name
        path.write_text(yaml.safe_dump({"seed_everything": 1, "trainer": {"max_epochs": 1}, "data": data}))
        return path

    return make


def run(*arguments):
    return CliRunner().invoke(inspect_batches, [str(argument) for argument in arguments], env={"COLUMNS": "120"})


def test_shares_coverage_tau_and_lost_tracks_are_printed_and_pairs_drawn(config, tmp_path):
    path = config(leaky=0.25, temporal_enrichment=True, experiment_weights={"first": 3.0, "second": 1.0})
    done = run("-c", path, "--batches", 40, "--ranks", 2, "--output", tmp_path / "out", "--pairs", 6)
    assert done.exit_code == 0, done.output
    assert re.search(r"experiment\W+first\W+75\.0%\W+\d+\.\d%", done.output)
    assert re.search(r"condition\W+infected\W+50\.0%\W+\d+\.\d%", done.output)
    assert re.search(r"temporal\W+focal\W+70\.0%", done.output)
    assert re.search(r"leak\W+from other experiments\W+25\.0%\W+25\.0%", done.output)
    assert re.search(r"anchors reached\W+\d+\.\d%", done.output)
    assert re.search(r"FOVs and frames in a batch\W+\d+\.\d", done.output)
    assert re.search(r"second\W+1\.00", done.output)  # hours: one frame of the slower experiment
    assert re.search(r"first\W+training\W+22\W+\d+\W+6\W+1 \(17%\)", done.output)  # the cell seen once
    assert image.imread(tmp_path / "out" / "pairs.png").std() > 0


def test_shares_of_near_neighbours_are_printed(config, tmp_path):
    data = load_data_module([config()])
    data.setup("fit")
    anchors = data.train_dataset.index.valid_anchors
    obs = observation_table(anchors[["experiment", "fov_name", "track_id", "t"]])
    features = np.random.default_rng(0).normal(size=(len(obs), 2))
    write_anndata(build_anndata(features, obs, {}), tmp_path / "e.zarr")
    path = config(neighbor_embeddings=str(tmp_path / "e.zarr"), neighbor_fraction=0.25)
    done = run("-c", path, "--output", tmp_path / "out", "--pairs", 2)
    assert done.exit_code == 0, done.output
    assert re.search(r"neighbors\W+near an anchor\W+25\.0%\W+\d+\.\d%", done.output)


def test_the_report_counts_what_the_batches_hold(config):
    data = load_data_module([config()])
    data.setup("fit")
    report = inspect_data(data, n_batches=12)
    sampler = data.train_sampler()
    batches = [sampler.batch(number % sampler.n_batches, number // sampler.n_batches) for number in range(12)]
    anchors = data.train_dataset.index.valid_anchors
    infected = sum((anchors["condition"].iloc[batch] == "infected").sum() for batch in batches)
    assert report.composition["condition"]["infected"]["delivered"] == infected
    epoch = {position for number in range(sampler.n_batches) for position in sampler.batch(number, 0).tolist()}
    assert report.coverage == len(epoch) / len(anchors)
    images = [len(anchors.iloc[batch][["experiment", "fov_name", "t"]].drop_duplicates()) for batch in batches]
    assert report.images == np.mean(images)
    assert report.lineages == np.mean([anchors["lineage_id"].iloc[batch].nunique() for batch in batches])
    assert report.tau_hours.loc["second"].between(1.0, 2.0).all()
    assert report.tracks["anchors"].sum() == len(anchors)


def test_tracks_are_described_as_a_walk_through_them_finds(config):
    data = load_data_module([config(val_experiments=["second"])])
    data.setup("fit")
    found = inspect_data(data, n_batches=1).tracks
    for side, dataset in (("training", data.train_dataset), ("validation", data.val_dataset)):
        index = dataset.index
        frames = {}
        for row, t in zip(index.track_index, index.tracks["t"], strict=True):
            frames.setdefault(row, set()).add(t)
        missing = [len(set(range(min(own), max(own) + 1)) - own) for own in frames.values()]
        parents = index.forest.parent.tolist()
        own = found[found["side"] == side].iloc[0]
        assert own["tracks"] == len(frames)
        assert own["frames"] == np.median([len(own) for own in frames.values()])
        assert (own["with_gaps"], own["missing"]) == (sum(n > 0 for n in missing), sum(missing))
        assert own["divisions"] == sum(parents.count(row) > 1 for row in frames)


def test_a_condition_that_an_experiment_lacks_explains_the_shortfall(config, experiments):
    listed = yaml.safe_load(experiments.yaml.read_text())
    wells = {well for own in listed["experiments"][0]["condition_wells"].values() for well in own}
    listed["experiments"][0]["condition_wells"] = {"infected": sorted(wells)}
    experiments.yaml.write_text(yaml.safe_dump(listed))
    done = run("-c", config(), "--batches", 40, "--pairs", 0)
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.replace("│", " ").split())
    assert re.search(r"condition 'uninfected': asked 50%, delivered \d+%: it coincides with the experiment", text)
    assert "none of it in first" in text


def test_patches_at_the_border_are_counted_and_measured(config):
    data = load_data_module([config(final_yx_patch_size=[8, 12], val_experiments=["second"])])
    data.setup("fit")
    border = inspect_data(data, n_batches=1).border
    for side, dataset in (("training", data.train_dataset), ("validation", data.val_dataset)):
        shifts = []
        for row in dataset.index.tracks.itertuples():
            own = []
            for center, size, extent in ((row.y, 8, 40), (row.x, 12, 48)):
                free = int(np.floor(center + 0.5)) - size // 2
                own.append(abs(min(max(free, 0), extent - size) - free))
            shifts.append(max(own))
        found = border[border["side"] == side].iloc[0]
        moved = [shift for shift in shifts if shift]
        assert found["observations"] == len(shifts)
        assert (found["moved"], found["median"], found["most"]) == (len(moved), np.median(moved), max(moved))
    fewer = load_data_module([config("fewer.yml", final_yx_patch_size=[8, 12], max_border_shift=0)])
    fewer.setup("fit")
    assert inspect_data(fewer, n_batches=1).border["left_out"].tolist() == [border["moved"].sum()] * 2


def test_drawn_pairs_are_those_that_their_titles_name(config):
    data = load_data_module([config()])
    data.setup("fit")
    pairs = example_pairs(data, 8)
    assert pairs.anchor.shape == pairs.positive.shape == (8, 2, 6, 8)
    assert sum("first" in title for title in pairs.titles) == 4
    assert all(
        names[1] == ("GFP" if "first" in title else "RFP")
        for names, title in zip(pairs.channels, pairs.titles, strict=True)
    )
    assert not np.array_equal(pairs.anchor, pairs.positive)


def test_captions_and_marks_are_those_of_the_cells_whose_pixels_are_drawn(config, encoding):
    """Every pixel says where it comes from: the marked ones must come from where the cells were."""
    data = load_data_module([config()])
    data.setup("fit")
    pairs = example_pairs(data, 24)
    cells = data.train_dataset.index.tracks
    n_marked = 0
    for number, title in enumerate(pairs.titles):
        experiment, _, fov, track = re.fullmatch(r"(\w+), (\w+)\n(\S+), track (\d+)", title).groups()
        hours, unit = re.fullmatch(
            r"(\S+) (min|h|s) (?:after infection|into the recording)", pairs.captions[number][0]
        ).groups()
        own = cells[(cells["experiment"] == experiment) & (cells["fov_name"] == fov)]
        for role, images in enumerate((pairs.anchor, pairs.positive)):
            y, x = pairs.places[number, role]
            origin = encoding.decode(images[number, 0, y, x])
            row = own[own["t"] == origin.t]
            place = np.floor(row[["y", "x"]].to_numpy() + 0.5)
            assert [origin.y, origin.x] in place.tolist()
            if role == 0:
                assert int(track) in row["track_id"].to_list()
                expected = row["hours_post_infection"].iloc[0]
                assert float(hours) * {"s": 1 / 3600, "min": 1 / 60, "h": 1}[unit] == pytest.approx(expected, rel=0.05)
            n_marked += 1
    assert n_marked == 2 * len(pairs.titles)


def test_a_later_config_changes_single_keys(config, tmp_path):
    change = tmp_path / "change.yml"
    change.write_text(yaml.safe_dump({"data": {"init_args": {"batch_size": 7}}}))
    data = load_data_module([config(seed=3), change])
    assert (data.batch_size, data.seed) == (7, 3)


def test_an_existing_page_is_kept_unless_told(config, tmp_path):
    (tmp_path / "pairs.png").write_text("mine")
    done = run("-c", config(), "--output", tmp_path)
    assert done.exit_code == 2
    assert "--overwrite" in done.output
    assert (tmp_path / "pairs.png").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("- 1", "found    a list without keys"),
        ("seed_everything: 1", "field data"),
        (f"{DATA}\nfoo: 3", "field foo\n  found    an unknown key"),
        (f"{DATA}\nfoo: {{}}", "field foo\n  found    an unknown key"),
        ("data: {}\ndata: {}", "field data\n  found    given twice, in lines 1 and 2"),
        ("data: {class_path: dynaclr.datamodule.MultiExperimentDataModule, init_args: {batch_sise: 3}}", "batch_sise"),
    ],
)
def test_configs_that_cannot_be_used_are_input_errors(tmp_path, content, message):
    path = tmp_path / "broken.yml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_data_module([path])


def test_bad_data_is_one_paragraph_and_exit_code_2(config):
    done = run("-c", config(val_experiments=["frist"]))
    assert done.exit_code == 2
    assert "did you mean 'first'" in done.output
    assert "Traceback" not in done.output
