"""Any image model of timm as an encoder of stacks: each channel is a grey image of its own."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from torch import Tensor, nn

from viscy_models._components.arguments import positive
from viscy_models._components.backbones import create_backbone
from viscy_models.foundation.pretrained import PretrainedEncoder

__all__ = ["TimmEncoder"]


class TimmEncoder(PretrainedEncoder):
    """Encode each channel by a model of timm, with the weights that it was published with.

    Parameters
    ----------
    model_name : str
        Name of the model, perhaps with the tag of its weights, such as ``vit_small_patch14_dinov2.lvd142m``.
    freeze : bool, default True
        Whether the model stays as it is.
    projection : torch.nn.Module, optional
        From features to projections.
    pretrained : bool or path, default True
        True gets the weights from timm's cache or the network, a path from a local file; False starts at random.
    img_size : int, optional
        Height and width that images are resized to; by default what the model was trained on (518 for DINOv2, where
        224 is 5 times as fast and more, and enough for patches of cells).
    model_options : mapping, optional
        Further arguments of ``timm.create_model``.
    **options
        ``projection_dim``, ``in_channels``, ``channels``, ``plane`` and ``standardize`` of `PretrainedEncoder`.

    Raises
    ------
    FileNotFoundError
        If there is no such file of weights.
    ValueError
        If an option is out of range, the file holds the weights of another model, or the size is not one of the model.

    Notes
    -----
    Pretrained models expect three colours of about mean 0 and standard deviation 1: each channel comes, normalised by
    the data module, as a grey image.

    Examples
    --------
    >>> import torch
    >>> tiny = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    >>> encoder = TimmEncoder("vit_small_patch16_224", pretrained=False, in_channels=2, model_options=tiny)
    >>> features, _ = encoder(torch.zeros(3, 2, 5, 64, 64))
    >>> tuple(features.shape)
    (3, 64)
    """

    def __init__(
        self,
        model_name: str,
        freeze: bool = True,
        projection: nn.Module | None = None,
        *,
        pretrained: bool | str | PathLike[str] = True,
        img_size: int | None = None,
        model_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        backbone = create_backbone(model_name, pretrained, **{"num_classes": 0, **(model_options or {})})
        size = _input_size(backbone, img_size)
        super().__init__(backbone, backbone.num_features, size, freeze, projection, **options)

    def channel_features(self, images: Tensor) -> Tensor:
        """Return the features (B, C, W) of the images (B, C, H, W) of the channels, each as three equal colours."""
        each = images.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)
        return self.backbone(each).unflatten(0, (-1, self.in_channels))


def _input_size(backbone: nn.Module, wanted: int | None) -> int:
    """Let a model take images of another size than it was trained on, and return the size."""
    if wanted is None:
        return backbone.default_cfg["input_size"][-1]
    positive("img_size", wanted)
    if hasattr(backbone, "set_input_size"):  # transformers; the embedding of positions is interpolated
        step = backbone.patch_embed.patch_size[0]
        if wanted % step:
            raise ValueError(f"img_size: found {wanted}, expected a multiple of the model's patches of {step} pixels")
        backbone.set_input_size(img_size=(wanted, wanted))
    return wanted
