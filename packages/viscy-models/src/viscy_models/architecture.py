"""What the names and shapes of weights say about the network that they are of.

>>> import torch
>>> describe({"stem.conv.weight": torch.zeros(32, 2, 5, 4, 4)})
{'in_channels': '2', 'stem_kernel_size': '(5, 4, 4)'}
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ["describe"]

_BLOCK = re.compile(r"(?:^|\.)(?:stages[._]|layer)(\d+)\.(?:blocks\.)?(\d+)\.")
_CONVNEXT = {  # blocks and first width, with and without V2
    ((2, 2, 6, 2), 40): "atto",
    ((2, 2, 6, 2), 48): "femto",
    ((2, 2, 6, 2), 64): "pico",
    ((2, 2, 8, 2), 80): "nano",
    ((3, 3, 9, 3), 96): "tiny",
    ((3, 3, 27, 3), 96): "small",
    ((3, 3, 27, 3), 128): "base",
}
_RESNET = {  # blocks, and whether they are bottlenecks
    ((1, 1, 1, 1), False): 10,
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
    ((3, 24, 36, 3), True): 200,
}


def describe(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Read settings of a network of this package from its weights, with or without a prefix.

    Parameters
    ----------
    state : mapping of str to Tensor

    Returns
    -------
    dict of str to str
        By name of the argument that sets it, those that can be told: ``backbone``, ``width`` (of a ResNet),
        ``in_channels``, ``stem_kernel_size``, ``embedding_dim``, ``projection_dim``, ``latent_dim``; and, as
        ``in_stack_depth`` with the stem sets them, the ``z slices after the stem`` where there are several.
    """
    found, first_width = _backbone(state)
    stem = _first(state, "stem.conv.weight", "stem.conv3d.weight", "encoder.conv1.weight")
    if stem is not None and stem.ndim == 5:
        found |= {"in_channels": str(stem.shape[1]), "stem_kernel_size": str(tuple(stem.shape[2:]))}
        if 0 < stem.shape[0] < first_width:  # depth is folded into the width of the first stage
            found["z slices after the stem"] = str(first_width // stem.shape[0])
    widths = {"embedding_dim": "projection.0.weight", "projection_dim": "projection.3.weight"}
    for name, key in {**widths, "latent_dim": "encoder.fc_mu.weight"}.items():
        weight = _first(state, key)
        found |= {} if weight is None else {name: str(weight.shape[0])}
    return found


def _first(state: Mapping[str, Tensor], *endings: str) -> Tensor | None:
    return next(
        (value for key, value in state.items() if f".{key}".endswith(tuple(f".{end}" for end in endings))), None
    )


def _backbone(state: Mapping[str, Tensor]) -> tuple[dict[str, str], int]:
    blocks: dict[int, set[int]] = {}
    inside: dict[str, Tensor] = {}
    for key, value in state.items():
        match = _BLOCK.search(key)
        if match:
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
            inside[key] = value
    depths = tuple(len(blocks[stage]) for stage in sorted(blocks))
    convnext, resnet = (_first(inside, name) for name in ("conv_dw.weight", "0.conv1.weight"))
    if convnext is not None:
        family = "convnextv2" if any(".grn." in key for key in inside) else "convnext"
        width = convnext.shape[0]
        size = _CONVNEXT.get((depths, width))
        return {"backbone": f"{family}_{size}" if size else f"{family} of {depths} blocks, width {width}"}, width
    if resnet is not None:
        number = _RESNET.get((depths, any(key.endswith("conv3.weight") for key in inside)))
        name = f"resnet{number}" if number else f"resnet of {depths} blocks"
        return {"backbone": name + (" (3D)" if resnet.ndim == 5 else ""), "width": str(resnet.shape[0])}, resnet.shape[
            0
        ]
    return {}, 0
