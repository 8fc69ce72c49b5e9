"""Inputs shared by the tests of this package."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden():
    return GOLDEN


@pytest.fixture
def signed():
    """The hash behind the golden inputs: ``signed(shape, name)``, float32 within -1 to 1."""

    def make(shape, name):
        mask = np.uint64(0xFFFFFFFF)
        h = (np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()))) & mask
        h ^= h >> np.uint64(16)
        h = (h * np.uint64(0x7FEB352D)) & mask
        h ^= h >> np.uint64(15)
        h = (h * np.uint64(0x846CA68B)) & mask
        h ^= h >> np.uint64(16)
        return (2 * (h.astype(np.float64) / 4294967296.0) - 1).astype(np.float32).reshape(shape)

    return make
