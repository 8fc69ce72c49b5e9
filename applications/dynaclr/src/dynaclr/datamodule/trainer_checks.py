"""What trainer and model must agree on with the data module."""

from __future__ import annotations

import warnings

from lightning.pytorch import Trainer

from viscy_data.errors import InputError
from viscy_data.sampler import BatchPlan

__all__ = ["compare_beta", "compare_input", "compare_leak", "refuse_overfit_batches"]


def refuse_overfit_batches(trainer: Trainer | None) -> None:
    """Refuse an option of the trainer that would replace the sampler.

    Raises
    ------
    InputError
        If ``overfit_batches`` is set.
    """
    if trainer is not None and trainer.overfit_batches:
        raise InputError(
            "trainer",
            field="overfit_batches",
            found=str(trainer.overfit_batches),
            expected="0: Lightning would replace the sampler that composes the batches",
            fix="use limit_train_batches",
        )


def compare_input(trainer: Trainer | None, channels: int, depth: int) -> None:
    """Refuse a network that takes other images than the data module makes, before any table is read.

    Raises
    ------
    InputError
        If the module of the trainer tells what it expects, by `expected_input`, and it is something else.
    """
    module = None if trainer is None else trainer.lightning_module
    expected = getattr(module, "expected_input", dict)()
    found = {"channels": channels, "depth": depth}
    arguments = {"channels": "in_channels", "depth": "in_stack_depth"}
    causes = {"channels": "the source channels of the experiments", "depth": "z_range"}
    for name, number in found.items():
        if expected.get(name, number) != number:
            raise InputError(
                "model",
                field=f"{arguments[name]} of the encoder",
                found=f"{expected[name]}, and {number} in the images by {causes[name]}",
                expected="the same number in both",
                fix=f"set {arguments[name]}: {number}, or change {causes[name]}",
            )


def compare_beta(trainer: Trainer | None, hcl_beta: float) -> None:
    """Warn when the loss uses another ``beta`` than the data module was told, which has no use for it."""
    beta = _beta_of_loss(trainer)
    if beta is not None and beta != hcl_beta:
        warnings.warn(
            f"hcl_beta={hcl_beta:g} of the data module has no effect, the loss uses its own beta={beta:g}: "
            "set beta of the loss, and hcl_beta to the same value",
            stacklevel=2,
        )


def compare_leak(trainer: Trainer | None, plan: BatchPlan) -> None:
    """Warn when cells leak in from other experiments while the loss weighs hard negatives.

    The leaked cells that look most like the anchor are those that ought to mix with it, and ``beta`` pushes just these
    away; CONCORD warns of it too (doi:10.1038/s41587-025-02950-z).
    """
    beta = _beta_of_loss(trainer)
    if plan.experiment_aware and plan.leaky and beta:
        n_leaked = int(plan.sizes(2)[1:].sum())
        warnings.warn(
            f"leaky={plan.leaky:g} brings {n_leaked} of {plan.batch_size} cells of a batch from other experiments, and "
            f"beta={beta:g} of the loss pushes away most those of them that look like the anchor, which works against "
            "mixing of experiments: set leaky to 0, or beta to 0",
            stacklevel=2,
        )


def _beta_of_loss(trainer: Trainer | None) -> float | None:
    module = None if trainer is None else trainer.lightning_module
    return getattr(getattr(module, "loss_function", None), "beta", None)
