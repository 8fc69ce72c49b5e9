"""The other commands: what they refuse, and that each ends by saying what it wrote and what to run next."""

from __future__ import annotations

import os
import re

import anndata
import pytest
import yaml

from dynaclr.cli import cli

pytest_plugins = ["viscy_data.testing.fixtures"]

STORE = "runs/trained/embeddings.zarr"
TABLE = "track_id,t,y,x,parent_track_id\n1,0,5,5,-1\n1,1,5,5,-1\n"


def _texts(**files):
    """Write files; in their names, _ stands for a point."""
    return lambda place: [place.write(name.replace("_", "."), text) for name, text in files.items()]


EVALUATE = f"evaluate -o report -e {STORE}"
PRECOMPUTE = "precompute --data_path first/images.zarr --output_path stack --channel_names [GFP] --divisors [std]"
CASES = [
    ("evaluate -o report", None, "no embeddings\n.*--embeddings PATH or --run RUN"),
    (f"evaluate -e {STORE}", None, "--output-dir"),
    ("evaluate -o report -e runs/trained/embedding.zarr", None, "nothing\n.*\n.*did you mean 'embeddings.zarr'"),
    ("evaluate -o report -e first/images.zarr", None, "an image store.*\n.*embeddings\n.*predict has written"),
    ("evaluate -o report -e fit.yml", None, "fit.yml\n.*a YAML file\n.*embeddings"),
    ("evaluate -o report -e first", None, "first\n.*no zarr group\n.*embeddings"),
    ("evaluate -o report -e runs/trained/checkpoints/last.ckpt", None, r"last.ckpt\n.*\(.ckpt\)\n.*embeddings"),
    (f"{EVALUATE} --label infection", None, "field label\n.*infection\n.*--labels"),
    (
        f"{EVALUATE} --label hours_post_infection",
        None,
        "hours_post_infection\n.*different numbers.*\n.*classes\n.*--labels",
    ),
    (f"{EVALUATE} --test-experiment secnd", None, "secnd\n.*first, second"),
    (f"{EVALUATE} --test-experiment first --test-experiment second", None, "all experiments.*\n.*left to train"),
    (f"{EVALUATE} --labels l.csv", None, "l.csv\n.*no such file"),
    (f"{EVALUATE} --labels l.csv", _texts(l_csv=""), "l.csv\n.*no table"),
    (f"{EVALUATE} --labels first", None, "first\n.*a folder where a file is to be"),
    (
        f"{EVALUATE} --labels l.csv --label a",
        _texts(l_csv="fov,cell,a\n1,2,b\n"),
        "l.csv.*track_id, t\n.*columns fov, cell",
    ),
    (
        f"{EVALUATE} --labels l.csv --label a",
        _texts(l_csv="experiment,fov_name,track_id,t,a\nx,A/1/0,0,0,b\n"),
        "l.csv\n.*x/A/1/0/0/0.*no annotation of any embedded cell\n.*first/A/1/0",
    ),
    (f"{EVALUATE} -e {STORE}", None, "a second store called 'embeddings'.*\n.*give names"),
    (EVALUATE, lambda place: place.write("report/report.json"), "report.json exists; .*--overwrite"),
    (EVALUATE, lambda place: place.write("report"), "report\n.*a file where a folder is to be"),
    ("evaluate -o report --run traind", None, "runs/traind.*\n.*\n.*did you mean 'trained'"),
    ("evaluate -o report --run latest", lambda place: (place.folder / "runs/trained").unlink(), "no run\n.*fit"),
    (f"{EVALUATE} --config p.yml", None, "p.yml\n.*no such file"),
    (f"{EVALUATE} --lable x", None, "No such option:? '?--lable"),
    ("init", None, "STORE"),
    ("init first/image.zarr -o new", None, "image.zarr\n.*\n.*\n.*did you mean 'images.zarr'"),
    ("init first/tracks -o new", None, "first/tracks\n.*without Zarr metadata"),
    (f"init {STORE} -o new", None, "embeddings.zarr\n.*without plate metadata"),
    ("init first/images.zarr second/images.zarr --tracks first/tracks -o new", None, "--tracks\n.*1 for 2 stores"),
    (
        "init first/images.zarr --tracks none -o new",
        None,
        "none.*--tracks\n.*no tracking table.*\n.*none/A/1/0/tracks.csv",
    ),
    ("init first/images.zarr -o new", None, "interval_minutes\n.*no frame interval.*\n.*\n.*--interval-minutes 30"),
    ("init first/images.zarr -o new --interval-minutes 0", None, "--interval-minutes.*0"),
    ("init first/images.zarr --interval-minutes 5", None, "experiments.yml\n.*a file\n.*\n.*--overwrite"),
    ("init first/images.zarr -o fit.yml", None, "fit.yml.* is a file"),
    ("import-tracks t.csv -o out", None, "--store"),
    (
        "import-tracks t.csv --store first/images.zarr -o out",
        None,
        "t.csv\n.*no FOV for it\n.*A/1/0, B/1/0\n.*A_1_0.csv",
    ),
    ("import-tracks A_1_0.csv --store first/images.zarr -o out", None, "A_1_0.csv\n.*nothing"),
    ("import-tracks t.csv --store first/image.zarr -o out", None, "image.zarr\n.*\n.*\n.*did you mean 'images.zarr'"),
    ("import-tracks t.csv --store fit.yml -o out", None, "fit.yml\n.*a file\n.*a folder"),
    ("import-tracks t.csv --store first/images.zarr -o out --map m.csv", None, "m.csv\n.*no such file"),
    (
        "import-tracks t.csv --store first/images.zarr -o out --map m.csv",
        _texts(m_csv="a,b\n1,2\n"),
        "columns a, b\n.*source",
    ),
    (
        "import-tracks t.csv --store first/images.zarr -o out --map m.csv --format trackmat",
        _texts(m_csv="source,fov\nt.csv,A/1/0\n", t_csv=TABLE),
        "format\n.*'trackmat'\n.*did you mean 'trackmate",
    ),
    (
        "import-tracks t.csv --store first/images.zarr -o out --map m.csv",
        _texts(m_csv="source,fov\nt.csv,A/1/0\n", t_csv="a,b\n1,2\n"),
        "t.csv\n.*columns a, b\n.*trackmate-csv",
    ),
    (
        "import-tracks A_1_0.csv --store first/images.zarr -o out",
        lambda place: (place.write("A_1_0.csv", TABLE), place.write("out/A/1/0/tracks.csv")),
        "tracks.csv\n.*a table\n.*\n.*--overwrite",
    ),
    ("build-index experiment.yml i.parquet", None, "experiment.yml\n.*no such.*\n.*\n.*did you mean 'experiments.yml'"),
    ("build-index fit.yml i.parquet", None, "fit.yml\n.*the keys data.*\n.*`experiments`"),
    ("build-index experiments.yml i.parquet --tau-range 2 1", None, "tau_range\n.*reversed"),
    ("build-index experiments.yml i.parquet --positive-scope all", None, "--positive-scope.*'descendants'"),
    ("build-index experiments.yml i.parquet --include-wells C/1", None, "include_wells\n.*'C/1'\n"),
    ("build-index experiments.yml i.parquet", _texts(i_parquet=""), "i.parquet\n.*a file\n.*\n.*--overwrite"),
    ("build-index experiments.yml fit.yml/i.parquet", None, "fit.yml\n.*a file where a folder is to be"),
    ("inspect-batches", None, "--config"),
    ("inspect-batches -c fti.yml", None, "fti.yml\n.*\n.*\n.*did you mean 'fit.yml'"),
    ("inspect-batches -c fit.yml", lambda place: place.fit.update(dta={}), "fit.yml, field dta\n.*unknown key"),
    ("inspect-batches -c fit.yml", lambda place: place.fit.update(dta=None), "fit.yml, field dta\n.*unknown key"),
    (
        "inspect-batches -c fit.yml",
        lambda place: place.data.update(val_experiments=["HCC"]),
        "val_experiments\n.*'HCC'\n.*\n.*\n.*fit.yml, data.init_args.val_experiments",
    ),
    (
        "inspect-batches -c fit.yml",
        lambda place: place.write("inspect_batches/pairs.png"),
        "pairs.png\n(.|\n)*--overwrite",
    ),
    ("inspect-batches -c fit.yml --batches 0", None, "--batches"),
    (
        "inspect-batches -c fit.yml",
        lambda place: place.fit.update(data={"class_path": "dynaclr.comparison.LabelImagesDataModule"}),
        "data.class_path\n.*LabelImages.*\n.*MultiExperimentDataModule",
    ),
    ("compare-losses -c fit.yml --variants v.yml", None, "v.yml\n.*no such file"),
    ("compare-losses -c fit.yml --variants v.yml", _texts(v_yml=""), "v.yml\n.*an empty file"),
    ("compare-losses -c fit.yml --variants v.yml", _texts(v_yml="variant: {}"), "v.yml, field variants\n.*nothing"),
    (
        "compare-losses -c fit.yml --variants v.yml",
        _texts(v_yml="variants: {a: {model.init_args.lr: fast}}"),
        "variant 'a' of v.yml, field model.init_args.lr\n.*fast\n.*float",
    ),
    ("compare-losses -c none.yml --variants v.yml", _texts(v_yml="variants: {a: {}}"), "none.yml\n.*no such file"),
    ("demo -o fit.yml", None, "fit.yml exists"),
    ("demo -o d --hours 1", None, "--hours.*1"),
    ("preprocess", None, "data_path\n.*nothing"),
    ("preprocess first/images.zarr", None, "first/images.zarr without the name of an option\n.*--NAME"),
    ("preprocess --config fit.yml", None, "fit.yml, field model\n.*unknown key\n.*data_path"),
    ("preprocess --data_path first/image.zarr", None, "image.zarr\n.*\n.*\n.*did you mean 'images.zarr'"),
    ("preprocess --data_path fit.yml", None, "fit.yml\n.*a file\n.*a folder"),
    (f"preprocess --data_path {STORE}", None, "embeddings.zarr\n.*without plate metadata"),
    (
        "preprocess --data_path first/images.zarr --channel_names [Phase]",
        None,
        "channel_names\n.*'Phase'\n.*\n.*'Phase3D'",
    ),
    (
        "preprocess --data_path first/images.zarr --chanel_names [Phase]",
        None,
        "chanel_names\n.*\n.*mean 'channel_names'",
    ),
    ("preprocess --data_path first/images.zarr --block_size 0", None, "block_size.*\n.*0\n.*positive"),
    ("preprocess --data_path first/images.zarr --sampling random", None, "sampling\n.*random\n.*'grid', 'stratified'"),
    (
        "preprocess --data_path first/images.zarr --sidecar_path x/s.json",
        _texts(x=""),
        "x\n.*a file where a folder is to be",
    ),
    (
        "preprocess --data_path first/images.zarr --sidecar_path x",
        _texts(x="hello"),
        "x, field sidecar_path\n.*another file",
    ),
    ("precompute --data_path first/images.zarr", None, "output_path, channel_names, subtrahends, divisors\n.*nothing"),
    (
        f"{PRECOMPUTE} --subtrahends [500]",
        None,
        "subtrahends\n.*500.*\n.*0 to 100",
    ),
    ("convert_to_anndata --embeddings_path x.zarr --output_anndata_path y.zarr", None, "x.zarr\n.*nothing"),
    ("convert_to_anndata --embeddings_path first/images.zarr --output_anndata_path y.zarr", None, "an image store"),
]


