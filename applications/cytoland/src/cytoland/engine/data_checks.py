"""Whether a network takes what a data module makes, said before any step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule

from viscy_data.checks import Option, check_options
from viscy_data.errors import raise_all

__all__ = ["check_data"]


def check_data(data: LightningDataModule | None, settings: Mapping[str, Any], reconstructs: bool) -> None:
    """Refuse a data module of windows whose channels or slices are others than those of the network.

    Parameters
    ----------
    data : LightningDataModule, optional
        Others than of windows (`HCSDataModule`) are left to fail by themselves.
    settings : mapping
        Arguments of the network.
    reconstructs : bool
        Whether the network is trained on the source alone.

    Raises
    ------
    InputError
        With all that does not fit.
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
