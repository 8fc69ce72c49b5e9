"""Whether a network takes what a data module makes, said before any step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from cytoland.engine.networks import make_network
from viscy_data.checks import Option, check_options
from viscy_data.errors import raise_all, reading_input

__all__ = ["check_data"]


def check_data(
    data: LightningDataModule | None,
    architecture: str,
    settings: Mapping[str, Any],
    *,
    reconstructs: bool,
    trains: bool,
) -> None:
    """Refuse a data module of windows whose channels, slices or patches do not suit the network.

    Parameters
    ----------
    data : LightningDataModule, optional
        Others than of windows (`HCSDataModule`) are left to fail by themselves.
    architecture : str
    settings : mapping
        Arguments of the network.
    reconstructs : bool
        Whether the network is trained on the source alone.
    trains : bool
        Whether it sees patches rather than whole frames, which are padded.

    Raises
    ------
    InputError
        With all channels and slices that do not fit.
    ValueError
        As the network raises it, for patches of a size that it does not take.
    """
    if not all(hasattr(data, name) for name in ("source_channel", "target_channel", "z_window_size")):
        return
    depth = settings.get("in_stack_depth", 1)
    pairs = [
        ("source_channel", len(data.source_channel), settings["in_channels"], "in_channels"),
        ("z_window_size", data.z_window_size, depth, "in_stack_depth"),
    ]
    if not reconstructs:
        pairs.append(("target_channel", len(data.target_channel), settings["out_channels"], "out_channels"))
        slices = 1 if data.target_2d else data.z_window_size
        made = settings.get("out_stack_depth") or depth
        pairs.append(("target_2d", slices, made, "out_stack_depth (slices of the target)"))
    raise_all(
        check_options(
            type(data).__name__,
            [
                Option(name, found, found == wanted, f"{wanted}, as {argument} of the network has it")
                for name, found, wanted, argument in pairs
            ],
        )
    )
    if trains:
        # Nothing is computed on this device: the network only follows the shapes.
        without_weights = {"pretrained": False} if "pretrained" in settings else {}
        with reading_input("trying yx_patch_size"), torch.device("meta"), torch.no_grad():
            network = make_network(architecture, {**settings, **without_weights})
            network(torch.empty(2, len(data.source_channel), depth, *data.yx_patch_size))
