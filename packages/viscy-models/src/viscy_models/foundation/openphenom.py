"""Channel-agnostic masked autoencoders (Kraus et al., "Masked autoencoders for microscopy", CVPR 2024): the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import Tensor, nn

from viscy_models.checkpoints import fill, read_state_dict, under
from viscy_models.foundation.pretrained import PretrainedEncoder
from viscy_models.foundation.weights import count_blocks, require_entries

__all__ = ["ChannelAgnosticTransformer", "OpenPhenomModel"]

_FILE = "model.safetensors"


class ChannelAgnosticTransformer(VisionTransformer):
    """A vision transformer that sees patches of all channels as one sequence, each channel by the same projection.

    Positions are embedded alike in each channel, and nothing tells the channels apart, so that any number of them can
    come in any order.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean of the tokens of each channel, (B, C, W), for images (B, C, H, W)."""
        batch, channels = images.shape[:2]
        tokens = self.patch_embed(images.flatten(0, 1).unsqueeze(1)) + self.pos_embed[:, 1:]  # (B C, N, W)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        tokens = torch.cat([first, tokens.unflatten(0, (batch, channels)).flatten(1, 2)], dim=1)
        tokens = self.norm(self.blocks(tokens))[:, 1:]
        return tokens.unflatten(1, (channels, -1)).mean(dim=2)


class OpenPhenomModel(PretrainedEncoder):
    """Encode all channels together by a channel-agnostic masked autoencoder, such as OpenPhenom-S/16.

    Its size is read from the weights; the decoder is left out. The features of a channel are the mean of its tokens;
    ``channels: average`` is then the mean of all tokens, which was published as the embedding. Each channel of each
    image is standardised first, as in its training.

    Parameters
    ----------
    model_name : str
        A file of weights, a folder with ``model.safetensors``, or a repository such as ``recursionpharma/OpenPhenom``
        whose weights come from the cache of ``huggingface_hub`` or the network. Mind its licence.
    freeze : bool, default True
        Whether the network stays as it is.
    projection : torch.nn.Module, optional
        From features to projections.
    channels : {"average", "concatenate"}, default "average"
        How the features of the channels are put together.
    **options
        ``projection_dim``, ``in_channels`` and ``plane`` of `PretrainedEncoder`.

    Raises
    ------
    FileNotFoundError
        If a path leads to no file.
    ValueError
        If the file holds other weights, or an option is out of range.
    """

    def __init__(
        self, model_name: str, freeze: bool = True, projection: nn.Module | None = None, **options: Any
    ) -> None:
        backbone = _load(_find(model_name))
        size = backbone.patch_embed.img_size[0]
        options = {"channels": "average", **options}
        super().__init__(backbone, backbone.num_features, size, freeze, projection, standardize=True, **options)

    def channel_features(self, images: Tensor) -> Tensor:
        """Return the mean of the tokens of each channel, (B, C, W), for images (B, C, H, W)."""
        return self.backbone(images)


def _find(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        return path / _FILE
    if path.suffix or path.is_absolute() or name.count("/") != 1:
        return path
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, _FILE))


def _load(path: Path) -> ChannelAgnosticTransformer:
    """Make the encoder that the weights are of."""
    what = "a channel-agnostic masked autoencoder"
    state = read_state_dict(path)
    state = under(state, ("encoder.vit_backbone.",)) or state
    axes = {"pos_embed": 3, "cls_token": 3, "patch_embed.proj.weight": 4, "blocks.0.q_norm.weight": 1}
    require_entries(state, axes, path, what)
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    state["pos_embed"], side = _shared_positions(state["pos_embed"], path)
    network = ChannelAgnosticTransformer(
        img_size=side * patch,
        patch_size=patch,
        in_chans=1,
        num_classes=0,
        embed_dim=width,
        depth=count_blocks(state, width, path),
        num_heads=width // len(state["blocks.0.q_norm.weight"]),
        qkv_bias=False,
        qk_norm=True,
        init_values=1.0,  # there is a scale per block; its values are in the file
        block_fn=ParallelScalingBlock,
    )
    fill(network, state, path, what)
    return network


def _shared_positions(positions: Tensor, path: Path) -> tuple[Tensor, int]:
    """Return the embedding of positions in one channel, (1, 1 + N, W), and the side of the square of N patches."""
    of_patches = positions[0, 1:]
    for side in range(1, int(len(of_patches) ** 0.5) + 1):
        period = of_patches[: side**2]
        if len(of_patches) % side**2 == 0 and (of_patches.unflatten(0, (-1, side**2)) == period).all():
            return positions[:, : 1 + side**2], side
    raise ValueError(f"{path}: found positions of {len(of_patches)} patches, expected a square, the same per channel")
