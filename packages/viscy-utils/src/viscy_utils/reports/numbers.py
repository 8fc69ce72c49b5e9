"""Numbers as a reader wants them: a few digits, and units that suit."""

from __future__ import annotations

import math

__all__ = ["duration", "number", "significant"]

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_MOST_HOURS = 48


def number(value: float | None, digits: int = 3) -> str:
    """Write a metric with a fixed number of decimals; ``-`` for None and NaN.

    >>> number(0.25), number(None)
    ('0.250', '-')
    """
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def significant(value: float, digits: int = 2) -> str:
    """Write a number with at most so many significant digits and no exponent; whole numbers keep all of theirs.

    >>> significant(0.01234), significant(2.5), significant(1234.0)
    ('0.012', '2.5', '1234')
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(hours: float) -> str:
    """Write a time with two significant digits in seconds, minutes, hours or days, whichever suits.

    >>> duration(0.5), duration(2.5), duration(0.0025), duration(100)
    ('30 min', '2.5 h', '9 s', '4.2 d')
    """
    seconds = hours * _HOUR
    size = abs(seconds)
    if size < _MINUTE:
        return f"{significant(seconds)} s"
    if size < _HOUR:
        return f"{significant(seconds / _MINUTE)} min"
    if size < _MOST_HOURS * _HOUR:
        return f"{significant(hours)} h"
    return f"{significant(seconds / _DAY)} d"
