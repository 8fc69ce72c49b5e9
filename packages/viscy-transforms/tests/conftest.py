"""Inputs made by a hash, and small batches."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch


def hashed(n: int, name: str) -> np.ndarray:
    """Return n numbers in [0, 1) that depend on the name and the position only."""
    mask = np.uint64(0xFFFFFFFF)
    h = (np.arange(n, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()))) & mask
    for shift, multiplier in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        h ^= h >> np.uint64(shift)
        h = (h * np.uint64(multiplier)) & mask
    h ^= h >> np.uint64(16)
    return h.astype(np.float64) / 2**32


@pytest.fixture
def signed():
    """Make a tensor in [-1, 1) from a shape and a name."""

    def make(shape, name="x"):
        values = 2 * hashed(int(np.prod(shape)), name) - 1
        return torch.from_numpy(values.astype(np.float32).reshape(shape))

    return make


@pytest.fixture
def batch(signed):
    """Eight different samples of two channels, (8, 2, 3, 12, 12)."""
    return signed((8, 2, 3, 12, 12))
