"""Lightning modules of the application."""

from __future__ import annotations

from dynaclr.engine.contrastive import ContrastiveModule, ContrastivePrediction

__all__ = ["ContrastiveModule", "ContrastivePrediction"]
