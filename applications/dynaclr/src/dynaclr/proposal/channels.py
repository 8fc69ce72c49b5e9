"""Which channels of several plates meet at one position: those of one name, and those of one colour."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from viscy_data.errors import InputError

__all__ = ["choose_channels"]

_LABEL_FREE = re.compile(r"phase|bright|\bbf\b|dic\b|trans|label.?free|retardance|dark.?field", re.IGNORECASE)
_WORDS = {
    "blue": r"dapi|hoechst|bfp|405",
    "cyan": r"cfp|cerulean|turquoise",
    "yellow": r"yfp|venus|citrine",
    "far red": r"cy5|irfp|mirfp|far.?red|\bsir\b|64[07]",
    "green": r"gfp|fitc|neongreen|488",
    "red": r"rfp|cherry|tomato|scarlet|ruby|tritc|texas|cy3|56[18]|59[04]",
}
_COLOURS = {colour: re.compile(words, re.IGNORECASE) for colour, words in _WORDS.items()}


def choose_channels(names: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], str, bool]:
    """Put the label-free channel first and fluorescent ones behind it, as many as every plate has.

    Parameters
    ----------
    names : mapping of str to sequence of str
        Channels by experiment, in the order of the store.

    Returns
    -------
    chosen : dict of str to list of str
        By experiment, in the order of positions.
    reason : str
        In words, with what is left out, and which channels have neither name nor colour in common.
    has_label_free : bool
        Whether the first one is label-free in every plate.

    Raises
    ------
    InputError
        If not every plate has a channel of its own name.
    """
    label_free, others = {}, {}
    for plate, own in names.items():
        unique = [name for name in own if own.count(name) == 1]
        free = [name for name in unique if _LABEL_FREE.search(name)]
        label_free[plate], others[plate] = free[:1], [name for name in unique if name not in free]
    has_label_free = all(label_free.values())
    if not has_label_free:  # a channel that is label-free in some plates only has no counterpart in the others
        others = {plate: [*label_free[plate], *own] for plate, own in others.items()}
        label_free = dict.fromkeys(others, ())
    alike, rest = _matched(others, str)
    of_a_colour, rest = _matched(rest, _colour)
    n_more = min(map(len, rest.values()))
    chosen = {plate: [*label_free[plate], *alike[plate], *of_a_colour[plate], *rest[plate][:n_more]] for plate in names}
    if not next(iter(chosen.values())):
        listed = "; ".join(f"{plate}: {', '.join(own)}" for plate, own in names.items())
        raise InputError("channels", found=listed, expected="a channel of its own name in every plate")
    reason = "label-free first, then fluorescence" if has_label_free else "no label-free channel is in every plate"
    if n_more and len(names) > 1:
        pairs = ", ".join(" with ".join(pair) for pair in zip(*(own[:n_more] for own in rest.values()), strict=True))
        reason += f"; check {pairs}: together by their order alone"
    left = [f"{name} of {plate}" for plate, own in names.items() for name in own if name not in chosen[plate]]
    return chosen, f"{reason}; left out: {', '.join(left)}" if left else reason, has_label_free


def _matched(
    names: Mapping[str, Sequence[str]], key: Callable[[str], str | None]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Split channels into those whose key every plate has once, in the order of the keys, and all others."""
    keys = {plate: [key(name) for name in own] for plate, own in names.items()}
    once = [{each for each in own if each is not None and own.count(each) == 1} for own in keys.values()]
    common = sorted(set.intersection(*once))
    matched = {plate: [own[keys[plate].index(each)] for each in common] for plate, own in names.items()}
    return matched, {plate: [name for name in own if name not in matched[plate]] for plate, own in names.items()}


def _colour(name: str) -> str | None:
    return next((colour for colour, words in _COLOURS.items() if words.search(name)), None)
