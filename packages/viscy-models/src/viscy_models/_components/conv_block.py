"""What the convolutional blocks of the U-Nets have in common, in 2D and 3D.

Ronneberger et al., "U-Net", MICCAI 2015; the residual sum follows He et al., "Deep residual learning for image
recognition", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.functional import pad

from viscy_models._components.arguments import one_of, positive, rate

__all__ = ["Activation", "ConvBlock", "FilterSteps", "Norm"]

Activation = Literal["relu", "leakyrelu", "elu", "selu", "linear"]
FilterSteps = Literal["first", "linear", "last"]
Norm = Literal["batch", "instance", "none"]

_ACTIVATIONS = {
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "linear": nn.Identity,
}
_LAYERS = {
    2: {"Conv": nn.Conv2d, "dropout": nn.Dropout2d, "batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d},
    3: {"Conv": nn.Conv3d, "dropout": nn.Dropout3d, "batch": nn.BatchNorm3d, "instance": nn.InstanceNorm3d},
}


class ConvBlock(nn.Module):
    """Repeat convolution, activation and normalisation, and add the input to the result.

    :class:`ConvBlock2D` and :class:`ConvBlock3D` document the parameters; they differ in ``spatial_dims`` and in how
    much each axis is padded. Parameters are named ``{norm}_norm_{i}``, ``Conv{2,3}d_{i}`` and ``resid_conv``.
    """

    spatial_dims: Literal[2, 3]

    def __init__(
        self,
        in_filters: int,
        out_filters: int,
        kernel: tuple[int, ...],
        padding: tuple[int, ...],
        *,
        dropout: float,
        norm: Norm,
        residual: bool,
        activation: Activation,
        transpose: bool,
        num_repeats: int,
        filter_steps: FilterSteps,
        layer_order: str,
    ) -> None:
        super().__init__()
        if transpose:
            raise ValueError("transpose=True is not available: the blocks keep the image size, expected False")
        if sorted(str(layer_order)) != sorted("can"):
            raise ValueError(f"layer_order is {layer_order!r}, expected the letters c, a and n in any order")
        one_of("norm", norm, get_args(Norm))
        one_of("activation", activation, _ACTIVATIONS)
        one_of("filter_steps", filter_steps, get_args(FilterSteps))
        for name, value in (("in_filters", in_filters), ("out_filters", out_filters), ("num_repeats", num_repeats)):
            positive(name, value)
        self.in_filters, self.out_filters, self.residual = in_filters, out_filters, residual
        self.num_repeats, self.layer_order = num_repeats, layer_order
        # What the convolutions take off each end of each axis.
        self._cropped = tuple(num_repeats * (k // 2 - margin) for k, margin in zip(kernel, padding, strict=True))
        self._names = {"c": f"Conv{self.spatial_dims}d", "a": f"{activation}_act", "n": f"{norm}_norm"}
        self._register(_widths(in_filters, out_filters, num_repeats, filter_steps), kernel, padding, norm)
        for i in range(num_repeats):
            self.add_module(f"{self._names['a']}_{i}", _ACTIVATIONS[activation]())
            if rate("dropout", dropout):
                self.add_module(f"dropout_{i}", _LAYERS[self.spatial_dims]["dropout"](dropout))

    def _register(self, widths: list[int], kernel: Sequence[int], padding: Sequence[int], norm: Norm) -> None:
        """Add what has parameters, in the order of published checkpoints."""
        layers = _LAYERS[self.spatial_dims]
        # A normalisation before the convolution sees the width that goes in.
        normalised = widths[:-1] if self.layer_order.index("n") < self.layer_order.index("c") else widths[1:]
        for i, width in enumerate(normalised):
            self.add_module(f"{norm}_norm_{i}", None if norm == "none" else layers[norm](width))
        for i, (before, after) in enumerate(pairwise(widths)):
            self.add_module(f"{self._names['c']}_{i}", layers["Conv"](before, after, kernel, padding=padding))
        # Checkpoints hold it whether or not the sum needs it.
        self.resid_conv = layers["Conv"](widths[0], widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block.

        Parameters
        ----------
        x : Tensor, shape (B, in_filters, ...)
            Feature map with two or three spatial axes.

        Returns
        -------
        Tensor, shape (B, out_filters, ...)
            Same spatial size, unless ``padding`` says otherwise.

        Raises
        ------
        ValueError
            If the axes or the channels are not those of the constructor.
        """
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_filters:
            axes = "Y, X" if self.spatial_dims == 2 else "Z, Y, X"
            raise ValueError(f"found an input of shape {tuple(x.shape)}, expected (B, {self.in_filters}, {axes})")
        y = x
        for i in range(self.num_repeats):
            for layer in self.layer_order:
                module = getattr(self, f"{self._names[layer]}_{i}")
                y = y if module is None else module(y)
                dropout = getattr(self, f"dropout_{i}", None)
                if layer == "c" and dropout is not None:
                    y = dropout(y)
        return y + self._shortcut(x) if self.residual else y

    def _shortcut(self, x: Tensor) -> Tensor:
        """Give the input the size of the output: new channels are zeros in front of the old ones."""
        for axis, margin in enumerate(self._cropped, start=2):
            if margin:
                x = x.narrow(axis, margin, x.shape[axis] - 2 * margin)
        if self.in_filters > self.out_filters:
            return self.resid_conv(x)
        if self.in_filters < self.out_filters:
            return pad(x, (0, 0) * self.spatial_dims + (self.out_filters - self.in_filters, 0))
        return x


def _widths(in_filters: int, out_filters: int, num_repeats: int, filter_steps: FilterSteps) -> list[int]:
    """Width before the first convolution and after each."""
    if filter_steps == "first":
        return [in_filters] + [out_filters] * num_repeats
    if filter_steps == "last":
        return [in_filters] * num_repeats + [out_filters]
    return [in_filters + (out_filters - in_filters) * i // num_repeats for i in range(num_repeats + 1)]
