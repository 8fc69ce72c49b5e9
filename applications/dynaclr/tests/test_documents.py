"""What users read is true: YAML parses, Python blocks run, links lead somewhere, commands are those of CI."""

from __future__ import annotations

import csv
import importlib
import re
import subprocess
from pathlib import Path
from statistics import mean, stdev

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[3]


def _tree(pattern: str) -> list[Path]:
    """Files of the repository that match, without environments and caches."""
    found = [
        path
        for top in ["packages", "applications", "docs", "benchmarks", ".github"]
        for path in (ROOT / top).rglob(pattern)
    ]
    return sorted([*found, *ROOT.glob(pattern)])


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


YAML_FILES = [path for suffix in ["*.yml", "*.yaml", "*.cff"] for path in _tree(suffix)]
MARKDOWN = [path for path in _tree("*.md") if "golden" not in path.parts]
PYTHON_BLOCKS = [
    pytest.param(block, id=f"{_name(path)}-{number}")
    for path in MARKDOWN
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf8"), re.DOTALL))
]


@pytest.mark.parametrize("path", YAML_FILES, ids=_name)
def test_yaml_parses(path):
    assert yaml.safe_load(path.read_text(encoding="utf8")) is not None


@pytest.mark.parametrize("block", PYTHON_BLOCKS)
def test_python_blocks_run(block, programs, tmp_path):
    assert (failed := programs.run_program(block, tmp_path)) is None, failed


@pytest.mark.parametrize("path", MARKDOWN, ids=_name)
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf8")):
        assert "://" in target or (path.parent / target).exists(), target


def test_tables_of_options_are_of_the_runs_beside_the_page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    path = ROOT / "docs" / "choosing.md"
    text, page = path.read_text(encoding="utf8"), importlib.import_module("representations.page")
    assert set(re.findall(r"<!-- table: ([\w ]+) -->", text)) == set(page.QUESTIONS)
    assert page.fill(path, pd.read_csv(path.with_suffix(".csv"))) == text, "python benchmarks/representation.py page"
    with path.with_suffix(".csv").open(encoding="utf8") as file:
        runs = list(csv.DictReader(file))

    def infection(setting: str, option: str, seeds: range) -> list[float]:
        own = {int(run["seed"]): float(run["infection"]) for run in runs
               if (run["setting"], run["severity"], run["option"]) == (setting, "medium", option)}  # fmt: skip
        return [own[seed] for seed in seeds]

    kept = infection("target", "AdaBN, turned", range(3))
    assert f"| AdaBN, turned | {mean(kept):.3f} ± {stdev(kept):.3f} |" in text
    told = [infection("cheap", option, range(4, 9)) for option in ("batch halved", "baseline")]
    change = [own - other for own, other in zip(*told, strict=True)]
    around = "*" if all(each < 0 for each in change) else ""
    assert f"| batch halved | baseline | {around}{mean(change):+.3f}{around} |" in text


def test_ci_runs_the_test_command_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    command = re.search(r"<!-- tests -->\n```bash\n(.*?)\n```", readme).group(1)
    done = subprocess.run(
        ["bash", "-c", (ROOT / ".ci" / "run").read_text().splitlines()[-1].replace("bash -c", "printf %s")],
        cwd=ROOT, capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == command
    assert command.endswith("pytest -n auto")
