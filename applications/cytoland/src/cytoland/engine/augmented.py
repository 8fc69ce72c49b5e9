"""Predictions of turned images, turned back and combined; and of stacks, window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from viscy_data.checks import Option, check_options, is_count
from viscy_data.errors import InputError, raise_all

__all__ = [
    "AugmentedPredictionVSUNet",
    "Reduction",
    "augmented_prediction",
    "predict_padded",
    "rotation_tta_transforms",
]

Transform = Callable[[Tensor], Tensor]
Reduction = Literal["mean", "median", "product"]


def rotation_tta_transforms(n: int = 4) -> tuple[list[Transform], list[Transform]]:
    """Return rotations in the plane by multiples of 90 degrees, and their inverses.

    Parameters
    ----------
    n : int, default 4
        How many, 1 to 4, the first of which changes nothing.

    Raises
    ------
    InputError

    Examples
    --------
    >>> turn, back = rotation_tta_transforms(2)
    >>> image = torch.arange(6.0).reshape(2, 3)
    >>> turn[1](image).shape, torch.equal(back[1](turn[1](image)), image)
    (torch.Size([3, 2]), True)
    """
    if not (is_count(n, 1) and n <= 4):
        raise InputError("rotation_tta_transforms", field="n", found=repr(n), expected="1, 2, 3 or 4 quarter turns")
    turns = [partial(torch.rot90, k=k, dims=(-2, -1)) for k in range(n)]
    return turns, [partial(torch.rot90, k=-k, dims=(-2, -1)) for k in range(n)]


def augmented_prediction(
    predict: Transform, x: Tensor, forward: Sequence[Transform], inverse: Sequence[Transform], reduction: Reduction
) -> Tensor:
    """Combine the predictions of transformed images.

    Parameters
    ----------
    predict : callable
        From images to images.
    x : Tensor, shape (B, C, Z, Y, X)
    forward, inverse : sequence of callable
        Applied before and after; one pair is one prediction.
    reduction : {"mean", "median", "product"}
        The median of an even number is the mean of the two in the middle. The product is for probabilities.
    """
    predictions = [back(predict(there(x))) for there, back in zip(forward, inverse, strict=True)]
    stacked = torch.stack(predictions)
    if reduction == "mean":
        return stacked.mean(dim=0)
    if reduction == "product":
        return stacked.prod(dim=0)
    ordered, n = stacked.sort(dim=0).values, len(predictions)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def predict_padded(network: nn.Module, x: Tensor) -> Tensor:
    """Predict images of any size in Y and X.

    Parameters
    ----------
    network : nn.Module
        Takes multiples of ``2 ** network.num_blocks``, or any size where it has no such attribute.
    x : Tensor, shape (B, C, Z, Y, X)
        Padded by reflection on all sides, by repetition where it is too small for that; what is predicted of that is
        cut off.

    Returns
    -------
    Tensor, shape (B, K, Z', Y, X)
    """
    multiple = 2 ** getattr(network, "num_blocks", 0)
    (height, width), pads = x.shape[-2:], []
    for size in (width, height):
        missing = -size % multiple
        pads += [missing // 2, missing - missing // 2]
    if any(pads):
        fits = max(pads[:2]) < width and max(pads[2:]) < height
        x = F.pad(x, [*pads, 0, 0], mode="reflect" if fits else "replicate")
    predicted = network(x)
    predicted = predicted[0] if isinstance(predicted, tuple) else predicted  # of a network that pre-trains
    return predicted[..., pads[2] : pads[2] + height, pads[0] : pads[0] + width]


class AugmentedPredictionVSUNet(LightningModule):
    """Predict with a trained network, of images that are transformed in several ways.

    Parameters
    ----------
    model : nn.Module
        From (B, C, Z, Y, X) to images of that size.
    forward_transforms, inverse_transforms : list of callable, optional
        As for :func:`augmented_prediction`; by default images are left as they are.
    reduction : {"mean", "median"}, default "mean"

    Raises
    ------
    InputError
        If there are not as many transforms as inverses, or none, or the reduction is another.
    """

    def __init__(
        self,
        model: nn.Module,
        forward_transforms: list[Transform] | None = None,
        inverse_transforms: list[Transform] | None = None,
        reduction: Literal["mean", "median"] = "mean",
    ) -> None:
        super().__init__()
        same = [lambda x: x]
        self.forward_transforms = same if forward_transforms is None else forward_transforms
        self.inverse_transforms = same if inverse_transforms is None else inverse_transforms
        counts = len(self.forward_transforms), len(self.inverse_transforms)
        raise_all(
            check_options(
                type(self).__name__,
                [
                    Option("inverse_transforms", counts[1], counts[0] == counts[1] > 0, f"{max(1, counts[0])} of them"),
                    Option("reduction", reduction, reduction in get_args(Reduction)[:2], "'mean' or 'median'"),
                ],
            )
        )
        self.model, self.reduction = model, reduction

    @classmethod
    def with_rotation_tta(
        cls, model: nn.Module, n_rotations: int = 4, reduction: Literal["mean", "median"] = "median"
    ) -> AugmentedPredictionVSUNet:
        """Make one that predicts of quarter turns."""
        return cls(model, *rotation_tta_transforms(n_rotations), reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Predict images (B, C, Z, Y, X) of any size in Y and X."""
        pairs = self.forward_transforms, self.inverse_transforms
        return augmented_prediction(partial(predict_padded, self.model), x, *pairs, self.reduction)

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Predict the targets of a batch."""
        return self(batch["source"])

    @torch.inference_mode()
    def predict_sliding_windows(self, x: Tensor, out_channel: int = 2, step: int = 1) -> Tensor:
        """Predict whole stacks, window of slices by window; each slice is the mean of all windows that have it.

        Parameters
        ----------
        x : Tensor, shape (B, C, Z, Y, X)
            At least as deep as a window, which has ``out_stack_depth`` slices of the model.
        out_channel : int, default 2
            Channels that the model predicts.
        step : int, default 1
            Slices from window to window, at most as many as a window has; the last window ends with the stack.

        Returns
        -------
        Tensor, shape (B, out_channel, Z, Y, X)

        Raises
        ------
        InputError
            If the stack is shallower than a window, or the model predicts other channels.
        """
        depth, n_slices = self.model.out_stack_depth, x.shape[2]
        where = "predict_sliding_windows"
        if n_slices < depth:
            raise InputError(where, field="x", found=f"{n_slices} slices", expected=f"{depth} or more")
        if not (is_count(step, 1) and step <= depth):
            raise InputError(
                where, field="step", found=repr(step), expected=f"1 to {depth}, so that no slice is missed"
            )
        total = x.new_zeros(len(x), out_channel, *x.shape[2:])
        count = x.new_zeros(n_slices, 1, 1)
        for first in sorted({*range(0, n_slices - depth + 1, step), n_slices - depth}):
            window = slice(first, first + depth)
            predicted = self(x[:, :, window])
            if predicted.shape[1:3] != (out_channel, depth):
                found = f"{predicted.shape[1]} channels of {predicted.shape[2]} slices predicted"
                raise InputError(where, field="out_channel", found=found, expected=f"{out_channel} of {depth}")
            total[:, :, window] += predicted
            count[window] += 1
        return total / count
