"""A classifier as a file that holds data only: numpy arrays and JSON, no pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.errors import InputError
from viscy_utils.evaluation.array_file import load_arrays, save_arrays

if TYPE_CHECKING:
    from viscy_utils.evaluation.linear_classifier import LinearClassifierPipeline

__all__ = ["SCHEMA", "hash_store", "load_classifier", "save_classifier"]

SCHEMA = "viscy linear classifier 1"
"""Name and version of the layout, the entry ``schema`` of the JSON."""

_STEPS = {
    "scaler": ("mean_", "scale_", "var_"),
    "pca": ("components_", "mean_", "explained_variance_"),
    "classifier": ("coef_", "intercept_"),
}


def save_classifier(
    pipeline: LinearClassifierPipeline, path: str | Path, origin: Mapping[str, Any], overwrite: bool = False
) -> None:
    """Save a classifier; the same one gives the same bytes.

    Parameters
    ----------
    pipeline : LinearClassifierPipeline
    path : str or Path
        An ``.npz`` file: float64 arrays ``<step>.<attribute>`` and ``json``, UTF-8 text with ``schema``, ``task``,
        ``classes``, ``config`` and ``origin``.
    origin : mapping
        What it was trained on, and how well it did.
    overwrite : bool, default False
        Replace an existing file.

    Raises
    ------
    FileExistsError
        If there is one and it may not be replaced.
    """
    arrays = {}
    for name, attributes in _STEPS.items():
        step = getattr(pipeline, name)
        if step is not None:
            arrays |= {f"{name}.{attribute}": getattr(step, attribute) for attribute in attributes}
    content = {
        "task": pipeline.task,
        "classes": [str(label) for label in pipeline.classifier.classes_],
        "config": pipeline.config,
        "origin": origin,
    }
    save_arrays(path, SCHEMA, content, arrays, overwrite)


def load_classifier(path: str | Path) -> tuple[LinearClassifierPipeline, dict[str, Any]]:
    """Load a classifier; nothing in the file is executed.

    Returns
    -------
    pipeline : LinearClassifierPipeline
    content : dict
        The JSON of the file.

    Raises
    ------
    MissingInputError, InputError
        If there is no file, or another one.
    """
    from viscy_utils.evaluation.linear_classifier import LinearClassifierPipeline

    content, arrays = load_arrays(path, SCHEMA, "a classifier")
    try:
        steps = {name: _restored(name, arrays) for name in _STEPS}
        # Probabilities are computed as the solver of the training does.
        steps["classifier"].solver = content["config"].get("classifier_params", {}).get("solver", "lbfgs")
        steps["classifier"].classes_ = np.array(content["classes"])
        return LinearClassifierPipeline(**steps, config=content["config"], task=content["task"]), content
    except (AttributeError, LookupError, TypeError, ValueError) as err:
        raise InputError(
            str(path), found="a damaged file: JSON that does not go with its arrays", expected="a classifier"
        ) from err


def _restored(name: str, arrays: Mapping[str, np.ndarray]) -> Any:
    """Make an estimator of scikit-learn from its arrays; None if the file has none."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    attributes = {attribute: arrays.get(f"{name}.{attribute}") for attribute in _STEPS[name]}
    if any(values is None for values in attributes.values()):
        return None
    step = {"scaler": StandardScaler, "pca": PCA, "classifier": LogisticRegression}[name]()
    for attribute, values in attributes.items():
        setattr(step, attribute, values)
    step.n_features_in_ = next(iter(attributes.values())).shape[-1]
    return step


def hash_store(path: str | Path) -> str:
    """Hash the names and the content of all files of a store: SHA-256, hexadecimal."""
    digest = hashlib.sha256()
    for file in sorted(path for path in Path(path).rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
