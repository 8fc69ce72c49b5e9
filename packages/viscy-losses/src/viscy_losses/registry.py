"""Losses by name.

>>> from viscy_losses import LossRegistry
>>> loss = LossRegistry.create("simclr", temperature=0.1)
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar, TypeVar

from torch import nn

__all__ = ["LossRegistry"]

_Loss = TypeVar("_Loss", bound=type[nn.Module])

BUILT_IN = (
    "barlow_twins",
    "clip",
    "debiased",
    "decoupled",
    "focal",
    "hard_negative",
    "moco",
    "siglip",
    "simclr",
    "supcon",
    "triplet",
    "vicreg",
)


class LossRegistry:
    """Losses by name, those of this package and those registered by others."""

    _losses: ClassVar[dict[str, type[nn.Module]]] = {}

    @classmethod
    def register(cls, name: str) -> Callable[[_Loss], _Loss]:
        """Make a class decorator that registers a loss.

        Parameters
        ----------
        name : str
            Lower case with underscores; not taken yet.

        Returns
        -------
        callable
            Returns the class unchanged.

        Raises
        ------
        ValueError
            If another class has this name.
        """

        def add(loss: _Loss) -> _Loss:
            known = cls._losses.setdefault(name, loss)
            # A module that is loaded again defines the same class again.
            if (known.__module__, known.__qualname__) != (loss.__module__, loss.__qualname__):
                raise ValueError(f"loss {name!r} is {known.__module__}.{known.__qualname__}; choose another name")
            cls._losses[name] = loss
            return loss

        return add

    @classmethod
    def create(cls, name: str, **kwargs: Any) -> nn.Module:
        """Create a loss.

        Parameters
        ----------
        name : str
        **kwargs
            Of its constructor.

        Returns
        -------
        nn.Module

        Raises
        ------
        KeyError
            For an unknown name, with those that are near.
        """
        names = cls.available()
        if name not in names:
            near = difflib.get_close_matches(name.lower(), names, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"available: {', '.join(names)}"
            raise KeyError(f"no loss is called {name!r}; {hint}")
        return cls._losses[name](**kwargs)

    @classmethod
    def available(cls) -> list[str]:
        """List the names of all losses, sorted."""
        for module in BUILT_IN:
            import_module(f"viscy_losses.{module}")
        return sorted(cls._losses)
