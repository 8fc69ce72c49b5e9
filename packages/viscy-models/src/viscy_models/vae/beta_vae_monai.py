"""The variational autoencoder of MONAI, with the output of the others here."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, get_args

import torch
from monai.networks.nets import VarAutoEncoder
from torch import Tensor

from viscy_models._components.arguments import odd_kernel, one_of, positive
from viscy_models._components.blocks import NormName
from viscy_models._components.checkpointing import CheckpointedSequential
from viscy_models._components.memory_format import MixedFormatModule
from viscy_models.vae.latent import draw_latent

__all__ = ["BetaVaeMonai"]


class BetaVaeMonai(MixedFormatModule):
    """Encode images of fixed size into a normal distribution, and decode a draw of it.

    Parameters
    ----------
    spatial_dims : int
        1, 2 or 3.
    in_shape : sequence of int
        Shape of an image with its channels in front, (C, Z, Y, X) in three dimensions.
    out_channels : int
        Channels of the reconstruction.
    latent_size : int
        Width L of the latent space.
    channels : sequence of int
        Width of each level.
    strides : sequence of int, or of one sequence per level
        Stride of each level; their products must divide the image.
    kernel_size, up_kernel_size : int or sequence of int, default 3
        Kernels of the encoder and of the decoder, odd.
    num_res_units : int, default 0
        Convolutions of the residual unit of each level; with 0 each is a single convolution.
    use_sigmoid : bool, default False
        Bring the reconstruction into (0, 1).
    norm : {"instance", "batch"}, default "instance"
        Normalisation.
    use_mean_at_inference : bool, default False
        Decode the mean in evaluation mode. By default it is the mean plus one standard deviation, as in published
        numbers: reproducible too, but off the centre.
    gradient_checkpointing : bool, default False
        Compute the levels again in the backward pass instead of keeping their activations.
    **kwargs
        Further arguments of :class:`monai.networks.nets.VarAutoEncoder`.

    Raises
    ------
    ValueError
        If the shape has other dimensions, the levels do not match or do not divide the image, or the normalisation is
        unknown.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_shape: Sequence[int],
        out_channels: int,
        latent_size: int,
        channels: Sequence[int],
        strides: Sequence[int] | Sequence[Sequence[int]],
        kernel_size: Sequence[int] | int = 3,
        up_kernel_size: Sequence[int] | int = 3,
        num_res_units: int = 0,
        use_sigmoid: bool = False,
        norm: NormName = "instance",
        *,
        use_mean_at_inference: bool = False,
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        one_of("norm", norm, get_args(NormName))
        _check_shape(spatial_dims, in_shape)
        for name, width in (("out_channels", out_channels), ("latent_size", latent_size)):
            positive(name, width)
        _check_levels(in_shape[1:], channels, strides)
        self.in_shape = tuple(in_shape)
        self.use_mean_at_inference = use_mean_at_inference
        self.model = VarAutoEncoder(
            spatial_dims,
            in_shape,
            out_channels,
            latent_size,
            channels,
            strides,
            kernel_size=odd_kernel("kernel_size", kernel_size, spatial_dims),
            up_kernel_size=odd_kernel("up_kernel_size", up_kernel_size, spatial_dims),
            num_res_units=num_res_units,
            norm=norm,
            use_sigmoid=use_sigmoid,
            **kwargs,
        )
        if gradient_checkpointing:
            for name in ("encode", "decode"):
                levels = OrderedDict(self.model.get_submodule(name).named_children())
                setattr(self.model, name, CheckpointedSequential(levels))
        self._encoded_shape = (channels[-1], *map(int, self.model.final_size))

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> SimpleNamespace:
        """Encode and decode a batch.

        Parameters
        ----------
        x : Tensor, shape (B, C, Z, Y, X) or fewer axes as ``in_shape`` says
            Normalised images.
        generator : torch.Generator, optional
            Source of randomness in training mode; the global one by default.

        Returns
        -------
        types.SimpleNamespace
            ``recon_x`` (B, out_channels, ...), and ``mean``, ``logvar``, ``z`` (B, L). In evaluation mode nothing is
            random: see ``use_mean_at_inference``.

        Raises
        ------
        ValueError
            If the shape is another; the message has both.
        """
        if tuple(x.shape[1:]) != self.in_shape:
            expected = ", ".join(map(str, self.in_shape))
            raise ValueError(f"found an input of shape {tuple(x.shape)}, expected (B, {expected}) as in_shape says")
        hidden = self.model.intermediate(self.model.encode(x)).flatten(1)
        mean, logvar = self.model.mu(hidden), self.model.logvar(hidden)
        z = self._latent(mean, logvar, generator)
        hidden = torch.relu(self.model.decodeL(z)).unflatten(1, self._encoded_shape)
        recon_x = self.model.decode(hidden)
        if self.model.use_sigmoid:
            recon_x = torch.sigmoid(recon_x)
        return SimpleNamespace(recon_x=recon_x, mean=mean, logvar=logvar, z=z)

    def _latent(self, mean: Tensor, logvar: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.training:
            return draw_latent(mean, logvar, generator)
        return mean if self.use_mean_at_inference else mean + torch.exp(0.5 * logvar)


def _check_shape(spatial_dims: int, in_shape: Sequence[int]) -> None:
    if spatial_dims not in (1, 2, 3):
        raise ValueError(f"spatial_dims is {spatial_dims}, expected 1, 2 or 3")
    if len(in_shape) != spatial_dims + 1 or min(in_shape) < 1:
        raise ValueError(
            f"in_shape is {tuple(in_shape)}, expected the channels and {spatial_dims} sizes as spatial_dims says"
        )


def _check_levels(size: Sequence[int], channels: Sequence[int], strides: Sequence) -> None:
    if not channels or len(channels) != len(strides) or min(channels) < 1:
        raise ValueError(f"found channels {tuple(channels)} and strides {tuple(strides)}, expected one of each a level")
    per_level = [stride if isinstance(stride, Sequence) else (stride,) * len(size) for stride in strides]
    if any(len(stride) != len(size) or min(stride) < 1 for stride in per_level):
        raise ValueError(f"strides is {tuple(strides)}, expected a positive number or {len(size)} of them per level")
    factors = [math.prod(stride) for stride in zip(*per_level, strict=True)]
    if any(extent % factor for extent, factor in zip(size, factors, strict=True)):
        raise ValueError(
            f"strides divide the image by {tuple(factors)} in all, expected in_shape to be a multiple of that after "
            f"the channels, found {tuple(size)}"
        )
