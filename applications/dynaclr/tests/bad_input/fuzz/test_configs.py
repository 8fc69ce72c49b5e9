"""Configurations with values changed: of a training, and of every command that takes a small YAML file."""

from __future__ import annotations

import pytest
import yaml

from viscy_data.testing.mutations import TreeEdit, edited_tree, tree_edits

pytest_plugins = ["viscy_data.testing.fixtures"]

STORE = "cells.zarr"
LABELLED = [{"embeddings": STORE, "annotations": "labels.csv"}]
CONFIGS = {
    "train-linear-classifier": {"task": "state", "train_datasets": LABELLED, "max_iter": 50, "output_path": "new.npz"},
    "apply-linear-classifier": {
        "classifier_path": "classifier.npz",
        "embeddings_path": STORE,
        "output_path": "new.zarr",
    },
    "cross-validate": {"task": "state", "train_datasets": LABELLED, "n_folds": 2, "output_dir": "new"},
    "append-annotations": {
        "embeddings_path": STORE,
        "annotations": [{"experiment": "first", "path": "labels.csv"}],
        "columns": ["state"],
        "output_path": "new.zarr",
    },
    "append-predictions": {"embeddings_path": STORE, "classifiers": ["classifier.npz"], "output_path": "new.zarr"},
    "reduce-dimensionality": {"input_path": STORE, "pca": {"n_components": 2}, "output_path": "new.zarr"},
    "plot-embeddings": {
        "input_path": STORE,
        "output_dir": "new",
        "embedding_keys": ["X_pca"],
        "color_by": ["condition"],
    },
    "evaluate-smoothness": {
        "models": [{"path": STORE, "label": "own"}],
        "distance_metric": "cosine",
        "output_dir": "new",
        "save_plots": False,
    },
    "compare-models": {
        "result_files": [{"path": "own_smoothness.csv", "label": "own"}],
        "output_path": "new.md",
        "output_format": "markdown",
    },
}
KEPT = {
    "data": [[TreeEdit(0, "replace")], [TreeEdit(1, "replace", None)]],
    "model": [[TreeEdit(0, "replace")], [TreeEdit(1, "replace", None)], [TreeEdit(111, "replace", None)]],
    "train-linear-classifier": [[TreeEdit(262, "replace", True)]],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_values_of_the_configuration_of_a_command(fresh, tried, name):
    def check(edits):
        place = fresh("cells.zarr", "labels.csv", "classifier.npz", "own_smoothness.csv")
        before = place.listing()
        place.write("own.yml", yaml.safe_dump(edited_tree(CONFIGS[name], edits), sort_keys=False))
        if not place.accepted([name, "--config", "own.yml"]):
            assert place.listing() - {"own.yml"} == before

    tried(check, tree_edits(2), 2, 150, KEPT.get(name, ()))


# Values that a number of epochs, devices or workers may not take here: they are valid, and train for ever.
VALUES = [None, True, 0, 1, 2, 0.5, float("nan"), "", "x", "ä\u2028", "../x", [], {}, [1, 2], {"x": 1}]


@pytest.mark.parametrize(
    ("part", "command"),
    [
        ("data", "inspect-batches -c fit.yml --batches 1 --pairs 0"),
        ("model", "validate --config fit.yml --run trained"),
    ],
    ids=["data", "model"],
)
def test_values_of_a_training(fresh, tried, part, command):
    def check(edits):
        place = fresh()
        place.fit[part] = edited_tree(place.fit[part], edits)
        place.accepted(command)

    tried(check, tree_edits(2, VALUES), 3, 200, KEPT.get(part, ()))


def test_variants_of_a_comparison(fresh, tried):
    variants = {
        "variants": {
            "a": {"model.init_args.lr": 0.1},
            "b": {"model": {"init_args": {"loss_function": {"init_args": {"temperature": 0.2}}}}},
        }
    }

    def check(edits):
        place = fresh()
        place.fit.update(dta=None)  # nothing is trained
        place.write("v.yml", yaml.safe_dump(edited_tree(variants, edits), sort_keys=False))
        assert not place.accepted("compare-losses -c fit.yml --variants v.yml -o new")
        assert not (place.folder / "new").exists()

    tried(check, tree_edits(2), 3, 100)
