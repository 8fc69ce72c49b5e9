"""2.5D contrastive encoder: a depth-folding stem, a 2D backbone of timm and a projection head.

Liu et al., "A ConvNet for the 2020s", CVPR 2022 (ConvNeXt); Woo et al., "ConvNeXt V2", CVPR 2023; He et al., "Deep
residual learning for image recognition", CVPR 2016 (ResNet); the stem and the projection follow Hirata-Miyasaki et al.,
"DynaCLR", arXiv:2410.11281.
"""

from __future__ import annotations

from os import PathLike
from typing import Any, Literal, get_args

from torch import Tensor, nn

from viscy_models._components.arguments import did_you_mean, positive
from viscy_models._components.backbones import create_backbone
from viscy_models._components.checkpointing import checkpoint_blocks
from viscy_models._components.memory_format import MixedFormatModule
from viscy_models._components.stems import StemDepthtoChannels
from viscy_models.contrastive.projection import projection_mlp, require_batch

__all__ = ["Backbone", "ContrastiveEncoder"]

Backbone = Literal[
    "convnext_tiny",
    "convnextv2_tiny",
    "resnet50",
    "convnext_atto",
    "convnext_femto",
    "convnext_pico",
    "convnext_nano",
    "convnext_small",
    "convnext_base",
    "convnextv2_atto",
    "convnextv2_femto",
    "convnextv2_pico",
    "convnextv2_nano",
    "convnextv2_base",
    "resnet18",
    "resnet34",
    "resnet101",
]