@pytest.mark.parametrize(
    ("command", "change", "pattern"), CASES, ids=[f"{case[0]} {n}" for n, case in enumerate(CASES)]
)
def test_what_is_refused(place, command, change, pattern):
    for name, content in (("fit.yml", place.fit), ("experiments.yml", place.experiments)):
        if change is None:
            place.write(name, content)
    if change is not None:
        change(place)
    place.refused(command, pattern)


def _annotate(place):
    obs = anndata.read_zarr(place.folder / STORE).obs
    obs["state"] = ["one" if track % 2 else "two" for track in obs["track_id"]]
    obs[["experiment", "fov_name", "track_id", "t", "state"]].to_csv(place.folder / "a.csv", index=False)


TRAIN = {"task": "state", "output_path": "c.npz", "train_datasets": [{"embeddings": STORE, "annotations": "a.csv"}]}
APPLY = {"classifier_path": "c.npz", "embeddings_path": STORE, "output_path": "o.zarr"}
CLASSIFIERS = [
    ({}, "c.yml\n.*an empty file\n.*example of dynaclr train-linear-classifier --help"),
    (TRAIN | {"task": None}, "field task\n"),
    (TRAIN | {"taks": "state"}, "field taks\n.*unknown key\n.*did you mean 'task'"),
    (TRAIN | {"task": "stat"}, "a.csv, field stat\n.*no label.*\n.*a column 'stat'"),
    (TRAIN | {"output_path": None}, "output_path\n.*where the classifier goes"),
    (TRAIN | {"train_datasets": "x"}, "train_datasets\n.*'x'\n.*list"),
    (
        TRAIN | {"train_datasets": [{"embedings": STORE, "annotations": "a.csv"}]},
        r"\[0\].embedings\n.*mean 'embeddings'",
    ),
    (
        TRAIN | {"train_datasets": [{"embeddings": "x", "annotations": "a.csv"}]},
        r"\[0\].embeddings\n.*x does not exist",
    ),
    (TRAIN | {"train_datasets": [{"embeddings": STORE, "annotations": "first"}]}, "first\n.*a folder where a file"),
    (TRAIN | {"solver": "lbfsg"}, "solver\n.*'lbfsg'\n.*'lbfgs'"),
    (TRAIN | {"max_iter": 0}, "max_iter\n.*0\n.*greater than 0"),
    (TRAIN | {"use_pca": True}, "n_pca_components\n.*at least 1"),
]


