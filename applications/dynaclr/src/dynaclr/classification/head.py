"""An encoder with its projection replaced by a classifier."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FeatureClassifier", "split_encoder"]


class FeatureClassifier(nn.Module):
    """Classify the features of any encoder.

    Parameters
    ----------
    encoder : nn.Module
        From images to (features (B, F), projections), with F in the attribute ``num_features``. Its ``projection``, if
        it has one, is taken out: parameters without a gradient stop distributed training.
    num_outputs : int
        Width of the linear layer on top.
    """

    def __init__(self, encoder: nn.Module, num_outputs: int) -> None:
        super().__init__()
        if hasattr(encoder, "projection"):
            encoder.projection = nn.Identity()
        self.encoder = encoder
        self.fc = nn.Linear(encoder.num_features, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_outputs) of images."""
        return self.fc(self.encoder(x)[0])


def split_encoder(encoder: nn.Module, num_outputs: int) -> tuple[nn.Module, nn.Module]:
    """Copy an encoder as a stem and a backbone that ends in a linear layer of the right width.

    Parameters
    ----------
    encoder : nn.Module
        `viscy_models.ContrastiveEncoder` on any backbone, or another encoder with ``num_features``. It stays as it is.
    num_outputs : int
        Width of the linear layer.

    Returns
    -------
    stem, backbone : nn.Module
        Applied one after the other.

    Raises
    ------
    TypeError
        If the number of features is not known.
    """
    encoder = copy.deepcopy(encoder)
    backbone = getattr(encoder, "encoder", None)
    if hasattr(encoder, "stem") and hasattr(backbone, "reset_classifier"):  # a model of timm
        backbone.reset_classifier(num_outputs)
        return encoder.stem, backbone
    if not hasattr(encoder, "num_features"):
        raise TypeError(f"encoder: {type(encoder).__name__} has no attribute num_features, the width of its features")
    return nn.Identity(), FeatureClassifier(encoder, num_outputs)


def class_logits(outputs: Tensor) -> Tensor:
    """Return one logit per class: a lone logit of a binary task becomes those of the classes 0 and 1.

    Parameters
    ----------
    outputs : Tensor, shape (B, 1) or (B, K)

    Returns
    -------
    Tensor, shape (B, 2) or (B, K)
        Their softmax is the sigmoid of a lone logit, and its complement.
    """
    return torch.cat([torch.zeros_like(outputs), outputs], dim=1) if outputs.shape[1] == 1 else outputs


def loss_value(found: Tensor | Mapping[str, Any]) -> Tensor:
    """Return the loss, also of a module that names its parts."""
    return found["loss"] if isinstance(found, Mapping) else found
