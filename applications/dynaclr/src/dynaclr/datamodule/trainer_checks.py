"""What trainer and model must agree on with the data module."""

from __future__ import annotations

import warnings

from lightning.pytorch import Trainer

from viscy_data.errors import InputError

__all__ = ["compare_beta", "refuse_overfit_batches"]


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


def compare_beta(trainer: Trainer | None, hcl_beta: float) -> None:
    """Warn when the loss uses another ``beta`` than the data module was told, which has no use for it."""
    module = None if trainer is None else trainer.lightning_module
    beta = getattr(getattr(module, "loss_function", None), "beta", None)
    if beta is not None and beta != hcl_beta:
        warnings.warn(
            f"hcl_beta={hcl_beta:g} of the data module has no effect, the loss uses its own beta={beta:g}: "
            "set beta of the loss, and hcl_beta to the same value",
            stacklevel=2,
        )
