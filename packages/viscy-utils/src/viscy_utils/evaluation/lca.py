"""Linear classifiers of frozen embeddings as a layer of the network, and what in the image they look at."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from viscy_data.optional import require

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from sklearn.linear_model import LogisticRegression

__all__ = ["AssembledClassifier", "fit_logistic_regression", "linear_from_binary_logistic_regression"]

_logger = logging.getLogger(__name__)

Side = tuple[NDArray, NDArray]


def fit_logistic_regression(
    features: xr.DataArray,
    annotations: pd.Series,
    train_fovs: Sequence[str] | None = None,
    train_ratio: float = 0.8,
    remove_background_class: bool = True,
    scale_features: bool = False,
    class_weight: Mapping[int, float] | Literal["balanced"] | None = "balanced",
    random_state: int | None = None,
    solver: str = "liblinear",
) -> tuple[LogisticRegression, tuple[Side, Side]]:
    """Fit a binary logistic regression on the cells of some FOVs, and report it on those of the others.

    Parameters
    ----------
    features : xarray.DataArray, shape (N, F)
        With the coordinate ``fov_name``.
    annotations : Series, shape (N,)
        Categorical, or what can be made so. Cells without one are left out.
    train_fovs : sequence of str, optional
        FOVs that train. By default about ``train_ratio`` of the cells, of FOVs in random order.
    train_ratio : float, default 0.8
    remove_background_class : bool, default True
        Leave out the cells of the first category.
    scale_features : bool, default False
        Standardise by the mean and the deviation of the training cells. The returned model is that of features as they
        are: what scaling does is part of its weights.
    class_weight, random_state, solver
        Of `sklearn.linear_model.LogisticRegression`; ``random_state`` also orders the FOVs.

    Returns
    -------
    model : LogisticRegression
        Of classes 0 and 1, in the order of the categories.
    sides : tuple
        (features, classes) of the training cells and of the others.

    Raises
    ------
    ValueError
        If there are not two classes, a side lacks one, or a FOV has no cells.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import classification_report
    from sklearn.preprocessing import StandardScaler

    codes = np.asarray(annotations.astype("category").cat.codes)
    kept = codes >= int(remove_background_class)
    names, classes = np.unique(codes[kept], return_inverse=True)
    if len(names) != 2:
        raise ValueError(f"expected two classes among the annotations, found {len(names)}")
    x = np.asarray(features)[kept]
    train = _training(np.asarray(features["fov_name"]).astype(str)[kept], train_fovs, train_ratio, random_state)
    sides = [(x[side], classes[side]) for side in (train, ~train)]
    if any(len(np.unique(labels)) < 2 for _, labels in sides):
        raise ValueError("the FOVs of one side have a single class: choose other train_fovs or another random_state")
    model = LogisticRegression(class_weight=class_weight, random_state=random_state, solver=solver)
    if scale_features:
        scaler = StandardScaler().fit(sides[0][0])
        model.fit(scaler.transform(sides[0][0]), sides[0][1])
        model.coef_ = model.coef_ / scaler.scale_
        model.intercept_ = model.intercept_ - model.coef_ @ scaler.mean_
    else:
        model.fit(*sides[0])
    for name, (own, labels) in zip(("training", "test"), sides, strict=True):
        _logger.info("%s cells:\n%s", name, classification_report(labels, model.predict(own), digits=3))
    return model, (sides[0], sides[1])


def _training(fovs: NDArray, chosen: Sequence[str] | None, ratio: float, seed: int | None) -> NDArray:
    """Tell which cells train: those of the chosen FOVs, or of as many as come nearest to a share of the cells."""
    if chosen is not None:
        wanted, own = [name.strip("/") for name in chosen], np.char.strip(fovs, "/")
        absent = sorted(set(wanted) - set(own))
        if absent:
            raise ValueError(f"train_fovs: no cells of {', '.join(absent)}")
        return np.isin(own, wanted)
    names, counts = np.unique(fovs, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    shares = counts[order].cumsum() / counts.sum()
    n_train = int(np.argmin(np.abs(shares - ratio))) + 1
    return np.isin(fovs, names[order[:n_train]])


def linear_from_binary_logistic_regression(logistic_regression: LogisticRegression) -> nn.Linear:
    """Turn a fitted binary logistic regression into a layer with one output, the logit of class 1."""
    weights, bias = logistic_regression.coef_, logistic_regression.intercept_
    layer = nn.Linear(weights.shape[1], 1)
    layer.weight = nn.Parameter(torch.tensor(weights, dtype=torch.float32))
    layer.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float32))
    return layer.eval()


class AssembledClassifier(nn.Module):
    """An encoder with a linear classifier on its features.

    Parameters
    ----------
    backbone : nn.Module
        With ``stem`` and ``encoder``, such as `viscy_models.ContrastiveEncoder`.
    classifier : nn.Linear
    """

    def __init__(self, backbone: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.classifier = backbone, classifier

    @staticmethod
    def scale_features(x: Tensor) -> Tensor:
        """Standardise features (B, F) by the mean and the deviation of the batch: not of use for single images."""
        return (x - x.mean(dim=0)) / x.std(dim=0, correction=0).clamp(min=torch.finfo(x.dtype).eps)

    def forward(self, x: Tensor, scale_features: bool = False) -> Tensor:
        """Compute the logit of images (B, C, Z, Y, X), shape (B, 1)."""
        features = self.backbone.encoder(self.backbone.stem(x))
        return self.classifier(self.scale_features(features) if scale_features else features)

    def attribute_integrated_gradients(self, img: Tensor, **kwargs: Any) -> Tensor:
        """Attribute the logit to pixels by integrated gradients (Sundararajan et al. 2017).

        Parameters
        ----------
        img : Tensor, shape (B, C, Z, Y, X)
        **kwargs
            Of ``captum.attr.IntegratedGradients.attribute``, such as ``baselines``.

        Returns
        -------
        Tensor, of the shape of the images
        """
        attr = require("captum.attr", extra="attribution", package="viscy-utils")
        return attr.IntegratedGradients(self).attribute(img, **kwargs)

    def attribute_occlusion(self, img: Tensor, **kwargs: Any) -> Tensor:
        """Attribute the logit to parts of the image that are covered one after the other (Zeiler and Fergus 2014).

        Parameters
        ----------
        img : Tensor, shape (B, C, Z, Y, X)
        **kwargs
            Of ``captum.attr.Occlusion.attribute``; ``sliding_window_shapes`` is needed.

        Returns
        -------
        Tensor, of the shape of the images
        """
        attr = require("captum.attr", extra="attribution", package="viscy-utils")
        return attr.Occlusion(self).attribute(img, **kwargs)
