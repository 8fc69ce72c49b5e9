"""Files with some of their values or bytes changed: what is read of them is right, or refused in a few words."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import strategies as st

from viscy_data.testing.mutations import ByteEdit, TreeEdit, byte_edits, edited_bytes, edited_tree, tree_edits

pytest_plugins = ["viscy_data.testing.fixtures"]

INDEX = "build-index experiments.yml index.parquet"
KEPT_METADATA = [("zarr.json", [TreeEdit(0, "replace", value)]) for value in (None, True)]
KEPT_METADATA += [("A/1/0/zarr.json", [TreeEdit(52, "replace")])]
KEPT_EXPERIMENTS = [[TreeEdit(0, "wrap"), TreeEdit(1, "repeat")]]
KEPT_BYTES = [[ByteEdit(0.0, "repeat", 15)] * 2]


def whole_or_nothing(place, command: str, written: str) -> bool:
    """Run a command; what it refuses leaves nothing behind."""
    accepted = place.accepted(command)
    assert (place.folder / written).exists() == accepted
    return accepted


def test_values_of_experiments(fresh, tried):
    def check(edits):
        place = fresh()
        place.write("experiments.yml", yaml.safe_dump(edited_tree(place.experiments, edits), sort_keys=False))
        whole_or_nothing(place, INDEX, "index.parquet")

    tried(check, tree_edits(3), 20, 1600, KEPT_EXPERIMENTS)


@pytest.mark.parametrize("name", ["experiments.yml", "fit.yml"])
def test_bytes_of_configurations(fresh, tried, name):
    def check(edits):
        place = fresh()
        content = place.experiments if name == "experiments.yml" else place.fit
        (place.folder / name).write_bytes(edited_bytes(yaml.safe_dump(content).encode(), edits))
        place.accepted(f"info {name}", "yml")
        if name == "experiments.yml":
            whole_or_nothing(place, INDEX, "index.parquet")

    tried(check, byte_edits(), 10, 1000, KEPT_BYTES)


METADATA = ("zarr.json", "A/zarr.json", "A/1/zarr.json", "A/1/0/zarr.json", "A/1/0/0/zarr.json")


def _with_metadata(place, trained, name, change):
    """Give a folder its own metadata; the pixels stay shared."""
    (place.folder / "first").unlink()
    source = trained / "first"
    for path in source.rglob("zarr.json"):
        copy = place.folder / "first" / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (place.folder / "first" / "tracks").symlink_to(source / "tracks")
    target = place.folder / "first/images.zarr" / name
    target.write_bytes(change(target.read_bytes()))


def test_values_of_metadata(fresh, tried, trained):
    def check(case):
        place = fresh()
        name, edits = case
        _with_metadata(place, trained, name, lambda text: json.dumps(edited_tree(json.loads(text), edits)).encode())
        place.accepted("info first/images.zarr")
        whole_or_nothing(place, INDEX, "index.parquet")

    tried(check, st.tuples(st.sampled_from(METADATA), tree_edits()), 25, 1400, KEPT_METADATA)


def test_bytes_of_metadata(fresh, tried, trained):
    def check(case):
        place = fresh()
        name, edits = case
        _with_metadata(place, trained, name, lambda text: edited_bytes(text, edits))
        place.accepted("info first/images.zarr")
        whole_or_nothing(place, INDEX, "index.parquet")

    tried(check, st.tuples(st.sampled_from(METADATA), byte_edits()), 10, 800)
