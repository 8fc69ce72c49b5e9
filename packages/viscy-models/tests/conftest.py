"""Golden configurations, and the hash that weights and inputs are made of."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


def hashed(n: int, name: str) -> np.ndarray:
    """Return n numbers in [0, 1) that depend on the name and the position only."""
    mask = np.uint64(0xFFFFFFFF)
    h = (np.arange(n, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()))) & mask
    for multiplier in (0x7FEB352D, 0x846CA68B):
        h ^= h >> np.uint64(15 if multiplier == 0x846CA68B else 16)
        h = (h * np.uint64(multiplier)) & mask
    h ^= h >> np.uint64(16)
    return h.astype(np.float64) / 2**32


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    u = hashed(int(np.prod(shape)), key)
    s = 2 * u - 1
    if leaf == "running_var":
        values = 1 + 0.5 * u
    elif leaf == "running_mean":
        values = 0.1 * s
    elif len(shape) >= 2:
        values = np.sqrt(3.0 / np.prod(shape[1:])) * s
    else:
        values = {"gamma": 0.5 + 0.25 * s, "weight": 1 + 0.2 * s}.get(leaf, 0.1 * s)
    return values.astype(np.float32).reshape(shape)


@pytest.fixture(params=sorted(path.stem for path in GOLDEN.glob("*.json")))
def golden(request):
    """Yield a configuration with its outputs."""
    case = json.loads((GOLDEN / f"{request.param}.json").read_text())
    with np.load(GOLDEN / f"{request.param}.npz") as outputs:
        case["outputs"] = dict(outputs)
    return case


@pytest.fixture
def fill():
    """Give every entry of a state dict its hashed value."""

    def filled(model):
        state = {key: torch.from_numpy(weight(key, tuple(v.shape))) for key, v in model.state_dict().items()}
        model.load_state_dict(state)
        return model.eval()

    return filled


@pytest.fixture
def signed():
    """Make an input in [-1, 1)."""

    def make(shape, name="input"):
        values = 2 * hashed(int(np.prod(shape)), name) - 1
        return torch.from_numpy(values.astype(np.float32).reshape(shape))

    return make


@pytest.fixture
def recorded(fill, signed):
    """Yield a function that builds a recorded configuration, and compares its keys and outputs with what is stored."""

    def keys(model):
        return [[key, [list(v.shape), str(v.dtype).removeprefix("torch.")]] for key, v in model.state_dict().items()]

    class Recorded:
        def __init__(self, path):
            self.case = json.loads((GOLDEN / f"{path}.json").read_text())
            with np.load(GOLDEN / f"{path}.npz") as stored:
                self.stored = dict(stored)

        def check_keys(self, make):
            with torch.device("meta"):
                model = make(**self.case["kwargs"])
            assert keys(model) == [[key, entry] for key, entry in self.case["state_dict"].items()]
            assert sum(p.numel() for p in model.parameters()) == self.case["n_params"]
            for name, value in self.case["attributes"].items():
                assert getattr(model, name) == value

        def build(self, make):
            return fill(make(**self.case["kwargs"])), signed(self.case["input"])

        def compare(self, **outputs):
            assert outputs.keys() == self.stored.keys()
            for name, value in outputs.items():
                entry = self.case["arrays"][name]
                assert list(value.shape) == entry["shape"]
                found = value.flatten()[:: entry["stride"]].numpy().astype(float)
                np.testing.assert_allclose(found, self.stored[name], rtol=0, atol=1e-4 * entry["absmax"])

    return Recorded
