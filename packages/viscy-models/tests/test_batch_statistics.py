"""Statistics of batch normalisation: estimated as by hand, lent and taken back."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from viscy_models.batch_statistics import FeatureNorm, batch_norms, estimate_batch_statistics, lent_batch_statistics
from viscy_models.contrastive import ContrastiveEncoder
from viscy_models.foundation import PretrainedEncoder


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3), nn.BatchNorm1d(3)]
    return nn.Sequential(*layers).eval()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [3 * torch.randn(8, 4, generator=generator) + shift for shift in (0.0, 1.0, -2.0)]


def by_hand(network, batches):
    """Means and unbiased variances of both layers, averaged over batches, with numpy."""
    first, norm, _, _, second, _ = network
    seen = {"1": [], "5": []}
    for batch in batches:
        x = batch.double().numpy() @ first.weight.detach().double().numpy().T + first.bias.detach().double().numpy()
        seen["1"].append((x.mean(axis=0), x.var(axis=0, ddof=1)))
        scaled = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + norm.eps)
        scaled = scaled * norm.weight.detach().double().numpy() + norm.bias.detach().double().numpy()
        y = np.maximum(scaled, 0) @ second.weight.detach().double().numpy().T + second.bias.detach().double().numpy()
        seen["5"].append((y.mean(axis=0), y.var(axis=0, ddof=1)))
    return {
        f"{name}.{key}": np.mean([each[number] for each in of_batches], axis=0)
        for name, of_batches in seen.items()
        for number, key in enumerate(("running_mean", "running_var"))
    }


def test_statistics_are_those_by_hand(network, batches):
    found, expected = estimate_batch_statistics(network, batches), by_hand(network, batches)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-5, atol=1e-6)


def test_statistics_are_one_average_whatever_the_momentum(network, batches):
    expected = estimate_batch_statistics(network, batches)
    for layer in batch_norms(network).values():
        layer.momentum, layer.running_mean[0] = 0.7, 5.0
    for name, value in estimate_batch_statistics(network, batches).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_left_as_it_was(network, batches, training):
    network.train(training)
    network[3].eval()
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    estimate_batch_statistics(network, batches)
    with pytest.raises(ValueError, match="single sample"):
        estimate_batch_statistics(network, [*batches, batches[0][:1]])
    with pytest.raises(ValueError, match="no batch"):
        estimate_batch_statistics(network, [])
    assert [module.training for module in network.modules()] == modes
    assert [layer.momentum for layer in batch_norms(network).values()] == [0.1, 0.1]
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_lent_statistics_act_in_the_block_alone(network, batches):
    statistics = estimate_batch_statistics(network, batches)
    other = copy.deepcopy(network)
    other.load_state_dict(network.state_dict() | statistics)
    own = network(batches[0])
    with lent_batch_statistics(network, statistics):
        assert torch.equal(network(batches[0]), other(batches[0]))
    assert torch.equal(network(batches[0]), own)
    with pytest.raises(RuntimeError), lent_batch_statistics(network, statistics):
        network(batches[0][:, :2])
    assert torch.equal(network(batches[0]), own)
    assert not torch.allclose(own, other(batches[0]))


def test_statistics_of_another_network_are_refused(network, batches):
    statistics = estimate_batch_statistics(network, batches)
    del statistics["5.running_var"]
    with pytest.raises(ValueError, match=r"5\.running_var"), lent_batch_statistics(network, statistics):
        pass


def test_a_shift_of_the_input_is_taken_out(network, batches):
    moved = [2.5 * batch for batch in batches]
    first = nn.Sequential(*network[:2])
    first[0].bias.data.zero_()
    with lent_batch_statistics(first, estimate_batch_statistics(first, batches)):
        expected = first(batches[0])
    with lent_batch_statistics(first, estimate_batch_statistics(first, moved)):
        torch.testing.assert_close(first(moved[0]), expected, rtol=1e-3, atol=1e-3)


def test_a_convnext_has_none_but_in_its_head():
    encoder = ContrastiveEncoder("convnext_atto", 1, 1, (1, 4, 4), (1, 4, 4), embedding_dim=8, projection_dim=4)
    assert not batch_norms(encoder.encoder)
    assert all(name.startswith("projection.") for name in batch_norms(encoder))


def test_a_frozen_encoder_keeps_its_own_statistics():
    class Backbone(PretrainedEncoder):
        def channel_features(self, images):
            return self.backbone(images.flatten(0, 1)[:, None]).mean((-2, -1)).reshape(*images.shape[:2], -1)

    def made(freeze):
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
        return Backbone(backbone, 3, 8, freeze, projection_dim=2, in_channels=2)

    head = {"projection.1", "projection.4"}
    frozen, images = made(True).eval(), torch.randn(5, 2, 1, 8, 8)
    assert set(batch_norms(frozen)) == head
    assert set(batch_norms(made(False))) == head | {"backbone.1"}
    before, modes = copy.deepcopy(frozen.state_dict()), [module.training for module in frozen.modules()]
    network = FeatureNorm(frozen)
    with lent_batch_statistics(network, estimate_batch_statistics(network, [images])):
        found = network(images)[0].detach().double().numpy()
    assert [module.training for module in frozen.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    x = frozen.forward_features(images).double().numpy()
    expected = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0, ddof=1) + 1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_features_without_batch_norm_follow_statistics_that_are_lent():
    torch.manual_seed(0)
    encoder = ContrastiveEncoder("convnext_atto", 1, 1, (1, 4, 4), (1, 4, 4), embedding_dim=8, projection_dim=4).eval()
    images = torch.randn(6, 1, 1, 32, 32)
    network, before = FeatureNorm(encoder), copy.deepcopy(encoder.state_dict())
    with torch.no_grad():
        features, projections = encoder(images)
        for plain, passed in zip((features, projections), network(images), strict=True):
            torch.testing.assert_close(passed, plain, rtol=1e-4, atol=1e-6)
        statistics = estimate_batch_statistics(network, [images])
        with lent_batch_statistics(network, statistics):
            found, _ = network(images)
    x = features.double().numpy()
    np.testing.assert_allclose(statistics["features.running_mean"], x.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics["features.running_var"], x.var(axis=0, ddof=1), rtol=1e-3, atol=1e-6)
    expected = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0, ddof=1) + 1e-5)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
