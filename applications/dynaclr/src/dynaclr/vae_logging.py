"""Earlier place of `dynaclr.engine.vae.logging`."""

from __future__ import annotations

from dynaclr.engine.vae.latent import kl_scalars
from dynaclr.engine.vae.logging import BetaVaeLogger

__all__ = ["BetaVaeLogger", "kl_scalars"]
