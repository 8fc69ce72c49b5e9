"""The demo as a user runs it, and what the README says of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

DYNACLR = Path(sys.executable).with_name("dynaclr")
README = Path(__file__).parents[3] / "README.md"
[CLAIMED] = re.findall(r"<!-- seeds: ([\d, ]+) -->", README.read_text(encoding="utf-8"))
OTHERS = ["untrained", "PCA of raw pixels", "PCA of normalised pixels"]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "120"}
    return subprocess.run([DYNACLR, *arguments], cwd=cwd, capture_output=True, text=True, timeout=1500, env=environment)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [int(seed) for seed in CLAIMED.split(",")])
def test_the_demo_does_what_the_readme_says(seed, tmp_path):
    """One test, since one run is minutes: what it leaves, what the report says, and that its configs run again."""
    done = run("demo", "--seed", str(seed), "--output-dir", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("next: open out/report/report.html;")
    assert "Warning" not in done.stderr
    check_files(tmp_path / "out")
    rows = json.loads((tmp_path / "out/report/report.json").read_text())
    check_report(rows)
    check_claims({row["name"]: row for row in rows})
    again = run("fit", "--config", "fit.yml", "--trainer.fast_dev_run", "true", cwd=tmp_path / "out")
    assert again.returncode == 0, again.stderr
    check_a_folder_that_holds_something_is_left_alone(tmp_path)


def check_files(demo: Path) -> None:
    for name in ("data/experiments.yml", "infection.csv", "fit.yml", "predict.yml", "untrained.yml"):
        assert (demo / name).is_file(), name
    (training,) = (demo / "runs").iterdir()
    reports = [f"report/report.{kind}" for kind in ("html", "png", "json", "csv", "md")]
    for name in (training / "checkpoints" / "best.ckpt", *reports):
        assert (demo / name).stat().st_size > 0, name
    page = (demo / "report" / "report.html").read_text(encoding="utf8")
    assert "data:image/jpeg;base64," in page  # cells are shown as they are in the simulated stores
    assert set(pd.read_csv(demo / "infection.csv")["infection"]) == {"healthy", "infected"}


def check_report(rows: list[dict]) -> None:
    assert [row["name"] for row in rows] == ["trained", *OTHERS]
    for row in rows:
        for figure in ("probe", "separability"):
            assert 0 <= row[figure]["low"] <= row[figure]["value"] <= row[figure]["high"] <= 1
        assert 0 < row["smoothness"] < 2
    assert len({row["n_cells"] for row in rows}) == 1


def check_claims(rows: dict[str, dict]) -> None:
    """The trained encoder is ahead on the held-out experiment, and mixes experiments better."""
    trained = rows["trained"]
    for other in (rows[name] for name in OTHERS):
        assert trained["probe"]["low"] > other["probe"]["high"], other["name"]
        assert trained["separability"]["high"] < other["separability"]["low"], other["name"]


def check_a_folder_that_holds_something_is_left_alone(folder: Path) -> None:
    before = sorted(path.name for path in (folder / "out").iterdir())
    done = run("demo", "--output-dir", "out", cwd=folder)
    assert done.returncode == 2
    assert "choose another --output-dir" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (folder / "out").iterdir()) == before
