"""Callbacks that wait for a metric which nothing logs: what Lightning says of it, in our words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from viscy_data.checks import near_matches
from viscy_data.errors import InputError

__all__ = ["refusing_unknown_metrics"]

_MOST = 8  # names


@contextmanager
def refusing_unknown_metrics(trainer: Trainer) -> Iterator[None]:
    """Tell which callback of a run monitors a metric that is not logged, and which metrics are.

    Raises
    ------
    InputError
        In place of what ``EarlyStopping`` and ``ModelCheckpoint`` raise when the first epoch is over.
    """
    try:
        yield
    except (RuntimeError, MisconfigurationException) as err:
        logged = trainer.callback_metrics
        for callback in trainer.callbacks:
            name = getattr(callback, "monitor", None)
            if name is not None and name not in logged and name in str(err):
                raise InputError(
                    type(callback).__name__,
                    field="monitor",
                    found=f"{name!r}, which is not logged",
                    expected=_listed(logged),
                    fix=near_matches(name, logged, otherwise="monitor one of them, or log it in the model"),
                ) from err
        raise


def _listed(logged: Iterable[str]) -> str:
    """List metrics; of ``loss``, ``loss_step`` and ``loss_epoch`` the first."""
    names = [name for name in logged if name.removesuffix("_step").removesuffix("_epoch") == name]
    further = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"one of {', '.join(names[:_MOST])}{further}" if names else "a metric; the model logs none"
