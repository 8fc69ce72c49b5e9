from __future__ import annotations

import numpy as np
import pytest

from viscy_data.stores import PlateWriter
from viscy_utils.statistics.metadata import generate_normalization_metadata

CHANNELS = ["Phase3D", "Nuclei", "Membrane"]
SMALL = {"encoder_blocks": [1, 1], "dims": [16, 32], "in_stack_depth": 5, "stem_kernel_size": [5, 4, 4]}


@pytest.fixture(scope="session")
def small_network():
    """Return arguments of a `FullyConvolutionalMAE` that takes multiples of 8 pixels, without its channels."""
    return SMALL


@pytest.fixture(scope="session")
def write_plate():
    """Return the writer of plates whose fluorescence is a function of phase, with statistics."""

    def write(path, fovs=("A/1/0", "A/2/0", "A/3/0", "B/1/0"), shape=(1, 7, 64, 80)):
        rng = np.random.default_rng(0)
        with PlateWriter(path, CHANNELS) as plate:
            for name in fovs:
                phase = rng.normal(size=shape)
                channels = [phase, 200 + 50 * phase**2, 100 + 20 * np.abs(phase)]
                plate.write(name, np.stack(channels, axis=1).astype(np.float32), (1.0, 1.0, 0.5, 0.25, 0.25))
        generate_normalization_metadata(path, grid_spacing=1)
        return path

    return write


@pytest.fixture(scope="session")
def plate(tmp_path_factory, write_plate):
    """Return a plate that nothing writes to."""
    return write_plate(tmp_path_factory.mktemp("data") / "plate.zarr")