@pytest.mark.parametrize(("config", "pattern"), CLASSIFIERS, ids=[pattern for _, pattern in CLASSIFIERS])
def test_configs_of_classifiers_that_are_refused(place, config, pattern):
    _annotate(place)
    place.write("c.yml", yaml.safe_dump(config) if config else "")
    place.refused("train-linear-classifier -c c.yml", pattern)


def test_what_is_no_classifier_is_refused(place):
    place.write("d.yml", APPLY)
    place.refused("apply-linear-classifier -c d.yml", "d.yml, field classifier_path\n.*c.npz does not exist")
    place.write("c.npz", "no arrays")
    place.refused("apply-linear-classifier -c d.yml", "c.npz\n.*another file\n.*a classifier")


CONFIGS = {
    "train.yml": TRAIN,
    "apply.yml": APPLY,
    "cross.yml": {"task": "state", "train_datasets": TRAIN["train_datasets"], "n_folds": 2, "output_dir": "cross"},
    "annotate.yml": {
        "embeddings_path": STORE,
        "annotations": [{"path": "a.csv"}],
        "columns": ["state"],
        "output_path": "annotated.zarr",
    },
    "predict.yml": {"embeddings_path": STORE, "classifiers": ["c.npz"], "output_path": "predicted.zarr"},
    "reduce.yml": {"input_path": STORE, "pca": {"n_components": 2}, "output_path": "reduced.zarr"},
    "plot.yml": {
        "input_path": "reduced.zarr",
        "output_dir": "pictures",
        "embedding_keys": ["X_pca"],
        "color_by": ["condition"],
    },
    "smooth.yml": {"models": [{"path": STORE, "label": "own"}], "output_dir": "smooth", "save_plots": False},
    "compare.yml": {
        "result_files": [{"path": "smooth/own_smoothness.csv", "label": "own"}],
        "output_path": "comparison.md",
    },
}
# One after the other in one folder. `test` is as `validate`; the others take long and have tests of their own.
OTHERS = {"test", "export-atlas", "compare-losses", "demo", "import-images", "info"}
WORKING = {
    "init": ("init first/images.zarr --interval-minutes 30 -o new", r"wrote new/experiments.yml, new/fit.yml", "fit"),
    "import-tracks": ("import-tracks A_1_0.csv --store first/images.zarr -o out", "wrote 1 tables in out", "init"),
    "build-index": ("build-index experiments.yml i.parquet", "wrote i.parquet", "fit"),
    "preprocess": (
        "preprocess --data_path first/images.zarr --channel_names [GFP]",
        "wrote .*images.zarr: statistics of GFP in 2 FOVs of .*; left out channel Phase3D",
        "fit",
    ),
    "cache-patches": ("cache-patches -c fit.yml -o patches.zarr", "wrote patches.zarr", "fit"),
    "compute-features": (
        "compute-features -c fit.yml -o features.zarr",
        "wrote features.zarr: ",
        "evaluate",
    ),
    "inspect-batches": ("inspect-batches -c fit.yml --batches 2 --pairs 1", "wrote inspect_batches/pairs.png", "fit"),
    "fit": ("fit --config fit.yml --run new", "wrote runs/new: config.yaml, checkpoints/best.ckpt, ", "predict"),
    "validate": ("validate --config fit.yml --run new", "wrote no file: the metrics are above", "predict"),
    "predict": ("predict --config fit.yml --run new", r"wrote runs/new/embeddings.zarr: \d+ embeddings", "evaluate"),
    "export": ("export --config fit.yml --run new --export_path m.onnx", "wrote m.onnx", "onnxruntime"),
    "evaluate": ("evaluate --run new -o report", "wrote report: .*report.json", "look at report/report."),
    "train-linear-classifier": ("train-linear-classifier -c train.yml", "wrote c.npz", "apply-linear-classifier"),
    "apply-linear-classifier": (
        "apply-linear-classifier -c apply.yml",
        "wrote o.zarr: obs 'predicted_state'",
        "evaluate",
    ),
    "cross-validate": ("cross-validate -c cross.yml", "wrote summary.csv.* to cross", "train-linear-classifier"),
    "append-annotations": ("append-annotations -c annotate.yml", "wrote obs 'state' to annotated.zarr", "evaluate"),
    "append-predictions": ("append-predictions -c predict.yml", "wrote obs .* to predicted.zarr", "plot-embeddings"),
    "reduce-dimensionality": ("reduce-dimensionality -c reduce.yml", "wrote obsm .* to reduced", "plot-embeddings"),
    "plot-embeddings": ("plot-embeddings -c plot.yml", "wrote .*png to pictures", "pictures/"),
    "split-embeddings": (f"split-embeddings -i {STORE} -o parts", "wrote parts/first.zarr", "evaluate"),
    "evaluate-smoothness": ("evaluate-smoothness -c smooth.yml", "wrote own_smoothness.csv", "compare-models"),
    "compare-models": ("compare-models -c compare.yml", "wrote comparison.md", "evaluate"),
    "correct": (
        f"correct {STORE} --controls \"condition == 'uninfected'\" --method center -o corrected.zarr",
        "wrote .*corrected.zarr",
        "evaluate",
    ),
    "precompute": (
        f"{PRECOMPUTE} --subtrahends [mean]",
        "wrote stack",
        "dask.array.from_npy_stack",
    ),
    "convert_to_anndata": (
        f"convert_to_anndata --embeddings_path {STORE} --output_anndata_path y.zarr",
        "wrote y.zarr",
        "evaluate",
    ),
}
NOISE = ("litlogger", "litmodels", "Tip:", "TracerWarning", "LeafSpec", "FutureWarning", "jsonargparse", "TPU")
EXTRAS = {
    "export": ("onnx", "onnxscript"),
    "inspect-batches": ("matplotlib",),
    "evaluate": ("matplotlib",),
    "compute-features": ("mahotas",),
}


