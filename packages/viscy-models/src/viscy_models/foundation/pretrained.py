"""What pretrained encoders share: how channels become images, frozen or not, and a projection that may be trained."""

from __future__ import annotations

from typing import Self, get_args

import torch
from torch import Tensor, nn

from viscy_models._components.arguments import one_of, positive
from viscy_models.contrastive.projection import projection_mlp, require_batch
from viscy_models.foundation.images import ChannelUse, Plane, resized, standardized, to_plane

__all__ = ["PretrainedEncoder"]


class PretrainedEncoder(nn.Module):
    """Base of the pretrained encoders: subclasses say what the features of each channel's image are.

    Parameters
    ----------
    backbone : torch.nn.Module
        The pretrained network; ``backbone.*`` in checkpoints.
    width : int
        Width W of the features of one channel.
    img_size : int
        Height and width that images are resized to.
    freeze : bool, default True
        Whether the backbone stays as it is: no gradient, and always in evaluation mode.
    projection : torch.nn.Module, optional
        From features (B, F) to projections (B, P). It is trained also when the backbone is frozen.
    projection_dim : int, optional
        Make a projection of two layers of this width P instead, as contrastive encoders have it; its hidden layer has
        the width of the features. Without both, features are the projections.
    in_channels : int, default 1
        Channels C of the stacks.
    channels : {"concatenate", "average"}, default "concatenate"
        How the features of the channels are put together: side by side (F = C W, in the order of the channels), or
        their mean (F = W).
    plane : {"middle", "max", "mean"}, default "middle"
        How a stack becomes an image: its slice Z // 2, or a projection along z.
    standardize : bool, default False
        Give each channel of each image mean 0 and standard deviation 1 of its own, after what the data module does.

    Attributes
    ----------
    num_features : int
        Width F of the features.
    in_channels : int
        As given.

    Raises
    ------
    ValueError
        If an option is out of range, or both a projection and its width are given.
    """

    def __init__(
        self,
        backbone: nn.Module,
        width: int,
        img_size: int,
        freeze: bool = True,
        projection: nn.Module | None = None,
        *,
        projection_dim: int | None = None,
        in_channels: int = 1,
        channels: ChannelUse = "concatenate",
        plane: Plane = "middle",
        standardize: bool = False,
    ) -> None:
        super().__init__()
        positive("in_channels", in_channels)
        one_of("channels", channels, get_args(ChannelUse))
        one_of("plane", plane, get_args(Plane))
        self.backbone, self.freeze = backbone, freeze
        self.in_channels, self.channels, self.plane, self.standardize = in_channels, channels, plane, standardize
        self.img_size = (img_size, img_size)
        self.num_features = width * (in_channels if channels == "concatenate" else 1)
        self.projection = _projection(self.num_features, projection, projection_dim)
        if freeze:
            self.backbone.requires_grad_(False)
            self.backbone.eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.freeze:
            self.backbone.eval()
        return self

    def preprocess_2d(self, x: Tensor) -> Tensor:
        """Return an image of each channel as the backbone sees it: (B, C, Z, Y, X) to (B, C, H, W)."""
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"found an input of shape {tuple(x.shape)}, expected (B, C, Z, Y, X) with C = {self.in_channels}: "
                "in_channels of the encoder says how many channels there are"
            )
        images = resized(to_plane(x, self.plane), self.img_size)
        return standardized(images) if self.standardize else images

    def channel_features(self, images: Tensor) -> Tensor:
        """Return the features (B, C, W) of the images (B, C, H, W) of the channels."""
        raise NotImplementedError(f"{type(self).__name__} does not say what the features of images are")

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the features (B, F) of stacks (B, C, Z, Y, X), without gradient if the backbone is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            features = self.channel_features(self.preprocess_2d(x))
        return features.flatten(1) if self.channels == "concatenate" else features.mean(dim=1)

    def project(self, features: Tensor) -> Tensor:
        """Return the projections (B, P) of features (B, F)."""
        if any(isinstance(part, nn.BatchNorm1d) for part in self.projection.modules()):
            require_batch(self.projection, features)
        return self.projection(features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Parameters
        ----------
        x : Tensor, shape (B, C, Z, Y, X)
            Normalised images.

        Returns
        -------
        features : Tensor, shape (B, F)
        projections : Tensor, shape (B, P)
            The features themselves where there is no projection.

        Raises
        ------
        ValueError
            If C is not that of the constructor, or for a training batch of one where the projection has batch norms.
        """
        features = self.forward_features(x)
        return features, self.project(features)


def _projection(num_features: int, given: nn.Module | None, width: int | None) -> nn.Module:
    if width is None:
        return nn.Identity() if given is None else given
    if given is not None:
        raise ValueError("found projection and projection_dim, expected at most one of them")
    positive("projection_dim", width)
    return projection_mlp(num_features, num_features, width)
