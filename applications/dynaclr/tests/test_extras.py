"""What an extra brings, and is not installed, is asked for by name: of every extra that there is."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from packaging.requirements import Requirement

from dynaclr.neighbors import nearest_of_other_lineages
from viscy_data import PatchReader
from viscy_data.images.sources import open_images
from viscy_data.livecell import LiveCellDataset, LiveCellTestDataset
from viscy_data.mask_files import read_mask
from viscy_data.pieces import map_pieces
from viscy_data.tracks import read_tracks
from viscy_data.tracks.geff import read_geff
from viscy_data.tracks.napari import read_napari
from viscy_utils.cli.trainer_parts import default_logger
from viscy_utils.embeddings.reductions import reduce_features
from viscy_utils.embeddings.store import import_anndata
from viscy_utils.evaluation.clustering import pairwise_distance_matrix
from viscy_utils.evaluation.feature import CellFeatures
from viscy_utils.evaluation.lca import AssembledClassifier
from viscy_utils.evaluation.metrics import POD_metric, mean_average_precision
from viscy_utils.evaluation.profiles import profile_average_precision
from viscy_utils.evaluation.pseudotime import build_template, dtw_align_tracks
from viscy_utils.pictures.log_images import render_images
from viscy_utils.reports.html.page import page_html
from viscy_utils.reports.html.thumbnails import thumbnail
from viscy_utils.runs.onnx_export import export_onnx
from viscy_utils.statistics.normalize import hist_adapteq_2D

ROOT = Path(__file__).parents[3]
MODULES = {"faiss-cpu": "faiss", "pillow": "PIL", "pylibczirw": "pylibCZIrw", "scikit-image": "skimage"}
MODULES |= {"scikit-learn": "sklearn", "umap-learn": "umap", "distributed": "dask.distributed"}
# Imported at the top of modules, or by another library of the same extra: those name it.
WITH_OTHERS = {
    ("viscy-utils", "anndata", "pandas"),
    ("viscy-utils", "eval", "pydantic"),
}
PROJECTS = [tomllib.loads(path.read_text())["project"] for path in sorted(ROOT.glob("*/*/pyproject.toml"))]
PROJECTS = {project["name"]: project for project in PROJECTS}
IMAGE = np.arange(64.0).reshape(8, 8)


def extras() -> Iterator[tuple[str, str, str]]:
    """List member, extra and library of all that any extra brings, but for what an extra takes from another."""
    for member, project in PROJECTS.items():
        for extra, wanted in project.get("optional-dependencies", {}).items():
            for library in (Requirement(text).name for text in wanted):
                if library not in PROJECTS:
                    yield member, extra, library


def brought(wanted: Iterable[str]) -> set[str]:
    """Return what a list of dependencies brings, by the names that one imports; siblings bring theirs."""
    libraries = set()
    for requirement in map(Requirement, wanted):
        sibling = PROJECTS.get(requirement.name)
        if sibling is None:
            libraries.add(MODULES.get(requirement.name, requirement.name))
            continue
        libraries |= brought(sibling["dependencies"])
        for extra in requirement.extras:
            libraries |= brought(sibling["optional-dependencies"][extra])
    return libraries


def cases() -> Iterator[tuple[list[str], list[str]]]:
    """List the libraries that each extra brings, with the packages that can be installed without them."""
    own = defaultdict(set)
    for member, extra, library in extras():
        own[member, extra].add(MODULES.get(library, library))
    for libraries in own.values():
        packages = defaultdict(list)
        for member, project in PROJECTS.items():
            packages[frozenset(libraries - brought(project["dependencies"]))].append(member.replace("-", "_"))
        yield from ((sorted(missing), names) for missing, names in packages.items() if missing)


def synthetic():
    importlib.import_module("viscy_data.synthetic")


def empty(folder, name, content=""):
    (folder / name).write_text(content)
    return folder / name


def points(folder):
    np.save(folder / "t.npy", np.zeros((1, 4)))
    return read_napari(folder / "t.npy")


def labelled(folder):
    text = '{"images": [{"id": 1, "file_name": "a.tif", "height": 4, "width": 4}], "annotations": []}'
    empty(folder, "a.tif")
    return LiveCellTestDataset(folder, None, empty(folder, "labels.json", text), load_labels=True)


def aligned():
    hours = np.arange(6.0)
    template = build_template(hours[:, None], np.zeros(6), hours, np.full(6, 3.0), interval_hours=1)
    return dtw_align_tracks(hours[:, None], np.zeros(6), hours, template)


def shaped():
    return CellFeatures(IMAGE, IMAGE > 9)


def network():
    return AssembledClassifier(torch.nn.Identity(), torch.nn.Linear(1, 1))


# What needs each library; a new one has to be entered here.
USES = {
    ("viscy-data", "triplet", "pandas"): points,
    ("viscy-data", "triplet", "pyarrow"): lambda at: read_tracks(empty(at, "t.csv", "track_id,t,y,x\n0,0,1,1\n")),
    ("viscy-data", "triplet", "scipy"): lambda at: synthetic(),
    ("viscy-data", "triplet", "tensorstore"): lambda at: PatchReader([]),
    ("viscy-data", "livecell", "pillow"): lambda at: read_mask(empty(at, "a.png")),
    ("viscy-data", "livecell", "pycocotools"): labelled,
    ("viscy-data", "livecell", "tifffile"): lambda at: LiveCellDataset([]),
    ("viscy-data", "geff", "geff"): lambda at: read_geff(at),
    ("viscy-data", "images", "bioio"): lambda at: open_images(empty(at, "a.other")),
    ("viscy-data", "images", "liffile"): lambda at: open_images(empty(at, "a.lif")),
    ("viscy-data", "images", "nd2"): lambda at: open_images(empty(at, "a.nd2")),
    ("viscy-data", "images", "pylibczirw"): lambda at: open_images(empty(at, "a.czi")),
    ("viscy-data", "images", "tifffile"): lambda at: open_images(empty(at, "a.tif")),
    ("viscy-data", "dask", "distributed"): lambda at: list(map_pieces(len, [[1]], dask="tcp://host:8786")),
    ("viscy-utils", "anndata", "anndata"): lambda at: import_anndata(),
    ("viscy-utils", "anndata", "xarray"): lambda at: import_anndata(),
    ("viscy-utils", "eval", "scikit-learn"): lambda at: reduce_features("pca", IMAGE, {}),
    ("viscy-utils", "eval", "scipy"): lambda at: pairwise_distance_matrix(IMAGE, device="scipy"),
    ("viscy-utils", "eval", "umap-learn"): lambda at: reduce_features("umap", IMAGE, {}),
    ("viscy-utils", "phate", "phate"): lambda at: reduce_features("phate", IMAGE, {}),
    ("viscy-utils", "pacmap", "pacmap"): lambda at: reduce_features("pacmap", IMAGE, {}),
    ("viscy-utils", "pseudotime", "dtaidistance"): lambda at: aligned(),
    ("viscy-utils", "profiles", "copairs"): lambda at: profile_average_precision(IMAGE, pd.DataFrame()),
    ("viscy-utils", "report", "pillow"): lambda at: thumbnail(IMAGE, (4, 4)),
    ("viscy-utils", "report", "plotly"): lambda at: page_html("a", "b", []),
    ("viscy-utils", "attribution", "captum"): lambda at: network().attribute_integrated_gradients(torch.ones(1)),
    ("viscy-utils", "features", "mahotas"): lambda at: shaped().compute_texture_features(),
    ("viscy-utils", "features", "pandas"): lambda at: shaped().to_df(),
    ("viscy-utils", "features", "scikit-image"): lambda at: shaped().compute_morphology_features(),
    ("viscy-utils", "features", "scipy"): lambda at: shaped().compute_morphology_features(),
    ("viscy-utils", "metrics", "pycocotools"): lambda at: mean_average_precision(torch.ones(4, 4), torch.ones(4, 4)),
    ("viscy-utils", "metrics", "scikit-image"): lambda at: POD_metric(IMAGE, IMAGE),
    ("viscy-utils", "metrics", "scipy"): lambda at: POD_metric(IMAGE, IMAGE),
    ("viscy-utils", "metrics", "torchmetrics"): lambda at: mean_average_precision(torch.ones(4, 4), torch.ones(4, 4)),
    ("viscy-utils", "plot", "matplotlib"): lambda at: render_images([[IMAGE]]),
    ("viscy-utils", "plot", "scikit-image"): lambda at: hist_adapteq_2D(IMAGE),
    ("viscy-utils", "tensorboard", "tensorboard"): default_logger,
    ("viscy-utils", "export", "onnx"): lambda at: export_onnx(torch.nn.Identity(), at / "m.onnx"),
    ("viscy-utils", "export", "onnxscript"): lambda at: export_onnx(torch.nn.Identity(), at / "m.onnx"),
    ("dynaclr", "neighbors", "faiss-cpu"): lambda at: nearest_of_other_lineages(IMAGE, np.arange(8), 1, exact_up_to=0),
}


def test_all_that_extras_bring_is_known_here():
    assert set(extras()) == {*USES, *WITH_OTHERS}


@pytest.fixture
def blocked(monkeypatch):
    """Return a function after which a module cannot be imported, nor any part of it that was."""

    def block(name):
        for loaded in [name, *(own for own in sys.modules if own.startswith(f"{name}."))]:
            monkeypatch.setitem(sys.modules, loaded, None)
        for own in [own for own in sys.modules if own.startswith("viscy_data.synthetic")]:
            monkeypatch.delitem(sys.modules, own)

    return block


@pytest.mark.parametrize("case", USES, ids="-".join)
def test_what_is_missing_names_its_extra(case, blocked, tmp_path, caplog):
    package, extra, library = case
    blocked(MODULES.get(library, library))
    try:
        USES[case](tmp_path)
        said = caplog.text  # one goes on without it
    except ImportError as err:
        said = str(err)
    assert re.search(rf"pip install '{package}\[{extra}\]'", said), said


@pytest.mark.slow
def test_every_public_module_imports_or_names_the_extra_that_it_asks_for():
    tried = list(cases())
    command = [sys.executable, Path(__file__).with_name("imports_without.py"), json.dumps(tried)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    n_modules, told = json.loads(done.stdout)
    assert n_modules > 500
    assert sum(refused is not None for refused in told) > 4  # those of pandas, SciPy and scikit-learn at least
    for refused in filter(None, told):
        for module, library, message in refused:
            named = re.search(r"pip install '([\w-]+)\[([\w-]+)\]'", message)
            assert named, f"{module}: {message}"
            assert library in brought(PROJECTS[named[1]]["optional-dependencies"][named[2]]), f"{module}: {message}"
