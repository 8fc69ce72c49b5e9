"""Contrastive training: the module, and what it compares, logs and shows."""

from __future__ import annotations

from dynaclr.engine.contrastive.module import ContrastiveModule, ContrastivePrediction

__all__ = ["ContrastiveModule", "ContrastivePrediction"]
