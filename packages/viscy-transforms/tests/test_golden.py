"""Every transform against outputs of the implementation that old configs were written for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import get_track_meta, set_track_meta

import viscy_transforms

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "transforms.json").read_text())
STATISTICS = {"mean": 0.10, "std": 0.50, "median": 0.05, "iqr": 0.80}


@pytest.fixture(scope="module")
def outputs():
    with np.load(GOLDEN / "transforms.npz") as arrays:
        return dict(arrays)


@pytest.fixture(autouse=True)
def plain_tensors():
    before = get_track_meta()
    set_track_meta(False)
    yield
    set_track_meta(before)


def statistics(multiplier, samples):
    scale = 1 + 0.5 * torch.arange(samples) if samples else torch.tensor(1.0)
    return {name: value * multiplier * scale for name, value in STATISTICS.items()}


def norm_meta(inputs, batched):
    meta = {}
    for j, (key, image) in enumerate(inputs.items()):
        samples = len(image) if batched else 0
        meta[key] = {
            "fov_statistics": statistics(1 + 0.1 * j, samples),
            "dataset_statistics": statistics(2 + 0.1 * j, samples),
        }
    return meta


def compare(found, expected, outputs):
    if isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            compare(one, other, outputs)
    elif "tensor" in expected:
        array = outputs[expected["tensor"]]
        assert str(found.dtype) == f"torch.{expected['dtype']}"
        np.testing.assert_allclose(found.numpy(), array, rtol=0, atol=1e-5 * max(np.abs(array).max(), 1e-9))
    else:
        for key, entry in expected.items():
            compare(found[key], entry, outputs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_output_is_the_golden_one(case, outputs, signed):
    inputs = {key: signed(shape, f"tf_{case['case']}_{key}") for key, shape in case["inputs"].items()}
    if "constant" in case["note"]:
        inputs = {key: torch.full_like(image, 2.0) for key, image in inputs.items()}
    if case.get("norm_meta"):
        inputs["norm_meta"] = norm_meta(inputs, "(B,)" in case["norm_meta"])
    transform = getattr(viscy_transforms, case["cls"])(**case["kwargs"])
    found = transform(inputs if "sample_dict" in case["call"] else inputs["a"])
    compare(found, case["output"], outputs)
