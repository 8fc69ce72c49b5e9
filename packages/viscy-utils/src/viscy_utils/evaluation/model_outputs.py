"""What a model makes of a few samples, whatever form its batches and outputs have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from viscy_utils.randomness import fixed_randomness

__all__ = ["ModelOutputs", "evaluating", "run_model"]

_INPUT_KEYS = ("anchor", "source", "image", "img", "input", "inputs", "x")
_RECONSTRUCTION_KEYS = ("recon_x", "reconstruction", "reconstructions", "recon", "pred", "prediction")
_EMBEDDING_KEYS = ("projections", "projection", "embeddings", "embedding", "features", "latent", "z")


@dataclass
class ModelOutputs:
    """Samples and what became of them, on the CPU.

    Parameters
    ----------
    inputs : Tensor, shape (N, C, [Z,] Y, X)
    reconstructions : Tensor, shape (N, K, [Z,] Y, X), optional
    targets : Tensor, shape (N, C, [Z,] Y, X), optional
        What the reconstructions are compared with, where that is not the input: the ``target`` of the batch.
    embeddings : Tensor, shape (N, D), optional
        Of models that do not reconstruct; of several, such as features and projections, the last.
    positives, positive_embeddings : Tensor, optional
        Of batches that have positives.
    lineage : Tensor, shape (N,), optional
    """

    inputs: Tensor
    reconstructions: Tensor | None = None
    targets: Tensor | None = None
    embeddings: Tensor | None = None
    positives: Tensor | None = None
    positive_embeddings: Tensor | None = None
    lineage: Tensor | None = None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode without gradients, and each of its parts back into the mode it was in.

    The flags are set directly: ``model.train()`` would wake the parts that were frozen.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def run_model(
    model: nn.Module, batches: Iterable[Any], device: torch.device | str, n_samples: int, seed: int = 0
) -> ModelOutputs:
    """Run a model on the first samples of some batches.

    Modes, random state and the device of the model are left as they were.

    Parameters
    ----------
    model : nn.Module
        Called with images. Returns a tensor, tuple, mapping, or object with attributes.
    batches : iterable
        Tensors, tuples (images first), or mappings with the images under ``anchor``, ``source``, ``image`` or similar.
    device : torch.device or str
        Where to run.
    n_samples : int
    seed : int, default 0
        Of models that draw random numbers.

    Raises
    ------
    ValueError
        If there are no samples, no images in a batch, or neither images nor embeddings in the output.
    """
    if n_samples < 1:
        raise ValueError(f"num_samples must be at least 1, found {n_samples}")
    home = next((parameter.device for parameter in model.parameters()), torch.device(device))
    device = torch.device(device)
    parts: list[dict[str, Tensor]] = []
    with fixed_randomness(seed, device), evaluating(model), _moved(model, home, device):
        for batch in batches:
            missing = n_samples - sum(len(part["inputs"]) for part in parts)
            parts.append(_run_batch(model, batch, device, missing))
            if len(parts[-1]["inputs"]) >= missing:
                break
    if not parts or not len(parts[0]["inputs"]):
        raise ValueError("there are no samples: the loader is empty")
    common = set.intersection(*(set(part) for part in parts))
    return ModelOutputs(**{name: torch.cat([part[name] for part in parts]) for name in common})


@contextmanager
def _moved(model: nn.Module, home: torch.device, device: torch.device) -> Iterator[None]:
    away = home.type != device.type or (device.index is not None and home.index != device.index)
    try:
        yield model.to(device) if away else model
    finally:
        if away:
            model.to(home)


def _run_batch(model: nn.Module, batch: Any, device: torch.device, n_samples: int) -> dict[str, Tensor]:
    inputs, targets, batch = _images(batch)
    inputs = inputs[:n_samples]
    references = [inputs] if targets is None else [targets[:n_samples], inputs]
    output = model(inputs.to(device))
    part = {"inputs": inputs}
    reconstruction = _reconstruction(output, references)
    if reconstruction is not None:
        part["reconstructions"], shown = reconstruction
        part |= {} if shown is inputs else {"targets": shown}
    else:
        part["embeddings"] = _embedding(output)
        positive = batch.get("positive")
        if isinstance(positive, Tensor):
            part["positives"] = positive[:n_samples]
            part["positive_embeddings"] = _embedding(model(part["positives"].to(device)))
        if isinstance(batch.get("lineage"), Tensor):
            part["lineage"] = batch["lineage"][:n_samples]
    return {name: tensor.detach().cpu() for name, tensor in part.items()}


def _images(batch: Any) -> tuple[Tensor, Tensor | None, Mapping[str, Any]]:
    """Return inputs, targets, and the batch as a mapping."""
    if isinstance(batch, Tensor):
        return batch, None, {}
    if isinstance(batch, Mapping):
        key = next((key for key in _INPUT_KEYS if isinstance(batch.get(key), Tensor)), None)
        if key is not None:
            return batch[key], _image_or_none(batch.get("target")), batch
        nested = [value for value in batch.values() if isinstance(value, Mapping | list | tuple)]
        if nested:
            return _images(nested[0])  # of several loaders the first
        raise ValueError(f"no images in a batch with the keys {', '.join(map(str, batch))}")
    if isinstance(batch, list | tuple) and batch:
        if not isinstance(batch[0], Tensor):
            return _images(batch[0])
        return batch[0], _image_or_none(batch[1] if len(batch) > 1 else None), {}
    raise ValueError(f"no images in a batch of type {type(batch).__name__}")


def _image_or_none(value: Any) -> Tensor | None:
    """Tell target images from class labels and other things beside the input."""
    return value if isinstance(value, Tensor) and value.ndim >= 3 else None


def _named(output: Any) -> dict[Any, Any]:
    if isinstance(output, Tensor):
        return {0: output}
    if isinstance(output, Mapping):
        return dict(output)
    if hasattr(output, "_asdict"):  # a named tuple
        return output._asdict()
    if isinstance(output, list | tuple):
        return dict(enumerate(output))
    return dict(getattr(output, "__dict__", {}))


def _reconstruction(output: Any, references: list[Tensor]) -> tuple[Tensor, Tensor] | None:
    """Return the reconstruction, and that of the references that it shows."""
    named = {name: value for name, value in _named(output).items() if isinstance(value, Tensor)}
    known = next((name for name in _RECONSTRUCTION_KEYS if name in named), None)
    candidates = list(named.values()) if known is None else [named[known]]
    for value in candidates:
        for reference in references:
            if (image := _fitted(value, reference)) is not None:
                return image, reference
    if known is not None:
        found, expected = tuple(named[known].shape), tuple(references[0].shape)
        raise ValueError(f"{known}: found shape {found}, expected an image of the same pixels as {expected}")
    return None


def _fitted(value: Tensor, reference: Tensor) -> Tensor | None:
    """Return an image (N, K, [Z,] Y, X) if it shows the pixels of the reference."""
    if value.ndim < 3 or reference.ndim < 3 or len(value) != len(reference):
        return None
    flat = value.ndim == 5 and value.shape[2] == 1
    for image in (value, value.unsqueeze(2), value.squeeze(2) if flat else value):  # a stack of one slice is an image
        with_channels = image.ndim == reference.ndim and image.shape[2:] == reference.shape[2:]
        # Class maps may come without a channel axis.
        if with_channels or (image.ndim == reference.ndim + 1 and image.shape[2:] == reference.shape[1:]):
            return image
    return None


def _embedding(output: Any) -> Tensor:
    named = {name: value for name, value in _named(output).items() if isinstance(value, Tensor) and value.ndim == 2}
    chosen = next((named[key] for key in _EMBEDDING_KEYS if key in named), None)
    if chosen is None:
        if not named:
            raise ValueError(
                f"the model returned {type(output).__name__} with neither images of the size of its input (such as "
                "recon_x or reconstruction) nor embeddings (N, D)"
            )
        chosen = list(named.values())[-1]
    return chosen
