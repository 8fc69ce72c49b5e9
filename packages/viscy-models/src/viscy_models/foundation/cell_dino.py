"""Transformers of DINOv2's kind trained on single channels of microscopy (Oquab et al., "DINOv2", TMLR 2024)."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from viscy_models.checkpoints import fill, read_state_dict, under
from viscy_models.foundation.pretrained import PretrainedEncoder
from viscy_models.foundation.weights import count_blocks, require_entries

__all__ = ["CellDinoModel"]

_HEAD_WIDTH = 64  # of all published sizes; the weights do not tell it
_CHUNK = re.compile(r"(?<=^blocks\.)\d+\.(?=\d+\.)")  # training groups blocks in chunks


class CellDinoModel(PretrainedEncoder):
    """Encode each channel by a vision transformer of DINOv2 that was trained on single channels, such as Cell-DINO.

    Its size is read from the file of weights. Features are those of the class token after the last norm. Each channel
    of each image is standardised first, as in its training.

    Parameters
    ----------
    weights_path : path
        Weights as DINOv2 saves them: a state dict, perhaps under ``teacher`` and with ``backbone.`` before names, or
        ``.safetensors``.
    img_size : int, default 224
        Height and width that images are resized to: a multiple of `patch_size`.
    patch_size : int, default 16
        Height and width of the patches of the network.
    freeze : bool, default True
        Whether the network stays as it is.
    projection : torch.nn.Module, optional
        From features to projections.
    **options
        ``projection_dim``, ``in_channels``, ``channels`` and ``plane`` of `PretrainedEncoder`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds other weights, of several channels or another size of patches, or an option is out of range.
    """

    def __init__(
        self,
        weights_path: str | PathLike[str],
        img_size: int = 224,
        patch_size: int = 16,
        freeze: bool = True,
        projection: nn.Module | None = None,
        **options: Any,
    ) -> None:
        if patch_size < 1 or img_size < patch_size or img_size % patch_size:
            raise ValueError(f"img_size: found {img_size}, expected a multiple of patch_size {patch_size}")
        backbone = _load(Path(weights_path), patch_size)
        backbone.set_input_size(img_size=(img_size, img_size))
        super().__init__(backbone, backbone.num_features, img_size, freeze, projection, standardize=True, **options)

    def channel_features(self, images: Tensor) -> Tensor:
        """Return the features (B, C, W) of the images (B, C, H, W) of the channels."""
        return self.backbone(images.flatten(0, 1).unsqueeze(1)).unflatten(0, (-1, self.in_channels))


def _load(path: Path, patch_size: int) -> VisionTransformer:
    """Make the network that the weights are of."""
    what = f"a transformer of DINOv2 for single channels with patches of {patch_size} pixels"
    state = read_state_dict(path, wrapper="teacher")
    state = under(state, ("backbone.",)) or state
    state = {_CHUNK.sub("", name): value for name, value in state.items() if name != "mask_token"}
    axes = {"pos_embed": 3, "cls_token": 3, "patch_embed.proj.weight": 4, "blocks.0.ls1.gamma": 1}
    require_entries(state, axes, path, what)
    tokens, width = state["pos_embed"].shape[1:]
    registers = state.pop("register_tokens", None)
    if registers is not None:
        state |= {"reg_token": registers, "cls_token": state["cls_token"] + state["pos_embed"][:, :1]}
        state["pos_embed"] = state["pos_embed"][:, 1:]
    network = VisionTransformer(
        img_size=patch_size * round((tokens - 1) ** 0.5),
        patch_size=patch_size,
        in_chans=1,
        num_classes=0,
        embed_dim=width,
        depth=count_blocks(state, width, path),
        num_heads=max(1, width // _HEAD_WIDTH),
        init_values=1.0,  # there is a scale per layer; its values are in the file
        reg_tokens=0 if registers is None else registers.shape[1],
        no_embed_class=registers is not None,
    )
    fill(network, state, path, what)
    return network
