"""Temperatures that are checked, and temperatures that are learned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["LearnedTemperature", "check_temperature"]


def check_temperature(temperature: float) -> float:
    """Refuse a temperature that is not larger than 0."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: found {temperature}, expected a number larger than 0")
    return temperature


class LearnedTemperature(nn.Module):
    """A temperature with a gradient, as the logarithm of its inverse.

    Parameters
    ----------
    initial : float
        At least ``1 / max_scale``.
    max_scale : float, default 100.0
        Bound of the inverse, which keeps training stable; applied in place whenever the temperature is asked for.
    """

    def __init__(self, initial: float, max_scale: float = 100.0) -> None:
        super().__init__()
        if 1 / check_temperature(initial) > max_scale:
            raise ValueError(f"temperature: found {initial}, expected at least {1 / max_scale} of a learned one")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(initial)))
        self.max_scale = max_scale

    def forward(self) -> Tensor:
        """Return the temperature, shape ()."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(self.max_scale))
        return torch.exp(-self.log_scale)
