"""Samples of an epoch as one picture."""

from __future__ import annotations

import pytest
import torch

from viscy_utils.pictures.epoch_samples import EpochSamples
from viscy_utils.pictures.log_images import render_images


def test_the_first_samples_of_the_first_batches_are_drawn_side_by_side_and_forgotten():
    pytest.importorskip("matplotlib")
    generator = torch.Generator().manual_seed(0)
    batches = [
        [torch.rand(4, 1, 5, 6, 7, generator=generator), torch.rand(4, 2, 1, 6, 7, generator=generator)]
        for _ in range(3)
    ]
    samples = EpochSamples(2, 3)
    for number, batch in enumerate(batches):
        samples.add(batch, number)
    rows = [[source[i, 0, 2].numpy(), target[i, :, 0].numpy()] for source, target in batches[:2] for i in range(3)]
    found = samples.take()
    assert found.shape == (6 * 6, 3 * 7, 3)
    assert (found == render_images(rows)).all()
    assert samples.take() is None
