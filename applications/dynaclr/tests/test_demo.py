"""The demo as a user runs it, and what `dynaclr evaluate` refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dynaclr.commands.evaluate import evaluate
from viscy_utils.embeddings.store import write_anndata

DYNACLR = Path(sys.executable).with_name("dynaclr")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DYNACLR, *arguments], cwd=cwd, capture_output=True, text=True, timeout=900, env=os.environ | {"COLUMNS": "120"}
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    done = run("demo", "--max-epochs", "1", "--hours", "3", "--output-dir", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Done in" in done.stdout.splitlines()[-1]
    assert "Warning" not in done.stderr
    return folder / "out"


@pytest.mark.slow
def test_demo_leaves_data_configs_embeddings_and_report(demo):
    for name in ("data/experiments.yml", "infection.csv", "fit.yml", "predict.yml", "untrained.yml"):
        assert (demo / name).is_file(), name
    for name in ("checkpoints/last.ckpt", "report/report.png", "report/report.json"):
        assert (demo / name).stat().st_size > 0, name
    rows = json.loads((demo / "report" / "report.json").read_text())
    assert [row["name"] for row in rows] == [
        "trained",
        "untrained",
        "PCA of raw pixels",
        "PCA of normalised pixels",
    ]
    for row in rows:
        for figure in ("probe", "separability"):
            assert 0 <= row[figure]["low"] <= row[figure]["value"] <= row[figure]["high"] <= 1
        assert 0 < row["smoothness"] < 2
    assert len({row["n_cells"] for row in rows}) == 1
    labels = pd.read_csv(demo / "infection.csv")
    assert set(labels["infection"]) == {"healthy", "infected"}


@pytest.mark.slow
def test_configs_left_by_the_demo_run_again(demo):
    done = run("fit", "--config", "fit.yml", "--trainer.fast_dev_run", "true", cwd=demo)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_demo_does_not_touch_a_folder_that_holds_something(demo):
    before = sorted(path.name for path in demo.iterdir())
    done = run("demo", "--output-dir", "out", cwd=demo.parent)
    assert done.returncode == 2
    assert "choose another --output-dir" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in demo.iterdir()) == before


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "experiment": np.repeat(["first", "second"], 20),
            "fov_name": "A/1/0",
            "track_id": np.tile(np.arange(10), 4),
            "t": np.tile(np.repeat([0, 1], 10), 2),
            "condition": "control",
        },
        index=[str(row) for row in range(40)],
    )
    path = tmp_path / "embeddings.zarr"
    write_anndata(anndata.AnnData(rng.normal(size=(40, 4)).astype(np.float32), obs=obs), path)
    return path


def refused(tmp_path: Path, *arguments: str) -> str:
    result = CliRunner().invoke(evaluate, [*arguments, "--output-dir", str(tmp_path / "report")])
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "report").exists()
    return result.stderr


def test_evaluate_names_a_store_that_is_missing(tmp_path):
    message = refused(tmp_path, "-e", str(tmp_path / "absent.zarr"))
    assert "absent.zarr" in message
    assert "dynaclr predict" in message


def test_evaluate_names_the_columns_when_a_label_is_unknown(tmp_path, embeddings):
    message = refused(tmp_path, "-e", str(embeddings), "--label", "infektion")
    assert "infektion" in message
    assert "condition" in message


def test_evaluate_names_the_experiments_when_one_is_unknown(tmp_path, embeddings):
    message = refused(tmp_path, "-e", str(embeddings), "--test-experiment", "third")
    assert "third" in message
    assert "first, second" in message


def test_evaluate_names_columns_that_a_table_of_labels_lacks(tmp_path, embeddings):
    table = tmp_path / "labels.csv"
    pd.DataFrame({"experiment": ["first"], "t": [0], "infection": ["healthy"]}).to_csv(table, index=False)
    message = refused(tmp_path, "-e", str(embeddings), "--labels", str(table), "--label", "infection")
    assert "fov_name, track_id" in message
    assert "labels.csv" in message
