"""The table of all observations of all experiments, their lineages, and the anchors among them."""

from dynaclr.index.multi_experiment import MultiExperimentIndex

__all__ = ["MultiExperimentIndex"]
