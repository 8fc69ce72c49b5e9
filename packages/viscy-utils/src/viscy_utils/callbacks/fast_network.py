"""How the network computes, from the configuration: compiled, and with images laid out channels last.

>>> trainer = Trainer(callbacks=[FastNetwork(compile=True)], precision="bf16-mixed")  # doctest: +SKIP
"""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

__all__ = ["FastNetwork"]

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


class FastNetwork(Callback):
    """Compile the networks of a module, lay their weights out for the device, or both.

    Networks are the children of the module that have weights of two axes or more: an encoder, its average, not a loss.
    Names in checkpoints stay the same, so that checkpoints of either kind are read by both.

    Parameters
    ----------
    compile : bool, default False
        Whether `torch.compile` makes one program of each network. The first batch of each size then takes a minute, and
        a C++ compiler has to be there.
    channels_last : bool, default False
        Whether the weights of convolutions are stored with the channels as their last axis, in which tensor cores take
        them. Pays off with ``precision: bf16-mixed`` on a GPU.
    backend : str, default "inductor"
        Of `torch.compile`.

    Raises
    ------
    ValueError
        If there is no such backend.
    """

    def __init__(self, compile: bool = False, channels_last: bool = False, backend: str = "inductor") -> None:
        known = torch.compiler.list_backends(exclude_tags=())
        if backend not in known:
            raise ValueError(f"backend: found {backend!r}, expected one of {', '.join(known)}")
        self.compile, self.channels_last, self.backend = compile, channels_last, backend

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the networks before they are moved to the device and wrapped for several processes."""
        for network in pl_module.children():
            if not any(parameter.ndim > 1 for parameter in network.parameters()):
                continue
            if self.channels_last:
                _lay_out(network)
            if self.compile:
                network.compile(backend=self.backend)  # in place: no name changes


def _lay_out(network: nn.Module) -> None:
    for parameter in network.parameters():
        if parameter.ndim in _LAYOUTS:
            parameter.data = parameter.data.contiguous(memory_format=_LAYOUTS[parameter.ndim])
