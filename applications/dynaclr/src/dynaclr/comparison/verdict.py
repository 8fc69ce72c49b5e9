"""Judgement of a run, criterion by criterion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from dynaclr.comparison.recorder import EpochRecord
from dynaclr.engine.vae.latent import COLLAPSED_NATS
from dynaclr.imbalance import ClassMetrics
from viscy_utils.reports.tables import Level

__all__ = ["LEVELS", "Criterion", "Level", "judge", "worst_level"]

LEVELS: tuple[Level, ...] = ("unknown", "good", "watch", "bad")
"""From none to the worst."""

_WORST_CLASS = (0.5, 0.2)  # worst-class accuracy: from here good, from here to be watched
_FOUND_MINORITY = (0.5, 0.1)  # predictions outside of the favourite class, relative to how many there should be
_JUMP = (0.1, 0.5)  # largest rise from epoch to epoch, relative to the first loss
_COLLAPSED = 0.5  # share of latent dimensions


@dataclass(frozen=True)
class Criterion:
    """One judgement.

    Parameters
    ----------
    name : str
    level : {"good", "watch", "bad", "unknown"}
        "unknown" where a run has no such metric.
    found : str
        The metric in words.
    """

    name: str
    level: Level
    found: str


def judge(records: Sequence[EpochRecord]) -> list[Criterion]:
    """Judge a run by its last epoch, and its loss by all of them.

    Parameters
    ----------
    records : sequence of EpochRecord

    Returns
    -------
    list of Criterion
        - ``accuracy``: good above that of always predicting the commonest class, else to be watched.
        - ``classes``: worst-class accuracy; good from 0.5, bad below 0.2.
        - ``mode collapse``: predictions outside of the class predicted most, relative to the samples outside of it;
          good from half of them, bad below a tenth, as when one class is predicted throughout.
        - ``loss stability``: largest rise from one epoch to the next, relative to the first loss; good up to 0.1, bad
          above 0.5 and for a loss that is not finite.
        - ``latent``: dimensions with a KL below 0.05 nats; good up to half of them, bad if all.
    """
    last = records[-1] if records else None
    confusion = None if last is None else last.confusion
    metrics = None if confusion is None else ClassMetrics(torch.tensor(confusion))
    judgements: list[tuple[str, Callable[[], tuple[Level, str] | None]]] = [
        ("accuracy", lambda: metrics and _accuracy(metrics)),
        ("classes", lambda: metrics and _classes(metrics)),
        ("mode collapse", lambda: metrics and _mode_collapse(metrics)),
        ("loss stability", lambda: _stability([r.train_loss for r in records if r.train_loss is not None])),
        ("latent", lambda: last and last.latent_kl and _latent(last.latent_kl)),
    ]
    return [Criterion(name, *(found() or ("unknown", "not known"))) for name, found in judgements]


def worst_level(criteria: Sequence[Criterion]) -> Level:
    """Return the worst level among judgements."""
    return max((criterion.level for criterion in criteria), key=LEVELS.index, default="unknown")


def _accuracy(metrics: ClassMetrics) -> tuple[Level, str]:
    base = max(metrics.true_shares)
    level: Level = "good" if metrics.accuracy > base else "watch"
    return level, f"{metrics.accuracy:.3f}, and {base:.3f} by predicting one class"


def _classes(metrics: ClassMetrics) -> tuple[Level, str]:
    worst = metrics.worst_class_accuracy
    k = metrics.class_accuracies.index(worst)
    return _graded(worst, _WORST_CLASS), f"worst-class accuracy {worst:.3f}, of class {k}"


def _mode_collapse(metrics: ClassMetrics) -> tuple[Level, str] | None:
    shares = metrics.predicted_shares
    favourite = shares.index(max(shares))
    missing, present = 1 - shares[favourite], 1 - metrics.true_shares[favourite]
    if not present:
        return None
    words = f"{shares[favourite]:.1%} of predictions are class {favourite}, as are {1 - present:.1%} of the samples"
    return _graded(missing / present, _FOUND_MINORITY), words


def _stability(losses: Sequence[float]) -> tuple[Level, str] | None:
    if not losses:
        return None
    if not all(map(math.isfinite, losses)):
        return "bad", f"not finite in epoch {[math.isfinite(loss) for loss in losses].index(False)}"
    jumps = [(after - before) / max(abs(losses[0]), 1e-12) for before, after in pairwise(losses)]
    jump = max([0.0, *jumps])
    level: Level = "good" if jump <= _JUMP[0] else "watch" if jump <= _JUMP[1] else "bad"
    return level, f"largest rise {jump:.0%} of the first loss"


def _latent(kl: Sequence[float]) -> tuple[Level, str]:
    collapsed = sum(value < COLLAPSED_NATS for value in kl)
    share = collapsed / len(kl)
    level: Level = "bad" if share == 1 else "watch" if share > _COLLAPSED else "good"
    return level, f"{collapsed} of {len(kl)} dimensions collapsed"


def _graded(value: float, limits: tuple[float, float]) -> Level:
    return "good" if value >= limits[0] else "watch" if value >= limits[1] else "bad"
