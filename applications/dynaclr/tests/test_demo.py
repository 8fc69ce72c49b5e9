"""The demo as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

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
    assert "out/report/report.html in a browser" in done.stdout.splitlines()[-1]
    assert "Warning" not in done.stderr
    return folder / "out"


@pytest.mark.slow
def test_demo_leaves_data_configs_embeddings_and_report(demo):
    for name in ("data/experiments.yml", "infection.csv", "fit.yml", "predict.yml", "untrained.yml"):
        assert (demo / name).is_file(), name
    (training,) = (demo / "runs").iterdir()
    for name in (
        training / "checkpoints" / "best.ckpt",
        *(f"report/report.{kind}" for kind in ("html", "png", "json", "csv", "md")),
    ):
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
    page = (demo / "report" / "report.html").read_text(encoding="utf8")
    assert "data:image/jpeg;base64," in page  # cells are shown as they are in the simulated stores
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
