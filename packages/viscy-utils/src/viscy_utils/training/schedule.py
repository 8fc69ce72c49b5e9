"""The learning rate over the steps of a run."""

from __future__ import annotations

import math
from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["ScheduleName", "warmup_cosine", "warmup_cosine_scheduler"]

ScheduleName = Literal["WarmupCosine", "Constant"]


def warmup_cosine(step: int, warmup_steps: int, total_steps: int, start: float = 0.0) -> float:
    """Rise linearly to 1, then fall along half a cosine to 0.

    Parameters
    ----------
    step : int
        From 0.
    warmup_steps, total_steps : int
    start : float, default 0.0
        Where the rise begins, one step before the first.

    Returns
    -------
    float
        Factor of the learning rate: ``(step + 1) / warmup_steps`` at first, so that no step is lost.
    """
    if step < warmup_steps:
        return start + (1 - start) * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def warmup_cosine_scheduler(
    optimizer: Optimizer, trainer: Trainer, warmup_epochs: int, start: float = 0.0
) -> dict[str, object]:
    """Configure the schedule for Lightning, by optimizer step.

    Where epochs end the run, a step is told by its place in its epoch, so that a run that goes on with another number
    of ranks, which share the epoch in more or fewer steps, has the rate of the same share of the training. Where
    ``max_steps`` ends it, the steps that were made are counted.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    trainer : lightning.pytorch.Trainer
        Tells how many steps the run has.
    warmup_epochs : int
    start : float, default 0.0
        As for :func:`warmup_cosine`.

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
            f"a warm-up of {warmup_epochs} epochs of {steps_per_epoch} steps fills the whole run of {total_steps}, "
            "so the learning rate never falls; train longer or warm up for fewer epochs"
        )
    by_epochs = not math.isinf(trainer.num_training_batches) and total_steps != trainer.max_steps

    def factor(step: int) -> float:
        if by_epochs:
            in_epoch = math.ceil((trainer.fit_loop.batch_idx + 1) / trainer.accumulate_grad_batches)
            step = trainer.current_epoch * steps_per_epoch + in_epoch
        return warmup_cosine(step, warmup_steps, int(total_steps), start)

    scheduler = LambdaLR(optimizer, factor)
    return {"scheduler": scheduler, "interval": "step"}
