"""Experiments as configs describe them, checked against their stores.

An :class:`ExperimentConfig` is one entry of the experiments YAML; an :class:`ExperimentRegistry` holds several of them,
with their FOVs and the correspondence of their channels.
"""

from dynaclr.experiment.config import ExperimentConfig
from dynaclr.experiment.registry import ExperimentRegistry

__all__ = ["ExperimentConfig", "ExperimentRegistry"]
