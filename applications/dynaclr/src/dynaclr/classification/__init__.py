"""Supervised classification of cells on a contrastive encoder."""

from __future__ import annotations

from dynaclr.classification.module import ClassificationModule
from dynaclr.classification.writer import ClassificationPredictionWriter

__all__ = ["ClassificationModule", "ClassificationPredictionWriter"]
