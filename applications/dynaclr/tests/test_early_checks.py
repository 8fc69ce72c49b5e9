"""Experiments that are not there are refused before torch is imported, in the words of the run itself."""

from __future__ import annotations

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


def test_own_commands_refuse_before_torch_is_imported(tmp_path):
    code = """
import sys
from click.testing import CliRunner
from dynaclr.cli import cli
for name in ("inspect-batches", "train-linear-classifier", "apply-linear-classifier", "cross-validate"):
    done = CliRunner().invoke(cli, [name, "-c", "absent.yml"])
    assert done.exit_code == 2 and "absent.yml" in done.output, done.output
for name in ("cache-patches", "compute-features"):
    done = CliRunner().invoke(cli, [name, "-c", "absent.yml", "-o", "store.zarr"])
    assert done.exit_code == 2 and "absent.yml" in done.output, done.output
for args in (
    ["evaluate", "-e", "absent.zarr", "-o", "report"], ["export-atlas", "absent.zarr", "-o", "atlas.parquet"],
    ["correct", "absent.zarr", "--method", "lot", "--controls", "t < 2"],
    ["split-embeddings", "-i", "absent.zarr", "-o", "parts"],
):
    done = CliRunner().invoke(cli, args)
    assert done.exit_code == 2 and "absent.zarr" in done.output, done.output
done = CliRunner().invoke(cli, ["compare-losses", "-c", "absent.yml", "--variants", "variants.yml"])
assert done.exit_code == 2 and "absent.yml" in done.output, done.output
print("heavy:", *{"torch", "lightning", "monai", "pandas", "sklearn", "zarr"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "heavy:\n", done.stderr
