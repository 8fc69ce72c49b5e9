"""Indexes, checkpoints, classifiers and corrections whose bytes are spoilt, and arguments that mean nothing."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
import yaml
from hypothesis import strategies as st

from dynaclr.cli import cli
from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from viscy_data.errors import InputError
from viscy_data.testing.mutations import ByteEdit, TreeEdit, byte_edits, edited_bytes, edited_tree, tree_edits
from viscy_utils.evaluation.correction import load_correction
from viscy_utils.evaluation.linear_classifier_file import load_classifier

pytest_plugins = ["viscy_data.testing.fixtures"]

KEPT = {
    "cells.parquet": [
        [ByteEdit(0.456, "drop", 228)],
        [ByteEdit(0.061, "drop", 113)],
        [ByteEdit(0.0, "drop", 126)],
        *([ByteEdit(0.438442999074644, "flip", bits)] for bits in (1, 128)),  # names of columns
        [ByteEdit(0.991, "repeat", 150), ByteEdit(0.959, "zero", 200)],
    ],
    "classifier.npz": [[ByteEdit(0.456, "cut")], [ByteEdit(0.991, "repeat", 150), ByteEdit(0.959, "zero", 200)]],
    "correction.npz": [[ByteEdit(0.061, "drop", 113)]],
    "last.ckpt": [],
}
CELLS = ["fov_name", "track_id", "t"]
MANY = {"cells.parquet": 800, "classifier.npz": 800, "correction.npz": 800, "last.ckpt": 400}


@pytest.mark.parametrize("name", KEPT)
def test_info_of_spoilt_bytes(fresh, tried, samples, name):
    def check(edits):
        place = fresh()
        (place.folder / name).write_bytes(edited_bytes((samples / name).read_bytes(), edits))
        place.accepted(f"info {name}", name)

    tried(check, byte_edits(), 10, MANY[name], KEPT[name])


def test_an_index_with_spoilt_bytes_is_refused(fresh, tried, trained, samples):
    registry = ExperimentRegistry.from_yaml(trained / "experiments.yml", training_channels="all")
    window = (slice(0, 1), (1, 1))
    content = (samples / "cells.parquet").read_bytes()
    whole = MultiExperimentIndex(registry, *window).tracks

    def check(edits):
        path = fresh().folder / "cells.parquet"
        path.write_bytes(edited_bytes(content, edits))
        try:
            loaded = MultiExperimentIndex.load(path, registry, *window)
        except InputError as err:
            refused = str(err)
        else:
            assert loaded.tracks[CELLS].equals(whole[CELLS])
            return
        assert path.name in refused

    tried(check, byte_edits(1), 15, 1200, KEPT["cells.parquet"])


@pytest.mark.parametrize(
    ("name", "load"),
    [("classifier.npz", load_classifier), ("correction.npz", load_correction)],
    ids=["classifier", "correction"],
)
def test_the_json_of_fitted_files(fresh, tried, samples, name, load):
    with np.load(samples / name) as file:
        arrays = dict(file)
    content = json.loads(arrays.pop("json").tobytes())

    def check(case):
        edits, lost = case
        path = fresh().folder / name
        text = json.dumps(edited_tree(content, edits)).encode()
        kept = dict(list(arrays.items())[lost:])
        np.savez(path, json=np.frombuffer(text, np.uint8), **kept)
        with contextlib.suppress(InputError):
            load(path)

    kept = [([TreeEdit(at, "replace")], 0) for at in range(12)]
    tried(check, st.tuples(tree_edits(2), st.integers(0, 2)), 20, 800, kept)


WORDS = [
    *("", "x", "-1", "0", "1", "nan", "1e9", "../x", "--", "[", "{}", "a=b", "\u00e4", "--help"),
    *("fit.yml", "experiments.yml", "first", "first/images.zarr", "first/tracks"),
    *("runs/trained", "runs/trained/embeddings.zarr"),
]
OWN = sorted(set(cli.commands) - {"demo", "fit", "predict", "test", "validate", "export", "compare-losses"})


@st.composite
def arguments(draw) -> list[str]:
    """Draw a command with options that it has and values that they may not take."""
    name = draw(st.sampled_from(OWN))
    command = cli.commands[name]
    options = ["--lable"]
    with contextlib.suppress(AttributeError):
        options += [text for option in command.load().params for text in option.opts if text.startswith("-")]
    options = [option for option in options if option not in ("--dask", "--workers")]  # processes, servers
    words = st.one_of(st.sampled_from(options), st.sampled_from(WORDS))
    return [name, *draw(st.lists(words, max_size=5))]


def test_arguments(fresh, tried):
    def check(words):
        place = fresh()
        place.write("fit.yml", yaml.safe_dump(place.fit))
        place.accepted(words)

    tried(check, arguments(), 30, 1500)