class ContrastiveEncoder(MixedFormatModule):
    """Encode z-stacks of cells with a 2D backbone.

    Parameters
    ----------
    backbone : str
        A model of timm: ConvNeXt (``convnext_{atto,femto,pico,nano,tiny,small,base}``), ConvNeXt V2
        (``convnextv2_{atto,femto,pico,nano,tiny,base}``) or ResNet (``resnet18``, ``resnet34``, ``resnet50``,
        ``resnet101``).
    in_channels : int
        Channels of the image.
    in_stack_depth : int
        Number of z slices Z; 1 is a 2D image, with a stem such as ``(1, 4, 4)``.
    stem_kernel_size, stem_stride : tuple of int, default (5, 4, 4)
        Kernel and stride of the stem in (Z, Y, X). A stride of 2 or 1 in Y and X suits patches under 64 pixels.
    embedding_dim : int, default 768
        Hidden width of the projection head. The width of the embedding is that of the backbone whatever is given here
        (768 for ``convnext_tiny``, 512 for ``resnet18``, 2048 for ``resnet50``): see the attribute ``num_features``.
    projection_dim : int, default 128
        Width P of the projection.
    drop_path_rate : float, default 0.0
        Stochastic depth of the backbone.
    pretrained : bool or path, default False
        Start the backbone from timm's weights: True gets them from its cache or the network, a path from a local file.
        The stem and the projection are always initialised at random.
    zero_init_last : bool, default True
        Start each residual branch of a ResNet at zero, as timm does: steadier over long runs. Without it all blocks
        take part from the first step on, which suits short ones.
    width : int, optional
        Channels of the first stage of a ResNet; each later stage has twice as many. 64 by default. Half the width is
        a quarter of the arithmetic, and suits patches of few pixels and small data sets.
    gradient_checkpointing : bool, default False
        Compute the blocks of the backbone again in the backward pass instead of keeping their activations.
    projection_norm : bool, default True
        Whether the projection head has batch normalisation. It takes out what all cells of a batch share, such as their
        experiment, so that the loss does not ask the backbone to.

    Attributes
    ----------
    num_features : int
        Width F of the embedding.
    in_channels, in_stack_depth : int
        As given: what images must have.

    Raises
    ------
    ValueError
        If the backbone is not one of the above, the stem does not fit the stack (the message says what does), the
        pretrained file holds the weights of another model, or an option is not one of this backbone.

    Examples
    --------
    >>> import torch
    >>> encoder = ContrastiveEncoder("convnext_atto", 1, 1, (1, 4, 4), (1, 4, 4), embedding_dim=64, projection_dim=16)
    >>> embedding, projection = encoder.eval()(torch.zeros(2, 1, 1, 64, 64))
    >>> tuple(embedding.shape), tuple(projection.shape)
    ((2, 320), (2, 16))
    """

    def __init__(
        self,
        backbone: Backbone,
        in_channels: int,
        in_stack_depth: int,
        stem_kernel_size: tuple[int, int, int] = (5, 4, 4),
        stem_stride: tuple[int, int, int] = (5, 4, 4),
        embedding_dim: int = 768,
        projection_dim: int = 128,
        drop_path_rate: float = 0.0,
        pretrained: bool | str | PathLike[str] = False,
        *,
        zero_init_last: bool = True,
        width: int | None = None,
        gradient_checkpointing: bool = False,
        projection_norm: bool = True,
    ) -> None:
        super().__init__()
        _check_backbone(backbone)
        positive("embedding_dim", embedding_dim)
        positive("projection_dim", projection_dim)
        if width is not None and pretrained:
            raise ValueError(f"pretrained weights have the width of the backbone, found width={width}")
        options = {"drop_path_rate": drop_path_rate, "num_classes": 0}
        options |= _resnet_options(backbone, zero_init_last, width)
        encoder = create_backbone(backbone, pretrained, **options)
        stem_width = _remove_first_conv(encoder)
        if gradient_checkpointing:
            checkpoint_blocks(encoder)
        self.stem = StemDepthtoChannels(in_channels, in_stack_depth, stem_width, stem_kernel_size, stem_stride)
        self.encoder = encoder
        self.in_channels, self.in_stack_depth = in_channels, in_stack_depth
        self.num_features: int = encoder.num_features
        self.projection = projection_mlp(self.num_features, embedding_dim, projection_dim, projection_norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Parameters
        ----------
        x : Tensor, shape (B, C, Z, Y, X)
            Normalised images.

        Returns
        -------
        embedding : Tensor, shape (B, F)
            Features of the backbone, pooled: what is kept after training.
        projection : Tensor, shape (B, P)
            What the loss is computed on.

        Raises
        ------
        ValueError
            If C or Z are not those of the constructor, or for a training batch of one.
        """
        require_batch(self.projection, x)
        embedding = self.encoder(self.stem(x))
        return embedding, self.projection(embedding)


def _check_backbone(name: str) -> None:
    known = get_args(Backbone)
    if name in known:
        return
    raise ValueError(
        f"unknown backbone {name!r}{did_you_mean(name, known)}, expected one of {', '.join(sorted(known))}"
    )


def _resnet_options(backbone: str, zero_init_last: bool, width: int | None) -> dict[str, Any]:
    """Return the arguments of timm that only its ResNets know, where they are not the default."""
    options: dict[str, Any] = {}
    if not zero_init_last:
        options["zero_init_last"] = False
    if width is not None:
        if width < 1:
            raise ValueError(f"width is {width}, expected at least 1")
        options["channels"] = tuple(width * 2**stage for stage in range(4))
    if options and not backbone.startswith("resnet"):
        found = "zero_init_last=False" if not zero_init_last else f"width={width}"
        raise ValueError(f"{found} is for ResNets, found backbone {backbone!r}")
    return options


def _remove_first_conv(encoder: nn.Module) -> int:
    """Take the first convolution out of a timm model and return how many channels it made."""
    if hasattr(encoder, "conv1"):  # ResNet: batch norm, ReLU and max pool follow
        width, encoder.conv1 = encoder.conv1.out_channels, nn.Identity()
    else:  # ConvNeXt: layer norm follows
        width, encoder.stem[0] = encoder.stem[0].out_channels, nn.Identity()
    return width
