"""Turns of images: which there are, and that their mean does not know how a cell lay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynaclr.turns import mean_over_turns, turns


def by_hand(images, quarters):
    """Turned and mirrored with numpy, by the place that each pixel is from."""
    height, width = images.shape[-2:]
    y, x = np.mgrid[:height, :width]
    places = [(y, x), (x, width - 1 - y), (height - 1 - y, width - 1 - x), (width - 1 - x, y)]
    own = [images[..., rows, columns] for rows, columns in (places[number] for number in quarters)]
    return own + [each[..., ::-1] for each in own]


@pytest.mark.parametrize(("shape", "quarters"), [((2, 1, 1, 5, 5), (0, 1, 2, 3)), ((1, 2, 3, 4, 6), (0, 2))])
def test_turns_are_those_by_hand_each_once(shape, quarters):
    images = torch.arange(float(np.prod(shape))).reshape(shape)
    found = {each.numpy().tobytes() for each in turns(images)}
    assert found == {np.ascontiguousarray(each).tobytes() for each in by_hand(images.numpy(), quarters)}
    assert len(found) == 2 * len(quarters) == len(list(turns(images)))


def test_the_mean_does_not_know_how_a_cell_lay():
    torch.manual_seed(0)
    network, images = torch.nn.Linear(25, 3), torch.randn(4, 1, 1, 5, 5)

    def embed(x):
        return torch.relu(network(x.flatten(1))), x.amax((-1, -2))

    with torch.no_grad():
        own = [embed(torch.from_numpy(each.copy()))[0].numpy() for each in by_hand(images.numpy(), range(4))]
        features, largest = mean_over_turns(embed, images)
        np.testing.assert_allclose(features, np.mean(own, axis=0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(largest, images.amax((-1, -2)))
        for turned in turns(images):
            torch.testing.assert_close(mean_over_turns(embed, turned)[0], features)
        assert not torch.allclose(embed(images)[0], features, atol=1e-2)
