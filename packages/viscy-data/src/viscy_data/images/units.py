"""Units of lengths and times as microscopes write them."""

from __future__ import annotations

import re

from viscy_data.errors import InputError

__all__ = ["micrometres_per", "parse_interval", "seconds_per"]

_MICROMETRES = {
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre", "\\u00b5m"), 1.0),
    **dict.fromkeys(("nm", "nanometer"), 1e-3),
    **dict.fromkeys(("mm", "millimeter"), 1e3),
    **dict.fromkeys(("cm", "centimeter"), 1e4),
    **dict.fromkeys(("m", "meter"), 1e6),
    "inch": 25400.0,
}
_SECONDS = {
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
}


def micrometres_per(unit: str | None) -> float:
    """Return the micrometres in a unit of length; NaN for pixels and for what is not known."""
    return _MICROMETRES.get((unit or "").strip().lower(), float("nan"))


def seconds_per(unit: str | None) -> float:
    """Return the seconds in a unit of time; NaN for what is not known."""
    return _SECONDS.get((unit or "").strip().lower(), float("nan"))


def parse_interval(text: str) -> float:
    """Return the seconds of a text such as ``10min``, ``30s`` or ``0.5h``.

    Raises
    ------
    InputError
        If it is no positive number with a unit.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*([a-z]+)\s*", text, re.IGNORECASE)
    try:
        seconds = float(match[1]) * seconds_per(match[2]) if match else float("nan")
    except ValueError:
        seconds = float("nan")
    if not seconds > 0:
        raise InputError("--interval", found=repr(text), expected="a number and its unit, such as 10min, 30s or 0.5h")
    return seconds
