"""What users read is true: YAML parses, Python blocks run, links lead somewhere, commands are those of CI."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
def test_python_blocks_run(block, tmp_path):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", MARKDOWN, ids=_name)
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf8")):
        assert "://" in target or (path.parent / target).exists(), target


def test_ci_runs_the_test_command_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    command = re.search(r"<!-- tests -->\n```bash\n(.*?)\n```", readme).group(1)
    done = subprocess.run(
        ["bash", "-c", (ROOT / ".ci" / "run").read_text().splitlines()[-1].replace("bash -c", "printf %s")],
        cwd=ROOT, capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == command
    assert command.endswith("pytest -n auto")
