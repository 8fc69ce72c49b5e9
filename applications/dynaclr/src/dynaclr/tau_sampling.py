"""Time offsets between an anchor and its positive, drawn from a truncated exponential.

Small offsets are the likelier ones: a cell resembles itself most in the next frames.

>>> import numpy as np
>>> 1 <= sample_tau(1, 4, np.random.default_rng(0)) <= 4
True
"""

from __future__ import annotations

import numpy as np

from viscy_data.checks import is_number, is_pair
from viscy_data.errors import InputError

__all__ = ["checked_decay_rate", "checked_tau_range", "sample_tau", "sample_tau_batch", "tau_weights"]


def checked_tau_range(tau_range_hours: tuple[float, float]) -> tuple[float, float]:
    """Return a range of offsets in hours, (first, last).

    Raises
    ------
    InputError
        If it is not two finite numbers with 0 <= first <= last.
    """
    where, expected = "tau_range", "two numbers of hours, (first, last) with 0 <= first <= last"
    if not is_pair(tau_range_hours) or not all(map(is_number, tau_range_hours)):
        raise InputError(where, found=repr(tau_range_hours), expected=expected)
    first, last = tau_range_hours
    if first > last:
        raise InputError(where, found=f"({first:g}, {last:g}), reversed", expected=expected, fix="swap the two")
    if first < 0:
        raise InputError(where, found=f"({first:g}, {last:g}), negative", expected=expected)
    return first, last


def checked_decay_rate(decay_rate: float) -> float:
    """Return a decay rate.

    Raises
    ------
    InputError
        If it is no finite number.
    """
    if not is_number(decay_rate):
        raise InputError("tau_decay_rate", found=repr(decay_rate), expected="a finite number")
    return float(decay_rate)


def tau_weights(tau_min: int, tau_max: int, decay_rate: float = 2.0) -> np.ndarray:
    r"""Return the probabilities of the offsets ``tau_min .. tau_max``.

    Parameters
    ----------
    tau_min, tau_max : int
        First and last offset, in frames, both included; ``0 <= tau_min <= tau_max``.
    decay_rate : float, default 2.0
        Dimensionless; 0 is uniform, larger favours small offsets, negative favours large ones.

    Returns
    -------
    ndarray of float64, shape (tau_max - tau_min + 1,)
        Sums to 1.

    Raises
    ------
    ValueError
        If the range is reversed or begins before 0, or if the decay rate is not finite.

    Notes
    -----
    :math:`p(\tau) \propto \exp(-\lambda (\tau-\tau_{min})/(\tau_{max}-\tau_{min}))`, evaluated relative to its largest
    term so that no decay rate overflows.
    """
    _check(np.asarray([tau_min]), np.asarray([tau_max]), decay_rate)
    offsets = np.arange(tau_max - tau_min + 1)
    weights = _relative_weights(offsets, max(tau_max - tau_min, 1), decay_rate)
    return weights / weights.sum()


def sample_tau(tau_min: int, tau_max: int, rng: np.random.Generator, decay_rate: float = 2.0) -> int:
    """Draw one time offset from a truncated exponential.

    Parameters
    ----------
    tau_min, tau_max : int
        First and last admissible offset, in frames, both included; ``0 <= tau_min <= tau_max``.
    rng : numpy.random.Generator
        The only source of randomness; one ``choice`` is drawn from it.
    decay_rate : float, default 2.0
        Dimensionless; 0 is uniform, larger favours small offsets.

    Returns
    -------
    int
        The offset, in frames.

    Raises
    ------
    ValueError
        As in :func:`tau_weights`.
    """
    probabilities = tau_weights(tau_min, tau_max, decay_rate)
    return int(rng.choice(np.arange(tau_min, tau_max + 1), p=probabilities))


def sample_tau_batch(
    tau_min: np.ndarray,
    tau_max: np.ndarray,
    rng: np.random.Generator,
    decay_rate: float = 2.0,
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """Draw one time offset per anchor from its own truncated exponential.

    Parameters
    ----------
    tau_min, tau_max : array of int, shape (B,)
        First and last admissible offset of each anchor, in frames, both included.
    rng : numpy.random.Generator
        The only source of randomness; B uniform numbers are drawn from it.
    decay_rate : float, default 2.0
        Dimensionless; 0 is uniform, larger favours small offsets.
    allowed : array of bool, shape (B, K), optional
        Column k says whether the offset ``tau_min + k`` may be drawn; K covers the longest range. Without it every
        offset may. The law is restricted to what is allowed, not shifted to the nearest allowed offset.

    Returns
    -------
    ndarray of int64, shape (B,)
        ``tau_min <= tau <= tau_max`` elementwise, in frames.

    Raises
    ------
    ValueError
        If any ``tau_min > tau_max`` or no offset of an anchor is allowed (the message names the first such row), or as
        in :func:`tau_weights`.

    Examples
    --------
    >>> import numpy as np
    >>> sample_tau_batch(np.array([1, 2]), np.array([1, 2]), np.random.default_rng(0))
    array([1, 2])
    """
    tau_min, tau_max = np.asarray(tau_min, dtype=np.int64), np.asarray(tau_max, dtype=np.int64)
    _check(tau_min, tau_max, decay_rate)
    if not len(tau_min):
        return np.empty(0, dtype=np.int64)
    span = tau_max - tau_min
    offsets = np.arange(span.max() + 1)
    open_ = offsets <= span[:, None]  # (B, K)
    if allowed is not None:
        open_ &= np.asarray(allowed, dtype=bool)
        if not open_.any(axis=1).all():
            raise ValueError(f"row {int(np.flatnonzero(~open_.any(axis=1))[0])}: no tau of its range is allowed")
    weights = _relative_weights(offsets, np.maximum(span, 1)[:, None], decay_rate, open_)
    cumulative = np.cumsum(weights, axis=1)
    point = (1.0 - rng.random(len(span)))[:, None] * cumulative[
        :, -1:
    ]  # in (0, total]: lands on a positive weight only
    return tau_min + (cumulative < point).sum(axis=1)


def _relative_weights(
    offsets: np.ndarray, span: int | np.ndarray, decay_rate: float, open_: np.ndarray | bool = True
) -> np.ndarray:
    """Weights of the offsets relative to the largest open one, so that at least one is exactly 1."""
    exponent = np.where(open_, -decay_rate * (offsets / span), -np.inf)
    return np.exp(exponent - exponent.max(axis=-1, keepdims=True))


def _check(tau_min: np.ndarray, tau_max: np.ndarray, decay_rate: float) -> None:
    if not np.isfinite(decay_rate):
        raise ValueError(f"decay_rate must be finite, found {decay_rate}")
    if tau_min.shape != tau_max.shape or tau_min.ndim != 1:
        raise ValueError(f"tau_min and tau_max must be of one length, found shapes {tau_min.shape} and {tau_max.shape}")
    wrong = np.flatnonzero((tau_min > tau_max) | (tau_min < 0))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"tau range of row {row} must satisfy 0 <= tau_min <= tau_max, found tau_min {tau_min[row]} and "
            f"tau_max {tau_max[row]}"
        )
