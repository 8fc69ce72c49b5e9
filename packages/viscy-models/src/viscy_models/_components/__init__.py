"""Parts that two or more architectures share."""

from __future__ import annotations

from viscy_models._components.stems import StemDepthtoChannels

__all__ = ["StemDepthtoChannels"]
