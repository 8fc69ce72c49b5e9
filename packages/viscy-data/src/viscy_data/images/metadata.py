"""Names of channels, sizes and intervals of a plan: what the user says, else what files say; and a word on either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from viscy_data.errors import InputError
from viscy_data.images.files import measured
from viscy_data.images.patterns import natural_key
from viscy_data.images.placing import Placed

if TYPE_CHECKING:
    from viscy_data.images.plan import FovPlan, ImportOptions

__all__ = ["first_few", "name_channels", "scale_fovs"]

_SHOWN = 10


def name_channels(
    values: Sequence[str] | None, placed: Sequence[Placed], given: Sequence[str]
) -> tuple[tuple[str, ...], list[str]]:
    """Name the channels: as the user says, as file names or metadata say, else by number."""
    n_channels = placed[0].facts.shape[1] if values is None else len(values)
    found = list(values) if values is not None else list(placed[0].facts.channel_names)
    others = {own.facts.channel_names for own in placed}
    if values is None and len(others) > 1 and not given:
        shown = "; ".join(", ".join(names) or "none" for names in sorted(others)[:3])
        raise InputError(
            "channels", found=f"other names in other files: {shown}", expected="--channels for all of them"
        )
    own = found if len(found) == n_channels else [str(number) for number in range(n_channels)]
    names = _renamed(own, given)
    if len(set(names)) < len(names):
        raise InputError(
            "channels", found=", ".join(names), expected="different names", fix="give them: --channels A,B"
        )
    said = ", ".join(new if old == new else f"{new} ({old})" for old, new in zip(own, names, strict=True))
    unnamed = names == own and own != found
    return tuple(names), [f"channels: {said}" + ", numbers, as the files name none (--channels)" * unnamed]


def _renamed(own: Sequence[str], given: Sequence[str]) -> list[str]:
    if not given:
        return list(own)
    if all("=" in name for name in given):
        renamed = dict(name.split("=", 1) for name in given)
        if set(renamed) <= set(own):
            return [renamed.get(name, name) for name in own]
    elif len(given) == len(own):
        return list(given)
    expected = f"a name for each of {', '.join(own)}, in this order, or old=new"
    raise InputError("--channels", found=", ".join(given), expected=expected)


def scale_fovs(fovs: Sequence[FovPlan], options: ImportOptions, named_times: bool) -> tuple[list[FovPlan], list[str]]:
    """Give FOVs their scale, and say where it comes from."""
    scaled, said = [], {}
    for fov in fovs:
        facts = next(iter(fov.sources.values())).facts
        height, width = facts.pixel_size_um or (None, None)
        clock = fov.axes[0]
        interval = facts.interval_seconds
        if named_times and clock is not None and len(clock) > 1:
            interval = measured(clock[1] - clock[0])
        t, z = fov.shape[0], fov.shape[2]
        steps = (
            _said(said, "interval", "s", options.interval_seconds, interval, t > 1),
            1.0,
            _said(said, "z step", "um", options.z_step_um, facts.z_step_um, z > 1),
            _said(said, "pixel size", "um", options.pixel_size_um, height, True),
            (options.pixel_size_um or width or 1.0),
        )
        scaled.append(replace(fov, scale=steps))
    return scaled, [f"{name}: {first_few(sorted(words, key=natural_key))}" for name, words in said.items()]


_UNKNOWN = {
    "interval": "unknown: 1 is written, and every later command asks for it (--interval 10min)",
    "z step": "unknown: 1 is written (--z-step)",
    "pixel size": "unknown: 1 is written, so tracks in micrometres cannot be converted to pixels (--pixel-size)",
}


def _said(
    said: dict[str, set[str]], name: str, unit: str, given: float | None, found: float | None, needed: bool
) -> float:
    """Choose a step and note the reason; the user overrides the files."""
    if needed:
        words = said.setdefault(name, set())
        if given is not None:
            words.add(
                f"{given:g} {unit}" + (f" as given; files say {found:g}" if found and found != given else " as given")
            )
        else:
            words.add(f"{found:g} {unit}" if found else _UNKNOWN[name])
    return float(given or found or 1.0)


def first_few(texts: Sequence[str]) -> str:
    """Return the first ten texts, and how many more there are."""
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + more
