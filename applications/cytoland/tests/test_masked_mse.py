"""The loss of pre-training."""

from __future__ import annotations

import pytest
import torch

from cytoland import MaskedMSELoss


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 2, 3, 4, 5, generator=generator) for _ in range(2))


def test_it_is_the_mean_over_hidden_voxels(images):
    preds, original = images
    mask = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(1)) < 0.4
    squared = [
        (preds[b, c, z, y, x] - original[b, c, z, y, x]).item() ** 2
        for b in range(2)
        for c in range(2)
        for z in range(3)
        for y in range(4)
        for x in range(5)
        if mask[b, 0, y, x]
    ]
    assert MaskedMSELoss()(preds, original, mask).item() == pytest.approx(sum(squared) / len(squared))


def test_what_is_seen_does_not_count(images):
    preds, original = images
    mask = torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    mask[..., :2] = True
    changed = preds.clone()
    changed[..., 2:] += 100
    assert MaskedMSELoss()(changed, original, mask) == MaskedMSELoss()(preds, original, mask)


def test_where_nothing_is_hidden_there_is_no_loss(images):
    preds, original = images
    preds.requires_grad_()
    loss = MaskedMSELoss()(preds, original, torch.zeros(2, 1, 4, 5, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert (preds.grad == 0).all()


def test_without_a_mask_everything_counts(images):
    torch.testing.assert_close(MaskedMSELoss()(*images), ((images[0] - images[1]) ** 2).mean())
