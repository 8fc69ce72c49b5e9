"""Experiments that are not there are refused before torch is imported, in the words of the run itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from dynaclr.cli import DATA_CHECKS, OWN_COMMANDS, cli
from viscy_data.errors import InputError
from viscy_utils.cli.early_checks import refuse_early
from viscy_utils.cli.lightning_cli import run

pytest_plugins = ["viscy_data.testing.fixtures"]

BORING = {"class_path": "lightning.pytorch.demos.boring_classes.BoringModel"}
TRAINER = {"accelerator": "cpu", "devices": 1, "logger": False, "max_steps": 1, "enable_checkpointing": False}
ARGS = ["fit", "--config", "fit.yml"]
DAMAGE = {
    "no experiments": lambda folder: (folder / "experiments.yml").unlink(),
    "no store": lambda folder: shutil.rmtree(folder / "first" / "images.zarr"),
    "no patch store": lambda folder: _name_patch_store(folder / "fit.yml"),
    "no tracks": lambda folder: shutil.rmtree(folder / "first" / "tracks"),
}


def _name_patch_store(path):
    config = yaml.safe_load(path.read_text())
    config["data"]["init_args"]["patch_store"] = "none.zarr"
    path.write_text(yaml.safe_dump(config))


@pytest.fixture
def folder(synthetic_experiments, tmp_path, monkeypatch):
    """A folder with experiments and a configuration, entered."""
    source = synthetic_experiments(2).yaml
    shutil.copytree(source.parent, tmp_path, dirs_exist_ok=True)
    data = {"experiments_yaml": "experiments.yml", "z_range": [0, 1], "yx_patch_size": [24, 24], "num_workers": 0}
    data |= {"final_yx_patch_size": [16, 16], "val_experiments": ["second"], "batch_size": 8}
    block = {"class_path": "dynaclr.datamodule.MultiExperimentDataModule", "init_args": data}
    (tmp_path / "fit.yml").write_text(yaml.safe_dump({"data": block, "model": BORING, "trainer": TRAINER}))
    if source.name != "experiments.yml":
        (tmp_path / source.name).rename(tmp_path / "experiments.yml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_refused_early_and_late_in_the_same_words(damage, folder):
    damage(folder)
    with pytest.raises(InputError) as early:
        refuse_early(ARGS, "dynaclr", DATA_CHECKS)
    with pytest.raises(InputError) as late:
        run(ARGS, "dynaclr")
    assert str(early.value) == str(late.value)
    assert getattr(early.value, "__notes__", []) == getattr(late.value, "__notes__", [])


def test_what_is_there_is_not_refused(folder):
    refuse_early(ARGS, "dynaclr", DATA_CHECKS)
    DAMAGE["no tracks"](folder)
    config = yaml.safe_load((folder / "fit.yml").read_text())
    config["data"]["init_args"]["index_path"] = "index.parquet"  # holds the tracks
    (folder / "fit.yml").write_text(yaml.safe_dump(config))
    refuse_early(ARGS, "dynaclr", DATA_CHECKS)


def test_the_command_refuses_before_torch_is_imported(folder):
    DAMAGE["no tracks"](folder)
    code = f"""
import sys
from dynaclr.cli import main
sys.argv = ["dynaclr", *{ARGS}]
try:
    main()
