"""Parts that two or more architectures share."""

from __future__ import annotations

from viscy_models._components.blocks import UNeXt2Decoder, UNeXt2UpStage, icnr_init
from viscy_models._components.conv_block_2d import ConvBlock2D
from viscy_models._components.conv_block_3d import ConvBlock3D
from viscy_models._components.heads import PixelToVoxelHead, PixelToVoxelShuffleHead, UnsqueezeHead
from viscy_models._components.stems import StemDepthtoChannels, UNeXt2Stem

__all__ = [
    "ConvBlock2D",
    "ConvBlock3D",
    "PixelToVoxelHead",
    "PixelToVoxelShuffleHead",
    "StemDepthtoChannels",
    "UNeXt2Decoder",
    "UNeXt2Stem",
    "UNeXt2UpStage",
    "UnsqueezeHead",
    "icnr_init",
]
