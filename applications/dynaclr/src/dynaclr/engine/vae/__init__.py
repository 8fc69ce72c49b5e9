"""Training of variational autoencoders: the module, the bound it maximises, and what it logs and shows."""

from __future__ import annotations

from dynaclr.engine.vae.module import BetaVaeModule

__all__ = ["BetaVaeModule"]
