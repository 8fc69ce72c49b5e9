"""3D contrastive encoder on MONAI's ResNet.

He et al., "Deep residual learning for image recognition", CVPR 2016; Chen et al., "Med3D", arXiv:1904.00625 (the 3D
variants and their pretrained weights).
"""

from __future__ import annotations

import torch
from monai.networks.nets.resnet import ResNetFeatures, resnet_params
from torch import Tensor, nn

from viscy_models._components.arguments import did_you_mean
from viscy_models._components.checkpointing import checkpoint_blocks
from viscy_models._components.memory_format import MixedFormatModule
from viscy_models.contrastive.projection import projection_mlp, require_batch

__all__ = ["ResNet3dEncoder"]


class ResNet3dEncoder(MixedFormatModule):
    """Encode isotropic volumes with a 3D ResNet.

    Parameters
    ----------
    backbone : str
        ``resnet10``, ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101``, ``resnet152`` or ``resnet200``.
    in_channels : int, default 1
        Channels of the image.
    embedding_dim : int, default 512
        Hidden width of the projection head. The width of the embedding is that of the backbone whatever is given here
        (512 up to ``resnet34``, 2048 above): see the attribute ``num_features``.
    projection_dim : int, default 128
        Width P of the projection.
    pretrained : bool, default False
        Start from MedicalNet weights, which exist for one channel.
    gradient_checkpointing : bool, default False
        Compute the blocks of the backbone again in the backward pass instead of keeping their activations.

    Attributes
    ----------
    num_features : int
        Width F of the embedding.

    Raises
    ------
    ValueError
        If the backbone is unknown, or pretrained weights are asked for with more than one channel.
    """

    def __init__(
        self,
        backbone: str,
        in_channels: int = 1,
        embedding_dim: int = 512,
        projection_dim: int = 128,
        pretrained: bool = False,
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check_backbone(backbone)
        if in_channels < 1:
            raise ValueError(f"in_channels is {in_channels}, expected at least 1")
        if pretrained and in_channels != 1:
            raise ValueError(f"pretrained weights exist for one channel, found in_channels={in_channels}")
        self.in_channels = in_channels
        self.encoder = ResNetFeatures(backbone, pretrained=pretrained, spatial_dims=3, in_channels=in_channels)
        if gradient_checkpointing:
            checkpoint_blocks(self.encoder)
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.num_features: int = _width(self.encoder)
        self.projection = projection_mlp(self.num_features, embedding_dim, projection_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Parameters
        ----------
        x : Tensor, shape (B, C, Z, Y, X)
            Normalised volumes of any size.

        Returns
        -------
        embedding : Tensor, shape (B, F)
            Last feature map, averaged over space.
        projection : Tensor, shape (B, P)
            What the loss is computed on.

        Raises
        ------
        ValueError
            If C is not that of the constructor, or for a training batch of one.
        """
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"found an input of shape {tuple(x.shape)}, expected (batch, {self.in_channels} channels, Z, Y, X) "
                "as in_channels says"
            )
        require_batch(self.projection, x)
        embedding = torch.flatten(self.avgpool(self.encoder(x)[-1]), 1)
        return embedding, self.projection(embedding)


def _check_backbone(name: str) -> None:
    if name in resnet_params:
        return
    raise ValueError(
        f"unknown 3D backbone {name!r}{did_you_mean(name, resnet_params)}, expected one of {', '.join(resnet_params)}"
    )


def _width(encoder: nn.Module) -> int:
    """Channels of the last feature map: that of the last convolution of the last block."""
    convolutions = [module for name, module in encoder.layer4[-1].named_children() if name.startswith("conv")]
    return convolutions[-1].out_channels