@pytest.mark.slow
def test_every_command_ends_with_what_it_wrote_and_what_comes_next(place, monkeypatch, caplog):
    monkeypatch.setenv("COLUMNS", "200")
    for module in {module for modules in EXTRAS.values() for module in modules}:
        pytest.importorskip(module)
    assert set(WORKING) | OTHERS >= set(cli.commands)
    place.own("first")
    _annotate(place)
    for name, text in {"A_1_0.csv": TABLE, **CONFIGS}.items():
        place.write(name, text)
    for name, (command, wrote, then) in WORKING.items():
        code, said, complained = place.run(command)
        assert code == 0, complained
        *_, last = said.strip().splitlines()
        assert re.search(wrote, said), f"{name}: {said}"
        assert last.startswith("next"), f"{name}: {last}"
        assert then in last, f"{name}: {last}"
        for word in NOISE:
            assert word not in said + complained + caplog.text, f"{name}: {word}"
    assert not {"lightning_logs", "config.yaml"} & set(os.listdir(place.folder))


def test_preprocess_leaves_out_fovs_that_cannot_be_read_where_that_is_asked_for(place):
    fovs = sorted(path.parent for path in (place.own("first") / "images.zarr").glob("*/*/*/0"))
    for document in ("zarr.json", ".zattrs"):
        if (fovs[0] / document).exists():
            (fovs[0] / document).write_text("{")
    preprocess = "preprocess --data_path first/images.zarr --block_size 4"
    place.refused(preprocess, "images.zarr")
    code, said, message = place.run(f"{preprocess} --storage.bad_fovs leave_out")
    assert code == 0, message
    assert re.search(r"1 FOV that cannot be read is left out: .*images\.zarr, FOV ", said)
    assert "with storage.bad_fovs: leave_out of the data module" in said
    place.refused(f"{preprocess} --storage.bad_fovs drop", "bad_fovs")
