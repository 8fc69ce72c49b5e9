"""Encoder of the 2.5D variational autoencoder: a depth-folding stem, a 2D backbone and dense layers."""

from __future__ import annotations

from os import PathLike
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from viscy_models._components.arguments import positive
from viscy_models._components.features import feature_backbone, feature_widths
from viscy_models._components.inputs import require_stack
from viscy_models._components.stems import StemDepthtoChannels, stem_triple
from viscy_models.vae.latent import draw_latent

__all__ = ["VaeEncoder"]


class VaeEncoder(nn.Module):
    """Encode stacks of fixed size into a normal distribution.

    Parameters
    ----------
    backbone : str, default "resnet50"
        A ConvNeXt or ResNet of timm, of any width.
    in_channels : int, default 2
        Channels of the image.
    in_stack_depth : int, default 16
        Number of z slices Z.
    latent_dim : int, default 1024
        Width L of the latent space.
    input_spatial_size : tuple of int, default (256, 256)
        Size of the image in (Y, X), square: a multiple of the stem's stride times 8 (ConvNeXt) or 16 (ResNet).
    stem_kernel_size, stem_stride : tuple of int, default (2, 4, 4)
        Kernel and stride of the stem in (Z, Y, X).
    drop_path_rate : float, default 0.0
        Stochastic depth of the backbone.
    pretrained : bool or path, default False
        Start the backbone from timm's weights: True gets them from its cache or the network, a path from a local file.
    gradient_checkpointing : bool, default False
        Compute the blocks of the backbone again in the backward pass instead of keeping their activations.

    Attributes
    ----------
    encoder_spatial_size : int
        Size s of the last feature map in Y and X.
    num_features : int
        Its channels.

    Raises
    ------
    ValueError
        If the backbone is unknown, or the stem does not fit the stack or the image; the message says what fits.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        in_channels: int = 2,
        in_stack_depth: int = 16,
        latent_dim: int = 1024,
        input_spatial_size: tuple[int, int] = (256, 256),
        stem_kernel_size: tuple[int, int, int] = (2, 4, 4),
        stem_stride: tuple[int, int, int] = (2, 4, 4),
        drop_path_rate: float = 0.0,
        pretrained: bool | str | PathLike[str] = False,
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        positive("latent_dim", latent_dim)
        encoder = feature_backbone(
            backbone,
            ("resnet", "convnext"),
            pretrained=pretrained,
            drop_path_rate=drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
        )
        widths = feature_widths(encoder)
        self.stem = StemDepthtoChannels(in_channels, in_stack_depth, widths[0], stem_kernel_size, stem_stride)
        self.encoder = encoder
        self.in_channels, self.in_stack_depth = in_channels, in_stack_depth
        self.input_spatial_size = tuple(input_spatial_size)
        self.encoder_spatial_size = _last_size(
            self.input_spatial_size, stem_triple("stem_kernel_size", stem_kernel_size), stem_stride, len(widths) - 1
        )
        self.num_features = widths[-1]
        self.fc = nn.Linear(self.num_features * self.encoder_spatial_size**2, latent_dim)
        self.fc_mu = nn.Linear(latent_dim, latent_dim)
        self.fc_logvar = nn.Linear(latent_dim, latent_dim)

    def reparameterize(self, mu: Tensor, logvar: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw from the distribution in training mode, and return its mean in evaluation mode.

        Parameters
        ----------
        mu, logvar : Tensor, shape (B, L)
            Mean and logarithm of the variance.
        generator : torch.Generator, optional
            Source of randomness; the global one by default.

        Returns
        -------
        Tensor, shape (B, L)
            The draw or the mean.
        """
        return draw_latent(mu, logvar, generator) if self.training else mu

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> SimpleNamespace:
        """Encode a batch.

        Parameters
        ----------
        x : Tensor, shape (B, in_channels, in_stack_depth, Y, X)
            Normalised images of ``input_spatial_size``.
        generator : torch.Generator, optional
            Source of randomness in training mode; the global one by default.

        Returns
        -------
        types.SimpleNamespace
            ``mean``, ``log_covariance`` (the logarithm of the variance) and ``z``, each (B, L).

        Raises
        ------
        ValueError
            If the shape is another; the message has both.
        """
        require_stack(x, self.in_channels, (self.in_stack_depth,))
        if tuple(x.shape[3:]) != self.input_spatial_size:
            raise ValueError(
                f"found an image of {tuple(x.shape[3:])} pixels (Y, X), expected {self.input_spatial_size} as "
                "input_spatial_size says"
            )
        hidden = self.fc(self.encoder(self.stem(x))[-1].flatten(1))
        mean, logvar = self.fc_mu(hidden), self.fc_logvar(hidden)
        return SimpleNamespace(mean=mean, log_covariance=logvar, z=self.reparameterize(mean, logvar, generator))


def _last_size(
    size: tuple[int, ...], kernel: tuple[int, int, int], stride: tuple[int, int, int], n_halvings: int
) -> int:
    """Return the size of the last feature map, if every step before it comes out even."""
    if len(size) != 2 or size[0] != size[1] or size[0] < 1:
        raise ValueError(f"input_spatial_size is {size}, expected two equal numbers (Y, X)")
    if kernel[1] != kernel[2] or stride[1] != stride[2]:
        raise ValueError(
            f"found a stem of kernel {kernel[1:]} and stride {tuple(stride[1:])} in (Y, X), expected squares"
        )
    factor = stride[1] * 2**n_halvings
    last, rest = divmod(size[0], factor)
    if rest or not last:
        near = max(last, 1) * factor
        raise ValueError(
            f"input_spatial_size is {size}, expected multiples of {factor} (stem_stride {stride[1]} x {2**n_halvings} "
            f"of the backbone) such as {near} or {near + factor}"
        )
    if (size[0] - kernel[1]) // stride[1] + 1 != size[0] // stride[1]:
        raise ValueError(
            f"stem_kernel_size {kernel[1]} is larger than stem_stride {stride[1]} in (Y, X), so that the edge of the "
            "image is lost; expected a kernel not larger than the stride"
        )
    return last
