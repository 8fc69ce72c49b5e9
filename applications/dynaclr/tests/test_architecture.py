"""Who may import whom, and that importing a package stays cheap and alone."""

from __future__ import annotations

import ast
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = {
    path.name: path for path in [*ROOT.glob("packages/*/src/*"), *ROOT.glob("applications/*/src/*")] if path.is_dir()
}
ALLOWED = {
    "viscy_transforms": set(),
    "viscy_data": set(),
    "viscy_models": set(),
    "viscy_losses": set(),
    "viscy_utils": {"viscy_data"},
    "cytoland": {"viscy_transforms", "viscy_data", "viscy_models", "viscy_losses", "viscy_utils"},
    "dynaclr": {"viscy_transforms", "viscy_data", "viscy_models", "viscy_losses", "viscy_utils"},
}


def _imports(path: Path) -> list[tuple[str, list[str]]]:
    """Return (module, imported names) of every absolute import of a file, also those inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append((node.module, [alias.name for alias in node.names]))
    return found


def test_every_package_is_known_here():
    assert set(SOURCES) == set(ALLOWED)


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_follow_the_arrows(package):
    for path in SOURCES[package].rglob("*.py"):
        for module, _ in _imports(path):
            top = module.split(".")[0]
            assert top == package or top not in ALLOWED or top in ALLOWED[package], f"{path}: {module}"


def test_nobody_imports_private_names_of_another_package():
    files = [*ROOT.glob("packages/**/*.py"), *ROOT.glob("applications/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]
    for path in files:
        for module, names in _imports(path):
            top, *rest = module.split(".")
            if top not in ALLOWED or SOURCES[top] in path.parents:
                continue
            private = [name for name in [*rest, *names] if name.startswith("_") and not name.startswith("__")]
            if SOURCES[top].parents[1] / "tests" in path.parents:
                # The building blocks of networks are interface of old: their own tests name them.
                private = [name for name in private if name != "_components"]
            assert not private, f"{path}: {module} {private}"


def test_what_two_packages_need_that_know_nothing_of_each_other_is_the_same_to_the_letter():
    models, utils = ROOT / "packages/viscy-models/src/viscy_models", ROOT / "packages/viscy-utils/src/viscy_utils"
    assert (models / "torch_file.py").read_text() == (utils / "runs/torch_file.py").read_text()


@pytest.mark.parametrize("package", ALLOWED)
def test_package_is_typed(package):
    assert (SOURCES[package] / "py.typed").exists()


@pytest.mark.parametrize("package", ALLOWED)
def test_import_is_cheap_and_alone(package):
    code = f"import sys, json; import {package}; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    tops = {name.split(".")[0] for name in loaded}
    assert tops & set(ALLOWED) == {package}
    assert not tops & {"torch", "lightning", "monai", "pandas", "iohub", "timm"}


def test_what_workers_and_data_modules_import():
    code = """
import json, sys
import dynaclr.dataset
of_worker = set(sys.modules)
import lightning.pytorch
before = set(sys.modules)
import dynaclr.datamodule, viscy_data.triplet
print(json.dumps([sorted({name.split(".")[0] for name in names}) for names in (of_worker, set(sys.modules) - before)]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=True, text=True)
    of_worker, of_data_module = map(set, json.loads(done.stdout.splitlines()[-1]))
    later = {
        "monai",
        "pandas",
        "sklearn",
        "scipy",
        "zarr",
        "tensorstore",
        "anndata",
        "xarray",
        "numba",
        "viscy_transforms",
    }
    assert not of_worker & (later | {"lightning", "torchmetrics", "torchvision", "iohub", "matplotlib"})
    assert not of_data_module & later


@pytest.mark.parametrize("command", ["cytoland", "dynaclr", "viscy"])
def test_help_and_refusals_need_no_torch(command):
    module = {"viscy": "viscy_utils.cli"}.get(command, f"{command}.cli")
    code = f"""
import sys
from {module} import main
for arguments, code in ([["--help"], 0], [["fit", "--help"], 0], [["predict", "-c", "absent.yml"], 2]):
    sys.argv = ["{command}", *arguments]
    try:
        main()
    except SystemExit as stop:
        assert (stop.code or 0) == code, stop.code
heavy = sorted(set(sys.modules) & {{"torch", "lightning", "monai", "numpy", "pandas", "jsonargparse"}})
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    for word in ["fit", "validate", "test", "predict", "preprocess", "export", "--trainer.max_epochs"]:
        assert word in done.stdout
    assert "absent.yml" in done.stderr


@pytest.mark.parametrize("package", ALLOWED)
def test_names_are_loaded_lazily_by_the_library_for_it(package):
    for path in SOURCES[package].rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf8")).body:
            name = getattr(node, "name", None)
            assert name not in ("__getattr__", "__dir__"), f"{path}:{node.lineno} write lazy_loader.attach instead"


@pytest.mark.parametrize("package", ALLOWED)
def test_lazy_names_are_complete_and_those_of_their_modules(package, programs, tmp_path):
    code = f"""
import importlib
from pathlib import Path
import {package}
root = Path({package}.__file__).parent
for path in root.rglob("__init__.py"):
    if "lazy_loader.attach" not in path.read_text(encoding="utf8"):
        continue
    name = ".".join([{package!r}, *path.parent.relative_to(root).parts])
    room = importlib.import_module(name)
    assert room.__all__ == sorted(room.__all__), name
    assert dir(room) == room.__all__, name
    for public in room.__all__:
        assert getattr(room, public) is not None, (name, public)
"""
    assert (failed := programs.run_program(code, tmp_path)) is None, failed


def test_mutants_are_changes_of_texts_that_stand_once():
    """A list that no longer follows the code tries nothing."""
    listed = runpy.run_path(str(ROOT / "tools/mutant_list.py"))["MUTANTS"]
    assert {"index", "lineage", "losses", "patches", "positives", "probe", "sampler"} == {each.group for each in listed}
    counts = {(each.file, each.old): (ROOT / each.file).read_text().count(each.old) for each in listed}
    assert {place: count for place, count in counts.items() if count != 1} == {}
