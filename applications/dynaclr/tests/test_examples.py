"""The commands of every example's README run, in order and offline, on the data that `simulate.py` writes."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import onnxruntime
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sklearn.metrics import balanced_accuracy_score

from dynaclr.cli import cli
from viscy_utils.cli.demo import quiet_demo

EXAMPLES = Path(__file__).parents[1] / "examples"
EPOCH = "1700000000"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # they are shown to users as advice; here commands run in this process
]


def commands(readme: Path) -> list[list[str]]:
    """Commands of the bash blocks of a README, as words."""
    blocks = re.findall(r"```bash\n(.*?)```", readme.read_text(encoding="utf8"), re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


def run(words: list[str]) -> str:
    """Run a command in this process, as importing torch takes longer than most of them; returns what it printed."""
    program, *arguments = words
    before, sys.argv = sys.argv, words
    try:
        if program == "python":
            runpy.run_path(arguments[0], run_name="__main__")
            return ""
        assert program == "dynaclr", words
        with quiet_demo():
            done = CliRunner().invoke(cli, arguments, env={"COLUMNS": "160"})
        assert done.exit_code == 0, (words, done.output, done.exception)
        return done.output
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The examples, their data, and the training that most of them start from."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        for words in [*commands(folder / "README.md"), *commands(folder / "quickstart" / "README.md")]:
            run(words)
        yield folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def balanced_accuracy(predicted: pd.DataFrame, annotations: Path) -> float:
    key = ["fov_name", "track_id", "t"]
    table = predicted.astype({"fov_name": str}).merge(pd.read_csv(annotations), on=key)
    return balanced_accuracy_score(table["infection_state"], table["predicted_infection_state"].astype(str))


def test_every_example_is_listed_and_has_commands_that_are_run():
    listed = re.findall(r"^\| \[([\w-]+)\]\(\1\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    for name in listed:
        assert (EXAMPLES / name / "README.md").is_file(), name


def test_quickstart_embeds_every_cell_and_reports(folder):
    table = anndata.read_zarr("embeddings.zarr")
    tracks = [pd.read_csv(path) for path in folder.glob("data/*/tracks/**/*.csv")]
    assert table.n_obs == sum(map(len, tracks)) > 300
    assert table.uns["origin"]["date"] == "2023-11-14T22:13:20+00:00"
    assert "data:image/jpeg;base64," in (folder / "report" / "report.html").read_text(encoding="utf8")


def test_infection_is_told_in_a_third_experiment_and_every_step_gives_the_same_bytes_again(folder):
    steps = commands(folder / "infection-analysis" / "README.md")
    said = [run(words) for words in steps]
    assert "rote infection/classifier.npz" in said[3]
    predicted = anndata.read_zarr("infection/predicted.zarr")
    assert set(predicted.obs["experiment"].astype(str)) == {"wednesday"}
    assert balanced_accuracy(predicted.obs, folder / "data" / "wednesday" / "annotations.csv") > 0.7
    annotated = anndata.read_zarr("infection/annotated.zarr").obs
    assert set(annotated["experiment"].astype(str)) == {"monday", "tuesday"}
    first = content(folder / "infection")
    names = ("embeddings.zarr", "new.zarr", "annotated.zarr", "classifier.npz", "predicted.zarr", "report/report.html")
    assert all(any(path.startswith(name) for path in first) for name in names)

    shutil.rmtree("infection")
    for words in steps:
        run(words)
    again = content(folder / "infection")
    assert [path for path in first if again.get(path) != first[path]] == []
    assert again.keys() == first.keys()


def test_explorer_gets_every_cell_with_its_place_and_image(folder):
    for words in commands(folder / "embedding-explorer" / "README.md"):
        said = run(words)
    (opened,) = re.findall(r"`(uvx embedding-atlas [^`]*)`", (folder / "embedding-explorer" / "README.md").read_text())
    assert f"next: {opened}" in said.lower()
    table, reduced = pq.read_table("atlas.parquet"), anndata.read_zarr("reduced.zarr")
    np.testing.assert_array_equal(table["projection_x"], reduced.obsm["X_pca"][:, 0])
    assert table["image"].null_count == 0
    assert table["condition"].to_pylist() == reduced.obs["condition"].tolist()


def test_exported_encoder_gives_the_embeddings_of_the_trained_one(folder):
    for words in commands(folder / "onnx-export" / "README.md"):
        run(words)
    features = np.load("features.npy")
    session = onnxruntime.InferenceSession("encoder.onnx")
    patches = np.random.default_rng(0).uniform(-2, 2, (5, 2, 1, 24, 24)).astype(np.float32)
    one_by_one = [session.run(None, {"input": patch[None]})[0][0] for patch in patches]
    np.testing.assert_allclose(features, one_by_one, rtol=1e-4, atol=1e-4)
    assert np.std(features, axis=0).max() > 0


@pytest.fixture
def cluster(folder, tmp_path) -> dict[str, str]:
    """The environment of a job, where `srun` writes down what it is to run."""
    srun = tmp_path / "srun"
    srun.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > "{tmp_path}/words"\n')
    srun.chmod(0o755)
    job = {"NAME": "dynaclr_fit", "ID": "7"}
    return (
        os.environ
        | {f"SLURM_JOB_{key}": value for key, value in job.items()}
        | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NUM_NODES": "1"}
        | {"WORDS": str(tmp_path / "words")}
    )


def on_this_machine(environment: dict[str, str], *arguments: str) -> list[str]:
    """Submit a script, and run what it hands to `srun` on one CPU instead of its GPUs."""
    subprocess.run(["bash", *arguments], env=environment, check=True)
    words = Path(environment["WORDS"]).read_text().splitlines()
    few = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.strategy", "auto"]
    run([*words, *few, *(["--trainer.max_epochs", "1"] if "fit" in words else [])])
    return words


def test_jobs_train_go_on_where_they_were_stopped_and_predict(folder, cluster):
    words = on_this_machine(cluster, "slurm/fit.sh", "quickstart/fit.yml")
    assert words[words.index("--trainer.devices") + 1] == "4"
    assert (folder / "runs" / "dynaclr_fit-7" / "checkpoints" / "last.ckpt").exists()
    words = on_this_machine(cluster, "slurm/fit.sh", "quickstart/fit.yml")
    assert words[words.index("--ckpt_path") + 1] == "last"  # the job was put back into the queue
    configs = ["--config", "quickstart/fit.yml", "--config", "quickstart/predict.yml"]
    output = ["--run", "dynaclr_fit-7", "--trainer.callbacks.output_path", "of_the_job.zarr"]
    on_this_machine(cluster, "slurm/predict.sh", *configs, *output)
    assert anndata.read_zarr("of_the_job.zarr").n_obs == anndata.read_zarr("embeddings.zarr").n_obs
