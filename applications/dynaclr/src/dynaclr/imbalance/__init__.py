"""Rare classes: their weights in a loss, and metrics that show when a model has given up on them."""

from __future__ import annotations

from dynaclr.imbalance.counts import count_classes
from dynaclr.imbalance.objective import BalancedCrossEntropy, ClassBalance, ClassWeightMethod, choose_class_loss
from dynaclr.imbalance.tally import ClassFigures, ClassMetrics, ClassTally

__all__ = [
    "BalancedCrossEntropy",
    "ClassBalance",
    "ClassFigures",
    "ClassMetrics",
    "ClassTally",
    "ClassWeightMethod",
    "choose_class_loss",
    "count_classes",
]
