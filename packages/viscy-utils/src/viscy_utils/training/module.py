"""The base of training modules: optimiser, example input, and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW

from viscy_data.errors import InputError
from viscy_utils.training.finite import FiniteWatch
from viscy_utils.training.layout import mark_checkpoint, refuse_newer_checkpoint
from viscy_utils.training.schedule import ScheduleName, warmup_cosine_scheduler

__all__ = ["CheckpointMismatch", "TrainingModule"]

_COMPILED = "_orig_mod."  # what torch.compile puts into names


class CheckpointMismatch(InputError, RuntimeError):
    """A checkpoint whose weights are of another network."""


class TrainingModule(LightningModule):
    """Base of the training modules: AdamW at a constant or a scheduled rate.

    Weights have the same names in checkpoints whether a network is compiled or not, and checkpoints of either kind are
    read.

    Parameters
    ----------
    lr : float or None
        Of AdamW; None for a module that is not trained.
    schedule : {"WarmupCosine", "Constant"}
        "WarmupCosine" rises over `warmup_epochs` and falls to 0 at the end of the run, step by step.
    warmup_epochs : int
    example_input_array_shape : sequence of int
        Of the input of summaries, graphs and exports.
    warmup_start : float, default 0.0
        Share of the rate that "WarmupCosine" begins with.

    Attributes
    ----------
    finite_watch : FiniteWatch
        For what a step computes; looked at before a checkpoint is written.

    Raises
    ------
    ValueError
        For options out of range.
    """

    schedule_option: ClassVar[str] = "schedule"
    """What the argument of the subclass is called that names the schedule."""
    warmup_option: ClassVar[str] = "warmup_epochs"
    """What the argument of the subclass is called that says how long the rate rises."""

    def __init__(
        self,
        lr: float | None,
        schedule: ScheduleName,
        warmup_epochs: int,
        example_input_array_shape: Sequence[int],
        warmup_start: float = 0.0,
    ) -> None:
        super().__init__()
        if schedule not in get_args(ScheduleName):
            raise ValueError(f"{self.schedule_option}: found {schedule!r}, expected 'WarmupCosine' or 'Constant'")
        if lr is not None and not lr >= 0:
            raise ValueError(f"lr: found {lr}, expected a learning rate of 0 or more")
        if warmup_epochs < 0:
            raise ValueError(f"{self.warmup_option}: found {warmup_epochs}, expected 0 or more")
        self.lr, self.schedule, self.warmup_epochs, self.warmup_start = lr, schedule, warmup_epochs, warmup_start
        self._example_shape = tuple(example_input_array_shape)
        self.finite_watch = FiniteWatch()

    @property
    def example_input_array(self) -> Tensor:
        """Zeros, made when asked for: no memory is held and no random number is drawn."""
        return torch.zeros(self._example_shape)

    def expected_input(self) -> dict[str, int]:
        """Say what images the network takes, as far as it tells: ``channels`` and ``depth`` (z slices)."""
        for module in self.modules():
            if isinstance(getattr(module, "in_stack_depth", None), int):
                return {"channels": module.in_channels, "depth": module.in_stack_depth}
        return {}

    def trained_parameters(self) -> list[Parameter]:
        """Return what the optimiser changes."""
        return list(self.parameters())

    def configure_optimizers(self) -> dict[str, Any]:
        """Set up AdamW and the schedule."""
        if self.lr is None:
            raise ValueError("lr: found None, expected the learning rate, since the module is to be trained")
        optimizer = AdamW(self.trained_parameters(), lr=self.lr)
        if self.schedule == "Constant":
            return {"optimizer": optimizer}
        scheduler = warmup_cosine_scheduler(optimizer, self.trainer, self.warmup_epochs, self.warmup_start)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def misfits(self, found: Mapping[str, Tensor]) -> list[str]:
        """Say in what weights differ from those of this network; by default that is left to torch.

        Parameters
        ----------
        found : mapping of str to Tensor
            By names without the mark of compilation.

        Returns
        -------
        list of str
            Empty where they fit.
        """
        return []

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the weights by the names that they have without compilation."""
        state = super().state_dict(*args, **kwargs)
        for name in [name for name in state if _COMPILED in name]:
            state[_uncompiled(name)] = state.pop(name)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take weights from compiled or plain networks.

        Raises
        ------
        CheckpointMismatch
            If they are not those of this network (with `strict`): the message says in which settings they differ.
        """
        names = {_uncompiled(name): name for name in super().state_dict()}
        found = {_uncompiled(name): value for name, value in state_dict.items()}
        problems = self.misfits(found) if strict else []
        if problems:
            path = None if self._trainer is None else self._trainer.ckpt_path
            expected = f"the weights of this {type(self).__name__}, as the configuration describes it"
            found = "\n".join(["other weights:", *problems])
            raise CheckpointMismatch(str(path or "checkpoint"), field="state_dict", found=found, expected=expected)
        return super().load_state_dict({names.get(n, n): value for n, value in found.items()}, strict, assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to save what is not finite, and say which layout the checkpoint has.

        Raises
        ------
        NonFiniteError
            For values that are not finite in the steps since the last look.
        """
        self.finite_watch.settle()
        mark_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of a later layout."""
        refuse_newer_checkpoint(checkpoint, f"a checkpoint for {type(self).__name__}")


def _uncompiled(name: str) -> str:
    return name.replace(_COMPILED, "")
