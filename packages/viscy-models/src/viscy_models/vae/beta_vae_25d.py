"""2.5D variational autoencoder: a 2D backbone between a stem and a head that fold depth into channels and back.

Higgins et al., "beta-VAE", ICLR 2017 (the objective that it is trained with); He et al., "Deep residual learning for
image recognition", CVPR 2016, and Liu et al., "A ConvNet for the 2020s", CVPR 2022 (the backbones).
"""

from __future__ import annotations

from os import PathLike
from types import SimpleNamespace

import torch
from torch import Tensor

from viscy_models._components.arguments import positive
from viscy_models._components.blocks import NormName, PreConv, UpsampleMode
from viscy_models._components.memory_format import MixedFormatModule
from viscy_models.vae.decoder import VaeDecoder, VaeUpStage
from viscy_models.vae.encoder import VaeEncoder

__all__ = ["BetaVae25D", "VaeDecoder", "VaeEncoder", "VaeUpStage"]


class BetaVae25D(MixedFormatModule):
    """Encode stacks of fixed size into a normal distribution, and decode a draw of it.

    Parameters
    ----------
    backbone : str, default "resnet50"
        A ConvNeXt or ResNet of timm, of any width.
    in_channels : int, default 2
        Channels of the image and of its reconstruction.
    in_stack_depth, out_stack_depth : int, default 16
        Number of z slices of the image and of its reconstruction.
    latent_dim : int, default 1024
        Width L of the latent space, a multiple of s * s where s is the size of the encoder's last feature map.
    input_spatial_size : tuple of int, default (256, 256)
        Size of the image in (Y, X), square: a multiple of the stem's stride times 8 (ConvNeXt) or 16 (ResNet).
    stem_kernel_size, stem_stride : tuple of int, default (2, 4, 4)
        Kernel and stride of the stem in (Z, Y, X).
    drop_path_rate : float, default 0.0
        Stochastic depth of the backbone.
    decoder_stages : int, default 4
        Number of twofold upsamplings, before the fourfold one of the head: the reconstruction has
        ``4 s * 2 ** decoder_stages`` pixels in Y and X, those of the image with 4 for a ResNet and 3 for a ConvNeXt.
    head_expansion_ratio : int, default 2
        Width of the head's 3D convolution, in units of its output.
    head_pool : bool, default False
        Average neighbouring pixels in the head, against checkerboards.
    upsample_mode : {"pixelshuffle", "deconv"}, default "pixelshuffle"
        How the decoder upsamples.
    conv_blocks : int, default 2
        Residual units of each stage with ``pixelshuffle``; ``deconv`` has one.
    norm_name : {"batch", "instance"}, default "batch"
        Normalisation of the decoder.
    upsample_pre_conv : "default", module or None, default None
        Convolution before each pixel shuffle.
    pretrained : bool or path, default False
        Start the backbone from timm's weights: True gets them from its cache or the network, a path from a local file.
    gradient_checkpointing : bool, default False
        Compute the blocks of the backbone and the stages of the decoder again in the backward pass instead of keeping
        their activations.

    Raises
    ------
    ValueError
        If an argument is out of range, the backbone is unknown, or sizes do not fit each other; the message says what
        fits.

    Examples
    --------
    >>> import torch
    >>> model = BetaVae25D("convnext_atto", 1, 5, 5, 16, (32, 32), (5, 4, 4), (5, 4, 4), decoder_stages=3).eval()
    >>> output = model(torch.zeros(2, 1, 5, 32, 32))
    >>> tuple(output.recon_x.shape), tuple(output.z.shape)
    ((2, 1, 5, 32, 32), (2, 16))
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        in_channels: int = 2,
        in_stack_depth: int = 16,
        out_stack_depth: int = 16,
        latent_dim: int = 1024,
        input_spatial_size: tuple[int, int] = (256, 256),
        stem_kernel_size: tuple[int, int, int] = (2, 4, 4),
        stem_stride: tuple[int, int, int] = (2, 4, 4),
        drop_path_rate: float = 0.0,
        decoder_stages: int = 4,
        head_expansion_ratio: int = 2,
        head_pool: bool = False,
        upsample_mode: UpsampleMode = "pixelshuffle",
        conv_blocks: int = 2,
        norm_name: NormName = "batch",
        upsample_pre_conv: PreConv = None,
        *,
        pretrained: bool | str | PathLike[str] = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        positive("decoder_stages", decoder_stages)
        self.encoder = VaeEncoder(
            backbone=backbone,
            in_channels=in_channels,
            in_stack_depth=in_stack_depth,
            latent_dim=latent_dim,
            input_spatial_size=input_spatial_size,
            stem_kernel_size=stem_kernel_size,
            stem_stride=stem_stride,
            drop_path_rate=drop_path_rate,
            pretrained=pretrained,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.decoder = VaeDecoder(
            decoder_channels=[self.encoder.num_features // 2**i for i in range(decoder_stages)],
            latent_dim=latent_dim,
            out_channels=in_channels,
            out_stack_depth=out_stack_depth,
            head_expansion_ratio=head_expansion_ratio,
            strides=[2] * decoder_stages,
            encoder_spatial_size=self.encoder.encoder_spatial_size,
            head_pool=head_pool,
            upsample_mode=upsample_mode,
            conv_blocks=conv_blocks,
            norm_name=norm_name,
            upsample_pre_conv=upsample_pre_conv,
            gradient_checkpointing=gradient_checkpointing,
        )

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> SimpleNamespace:
        """Encode and decode a batch.

        Parameters
        ----------
        x : Tensor, shape (B, in_channels, in_stack_depth, Y, X)
            Normalised images of ``input_spatial_size``.
        generator : torch.Generator, optional
            Source of randomness in training mode; the global one by default.

        Returns
        -------
        types.SimpleNamespace
            ``recon_x`` (B, in_channels, out_stack_depth, Y, X), and ``mean``, ``logvar``, ``z`` (B, L). In evaluation
            mode ``z`` is the mean, so that the same image always gives the same result.

        Raises
        ------
        ValueError
            If the shape is another; the message has both.
        """
        latent = self.encoder(x, generator)
        recon_x = self.decoder(latent.z)
        return SimpleNamespace(recon_x=recon_x, mean=latent.mean, logvar=latent.log_covariance, z=latent.z)
