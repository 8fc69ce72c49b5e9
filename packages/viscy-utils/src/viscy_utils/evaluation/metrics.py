"""Metrics of segmentations and of predicted images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from viscy_data.optional import require
from viscy_utils.evaluation.ssim import ms_ssim_25d, ssim_25d

__all__ = [
    "POD_metric",
    "VOI_metric",
    "labels_to_detection",
    "labels_to_masks",
    "mean_average_precision",
    "ms_ssim_25d",
    "ssim_25d",
]


def VOI_metric(target: ArrayLike, prediction: ArrayLike) -> list[float]:
    r"""Compute the variation of information of two masks.

    :math:`2 H(X, Y) - H(X) - H(Y)` with entropies in bits; Meila, "Comparing clusterings", COLT 2003.

    Parameters
    ----------
    target, prediction : array_like of one shape
        What is larger than 0 is foreground.

    Returns
    -------
    list of one float
        0 for masks that tell the same, a complement included, and at most 2.
    """
    target, prediction = np.asarray(target) > 0, np.asarray(prediction) > 0
    if target.shape != prediction.shape:
        raise ValueError(f"found masks of shape {target.shape} and {prediction.shape}, expected one shape")
    joint = np.histogram2d(target.ravel(), prediction.ravel(), bins=2, range=[[0, 1], [0, 1]])[0] / target.size
    found = 2 * _entropy(joint) - _entropy(joint.sum(axis=0)) - _entropy(joint.sum(axis=1))
    return [max(found, 0.0)]


def _entropy(shares: NDArray) -> float:
    present = shares[shares > 0]
    return float(-np.sum(present * np.log2(present)))


def POD_metric(target_bin: ArrayLike, pred_bin: ArrayLike) -> list[float]:
    """Count detected objects: those whose centre is near that of a target.

    Parameters
    ----------
    target_bin, pred_bin : array_like of int or bool, shape (Y, X)
        Objects are connected regions of equal values above 0.

    Returns
    -------
    list
        True positives, false positives, false negatives (int), precision, recall, F1. As many objects as possible are
        matched one to one within half of the mean major axis of the targets, the nearest first. A quotient is NaN
        where there is nothing to divide by, as is everything without any object.
    """
    optimize, distance = (
        require(f"scipy.{part}", extra="metrics", package="viscy-utils") for part in ("optimize", "spatial.distance")
    )
    targets, predictions = (_regions(image) for image in (target_bin, pred_bin))
    n_hits = 0
    if targets and predictions:
        limit = np.mean([region.axis_major_length for region in targets]) / 2
        distances = distance.cdist(*([region.centroid for region in regions] for regions in (targets, predictions)))
        # One pair beyond the limit costs more than all within it: first as many hits as can be, then near ones.
        beyond = (limit + 1) * (min(distances.shape) + 1)
        rows, columns = optimize.linear_sum_assignment(np.where(distances <= limit, distances, beyond))
        n_hits = int((distances[rows, columns] <= limit).sum())
    n_false, n_missed = len(predictions) - n_hits, len(targets) - n_hits
    precision, recall = _share(n_hits, len(predictions)), _share(n_hits, len(targets))
    return [n_hits, n_false, n_missed, precision, recall, _share(2 * n_hits, 2 * n_hits + n_false + n_missed)]


def _regions(image: ArrayLike) -> list[Any]:
    measure = require("skimage.measure", extra="metrics", package="viscy-utils")
    return measure.regionprops(measure.label(np.asarray(image).astype(np.int64)))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def labels_to_masks(labels: Tensor) -> Tensor:
    """Split a label image into one mask per object.

    Parameters
    ----------
    labels : Tensor of int, shape (Y, X)
        0 is background, which there need not be.

    Returns
    -------
    Tensor of bool, shape (N, Y, X)
        In the order of the labels; N may be 0.

    Raises
    ------
    ValueError
        If the image is not 2D.
    """
    if labels.ndim != 2:
        raise ValueError(f"labels: found shape {tuple(labels.shape)}, expected (Y, X)")
    objects = torch.unique(labels)
    return labels == objects[objects != 0][:, None, None]


def labels_to_detection(labels: Tensor) -> dict[str, Tensor]:
    """Describe the objects of a label image as torchmetrics wants detections.

    Parameters
    ----------
    labels : Tensor of int, shape (Y, X)

    Returns
    -------
    dict
        ``boxes`` (N, 4) float32, first and last x and y as x1, y1, x2, y2; ``scores`` (N,) of 1; ``labels`` (N,) of
        0; ``masks`` (N, Y, X) bool.
    """
    masks = labels_to_masks(labels)
    rows, columns = masks.any(dim=2), masks.any(dim=1)
    ends = []
    for present in (columns, rows):
        numbers = torch.arange(present.shape[1], device=labels.device)
        ends.append(torch.where(present, numbers, present.shape[1]).amin(dim=1))
        ends.append(torch.where(present, numbers, -1).amax(dim=1))
    x1, x2, y1, y2 = ends
    return {
        "boxes": torch.stack([x1, y1, x2, y2], dim=1).float(),
        "scores": torch.ones(len(masks), device=labels.device),
        "labels": torch.zeros(len(masks), dtype=torch.uint8, device=labels.device),
        "masks": masks,
    }


def mean_average_precision(pred_labels: Tensor, target_labels: Tensor, **kwargs: Any) -> dict[str, Tensor]:
    """Compute the mean average precision of the objects of a label image, by the rules of COCO.

    Parameters
    ----------
    pred_labels, target_labels : Tensor of int, shape (Y, X)
        Frames without objects are allowed.
    **kwargs
        Replace the arguments of ``torchmetrics.detection.MeanAveragePrecision``: ``iou_type="segm"`` and
        ``max_detection_thresholds=[1, 100, 10000]``.

    Returns
    -------
    dict of str to Tensor
        ``map``, ``map_50``, ``mar_100``, ...; -1 where there is nothing to judge.

    Raises
    ------
    ImportError
        Without the extra ``metrics``.
    """
    for module in ("pycocotools", "torchmetrics"):
        require(module, extra="metrics", package="viscy-utils")
    from torchmetrics.detection import MeanAveragePrecision

    options = {"iou_type": "segm", "box_format": "xyxy", "max_detection_thresholds": [1, 100, 10000]} | kwargs
    metric = MeanAveragePrecision(**options)
    found, wanted = labels_to_detection(pred_labels), labels_to_detection(target_labels)
    if not len(found["masks"]) and len(wanted["masks"]):
        # torchmetrics leaves out an image without detections, as if its targets had not been missed.
        found = {name: torch.zeros_like(values[:1]) for name, values in wanted.items()}
    metric.update([found], [wanted])
    return metric.compute()
