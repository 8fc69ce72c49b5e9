"""Statistics of batch normalisation of other data than those of training: estimated, and lent to a network.

Li et al., "Revisiting batch normalization for practical domain adaptation", ICLR workshop 2017, arXiv:1603.04779
(AdaBN); Lin and Lu, "Incorporating knowledge of plates in batch normalization improves generalization of deep learning
for microscopy images", MLCB 2022.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["FeatureNorm", "batch_norms", "estimate_batch_statistics", "lent_batch_statistics"]

_NAMES = ("running_mean", "running_var")


class FeatureNorm(nn.Module):
    """An encoder with a batch normalisation more, one without weights behind its features.

    Features then follow statistics that are estimated and lent, also of an encoder without batch normalisation before
    them (ConvNeXt, transformers). Until then they pass as they are, but for the 1e-5 that is added to a variance.

    Parameters
    ----------
    encoder : nn.Module
        From images to features (B, F) and more, with F in the attribute ``num_features``; it is not copied.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        device = next(encoder.parameters()).device
        self.features = nn.BatchNorm1d(encoder.num_features, affine=False, device=device).eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return features (B, F), normalised and in single precision, and what else the encoder returns."""
        features, *others = self.encoder(x)
        return (self.features(features.float()), *others)


def batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """Return the layers of a network that normalise by batches when it is trained, by name.

    A ConvNeXt's trunk has none, nor has a frozen encoder, which stays in evaluation mode also in training.
    """
    with _modes_kept(network):
        network.train()
        layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, _BatchNorm)}
        return {name: layer for name, layer in layers.items() if layer.training and layer.track_running_stats}


@contextmanager
def _modes_kept(network: nn.Module) -> Iterator[None]:
    modes = {name: module.training for name, module in network.named_modules()}
    try:
        yield
    finally:
        for name, module in network.named_modules():
            module.training = modes[name]


@torch.no_grad()
def estimate_batch_statistics(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Estimate means and variances of the inputs of every batch normalisation, as training would see them.

    Each batch is normalised by its own statistics, layer after layer. The estimate is the plain average over batches of
    means and of unbiased variances, so batches are to be of equal size and of mixed cells. The network is left as it
    was, its mode included.

    Parameters
    ----------
    network : nn.Module
        Called with each batch.
    batches : iterable of Tensor, shape (B, ...)
        At least one, of at least two samples each.

    Returns
    -------
    dict of str to Tensor
        Per layer ``<name>.running_mean`` and ``<name>.running_var``, shape (channels,), on the device of the network;
        empty without batch normalisation.

    Raises
    ------
    ValueError
        If there is no batch, or one of a single sample.
    """
    layers = batch_norms(network)
    kept = {name: {key: value.clone() for key, value in layer._buffers.items()} for name, layer in layers.items()}
    momenta = {name: layer.momentum for name, layer in layers.items()}
    try:
        with _modes_kept(network):
            network.eval()
            for layer in layers.values():
                layer.reset_running_stats()
                layer.momentum = None  # torch then averages all batches alike
                layer.train()
            _run_all(network, batches)
        return {f"{name}.{key}": getattr(layer, key).clone() for name, layer in layers.items() for key in _NAMES}
    finally:
        for name, layer in layers.items():
            layer.momentum = momenta[name]
            for key, value in kept[name].items():
                getattr(layer, key).copy_(value)


def _run_all(network: nn.Module, batches: Iterable[Tensor]) -> None:
    n_batches = 0
    for batch in batches:
        if len(batch) < 2:
            raise ValueError("a batch of a single sample has no variance: give batches of equal size")
        network(batch)
        n_batches += 1
    if not n_batches:
        raise ValueError("no batch to estimate statistics from")


@contextmanager
def lent_batch_statistics(network: nn.Module, statistics: Mapping[str, Tensor]) -> Iterator[None]:
    """Let a network normalise with other statistics while the block runs.

    Parameters
    ----------
    network : nn.Module
    statistics : mapping of str to Tensor
        As from :func:`estimate_batch_statistics` of a network of the same layers.

    Raises
    ------
    ValueError
        If layers or sizes differ.
    """
    own = {f"{name}.{key}": getattr(layer, key) for name, layer in batch_norms(network).items() for key in _NAMES}
    expected = {name: tuple(value.shape) for name, value in own.items()}
    found = {name: tuple(value.shape) for name, value in statistics.items()}
    if expected != found:
        differing = sorted(set(expected.items()) ^ set(found.items()))[0]
        raise ValueError(f"statistics of another network: they differ at {differing[0]}, of shape {differing[1]}")
    kept = {name: value.clone() for name, value in own.items()}
    try:
        for name, value in own.items():
            value.copy_(statistics[name])
        yield
    finally:
        for name, value in own.items():
            value.copy_(kept[name])
