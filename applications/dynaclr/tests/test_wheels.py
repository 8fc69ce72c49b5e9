"""Each member builds outside git and works alone in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
MEMBERS = sorted(path.parent.name for path in ROOT.glob("*/*/pyproject.toml"))
FALLBACK = "1.0.0.dev0"
SMOKE = {
    "cytoland": "from cytoland import FcmaeUNet, MaskedMSELoss, VSUNet",
    "dynaclr": "from dynaclr import ContrastiveModule, MultiExperimentDataModule, NTXentHCL",
    "viscy-data": """
import numpy as np
from viscy_data import ChannelDropout, FlexibleBatchSampler, PlateWriter, read_plate
with PlateWriter("plate.zarr", ["Phase"]) as plate:
    plate.write("A/1/0", np.zeros((1, 1, 1, 8, 8)))
assert [fov.name for fov in read_plate("plate.zarr")] == ["A/1/0"]
""",
    "viscy-losses": "import viscy_losses; [getattr(viscy_losses, name) for name in viscy_losses.__all__]",
    "viscy-models": "from viscy_models import ContrastiveEncoder, ResNet3dEncoder",
    "viscy-transforms": "from viscy_transforms import BatchedRandAffined, NormalizeSampled",
    "viscy-utils": """
from viscy_utils.cli import VisCyCLI, main
from viscy_utils.callbacks import CheckpointVisualization, EmbeddingWriter
from viscy_utils.runs.trainer import VisCyTrainer
demo = "lightning.pytorch.demos.boring_classes"
main(["fit", f"--model={demo}.BoringModel", f"--data={demo}.BoringDataModule", "--trainer.max_steps=1"])
""",
}
# What a plain install leaves out: heavy, needed by few, or under another kind of licence.
LEFT_OUT = {
    "cytoland": {"anndata", "iohub", "kornia", "phate", "pycocotools", "umap"},
    "dynaclr": {"iohub", "kornia", "phate", "umap"},
    "viscy-data": {"iohub", "matplotlib", "pandas"},
    "viscy-losses": {"lightning", "monai", "pandas"},
    "viscy-models": {"lightning", "matplotlib", "pandas"},
    "viscy-transforms": {"kornia", "lightning", "matplotlib", "pandas"},
    "viscy-utils": {"iohub", "matplotlib", "pandas", "phate", "skimage", "tensorboard"},
}


def _uv(*args: str, cwd: Path | None = None) -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    command = [uv] if uv else [sys.executable, "-m", "uv"]
    done = subprocess.run([*command, *args], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """Build all members from a copy of the tree that knows nothing of git."""
    copy = tmp_path_factory.mktemp("outside_git") / "tree"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", "dist"))
    _uv("build", "--all-packages", "--wheel", "--out-dir", "dist", cwd=copy)
    return copy / "dist"


@pytest.mark.slow
def test_a_build_outside_git_falls_back_to_a_version(wheels):
    names = sorted(path.name.split("-")[0].replace("_", "-") for path in wheels.glob("*.whl"))
    assert names == MEMBERS
    assert all(f"-{FALLBACK}-" in path.name for path in wheels.glob("*.whl"))


@pytest.mark.parametrize("member", MEMBERS)
def test_a_sibling_asked_for_is_one_of_this_project(member):
    # Packages of the same names and other contents were published up to 0.1.0, some for Python 3.12 and newer only.
    project = tomllib.loads(next(ROOT.glob(f"*/{member}/pyproject.toml")).read_text(encoding="utf8"))["project"]
    extras = project.get("optional-dependencies", {}).values()
    for requirement in map(Requirement, [*project["dependencies"], *chain(*extras)]):
        if requirement.name in set(MEMBERS) - {member}:
            assert not requirement.specifier.contains("0.1.0"), requirement
            assert requirement.specifier.contains(FALLBACK), requirement


@pytest.mark.slow
@pytest.mark.parametrize("member", MEMBERS)
def test_wheel_installs_and_imports_alone(member, wheels, tmp_path):
    _uv("venv", "--python", sys.executable, str(tmp_path / "env"))
    python = tmp_path / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wheel = next(wheels.glob(f"{member.replace('-', '_')}-*.whl"))
    _uv("pip", "install", "--python", str(python), "--find-links", str(wheels), str(wheel))
    lean = f"\nfrom importlib.util import find_spec\nassert not [n for n in {sorted(LEFT_OUT[member])} if find_spec(n)]"
    code = SMOKE[member] + lean
    done = subprocess.run([python, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
