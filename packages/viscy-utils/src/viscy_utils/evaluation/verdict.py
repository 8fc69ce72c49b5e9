"""What scores of embeddings say, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from viscy_utils.evaluation.comparison import Comparison, best_of
from viscy_utils.evaluation.folds import ONE_FOV
from viscy_utils.evaluation.scores import Score
from viscy_utils.reports.tables import Level, Marked

__all__ = ["verdict"]

_APART = 0.5  # of the way from mixed to separate


def verdict(comparisons: Sequence[Comparison], label: str, held_out: Sequence[str] = ()) -> list[Marked]:
    """Say of each embedding whether it carries the label and whether it mixes the experiments; the best first.

    Parameters
    ----------
    comparisons : sequence of Comparison
    label : str
        What was probed.
    held_out : sequence of str
        Experiments that the probe was scored on; cross-validated over FOVs otherwise.

    Returns
    -------
    list of Marked
        One sentence or two each; at last what the figures are.
    """
    lines = []
    best = best_of(comparisons).get("probe")
    if best is not None:
        lines.append(_best(comparisons, best, label))
    for row in comparisons:
        biology, mixing = _biology(row.probe, label), _mixing(row)
        level = biology.level if biology.level != "good" or mixing.level == "unknown" else mixing.level
        lines.append(Marked(f"{row.name}: {biology.text} {mixing.text}", level))
    unseen = (
        f"cells of {', '.join(held_out)}, on which none was trained" if held_out else "FOVs that it was not trained on"
    )
    figures = "Figures are balanced accuracies, their 95 % intervals over lineages and what chance would reach"
    return [*lines, Marked(f"{figures}; each probe is scored on {unseen}.", "unknown")]


def _best(comparisons: Sequence[Comparison], best: str, label: str) -> Marked:
    scored = sorted(
        (row for row in comparisons if not np.isnan(row.probe.value)), key=lambda row: row.probe.value, reverse=True
    )
    if not any(row.probe.is_informative for row in scored):
        return Marked(f"No embedding carries {label} above chance.", "bad")
    if len(scored) < 2:
        return Marked(f"{best} is the only embedding that could be probed for {label}.", "unknown")
    first, second = scored[0].probe, scored[1].probe
    clear = first.low > second.high
    words = "their intervals do not overlap" if clear else "their intervals overlap: the difference may be chance"
    text = f"{best} carries {label} best: {first.value:.3f} against {second.value:.3f} of {scored[1].name}; {words}."
    return Marked(text, "good" if clear else "watch")


def _biology(score: Score, label: str) -> Marked:
    if np.isnan(score.value):
        return Marked(f"whether it carries {label} is not known ({score.note}).", "unknown")
    text = f"{label} is read off at {score}"
    return Marked(f"{text}.", "good") if score.is_informative else Marked(f"{text}, not above chance.", "bad")


def _mixing(row: Comparison) -> Marked:
    """Say how experiments mix. Neighbours and a linear probe can disagree strongly: a direction may tell them still."""
    score = row.separability
    if np.isnan(score.value):
        return Marked(f"Mixing of experiments is not known ({score.note}).", "unknown")
    way = (score.value - score.chance) / (1 - score.chance)
    level: Level = "watch" if way > _APART else "good"
    if not score.is_informative:
        words = "are mixed"
    else:
        words = "stay apart" if way > _APART else "are mixed in part"
    probe = row.measures.get("experiment_probe")
    linear = "" if probe is None or np.isnan(probe.value) else f"; a linear probe at {probe.value:.3f}"
    text = f"Experiments {words}: neighbours tell them at {score}{linear}."
    return Marked(f"{text} This is {ONE_FOV}.", "unknown") if ONE_FOV in score.note else Marked(text, level)
