"""Runs whose record or checkpoint says something else, and patch stores that are spoilt."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import strategies as st

from viscy_data.testing.mutations import ByteEdit, TreeEdit, byte_edits, edited_bytes, edited_tree, tree_edits

pytest_plugins = ["viscy_data.testing.fixtures"]

KEPT = {
    "values": [(0, [TreeEdit(0, "replace")])],
    "bytes": [(0, [ByteEdit(0.0, "cut")]), (26, [ByteEdit(0.97, "cut")])],
    "training": [("callbacks", [TreeEdit(5, "replace", None)])],
}
VALIDATE = "validate --config fit.yml --ckpt_path last.ckpt"
RESUME = "fit --config fit.yml --ckpt_path last.ckpt --trainer.max_epochs 2"
OF_TRAINING = ["loops", "optimizer_states", "lr_schedulers", "callbacks", "MultiExperimentDataModule"]
FEW = [None, True, 0, 1, -1, 3, 0.5, float("nan"), "", "x", "1", "../x", [], {}, [1, 2], {"x": 1}]


@pytest.mark.parametrize("part", ["state_dict", "hyper_parameters"])
def test_values_of_checkpoints(fresh, tried, samples, part):
    content = torch.load(samples / "last.ckpt", weights_only=True)

    def check(edits):
        place = fresh()
        torch.save(content | edited_tree({part: content[part]}, edits), place.folder / "last.ckpt")
        place.accepted(VALIDATE)

    kept = [TreeEdit(182, "wrap"), TreeEdit(399, "as text")]
    tried(check, tree_edits(2, FEW), 2, 60, [[TreeEdit(0, "replace")], kept])


def test_what_a_checkpoint_says_of_its_training(fresh, tried, samples):
    content = torch.load(samples / "last.ckpt", weights_only=True)

    def check(case):
        part, edits = case
        place = fresh()
        torch.save(content | edited_tree({part: content[part]}, edits), place.folder / "last.ckpt")
        place.accepted(RESUME)

    tried(check, st.tuples(st.sampled_from(OF_TRAINING), tree_edits(2, FEW)), 3, 200, KEPT["training"])


def test_bytes_of_checkpoints(fresh, tried, samples):
    content = (samples / "last.ckpt").read_bytes()

    def check(edits):
        place = fresh()
        (place.folder / "last.ckpt").write_bytes(edited_bytes(content, edits))
        place.accepted(VALIDATE, "last.ckpt")

    tried(check, byte_edits(), 2, 200)


@pytest.mark.parametrize(
    "command", ["info runs/trained", "validate --config fit.yml --run trained", "evaluate --run trained -o runs"]
)
def test_values_of_the_record_of_a_run(fresh, tried, trained, command):
    def check(edits):
        place = fresh()
        run = place.folder / "runs/trained"
        run.unlink()
        run.mkdir()
        for path in (trained / "runs/trained").iterdir():
            (run / path.name).symlink_to(path)
        (run / "run.json").unlink()
        record = json.loads((trained / "runs/trained/run.json").read_text())
        (run / "run.json").write_text(json.dumps(edited_tree(record, edits)))
        place.accepted(command)

    few, many = (10, 300) if command.startswith("info") else (1, 40)
    tried(check, tree_edits(2), few, many, [[TreeEdit(124, "replace", [[1, 2], [3]])]])


@pytest.mark.parametrize("what", ["values", "bytes"])
def test_spoilt_patch_stores(fresh, tried, what):
    edits = tree_edits(2) if what == "values" else byte_edits()

    def check(case):
        place = fresh("patches.zarr")
        at, edits = case
        files = sorted(path for path in (place.folder / "patches.zarr").rglob("*") if path.is_file())
        if what == "values":
            files = [path for path in files if path.suffix == ".json"]
        file = files[at % len(files)]
        text = file.read_bytes()
        file.write_bytes(
            json.dumps(edited_tree(json.loads(text), edits)).encode() if what == "values" else edited_bytes(text, edits)
        )
        place.data["patch_store"] = "patches.zarr"
        place.accepted("info patches.zarr", "patches.zarr")
        place.accepted("inspect-batches -c fit.yml --batches 1 --pairs 0")

    tried(check, st.tuples(st.integers(0, 100), edits), 3, 200, KEPT[what])