finally:
    heavy = {{"torch", "lightning", "monai", "pandas", "jsonargparse"}} & set(sys.modules)
    print("heavy:", *heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == "heavy:\n"
    assert "tracks_path" in done.stderr


@pytest.mark.parametrize("name", OWN_COMMANDS)
def test_every_command_shows_an_example(name):
    done = CliRunner().invoke(cli, [name, "--help"], env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    assert "Example:" in done.output


ABSENT_DATA = {"class_path": "dynaclr.datamodule.MultiExperimentDataModule"}
ABSENT_DATA |= {"init_args": {"experiments_yaml": "absent.yml", "z_range": [0, 1], "yx_patch_size": [24, 24]}}
DATASETS = [{"embeddings": "absent.zarr", "annotations": "absent.csv"}]
CONFIGS = {
    "fit": {"data": ABSENT_DATA},
    "append-annotations": {"embeddings_path": "absent.zarr", "annotations": [{"path": "a.csv"}], "columns": ["a"]},
    "append-predictions": {"embeddings_path": "absent.zarr", "classifiers": ["a.npz"]},
    "reduce-dimensionality": {"input_path": "absent.zarr", "pca": {}},
    "plot-embeddings": {"input_paths": ["absent.zarr"], "output_dir": "pictures"},
    "evaluate-smoothness": {"models": [{"path": "absent.zarr", "label": "a"}], "output_dir": "out"},
    "compare-models": {"result_files": [{"path": "absent.csv", "label": "a"}]},
    "apply-linear-classifier": {"classifier_path": "absent.npz", "embeddings_path": "absent.zarr"},
    "train-linear-classifier": {"task": "a", "output_path": "a.npz", "train_datasets": DATASETS},
    "cross-validate": {"task": "a", "output_dir": "out", "train_datasets": DATASETS},
}
FIT = ["-c", "fit.yml"]
CORRECT = ["absent.zarr", "--controls", "t < 2"]
OF_IMAGES = ["--data_path", "absent.zarr", "--output_path", "out"]
MISSING_PATHS = {name: [["-c", f"{name}.yml"], ["-c", "absent.yml"]] for name in CONFIGS} | {
    "validate": [FIT],
    "test": [FIT],
    "predict": [FIT, ["-c", "there.yml", "--ckpt_path=absent.ckpt"]],
    "export": [["-c", "there.yml", "--ckpt_path", "absent.ckpt"]],
    "preprocess": [OF_IMAGES[:2], ["-c", "absent.yml"]],
    "precompute": [OF_IMAGES],
    "convert_to_anndata": [["--embeddings_path=absent.zarr", "--output_anndata_path", "out.zarr"]],
    "init": [["absent.zarr", "-o", "configs"]],
    "info": [["absent.zarr"]],
    "build-index": [["absent.yml", "index.parquet"]],
    "cache-patches": [[*FIT, "-o", "patches.zarr"]],
    "import-images": [["absent.tif", "-o", "out.zarr"]],
    "import-tracks": [["absent.csv", "--store", "absent.zarr", "-o", "tracks"]],
    "inspect-batches": [FIT],
    "compare-losses": [[*FIT, "--variants", "absent.yml"], ["-c", "there.yml", "--variants", "absent.yml"]],
    "evaluate": [["-e", "absent.zarr", "-o", "report"], ["store.zarr", "--labels", "absent.csv", "-o", "report"]],
    "correct": [[*CORRECT, "--method", "lot"], [*CORRECT, "--transform", "absent.npz"]],
    "compute-features": [[*FIT, "-o", "features.zarr"]],
    "export-atlas": [["absent.zarr", "-o", "atlas.parquet"]],
    "split-embeddings": [["-i", "absent.zarr", "-o", "parts"]],
}


def test_every_command_that_reads_a_path_is_here():
    assert set(MISSING_PATHS) == set(cli.commands) - {"demo"}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """Refuse all of them in one process: exit code, output, and what has been imported by then."""
    folder = tmp_path_factory.mktemp("refusals")
    for name, config in CONFIGS.items():
        (folder / f"{name}.yml").write_text(yaml.safe_dump(config))
    (folder / "there.yml").write_text("seed_everything: 1")
    code = f"""
import json, sys
from click.testing import CliRunner
from dynaclr.cli import cli
for name, calls in {MISSING_PATHS}.items():
    for args in calls:
        done = CliRunner().invoke(cli, [name, *args])
        heavy = {{"torch", "lightning", "monai", "pandas", "sklearn", "anndata", "zarr", "scipy", "matplotlib"}}
        print(json.dumps([name, done.exit_code, done.output, sorted(heavy & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", MISSING_PATHS)
def test_a_path_that_is_not_there_is_refused_before_anything_heavy_is_imported(name, refusals):
    own = [found for command, *found in refusals if command == name]
    assert len(own) == len(MISSING_PATHS[name])
    for exit_code, output, heavy in own:
        assert exit_code == 2, output
        assert "absent." in output
        assert not heavy  # also of the commands before: the first that fails is the one to mend
