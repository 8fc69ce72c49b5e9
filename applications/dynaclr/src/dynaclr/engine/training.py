"""What training modules share: optimiser, learning rate over the steps of a run, example input, and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from viscy_data.errors import InputError
from viscy_models.checkpoints import mismatches, uncompiled

__all__ = ["CheckpointMismatch", "ScheduleName", "TrainingModule", "warmup_cosine", "warmup_cosine_scheduler"]

ScheduleName = Literal["WarmupCosine", "Constant"]


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

    Raises
    ------
    ValueError
        For options out of range.
    """

    schedule_option: ClassVar[str] = "schedule"
    """What the argument of the subclass is called that names the schedule."""

    def __init__(
        self, lr: float | None, schedule: ScheduleName, warmup_epochs: int, example_input_array_shape: Sequence[int]
    ) -> None:
        super().__init__()
        if schedule not in get_args(ScheduleName):
            raise ValueError(f"{self.schedule_option}: found {schedule!r}, expected 'WarmupCosine' or 'Constant'")
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs: found {warmup_epochs}, expected 0 or more")
        self.lr, self.schedule, self.warmup_epochs = lr, schedule, warmup_epochs
        self._example_shape = tuple(example_input_array_shape)

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
        scheduler = warmup_cosine_scheduler(optimizer, self.trainer, self.warmup_epochs)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the weights by the names that they have without compilation."""
        state = super().state_dict(*args, **kwargs)
        for name in [name for name in state if uncompiled(name) != name]:
            state[uncompiled(name)] = state.pop(name)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take weights from compiled or plain networks.

        Raises
        ------
        CheckpointMismatch
            If they are not those of this network (with `strict`): the message says in which settings they differ.
        """
        names = {uncompiled(name): name for name in super().state_dict()}
        found = {uncompiled(name): value for name, value in state_dict.items()}
        problems = mismatches(self.state_dict(), found) if strict else []
        if problems:
            path = None if self._trainer is None else self._trainer.ckpt_path
            expected = f"the weights of this {type(self).__name__}, as the configuration describes it"
            found = "\n".join(["other weights:", *problems])
            raise CheckpointMismatch(str(path or "checkpoint"), field="state_dict", found=found, expected=expected)
        return super().load_state_dict({names.get(n, n): value for n, value in found.items()}, strict, assign)


def warmup_cosine(step: int, warmup_steps: int, total_steps: int) -> float:
    """Rise linearly to 1, then fall along half a cosine to 0.

    Parameters
    ----------
    step : int
        From 0.
    warmup_steps, total_steps : int

    Returns
    -------
    float
        Factor of the learning rate: ``(step + 1) / warmup_steps`` at first, so that no step is lost.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def warmup_cosine_scheduler(optimizer: Optimizer, trainer: Trainer, warmup_epochs: int) -> dict[str, object]:
    """Configure the schedule for Lightning, by optimizer step.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    trainer : lightning.pytorch.Trainer
        Tells how many steps the run has.
    warmup_epochs : int

    Raises
    ------
    ValueError
        If the run has no end to fall towards.
    """
    total_steps = trainer.estimated_stepping_batches
    if math.isinf(total_steps):
        raise ValueError(
            "schedule WarmupCosine needs the length of the run: set max_epochs or max_steps of the trainer"
        )
    steps_per_epoch = total_steps
    if not math.isinf(trainer.num_training_batches):
        steps_per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    warmup_steps = min(warmup_epochs * steps_per_epoch, int(total_steps))
    if warmup_steps == total_steps and not trainer.fast_dev_run:
        rank_zero_warn(
            f"warmup_epochs: {warmup_epochs} epochs of {steps_per_epoch} steps fill the whole run of {total_steps}, "
            "so the learning rate never falls; train longer or warm up for fewer epochs"
        )
    scheduler = LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup_steps, int(total_steps)))
    return {"scheduler": scheduler, "interval": "step"}
